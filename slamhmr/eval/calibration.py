"""Is a stated uncertainty true? Share of true values inside the regions that covariances draw.

A Gaussian error e with covariance S has e' S^-1 e distributed as chi^2 with as many degrees of
freedom as e has dimensions: the region of level p holds the truth with probability p. Errors are
estimate minus truth, in the frame of the covariance.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

LEVELS = (0.5, 0.9)


def squared_mahalanobis(
    error: Float[Tensor, "*batch D"], covariance: Float[Tensor, "*batch D D"]
) -> Float[Tensor, "*batch"]:
    """Squared length e' S^-1 e of each error.

    Infinite where S is not positive definite: such a region holds nothing.
    """
    symmetric = 0.5 * (covariance + covariance.mT)
    lower, info = torch.linalg.cholesky_ex(symmetric)
    whitened = torch.linalg.solve_triangular(lower, error[..., None], upper=False)[..., 0]
    squared = (whitened**2).sum(dim=-1)
    return torch.where((info == 0) & torch.isfinite(squared), squared, torch.inf)


def rank(squared: Float[Tensor, "*batch"], dimensions: int) -> Float[Tensor, "*batch"]:
    """Level of the smallest region that holds the truth: chi^2's distribution function.

    Uniform between 0 and 1 where the covariances are right.
    """
    shape = torch.full_like(squared, dimensions / 2)
    inside = torch.special.gammainc(shape, squared.clamp_max(1e12) / 2)
    return torch.where(torch.isfinite(squared), inside, 1.0)


def coverage(
    error: Float[Tensor, "*batch D"],
    covariance: Float[Tensor, "*batch D D"],
    levels: Sequence[float] = LEVELS,
) -> Float[Tensor, "L"]:
    """Share of the truth inside the region of each level; NaN where there is no error to judge."""
    ranks = rank(squared_mahalanobis(error, covariance), error.shape[-1]).flatten()
    if len(ranks) == 0:
        return error.new_full((len(levels),), torch.nan)
    return torch.stack([(ranks <= level).to(error).mean() for level in levels])


def temperature(
    error: Float[Tensor, "*batch D"],
    covariance: Float[Tensor, "*batch D D"],
    levels: Sequence[float] = LEVELS,
) -> Float[Tensor, "L"]:
    """Factor on the covariances with which the region of each level holds just that share.

    Equal for all levels where the errors are Gaussian but for a scale; larger for high levels where
    their tails are heavy.
    """
    squared = squared_mahalanobis(error, covariance).flatten()
    wanted = torch.tensor(list(levels), dtype=squared.dtype)
    return torch.quantile(squared, wanted) / chi_squared_quantile(wanted, error.shape[-1])


def chi_squared_quantile(
    level: Float[Tensor, "*batch"], dimensions: int
) -> Float[Tensor, "*batch"]:
    """Inverse of chi^2's distribution function, by bisection to 1e-12 of the value."""
    low, high = torch.zeros_like(level), torch.full_like(level, 1e4)
    for _ in range(90):
        middle = 0.5 * (low + high)
        below = rank(middle, dimensions) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)
