"""Corrections of the cameras that SLAM gave: a slow drift, a jitter of every frame, a focal length.

The drift is a random walk from the first camera on, in its Karhunen-Loeve basis, cut off after
`MODES` modes: B(s) = sum_k z_k sqrt(2) sin((k - 1/2) pi s) / ((k - 1/2) pi), z_k standard normal,
s = 0 ... 1 over the clip (Loeve 1978, section 37.5). Six modes hold 97 % of its variance; what
they cannot follow, the jitter and the people's own motion take. So the cameras of any number of
people and frames cost a few shared unknowns, where six unknowns per frame would couple all people
of all frames.

A track may consist of segments that lie in worlds and scales of their own: shots, or what SLAM
made after it had lost its way. Each after the first has a rotation about its own first centre, an
offset and a scale: seven shared unknowns.
"""

import math
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.geometry import rotation_between, shot_numbers
from slamhmr.types import CameraTrack, SceneState

MODES = 6
TURNS = 1e-4  # rad; a track whose rotations differ by less is that of a camera that does not turn


def drift_basis(frames: int) -> Float[Tensor, "T M"]:
    """Modes of a random walk of unit variance at the clip's end; 0 in the first frame."""
    place = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None]
    rate = (torch.arange(MODES, dtype=torch.float64) + 0.5) * math.pi
    return math.sqrt(2) * torch.sin(rate * place) / rate


@dataclass(frozen=True)
class Rig:
    """What is constant of some frames of a track: centres, in SLAM units, and how they may move."""

    centres: Float[Tensor, "T 3"]
    pivots: Float[Tensor, "T 3"]  # centre of the first frame of each frame's segment
    basis: Float[Tensor, "T M"]  # modes of the drift
    segments: Float[Tensor, "T S"]  # 1 in the frames of each segment after the first

    def part(self, span: slice) -> "Rig":
        """The same of some frames."""
        return Rig(
            self.centres[span], self.pivots[span], self.basis[span], self.segments[span]
        )  # fmt: skip

    def place(
        self,
        log_scale: Float[Tensor, ""],
        drift: Float[Tensor, "M 6"],
        moves: Float[Tensor, "S 7"],
    ) -> "Placed":
        """Where scale s, drift (rotation D_t, offset) and segments (E_k, offset o_k, l_k) put it.

        C_t = s a_k + E_k exp(l_k) s (c_t - a_k) + o_k + offset_t, turned by Q_t = D_t E_k.
        """
        path, move = self.basis @ drift, self.segments @ moves
        first, arm = log_scale.exp() * self.pivots, self.centres - self.pivots
        arm = (log_scale + move[:, 6:]).exp() * arm
        slow, own = roma.rotvec_to_rotmat(path[:, :3]), roma.rotvec_to_rotmat(move[:, :3])
        turned = (own @ arm[..., None])[..., 0]
        return Placed(
            first + turned + move[:, 3:6] + path[:, 3:], slow @ own, slow, first + arm, arm,
            first + turned, turned,
        )  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """Corrected cameras, metres: centre C_t, rotation Q_t of the world that they carry."""

    centre: Float[Tensor, "T 3"]
    turn: Float[Tensor, "T 3 3"]  # Q_t = D_t E_k
    drift: Float[Tensor, "T 3 3"]  # D_t
    metric: Float[Tensor, "T 3"]  # centre in the track's own axes: neither turned nor offset
    arm: Float[Tensor, "T 3"]  # of it, what the scale of the segment makes longer
    scaled: Float[Tensor, "T 3"]  # what the scale makes longer, turned
    turned: Float[Tensor, "T 3"]  # the arm, turned: from the segment's first camera on


def rig_of(cameras: CameraTrack) -> Rig:
    """The constants of a whole track."""
    centres = cameras.world_from_cam[:, :3, 3]
    number, first = _first_frames(cameras)
    indicator = torch.nn.functional.one_hot(number, len(cameras.starts) + 1)[:, 1:].to(centres)
    pivots = centres[first]
    return Rig(centres, pivots, drift_basis(len(centres)), indicator)


def _first_frames(cameras: CameraTrack) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
    """Number of every frame's segment, from 0, and that segment's first frame."""
    number = shot_numbers(len(cameras.world_from_cam), cameras.starts)
    return number, torch.tensor([0, *cameras.starts])[number]


def segment_starts(cameras: CameraTrack, cuts: tuple[int, ...] = ()) -> tuple[int, ...]:
    """First frames of segments and of new shots, in order: no motion of a camera reaches across."""
    return tuple(sorted({*cameras.starts, *cuts}))


def degrees_of_freedom(cameras: CameraTrack) -> int:
    """How cameras can be wrong: 6 where they travel, 3 where they only turn, 0 on a tripod."""
    if cameras.moving:
        return 6
    rotations = cameras.world_from_cam[:, :3, :3]
    _, first = _first_frames(cameras)
    return 3 if float((rotations - rotations[first]).abs().max()) > TURNS else 0


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
    """world_from_cam in metres: the track times the scale, with all corrections."""
    track = state.cameras.world_from_cam
    placed = rig_of(state.cameras).place(state.log_scale, state.drift, segment_moves(state))
    corrected = track.clone()
    jitter = roma.rotvec_to_rotmat(state.jitter)
    corrected[:, :3, :3] = placed.turn @ track[:, :3, :3] @ jitter.mT
    corrected[:, :3, 3] = placed.centre
    return corrected


def segment_moves(state: SceneState) -> Float[Tensor, "S 7"]:
    """Corrections of the segments after the first; zeros where there are none yet."""
    if state.segment_moves is not None:
        return state.segment_moves
    return state.drift.new_zeros(len(state.cameras.starts), 7)


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
    moves = segment_moves(state)
    moves = torch.cat([moves[:, :3] @ turn.T, moves[:, 3:6] @ turn.T, moves[:, 6:]], dim=1)
    return replace(
        state,
        root_orient=roma.rotmat_to_rotvec(root),
        pelvis=state.pelvis @ turn.T,
        ground=torch.cat([turn @ state.ground[:3], state.ground[3:]]),
        up=turn @ state.up,
        drift=drift,
        segment_moves=moves,
        cameras=cameras,
    )
