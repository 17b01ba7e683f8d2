"""Corrections of the cameras that SLAM gave: a slow drift, a jitter of every frame, a focal length.

The drift is a random walk from the first camera on, in its Karhunen-Loeve basis, cut off after
`MODES` modes: B(s) = sum_k z_k sqrt(2) sin((k - 1/2) pi s) / ((k - 1/2) pi), z_k standard normal,
s = 0 ... 1 over the clip (Loeve 1978, section 37.5). Six modes hold 97 % of its variance; what
they cannot follow, the jitter and the people's own motion take. So the cameras of any number of
people and frames cost a few shared unknowns, where six unknowns per frame would couple all people
of all frames.
"""

import math
from dataclasses import replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.geometry import rotation_between
from slamhmr.types import CameraTrack, SceneState

MODES = 6
TURNS = 1e-4  # rad; a track whose rotations differ by less is that of a camera that does not turn


def drift_basis(frames: int) -> Float[Tensor, "T M"]:
    """Modes of a random walk of unit variance at the clip's end; 0 in the first frame."""
    place = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None]
    rate = (torch.arange(MODES, dtype=torch.float64) + 0.5) * math.pi
    return math.sqrt(2) * torch.sin(rate * place) / rate


def moved_by_drift(
    basis: Float[Tensor, "T M"], drift: Float[Tensor, "M 6"]
) -> tuple[Float[Tensor, "T 3 3"], Float[Tensor, "T 3"]]:
    """Rotation Q_t of every camera in the world, and the offset of its centre, m."""
    path = basis @ drift
    return roma.rotvec_to_rotmat(path[:, :3]), path[:, 3:]


def degrees_of_freedom(cameras: CameraTrack) -> int:
    """How cameras can be wrong: 6 where they travel, 3 where they only turn, 0 on a tripod."""
    if cameras.moving:
        return 6
    rotations = cameras.world_from_cam[:, :3, :3]
    return 3 if float((rotations - rotations[0]).abs().max()) > TURNS else 0


def uncorrected(frames: int) -> dict[str, Tensor]:
    """The fields of a SceneState that correct cameras and gravity, correcting nothing."""
    like = torch.zeros((), dtype=torch.float64)
    return {
        "up": like.new_tensor([0.0, 0.0, 1.0]),
        "log_focal": like.clone(),
        "drift": like.new_zeros(MODES, 6),
        "jitter": like.new_zeros(frames, 3),
    }


def metric_cameras(state: SceneState) -> Float[Tensor, "T 4 4"]:
    """world_from_cam in metres: the track times the scale, with drift and jitter taken out."""
    track = state.cameras.world_from_cam
    turn, offset = moved_by_drift(drift_basis(len(track)), state.drift)
    corrected = track.clone()
    jitter = roma.rotvec_to_rotmat(state.jitter)
    corrected[:, :3, :3] = turn @ track[:, :3, :3] @ jitter.mT
    corrected[:, :3, 3] = track[:, :3, 3] * state.log_scale.exp() + offset
    return corrected


def corrected_intrinsics(state: SceneState) -> Float[Tensor, "T 4"]:
    """Fx fy cx cy, px, with the focal length that was solved for."""
    intrinsics = state.cameras.intrinsics.clone()
    intrinsics[:, :2] *= state.log_focal.exp()
    return intrinsics


def levelling(up: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation of the world that makes `up` its z axis."""
    return rotation_between(up, up.new_tensor([0.0, 0.0, 1.0]))


def levelled(state: SceneState) -> SceneState:
    """The same scene in a world whose z axis points against gravity, turned about its origin."""
    turn = levelling(state.up)
    track = state.cameras.world_from_cam.clone()
    track[:, :3] = turn @ track[:, :3]
    cameras = replace(state.cameras, world_from_cam=track)
    root = turn @ roma.rotvec_to_rotmat(state.root_orient)
    drift = torch.cat([state.drift[:, :3] @ turn.T, state.drift[:, 3:] @ turn.T], dim=1)
    return replace(
        state,
        root_orient=roma.rotmat_to_rotvec(root),
        pelvis=state.pelvis @ turn.T,
        ground=torch.cat([turn @ state.ground[:3], state.ground[3:]]),
        up=turn @ state.up,
        drift=drift,
        cameras=cameras,
    )
