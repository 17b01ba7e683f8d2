"""Calibrations of several cameras in one file, as cameras.npz and sequence.yaml of every view.

Read are Qualisys files (`*.qca.txt`: XML, millimetres, 1/64 px, camera axes x right, y up, z
backwards, world z up) and the TOML files of Pose2Sim, Caliscope and Anipose (metres, OpenCV's axes
and rotation vectors). Both put the centre of the first pixel at 0; ours is at (0.5, 0.5).
"""

import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from slamhmr.artifacts import read_arrays, to_arrays, write_arrays, write_text
from slamhmr.config import read_yaml
from slamhmr.errors import InputError
from slamhmr.geometry import rigid
from slamhmr.sequence import OBSERVATIONS, SETTINGS, find_video
from slamhmr.types import CameraTrack
from slamhmr.video import open_video

QUALISYS_SUBPIXELS = 64  # numbers of a .qca.txt per px
PADDING = 16  # px by which a codec may pad or cut the width and height that were calibrated


@dataclass(frozen=True)
class Calibrated:
    """One camera of a calibration."""

    name: str
    world_from_cam: Float[Tensor, "4 4"]  # metres, OpenCV camera
    intrinsics: Float[Tensor, "4"]
    distortion: tuple[float, ...]  # k1 k2 p1 p2 [k3]
    image_size: tuple[int, int]


def read_calibration(path: Path) -> tuple[list[Calibrated], list[float] | None]:
    """Every camera of a file, and the direction against gravity in their world if it says so.

    Raises InputError if the file is missing, of another kind, or lacks a number.
    """
    if not path.is_file():
        raise InputError(f"calibration '{path}' does not exist")
    if path.suffix == ".toml":
        found, up = _read_toml(path), None
    elif path.name.endswith(".qca.txt"):
        found, up = _read_qualisys(path), [0.0, 0.0, 1.0]
    else:
        raise InputError(f"calibration '{path.name}' is not *.toml or *.qca.txt (Qualisys)")
    if len(found) == 0:
        raise InputError(f"calibration '{path.name}' holds no camera")
    for camera in found:
        numbers = torch.cat([camera.world_from_cam.flatten(), camera.intrinsics])
        if not bool(torch.isfinite(numbers).all()) or bool((camera.intrinsics[:2] <= 0).any()):
            raise InputError(f"calibration '{path.name}': camera '{camera.name}' is impossible")
    return found, up


def write_views(path: Path, folder: Path) -> list[str]:
    """Cameras and settings of every `folder`/views/NAME from a calibration; names of the views.

    Static cameras, one pose per frame of the view's video or, without one, of its observations.
    Settings that sequence.yaml has stay, but for `intrinsics` and `distortion`. Raises InputError
    if a view is not in the calibration, holds neither, or is of another size.
    """
    cameras, up = read_calibration(path)
    by_name = {camera.name: camera for camera in cameras}
    views = sorted(p for p in (folder / "views").glob("*") if p.is_dir())
    if len(views) == 0:
        raise InputError(f"'{folder}' holds no views/NAME for the cameras {', '.join(by_name)}")
    for view in views:
        if view.name not in by_name:
            raise InputError(
                f"view '{view.name}' is not in '{path.name}', which has {', '.join(by_name)}"
            )
        _write_view(by_name[view.name], up, view)
    return [view.name for view in views]


def _write_view(camera: Calibrated, up: list[float] | None, view: Path) -> None:
    settings = view / SETTINGS
    content = read_yaml(settings) if settings.exists() else {}
    source, size, count = _filmed(view, content)
    if max(abs(a - b) for a, b in zip(size, camera.image_size, strict=True)) > PADDING:
        raise InputError(
            f"'{source}' is {size[0]} x {size[1]} px, calibrated were {camera.image_size[0]} x "
            f"{camera.image_size[1]}; scale the one or the other"
        )
    track = CameraTrack(
        camera.world_from_cam.repeat(count, 1, 1),
        camera.intrinsics.repeat(count, 1),
        size,
        scale_known=True,
        moving=False,
        source="calibration",
        up=None if up is None else torch.tensor(up, dtype=torch.float64),
    )
    write_arrays(view / "cameras.npz", to_arrays(track))
    said: dict[str, Any] = {"intrinsics": [round(v, 4) for v in camera.intrinsics.tolist()]}
    if any(camera.distortion):
        said["distortion"] = list(camera.distortion)
    _update(settings, said)


