"""Terms that know people and scenes in general: poses, shapes, the scale."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from slamhmr.features import PersonFeatures
from slamhmr.solve.manifolds import right_jacobian_inverse
from slamhmr.solve.problem import BorderResidual, Residual
from slamhmr.terms.register import BorderContext, term

if TYPE_CHECKING:
    from priors.pose import PosePrior


@lru_cache(maxsize=1)
def pose_prior_weights() -> "PosePrior":
    """The pose prior that ships with the package; read at first use."""
    from priors.pose import load_pose_prior

    return load_pose_prior()


@dataclass(frozen=True)
class PosePriorSettings:
    """`weight` is about 1 / correlation length in frames: neighbouring poses repeat each other."""

    weight: float = 0.05


@term("pose_prior", PosePriorSettings, needs_pose=True)
def pose_prior(
    features: PersonFeatures, settings: PosePriorSettings, derivatives: bool
) -> Residual:
    """Whitened distance of the 21 joint rotations to the nearest component of a Gaussian mixture.

    x_j = log(M_j' R_j); r = [W_k (x - mu_k), c_k] of the component k with the smallest r'r: the
    max-mixture of Olson and Agarwal 2013, whose square is a valid penalty. One element per frame.
    """
    prior = pose_prior_weights()
    x = prior.coordinates(features.local[:, 1:])
    residual, component = prior.whitened_residual(x)
    derivative = None
    if derivatives:
        slope = right_jacobian_inverse(x.reshape(len(x), 21, 3))  # dx_j = slope d_j
        whitening = prior.whitening[component]  # (T, 63, 63)
        split = whitening.reshape(len(x), 63, 21, 3)
        rows = torch.einsum("trja,tjab->trjb", split, slope).reshape(len(x), 63, 63)
        constant = rows.new_zeros(len(x), residual.shape[-1] - 63, 63)
        derivative = torch.cat([rows, constant], dim=1)[None, :, None]
    weight = torch.full_like(residual[:, :1], settings.weight)
    return Residual("pose_prior", "pose", torch.zeros(1, dtype=torch.int64), residual[:, None],
                    weight, derivative)  # fmt: skip


@dataclass(frozen=True)
class ShapeSettings:
    """Weight of the population: `prior`, and `weight` for every frame of the person.

    `height_sigma` m, where a stature is known.
    """

    weight: float = 0.03
    prior: float = 1.0
    height_sigma: float = 0.01


@term("shape", ShapeSettings, on_border=True)
def shape(context: BorderContext, settings: ShapeSettings) -> list[BorderResidual]:
    """Betas, standard normal in the body's population; the deviation from a stated stature.

    The weight grows with the length of the clip, as the data's does: their errors repeat from
    frame to frame (weight 1 for 1000 frames let the shape run away, solver_probe section 1).
    """
    layout, residuals = context.layout, []
    for index, person in enumerate(context.scene.people):
        count = len(person.betas)
        place = layout.betas_of(index) if layout.free.betas else None
        derivative = context.derivative(count, (place, torch.eye(count).to(person.betas)))
        weight = settings.prior + settings.weight * context.frames[index]
        residuals.append(BorderResidual("shape", person.betas, weight, derivative))
        height = context.heights[index]
        if height is not None:
            value = (context.points.height(person.betas) - height) / settings.height_sigma
            slope = context.points.height_directions[None] / settings.height_sigma
            derivative = context.derivative(1, (place, slope))
            residuals.append(BorderResidual("shape", value[None], weight, derivative))
    return residuals


@dataclass(frozen=True)
class ScaleSettings:
    """`weight` multiplies the information of the alignment."""

    weight: float = 1.0


@term("scale", ScaleSettings, on_border=True)
def scale(context: BorderContext, settings: ScaleSettings) -> list[BorderResidual]:
    """Log scale about what the alignment found, over the standard deviation it stated."""
    mean, sigma = context.scene.scale_prior
    value = (context.scene.log_scale - mean)[None] / sigma
    derivative = context.derivative(1, (context.layout.scale, (1.0 / sigma)[None, None]))
    return [BorderResidual("scale", value, settings.weight, derivative)]
