"""Weighted expectation-maximisation of a Gaussian mixture with full, shrunk covariances."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """K Gaussians in D dimensions."""

    log_weights: Float[Tensor, "K"]
    means: Float[Tensor, "K D"]
    scale_tril: Float[Tensor, "K D D"]

    def joint_log_prob(self, x: Float[Tensor, "S D"]) -> Float[Tensor, "S K"]:
        """Log of weight times density, nats."""
        constant = -0.5 * x.shape[1] * torch.log(torch.tensor(2 * torch.pi, dtype=x.dtype))
        columns = []
        for weight, mean, factor in zip(self.log_weights, self.means, self.scale_tril, strict=True):
            white = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False)
            log_det = factor.diagonal().log().sum()
            columns.append(weight + constant - log_det - 0.5 * white.square().sum(dim=0))
        return torch.stack(columns, dim=1)


@dataclass(frozen=True)
class Shrinkage:
    """How covariances are kept from collapsing onto too few samples."""

    floor: float  # standard deviation added to every direction, rad
    pooled: float  # weight of the mean within-component covariance, in samples
    cap: Float[Tensor, "D"]  # largest standard deviation of each coordinate, rad


def fit_mixture(
    x: Float[Tensor, "S D"],
    weights: Float[Tensor, "S"],
    count: int,
    *,
    shrinkage: Shrinkage,
    iterations: int,
    generator: torch.Generator,
) -> Mixture:
    """Mixture of `count` Gaussians: k-means++ seeds, ten rounds of k-means, then weighted EM."""
    weights = weights / weights.mean()
    centres = x[_seeds(x, weights, count, generator)]
    for _ in range(10):
        nearest = torch.cdist(x, centres).argmin(dim=1)
        shares = torch.nn.functional.one_hot(nearest, count).to(x) * weights[:, None]
        mass = shares.sum(dim=0)
        centres = torch.where(
            mass[:, None] > 0, shares.T @ x / mass.clamp_min(1e-9)[:, None], centres
        )
    mixture = _maximise(x, shares, shrinkage)
    for _ in range(iterations):
        shares = torch.softmax(mixture.joint_log_prob(x), dim=1) * weights[:, None]
        mixture = _maximise(x, shares, shrinkage)
    return mixture


def _seeds(
    x: Float[Tensor, "S D"], weights: Float[Tensor, "S"], count: int, generator: torch.Generator
) -> Int[Tensor, "K"]:
    """k-means++ (Arthur & Vassilvitskii 2007): seeds drawn by squared distance to the others."""
    first = torch.multinomial(weights, 1, generator=generator)
    chosen = [int(first)]
    distance = (x - x[first]).square().sum(dim=1)
    while len(chosen) < count:
        pick = int(torch.multinomial(weights * distance, 1, generator=generator))
        chosen.append(pick)
        distance = torch.minimum(distance, (x - x[pick]).square().sum(dim=1))
    return torch.tensor(chosen)


def _maximise(
    x: Float[Tensor, "S D"], shares: Float[Tensor, "S K"], shrinkage: Shrinkage
) -> Mixture:
    """M step; covariances are mixed with the pooled one, raised by the floor, then capped.

    Without the cap a few wide components take all odd poses and find a broken knee plausible.
    """
    mass = shares.sum(dim=0).clamp_min(1e-6)
    means = shares.T @ x / mass[:, None]
    scatters = []
    for share, mean in zip(shares.T, means, strict=True):
        centred = x - mean
        scatters.append((centred * share[:, None]).T @ centred)
    scatter = torch.stack(scatters)
    pooled = scatter.sum(dim=0) / mass.sum()
    covariance = (scatter + shrinkage.pooled * pooled) / (mass + shrinkage.pooled)[:, None, None]
    covariance = covariance + shrinkage.floor**2 * torch.eye(x.shape[1], dtype=x.dtype)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    factor = (shrinkage.cap / spread).clamp_max(1)  # correlations stay
    covariance = covariance * factor[:, :, None] * factor[:, None, :]
    return Mixture(
        log_weights=(mass / mass.sum()).log(),
        means=means,
        scale_tril=torch.linalg.cholesky(covariance),
    )
