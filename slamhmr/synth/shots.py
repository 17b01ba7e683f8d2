"""What befalls a camera track: cuts to another camera, SLAM that restarts, gets lost, or drifts.

A piece of a track (a shot, or what SLAM gives after it began anew) has a world and a scale of its
own: its first camera is turned at random and its unit of length is drawn.
"""

from dataclasses import replace

import numpy as np
import roma
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.geometry import runs
from slamhmr.synth.scene import SceneSpec, cut_frames
from slamhmr.types import CameraTrack

Array = NDArray[np.float64]
SCALES = (0.2, 5.0)  # metres per unit of a piece


def restart_frames(spec: SceneSpec) -> tuple[int, ...]:
    """First frames of the pieces that SLAM begins anew, apart from cuts."""
    if spec.slam_restarts == 0:
        return ()
    rng = np.random.default_rng([spec.seed, 59])
    share = (np.arange(spec.slam_restarts) + 1.0) / (spec.slam_restarts + 1.0)
    shift = rng.uniform(-0.15, 0.15, spec.slam_restarts) / (spec.slam_restarts + 1.0)
    return tuple(int(frame) for frame in np.round((share + shift) * spec.frames))


def in_pieces(track: CameraTrack, spec: SceneSpec, scale: float) -> CameraTrack:
    """The track with wrong lens, lost frames and pieces, as the specification says.

    `scale`: metres per unit of the first piece. A track without any of these is returned as it is.
    """
    cuts, restarts = cut_frames(spec), restart_frames(spec)
    starts = tuple(sorted({*cuts, *restarts}))
    poses = track.world_from_cam.numpy().copy()
    lost = _lost(spec, restarts)
    for start, end in runs(torch.from_numpy(lost)):
        poses[start:end] = _bridged(poses, start, end, joined=end not in starts)
    rng = np.random.default_rng([spec.seed, 61])
    edges = (*starts, len(poses))
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        poses[start:end] = _moved(poses[start:end], scale, rng)
    lens = track.intrinsics.clone()
    lens[:, :2] *= 1.0 + spec.focal_error
    return replace(
        track,
        world_from_cam=torch.from_numpy(poses),
        intrinsics=lens,
        segments=torch.tensor(starts) if len(starts) > 0 else None,
        lost=torch.from_numpy(lost) if bool(lost.any()) else None,
    )


def scaled_steps(centres: Float[Tensor, "T 3"], spec: SceneSpec) -> Float[Tensor, "T 3"]:
    """Centres of a path whose unit drifts: a random walk of the log of the scale of its steps."""
    rng = np.random.default_rng([spec.seed, 67])
    walk = np.cumsum(rng.standard_normal(len(centres))) / np.sqrt(spec.fps)
    gain = torch.from_numpy(np.exp(spec.slam_scale_drift * (walk - walk[0])))
    steps = (centres[1:] - centres[:-1]) * gain[:-1, None]
    return centres[:1] + torch.cat([steps.new_zeros(1, 3), steps.cumsum(dim=0)])


def _lost(spec: SceneSpec, restarts: tuple[int, ...]) -> NDArray[np.bool_]:
    """Frames without a pose: before every restart, and once within the track."""
    lost = np.zeros(spec.frames, dtype=bool)
    length = round(spec.slam_lost_seconds * spec.fps)
    if length > 0:
        for frame in (*restarts, round(0.3 * spec.frames) + length):
            lost[max(frame - length, 1) : frame] = True
    return lost


def _bridged(poses: Array, start: int, end: int, *, joined: bool) -> Array:
    """Poses of lost frames: even motion to the next known pose, or the last one held."""
    before = poses[start - 1]
    after = poses[end] if joined and end < len(poses) else before
    share = (np.arange(start, end) - start + 1.0) / (end - start + 1.0)
    turn = roma.rotmat_to_rotvec(torch.from_numpy(before[:3, :3].T @ after[:3, :3])).numpy()
    filled = np.broadcast_to(np.eye(4), (end - start, 4, 4)).copy()
    filled[:, :3, :3] = before[:3, :3] @ _rotations(share[:, None] * turn)
    filled[:, :3, 3] = before[:3, 3] + share[:, None] * (after[:3, 3] - before[:3, 3])
    return filled


def _moved(poses: Array, scale: float, rng: np.random.Generator) -> Array:
    """A piece in a world of its own: its first camera turned at random, another unit."""
    own = float(np.exp(rng.uniform(*np.log(SCALES))))
    turn = _rotations(rng.uniform(-np.pi, np.pi, 3) / np.sqrt(3.0))
    first = poses[0].copy()
    relative = np.linalg.inv(first) @ poses
    moved = relative.copy()
    moved[:, :3, :3] = turn @ relative[:, :3, :3]
    moved[:, :3, 3] = relative[:, :3, 3] * (scale / own) @ turn.T
    return moved


def _rotations(vectors: Array) -> Array:
    return np.asarray(roma.rotvec_to_rotmat(torch.from_numpy(np.asarray(vectors))).numpy())
