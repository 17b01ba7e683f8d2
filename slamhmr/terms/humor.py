"""HuMoR's official network as a term of multiple shooting (Rempe et al. 2021).

One residual per step of 1/30 s: the state beyond what the decoder makes of the state before, and
the latent step beyond the prior's mean. The latent step is the mean of the posterior wherever the
states are, its derivative included, so that the gradient is that of one energy. Nothing is held
from one linearisation to the next.

States stand on the scene's floor, at the mean body of their own rotations, lengths divided by the
body's size; as in `transition`, motion is seen against the cameras without their drift. Positions
of three frames make a parabola, which gives velocities, and the state 1/30 s later whatever the
frame rate.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import forward_points
from slamhmr.device import CPU, on
from slamhmr.errors import InputError
from slamhmr.features import PersonFeatures
from slamhmr.geometry import rotation_between
from slamhmr.scene import plane_axes
from slamhmr.skeleton import BODY_JOINT_COUNT
from slamhmr.solve.manifolds import left_jacobian, logarithm, right_jacobian_inverse, skew
from slamhmr.solve.problem import Residual, single_element
from slamhmr.terms.register import term
from slamhmr.terms.smoothness import second_difference

if TYPE_CHECKING:
    from priors.humor import HuMoR, State

STEP = 1.0 / 30.0  # s, of HuMoR's training
ROWS = 255  # of the state 207, of the latent step 48
TANGENT = 207
TRANSL, SPEED, ROOT, SPIN = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)
BODY, JOINTS, JOINT_SPEEDS = slice(12, 75), slice(75, 141), slice(141, 207)
# Rest position of SMPL's pelvis joint at mean shape, m: HuMoR's translation is SMPL's.
PELVIS = (-0.0018, -0.2233, 0.0282)
PIECE = 50  # steps that are linearised at once: 0.2 GB


@dataclass(frozen=True)
class HumorSettings:
    """`weights`: path of a converted HuMoR (`slamhmr convert`); there are none of our own.

    `sigma` of positions (m) and rotations (rad) beyond the decoder's, `sigma_rate` of their
    velocities (per s): not tuned, for no official weights were at hand.
    """

    weight: float = 0.05
    weights: str = ""
    sigma: float = 0.02
    sigma_rate: float = 0.5


def humor_network(weights: str, device: torch.device = CPU) -> "tuple[HuMoR, HuMoR]":
    """The network of a weights file on a device, for values and, in float32, for Jacobians.

    Read at first use, and again when the file has changed. Raises InputError for a file that is
    missing or no converted HuMoR.
    """
    if weights == "":
        raise InputError(
            "term 'humor': it has no weights; get best_model.pth from github.com/davrempe/humor, "
            "run `slamhmr convert` on it and give weights: FILE.safetensors"
        )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"term 'humor': weights '{path}' do not exist")
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size, device)


@lru_cache(maxsize=2)
def _read(path: Path, changed_ns: int, size: int, device: torch.device) -> "tuple[HuMoR, HuMoR]":
    """The network of one state of a file."""
    from priors.checkpoints import CheckpointError
    from priors.humor import load_humor

    try:
        return on((load_humor(path, dtype=torch.float64), load_humor(path)), device)
    except CheckpointError as error:
        raise InputError(f"term 'humor': {error}") from error


@term(
    "humor",
    HumorSettings,
    needs_pose=True,
    check=lambda settings: humor_network(settings.weights),
)
def humor(features: PersonFeatures, settings: HumorSettings, derivatives: bool) -> Residual:
    """x_(t+1) - f(x_t, z_t) over sigma and (z_t - mu(x_t)) / std(x_t), z_t the posterior's mean.

    Frames t - 1, t, t + 1 make both states. Source: Rempe et al. 2021, equations 3 to 6; SLAHMR
    rolls states out of z from the first frame instead.
    """
    exact, single = humor_network(settings.weights, features.world.device)
    value = features.world.new_zeros(features.frame_count, 1, ROWS)
    _, present = second_difference(features, features.evidence.linked)
    weight = settings.weight * present
    layout = features.layout
    columns = slice(0, layout.fixed + layout.betas_count * int(layout.free.betas))
    derivative = border = None
    if derivatives:
        derivative = value.new_zeros(3, *value.shape, 69, dtype=torch.float32)
        border = value.new_zeros(*value.shape, columns.stop)
    if features.frame_count > 2:
        from priors.humor_transition import following_values
        from priors.transition import holes

        states, pivot = _States(features), value.new_tensor(PELVIS)
        scale = 1.0 / _sigmas(settings).to(value)
        ends = states.at(0.0), states.at(STEP)
        value[:-2, 0] = scale * following_values(exact, *ends, pivot)
        weight[:-2] *= states.step / STEP
        missing = holes(states.steps)
        weight[:-2] *= ~(missing[:-1] | missing[1:])
        if derivative is not None and border is not None:
            slopes = _slopes(single, ends, scale.float())
            chains = states.by_frames(0.0), states.by_frames(STEP)
            shared = states.by_border(0.0), states.by_border(STEP)
            for rows, chain, columns_of in zip(slopes, chains, shared, strict=True):
                derivative[:, :-2, 0] += rows @ chain.float()
                border[:-2, 0] += (rows @ columns_of.float()).to(border)
    return Residual(
        "humor", "frame", single_element(value), value, weight[:, None], derivative,
        border_derivative=border if columns.stop > 0 else None, border_slice=columns,
    )  # fmt: skip


def _sigmas(settings: HumorSettings) -> Float[Tensor, "255"]:
    sigmas = torch.full((ROWS,), settings.sigma)
    for rates in (SPEED, SPIN, JOINT_SPEEDS):
        sigmas[rates] = settings.sigma_rate
    sigmas[TANGENT:] = 1.0
    return sigmas


def _slopes(
    network: "HuMoR", ends: "tuple[State, State]", scale: Float[Tensor, "255"]
) -> tuple[Float[Tensor, "n 255 207"], Float[Tensor, "n 255 207"]]:
    """Derivatives of the whitened residual by the two states, float32."""
    from priors.humor import State
    from priors.humor_transition import following_residual

    past, present = (State.from_vector(end.vector().float()) for end in ends)
    parts = []
    for start in range(0, len(past.trans), PIECE):
        piece = slice(start, start + PIECE)
        pivot = past.trans.new_tensor(PELVIS)
        parts.append(following_residual(network, past[piece], present[piece], pivot)[1:])
    by_past, by_present = (torch.cat(rows) for rows in zip(*parts, strict=True))
    return scale[:, None] * by_past, scale[:, None] * by_present


class _States:
    """HuMoR's states of all triples of consecutive frames, and how they move with the unknowns.

    A time is counted from the middle frame. `places`: SMPL's translation and the 22 joints.
    """

    def __init__(self, features: PersonFeatures) -> None:
        self.features = features
        local, times = features.local, features.evidence.times
        self.steps = times[1:] - times[:-1]
        self.step = 0.5 * (self.steps[1:] + self.steps[:-1])
        self.floor = rotation_between(features.ground[:3], local.new_tensor([0.0, 0.0, 1.0]))
        undrift = (features.rotations[:, 0] @ local[:, 0].mT).mT
        anchored = (undrift @ features.anchored[:, 0, :, None])[..., 0]
        self.size = features.points.size(features.betas)
        self.level = (features.metric_centres + anchored) @ self.floor.T  # floor's axes, m
        self.level_by_pelvis = self.floor @ undrift
        self.depth = anchored
        self.local = torch.cat([(self.floor @ local[:, 0])[:, None], local[:, 1:]], dim=1)
        self.turn = logarithm(local[:-1].mT @ local[1:])
        self.rates = self.turn / self.steps[:, None, None]
        body = features.points.body
        joints, turned = forward_points(
            body, torch.zeros_like(features.betas)[None], self.local[None, :, 0],
            torch.zeros_like(self.level)[None], self.local[None, :, 1:],
        )  # fmt: skip
        self.joints = joints[0, :, :BODY_JOINT_COUNT]
        self.turned = turned[0, :, :BODY_JOINT_COUNT]
        height = torch.zeros_like(self.level)
        height[:, 2] = features.ground[3]
        pelvis = (self.level + height) / self.size
        transl = pelvis - local.new_tensor(PELVIS)
        self.places = torch.cat([transl[:, None], pelvis[:, None] + self.joints], dim=1)

    def _shares(self, time: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of both steps' mean velocities, in the way from the middle frame and in the velocity."""
        before, after = self.steps[:-1], self.steps[1:]
        whole = before + after
        return (
            time * (after - time) / whole, time * (before + time) / whole,
            (after - 2 * time) / whole, (before + 2 * time) / whole,
        )  # fmt: skip

    def _turned_by(self, time: float) -> Float[Tensor, "n 22 3"]:
        """Rotation vectors from the middle frame to a time."""
        first, second, _, _ = (share[:, None, None] for share in self._shares(time))
        return first * self.rates[:-1] + second * self.rates[1:]

    def at(self, time: float) -> "State":
        """States at a time."""
        from priors.humor import State

        where, speed = self._parabola(self.places.flatten(start_dim=1), time)
        where, speed = where.reshape(len(where), -1, 3), speed.reshape(len(speed), -1, 3)
        rotations = self.local[1:-1] @ roma.rotvec_to_rotmat(self._turned_by(time))
        return State(
            where[:, 0], speed[:, 0], rotations[:, 0], self._spin(time), rotations[:, 1:],
            where[:, 1:], speed[:, 1:],
        )  # fmt: skip

    def _spin(self, time: float) -> Float[Tensor, "n 3"]:
        """Angular velocity of the root, floor's axes, rad/s."""
        _, _, first, second = (share[:, None] for share in self._shares(time))
        rate = first * self.rates[:-1, 0] + second * self.rates[1:, 0]
        return (self.local[1:-1, 0] @ rate[..., None])[..., 0]

    def _parabola(
        self, values: Float[Tensor, "T *shape"], time: float
    ) -> tuple[Float[Tensor, "n *shape"], Float[Tensor, "n *shape"]]:
        """Value and velocity at a time of the parabola through three frames."""
        wide = (-1, *[1] * (values.dim() - 1))
        mean = (values[1:] - values[:-1]) / self.steps.reshape(wide)
        first, second, third, fourth = (share.reshape(wide) for share in self._shares(time))
        way = first * mean[:-1] + second * mean[1:]
        return values[1:-1] + way, third * mean[:-1] + fourth * mean[1:]

    def by_frames(self, time: float) -> Float[Tensor, "3 n 207 69"]:
        """Derivative of the states' tangents by the unknowns of the three frames."""
        places = self._places_by_frame()
        out = places.new_zeros(3, len(self.step), TANGENT, 69)
        for frame in range(3):
            moved = places[frame : len(places) - 2 + frame]
            _put_places(out[frame], *self._of_one(moved, frame, time))
        self._put_turns(out, time)
        return out

    def _of_one(self, moved: Tensor, frame: int, time: float) -> tuple[Tensor, Tensor]:
        """Value and velocity of the parabola where only one of its three frames moves."""
        first, second, third, fourth = (share[:, None, None] for share in self._shares(time))
        before, after = (steps[:, None, None] for steps in (self.steps[:-1], self.steps[1:]))
        ahead = (-1 / before, 1 / before, 0.0)[frame]
        behind = (0.0, -1 / after, 1 / after)[frame]
        own = 1.0 if frame == 1 else 0.0
        return (
            (own + first * ahead + second * behind) * moved,
            (third * ahead + fourth * behind) * moved,
        )

    def _places_by_frame(self) -> Float[Tensor, "T 69 69"]:
        """Derivative of a frame's places by its unknowns: joint j moves f by G_j d x (f - j)."""
        count = BODY_JOINT_COUNT
        out = self.level.new_zeros(len(self.level), 1 + count, 3, 69)
        out[..., :3] = (self.level_by_pelvis / self.size)[:, None]
        arms = self.joints[:, :, None] - self.joints[:, None]  # (T, f, j, 3)
        moves = self.features.points.moves[:, :count].T[..., None, None]
        turned = torch.where(moves, -skew(arms) @ self.turned[:, None], 0.0)
        out[:, 1:, :, 3:] = turned.permute(0, 1, 3, 2, 4).flatten(start_dim=3)
        return out.flatten(start_dim=1, end_dim=2)

    def _put_turns(self, out: Float[Tensor, "3 n 207 69"], time: float) -> None:
        """Derivatives of the rotations and of the root's angular velocity."""
        by_after = right_jacobian_inverse(self.turn) / self.steps[:, None, None, None]
        by_before = -by_after.mT
        shares = [share[:, None, None, None] for share in self._shares(time)]
        turned = self._turned_by(time)
        slope = left_jacobian(-turned)
        spread = (by_before[:-1], by_after[:-1]), (by_before[1:], by_after[1:])
        of_turn = [slope * 0.0 for _ in range(3)]
        of_spin = [slope[:, 0] * 0.0 for _ in range(3)]
        root = self.local[1:-1, 0]
        for step, (behind, ahead) in enumerate(spread):
            for frame, rate in ((step, behind), (step + 1, ahead)):
                of_turn[frame] = of_turn[frame] + slope @ (shares[step] * rate)
                of_spin[frame] = of_spin[frame] + root @ (shares[2 + step] * rate)[:, 0]
        of_turn[1] = of_turn[1] + roma.rotvec_to_rotmat(-turned)
        spin = (root.mT @ self._spin(time)[..., None])[..., 0]
        of_spin[1] = of_spin[1] - root @ skew(spin)
        for frame in range(3):
            out[frame, :, SPIN, 3:6] = of_spin[frame]
            for joint in range(BODY_JOINT_COUNT):
                row = ROOT.start if joint == 0 else BODY.start + 3 * (joint - 1)
                column = 3 + 3 * joint
                out[frame, :, row : row + 3, column : column + 3] = of_turn[frame][:, joint]

    def by_border(self, time: float) -> Float[Tensor, "n 207 c"]:
        """Explicit derivative by scale, ground, focal length and betas."""
        features, layout = self.features, self.features.layout
        width = layout.fixed + layout.betas_count * int(layout.free.betas)
        places = self.places.new_zeros(*self.places.shape, width)
        if layout.scale is not None:
            moved = self.floor @ features.path_by_scales()[..., :1] / self.size
            places[..., layout.scale] = moved[:, None]
        if layout.stretch is not None:
            moved = self.floor @ features.path_by_scales()[..., 1:] / self.size
            places[..., layout.stretch] = moved[:, None]
        if layout.focal is not None:
            axis = features.evidence.world_from_cam[..., 2]
            depth = (self.depth * axis).sum(dim=-1, keepdim=True)
            moved = depth * axis @ self.floor.T / self.size
            places[..., layout.focal] = moved[:, None, :, None]
        if layout.betas is not None:
            size = features.points.size_directions / (features.points.size_template * self.size)
            pelvis = self.places[:, 1] - self.joints[:, 0]
            places[..., layout.betas] = (-pelvis[..., None] * size)[:, None]
        out = places.new_zeros(len(self.step), TANGENT, width)
        if layout.ground is not None:
            self._put_ground(places[..., layout.ground], out[..., layout.ground], time)
        _put_places(out, *self._parabola(places.flatten(start_dim=1, end_dim=2), time))
        return out

    def _put_ground(
        self, places: Float[Tensor, "T 23 3 3"], out: Float[Tensor, "n 207 3"], time: float
    ) -> None:
        """By the ground's tilts, which turn everything in its axes, and its offset."""
        normal = self.features.ground[:3]
        axes = torch.linalg.cross(plane_axes(normal), normal.expand(2, 3)) @ self.floor.T
        level = self.level / self.size
        relative = torch.cat([torch.zeros_like(level)[:, None], self.joints], dim=1)
        points = level[:, None] + relative
        state = self.at(time)
        for tilt, axis in enumerate(axes):
            places[..., tilt] = torch.linalg.cross(axis.expand_as(points), points)
            out[:, ROOT, tilt] = state.root_orient.mT @ axis
            spin = state.root_orient_vel
            out[:, SPIN, tilt] = torch.linalg.cross(axis.expand_as(spin), spin)
        places[..., 2, 2] = 1.0 / self.size


def _put_places(
    out: Float[Tensor, "n 207 c"], where: Float[Tensor, "n 69 c"], speed: Float[Tensor, "n 69 c"]
) -> None:
    """Rows of places and their velocities among those of a tangent."""
    out[:, TRANSL], out[:, JOINTS] = where[:, :3], where[:, 3:]
    out[:, SPEED], out[:, JOINT_SPEEDS] = speed[:, :3], speed[:, 3:]
