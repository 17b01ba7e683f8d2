"""Terms on how motion goes on, learned from recordings: accelerations, and speed against pose.

Both look at three consecutive frames and weigh the same whatever the frame rate: the sum over
frames stands for an integral over time, in units of the 30 fps they were trained at. Neither says
anything across a hole in the frame times (`priors.transition.holes`). Motion is
seen against the cameras without their drift, which turns and moves too slowly to matter, so that
neither term depends on it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.device import CPU, on
from slamhmr.features import PersonFeatures
from slamhmr.scene import plane_axes
from slamhmr.solve.manifolds import logarithm, right_jacobian_inverse, skew
from slamhmr.solve.problem import Residual, single_element
from slamhmr.terms.register import term
from slamhmr.terms.smoothness import second_difference

if TYPE_CHECKING:
    from priors.transition import TransitionPrior


@lru_cache(maxsize=2)
def transition_prior(device: torch.device = CPU) -> "tuple[TransitionPrior, TransitionPrior]":
    """The prior that ships with the package, for values and, in float32, for Jacobians."""
    from priors.transition import load_transition_prior

    prior = on(load_transition_prior(), device)
    return prior, prior.to(torch.float32)


@dataclass(frozen=True)
class TransitionSettings:
    """`weight` is below 1: what the solver does not know repeats from frame to frame.

    `mu`: Geman-McClure, of the squared whitened residual, whose median is 30 on unseen motion.
    """

    weight: float = 0.05
    mu: float = 200.0


@term("transition", TransitionSettings, needs_pose=True)
def transition(
    features: PersonFeatures, settings: TransitionSettings, derivatives: bool
) -> Residual:
    """Whitened accelerations of pelvis, root and joints beyond what pose and velocities lead to.

    r_t = W (a_t - f(pose, up, velocities)) of frames t, t + 1, t + 2, W from the full covariance:
    joints that move together do not count many times over. W has the rows in which jitter stands
    out most from motion (`TransitionPrior.leading`). Source: ours (`priors.transition`).
    """
    prior, single = transition_prior(features.world.device)
    steps = _Steps(features)
    value, slopes = steps.empty(len(prior.change_whitening)), None
    if steps.count > 0:
        value[: steps.count, 0] = prior.change_residual(steps.triple)
        if derivatives:
            per_step = single.change_whitening / steps.step[:, None, None].float()
            inputs = steps.triple.change_inputs.float()
            by_inputs = single.change.jacobian(inputs, -single.change_whitening)
            by_inputs[..., 129:] -= per_step
            slopes = (by_inputs, per_step)
    return steps.residual("transition", value, slopes, settings.weight, settings.mu, derivatives)


@dataclass(frozen=True)
class GaitSettings:
    """`weight` is below 1 / the correlation time in frames; `mu`: Geman-McClure, in sigma^2."""

    weight: float = 0.1
    mu: float = 9.0


@term("gait", GaitSettings, needs_pose=True)
def gait(features: PersonFeatures, settings: GaitSettings, derivatives: bool) -> Residual:
    """Velocity of the pelvis over two steps less what the change of pose implies, whitened.

    Its unit is the body's size, so that legs that walk tell the scale of the world. Where pose says
    little about speed (dance, falls) the kernel lets go. Source: ours (`priors.transition`).
    """
    prior, single = transition_prior(features.world.device)
    steps = _Steps(features)
    value, slopes = steps.empty(3), None
    if steps.count > 0:
        velocity = steps.mean_velocity()
        value[: steps.count, 0] = prior.gait_residual(steps.triple, velocity)
        if derivatives:
            inputs = steps.triple.gait_inputs.float()
            pose = -single.gait.jacobian(inputs, single.gait_whitening)
            shares = [
                (share[:, None, None] * prior.gait_whitening).float() for share in steps.shares
            ]
            by_inputs = torch.cat([pose[..., :129], shares[0], pose[..., 129:195]], dim=-1)
            slopes = (by_inputs, torch.cat([shares[1], pose[..., 195:]], dim=-1))
    return steps.residual("gait", value, slopes, settings.weight, settings.mu, derivatives)


# Derivatives of R rows by [state of the middle frame, velocities before it], velocities after it.
Slopes = tuple[Float[Tensor, "n R 198"], Float[Tensor, "n R 69"]]


class _Steps:
    """All triples of consecutive frames, and how they move with the unknowns."""

    def __init__(self, features: PersonFeatures) -> None:
        self.features = features
        frames = features.frame_count
        self.count = max(frames - 2, 0)
        if self.count == 0:
            return
        from priors.transition import Triple

        local, times = features.local, features.evidence.times
        self.steps = times[1:] - times[:-1]
        self.step = 0.5 * (self.steps[1:] + self.steps[:-1])
        self.turn = logarithm(local[:-1].mT @ local[1:])
        rates = (self.turn / self.steps[:, None, None]).flatten(start_dim=1)
        self.undrift = (features.rotations[:, 0] @ local[:, 0].mT).mT
        self.anchored = (self.undrift @ features.anchored[:, 0, :, None])[..., 0]
        self.into_root = local[1:-1, 0].mT  # of the middle frame
        self.size = features.points.size(features.betas)
        path = features.metric_centres + self.anchored
        before, after = self._velocities(path[..., None])
        self.before, self.after = before[..., 0], after[..., 0]
        self.up = self.into_root @ features.up
        self.triple: Triple = Triple(
            local[1:-1, 1:],
            self.up,
            torch.cat([self.before, rates[:-1]], dim=1),
            torch.cat([self.after, rates[1:]], dim=1),
            self.step,
        )

    @property
    def shares(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Shares of the two steps in their time."""
        whole = 2.0 * self.step
        return self.steps[:-1] / whole, self.steps[1:] / whole

    def mean_velocity(self) -> Float[Tensor, "n 3"]:
        """Velocity of the pelvis over both steps."""
        first, second = self.shares
        return first[:, None] * self.before + second[:, None] * self.after

    def empty(self, rows: int) -> Float[Tensor, "T 1 R"]:
        """Residuals of all frames, zero."""
        return self.features.world.new_zeros(self.features.frame_count, 1, rows)

    def _velocities(self, path: Float[Tensor, "T 3 c"]) -> tuple[Tensor, Tensor]:
        """Differences of a path, per second and size, in the axes of the middle pelvis."""
        moved = (path[1:] - path[:-1]) / (self.steps[:, None, None] * self.size)
        return self.into_root @ moved[:-1], self.into_root @ moved[1:]

    def residual(
        self,
        name: str,
        value: Float[Tensor, "T 1 R"],
        slopes: Slopes | None,
        weight: float,
        mu: float,
        derivatives: bool,
    ) -> Residual:
        """The residual of a term with these derivatives."""
        features = self.features
        _, present = second_difference(features, features.evidence.linked)
        weights = weight * present
        derivative, border = None, None
        layout = features.layout
        columns = slice(0, layout.fixed + layout.betas_count * int(layout.free.betas))
        if derivatives:
            derivative = value.new_zeros(3, *value.shape, 69, dtype=torch.float32)
            border = value.new_zeros(*value.shape, columns.stop)
        if self.count > 0:
            from priors.transition import TRAINED_STEP, holes

            missing = holes(self.steps)
            weights[: self.count] *= self.step / TRAINED_STEP
            weights[: self.count] *= ~(missing[:-1] | missing[1:])
            if derivative is not None and border is not None and slopes is not None:
                derivative[:, : self.count, 0] = self._chain(slopes)
                border[: self.count, 0] = self._border(slopes, columns.stop)
        return Residual(
            name, "frame", single_element(value), value, weights[:, None], derivative,
            border_derivative=border if columns.stop > 0 else None, border_slice=columns,
            kernel=mu,
        )  # fmt: skip

    def _chain(self, slopes: Slopes) -> Float[Tensor, "3 n R 69"]:
        """Derivative by the unknowns of the three frames, float32."""
        inputs, after = slopes
        turned = right_jacobian_inverse(self.turn) / self.steps[:, None, None, None]
        undrift = torch.stack([self.undrift[:-2], self.undrift[1:-1], self.undrift[2:]])
        moved = self.into_root @ undrift / self.size
        first, second = (steps[:, None, None] for steps in (self.steps[:-1], self.steps[1:]))
        of_after = _block_diagonal(-moved[1] / second, -turned[1:].mT)
        of_after[:, :3, 3:6] = skew(self.after)
        of_inputs = after.new_zeros(self.count, 198, 69)
        of_inputs[:, :126, 6:] = _blocks(_turned_columns(self.triple.pose))
        of_inputs[:, 126:129, 3:6] = skew(self.up)
        of_inputs[:, 129:] = _block_diagonal(moved[1] / first, turned[:-1])
        of_inputs[:, 129:132, 3:6] = skew(self.before)
        frames = after.new_empty(3, *after.shape)
        ends = (
            (0, inputs[..., 129:], _block_diagonal(-moved[0] / first, -turned[:-1].mT)),
            (2, after, _block_diagonal(moved[2] / second, turned[1:])),
        )
        for frame, rows, geometry in ends:
            torch.bmm(rows, geometry, out=frames[frame])
        torch.bmm(inputs, of_inputs, out=frames[1])
        frames[1].baddbmm_(after, of_after)
        return frames

    def _border(self, slopes: Slopes, width: int) -> Float[Tensor, "n R c"]:
        """Explicit derivative by scale, gravity, focal length and betas."""
        features, layout = self.features, self.features.layout
        inputs, after = slopes
        parts = (inputs[..., 126:129], inputs[..., 129:132], after[..., :3])
        up, before, after = (part.to(self.up) for part in parts)
        border = before.new_zeros(*before.shape[:2], width)

        def of_path(path: Tensor) -> Tensor:
            ahead, behind = self._velocities(path)
            return before @ ahead + after @ behind

        if layout.scale is not None:
            border[..., layout.scale] = of_path(features.path_by_scales()[..., :1])
        if layout.stretch is not None:
            border[..., layout.stretch] = of_path(features.path_by_scales()[..., 1:])
        if layout.focal is not None:
            axis = features.evidence.world_from_cam[..., 2]
            depth = (self.anchored * axis).sum(dim=-1, keepdim=True)
            border[..., layout.focal] = of_path((depth * axis)[..., None])
        if layout.gravity is not None:
            border[..., layout.gravity] = up @ self.into_root @ plane_axes(features.up).T
        if layout.betas is not None:
            size = features.points.size_directions / (features.points.size_template * self.size)
            speed = before @ self.before[..., None]
            speed = speed + after @ self.after[..., None]
            border[..., layout.betas] = -speed * size
        return border


