"""Camera paths made elsewhere: cameras.npz, TUM text files, COLMAP model directories."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.artifacts import read_arrays
from slamhmr.errors import InputError
from slamhmr.geometry import rigid
from slamhmr.slam.sfm import interpolate_poses
from slamhmr.types import CameraTrack
from slamhmr.video import natural

REQUIRED = ("world_from_cam", "intrinsics", "image_size", "scale_known", "moving", "source")
OPTIONAL = ("covariance", "points", "notes")
ORTHONORMAL = 1e-3  # largest entry of R R^T - 1 that float32 files and text with 4 digits need
LONGEST_GAP = 15  # frames without an image in a COLMAP model that are still interpolated
MOVED = 1e-6  # of the scene or unit length, below which a path stands still


def read_cameras(
    path: Path,
    *,
    frame_count: int | None,
    intrinsics: Float[Tensor, "4"] | None = None,
    image_size: tuple[int, int] | None = None,
) -> CameraTrack:
    """Camera of every frame from cameras.npz, a TUM trajectory or a COLMAP model directory.

    `intrinsics` and `image_size` are used by TUM files alone, which hold neither. A COLMAP model
    needs `frame_count` unless it has an image for every frame. Raises InputError when anything is
    missing, has a wrong shape, is not finite, is not a rotation, or disagrees with `frame_count`.
    """
    if not path.exists():
        raise InputError(f"camera file '{path}' does not exist")
    if path.is_dir():
        track = _read_colmap(path, frame_count)
    elif path.suffix == ".npz":
        track = _read_npz(path)
    elif path.suffix == ".txt":
        track = _read_tum(path, intrinsics, image_size)
    else:
        raise InputError(
            f"camera file '{path}' is not .npz, .txt (TUM) or a directory (COLMAP model)"
        )
    if frame_count is not None and len(track.world_from_cam) != frame_count:
        raise InputError(
            f"'{path}' holds {len(track.world_from_cam)} camera poses but the sequence has "
            f"{frame_count} frames; give one pose per frame"
        )
    _check(track, path)
    return track


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
    }
    for key, shape in shapes.items():
        if key in arrays and arrays[key].shape != shape:
            raise InputError(f"'{path}': {key} has shape {arrays[key].shape}, not {shape}")
    for key in ("world_from_cam", "intrinsics", "image_size", "scale_known", "moving"):
        if arrays[key].dtype.kind not in "biuf":
            raise InputError(f"'{path}': {key} does not hold numbers but {arrays[key].dtype}")
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
    )


def _read_tum(
    path: Path, intrinsics: Tensor | None, image_size: tuple[int, int] | None
) -> CameraTrack:
    """Lines `timestamp tx ty tz qx qy qz qw`, camera to world, one per frame in order of time."""
    if intrinsics is None or image_size is None:
        raise InputError(f"'{path}' (TUM) holds no intrinsics; state them in sequence.yaml")
    try:
        rows = np.loadtxt(path, dtype=np.float64, comments="#", ndmin=2)
    except ValueError as e:
        raise InputError(f"'{path}' is not a TUM trajectory of numbers: {e}") from e
    if rows.shape[0] == 0 or rows.shape[1] != 8:
        raise InputError(f"'{path}': a TUM line holds 8 numbers, timestamp tx ty tz qx qy qz qw")
    if bool((np.diff(rows[:, 0]) <= 0).any()):
        raise InputError(f"'{path}': timestamps must increase from line to line")
    quaternion = torch.from_numpy(rows[:, 4:])
    length = quaternion.norm(dim=-1, keepdim=True)
    if bool(((length - 1).abs() > 0.01).any()):
        raise InputError(f"'{path}': quaternions qx qy qz qw must have length 1")
    rotation = roma.unitquat_to_rotmat(quaternion / length)  # roma's order is xyzw as well
    pose = rigid(rotation, torch.from_numpy(rows[:, 1:4]))
    return CameraTrack(
        world_from_cam=pose,
        intrinsics=intrinsics.double().repeat(len(pose), 1),
        image_size=image_size,
        scale_known=False,
        moving=_moves(pose),
        source=f"file: {path.name} (TUM)",
    )


def _read_colmap(path: Path, frame_count: int | None) -> CameraTrack:
    """Registered images of a model, text or binary, placed on the frames by name."""
    import pycolmap

    if not any((path / f"images{suffix}").exists() for suffix in (".bin", ".txt")):
        raise InputError(f"'{path}' is not a COLMAP model: it holds no images.bin or images.txt")
    try:
        model = pycolmap.Reconstruction(path)
    except (ValueError, RuntimeError, OSError) as e:
        raise InputError(f"'{path}' cannot be read as a COLMAP model: {e}") from e
    images = sorted(
        (model.image(number) for number in model.reg_image_ids()), key=lambda i: natural(i.name)
    )
    if len(images) == 0:
        raise InputError(f"the COLMAP model '{path}' holds no registered image")
    frames = _frames_of([image.name for image in images], frame_count, path)
    count = frame_count if frame_count is not None else len(images)
    pose = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    camera = torch.ones(count, 4, dtype=torch.float64)
    known = torch.zeros(count, dtype=torch.bool)
    for frame, image in zip(frames, images, strict=True):
        pose[frame, :3] = torch.from_numpy(image.cam_from_world().inverse().matrix())
        camera[frame] = _pinhole(model.camera(image.camera_id), path)
        known[frame] = True
    notes = _note_gaps(known, path)
    nearest = (torch.arange(count)[:, None] - torch.tensor(frames)).abs().argmin(dim=1)
    first = model.camera(images[0].camera_id)
    pose = interpolate_poses(pose, known)
    return CameraTrack(
        world_from_cam=pose,
        intrinsics=camera[torch.tensor(frames)[nearest]],
        image_size=(first.width, first.height),
        scale_known=False,
        moving=_moves(pose),
        source=f"file: {path.name} (COLMAP)",
        notes=notes,
    )


def _frames_of(names: list[str], frame_count: int | None, path: Path) -> list[int]:
    """Frame of every image: by order when complete, else by the last number in its name."""
    if frame_count is None or len(names) == frame_count:
        return list(range(len(names)))
    numbers = [re.findall(r"\d+", Path(name).stem) for name in names]
    if any(len(found) == 0 for found in numbers):
        raise InputError(
            f"'{path}' holds {len(names)} images for {frame_count} frames and names without "
            "numbers; name images by their frame number"
        )
    frames = [int(found[-1]) for found in numbers]
    if min(frames) > 0 and max(frames) == frame_count:
        frames = [frame - 1 for frame in frames]  # numbered from 1, as ffmpeg does
    if len(set(frames)) < len(frames) or max(frames) >= frame_count:
        raise InputError(
            f"'{path}': image numbers {min(frames)}..{max(frames)} do not name distinct frames of "
            f"0..{frame_count - 1}"
        )
    return frames


def _note_gaps(known: Bool[Tensor, "T"], path: Path) -> tuple[str, ...]:
    """Sentence about interpolated frames; InputError if too many in a row are missing."""
    anchors = torch.nonzero(known)[:, 0]
    edges = torch.cat([torch.tensor([-1]), anchors, torch.tensor([len(known)])])
    gap = int(edges.diff().max()) - 1
    if gap > LONGEST_GAP:
        raise InputError(
            f"the COLMAP model '{path}' has no image for {gap} frames in a row (at most "
            f"{LONGEST_GAP} are interpolated); register more images"
        )
    missing = int((~known).sum())
    if missing == 0:
        return ()
    return (f"camera interpolated in {missing} of {len(known)} frames, at most {gap} in a row",)


def _pinhole(camera: Any, path: Path) -> Float[Tensor, "4"]:
    """Fx fy cx cy of a COLMAP camera, whose pixel centres are ours; no distortion allowed."""
    extra = [float(camera.params[i]) for i in camera.extra_params_idxs()]
    if any(value != 0.0 for value in extra):
        raise InputError(
            f"the COLMAP model '{path}' has lens distortion ({camera.model.name}); undistort the "
            "images first (colmap image_undistorter)"
        )
    values = [
        camera.focal_length_x,
        camera.focal_length_y,
        camera.principal_point_x,
        camera.principal_point_y,
    ]
    return torch.tensor(values, dtype=torch.float64)


def _moves(pose: Float[Tensor, "T 4 4"]) -> bool:
    """True if the centres of a path differ."""
    return bool((pose[:, :3, 3] - pose[:1, :3, 3]).abs().max() > MOVED)
