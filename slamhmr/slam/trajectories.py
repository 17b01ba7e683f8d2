"""Camera paths of other tools: TUM text files and COLMAP model directories.

Both may lack frames: where there is no pose, world_from_cam is NaN until `read_cameras` fills it.
TUM files, all camera to world: DPVO (princeton-vl/DPVO@e3d090a, demo.py --save_trajectory) numbers
the frames that it took, every second one unless told otherwise; MASt3R-SLAM
(rmurai0610/MASt3R-SLAM@206f92c, logs/NAME.txt) writes keyframes alone and stamps the pictures of a
folder with their number / 30 s, whatever their rate.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.errors import InputError
from slamhmr.geometry import rigid
from slamhmr.slam.colmap import load_pycolmap
from slamhmr.types import CameraTrack
from slamhmr.video import natural

MOVED = 1e-6  # of the scene or unit length, below which a path stands still
CLOCK = 30.0  # pictures per s of MASt3R-SLAM's stamps for folders
ON_CLOCK = 5e-3  # how near to whole numbers such stamps are, in float32
OFF_TIME = 0.1  # of a frame, beyond which they are not taken for the seconds of the video
STRIDES = range(2, 9)  # of DPVO, that unnumbered frames are looked at for
WHOLE = 1e-6  # how near to whole numbers time stamps are that count frames


def read_tum(
    path: Path,
    *,
    frame_count: int | None,
    times: Float[Tensor, "T"] | None,
    intrinsics: Float[Tensor, "4"] | None,
    image_size: tuple[int, int] | None,
) -> CameraTrack:
    """Lines `timestamp tx ty tz qx qy qz qw`, camera to world, in order of time.

    One line per frame; with fewer, the time stamps tell which: frame numbers, or seconds like
    `times`, the times of the frames.
    """
    if intrinsics is None or image_size is None:
        raise InputError(f"'{path}' (TUM) holds no intrinsics; state them in sequence.yaml")
    rows = _tum_rows(path)
    quaternion = torch.from_numpy(rows[:, 4:])
    length = quaternion.norm(dim=-1, keepdim=True)
    if bool(((length - 1).abs() > 0.01).any()):
        raise InputError(f"'{path}': quaternions qx qy qz qw must have length 1")
    rotation = roma.unitquat_to_rotmat(quaternion / length)  # roma's order is xyzw as well
    pose = rigid(rotation, torch.from_numpy(rows[:, 1:4]))
    notes: tuple[str, ...] = ()
    if frame_count is not None and len(rows) < frame_count:
        frames, notes = _frames_at(rows[:, 0], frame_count, times, path)
        pose = _spread(pose, frames, frame_count)
    return CameraTrack(
        world_from_cam=pose,
        intrinsics=intrinsics.double().repeat(len(pose), 1),
        image_size=image_size,
        scale_known=False,
        moving=_moves(pose),
        source=f"file: {path.name} (TUM)",
        notes=notes,
    )


def _tum_rows(path: Path) -> Float[np.ndarray, "R 8"]:
    """The numbers of a TUM file, checked."""
    try:
        rows = np.loadtxt(path, dtype=np.float64, comments="#", ndmin=2)
    except ValueError as e:
        raise InputError(f"'{path}' is not a TUM trajectory of numbers: {e}") from e
    if rows.shape[0] == 0 or rows.shape[1] != 8:
        raise InputError(f"'{path}': a TUM line holds 8 numbers, timestamp tx ty tz qx qy qz qw")
    if not np.isfinite(rows).all():
        line = int((~np.isfinite(rows)).any(axis=1).argmax())
        raise InputError(
            f"'{path}': pose {line} is not finite; leave out the lines of frames without a pose"
        )
    if bool((np.diff(rows[:, 0]) <= 0).any()):
        raise InputError(f"'{path}': timestamps must increase from line to line")
    return rows


def _frames_at(
    stamps: Float[np.ndarray, "R"],
    frame_count: int,
    times: Float[Tensor, "T"] | None,
    path: Path,
) -> tuple[list[int], tuple[str, ...]]:
    """Frame of every time stamp, and a note: whole numbers count frames, others are seconds."""
    notes: tuple[str, ...] = ()
    counted = _on_clock(stamps, frame_count, times)
    if bool((np.abs(stamps - stamps.round()) < WHOLE).all()) and stamps[-1] < frame_count:
        frames = stamps.round().astype(int)
        _require_no_stride(frames, frame_count, path)
    elif counted is not None:
        frames = counted
        notes = (f"time stamps taken as frame numbers / {CLOCK:g}, as MASt3R-SLAM writes them",)
    elif times is not None:
        frames = np.abs(stamps[:, None] - times.numpy()).argmin(axis=1)
        off = np.abs(stamps - times.numpy()[frames])
        step = float(times.diff().median()) if len(times) > 1 else 1.0
        if off.max() > 0.5 * step:
            raise InputError(
                f"'{path}' holds {len(stamps)} poses for {frame_count} frames and timestamp "
                f"{stamps[off.argmax()]:g} is at no frame (0 to {float(times[-1]):g} s); stamp "
                "poses with the seconds since the first frame or with frame numbers"
            )
    else:
        frames = np.zeros(0, dtype=int)
    if len(set(frames.tolist())) < len(stamps) or frames.min() < 0:
        raise InputError(
            f"'{path}' holds {len(stamps)} poses for {frame_count} frames and its timestamps do "
            "not say which; stamp poses with frame numbers, counted from 0"
        )
    return list(frames.tolist()), notes


def _on_clock(
    stamps: Float[np.ndarray, "R"], frame_count: int, times: Float[Tensor, "T"] | None
) -> Int[np.ndarray, "R"] | None:
    """Frames of stamps that count pictures in steps of 1/30 s and are not the video's seconds."""
    frames = (stamps * CLOCK).round().astype(int)
    whole = bool((np.abs(stamps * CLOCK - frames) < ON_CLOCK).all())
    if times is None or not whole or not 0 <= frames.min() <= frames.max() < frame_count:
        return None
    seconds = times.numpy()
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    off = np.abs(stamps[:, None] - seconds).min(axis=1).max()
    return frames if off > OFF_TIME * step else None


