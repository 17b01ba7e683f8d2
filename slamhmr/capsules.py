"""A body as capsules about its bones, and how deep capsules of two bodies overlap."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.body import BodyModel

# Ends of every axis, among the solver's points.
AXES: tuple[tuple[str, str], ...] = (
    ("pelvis", "spine3"), ("spine3", "neck"), ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"), ("left_ear", "right_ear"),
    *((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (
        ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))),
)  # fmt: skip
INNER = 0.3  # share of a bone's vertices that lie inside its capsule: bodies are not round
LEAST_RADIUS = 0.02  # m
TOUCHING = 1e-9  # m between axes that cross, where no direction leads apart


@dataclass(frozen=True)
class Capsules:
    """Axes between points of a `PointSet`, and radii of the mean shape."""

    ends: Int[Tensor, "C 2"]
    radius: Float[Tensor, "C"]  # m; grows with the body


def capsules_of(body: BodyModel, names: tuple[str, ...]) -> Capsules:
    """Capsules of a body; `names` are the solver's points, axes that lack one are left out.

    A radius is the distance from the axis that `INNER` of the vertices beside it stay below.
    """
    axes = [axis for axis in AXES if axis[0] in names and axis[1] in names]
    places = [[body.point_names.index(name) for name in axis] for axis in axes]
    ends = body.point_template[torch.tensor(places, device=body.v_template.device)]  # (C, 2, 3)
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    offset = body.v_template[:, None] - start
    share = (offset * along).sum(dim=-1) / (along**2).sum(dim=-1)
    distance = (offset - share.clamp(0, 1)[..., None] * along).norm(dim=-1)
    nearest = distance.argmin(dim=1)
    radius = []
    for index in range(len(axes)):
        beside = (nearest == index) & (share[:, index] > 0) & (share[:, index] < 1)
        around = distance[beside, index]  # hands and feet lie beyond the ends
        none = len(around) == 0
        radius.append(distance.new_tensor(LEAST_RADIUS) if none else around.quantile(INNER))
    indices = torch.tensor(
        [[names.index(name) for name in axis] for axis in axes], device=body.v_template.device
    )
    return Capsules(indices, torch.stack(radius).clamp_min(LEAST_RADIUS))


def nearest_shares(
    first: Float[Tensor, "*batch 2 3"], second: Float[Tensor, "*batch 2 3"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Where two line segments (start, end) are nearest: shares 0..1 along each.

    Source: Ericson, Real-Time Collision Detection (2005), section 5.1.9.
    """
    along, across = first[..., 1, :] - first[..., 0, :], second[..., 1, :] - second[..., 0, :]
    between = first[..., 0, :] - second[..., 0, :]
    a, e = (along**2).sum(dim=-1).clamp_min(1e-12), (across**2).sum(dim=-1).clamp_min(1e-12)
    b = (along * across).sum(dim=-1)
    c, f = (along * between).sum(dim=-1), (across * between).sum(dim=-1)
    spread = a * e - b * b
    share = ((b * f - c * e) / spread.clamp_min(1e-12)).clamp(0, 1)
    share = torch.where(spread > 1e-9 * a * e, share, 0.5)  # parallel: any will do
    other = ((b * share + f) / e).clamp(0, 1)
    share = ((b * other - c) / a).clamp(0, 1)
    return share, other


@dataclass(frozen=True)
class Overlap:
    """How deep capsules are inside each other, m (negative: apart), and which way leads out."""

    depth: Float[Tensor, "*batch"]
    share: Float[Tensor, "*batch"]  # along the first axis, of the nearest point
    away: Float[Tensor, "*batch 3"]  # unit vector that leads the first away from the second


def overlap(
    first: Float[Tensor, "*batch 2 3"],
    second: Float[Tensor, "*batch 2 3"],
    radii: Float[Tensor, "*batch"],
) -> Overlap:
    """Overlap of capsules with `radii` in sum; no direction (0) where the axes cross."""
    share, other = nearest_shares(first, second)
    here = torch.lerp(first[..., 0, :], first[..., 1, :], share[..., None])
    there = torch.lerp(second[..., 0, :], second[..., 1, :], other[..., None])
    distance = (here - there).norm(dim=-1)
    away = (here - there) / distance.clamp_min(TOUCHING)[..., None]
    return Overlap(radii - distance, share, away)
