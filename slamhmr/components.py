"""What the components of others need to run, found out without importing any of them.

Every backend with foreign needs has `lacking(options) -> list[Lack]`, made of the functions here: a
package, a file, a GPU. `require` turns all lacks into one error, before any work is done.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from slamhmr.errors import MissingAsset
from slamhmr.gpus import GIB as GIB
from slamhmr.gpus import Gpu as Gpu
from slamhmr.gpus import answer, driver_cuda, torch_cuda
from slamhmr.gpus import devices as devices

# Reinstalled by force: to pip a torch without CUDA is as good as one with it.
GET_TORCH = (
    "pip install --force-reinstall 'torch>=2.6,<2.14' "
    "--index-url https://download.pytorch.org/whl/cu126"
)


def own_install(extra: str = "", *, flags: str = "") -> str:
    """The command that installs this package with an extra; it is on no index of packages."""
    what = "." if extra == "" else f"'.[{extra}]'"
    return f"pip install {flags}{' ' if flags else ''}{what} (in the checkout of slamhmr)"


OWN = own_install()
# Asked of an interpreter: is the module there, which version, which commit, torch's CUDA build.
# It imports nothing but the standard library, so it runs in any environment.
QUESTION = """
import sys
sys.path = [folder for folder in sys.path if folder != ""]  # not the working directory
import importlib.metadata as m, importlib.util as u, json
def ask(module, distribution):
    spec = u.find_spec(module)
    if spec is None:
        return None
    try:
        found = m.distribution(distribution)
    except m.PackageNotFoundError:
        return None if spec.origin is None else {"version": None, "commit": None}
    url = json.loads(found.read_text("direct_url.json") or "{}")
    return {"version": found.version, "commit": url.get("vcs_info", {}).get("commit_id")}
print(json.dumps(ask(sys.argv[1], sys.argv[2])))
"""


@dataclass(frozen=True)
class Lack:
    """One thing that is missing, and the command or setting that gets it."""

    what: str  # "package 'anny' is not installed"
    get: str  # "pip install 'anny>=0.3'"


@dataclass(frozen=True)
class Installed:
    """A package as an interpreter sees it."""

    version: str | None  # None: importable, but without metadata
    commit: str | None  # of an installation from git


@dataclass(frozen=True)
class Found:
    """A package or file that somebody asked about and that is there as it must be."""

    what: str
    version: str = ""  # of a package, with the commit of an installation from git
    path: Path | None = None  # of a file
    expected: str = ""  # its sha256, where one is known


@dataclass(frozen=True)
class Component:
    """A package that is no backend's alone: what it gives and how to get it."""

    package: str  # name for pip
    gives: str
    get: str
    needed: bool = False  # nothing works without it
    module: str = ""  # where that is not the name for pip
    version: str = ""  # range that our code was written for


# What `slamhmr doctor` asks about besides the backends, which say themselves what they lack.
COMPONENTS: tuple[Component, ...] = (
    Component("torch", "everything", OWN, True, version=">=2.6,<2.14"),
    Component("numpy", "everything", OWN, True, version=">=1.26"),
    Component("scipy", "everything", OWN, True, version=">=1.11"),
    Component("roma", "everything", OWN, True, version=">=1.5"),
    Component("omegaconf", "everything", OWN, True, version=">=2.4"),
    Component("jaxtyping", "everything", OWN, True, version=">=0.3"),
    Component("tqdm", "everything", OWN, True),
    Component("safetensors", "our own weights", OWN, True),
    Component("av", "reading and writing video", "pip install 'av>=12'", True, version=">=12"),
    Component("opencv-python-headless", "images and pictures", OWN, True, module="cv2"),
    Component("ai-edge-litert", "people from pixels", OWN, module="ai_edge_litert"),
    Component(
        "pycolmap",
        "the path of a travelling camera",
        "pip install 'pycolmap>=4.0,<5'",
        version=">=4.0,<5",
    ),
    Component("submitit", "arrays of cluster jobs (batch --executor slurm)", OWN),
    Component(
        "pytorch3d",
        "overlays drawn on a GPU",
        own_install("pytorch3d", flags="--no-build-isolation"),
        version=">=0.7.4,<0.8",
    ),
    Component("pyarrow", "parquet of a batch's results", own_install("batch")),
    Component("smplx", "comparing body models with the official code", "pip install smplx"),
    Component("anny", "making the default body anew", own_install("body")),
)
_RUNS_ELSEWHERE: ContextVar[bool] = ContextVar("runs_elsewhere", default=False)
_WATCHED: ContextVar[list[Found] | None] = ContextVar("watched", default=None)