def _blocks(blocks: Float[Tensor, "n J a b"]) -> Float[Tensor, "n Ja Jb"]:
    """Blocks of all joints along the diagonal of one matrix, float32: one product, not many."""
    count, joints, rows, columns = blocks.shape
    matrix = torch.zeros(count, joints, rows, joints, columns, device=blocks.device)
    matrix.diagonal(dim1=1, dim2=3).copy_(blocks.permute(0, 2, 3, 1))
    return matrix.reshape(count, joints * rows, joints * columns)


def _block_diagonal(
    pelvis: Float[Tensor, "n 3 3"], rotations: Float[Tensor, "n 22 3 3"]
) -> Float[Tensor, "n 69 69"]:
    """The derivative of velocities by one frame: pelvis, root, joints, each by itself."""
    return _blocks(torch.cat([pelvis[:, None], rotations], dim=1))


def _turned_columns(rotations: Float[Tensor, "n 21 3 3"]) -> Float[Tensor, "n 21 6 3"]:
    """Derivative of the first two columns, row by row, by a body-frame increment."""
    basis = torch.eye(3, dtype=rotations.dtype, device=rotations.device)[:2]
    moved = -rotations[:, :, None] @ skew(basis)  # (n, 21, 2, 3 of the column, 3)
    return moved.transpose(2, 3).flatten(start_dim=2, end_dim=3)
