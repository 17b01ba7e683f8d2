"""What can be told of a result without the truth: pixels, feet, floor, smoothness.

Everything per person and frame; NaN where there is nothing to measure.
"""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points, pelvis_from_transl
from slamhmr.capsules import overlap
from slamhmr.reprojection import SELDOM, box_heights, reprojection_error
from slamhmr.scene import point_set
from slamhmr.skeleton import IN_CONTACT
from slamhmr.types import Observations, Result, SceneState

NEAR = 2.0  # m between pelves; people further apart do not touch
SLIDING_STEP = 1 / 30  # s, of the steps in which sliding is counted, as in `eval.metrics`
LIMBS: dict[str, tuple[str, ...]] = {
    "left arm": ("left_elbow", "left_wrist"),
    "right arm": ("right_elbow", "right_wrist"),
    "left leg": ("left_knee", "left_ankle", "left_heel", "left_big_toe", "left_small_toe"),
    "right leg": ("right_knee", "right_ankle", "right_heel", "right_big_toe", "right_small_toe"),
}
# Mean jitter of real recordings, 10 m/s^3 at a frame rate: below it are 95 % of 49 clips of CMU
# (walks, runs, dances, sports), DeepMimic (acrobatics) and idle standing, low-passed at 8 Hz. Half
# of the clips are below 9, 10 and 15.
NATURAL_JITTER = ((24.0, 44.0), (30.0, 52.0), (60.0, 58.0))


@dataclass(frozen=True)
class Quality:
    """Measures of every person and frame; NaN where there is nothing to measure."""

    pixel_percent: Float[Tensor, "N T"]  # median over well-seen keypoints, % of the box height
    limb_percent: Float[Tensor, "N L"]  # median over frames, worst keypoint of each of `LIMBS`
    sliding_mm: Float[Tensor, "N T 4"]  # of feet in contact from t to t + 1, per 1/30 s
    floating_cm: Float[Tensor, "N T 4"]  # of feet in contact above what they stand on; 0 below
    depth_cm: Float[Tensor, "N T"]  # of the deepest point under the ground; 0 above
    jitter: Float[Tensor, "N T"]  # third derivative of joints, mean over joints, 10 m/s^3
    acceleration: Float[Tensor, "N T 22"]  # of joints, m/s^2
    speed: Float[Tensor, "N T"]  # of the pelvis from t to t + 1, m/s
    overlap_cm: Float[Tensor, "N T"]  # deepest in anybody else, as capsules; 0 apart, NaN alone


def measure(
    result: Result,
    state: SceneState,
    observations: Observations,
    body: BodyModel,
    cuts: tuple[int, ...] = (),
) -> Quality:
    """All measures of a result, `state` being what it was made of.

    Nothing is differentiated across `cuts`, first frames of pieces of the clip.
    """
    percent = 100 * reprojection_error(state, observations, body)
    percent = percent / box_heights(observations)[..., None].clamp_min(1)
    joints, linked = result.joints[:, :, :22], _linked(result.valid, cuts)
    points = _points(result, body)
    heights, feet = _heights(points, result, body, state.support)
    stands = (result.contacts >= IN_CONTACT) & result.observed[..., None]
    moved = _ahead((feet[:, 1:] - feet[:, :-1]).norm(dim=-1)) * result.fps
    standing = stands & _ahead(stands[:, 1:], fill=False) & linked[..., None]
    floating = heights[:, :, : feet.shape[2]].clamp_min(0)
    return Quality(
        pixel_percent=percent.nanmedian(dim=-1).values,
        limb_percent=_limb_percent(percent, observations.keypoint_names),
        sliding_mm=torch.where(standing, 1000 * SLIDING_STEP * moved, torch.nan),
        floating_cm=torch.where(stands, 100 * floating, torch.nan),
        depth_cm=torch.where(result.valid, 100 * (-heights).clamp_min(0).amax(dim=-1), torch.nan),
        jitter=_third_derivative(joints, linked, result.fps),
        acceleration=_second_derivative(joints, linked, result.fps),
        speed=torch.where(
            linked, result.fps * _ahead((joints[:, 1:, 0] - joints[:, :-1, 0]).norm(dim=-1)), 0.0
        ),
        overlap_cm=_overlap_cm(points, result, body),
    )


def natural_jitter(fps: float) -> float:
    """Jitter that all but 5 % of real recordings stay below at a frame rate, 10 m/s^3."""
    rates, values = zip(*NATURAL_JITTER, strict=True)
    if fps <= rates[0] or fps >= rates[-1]:
        return values[0] if fps <= rates[0] else values[-1]
    above = next(index for index, rate in enumerate(rates) if rate >= fps)
    share = (fps - rates[above - 1]) / (rates[above] - rates[above - 1])
    return values[above - 1] + share * (values[above] - values[above - 1])


def _points(result: Result, body: BodyModel) -> Float[Tensor, "N T P 3"]:
    """The solver's points of everybody in the world, m."""
    points, _ = forward_points(
        body,
        result.betas,
        roma.rotvec_to_rotmat(result.root_orient),
        pelvis_from_transl(body, result.betas, result.transl),
        roma.rotvec_to_rotmat(result.body_pose.reshape(*result.valid.shape, 21, 3)),
    )
    return points[:, :, point_set(body).places]


