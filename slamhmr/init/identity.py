"""Who is who in several calibrated views: people whose bodies lie in one place over time.

A single view knows the direction of a point well and its depth badly, so two lifted bodies are
compared by the distance of their joints in units of what both views leave open: d' (S1 + S2)^-1 d,
S wide along the view's ray and narrow across. Ours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

ACROSS, ACROSS_LEAST = 0.02, 0.06  # share of the distance; m
ALONG = 0.15  # share of the distance
SAME = 5.0  # mean squared distance per axis, in sigmas, up to which two are one; 1 is expected
LEAST_FRAMES = 5  # that two must be seen together to be compared

Rows = list[list[int]]  # of one person: its rows in every view


@dataclass(frozen=True)
class Lifted:
    """People of one view in the world that all views share."""

    joints: Float[Tensor, "N T J 3"]  # the pelvis first
    seen: Bool[Tensor, "N T"]
    centres: Float[Tensor, "T 3"]  # of the camera


def match_views(views: list[Lifted]) -> list[Rows]:
    """Rows of every person in every view; a person may be in some views only.

    Views are added one after the other, by the assignment of least cost; tracks that are left over
    and not seen together with a person's own may be later pieces of it.
    """
    people: list[Rows] = []
    for number, view in enumerate(views):
        for person in people:
            person.append([])
        left = list(range(len(view.seen)))
        while len(left) > 0 and len(people) > 0:
            chosen = _assign(people, views, number, left)
            if len(chosen) == 0:
                break
            for index, row in chosen:
                people[index][number].append(row)
                left.remove(row)
        people += [[*([] for _ in range(number)), [row]] for row in left]
    return people


def _assign(
    people: list[Rows], views: list[Lifted], number: int, left: list[int]
) -> list[tuple[int, int]]:
    """Pairs of a person and one of the rows `left` of a view, each at most once."""
    from scipy.optimize import linear_sum_assignment

    cost = np.full((len(people), len(left)), np.inf)
    for index, person in enumerate(people):
        own = views[number].seen[person[number]].any(dim=0)
        for column, row in enumerate(left):
            if not bool((own & views[number].seen[row]).any()):
                cost[index, column] = _distance(person, views, number, row)
    allowed = cost <= SAME
    pairs = linear_sum_assignment(np.where(allowed, cost, 1e6))
    return [
        (int(index), left[int(column)])
        for index, column in zip(*pairs, strict=True)
        if allowed[index, column]
    ]


def _distance(person: Rows, views: list[Lifted], number: int, row: int) -> float:
    """Mean over the views that see the person of `distance`; infinite if there is none."""
    found = [
        distance(views[other], own, views[number], row)
        for other in range(number)
        for own in person[other]
    ]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if len(known) > 0 else float("inf")


def distance(first: Lifted, row: int, second: Lifted, other: int) -> float:
    """Squared distance per axis of two lifted people, in sigmas; median over time, mean of joints.

    Infinite where they are seen together in fewer than `LEAST_FRAMES` frames.
    """
    both = first.seen[row] & second.seen[other]
    if int(both.sum()) < LEAST_FRAMES:
        return float("inf")
    one, two = first.joints[row, both], second.joints[other, both]
    spread = covariance(one[:, 0] - first.centres[both])
    spread = spread + covariance(two[:, 0] - second.centres[both])
    off = one - two
    squared = (off.mT * torch.linalg.solve(spread, off.mT)).sum(dim=1)  # (T, J)
    return float(squared.mean(dim=-1).median()) / 3


def covariance(ray: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """What one view leaves open of a place `ray` m from its camera, m^2."""
    depth = ray.norm(dim=-1)[..., None, None]
    across = (ACROSS * depth + ACROSS_LEAST) ** 2
    unit = torch.nn.functional.normalize(ray, dim=-1)
    outer = unit[..., :, None] * unit[..., None, :]
    return across * (torch.eye(3).to(ray) - outer) + (ALONG * depth) ** 2 * outer
