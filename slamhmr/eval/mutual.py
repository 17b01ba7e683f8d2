"""Are people where they should be relative to each other, in one metric world?

Nothing is forgiven but what no one can know: where the world's origin is and which way its x axis
points. Both worlds have z against gravity; they are turned about it until their first cameras
agree, those of every piece where nobody ties the pieces of the result. Size is not forgiven.
"""

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.geometry import shot_numbers
from slamhmr.types import Result

REFERENCE_DISTANCE = 5.0  # m from the camera, to which errors are scaled


def turn_of_camera(result: Result, truth: Result, frame: int = 0) -> Float[Tensor, "3 3"]:
    """Rotation about z, truth_from_result, that brings a frame's cameras nearest to each other."""
    between = truth.world_from_cam[frame, :3, :3] @ result.world_from_cam[frame, :3, :3].T
    angle = torch.atan2(between[1, 0] - between[0, 1], between[0, 0] + between[1, 1])
    return roma.rotvec_to_rotmat(torch.stack([angle * 0, angle * 0, angle]))


def mutual_position_error_m(
    result: Result, truth: Result, pairs: list[tuple[int, int]]
) -> Float[Tensor, "S"]:
    """Error of the vector between two people's pelves, m at 5 m, one entry per pair and frame.

    Only frames in which both are valid in both files; each error is scaled by 5 m over the mean
    true distance of the two from the camera. `pairs`: (row of the truth, row of the result), of
    `match_people`. Empty where there is one person.
    """
    first = (0, *result.apart)
    number = shot_numbers(result.valid.shape[1], result.apart)
    turn = torch.stack([turn_of_camera(result, truth, frame) for frame in first])[number]
    found = [truth.joints.new_zeros(0)]
    for index, (row, column) in enumerate(pairs):
        for other_row, other_column in pairs[:index]:
            both = truth.valid[row] & truth.valid[other_row]
            both = both & result.valid[column] & result.valid[other_column]
            mine = result.joints[column, both, 0] - result.joints[other_column, both, 0]
            theirs = truth.joints[row, both, 0] - truth.joints[other_row, both, 0]
            ends = truth.joints[[row, other_row]][:, both, 0]
            far = (ends - truth.world_from_cam[both, :3, 3]).norm(dim=-1).mean(dim=0)
            error = ((turn[both] @ mine[..., None])[..., 0] - theirs).norm(dim=-1)
            found.append(error * REFERENCE_DISTANCE / far.clamp_min(0.1))
    return torch.cat(found)
