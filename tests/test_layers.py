"""The layers of the package: imports point down only, siblings never import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each tuple is one floor of siblings, lowest first. A module may import from lower floors and from
# its own package.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "solve", "threads", "atomic", "gpus", "words"),
    ("registry", "skeleton", "components", "exhaustion", "memory", "preemption", "lock"),
    ("config", "types", "device", "foreign"),
    ("video", "artifacts", "geometry", "views", "safe_pickle"),
    ("constraints", "codehash", "body_pickle", "phalp_tracks", "nonsense"),
    ("sequence", "runfolder", "body", "masks"),
    ("body_licensed",),
    ("body_files",),
    ("cameras", "capsules", "motions", "undistort", "shots"),
    ("layout", "flights"),
    ("reprojection", "scene", "footage", "sources", "viewfolders"),
    ("neighbours",),
    ("features",),
    ("terms",),
    ("jitter", "evidence", "contacts"),
    ("supports",),
    ("standing",),
    ("scene_problem", "quality"),
    ("judgement", "gates", "observability"),
    ("notes", "cadence"),
    (
        "assets",
        "detect",
        "slam",
        "init",
        "stages",
        "eval",
        "synth",
        "export",
        "report",
        "report_page",
        "posterior",
    ),
    ("camera_step", "preflight", "checkpoint", "slahmr_folder"),
    ("steps", "doctor", "doctor_page", "training"),
    ("multiview",),
    ("pipeline",),
    ("feedforward",),
    ("demo", "bench", "batch"),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
# body.load_body hands a file to its readers at call time; they make the class it declares.
ALLOWED = {("body", "body_files")}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(dotted: str) -> str | None:
    """Module or subpackage of slamhmr that a dotted name belongs to; None for foreign ones."""
    pieces = dotted.split(".")
    if pieces[0] != "slamhmr" or len(pieces) < 2 or pieces[1].startswith("__"):
        return None
    return pieces[1]


def own_part(path: Path) -> str:
    return path.relative_to(ROOT / "slamhmr").with_suffix("").parts[0]


def broken_edges(path: Path) -> list[tuple[str, str]]:
    own = own_part(path)
    edges = {(own, part(name)) for name in imported(path)}
    return [
        (own, other)
        for own, other in edges
        if other is not None and other != own and (own, other) not in ALLOWED
        if FLOOR[other] >= FLOOR[own]
    ]


def test_every_module_has_its_floor():
    unknown = {own_part(path) for path in modules("slamhmr")} - set(FLOOR) - {"__init__"}
    assert unknown == set(), "say in FLOORS where they stand"


@pytest.mark.parametrize("path", modules("slamhmr"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if own_part(path) == "__init__":
        assert {part(name) for name in imported(path)} <= {None}
    else:
        assert broken_edges(path) == []


def test_solve_imports_nothing_of_ours():
    for path in modules("slamhmr/solve"):
        assert {part(name) for name in imported(path)} <= {None, "solve"}, path


def test_priors_never_import_slamhmr():
    inference = [p for p in modules("priors") if "training" not in p.parts]
    for path in inference:
        assert {part(name) for name in imported(path)} <= {None}, path


def test_a_sideways_import_inside_a_function_is_noticed(tmp_path, monkeypatch):
    wrong = tmp_path / "slamhmr" / "detect" / "wrong.py"
    wrong.parent.mkdir(parents=True)
    wrong.write_text("import slamhmr.video\ndef f():\n    from slamhmr.slam import file\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert broken_edges(wrong) == [("detect", "slam")]
