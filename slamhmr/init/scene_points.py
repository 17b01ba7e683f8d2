"""Scale from the static scene's points: the floor that people stand on, seen by the SLAM system.

People have a known size, so their feet have a metric depth; the sparse points around those feet
lie on the same floor at a depth in SLAM units. The ratio is the scale. It does not need the
person or the camera to move in any particular way, where foot velocities fail (a camera that
follows straight behind).
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SIDE, ROWS = 1.5, 0.35  # window around the feet, shares of the person's angular height
FEWEST_POINTS = 12  # on the floor, in all windows together
FEWEST_VOTES = 5
TILT = math.radians(12.0)  # most the floor leans from the level
THICKNESS = 0.02  # of the median distance to the points: what counts as on the floor
TRIALS = 600
SIZE_SIGMA = 0.08  # the body's own size is known no better than this
VOTES_PER_SECOND = 5


def floor_scale(
    points: Float[Tensor, "M 3"],
    world_from_cam: Float[Tensor, "T 4 4"],
    soles: Float[Tensor, "N T 4 3"],
    necks: Float[Tensor, "N T 3"],
    observed: Bool[Tensor, "N T"],
    fps: float,
) -> tuple[float, float] | None:
    """Log of metres per SLAM unit and its standard deviation; None where no floor is found.

    `points` and `world_from_cam` are levelled (z up), in SLAM units; `soles` (under heels and
    toes) and `necks` are relative to the camera's centre in the same axes, metres.
    """
    stride = max(1, round(fps / VOTES_PER_SECOND))
    chosen = torch.zeros_like(observed)
    chosen[:, ::stride] = observed[:, ::stride]
    people, frames = chosen.nonzero().unbind(dim=1)
    if len(people) < FEWEST_VOTES:
        return None
    lowest = soles[people, frames, :, 2].argmin(dim=-1)
    feet = soles[people, frames, lowest]
    turn, centres = world_from_cam[frames, :3, :3], world_from_cam[frames, :3, 3]
    near = _near_feet(points, turn, centres, feet, necks[people, frames])
    floor = _fit_floor(points[near.any(dim=0)], centres)
    if floor is None:
        return None
    normal, offset = floor
    down = feet @ normal
    height = centres @ normal + offset
    usable = (down < -0.02 * feet.norm(dim=-1)) & (height > 0)
    if int(usable.sum()) < FEWEST_VOTES:
        return None
    votes = (-down[usable] / height[usable]).log()
    middle = votes.median()
    spread = 1.4826 * float((votes - middle).abs().median())
    return float(middle), math.hypot(SIZE_SIGMA, spread / math.sqrt(min(len(votes), 10)))


def _near_feet(
    points: Float[Tensor, "M 3"],
    turn: Float[Tensor, "V 3 3"],
    centres: Float[Tensor, "V 3"],
    feet: Float[Tensor, "V 3"],
    necks: Float[Tensor, "V 3"],
) -> Bool[Tensor, "V M"]:
    """Points seen beside a person's feet, in rows where a level floor is as far as they are."""

    def image(relative: Tensor) -> tuple[Tensor, Tensor]:
        seen = relative @ turn  # rows times world_from_cam: camera axes
        return seen[..., :2] / seen[..., 2:].clamp_min(1e-6), seen[..., 2]

    spots, depth = image(points[None] - centres[:, None])
    foot, _ = image(feet[:, None])
    neck, _ = image(necks[:, None])
    size = (neck - foot).norm(dim=-1, keepdim=True)
    off = (spots - foot).abs() / size
    return (off[..., 0] < SIDE) & (off[..., 1] < ROWS) & (depth > 0)


def _fit_floor(
    points: Float[Tensor, "M 3"], centres: Float[Tensor, "V 3"]
) -> tuple[Float[Tensor, "3"], float] | None:
    """Near-level plane n.x + d = 0 through most points; nothing lies below a floor."""
    count = len(points)
    if count < FEWEST_POINTS:
        return None
    thickness = THICKNESS * float(torch.cdist(points, centres).median())
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(count, (TRIALS, 3), generator=generator)
    corners = points[picks]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.nn.functional.normalize(normals, dim=-1)
    normals = normals * torch.where(normals[:, 2:] < 0, -1.0, 1.0)
    level = normals[:, 2] > math.cos(TILT)
    if not bool(level.any()):
        return None
    normals, corners = normals[level], corners[level, 0]
    heights = points @ normals.T - (corners * normals).sum(dim=-1)  # (M, trials)
    score = (heights.abs() < thickness).sum(dim=0) - 2 * (heights < -2 * thickness).sum(dim=0)
    best = int(score.argmax())
    inliers = points[heights[:, best].abs() < thickness]
    if len(inliers) < FEWEST_POINTS:
        return None
    middle = inliers.mean(dim=0)
    normal = torch.linalg.svd(inliers - middle, full_matrices=False).Vh[-1]
    normal = normal * torch.sign(normal[2])
    if float(normal[2]) < math.cos(TILT):
        return None
    return normal, -float(normal @ middle)
