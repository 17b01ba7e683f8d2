"""Terms between people: nobody is inside somebody else."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.capsules import Overlap, overlap
from slamhmr.features import PersonFeatures
from slamhmr.neighbours import Neighbours
from slamhmr.solve.problem import Residual
from slamhmr.terms.register import term


@dataclass(frozen=True)
class InterpenetrationSettings:
    """`sigma` m, of the depth of two capsules in each other."""

    weight: float = 1.0
    sigma: float = 0.02


@term("interpenetration", InterpenetrationSettings)
def interpenetration(
    features: PersonFeatures, settings: InterpenetrationSettings, derivatives: bool
) -> Residual:
    """Depth of this person's capsules in those of others, over sigma; one-sided.

    r = (R_a + R_b - |x_a - x_b|) / sigma, x the axes' nearest points. Others are constants of a
    person's window: each pair is in the windows of both, with half the weight and twice the
    derivative. So energy and gradient are those of the pair, and the matrix is an upper bound of
    its own, for (a + b)^2 <= 2 a^2 + 2 b^2. In the same way the nearest point at share u of an
    axis is split into the axis's ends with weights 1 - u and u. Ours.
    """
    others = features.neighbours
    assert others is not None
    capsules = features.points.capsules
    own = features.world[others.frames][:, capsules.ends]  # (n, C, 2, 3)
    radius = capsules.radius * features.points.size(features.betas)
    found = overlap(
        own[:, :, None].expand(-1, -1, own.shape[1], -1, -1),
        others.ends[:, None].expand(-1, own.shape[1], -1, -1, -1),
        radius[:, None] + others.radius[:, None],
    )
    pairs = _pairs(found, others, features.frame_count)
    value = pairs.depth / settings.sigma
    ends = capsules.ends[pairs.capsule]
    weight = 0.5 * settings.weight * (value > 0)
    derivative = border = None
    if derivatives:
        derivative = (-2.0 / settings.sigma * pairs.away).repeat(1, 2, 1)[None, :, :, None]
        if features.layout.betas is not None:
            slope = features.points.size_directions / features.points.size_template
            grown = 2.0 / settings.sigma * capsules.radius[pairs.capsule][:, None] * slope
            border = grown.repeat(2, 1)[None, :, None].expand(len(value), -1, -1, -1)
    return Residual(
        "interpenetration", "points", ends.T.flatten(), value.repeat(1, 2)[..., None],
        torch.cat([(1 - pairs.share) * weight, pairs.share * weight], dim=1), derivative,
        border_derivative=border, border_slice=features.layout.betas,
    )  # fmt: skip


@dataclass(frozen=True)
class _Pairs:
    """Pairs of an own capsule and somebody's that overlap in any frame; zeros where they do not."""

    capsule: Int[Tensor, "K"]  # own
    depth: Float[Tensor, "T K"]
    share: Float[Tensor, "T K"]
    away: Float[Tensor, "T K 3"]


def _pairs(found: Overlap, others: Neighbours, frames: int) -> _Pairs:
    """The pairs that overlap somewhere, each with a column of its own."""
    if len(others.frames) == 0:
        none = found.depth.new_zeros(frames, 0)
        return _Pairs(others.frames, none, none, none[..., None].expand(-1, -1, 3))
    row, own, other = torch.nonzero(found.depth > 0, as_tuple=True)
    count = found.depth.shape[1]
    key = (others.people[row] * count + own) * count + other
    keys, column = torch.unique(key, return_inverse=True)
    place = (others.frames[row], column)

    def spread(values: Tensor) -> Tensor:
        whole = values.new_zeros(frames, len(keys), *values.shape[3:])
        whole[place] = values[row, own, other]
        return whole

    capsule = keys.div(count, rounding_mode="floor") % count
    return _Pairs(capsule, spread(found.depth), spread(found.share), spread(found.away))
