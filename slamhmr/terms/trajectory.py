"""Terms on the path of a person as the start predicts it: the velocity of the root."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.features import PersonFeatures
from slamhmr.solve.manifolds import skew
from slamhmr.solve.problem import BorderResidual, Residual, single_element
from slamhmr.terms.register import BorderContext, term

PREDICTED_FPS = 30.0  # of the networks that predict velocities


@dataclass(frozen=True)
class RootVelocitySettings:
    """`weight` is far below 1: errors of a network repeat from frame to frame.

    `factor` on the start's sigma; `mu`: Geman-McClure, sigma^2.
    """

    weight: float = 0.3
    factor: float = 1.0
    mu: float = 9.0


@term("root_velocity", RootVelocitySettings, needs="root_velocity")
def root_velocity(
    features: PersonFeatures, settings: RootVelocitySettings, derivatives: bool
) -> Residual:
    """Velocity of the pelvis in the root's axes against the predicted one, over its sigma.

    r_t = (exp(gain) R_t' (p_(t+1) - p_t) / (h size(betas)) - v_t) / sigma_t. The scale of the
    camera's path is in p; body size and gain divide it out, which are held by priors of their own.
    The gain multiplies what is solved for, not v_t: noise must not reward small numbers.
    """
    known = features.evidence
    assert known.root_velocity is not None
    assert known.root_velocity_sigma is not None
    pelvis, root = features.world[:, 0], features.rotations[:, 0]
    steps = torch.ones_like(known.times)
    steps[:-1] = known.times[1:] - known.times[:-1]
    stretch = features.velocity_gain.exp() / features.points.size(features.betas) / steps
    moved = torch.zeros_like(pelvis)
    moved[:-1] = pelvis[1:] - pelvis[:-1]
    velocity = stretch[:, None] * (root.mT @ moved[..., None])[..., 0]
    sigma = settings.factor * known.root_velocity_sigma
    often = PREDICTED_FPS * steps  # predictions at other rates are interpolated ones
    weight = settings.weight * often * (known.linked & torch.isfinite(sigma).all(dim=-1)).to(sigma)
    derivative = border = None
    if derivatives:
        ahead = stretch[:, None, None] * root.mT
        behind = torch.cat([-ahead, skew(velocity)], dim=-1)
        ahead = torch.nn.functional.pad(ahead, (0, 3))
        derivative = torch.stack([behind, ahead])[:, :, None] / sigma[:, None, :, None]
        border = _border(features, velocity / sigma)
    layout = features.layout
    places = [place for place in (layout.betas, layout.gain) if place is not None]
    own = slice(places[0].start, places[-1].stop) if len(places) > 0 else None
    value = ((velocity - known.root_velocity) / sigma)[:, None]
    return Residual(
        "root_velocity", "root", single_element(value), value, weight[:, None],
        derivative, border_derivative=border, border_slice=own, kernel=settings.mu,
    )  # fmt: skip


def _border(features: PersonFeatures, velocity: Float[Tensor, "T 3"]) -> Tensor | None:
    """Derivative by betas, through the size, and by the gain, of those that are free."""
    columns = []
    if features.layout.betas is not None:
        size = features.points.size(features.betas)
        relative = features.points.size_directions / (features.points.size_template * size)
        columns.append(-velocity[..., None] * relative)
    if features.layout.gain is not None:
        columns.append(velocity[..., None])
    return torch.cat(columns, dim=-1)[:, None] if len(columns) > 0 else None


@dataclass(frozen=True)
class VelocityGainSettings:
    """`sigma` of the log: how much too fast a network may take a whole clip to be."""

    weight: float = 1.0
    sigma: float = 0.15


@term("velocity_gain", VelocityGainSettings, on_border=True, needs="root_velocity")
def velocity_gain(context: BorderContext, settings: VelocityGainSettings) -> list[BorderResidual]:
    """Gain of everybody's predicted root velocity; an error of 10 % in it is one of the scale."""
    gain = context.scene.velocity_gain
    slope = torch.eye(len(gain), dtype=gain.dtype, device=gain.device) / settings.sigma
    derivative = context.derivative(len(gain), (context.layout.gains(len(gain)), slope))
    return [BorderResidual("velocity_gain", gain / settings.sigma, settings.weight, derivative)]
