"""Feet that stand: contacts locked to one place of the floor by two-bone inverse kinematics."""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points
from slamhmr.motions.floor import foot_points, stretches
from slamhmr.skeleton import SMPL_JOINTS

FADE = 0.2  # s over which a correction begins before a contact and ends after it
REACH = 0.998  # of the straight leg
SINK_WINDOW = 0.1  # s, half width of the smoothing of what the pelvis gives way
SIDES = ("left", "right")


@dataclass(frozen=True)
class Posed:
    """Root (world_from_root), pelvis joint and local body rotations of one person."""

    root: Float[Tensor, "T 3 3"]
    pelvis: Float[Tensor, "T 3"]
    joints: Float[Tensor, "T 21 3 3"]


def plant_feet(body: BodyModel, posed: Posed, contacts: Bool[Tensor, "T 4"], fps: float) -> Posed:
    """The same motion of the mean shape with heels and toes at rest on the floor at 0.

    Every stretch of contact keeps its median place and height 0; corrections fade in the air; no
    point stays below the floor. Knees stay in their plane and never bend forwards; where a leg is
    too short the pelvis gives way downwards. Ours; the usual two-bone solution of animation.
    """
    feet = foot_points(body, posed.root, posed.pelvis, posed.joints)
    targets = feet + _corrections(feet, contacts, round(FADE * fps))
    betas = torch.zeros(1, body.shapedirs.shape[-1], dtype=feet.dtype)
    points, rotations = forward_points(
        body, betas, posed.root[None], posed.pelvis[None], posed.joints[None]
    )
    points, rotations = points[0], rotations[0]
    turns, ankles = [], []
    for side, name in enumerate(SIDES):
        pair = slice(2 * side, 2 * side + 2)
        ankle = points[:, SMPL_JOINTS.index(f"{name}_ankle")]
        turn, moved = _foot_pose(ankle, feet[:, pair], targets[:, pair], contacts[:, pair].to(feet))
        turns.append(turn)
        ankles.append(moved)
    hips = [points[:, SMPL_JOINTS.index(f"{name}_hip")] for name in SIDES]
    lower = _give_way(body, hips, ankles, contacts, max(1, round(SINK_WINDOW * fps)))
    joints = posed.joints.clone()
    for side, name in enumerate(SIDES):
        _set_leg(body, joints, rotations, name, hips[side] - lower, ankles[side], turns[side])
    return Posed(posed.root, posed.pelvis - lower, joints)


def _corrections(
    feet: Float[Tensor, "T 4 3"], contacts: Bool[Tensor, "T 4"], fade: int
) -> Float[Tensor, "T 4 3"]:
    """What to add to every point: constant place in contacts, smooth in between, never below 0."""
    result = torch.zeros_like(feet)
    for column in range(feet.shape[1]):
        runs = stretches(contacts[:, column])
        for start, end in runs:
            place = feet[start:end, column].median(dim=0).values
            place[2] = 0
            result[start:end, column] = place - feet[start:end, column]
        edges = [(0, 0), *runs, (len(feet), len(feet))]
        for (_, left), (right, _) in zip(edges[:-1], edges[1:], strict=True):
            if right > left:
                before = result[left - 1, column] if left > 0 else torch.zeros(3).to(feet)
                after = result[right, column] if right < len(feet) else torch.zeros(3).to(feet)
                result[left:right, column] = _bridge(before, after, right - left, fade)
    result[..., 2] = torch.maximum(result[..., 2], -feet[..., 2])
    return result


def _bridge(
    before: Float[Tensor, "3"], after: Float[Tensor, "3"], count: int, fade: int
) -> Float[Tensor, "count 3"]:
    """Corrections in the air: the last one fades out while the next one fades in."""
    at = torch.arange(1, count + 1, dtype=before.dtype)
    span = min(max(fade, 1), count + 1)
    out = (1 - at / span).clamp_min(0)
    into = (1 - (count + 1 - at) / span).clamp_min(0)
    smooth = [u**2 * (3 - 2 * u) for u in (out, into)]
    return smooth[0][:, None] * before + smooth[1][:, None] * after


def _foot_pose(
    ankle: Float[Tensor, "T 3"],
    feet: Float[Tensor, "T 2 3"],
    targets: Float[Tensor, "T 2 3"],
    weight: Float[Tensor, "T 2"],
) -> tuple[Float[Tensor, "T 3 3"], Float[Tensor, "T 3"]]:
    """Turn of the foot in the world that takes heel -> toe to its target, and the new ankle."""
    along, wanted = feet[:, 1] - feet[:, 0], targets[:, 1] - targets[:, 0]
    turn = _turn_between(along, wanted)
    share = (weight + 1e-3) / (weight + 1e-3).sum(dim=1, keepdim=True)
    arms = (turn[:, None] @ (ankle[:, None] - feet)[..., None])[..., 0]
    return turn, ((targets + arms) * share[..., None]).sum(dim=1)


