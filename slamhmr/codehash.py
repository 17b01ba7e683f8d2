"""The code version of a step: a hash of every source file of ours that it can import."""

import ast
import functools
from pathlib import Path

from slamhmr.artifacts import content_hash

ROOT = Path(__file__).parents[1]
OURS = ("slamhmr", "priors")
DATA = ("slamhmr/assets/*.npz", "priors/weights/*")  # read by name, so no import tells of them
# Run by name in environments of their own: beside the package in a checkout, else inside it.
SCRIPTS = ("third_party/*/*.py", "slamhmr/third_party/*/*.py")
RUNS_SCRIPTS = "slamhmr.foreign"


@functools.cache
def code_hash(*entries: str) -> str:
    """Hash of the modules `entries` ("slamhmr.stages"), all of ours that they import, and our data.

    Imports inside functions count; modules that are only named in strings do not, but for the
    scripts of `third_party`, which belong to whoever imports `slamhmr.foreign`.
    """
    found: set[Path] = set()
    waiting = list(entries)
    while len(waiting) > 0:
        path = source_of(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting.extend(imports_of(path))
    patterns = (*DATA, *SCRIPTS) if source_of(RUNS_SCRIPTS) in found else DATA
    data = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    return content_hash(sorted(found) + sorted(data))


def source_of(module: str) -> Path | None:
    """Source file of a module or package of ours; None for foreign ones and for attributes."""
    if module.split(".")[0] not in OURS:
        return None
    stem = ROOT / Path(*module.split("."))
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Dotted names that a source file imports, wherever in it; packages above them included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return tuple(sorted(names))
