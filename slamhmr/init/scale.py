"""Metres per SLAM unit from feet that stand and from predicted velocities, a robust 1-D problem."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.contacts import point_velocity
from slamhmr.errors import InputError

ACROSS_SIGMA = 0.2  # m/s, velocity of a standing foot across the line of sight
ALONG_SIGMA = 2.0  # m/s, along it, where one camera hardly sees; 0.6 left the scale 8 % off, not 5
PELVIS_WEIGHT = 0.3  # of one predicted velocity, beside four points of feet
PERSON_SPEED = 2.0  # m/s, scale of how fast people move, a weak regulariser of the scale
PERSON_WEIGHT = 0.03
# Median and log spread of how fast people carry cameras, m/s; rows repeat their errors for as long.
CARRIED_SPEED, CORRELATED = (0.6, 1.2), 10.0
LEAST_FRAMES = 5  # with a known velocity; three gave a scale 98 % short
NEAR_BEST = 1.1  # factor about the best of the grid in which least squares refine it
SCALE_SPEEDS = (0.01, 20.0)  # m/s, median speed of the camera at the ends of the searched scales
LOWEST_SIGMA = 0.03  # m, a foot this much higher than the other is probably swinging


def camera_scale(
    feet: Float[Tensor, "N T 4 3"],
    pelvis: Float[Tensor, "N T 3"],
    centres: Float[Tensor, "T 3"],
    observed: Bool[Tensor, "N T"],
    fps: float,
    between: tuple[float, float] | None = None,
    *,
    going: tuple[Float[Tensor, "N T 3"], Float[Tensor, "N T"]] | None = None,
    contacts: Float[Tensor, "N T 4"] | None = None,
    cuts: tuple[int, ...] = (),
) -> float:
    """Metres per SLAM unit: a standing foot does not move, s dc/dt + d(R x)/dt = 0.

    `feet` and `pelvis` are relative to the camera, in the levelled axes, metres. Robust
    (Geman-McClure) 1-D problem over lower feet, searched on a logarithmic grid (`between` two
    scales), then re-weighted least squares. With `going`, the predicted velocity v of the pelvis
    and its sigma, s dc/dt + d(R x)/dt = v counts too; `contacts` replace the guess of which foot
    stands. Weak preferences, for people who move slowly and cameras that are carried, decide where
    nothing else does.
    """
    camera, _ = point_velocity(centres[None, :, None], fps, torch.ones_like(observed[:1]), cuts)
    camera = camera[0, :, 0]
    body_velocity, known = point_velocity(pelvis[:, :, None], fps, observed, cuts)
    velocity, _ = point_velocity(feet, fps, observed, cuts)
    standing = lower_foot(feet) if contacts is None else contacts
    across, moved, weight = _foot_rows(feet, velocity, camera, standing * known[..., None])
    if going is not None:
        off, path, trust = _pelvis_rows(pelvis, body_velocity[:, :, 0], camera, known, going)
        across, moved = torch.cat([across, off]), torch.cat([moved, path])
        weight = torch.cat([weight, trust])
    person, person_camera = body_velocity[:, :, 0][known], camera[known.nonzero()[:, 1]]
    speed = camera.norm(dim=-1)
    typical = float(speed[speed > 0].median()) if bool((speed > 0).any()) else 0.0
    if len(weight) < 10 or int(known.any(dim=0).sum()) < LEAST_FRAMES or typical <= 0:
        raise InputError(
            "the scale of the camera path cannot be found: the camera stands or people are seen in "
            "too few frames; set scale_known or moving = false in cameras.npz"
        )

    def cost(scale: float) -> float:
        squared = ((across + scale * moved) ** 2).sum(dim=-1)
        walking = ((person + scale * person_camera) ** 2).sum(dim=-1) / PERSON_SPEED**2
        carried = math.log(scale * typical / CARRIED_SPEED[0]) / CARRIED_SPEED[1]
        return float(
            (weight * squared / (1 + squared)).sum()
            + PERSON_WEIGHT * torch.log1p(walking).sum()
            + 0.5 * CORRELATED * carried**2
        )

    if between is None:
        between = (SCALE_SPEEDS[0] / typical, SCALE_SPEEDS[1] / typical)
    low, high = (math.log(limit) for limit in between)
    grid = torch.linspace(low, high, 300, dtype=torch.float64).exp().tolist()
    scale = _refined(min(grid, key=cost), across, moved, weight)
    return min(max(scale, grid[0]), grid[-1])


def _refined(
    best: float,
    across: Float[Tensor, "M 3"],
    moved: Float[Tensor, "M 3"],
    weight: Float[Tensor, "M"],
) -> float:
    """Re-weighted least squares about the best scale of the grid."""
    scale = best
    for _ in range(20):
        squared = ((across + scale * moved) ** 2).sum(dim=-1)
        irls = weight / (1 + squared) ** 2
        top = (irls * (across * moved).sum(dim=-1)).sum()
        found = float(-top / (irls * (moved**2).sum(dim=-1)).sum().clamp_min(1e-12))
        scale = min(max(found, best / NEAR_BEST), best * NEAR_BEST)
    return scale


def _foot_rows(
    feet: Float[Tensor, "N T 4 3"],
    velocity: Float[Tensor, "N T 4 3"],
    camera: Float[Tensor, "T 3"],
    weight: Float[Tensor, "N T 4"],
) -> tuple[Float[Tensor, "M 3"], Float[Tensor, "M 3"], Float[Tensor, "M"]]:
    """Rows of s dc/dt + d(R x)/dt = 0 of feet that may stand: constant, multiple of s, weight."""
    used = weight > 0.05
    whitening = _whitening(feet)[used]
    across = (whitening @ velocity[used][..., None])[..., 0]
    moved = (whitening @ camera[used.nonzero()[:, 1]][..., None])[..., 0]
    return across, moved, weight[used]


def _pelvis_rows(
    pelvis: Float[Tensor, "N T 3"],
    velocity: Float[Tensor, "N T 3"],
    camera: Float[Tensor, "T 3"],
    known: Bool[Tensor, "N T"],
    going: tuple[Float[Tensor, "N T 3"], Float[Tensor, "N T"]],
) -> tuple[Float[Tensor, "M 3"], Float[Tensor, "M 3"], Float[Tensor, "M"]]:
    """Rows of s dc/dt + d(R x)/dt = v, whitened: constant part, multiple of s, weight."""
    predicted, sigma = going
    loose = _whitening(pelvis[:, :, None])[:, :, 0]
    rows = (loose @ (velocity - predicted)[..., None])[..., 0][known]
    path = (loose @ camera[None, :, :, None])[..., 0][known]
    trust = ACROSS_SIGMA**2 / (ACROSS_SIGMA**2 + sigma[known] ** 2)
    return rows, path, PELVIS_WEIGHT * trust


def _whitening(points: Float[Tensor, "N T C 3"]) -> Float[Tensor, "N T C 3 3"]:
    """Inverse square root of the velocity covariance: loose along the line of sight."""
    ray = torch.nn.functional.normalize(points, dim=-1)
    outer = ray[..., :, None] * ray[..., None, :]
    return (torch.eye(3, dtype=points.dtype) - outer) / ACROSS_SIGMA + outer / ALONG_SIGMA


def lower_foot(feet: Float[Tensor, "N T 4 3"]) -> Float[Tensor, "N T 4"]:
    """Chance that a point is on the ground, from heights above the lowest of the four."""
    height = feet[..., 2]
    above = height - height.amin(dim=-1, keepdim=True)
    return torch.exp(-0.5 * (above / LOWEST_SIGMA) ** 2)