@contextlib.contextmanager
def watching() -> Iterator[list[Found]]:
    """Collects what the functions below find, for who wants to show it."""
    found: list[Found] = []
    token = _WATCHED.set(found)
    try:
        yield found
    finally:
        _WATCHED.reset(token)


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """No GPU is missed in here: what is asked about runs on nodes that cannot be asked."""
    token = _RUNS_ELSEWHERE.set(True)
    try:
        yield
    finally:
        _RUNS_ELSEWHERE.reset(token)


def runs_elsewhere() -> bool:
    """Whether this is within `elsewhere`."""
    return _RUNS_ELSEWHERE.get()


def _note(found: Found) -> None:
    watched = _WATCHED.get()
    if watched is not None:
        watched.append(found)


def lacking_package(
    module: str,
    get: str,
    *,
    distribution: str | None = None,
    version: str = "",
    python: str | Path | None = None,
) -> list[Lack]:
    """Whether top-level `module` is installed in the range `version` (">=0.4,<1"; "": any).

    `distribution`: its name for pip where that differs. `python`: the interpreter of another
    environment (its existence is checked first); by default the running one.
    """
    name = distribution or module
    where = ""
    if python is not None and str(python) != "":
        lacks = lacking_interpreter(python, f"the environment of '{name}'", get)
        if len(lacks) > 0:
            return lacks
        where = f" in the environment of '{python}'"
    found = installed(module, name, str(python or ""))
    if found is None:
        return [Lack(f"package '{name}' is not installed{where}", get)]
    if version != "" and found.version is None:
        return [Lack(f"package '{name}'{where} does not tell its version, needed: {version}", get)]
    if version != "" and not in_range(found.version or "", version):
        is_there = f"package '{name}' is installed{where} as {found.version}"
        return [Lack(f"{is_there}, needed: {version}", get)]
    commit = f" (commit {found.commit[:12]})" if found.commit else ""
    _note(Found(f"package '{name}'{where}", f"{found.version or 'unknown version'}{commit}"))
    return []


def lacking_interpreter(python: str | Path, what: str, get: str) -> list[Lack]:
    """Whether `python` is a file that can be run."""
    path = Path(python).expanduser()
    if not path.is_file():
        return [Lack(f"{what}: interpreter '{python}' does not exist", get)]
    if not os.access(path, os.X_OK):
        return [Lack(f"{what}: '{python}' cannot be run", get)]
    return []


def lacking_commit(folder: str | Path, commits: Sequence[str], what: str, get: str) -> list[Lack]:
    """Whether a clone is at one of these commits (40 hex digits); [] where git says nothing."""
    commit = checked_out(Path(folder).expanduser())
    if commit is None:
        return []
    if commit not in commits:
        known = " or ".join(known[:7] for known in commits)
        return [Lack(f"{what}: '{folder}' is at commit {commit[:7]}, needed: {known}", get)]
    _note(Found(what, f"commit {commit[:12]}"))
    return []


def checked_out(folder: Path) -> str | None:
    """The commit that a clone has checked out, None where that cannot be told without git."""
    git = folder / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text(encoding="utf-8").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = [line.split()[0] for line in packed if line.endswith(f" {name}")]
    return found[0] if len(found) > 0 else None


def lacking_file(
    path: str | Path | None, what: str, get: str, *, sha256: str | None = None
) -> list[Lack]:
    """Whether `path` is given, a file, and has the sha256 where one is known (64 hex digits).

    `what` names it and who needs it: "weights of detect 'vitpose'".
    """
    if path is None or str(path) == "":
        return [Lack(f"{what}: no file is given", get)]
    file = Path(path).expanduser()
    if not file.is_file():
        kind = "is a folder" if file.is_dir() else "does not exist"
        return [Lack(f"{what}: '{path}' {kind}", get)]
    if not sha256:
        _note(Found(what, path=file))
        return []
    try:
        digest = file_sha256(file)
    except OSError as e:
        return [Lack(f"{what}: '{path}' cannot be read ({e.strerror})", get)]
    if digest != sha256.lower():
        return [Lack(f"{what}: '{path}' has sha256 {digest}, expected {sha256.lower()}", get)]
    _note(Found(what, path=file, expected=digest))
    return []


