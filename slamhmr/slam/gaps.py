"""Frames without a pose: what stands there instead, within which segment, and the words for it."""

from collections.abc import Sequence

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.geometry import fill_gaps, rigid, runs, shot_numbers
from slamhmr.types import LOST

MOST_NAMED = 6  # spans of lost frames that a sentence lists


def bridge(
    poses: Float[Tensor, "T 4 4"], known: Bool[Tensor, "T"], starts: Sequence[int] = ()
) -> Float[Tensor, "T 4 4"]:
    """Poses where `known` is false: between the nearest known ones of the same segment.

    Rotations by slerp, centres linearly, ends of a segment held; `starts` are the first frames of
    segments after the first. A segment without any known pose is a programmer's error.
    """
    if bool(known.all()):
        return poses
    bounds = zip((0, *starts), (*starts, len(poses)), strict=True)
    return torch.cat([_interpolated(poses[a:b], known[a:b]) for a, b in bounds])


def empty_segments(known: Bool[Tensor, "T"], starts: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frame of every segment in which no pose is known."""
    bounds = zip((0, *starts), (*starts, len(known)), strict=True)
    return [(a, b - 1) for a, b in bounds if not bool(known[a:b].any())]


def lost_note(lost: Bool[Tensor, "T"], starts: Sequence[int] = ()) -> str:
    """Sentence for the report: where the camera was lost, and what stands there."""
    spans = [f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in runs(lost)]
    named = ", ".join(spans[:MOST_NAMED])
    if len(spans) > MOST_NAMED:
        named += f" and {len(spans) - MOST_NAMED} more places"
    count = int(lost.sum())
    return (
        f"{LOST} in {'frame' if count == 1 else 'frames'} {named} ({count} of {len(lost)}): "
        "bridged between the nearest known poses" + _held(lost, starts)
    )


def _held(lost: Bool[Tensor, "T"], starts: Sequence[int]) -> str:
    """How many lost frames have a known pose on one side only, where a segment begins or ends."""
    ends = {0, *starts, len(lost)}
    shot = shot_numbers(len(lost), starts)
    count = sum(b - a for a, b in runs(lost, shot) if a in ends or b in ends)
    return f"; {count} of them have one on one side only, which is held" if count > 0 else ""


def _interpolated(
    poses: Float[Tensor, "T 4 4"], known: Bool[Tensor, "T"]
) -> Float[Tensor, "T 4 4"]:
    """One segment; slerp and lerp between known neighbours."""
    anchors = torch.nonzero(known)[:, 0]
    times = torch.arange(len(poses))
    right = torch.searchsorted(anchors, times).clamp(0, len(anchors) - 1)
    left = (right - 1).clamp_min(0)
    span = (anchors[right] - anchors[left]).clamp_min(1)
    share = ((times - anchors[left]) / span).clamp(0, 1).double()
    from_left = poses[anchors[left], :3, :3].transpose(-1, -2) @ poses[anchors[right], :3, :3]
    rotvec = roma.rotmat_to_rotvec(from_left)
    rotations = poses[anchors[left], :3, :3] @ roma.rotvec_to_rotmat(share[:, None] * rotvec)
    filled = rigid(rotations, fill_gaps(poses[:, :3, 3], known))
    return torch.where(known[:, None, None], poses, filled)