def _require_no_stride(frames: Int[np.ndarray, "R"], frame_count: int, path: Path) -> None:
    """Raise InputError for frames numbered 0, 1, 2 ... that must be every k-th of the clip."""
    count = len(frames)
    if count < 3 or not np.array_equal(frames, np.arange(count)):
        return
    for stride in STRIDES:
        if count in (frame_count // stride, -(-frame_count // stride)):
            raise InputError(
                f"'{path}' holds {count} poses numbered 0..{count - 1} for {frame_count} frames, "
                f"as DPVO does with a stride of {stride} (its default is 2), which does not say "
                f"the frames; run it with --stride 1, or multiply the time stamps by {stride}"
            )


def _spread(
    pose: Float[Tensor, "R 4 4"], frames: list[int], frame_count: int
) -> Float[Tensor, "T 4 4"]:
    """Poses on their frames, NaN elsewhere."""
    spread = torch.full((frame_count, 4, 4), torch.nan, dtype=torch.float64)
    spread[frames] = pose
    return spread


def read_colmap(path: Path, frame_count: int | None) -> CameraTrack:
    """Registered images of a model, text or binary, placed on the frames by name."""
    pycolmap = load_pycolmap()

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
    pose = torch.full((count, 4, 4), torch.nan, dtype=torch.float64)
    camera = torch.ones(count, 4, dtype=torch.float64)
    for frame, image in zip(frames, images, strict=True):
        pose[frame] = torch.eye(4, dtype=torch.float64)
        pose[frame, :3] = torch.from_numpy(image.cam_from_world().inverse().matrix())
        camera[frame] = _pinhole(model.camera(image.camera_id), path)
    nearest = (torch.arange(count)[:, None] - torch.tensor(frames)).abs().argmin(dim=1)
    first = model.camera(images[0].camera_id)
    return CameraTrack(
        world_from_cam=pose,
        intrinsics=camera[torch.tensor(frames)[nearest]],
        image_size=(first.width, first.height),
        scale_known=False,
        moving=_moves(pose),
        source=f"file: {path.name} (COLMAP)",
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
    """True if the centres of a path differ, those that are there."""
    centres = pose[:, :3, 3][torch.isfinite(pose[:, 0, 3])]
    return bool((centres - centres[:1]).abs().max() > MOVED)