def _overlap_cm(
    points: Float[Tensor, "N T P 3"], result: Result, body: BodyModel
) -> Float[Tensor, "N T"]:
    """Deepest capsule of everybody in anybody else's, cm; only those near are compared."""
    capsules, sizes = point_set(body).capsules, [point_set(body).size(b) for b in result.betas]
    found = points.new_full(points.shape[:2], torch.nan)
    for first in range(len(points)):
        for second in range(first + 1, len(points)):
            both = result.valid[first] & result.valid[second]
            apart = (points[first, :, 0] - points[second, :, 0]).norm(dim=-1)
            depth = torch.where(both, torch.zeros_like(apart), torch.nan)
            frames = torch.nonzero(both & (apart < NEAR))[:, 0]
            if len(frames) > 0:
                ends = [points[row, frames][:, capsules.ends] for row in (first, second)]
                radii = capsules.radius * sizes[first], capsules.radius * sizes[second]
                inside = overlap(
                    ends[0][:, :, None].expand(-1, -1, ends[1].shape[1], -1, -1),
                    ends[1][:, None].expand(-1, ends[0].shape[1], -1, -1, -1),
                    (radii[0][:, None] + radii[1]).expand(len(frames), -1, -1),
                )
                depth[frames] = 100 * inside.depth.flatten(start_dim=1).amax(dim=1).clamp_min(0)
            for row in (first, second):
                found[row] = torch.fmax(found[row], depth)
    return found


def _heights(
    points: Float[Tensor, "N T P 3"],
    result: Result,
    body: BodyModel,
    support: Float[Tensor, "N T 4"] | None,
) -> tuple[Float[Tensor, "N T P"], Float[Tensor, "N T 4 3"]]:
    """Heights of all points over what is below them, soles of heels and toes first; and the feet.

    A foot in contact is above its `support`, any other point above the ground.
    """
    chosen = point_set(body)
    heights = points @ result.ground[:3] + result.ground[3] - chosen.clearance
    feet = heights[:, :, chosen.contact]
    others = [index for index in range(len(chosen.names)) if index not in chosen.contact.tolist()]
    rest = heights[:, :, others]
    if support is not None:
        feet = feet - torch.where(result.contacts >= IN_CONTACT, support, 0.0)
    return torch.cat([feet, rest], dim=-1), points[:, :, chosen.contact]


def _limb_percent(percent: Float[Tensor, "N T K"], names: tuple[str, ...]) -> Float[Tensor, "N L"]:
    """Per limb the largest median error of those of its keypoints that are not SELDOM well seen."""
    judged = ~percent.isnan()
    often = judged.sum(dim=1) >= SELDOM * judged.any(dim=2).sum(dim=1, keepdim=True)
    by_keypoint = torch.where(often, percent.nanmedian(dim=1).values, torch.nan)
    columns = [[names.index(name) for name in limb if name in names] for limb in LIMBS.values()]
    worst = [
        by_keypoint[:, own].nan_to_num(-1.0).amax(dim=1)
        if len(own) > 0
        else torch.full_like(by_keypoint[:, 0], -1.0)
        for own in columns
    ]
    found = torch.stack(worst, dim=1)
    return torch.where(found >= 0, found, torch.nan)


def _linked(valid: Bool[Tensor, "N T"], cuts: tuple[int, ...]) -> Bool[Tensor, "N T"]:
    """Where frame t and t + 1 are both there and of one piece."""
    linked = _ahead(valid[:, 1:], fill=False) & valid
    linked[:, [cut - 1 for cut in cuts if 0 < cut <= valid.shape[1]]] = False
    return linked


def _ahead(later: Tensor, *, fill: float | bool = 0.0) -> Tensor:
    """What belongs to the steps t to t + 1, with `fill` for the last frame."""
    return torch.cat([later, torch.full_like(later[:, :1], fill)], dim=1)


def _second_derivative(
    joints: Float[Tensor, "N T J 3"], linked: Bool[Tensor, "N T"], fps: float
) -> Float[Tensor, "N T J"]:
    found = joints.new_full(joints.shape[:3], torch.nan)
    if joints.shape[1] > 2:
        second = joints[:, 2:] - 2 * joints[:, 1:-1] + joints[:, :-2]
        known = linked[:, :-2] & linked[:, 1:-1]
        found[:, 1:-1] = torch.where(known[..., None], fps**2 * second.norm(dim=-1), torch.nan)
    return found


def _third_derivative(
    joints: Float[Tensor, "N T J 3"], linked: Bool[Tensor, "N T"], fps: float
) -> Float[Tensor, "N T"]:
    found = joints.new_full(joints.shape[:2], torch.nan)
    if joints.shape[1] > 3:
        third = joints[:, 3:] - 3 * joints[:, 2:-1] + 3 * joints[:, 1:-2] - joints[:, :-3]
        known = linked[:, :-3] & linked[:, 1:-2] & linked[:, 2:-1]
        values = fps**3 * third.norm(dim=-1).mean(dim=-1) / 10
        found[:, 1:-2] = torch.where(known, values, torch.nan)
    return found
