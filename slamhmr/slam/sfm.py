"""Camera that travels: COLMAP on keyframes, then a pose in every frame."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.errors import BackendError
from slamhmr.geometry import apply, invert
from slamhmr.slam.checks import distrust_model, distrust_path
from slamhmr.slam.gaps import bridge
from slamhmr.slam.mapping import POSE_ERROR, Model, map_keyframes
from slamhmr.slam.rotation import turn
from slamhmr.slam.tracks import Tracks, follow_background
from slamhmr.types import CameraTrack, Observations, Video

log = logging.getLogger(__name__)

STEP = 12.0  # px at 640 px width that the background moves between keyframes
NEAREST, FURTHEST = 3, 6  # frames between keyframes
FEWEST = 12  # points for the pose of a frame


@dataclass(frozen=True)
class Options:
    """Settings of the travelling camera."""

    longest_side: int = 640  # px at which the background is followed
    features: int = 800  # background points wanted in each frame
    max_keyframes: int = 200  # more are thinned out evenly
    allow_degraded: bool = False  # rotation-only with a note instead of an error


def track_camera(
    video: Video,
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    *,
    progress: bool,
) -> CameraTrack:
    """Path of a camera that the user says travels, in an arbitrary scale, frame 0 at identity.

    Raises BackendError when the reconstruction fails its checks, unless `allow_degraded`.
    """
    tracks = follow_background(
        video,
        observations,
        longest_side=options.longest_side,
        count=options.features,
        progress=progress,
    )
    notes = ("travelling on the user's word",)
    return travel(video, observations, tracks, intrinsics, options, notes)


def travel(
    video: Video,
    observations: Observations,
    tracks: Tracks,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    notes: tuple[str, ...],
) -> CameraTrack:
    """Checked path of a travelling camera; its unit of length is the median depth of the scene.

    Raises BackendError with what failed and what the user can do; with `allow_degraded` the
    rotations alone are returned instead, with a note that says so.
    """
    k = intrinsics.double().numpy()
    model = map_keyframes(tracks, choose_keyframes(tracks, options.max_keyframes), k)
    if model is None:
        reasons = ["no reconstruction was found"]
    else:
        reasons = distrust_model(model, tracks.unit)
        if len(reasons) == 0:
            poses, points, measured = every_frame(tracks, model, k)
            reasons = distrust_path(poses.numpy(), measured, video.fps)
    if len(reasons) > 0 or model is None:
        failure = f"the camera travels but its path cannot be trusted: {'; '.join(reasons)}"
        if not options.allow_degraded:
            raise BackendError(
                f"camera: {failure}; give cameras.npz from another tool or the intrinsics, or set "
                "allow_degraded=true to go on with rotations only and a camera that stays put"
            )
        log.warning("camera: %s; degraded to rotation-only as allowed", failure)
        return turn(
            video,
            observations,
            tracks,
            intrinsics,
            (*notes, f"DEGRADED to rotation-only: {failure}"),
        )
    return CameraTrack(
        world_from_cam=poses,
        intrinsics=intrinsics.double().repeat(len(poses), 1),
        image_size=video.image_size,
        scale_known=False,
        moving=True,
        source="sfm",
        points=points,
        notes=(*notes, *_story(model, measured, tracks.unit)),
    )


def _story(model: Model, measured: np.ndarray, unit: float) -> tuple[str, ...]:
    """Sentences for the report."""
    text = f"structure from motion: {len(model.frames)} of {model.asked} keyframes, "
    text += f"{len(model.points)} points, {model.points_per_frame:.0f} per keyframe, reprojection "
    text += f"{model.error / unit:.2f} px at 640 px width, parallax {model.angle:.1f} deg"
    missing = int((~measured).sum())
    if missing == 0:
        return (text,)
    return text, f"camera interpolated in {missing} of {len(measured)} frames"


def choose_keyframes(tracks: Tracks, most: int) -> list[int]:
    """Frames to reconstruct: first, last, and one whenever the background moved by STEP."""
    last = len(tracks.ids) - 1
    keys = [0]
    for frame in range(1, last):
        if frame - keys[-1] < NEAREST:
            continue
        ids, before, after = tracks.shared(keys[-1], frame)
        moved = np.median(np.linalg.norm(after - before, axis=1)) if len(ids) > 0 else np.inf
        if moved > STEP * tracks.unit or frame - keys[-1] >= FURTHEST:
            keys.append(frame)
    keys.append(last)
    if len(keys) > most:
        keys = [keys[i] for i in np.linspace(0, len(keys) - 1, most).round().astype(int)]
    return keys


def every_frame(
    tracks: Tracks, model: Model, intrinsics: Float[np.ndarray, "4"]
) -> tuple[Float[Tensor, "T 4 4"], Float[Tensor, "M 3"], Bool[np.ndarray, "T"]]:
    """Poses of all frames, the scene's points, and which poses are measured.

    Frame 0 at identity, median scene depth 1.

    Keyframes keep the poses of the bundle adjustment, other frames are resected from the points
    they follow, frames with fewer than FEWEST of them are interpolated.
    """
    count = len(tracks.ids)
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    measured = np.zeros(count, dtype=bool)
    poses[model.frames] = torch.from_numpy(model.world_from_cam)
    measured[model.frames] = True
    for frame in np.flatnonzero(~measured):
        pose = _resect(tracks, model, int(frame), intrinsics)
        if pose is not None:
            poses[frame] = pose
            measured[frame] = True
    poses = bridge(poses, torch.from_numpy(measured))
    cam_from_world = invert(torch.from_numpy(model.world_from_cam)).numpy()
    depths = []
    for row, frame in enumerate(model.frames):
        seen = np.isin(model.point_ids, tracks.ids[frame])
        depths.append(model.points[seen] @ cam_from_world[row, 2, :3] + cam_from_world[row, 2, 3])
    unit = float(np.median(np.concatenate(depths)))
    points = apply(invert(poses[0]), torch.from_numpy(model.points).double()) / unit
    poses = invert(poses[0]) @ poses
    poses[:, :3, 3] /= unit
    return poses, points, measured


def _resect(
    tracks: Tracks, model: Model, frame: int, intrinsics: np.ndarray
) -> Float[Tensor, "4 4"] | None:
    """Pose of one frame from the points it follows; None if too few agree."""
    import pycolmap

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
