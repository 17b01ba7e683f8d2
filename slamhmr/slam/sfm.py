"""Camera that travels: COLMAP on keyframes, then a pose in every frame."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.components import Lack, lacking_package, require
from slamhmr.errors import BackendError
from slamhmr.slam.focal import focal_note
from slamhmr.slam.paths import Path, trusted_paths
from slamhmr.slam.pieces import join
from slamhmr.slam.restarts import solve_pieces
from slamhmr.slam.rotation import turn
from slamhmr.slam.tracks import Tracks, follow_background
from slamhmr.types import DEGRADED, CameraTrack, Observations, Video

log = logging.getLogger(__name__)

STEP = 12.0  # px at 640 px width that the background moves between keyframes
NEAREST, FURTHEST = 3, 6  # frames between keyframes
PYCOLMAP = ">=4.0,<5"  # as in setup.py
LEAST_SHARE = 0.5  # of the frames that must have a pose


@dataclass(frozen=True)
class Options:
    """Settings of the travelling camera."""

    longest_side: int = 640  # px at which the background is followed
    features: int = 800  # background points wanted in each frame
    max_keyframes: int = 200  # more are thinned out evenly
    allow_degraded: bool = False  # rotation-only with a note instead of an error
    refine_focal: bool = False  # it was guessed: take what the reconstruction says, where it does


def lacking(options: Options) -> list[Lack]:
    """What this backend needs and does not have: pycolmap of the version whose calls it makes."""
    get = f"pip install 'pycolmap{PYCOLMAP}'"
    return lacking_package("pycolmap", get, version=PYCOLMAP)


def track_camera(
    video: Video,
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    *,
    progress: bool,
) -> CameraTrack:
    """Path of a camera that the user says travels, in an arbitrary scale, frame 0 at identity.

    Raises BackendError when the reconstruction fails its checks, unless `allow_degraded`,
    MissingAsset without pycolmap.
    """
    require(lacking(options))
    tracks = follow_background(
        video,
        observations,
        longest_side=options.longest_side,
        count=options.features,
        progress=progress,
    )
    notes = ("travelling on the user's word",)
    return solve_pieces(
        tracks, lambda piece: travel(video, observations, piece, intrinsics, options, notes)
    )


def travel(
    video: Video,
    observations: Observations,
    tracks: Tracks,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    notes: tuple[str, ...],
) -> CameraTrack:
    """Checked path of a travelling camera; its unit of length is the median depth of the scene.

    Where the reconstruction falls apart, each part is a segment. Raises BackendError with what
    failed and what the user can do; with `allow_degraded` the rotations alone are returned
    instead, with a note that says so.
    """
    keys = choose_keyframes(tracks, options.max_keyframes)
    paths, reasons = trusted_paths(
        tracks,
        keys,
        intrinsics.double().numpy(),
        video.fps,
        refine_focal=options.refine_focal,
    )
    count = len(tracks.ids)
    share = sum(int(path.measured.sum()) for path in paths) / count
    if len(paths) > 0 and share < LEAST_SHARE:
        reasons = [f"only {100 * share:.0f} % of the frames have a pose", *reasons]
    if len(paths) == 0 or share < LEAST_SHARE:
        failure = f"the camera travels but its path cannot be trusted: {'; '.join(reasons)}"
        if not options.allow_degraded:
            raise BackendError(
                f"camera: {failure}; give cameras.npz from another tool or the intrinsics, or set "
                "allow_degraded=true to go on with rotations only and a camera that stays put"
            )
        log.warning("camera: %s; degraded to rotation-only as allowed", failure)
        degraded = f"{DEGRADED} to rotation-only: {failure}"
        return turn(video, observations, tracks, intrinsics, (*notes, degraded))
    parts = [_track(path, video, tracks, intrinsics) for path in paths]
    joined = join(parts)
    again: tuple[str, ...] = ()
    if len(parts) > 1:
        where = ", ".join(str(tracks.number(path.first)) for path in paths[1:])
        again = (f"the reconstruction falls apart and begins anew at frame {where}",)
    return replace(joined, notes=(*notes, *again, *joined.notes))


def _track(path: Path, video: Video, tracks: Tracks, intrinsics: Float[Tensor, "4"]) -> CameraTrack:
    """One part of a reconstruction as a track of its frames."""
    model, found = path.model, path.model.focal
    lens = intrinsics.double() if found is None else found.applied_to(intrinsics)
    text = f"structure from motion: {len(model.frames)} of {model.asked} keyframes, "
    text += f"{len(model.points)} points, {model.points_per_frame:.0f} per keyframe, reprojection "
    text += f"{model.error / tracks.unit:.2f} px at 640 px width, parallax {model.angle:.1f} deg"
    notes = (text,) if found is None else (text, focal_note(found, float(intrinsics[0])))
    return CameraTrack(
        world_from_cam=path.poses,
        intrinsics=lens.repeat(len(path.poses), 1),
        image_size=video.image_size,
        scale_known=False,
        moving=True,
        source="sfm",
        points=path.points,
        notes=notes,
        lost=None if path.measured.all() else torch.from_numpy(~path.measured),
        focal_sigma=None if found is None else torch.tensor(found.sigma, dtype=torch.float64),
    )


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
