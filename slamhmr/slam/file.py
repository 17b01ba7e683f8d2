"""Camera paths made elsewhere: cameras.npz, MegaSaM's npz, TUM text files, COLMAP models.

TUM files are what DPVO, MASt3R-SLAM and most others write (see `slam.trajectories`).
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.artifacts import read_arrays
from slamhmr.errors import InputError
from slamhmr.slam.gaps import bridge, empty_segments
from slamhmr.slam.megasam import is_megasam, read_megasam
from slamhmr.slam.trajectories import read_colmap, read_tum
from slamhmr.types import CameraTrack

REQUIRED = ("world_from_cam", "intrinsics", "image_size", "scale_known", "moving", "source")
OPTIONAL = (
    "covariance", "points", "notes", "segments", "lost", "point_segments", "focal_sigma", "up"
)  # fmt: skip
NUMBERS = (*REQUIRED[:5], "focal_sigma", "up")
ORTHONORMAL = 1e-3  # largest entry of R R^T - 1 that float32 files and text with 4 digits need


def read_cameras(
    path: Path,
    *,
    frame_count: int | None,
    intrinsics: Float[Tensor, "4"] | None = None,
    image_size: tuple[int, int] | None = None,
    times: Float[Tensor, "T"] | None = None,
) -> CameraTrack:
    """Camera of every frame from cameras.npz, MegaSaM's, a TUM trajectory or a COLMAP model.

    `intrinsics` and the `times` of the frames, s, are used by TUM files alone, which hold none of
    them, `image_size` by these and MegaSaM's. A COLMAP model needs `frame_count` unless it has an
    image for every frame. Frames without a pose (rows of NaN, images that are not registered) are
    interpolated inside their segment and `lost`. Raises InputError when anything is missing, has a
    wrong shape, is not finite, is not a rotation, or disagrees with `frame_count`, or a whole
    segment is lost.
    """
    if not path.exists():
        raise InputError(f"camera file '{path}' does not exist")
    if path.is_dir():
        track = read_colmap(path, frame_count)
    elif path.suffix == ".npz" and is_megasam(path):
        track = read_megasam(path, frame_count=frame_count, image_size=image_size)
    elif path.suffix == ".npz":
        track = _read_npz(path)
    elif path.suffix == ".txt":
        track = read_tum(
            path,
            frame_count=frame_count,
            times=times,
            intrinsics=intrinsics,
            image_size=image_size,
        )
    else:
        raise InputError(
            f"camera file '{path}' is not .npz, .txt (TUM) or a directory (COLMAP model)"
        )
    if frame_count is not None and len(track.world_from_cam) != frame_count:
        raise InputError(
            f"'{path}' holds {len(track.world_from_cam)} camera poses but the sequence has "
            f"{frame_count} frames; give one pose per frame"
        )
    track = _bridged(track, path)
    _check(track, path)
    return track


def _bridged(track: CameraTrack, path: Path) -> CameraTrack:
    """The track with poses in frames that have none: rows of world_from_cam that are all NaN."""
    missing = torch.isnan(track.world_from_cam[:, :3]).flatten(1).all(dim=1)
    lost = missing if track.lost is None else missing | track.lost
    empty = empty_segments(~lost, track.starts)
    if len(empty) > 0:
        first, last = empty[0]
        raise InputError(
            f"'{path}': the camera is lost in all frames {first}-{last}"
            + (" of a segment" if len(track.starts) > 0 else "")
            + "; at least one pose is needed in each"
        )
    if not bool(lost.any()):
        return track
    poses = bridge(track.world_from_cam, ~missing, track.starts)
    return dataclasses.replace(track, world_from_cam=poses, lost=lost)


def _check(track: CameraTrack, path: Path) -> None:
    """Raise InputError unless the poses are rigid and the intrinsics possible."""
    pose = track.world_from_cam
    _require_finite(pose, "world_from_cam", path)
    _require_finite(track.intrinsics, "intrinsics", path)
    rotation = pose[:, :3, :3]
    error = (rotation @ rotation.transpose(-1, -2) - torch.eye(3)).abs().amax(dim=(1, 2))
    wrong = (error > ORTHONORMAL) | (torch.linalg.det(rotation) < 0)
    if bool(wrong.any()):
        raise InputError(
            f"'{path}': world_from_cam of frame {int(wrong.int().argmax())} is not a rotation "
            "(R R^T differs from 1 or the determinant is negative)"
        )
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=pose.dtype)
    if bool(((pose[:, 3] - last).abs() > ORTHONORMAL).any()):
        raise InputError(f"'{path}': the last row of world_from_cam must be 0 0 0 1")
    if bool((track.intrinsics[:, :2] <= 0).any()):
        raise InputError(f"'{path}': focal lengths must be positive")


def _require_finite(values: Tensor, name: str, path: Path) -> None:
    """Raise InputError naming the first frame that holds NaN or infinity."""
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise InputError(f"'{path}': {name} of frame {int(bad.int().argmax())} is not finite")


def _read_npz(path: Path) -> CameraTrack:
    """The contract's own format."""
    arrays = read_arrays(path, REQUIRED + OPTIONAL)
    missing = [key for key in REQUIRED if key not in arrays]
    if len(missing) > 0:
        raise InputError(f"'{path}' lacks {', '.join(missing)}; needed: {', '.join(REQUIRED)}")
    count = len(arrays["world_from_cam"]) if arrays["world_from_cam"].ndim > 0 else 0
    if count == 0:
        raise InputError(f"'{path}': world_from_cam holds no pose, (T, 4, 4) is needed")
    shapes: dict[str, tuple[int, ...]] = {
        "world_from_cam": (count, 4, 4),
        "intrinsics": (count, 4),
        "image_size": (2,),
        "scale_known": (),
        "moving": (),
        "source": (),
        "covariance": (count, 6, 6),
        "notes": (arrays["notes"].size if "notes" in arrays else 0,),
        "segments": (arrays["segments"].size if "segments" in arrays else 0,),
        "lost": (count,),
        "point_segments": (len(arrays["points"]) if "points" in arrays else 0,),
        "focal_sigma": (),
        "up": (3,),
    }
    for key, shape in shapes.items():
        if key in arrays and arrays[key].shape != shape:
            raise InputError(f"'{path}': {key} has shape {arrays[key].shape}, not {shape}")
    for key in NUMBERS:
        if key in arrays and arrays[key].dtype.kind not in "biuf":
            raise InputError(f"'{path}': {key} does not hold numbers but {arrays[key].dtype}")
    segments, lost = _segments(arrays, path), arrays.get("lost")
    if lost is not None and lost.dtype.kind != "b":
        raise InputError(f"'{path}': lost holds {lost.dtype}, not true and false")
    covariance, points = arrays.get("covariance"), arrays.get("points")
    if points is not None and (points.shape[1:] != (3,) or not np.isfinite(points).all()):
        raise InputError(f"'{path}': points must be finite and of shape (M, 3)")
    width, height = arrays["image_size"].tolist()
    return CameraTrack(
        world_from_cam=torch.from_numpy(arrays["world_from_cam"].astype(np.float64)),
        intrinsics=torch.from_numpy(arrays["intrinsics"].astype(np.float64)),
        image_size=(int(width), int(height)),
        scale_known=bool(arrays["scale_known"]),
        moving=bool(arrays["moving"]),
        source=str(arrays["source"]),
        covariance=None if covariance is None else torch.from_numpy(covariance.astype(np.float64)),
        points=None if points is None else torch.from_numpy(points.astype(np.float64)),
        notes=tuple(str(note) for note in arrays.get("notes", ())),
        segments=None if segments is None else torch.from_numpy(segments.astype(np.int64)),
        lost=None if lost is None else torch.from_numpy(lost),
        point_segments=_point_segments(arrays, path),
        focal_sigma=_focal_sigma(arrays, path),
        up=_up(arrays, path),
    )


