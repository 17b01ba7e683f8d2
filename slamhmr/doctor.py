"""What is installed, what is missing, what each missing piece would give and how to get it."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass

from slamhmr import __version__
from slamhmr.config import config_folder
from slamhmr.detect.models import IN_WHEEL, cache_folder
from slamhmr.errors import SlamhmrError

GOOD, MISSING = "ok", "--"


@dataclass(frozen=True)
class Piece:
    """An installable package: what it gives and how to get it."""

    package: str
    gives: str
    get: str
    needed: bool  # nothing works without it


PIECES: tuple[Piece, ...] = (
    *(
        Piece(name, "everything", "pip install slamhmr", True)
        for name in ("torch", "numpy", "scipy", "roma", "omegaconf", "jaxtyping", "tqdm")
    ),
    Piece("av", "reading and writing video", "pip install av", True),
    Piece("opencv-python-headless", "images and pictures", "pip install slamhmr", True),
    Piece("ai-edge-litert", "people from pixels (detect=blazepose)", "pip install slamhmr", False),
    Piece("pycolmap", "the path of a moving camera (slam=sfm)", "pip install slamhmr", False),
    Piece("smplx", "comparing body models with the official code", "pip install smplx", False),
    Piece("anny", "making the default body anew", "pip install 'slamhmr[body]'", False),
)
HEAVY_MODEL = "pose_landmark_heavy.tflite"


def diagnose() -> tuple[str, bool]:
    """The findings as text, and whether `optimize` can run on a sequence with observations."""
    lines = [
        f"slamhmr {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{os.cpu_count()} processors, {shutil.disk_usage('.').free / 1e9:.0f} GB free here",
        "",
        "packages",
    ]
    versions = {piece.package: _version(piece.package) for piece in PIECES}
    for piece in PIECES:
        version = versions[piece.package]
        if version is not None:
            lines.append(f"  {GOOD}  {piece.package} {version}")
        else:
            lines.append(f"  {MISSING}  {piece.package}: gives {piece.gives}; {piece.get}")
    complete = all(versions[piece.package] is not None for piece in PIECES if piece.needed)
    lines += ["", "models and files", *_models()]
    settings, found = _settings()
    lines += [settings, "", *_accelerator(versions["torch"])]
    lines.append(_verdict(versions, complete and found))
    return "\n".join(lines), complete and found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _models() -> list[str]:
    cache = cache_folder()
    missing = [name for name in IN_WHEEL if not (cache / name).is_file()]
    lines = []
    if len(missing) == 0:
        lines.append(f"  {GOOD}  BlazePose networks in {cache}")
    else:
        how = "fetched from PyPI (36 MB) at the first use; offline: options.blazepose.models=FOLDER"
        lines.append(f"  {MISSING}  BlazePose networks: give people from pixels; {how}")
    if (cache / HEAVY_MODEL).is_file():
        lines.append(f"  {GOOD}  {HEAVY_MODEL}")
    else:
        how = "npm package @mediapipe/pose, then options.blazepose.models=FOLDER"
        lines.append(f"  {MISSING}  {HEAVY_MODEL}: gives better limbs at 3 times the cost; {how}")
    lines.append(f"  {GOOD}  default body, shipped; licensed SMPL files through --body-model PATH")
    return lines


def _settings() -> tuple[str, bool]:
    try:
        return f"  {GOOD}  settings in {config_folder()}", True
    except SlamhmrError as e:
        return f"  {MISSING}  settings: {e}", False


def _accelerator(torch_version: str | None) -> list[str]:
    if torch_version is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return ["no CUDA device: not needed, everything runs on the processor"]
    return [f"CUDA device: {torch.cuda.get_device_name()} (not needed)"]


def _verdict(versions: dict[str, str | None], complete: bool) -> str:
    if not complete:
        return "optimize cannot run; install what is missing above"
    lacking = [name for name in ("ai-edge-litert", "pycolmap") if versions[name] is None]
    if len(lacking) == 0:
        return "ready: slamhmr demo, slamhmr optimize --seq DIR"
    others = ", ".join(lacking)
    return f"ready for sequences with observations.npz and cameras.npz; for pixels: {others}"
