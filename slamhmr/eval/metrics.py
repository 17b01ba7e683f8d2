"""Accuracy of people and cameras against truth: pure functions on tensors, units in the names.

Every alignment is a function of its own (`align_*`), so what a number forgives can be read at the
call. Joints and vertices are in metres, sequences (T, J, 3); errors come per frame and are
averaged by the caller over the frames of all sequences, as the field does. Definitions follow
WHAM's evaluation code (commit 2b54f77) unless said otherwise.

Easy to cheat: PA-MPJPE and WA-MPJPE forgive size, place and heading; accel and jitter are best for
a frozen body; foot sliding is zero for a person who never moves; RTE shrinks with long paths.
Read them together, never alone.
"""

from collections.abc import Sequence

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.geometry import similarity_between

CHUNK_FRAMES = 100  # of W-MPJPE100 and WA-MPJPE100
STILL_SPEED = 0.3  # m/s; WHAM: a foot is planted below 1 cm per frame at 30 fps
M_TO_MM = 1000.0

Points = Float[Tensor, "T P 3"]
Joints = Float[Tensor, "T J 3"]
Path = Float[Tensor, "T 3"]
PerFrame = Float[Tensor, "T"]


def align_root(points: Points, joints: Joints, root: Sequence[int]) -> Points:
    """Points minus the mean of the `root` joints of each frame (SMPL: hips 1, 2; LSP-14: 2, 3)."""
    return points - joints[:, list(root)].mean(dim=1, keepdim=True)


def align_each_frame(predicted: Points, truth: Points) -> Points:
    """Predicted points after the best similarity of every frame on its own (Procrustes)."""
    scale, rotation, translation = similarity_between(predicted, truth)
    turned = predicted @ rotation.transpose(-1, -2)
    return scale[:, None, None] * turned + translation[:, None]


def align_sequence(predicted: Points, truth: Points, *, with_scale: bool = True) -> Points:
    """Predicted points after one similarity (or rigid motion) fitted to all frames together."""
    return _align(predicted, truth, frames=len(truth), with_scale=with_scale)


def align_first_two_frames(predicted: Points, truth: Points) -> Points:
    """Predicted points after one similarity, scale included, fitted to the first two frames."""
    return _align(predicted, truth, frames=2, with_scale=True)


def _align(predicted: Points, truth: Points, *, frames: int, with_scale: bool) -> Points:
    scale, rotation, translation = similarity_between(
        predicted[:frames].reshape(-1, 3), truth[:frames].reshape(-1, 3), with_scale=with_scale
    )
    return scale * (predicted @ rotation.T) + translation


def point_error_mm(predicted: Points, truth: Points) -> PerFrame:
    """Mean distance of corresponding points per frame, mm, without any alignment."""
    return M_TO_MM * (predicted - truth).norm(dim=-1).mean(dim=-1)


def mpjpe_mm(predicted: Points, truth: Points, root: Sequence[int]) -> PerFrame:
    """MPJPE: distance of joints after each side's own root is subtracted, mm."""
    return point_error_mm(align_root(predicted, predicted, root), align_root(truth, truth, root))


def pa_mpjpe_mm(predicted: Points, truth: Points) -> PerFrame:
    """PA-MPJPE: distance of joints after a similarity per frame, mm. Forgives size and heading."""
    return point_error_mm(align_each_frame(predicted, truth), truth)


def pve_mm(
    predicted: Points,
    truth: Points,
    predicted_joints: Joints,
    truth_joints: Joints,
    root: Sequence[int],
) -> PerFrame:
    """PVE: distance of vertices after each side's own root *joint* is subtracted, mm."""
    return point_error_mm(
        align_root(predicted, predicted_joints, root), align_root(truth, truth_joints, root)
    )


def accel_m_per_s2(predicted: Points, truth: Points, fps: float) -> Float[Tensor, "T-2"]:
    """Accel: length of the difference of joint accelerations, mean over joints, m/s^2.

    Entry t belongs to frame t + 1. WHAM hardcodes 30 fps, feeds pelvis-centred joints and drops one
    more frame at each end; VIBE and TCMR print mm per frame^2. Lowest for a motion smoothed away.
    """
    difference = _second_difference(predicted) - _second_difference(truth)
    return fps**2 * difference.norm(dim=-1).mean(dim=-1)


def _second_difference(points: Points) -> Float[Tensor, "T-2 P 3"]:
    return points[:-2] - 2 * points[1:-1] + points[2:]


def jitter_10m_per_s3(joints: Points, fps: float) -> Float[Tensor, "T-3"]:
    """Jitter: length of the third derivative, mean over joints, 10 m/s^3; no truth needed.

    A motionless person has none: compare with the truth's own jitter.
    """
    third = joints[3:] - 3 * joints[2:-1] + 3 * joints[1:-2] - joints[:-3]
    return fps**3 * third.norm(dim=-1).mean(dim=-1) / 10


