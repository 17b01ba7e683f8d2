"""Derivatives of the exponential and the logarithm of rotations.

Source: Sola, Deray, Atchuthan 2018, "A micro Lie theory", equations 143 to 146.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SMALL_ANGLE = 1e-3  # rad; below, two terms of each series are exact to 1e-14


def cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """[v]x with [v]x w = v x w."""
    x, y, z = vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, dim=-1).reshape(*vector.shape, 3)


def inverse_right_jacobian(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Derivative of log(R exp(d)) by d at 0, R = exp(vector); its transpose is that of exp(d) R.

    I + [v]x / 2 + (1 / a^2 - cot(a / 2) / (2 a)) [v]x^2, a = |v|.
    """
    angle, safe = _angles(vector)
    factor = 1 / safe**2 - 1 / (2 * safe * torch.tan(safe / 2))
    factor = torch.where(angle < SMALL_ANGLE, 1 / 12 + angle**2 / 720, factor)
    cross = cross_matrix(vector)
    return _identity(vector) + cross / 2 + factor * (cross @ cross)


def left_jacobian(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """J with exp(v + d) = exp(J d) exp(v) to first order.

    I + (1 - cos a) / a^2 [v]x + (a - sin a) / a^3 [v]x^2, a = |v|.
    """
    angle, safe = _angles(vector)
    small = angle < SMALL_ANGLE
    first = torch.where(small, 0.5 - angle**2 / 24, (1 - safe.cos()) / safe**2)
    second = torch.where(small, 1 / 6 - angle**2 / 120, (safe - safe.sin()) / safe**3)
    cross = cross_matrix(vector)
    return _identity(vector) + first * cross + second * (cross @ cross)


def _angles(vector: Float[Tensor, "*batch 3"]) -> tuple[Tensor, Tensor]:
    angle = vector.norm(dim=-1)[..., None, None]
    return angle, angle.clamp_min(SMALL_ANGLE)


def _identity(vector: Tensor) -> Float[Tensor, "3 3"]:
    return torch.eye(3, dtype=vector.dtype, device=vector.device)
