"""What is installed, what is missing, what each missing piece would give and how to get it."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slamhmr import __version__
from slamhmr.components import (
    COMPONENTS,
    Component,
    Found,
    Lack,
    file_sha256,
    lacking_file,
    lacking_package,
    watching,
)
from slamhmr.detect.models import HEAVY, IN_WHEEL, SHA256, cache_folder
from slamhmr.gpus import devices, driver_cuda, torch_cuda
from slamhmr.registry import TABLES, backend

if TYPE_CHECKING:  # what stands on packages that may be missing is imported when they are there
    from slamhmr.config import Config

TOOLS = {  # programs that are asked for their version: what they give, how to get them
    "ffmpeg": (
        ("-version",),
        "nothing needed: video goes through PyAV",
        "apt install ffmpeg",
    ),
    "sbatch": (("--version",), "cluster jobs (Slurm)", "run it on a login node of the cluster"),
}
ANSWER_S = 10.0  # s that a program may take to tell its version
Findings = dict[str, Any]


def diagnose(
    files: Sequence[Path] = (), overrides: Sequence[str] = (), sequence: Path | None = None
) -> Findings:
    """Everything found, as JSON's types; `complete` is whether `optimize` can run at all.

    `files` and `overrides` are those of `optimize`: backends are asked with these options, so the
    weights that they name are looked at too. With a `sequence` directory, what `optimize` would say
    of it before any work stands in `sequence`. Raises ConfigError for settings that are wrong.
    """
    packages = [_package(component) for component in COMPONENTS]
    complete = not any(found["needed"] and len(found["lacks"]) > 0 for found in packages)
    findings: Findings = {
        "slamhmr": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "free_gb": round(shutil.disk_usage(".").free / 1e9),
        "packages": packages,
        "models": [_model(name) for name in (*IN_WHEEL, HEAVY)],
        "programs": [_program(name) for name in TOOLS],
        "gpu": _gpu(),
        "backends": [],
    }
    if complete:
        from slamhmr.config import load_config

        config = load_config(files, overrides)
        findings["backends"] = _backends(config)
        if sequence is not None:
            findings["sequence"] = _sequence(sequence, config)
    return {**findings, "complete": complete, "verdict": _verdict(findings, complete)}


def _sequence(folder: Path, config: "Config") -> Findings:
    """What a run of all steps on a sequence directory lacks; "" if it can begin."""
    from slamhmr.errors import InputError, MissingAsset
    from slamhmr.preflight import checked_clip

    try:
        checked_clip(folder, config, folder, overwrite=True)
    except (InputError, MissingAsset) as e:
        return {"folder": str(folder), "lacks": str(e)}
    return {"folder": str(folder), "lacks": ""}


def _package(component: Component) -> Findings:
    with watching() as found:
        lacks = lacking_package(
            component.module or component.package,
            component.get,
            distribution=component.package,
            version=component.version,
        )
    return {
        "name": component.package,
        "version": found[0].version if len(found) > 0 else None,
        "gives": component.gives,
        "needed": component.needed,
        "lacks": _lacks(lacks),
    }


def _model(name: str) -> Findings:
    """A network of BlazePose in the cache; the light ones come by themselves."""
    get = "fetched from PyPI (36 MB) at the first use; offline: options.blazepose.models=FOLDER"
    if name == HEAVY:
        get = "better limbs at 3 times the cost: npm pack @mediapipe/pose, then "
        get += "options.blazepose.models=FOLDER options.blazepose.landmarks=heavy"
    with watching() as found:
        path = cache_folder() / name
        lacks = lacking_file(path, "BlazePose network", get, sha256=SHA256[name])
    return {"name": name, "found": [_found(one, {}) for one in found], "lacks": _lacks(lacks)}


def _program(name: str) -> Findings:
    """Where a program is, its version, or what it says instead of one."""
    arguments, gives, get = TOOLS[name]
    path = shutil.which(name)
    version, error = None, None
    if path is not None:
        try:
            done = subprocess.run(
                [path, *arguments], capture_output=True, text=True, timeout=ANSWER_S, check=False
            )
            said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
            version = said[0] if done.returncode == 0 and len(said) > 0 else None
            error = None if done.returncode == 0 else (said or [f"exit code {done.returncode}"])[-1]
        except (OSError, subprocess.TimeoutExpired) as e:
            error = str(e)
    return {
        "name": name, "path": path, "version": version, "error": error, "gives": gives, "get": get,
    }  # fmt: skip


def _gpu() -> Findings:
    """CUDA devices, the driver, and the CUDA version that torch was built for."""
    driver = Path("/proc/driver/nvidia/version")
    words = driver.read_text(encoding="utf-8").split() if driver.is_file() else []
    numbers = [word for word in words if word.replace(".", "").isdigit() and "." in word]
    return {
        "devices": [{"name": gpu.name, "gib": round(gpu.gib, 1)} for gpu in devices()],
        "driver": numbers[0] if len(numbers) > 0 else None,
        "driver_cuda": driver_cuda(),
        "torch_cuda": torch_cuda(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _backends(config: "Config") -> list[Findings]:
    """Every registered backend: what it found and what it lacks with the options of `config`."""
    from slamhmr.config import backend_options
    from slamhmr.preflight import lacking_backends

    rows = []
    for kind, table in TABLES.items():
        for name in sorted(set(table) - {"file"}):
            module = backend(kind, name)
            with watching() as found:
                lacks = lacking_backends([(kind, name)], config)
            pins = _pins(name, backend_options(module.Options, name, config))
            about = (module.__doc__ or "").strip().splitlines()[0]
            rows.append(
                {
                    "name": f"{kind}={name}",
                    "about": about,
                    "found": [_found(one, pins) for one in _distinct(found)],
                    "lacks": _lacks(lacks),
                }
            )
    return rows


def _distinct(found: list[Found]) -> list[Found]:
    """Every file once: as pinned, which is asked last, where it is."""
    return list({one.path or one.what: one for one in found}.values())


def _pins(name: str, options: Any) -> dict[Path, str]:
    """How each file that the options name is pinned: "sha256.vitpose.pose"."""
    words = [(field.name, getattr(options, field.name)) for field in fields(options)]
    return {
        Path(value).expanduser(): f"sha256.{name}.{option}"
        for option, value in words
        if isinstance(value, str) and value != ""
    }


def _found(found: Found, pins: dict[Path, str]) -> Findings:
    """A package with its version, or a file with its size, its sha256 and how to pin that."""
    if found.path is None:
        return {"what": found.what, "version": found.version}
    size = found.path.stat().st_size
    digest = file_sha256(found.path)
    pin = f"; pin it: {pins[found.path]}={digest}" if found.path in pins else ""
    known = "as expected" if found.expected == digest else f"not known to us{pin}"
    return {
        "what": found.what,
        "path": str(found.path),
        "bytes": size,
        "sha256": digest,
        "checked": known,
    }


def _lacks(lacks: Sequence[Lack]) -> list[Findings]:
    return [{"what": lack.what, "get": lack.get} for lack in lacks]


def _verdict(findings: Findings, complete: bool) -> str:
    if not complete:
        return "optimize cannot run; install what is missing above"
    lacking = [row["name"] for row in findings["backends"] if len(row["lacks"]) > 0]
    own = {"detect=blazepose", "slam=auto", "slam=sfm", "init=lift"} & set(lacking)
    if len(own) == 0:
        return "ready: slamhmr demo, slamhmr optimize --seq DIR"
    others = ", ".join(sorted(own))
    return f"ready for sequences with observations.npz and cameras.npz; for pixels: {others}"
