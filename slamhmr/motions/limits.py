"""Joints that a recording turned further than any human can."""

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS

# Degrees from the zero pose; dancers on their toes reach 70 in the ankle. In CMU's 005_05 and
# 005_06 the solve of the recording turned feet over, in one salsa trial a head.
LIMITS_DEG = {"ankle": 75.0, "foot": 75.0, "neck": 75.0, "head": 75.0}
WRONG_SHARE = 0.2  # of a clip's frames beyond the limit: the joint was not recorded


def within_limits(
    joints: Float[Tensor, "T 21 3 3"], tracked: tuple[bool, ...]
) -> tuple[Float[Tensor, "T 21 3 3"], tuple[bool, ...]]:
    """Body pose with credible feet and heads, and which joints are still recorded ones.

    A joint beyond its limit in many frames follows its parent throughout and counts as not
    recorded; in few frames it is turned back to the limit.
    """
    result, recorded = joints.clone(), list(tracked)
    for index, name in enumerate(SMPL_JOINTS[1:BODY_JOINT_COUNT]):
        limit = LIMITS_DEG.get(name.split("_")[-1])
        if limit is None:
            continue
        turn = roma.rotmat_to_rotvec(joints[:, index])
        angle = torch.rad2deg(turn.norm(dim=-1))
        if float((angle > limit).double().mean()) > WRONG_SHARE:
            result[:, index] = torch.eye(3, dtype=joints.dtype)
            recorded[index] = False
        else:
            share = (limit / angle.clamp_min(1e-9)).clamp_max(1.0)
            result[:, index] = roma.rotvec_to_rotmat(turn * share[:, None])
    return result, tuple(recorded)
