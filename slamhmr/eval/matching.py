"""Which person of the result is which person of the truth."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr import geometry
from slamhmr.types import Result

GATE = 0.5  # of the depth: people further apart than this are not the same person


def match_people(result: Result, truth: Result) -> list[tuple[int, int]]:
    """Pairs (row of the truth, row of the result), each row at most once, by truth row.

    Optimal assignment of the mean distance of the pelvises in camera space, each file seen through
    its own cameras, in units of the true depth: free of world frames and nearly free of scale.
    Ids play no part: a tracker numbers people as it meets them. Pairs without common frames or
    beyond GATE are left out.
    """
    from scipy.optimize import linear_sum_assignment

    seen_result, seen_truth = (_pelvis_cam(side) for side in (result, truth))
    cost = torch.full((len(truth.person_id), len(result.person_id)), 1e6, dtype=torch.float64)
    for row in range(cost.shape[0]):
        for column in range(cost.shape[1]):
            both = truth.valid[row] & result.valid[column]
            if both.any():
                cost[row, column] = _distance(seen_result[column], seen_truth[row], both)
    rows, columns = linear_sum_assignment(cost.numpy())
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if float(cost[row, column]) < GATE]


def _pelvis_cam(people: Result) -> Float[Tensor, "N T 3"]:
    cam_from_world = geometry.invert(people.world_from_cam)
    return geometry.apply(cam_from_world, people.joints[:, :, 0].transpose(0, 1)).transpose(0, 1)


def _distance(
    one: Float[Tensor, "T 3"], other: Float[Tensor, "T 3"], frames: Bool[Tensor, "T"]
) -> Float[Tensor, ""]:
    depth = other[frames, 2].abs().clamp_min(0.1)
    return ((one[frames] - other[frames]).norm(dim=-1) / depth).mean()
