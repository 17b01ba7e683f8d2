"""Frames without a pose: what stands there instead, within which segment, and the words for it."""

from collections.abc import Sequence

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slamhmr.geometry import fill_gaps, rigid

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


def runs(flags: Bool[Tensor, "T"]) -> Int[Tensor, "R 2"]:
    """First and last frame of every run of true."""
    edges = torch.nn.functional.pad(flags.long(), (1, 1)).diff()
    return torch.stack([(edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0] - 1], dim=1)


def lost_note(lost: Bool[Tensor, "T"]) -> str:
    """Sentence for the report: where the camera was lost, and what stands there."""
    spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs(lost).tolist()]
    named = ", ".join(spans[:MOST_NAMED])
    if len(spans) > MOST_NAMED:
        named += f" and {len(spans) - MOST_NAMED} more places"
    count = int(lost.sum())
    return (
        f"camera lost in {'frame' if count == 1 else 'frames'} {named} ({count} of {len(lost)}): "
        "bridged between the nearest known poses"
    )


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