def _turn_between(
    first: Float[Tensor, "T 3"], second: Float[Tensor, "T 3"]
) -> Float[Tensor, "T 3 3"]:
    """Smallest rotation that turns the direction of `first` into that of `second`."""
    a, b = (torch.nn.functional.normalize(v, dim=-1) for v in (first, second))
    axis = torch.linalg.cross(a, b)
    sine, cosine = axis.norm(dim=-1), (a * b).sum(dim=-1)
    axis = axis / sine.clamp_min(1e-9)[:, None]
    return roma.rotvec_to_rotmat(axis * torch.atan2(sine, cosine)[:, None])


def _give_way(
    body: BodyModel,
    hips: list[Tensor],
    ankles: list[Tensor],
    contacts: Bool[Tensor, "T 4"],
    half: int,
) -> Float[Tensor, "T 3"]:
    """How far the pelvis must sink for every standing foot to be in reach, smoothed upwards."""
    excess = torch.zeros(len(contacts), dtype=hips[0].dtype)
    for side, name in enumerate(SIDES):
        thigh, shank = _bones(body, name)
        across = (hips[side] - ankles[side])[:, :2].square().sum(dim=-1)
        longest = REACH * (thigh.norm() + shank.norm())
        room = (longest**2 - across).clamp_min(0.01).sqrt()
        over = (hips[side] - ankles[side])[:, 2] - room
        excess = torch.maximum(excess, over * contacts[:, 2 * side : 2 * side + 2].any(dim=1))
    padded = torch.nn.functional.pad(excess[None, None], (2 * half, 2 * half), mode="replicate")
    highest = torch.nn.functional.max_pool1d(padded, 2 * half + 1, stride=1)
    smooth = torch.nn.functional.avg_pool1d(highest, 2 * half + 1, stride=1)[0, 0]
    return smooth[:, None] * torch.tensor([0.0, 0.0, 1.0]).to(smooth)


def _bones(body: BodyModel, name: str) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Thigh and shank at rest, body axes."""
    hip, knee, ankle = (
        body.point_template[SMPL_JOINTS.index(f"{name}_{part}")]
        for part in ("hip", "knee", "ankle")
    )
    return knee - hip, ankle - knee


def _set_leg(
    body: BodyModel,
    joints: Float[Tensor, "T 21 3 3"],
    rotations: Float[Tensor, "T 24 3 3"],
    name: str,
    hip: Float[Tensor, "T 3"],
    ankle: Float[Tensor, "T 3"],
    turn: Float[Tensor, "T 3 3"],
) -> None:
    """Write hip, knee and ankle of one leg into `joints`: ankle at its place, foot turned."""
    index = {part: SMPL_JOINTS.index(f"{name}_{part}") for part in ("hip", "knee", "ankle")}
    thigh, shank = _bones(body, name)
    knee = joints[:, index["knee"] - 1]
    bent = knee @ shank
    offset = ankle - hip
    # |thigh + Rx(d) bent|^2 = a cos d + b sin d + constant; d = 0 is the knee as it was
    a = thigh[1] * bent[:, 1] + thigh[2] * bent[:, 2]
    b = thigh[2] * bent[:, 1] - thigh[1] * bent[:, 2]
    across = thigh[0] * bent[:, 0]
    squared = offset.square().sum(dim=-1).minimum((REACH * (thigh.norm() + shank.norm())) ** 2)
    cosine = (squared - thigh.square().sum() - shank.square().sum()) / 2 - across
    cosine = (cosine / torch.hypot(a, b)).clamp(-1, 1)
    flex = torch.atan2(b, a) + torch.arccos(cosine)
    flex = torch.remainder(flex + torch.pi, 2 * torch.pi) - torch.pi
    extra = torch.zeros_like(offset)
    extra[:, 0] = flex
    knee = roma.rotvec_to_rotmat(extra) @ knee
    old = rotations[:, index["hip"]]
    now = (old @ (thigh + knee @ shank)[..., None])[..., 0]
    hip_world = _turn_between(now, offset) @ old
    joints[:, index["hip"] - 1] = rotations[:, 0].transpose(-1, -2) @ hip_world
    joints[:, index["knee"] - 1] = knee
    foot = turn @ rotations[:, index["ankle"]]
    joints[:, index["ankle"] - 1] = (hip_world @ knee).transpose(-1, -2) @ foot
