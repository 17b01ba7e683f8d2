"""Jacobians of rotations against differences, from the identity to nearly half a turn."""

import pytest
import roma
import torch

from priors.so3 import cross_matrix, inverse_right_jacobian, left_jacobian

STEP = 1e-6
ANGLES = [0.0, 1e-8, 9.9e-4, 1.01e-3, 0.3, 2.0, 3.0]


def vector(angle: float) -> torch.Tensor:
    return angle * torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3


def steps() -> torch.Tensor:
    return STEP * torch.eye(3, dtype=torch.float64)


def test_cross():
    a, b = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((cross_matrix(a) @ b[..., None])[..., 0], torch.linalg.cross(a, b))


@pytest.mark.parametrize("angle", ANGLES)
def test_of_the_logarithm(angle: float):
    at = roma.rotvec_to_rotmat(vector(angle))
    turn = roma.rotvec_to_rotmat(steps())
    ahead, back = (roma.rotmat_to_rotvec(at @ t) for t in (turn, turn.transpose(-1, -2)))
    torch.testing.assert_close(
        inverse_right_jacobian(vector(angle)), ((ahead - back) / (2 * STEP)).T, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("angle", ANGLES)
def test_of_the_exponential(angle: float):
    ahead, back = (roma.rotvec_to_rotmat(vector(angle) + s * steps()) for s in (1, -1))
    change = roma.rotmat_to_rotvec(ahead @ back.transpose(-1, -2)) / (2 * STEP)
    torch.testing.assert_close(left_jacobian(vector(angle)), change.T, rtol=0, atol=1e-6)


def test_both_ends_of_the_series_meet():
    """The formula loses digits at small angles, the series at large ones: equal where they meet."""
    for function in (left_jacobian, inverse_right_jacobian):
        below, above = (function(vector(1e-3 * (1 + sign * 1e-9))) for sign in (-1, 1))
        torch.testing.assert_close(below, above, rtol=0, atol=1e-10)
