"""Direction of up from many noisy votes and from how people hold cameras."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LEAN_SIGMA = 0.17  # rad (10 deg), lean beyond which a single vote counts less
VOTES_SIGMA = 0.10  # rad, error that all votes of a clip have in common: of trunks and legs
LEARNED_SIGMA = 0.04  # rad, the same of votes by a network
ROLL_SIGMA = 0.15  # rad, roll of a camera; weak, for people are seen to stand upright sideways
PITCH = (0.09, 0.20)  # rad, downward pitch of a camera: mean and scale (Cauchy)


def robust_up(
    axes: Float[Tensor, "V 3"],
    vote: Float[Tensor, "V"],
    world_from_cam: Float[Tensor, "T 3 3"],
    common: float = VOTES_SIGMA,
) -> Float[Tensor, "3"]:
    """Up in the world of the cameras: weighted Cauchy mean of the unit `axes`.

    `common` rad is the error that all votes share.

    How far a body leans towards a single camera is poorly seen, so the cameras add two weak
    opinions: x axes are level, and the view goes slightly downwards (robust: a camera that looks
    steeply down is believed). Each round minimises a quadratic and returns to the sphere.
    """
    right, ahead = world_from_cam[:, :, 0], world_from_cam[:, :, 2].mean(dim=0)
    roll = (right[:, :, None] * right[:, None]).mean(dim=0) / ROLL_SIGMA**2
    level = -world_from_cam[:, :, 1].mean(dim=0)
    up = (vote[:, None] * axes).sum(dim=0) + 1e-6 * level
    up = torch.nn.functional.normalize(up, dim=0)
    for _ in range(30):
        angle = torch.arccos((axes @ up).clamp(-1, 1))
        weight = vote / (1 + (angle / LEAN_SIGMA) ** 2)
        weight = weight / weight.sum().clamp_min(1e-12) / common**2
        off = (math.asin(max(-1.0, min(1.0, float(-ahead @ up)))) - PITCH[0]) / PITCH[1]
        pitch = 1 / PITCH[1] ** 2 / (1 + off**2)
        matrix = weight.sum() * torch.eye(3, dtype=up.dtype) + roll
        matrix = matrix + pitch * ahead[:, None] * ahead
        target = (weight[:, None] * axes).sum(dim=0) - pitch * math.sin(PITCH[0]) * ahead
        up = torch.nn.functional.normalize(torch.linalg.solve(matrix, target), dim=0)
    return up