def w_mpjpe100_mm(predicted: Points, truth: Points) -> PerFrame:
    """W-MPJPE100: world joints, per chunk of 100 frames aligned on its first two frames, mm.

    Scale is part of the alignment, as in WHAM; the last, shorter chunk counts, unless it is a
    single frame: then it has no second frame and that frame alone is aligned.
    """
    return _chunked(predicted, truth, first_frames_only=True)


def wa_mpjpe100_mm(predicted: Points, truth: Points) -> PerFrame:
    """WA-MPJPE100: world joints, per chunk of 100 frames aligned on all of its frames, mm."""
    return _chunked(predicted, truth, first_frames_only=False)


def _chunked(predicted: Points, truth: Points, *, first_frames_only: bool) -> PerFrame:
    align = align_first_two_frames if first_frames_only else align_sequence
    pairs = zip(*(torch.split(side, CHUNK_FRAMES) for side in (predicted, truth)), strict=True)
    return torch.cat([point_error_mm(align(chunk, target), target) for chunk, target in pairs])


def path_length_m(path: Path) -> float:
    """Length of a path, m."""
    return float((path[1:] - path[:-1]).norm(dim=-1).sum())


def rte_percent(predicted: Path, truth: Path, *, length_m: float | None = None) -> PerFrame:
    """RTE: error of the root path after one rigid alignment, in percent of the truth's length.

    `length_m` replaces the length of `truth` where that path has gaps, which are no motion.
    Raises ValueError for a truth that does not move: the ratio has no meaning.
    """
    length = path_length_m(truth) if length_m is None else length_m
    if length < 1e-6:
        raise ValueError("the true path has no length: rte is undefined")
    aligned = align_sequence(predicted[:, None], truth[:, None], with_scale=False)[:, 0]
    return 100 * (aligned - truth).norm(dim=-1) / length


def roe_deg(predicted: Float[Tensor, "T 3 3"], truth: Float[Tensor, "T 3 3"]) -> PerFrame:
    """ROE: angle of the root orientation error after one rotation aligns the whole sequence, deg.

    Not in WHAM's code; the alignment A minimising sum |A R_pred - R_true|^2 is our reading of the
    tables of arXiv 2312.07531v1.
    """
    alignment = roma.special_procrustes((truth @ predicted.transpose(-1, -2)).sum(dim=0))
    return torch.rad2deg(roma.rotmat_geodesic_distance(alignment @ predicted, truth))


def erve_mm_per_frame(
    predicted_path: Path,
    truth_path: Path,
    predicted_orient: Float[Tensor, "T 3 3"],
    truth_orient: Float[Tensor, "T 3 3"],
    fps: float,
) -> Float[Tensor, "T-1"]:
    """ERVE: error of the root velocity in the person's own frame, mm per frame at 30 fps.

    v_t = R_t^T (p_{t+1} - p_t). Not in WHAM's code; after the tables of arXiv 2312.07531v1.
    """
    predicted = _egocentric_velocity(predicted_path, predicted_orient)
    truth = _egocentric_velocity(truth_path, truth_orient)
    return M_TO_MM * (predicted - truth).norm(dim=-1) * fps / 30


def _egocentric_velocity(path: Path, orient: Float[Tensor, "T 3 3"]) -> Float[Tensor, "T-1 3"]:
    return torch.einsum("tji,tj->ti", orient[:-1], path[1:] - path[:-1])


def planted(feet: Points, fps: float, *, still_speed: float = STILL_SPEED) -> Bool[Tensor, "T-1 P"]:
    """Steps in which a foot point of the truth moves slower than `still_speed` m/s."""
    return (feet[1:] - feet[:-1]).norm(dim=-1) * fps < still_speed


def foot_sliding_mm(predicted_feet: Points, truth_feet: Points, fps: float) -> Float[Tensor, "S"]:
    """Foot sliding: predicted displacement of foot points while the truth's are planted, mm/frame.

    One entry per planted point and step, scaled to steps of 1/30 s. WHAM uses four SMPL vertices;
    any points that lie on the soles will do. Zero for a person who never moves.
    """
    step = (predicted_feet[1:] - predicted_feet[:-1]).norm(dim=-1)
    return M_TO_MM * step[planted(truth_feet, fps)] * fps / 30


def scale_error(predicted_scale: float, truth_scale: float) -> float:
    """|s_pred / s_true - 1|, s in metres per SLAM unit or any pair of corresponding lengths."""
    if truth_scale <= 0 or predicted_scale <= 0:
        raise ValueError(f"scales must be positive, got {predicted_scale} and {truth_scale}")
    return abs(predicted_scale / truth_scale - 1)


def relative_scale(predicted: Points, truth: Points) -> float | None:
    """Size of the prediction relative to the truth, from the similarity that aligns both.

    None if either side has no extent (rms below 1 cm), when the ratio would be noise.
    """
    flat = [points.reshape(-1, 3) for points in (predicted, truth)]
    extent = [
        float((points - points.mean(dim=0)).square().sum(dim=-1).mean().sqrt()) for points in flat
    ]
    if min(extent) < 0.01:
        return None
    scale, _, _ = similarity_between(flat[0], flat[1])
    return 1 / float(scale)