def lacking_gpu(
    what: str, gib: float, *, python: str | Path | None = None, by_torch: bool = True
) -> list[Lack]:
    """Whether there is a CUDA device with `gib` GiB that this environment's torch can use.

    `what` names who needs it: "slam 'droid'". With `python`, the interpreter of another
    environment, its torch is asked (a version "+cpu"); what does not run `by_torch` asks none.
    """
    if runs_elsewhere():
        return []
    get = f"run it on a machine with an NVIDIA GPU of {gib:g} GiB or more (slamhmr doctor)"
    build = torch_cuda() if by_torch and not python else ""
    there = installed("torch", "torch", str(python)) if python else None
    if build is None or (there is not None and (there.version or "").endswith("+cpu")):
        where = f" in the environment of '{python}'" if python else ""
        said = f"{what} needs a GPU, but torch is installed without CUDA{where}"
        return [Lack(said, GET_TORCH if not python else f"{python} -m {GET_TORCH}")]
    gpus = devices()
    if len(gpus) == 0:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" (CUDA_VISIBLE_DEVICES='{hidden}')" if hidden is not None else ""
        return [Lack(f"{what} needs a GPU, no CUDA device was found{why}", get)]
    driver = driver_cuda()
    if build != "" and driver is not None and int(build.split(".")[0]) > driver[0]:
        said = f"torch is built for CUDA {build}, the driver knows up to {driver[0]}.{driver[1]}"
        return [Lack(f"{what} needs a GPU: {said}", f"update the driver, or {GET_TORCH}")]
    largest = max(gpus, key=lambda gpu: gpu.gib)
    if largest.gib < gib:
        have = f"{largest.name} has {largest.gib:.1f} GiB"
        return [Lack(f"{what} needs {gib:g} GiB of GPU memory, {have}", get)]
    return []


def require(lacks: Sequence[Lack]) -> None:
    """Raise one MissingAsset with everything in `lacks`, a line each; nothing if it is empty."""
    lines = list(dict.fromkeys(f"{lack.what}; {lack.get}" for lack in lacks))
    if len(lines) == 0:
        return
    if len(lines) == 1:
        raise MissingAsset(lines[0])
    listed = "".join(f"\n  {number}. {line}" for number, line in enumerate(lines, start=1))
    first = lacks[0].what  # for tables that show the first line alone
    raise MissingAsset(
        f"{len(lines)} things are missing, nothing was started ({first}, ...):{listed}"
    )


def installed(module: str, distribution: str, python: str = "") -> Installed | None:
    """The package as the interpreter `python` ("": the running one) sees it; None: not at all."""
    if python != "":
        return _installed_there(module, distribution, python)
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return None
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None if spec.origin is None else Installed(None, None)  # None: a mere folder
    url = json.loads(found.read_text("direct_url.json") or "{}")
    return Installed(found.version, url.get("vcs_info", {}).get("commit_id"))


@functools.cache
def _installed_there(module: str, distribution: str, python: str) -> Installed | None:
    command = [str(Path(python).expanduser()), "-c", QUESTION, module, distribution]
    said = answer(command)
    if not isinstance(said, dict):
        return None
    return Installed(said["version"], said["commit"])


def in_range(version: str, wanted: str) -> bool:
    """Whether a version lies in a range as pip writes it, pre-releases included."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(wanted).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def cache_root() -> Path:
    """Folder of what is fetched or remembered: `$SLAMHMR_CACHE`, else `~/.cache/slamhmr`."""
    root = os.environ.get("SLAMHMR_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "slamhmr"


def file_sha256(path: Path) -> str:
    """The sha256 of a file, remembered for its path, size and time of change. Raises OSError."""
    state = path.stat()
    key, stamp = str(path.resolve()), [state.st_size, state.st_mtime_ns]
    memory = cache_root() / "sha256.json"
    known = _remembered(memory)
    if key in known and known[key][:2] == stamp:
        return str(known[key][2])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    known = {file: entry for file, entry in known.items() if Path(file).is_file()}
    known[key] = [*stamp, digest]
    with contextlib.suppress(OSError):  # a home that cannot be written: hashed again next time
        memory.parent.mkdir(parents=True, exist_ok=True)
        scratch = memory.with_name(f"{memory.name}.{os.getpid()}")
        scratch.write_text(json.dumps(known), encoding="utf-8")
        scratch.replace(memory)
    return digest


def _remembered(memory: Path) -> dict[str, list[int | str]]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
