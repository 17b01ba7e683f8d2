"""Coverage: right for errors drawn from the covariance, telling where they are not."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slamhmr.eval.calibration import (
    chi_squared_quantile,
    coverage,
    rank,
    squared_mahalanobis,
    temperature,
)

COUNT = 20_000
LEVELS = torch.tensor([0.5, 0.9], dtype=torch.float64)


def draws(dimensions: int, factor: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian errors and the covariances they were drawn from, each its own, over `factor`."""
    rng = torch.Generator().manual_seed(3)
    root = torch.randn(COUNT, dimensions, dimensions, generator=rng, dtype=torch.float64)
    root = root + 2 * torch.eye(dimensions, dtype=torch.float64)
    white = torch.randn(COUNT, dimensions, 1, generator=rng, dtype=torch.float64)
    return (root @ white)[..., 0], root @ root.mT / factor


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_gaussian_errors_are_inside_as_often_as_they_should(dimensions: int) -> None:
    error, covariance = draws(dimensions)
    assert coverage(error, covariance).tolist() == pytest.approx([0.5, 0.9], abs=0.012)
    assert temperature(error, covariance).tolist() == pytest.approx([1.0, 1.0], rel=0.04)


def test_covariances_three_times_too_small_are_told_apart() -> None:
    error, covariance = draws(3, factor=3.0)
    inside = coverage(error, covariance)
    assert inside[0] < 0.2
    assert inside[1] < 0.5
    factors = temperature(error, covariance)
    assert factors.tolist() == pytest.approx([3.0, 3.0], rel=0.04)
    assert coverage(error, 3.0 * covariance).tolist() == pytest.approx([0.5, 0.9], abs=0.012)


def test_heavy_tails_ask_for_a_larger_factor_at_the_higher_level() -> None:
    error, covariance = draws(3)
    error[: COUNT // 5] *= 5
    half, most = temperature(error, covariance).tolist()
    assert most > 2 * half


def test_mahalanobis_by_hand() -> None:
    covariance = torch.diag(torch.tensor([4.0, 9.0, 1.0], dtype=torch.float64))
    error = torch.tensor([2.0, 3.0, 2.0], dtype=torch.float64)
    assert float(squared_mahalanobis(error, covariance)) == pytest.approx(1 + 1 + 4)


def test_a_singular_region_holds_nothing() -> None:
    error = torch.zeros(2, 3, dtype=torch.float64)
    covariance = torch.stack([torch.zeros(3, 3), torch.full((3, 3), torch.nan)]).double()
    assert bool(torch.isinf(squared_mahalanobis(error, covariance)).all())
    assert coverage(error, covariance).tolist() == [0.0, 0.0]


def test_nothing_to_judge_is_no_share() -> None:
    nothing = coverage(torch.zeros(0, 3).double(), torch.zeros(0, 3, 3).double())
    assert bool(torch.isnan(nothing).all())


def test_quantiles_of_chi_squared() -> None:
    # Two degrees of freedom: closed form -2 log(1 - p). Three: 2.366, 6.251 (any table).
    two = chi_squared_quantile(LEVELS, 2)
    assert two.tolist() == pytest.approx([-2 * math.log(0.5), -2 * math.log(0.1)], rel=1e-9)
    assert chi_squared_quantile(LEVELS, 3).tolist() == pytest.approx([2.36597, 6.25139], rel=1e-5)


@given(st.floats(0.01, 0.99), st.integers(1, 6))
def test_rank_inverts_the_quantile(level: float, dimensions: int) -> None:
    quantile = chi_squared_quantile(torch.tensor([level], dtype=torch.float64), dimensions)
    assert float(rank(quantile, dimensions)) == pytest.approx(level, abs=1e-9)
