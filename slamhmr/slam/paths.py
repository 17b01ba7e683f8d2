"""From models of the keyframes to poses in every frame: the trusted parts of a travelled path."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.geometry import apply, invert
from slamhmr.slam.checks import distrust_model, distrust_path
from slamhmr.slam.colmap import load_pycolmap
from slamhmr.slam.gaps import bridge
from slamhmr.slam.mapping import POSE_ERROR, Model, map_keyframes
from slamhmr.slam.tracks import Tracks

FEWEST = 12  # points for the pose of a frame
LEAST_KEYS = 8  # keyframes left over, for which another model is sought


@dataclass(frozen=True)
class Path:
    """A part of the path in a world of its own: the first of its frames at identity, depth 1."""

    model: Model
    first: int
    poses: Float[Tensor, "P 4 4"]  # world_from_cam of frames `first` on
    measured: Bool[np.ndarray, "P"]  # the others are bridged
    points: Float[Tensor, "M 3"]


def trusted_paths(
    tracks: Tracks,
    keys: list[int],
    intrinsics: Float[np.ndarray, "4"],
    fps: float,
    *,
    refine_focal: bool,
) -> tuple[list[Path], list[str]]:
    """Parts of the path that pass their checks, in order of time, and why others do not.

    A model of the keyframes need not hold all of them; for what is left before and after it
    another one is sought. Together the parts take in all frames.
    """
    models: list[Model] = []
    reasons: list[str] = []
    waiting = [keys]
    while len(waiting) > 0:
        span = waiting.pop(0)
        model = map_keyframes(tracks, span, intrinsics, refine_focal=refine_focal)
        if model is None:
            reasons.append("no reconstruction was found")
            continue
        before = [key for key in span if key < model.frames[0]]
        after = [key for key in span if key > model.frames[-1]]
        waiting += [left for left in (before, after) if len(left) >= LEAST_KEYS]
        doubts = distrust_model(model, tracks.unit) or _distrust(tracks, model, intrinsics, fps)
        reasons += doubts
        if len(doubts) == 0:
            models.append(model)
    models.sort(key=lambda model: int(model.frames[0]))
    starts = [0, *(int(model.frames[0]) for model in models[1:]), len(tracks.ids)]
    paths = [
        every_frame(tracks, model, _lens(model, intrinsics), first, stop)
        for model, first, stop in zip(models, starts[:-1], starts[1:], strict=False)
    ]
    return paths, list(dict.fromkeys(reasons))


def _lens(model: Model, intrinsics: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    """The intrinsics that a model goes with."""
    factor = 1.0 if model.focal is None else model.focal.factor
    return intrinsics * np.array([factor, factor, 1.0, 1.0])


def _distrust(
    tracks: Tracks, model: Model, intrinsics: Float[np.ndarray, "4"], fps: float
) -> list[str]:
    """What is wrong with the path between a model's first and last keyframe."""
    first, last = int(model.frames[0]), int(model.frames[-1])
    path = every_frame(tracks, model, _lens(model, intrinsics), first, last + 1)
    numbers = np.array([tracks.number(frame) for frame in range(first, last + 1)]) - tracks.number(
        first
    )
    known = np.zeros(numbers[-1] + 1, dtype=bool)
    known[numbers] = path.measured
    poses = torch.eye(4, dtype=torch.float64).repeat(len(known), 1, 1)
    poses[numbers] = path.poses
    return distrust_path(bridge(poses, torch.from_numpy(known)).numpy(), known, fps)


def every_frame(
    tracks: Tracks, model: Model, intrinsics: Float[np.ndarray, "4"], first: int, stop: int
) -> Path:
    """Poses of the frames `first` to `stop` - 1, which hold the model's.

    Keyframes keep the poses of the bundle adjustment, other frames are resected from the points
    they follow, frames with fewer than FEWEST of them are interpolated.
    """
    poses = torch.eye(4, dtype=torch.float64).repeat(stop - first, 1, 1)
    measured = np.zeros(stop - first, dtype=bool)
    poses[model.frames - first] = torch.from_numpy(model.world_from_cam)
    measured[model.frames - first] = True
    for row in np.flatnonzero(~measured).tolist():
        pose = _resect(tracks, model, first + row, intrinsics)
        if pose is not None:
            poses[row] = pose
            measured[row] = True
    poses = bridge(poses, torch.from_numpy(measured))
    cam_from_world = invert(torch.from_numpy(model.world_from_cam)).numpy()
    depths = []
    for row, frame in enumerate(model.frames.tolist()):
        seen = np.isin(model.point_ids, tracks.ids[frame])
        depths.append(model.points[seen] @ cam_from_world[row, 2, :3] + cam_from_world[row, 2, 3])
    unit = float(np.median(np.concatenate(depths)))
    points = apply(invert(poses[0]), torch.from_numpy(model.points).double()) / unit
    poses = invert(poses[0]) @ poses
    poses[:, :3, 3] /= unit
    return Path(model, first, poses, measured, points)


def _resect(
    tracks: Tracks, model: Model, frame: int, intrinsics: np.ndarray
) -> Float[Tensor, "4 4"] | None:
    """Pose of one frame from the points it follows; None if too few agree."""
    pycolmap = load_pycolmap()

    _, here, there = np.intersect1d(
        tracks.ids[frame], model.point_ids, assume_unique=True, return_indices=True
    )
    if len(here) < FEWEST:
        return None
    width, height = tracks.image_size
    camera = pycolmap.Camera(model="PINHOLE", width=width, height=height, params=intrinsics)
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.random_seed = 0
    options.ransac.max_error = POSE_ERROR * tracks.unit
    found = pycolmap.estimate_and_refine_absolute_pose(
        tracks.points[frame][here], model.points[there], camera, options
    )
    if found is None or found["num_inliers"] < max(FEWEST, 0.5 * len(here)):
        return None
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3] = torch.from_numpy(found["cam_from_world"].inverse().matrix())
    return pose
