"""The findings of `slamhmr doctor` as text."""

from collections.abc import Iterator
from typing import Any

GOOD, MISSING = "ok", "--"
Findings = dict[str, Any]


def page(findings: Findings) -> str:
    """The text: what is there with its version, what is missing with what gets it."""
    lines = [
        f"slamhmr {findings['slamhmr']}, Python {findings['python']}, {findings['platform']}",
        f"{findings['processors']} processors, {findings['free_gb']} GB free here",
        "",
        "packages",
        *(_package(row) for row in findings["packages"]),
        "",
        "models and files",
        *(_file(row) for row in findings["models"]),
        f"  {GOOD}  default body, shipped; licensed SMPL files through --body-model PATH",
        "",
        "programs",
        *(_program(row) for row in findings["programs"]),
        "",
        "GPU",
        *_gpu(findings["gpu"]),
    ]
    if len(findings["backends"]) > 0:
        lines += ["", "backends, asked with the settings given here (doctor key=value ...)"]
        lines += [line for row in findings["backends"] for line in _backend(row)]
    lines += ["", findings["verdict"]]
    asked = findings.get("sequence")
    if asked is not None:
        lines += [
            f"{asked['folder']}: {asked['lacks'] or 'nothing is missing, optimize can begin'}"
        ]
    return "\n".join(lines)


def _package(row: Findings) -> str:
    if len(row["lacks"]) == 0:
        return f"  {GOOD}  {row['name']} {row['version']}"
    (lack,) = row["lacks"]
    wrong = "" if "not installed" in lack["what"] else f" ({lack['what']})"
    return f"  {MISSING}  {row['name']}: gives {row['gives']}{wrong}; {lack['get']}"


def _file(row: Findings) -> str:
    if len(row["lacks"]) == 0:
        return f"  {GOOD}  {_found(row['found'][0])}"
    (lack,) = row["lacks"]
    return f"  {MISSING}  {lack['what']}; {lack['get']}"


def _program(row: Findings) -> str:
    if row["path"] is None:
        return f"  {MISSING}  {row['name']}: gives {row['gives']}; {row['get']}"
    if row["error"] is not None:
        return f"  {MISSING}  {row['name']}: '{row['path']}' is there, but says: {row['error']}"
    return f"  {GOOD}  {row['name']}: {row['version'] or 'no version'} ({row['path']})"


def _gpu(row: Findings) -> Iterator[str]:
    build = row["torch_cuda"]
    torch = "torch without CUDA" if build is None else f"torch for CUDA {build}"
    driver = "no NVIDIA driver" if row["driver"] is None else f"driver {row['driver']}"
    if row["driver_cuda"] is not None:
        driver += " for CUDA up to {}.{}".format(*row["driver_cuda"])
    hidden = "" if row["visible"] is None else f", CUDA_VISIBLE_DEVICES='{row['visible']}'"
    for number, gpu in enumerate(row["devices"]):
        yield f"  {GOOD}  {number}: {gpu['name']}, {gpu['gib']} GiB"
    if len(row["devices"]) == 0:
        yield f"  {MISSING}  no CUDA device: our own steps run on the processor"
    yield f"      {torch}, {driver}{hidden}"


def _backend(row: Findings) -> Iterator[str]:
    mark = GOOD if len(row["lacks"]) == 0 else MISSING
    yield f"  {mark}  {row['name']}: {row['about']}"
    for found in row["found"]:
        yield f"      {_found(found)}"
    for lack in row["lacks"]:
        yield f"      lacks: {lack['what']}; {lack['get']}"


def _found(row: Findings) -> str:
    if "path" not in row:
        return f"{row['what']} {row['version']}"
    size = f"{row['bytes'] / 1e6:.1f} MB"
    return f"{row['what']}: {row['path']}, {size}, sha256 {row['sha256']} ({row['checked']})"
