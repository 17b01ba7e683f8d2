"""Keypoints of made people in turning cameras, for tests of the lifter."""

import roma
import torch

from priors import lifter

POINTS = lifter.KEYPOINT_COUNT


def draw(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def person(seed: int, people: int = 2, frames: int = 40) -> tuple[torch.Tensor, ...]:
    """Points in the camera about 5 m ahead, their confidence, turning cameras."""
    time = torch.arange(frames, dtype=torch.float64)[:, None, None] / 30
    shape = 0.4 * draw(seed, people, 1, POINTS, 3)
    sway = 0.1 * draw(seed + 1, people, 1, POINTS, 3) * torch.sin(4 * time)
    points = shape + sway + torch.tensor([0.8, -0.4, 5.0]) + 0.3 * time
    confidence = torch.sigmoid(draw(seed + 2, people, frames, POINTS))
    confidence[:, 10:14, 3:9] = 0
    turns = roma.rotvec_to_rotmat(0.2 * torch.sin(time[:, 0] * torch.tensor([1.0, 2.0, 3.0])))
    return points, confidence, turns.expand(people, -1, -1, -1)


def seen(points: torch.Tensor) -> torch.Tensor:
    return points[..., :2] / points[..., 2:]