def _up(arrays: dict[str, np.ndarray], path: Path) -> Tensor | None:
    """Direction against gravity, unit; InputError where it has no length."""
    if "up" not in arrays:
        return None
    up = torch.from_numpy(arrays["up"].astype(np.float64))
    if not bool(torch.isfinite(up).all()) or float(up.norm()) < 1e-6:
        raise InputError(f"'{path}': up {up.tolist()} must be a direction, against gravity")
    return up / up.norm()


def _segments(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray | None:
    """First frames of segments, None where there are none; InputError for impossible ones."""
    segments, count = arrays.get("segments"), len(arrays["world_from_cam"])
    if segments is None or segments.size == 0:
        return None
    if segments.dtype.kind not in "iu":
        raise InputError(f"'{path}': segments holds {segments.dtype}, not whole frame numbers")
    inside = bool((segments > 0).all() and (segments < count).all())
    if not inside or bool((np.diff(segments.astype(np.int64)) <= 0).any()):
        raise InputError(
            f"'{path}': segments {segments.tolist()} must be growing first frames, each within "
            f"1..{count - 1}"
        )
    return segments


def _point_segments(arrays: dict[str, np.ndarray], path: Path) -> Tensor | None:
    """Segment that each point lies in the world of, counted from 0."""
    owners = arrays.get("point_segments")
    if owners is None:
        return None
    most = arrays["segments"].size if "segments" in arrays else 0
    if owners.dtype.kind not in "iu" or bool(((owners < 0) | (owners > most)).any()):
        raise InputError(f"'{path}': point_segments must be numbers of segments, 0..{most}")
    return torch.from_numpy(owners.astype(np.int64))


def _focal_sigma(arrays: dict[str, np.ndarray], path: Path) -> Tensor | None:
    """Relative standard deviation of the focal length."""
    if "focal_sigma" not in arrays:
        return None
    value = float(arrays["focal_sigma"])
    if not 0 < value < 10:
        raise InputError(f"'{path}': focal_sigma {value} must be a share of the focal length")
    return torch.tensor(value, dtype=torch.float64)
