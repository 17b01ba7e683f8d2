"""SO(3) increments: exponential in the body frame and the Jacobians of its logarithm."""

import roma
import torch
from jaxtyping import Float
from torch import Tensor


def compose_rotation(
    rotation: Float[Tensor, "*batch 3 3"], increment: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """R exp([d]x): the rotation moved by a body-frame increment, rad."""
    return rotation @ roma.rotvec_to_rotmat(increment)


def logarithm(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vector of norm at most pi."""
    return roma.rotmat_to_rotvec(rotation)


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """[v]x with [v]x w = v x w."""
    x, y, z = vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, dim=-1).reshape(*vector.shape[:-1], 3, 3)


def right_jacobian_inverse(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """J with log(exp([r]x) exp([d]x)) = r + J d + O(d^2).

    I + [r]x / 2 + (1 / |r|^2 - (1 + cos|r|) / (2 |r| sin|r|)) [r]x^2; Chirikjian 2011, equation
    10.86. Singular at |r| = 2 pi only.
    """
    angle2 = (rotvec**2).sum(dim=-1)[..., None, None]
    angle = angle2.clamp_min(1e-16).sqrt()
    half = 0.5 * angle
    factor = torch.where(
        angle2 < 1e-6,
        1.0 / 12.0 + angle2 / 720.0,
        (1.0 - half / torch.tan(half)) / angle2.clamp_min(1e-16),
    )
    hat = skew(rotvec)
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return eye + 0.5 * hat + factor * (hat @ hat)


def left_jacobian(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """J with exp(r + d) = exp([J d]x) exp(r) + O(d^2).

    I + (1 - cos|r|) / |r|^2 [r]x + (|r| - sin|r|) / |r|^3 [r]x^2; Chirikjian 2011, equation 10.86.
    """
    angle2 = (rotvec**2).sum(dim=-1)[..., None, None]
    small = angle2 < 1e-6
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - angle2 / 24.0, (1.0 - torch.cos(angle)) / safe)
    second = torch.where(
        small, 1.0 / 6.0 - angle2 / 120.0, (angle - torch.sin(angle)) / (safe * angle)
    )
    hat = skew(rotvec)
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return eye + first * hat + second * (hat @ hat)
