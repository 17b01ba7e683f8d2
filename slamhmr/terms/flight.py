"""Free fall: whoever is in the air falls with g, which makes metres observable."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.features import PersonFeatures
from slamhmr.flights import GRAVITY, mass_shares
from slamhmr.scene import plane_axes
from slamhmr.solve.manifolds import skew
from slamhmr.solve.problem import Residual, single_element
from slamhmr.terms.register import term
from slamhmr.terms.smoothness import second_difference

USUAL_STEP = 1 / 30  # s, of the frames that `weight` counts


@dataclass(frozen=True)
class FlightSettings:
    """`sigma` m/s^2, of one frame's acceleration at 30 Hz; `mu`: Geman-McClure, sigma^2."""

    weight: float = 1.0
    sigma: float = 2.0
    mu: float = 9.0


@term("flight", FlightSettings)
def flight(features: PersonFeatures, settings: FlightSettings, derivatives: bool) -> Residual:
    """Acceleration of the centre of mass against gravity's, in frames of free fall, over sigma.

    r_t = (second difference of sum_f m_f x_f + g up) / sigma. Not divided by the body's size: this
    is the term that says how long a metre is. Its mean is not zero, so a smaller world is no
    better. Source: ours.
    """
    falling = features.evidence.flight
    if falling is None or not bool(falling.any()):
        return _nothing(features, settings.mu)
    coefficients, present = second_difference(features, features.evidence.linked)
    whole = falling.clone()
    whole[:-2] &= falling[1:-1] & falling[2:]
    shares = mass_shares(features.points.names).to(features.world)
    centre = torch.einsum("p,tpi->ti", shares, features.world)
    value = torch.zeros_like(centre)
    value[:-2] = sum(
        (coefficients[i, :-2, None] * centre[i : len(centre) - 2 + i] for i in range(3)),
        start=torch.zeros_like(centre[:-2]),
    )
    value = (value + GRAVITY * features.up) / settings.sigma
    steps = torch.ones_like(features.evidence.times)
    steps[:-1] = features.evidence.times[1:] - features.evidence.times[:-1]
    weight = settings.weight * present * whole * steps / USUAL_STEP
    derivative = border = None
    if derivatives:
        own, shared = _of_centre(features, shares, centre)
        derivative = _ahead(coefficients, own)[:, :, None] / settings.sigma
        border = _ahead(coefficients, shared).sum(dim=0)
        if features.layout.gravity is not None:
            border[..., features.layout.gravity] += GRAVITY * plane_axes(features.up).T
        border = border[:, None] / settings.sigma
    columns = slice(0, features.layout.moving)
    return Residual(
        "flight", "body", single_element(value), value[:, None], weight[:, None],
        derivative, border_derivative=border if columns.stop > 0 else None, border_slice=columns,
        kernel=settings.mu,
    )  # fmt: skip


def _nothing(features: PersonFeatures, mu: float) -> Residual:
    world = features.world
    empty = world.new_zeros(len(world), 0, 3)
    return Residual(
        "flight", "points", single_element(empty)[:0], empty, empty[..., 0],
        isotropic=world.new_zeros(3, len(world), 0), kernel=mu,
    )  # fmt: skip


def _ahead(
    coefficients: Float[Tensor, "3 T"], slopes: Float[Tensor, "T 3 c"]
) -> Float[Tensor, "3 T 3 c"]:
    """Derivatives of the second differences by what each of their three frames moves with."""
    found = slopes.new_zeros(3, *slopes.shape)
    for index in range(3):
        count = len(slopes) - 2
        found[index, :count] = coefficients[index, :count, None, None] * slopes[index:][:count]
    return found


def _of_centre(
    features: PersonFeatures, shares: Float[Tensor, "P"], centre: Float[Tensor, "T 3"]
) -> tuple[Float[Tensor, "T 3 d"], Float[Tensor, "T 3 c"]]:
    """Derivative of the centre of mass by the frame's own unknowns, and by the body's shape."""
    layout, points = features.layout, features.points
    own = centre.new_zeros(len(centre), 3, layout.free.columns)
    own[:, :, :3] = torch.eye(3, dtype=centre.dtype, device=centre.device)
    moving = (layout.free.columns - 3) // 3
    carried = points.moves[:moving].to(shares) * shares  # (J, P)
    arms = torch.einsum("jp,tpi->tji", carried, features.world)
    arms = arms - carried.sum(dim=1)[:, None] * features.world[:, :moving]
    turned = -skew(arms) @ features.rotations[:, :moving]
    own[:, :, 3:] = turned.transpose(1, 2).flatten(start_dim=2)
    shared = centre.new_zeros(len(centre), 3, layout.moving)
    if layout.betas is not None:
        shared[..., layout.betas] = torch.einsum("p,tpib->tib", shares, features.by_shape())
    return own, shared
