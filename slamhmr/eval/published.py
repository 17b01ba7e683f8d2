"""Metrics exactly as published code computes them, where ours are defined differently on purpose.

For comparison with printed tables only. Everything else in `slamhmr.eval.metrics` agrees with
WHAM's lib/eval as it is.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.eval.metrics import M_TO_MM, Joints, accel_m_per_s2, align_root


def wham_accel_m_per_s2(
    predicted: Joints, truth: Joints, root: Sequence[int]
) -> Float[Tensor, "T-4"]:
    """WHAM's Accel: joints relative to the pelvis, one more frame dropped at each end, 30 fps.

    Whatever the frame rate of the sequence is. Source: WHAM lib/eval at 2b54f77.
    """
    predicted = align_root(predicted, predicted, root)
    return accel_m_per_s2(predicted, align_root(truth, truth, root), fps=30.0)[1:-1]


def vibe_accel_mm_per_frame2(
    predicted: Joints, truth: Joints, visible: Bool[Tensor, "T"]
) -> Float[Tensor, "S"]:
    """Accel of VIBE and TCMR, mm per frame^2, over stencils of three visible frames.

    1 mm per frame^2 is 0.9 m/s^2 at 30 fps. Source: VIBE's compute_error_accel.
    """
    stencil = visible[:-2] & visible[1:-1] & visible[2:]
    return M_TO_MM * accel_m_per_s2(predicted, truth, fps=1.0)[stencil]


def slahmr_accel_m_per_frame2(predicted: Joints, truth: Joints) -> float:
    """SLAHMR's acceleration metric, m per frame^2: comparable with no other.

    Difference of the *lengths* of the accelerations, L2 norm over joints (so it grows with the root
    of their number), mean over time. Source: SLAHMR at 58518fe.
    """
    lengths = [_second_difference(points).norm(dim=-1) for points in (predicted, truth)]
    return float((lengths[0] - lengths[1]).norm(dim=-1).mean())


def _second_difference(points: Joints) -> Float[Tensor, "T-2 J 3"]:
    return points[:-2] - 2 * points[1:-1] + points[2:]