def _filmed(view: Path, settings: dict[str, Any]) -> tuple[Path, tuple[int, int], int]:
    """The video of a view, or its observations: which, width and height in px, number of frames."""
    source, frames = find_video(view, settings.get("video")), settings.get("frames")
    if source is not None:
        video = open_video(source, frames=None if frames is None else (frames[0], frames[1]))
        return source, video.image_size, video.frame_count
    source = view / OBSERVATIONS[0]
    if not source.exists():
        raise InputError(
            f"'{view}' holds neither a video nor {source.name}, whose frames the cameras are for"
        )
    seen = read_arrays(source, ("image_size", "confidence"))
    if len(seen) < 2 or seen["image_size"].shape != (2,) or seen["confidence"].ndim != 3:
        raise InputError(f"'{source}' lacks image_size (2,) or confidence (N, T, K)")
    width, height = (int(side) for side in seen["image_size"])
    return source, (width, height), seen["confidence"].shape[1]


def _update(path: Path, said: dict[str, Any]) -> None:
    content = read_yaml(path) if path.exists() else {}
    write_text(path, yaml.safe_dump({**content, **said}, default_flow_style=None, sort_keys=False))


def _read_qualisys(path: Path) -> list[Calibrated]:
    try:
        root = ElementTree.parse(path).getroot()
        return [_qualisys_camera(camera) for camera in root.iter("camera")]
    except (ElementTree.ParseError, KeyError, ValueError, AttributeError) as e:
        raise InputError(f"'{path}' is not a Qualisys calibration: {e}") from e


def _qualisys_camera(camera: ElementTree.Element) -> Calibrated:
    """Transform: columns r1., r2., r3. are the camera's axes x right, y up, z backwards."""
    transform, lens, field = (
        {key: float(value) for key, value in _attributes(camera, name).items()}
        for name in ("transform", "intrinsic", "fov_video")
    )
    axes = torch.tensor(
        [[transform[f"r{i}{j}"] for j in (1, 2, 3)] for i in (1, 2, 3)], dtype=torch.float64
    )
    opencv = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    rotation = roma.special_procrustes(axes.T @ opencv)
    centre = torch.tensor([transform[key] for key in "xyz"], dtype=torch.float64) / 1000
    named = ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV")
    numbers = torch.tensor([lens[name] / QUALISYS_SUBPIXELS for name in named]).double()
    corner = torch.tensor([field["left"], field["top"]], dtype=torch.float64)
    numbers[2:] += 0.5 - corner
    size = (round(field["right"] - field["left"]) + 1, round(field["bottom"] - field["top"]) + 1)
    terms = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1",
             "tangentalDistortion2", "radialDistortion3")  # fmt: skip
    return Calibrated(
        camera.attrib["serial"], rigid(rotation, centre), numbers,
        tuple(lens[term] for term in terms), size,
    )  # fmt: skip


def _attributes(camera: ElementTree.Element, name: str) -> dict[str, str]:
    found = camera.find(name)
    if found is None:
        raise KeyError(f"camera without '{name}'")
    return found.attrib


def _read_toml(path: Path) -> list[Calibrated]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        cameras = {k: v for k, v in content.items() if isinstance(v, dict) and "matrix" in v}
        return [_toml_camera(str(v.get("name", k)), v) for k, v in cameras.items()]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, ValueError, TypeError) as e:
        raise InputError(f"'{path}' is not a calibration in TOML: {e}") from e


def _toml_camera(name: str, values: dict[str, Any]) -> Calibrated:
    if values.get("fisheye"):
        raise ValueError(f"camera '{name}' is a fisheye")
    matrix = _numbers(values, "matrix", 3, 3)
    rotation = roma.rotvec_to_rotmat(_numbers(values, "rotation", 3)).T
    shift, size = _numbers(values, "translation", 3), _numbers(values, "size", 2).tolist()
    return Calibrated(
        name,
        rigid(rotation, -(rotation @ shift)),
        torch.stack([matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5]),
        tuple(float(value) for value in values.get("distortions", ())),
        (int(size[0]), int(size[1])),
    )


def _numbers(values: dict[str, Any], key: str, *shape: int) -> Tensor:
    """An entry as a float64 tensor. Raises ValueError if it has another shape."""
    array = np.array(values[key], dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"'{key}' has shape {array.shape}, not {shape}")
    return torch.from_numpy(array)
