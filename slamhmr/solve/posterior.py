"""Selected inversion: the covariance of every frame's unknowns and of the border, from one sweep.

The inverse of H is dense, but the blocks of one frame, its two successors and the border follow
from the factor alone, from the last eliminated frame back to the first (Takahashi, Fagan and Chen
1973). Every recovered block is made symmetric: otherwise rounding errors grow threefold per frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.banded import Factor, swap_frames
from slamhmr.solve.cyclic import Reduction
from slamhmr.solve.cyclic import selected_inverse as selected_pairs
from slamhmr.solve.problem import REACH
from slamhmr.solve.sweep import Eliminated, Sweep, in_threads, middle_of

S = TypeVar("S")
VISITED = 200  # frames of a batch that are handed over at a time


@dataclass(frozen=True)
class FrameCovariance:
    """Of some frames of a chain: the own block, and that with the chain's border columns."""

    chain: int
    start: int  # first frame
    frames: Float[Tensor, "n d d"]
    cross: Float[Tensor, "n d g"]


def border_covariance(sweep: Sweep[S]) -> Float[Tensor, "G G"]:
    """Covariance of the shared unknowns: inverse of the reduced corner."""
    if len(sweep.border_gradient) == 0:
        return sweep.border_factor
    return torch.cholesky_inverse(sweep.border_factor)


def frame_covariances(
    sweep: Sweep[S], border: Float[Tensor, "G G"], visit: Callable[[FrameCovariance], None]
) -> None:
    """Hand the covariance of every frame to `visit`, some frames at a time, from several threads.

    `sweep` should be undamped. Memory: one window per thread; in a batch, that of all frames.
    """
    if sweep.reduction is not None:
        _visit_together(sweep, sweep.reduction, border, visit)
        return
    jobs = []
    for chain, shape in enumerate(sweep.shapes):
        columns = shape.border_columns
        own = border[columns[:, None], columns]
        met = _middle(sweep, chain, own)
        first = middle_of(shape.frame_count)
        size, count = shape.unknowns, min(REACH, shape.frame_count)
        blocks = met[: REACH * size].reshape(REACH, size, -1)[-count:]
        places = range((REACH - count) * size, REACH * size, size)
        frames = torch.stack([b[:, p : p + size] for b, p in zip(blocks, places, strict=True)])
        visit(FrameCovariance(chain, first, frames, blocks[..., REACH * size :]))
        jobs += [(found, met) for found in sweep.halves(chain)]
    in_threads(lambda job: _go_back(sweep, *job, visit), jobs, sweep.resources.threads)


def _visit_together(
    sweep: Sweep[S],
    reduction: Reduction,
    border: Float[Tensor, "G G"],
    visit: Callable[[FrameCovariance], None],
) -> None:
    """Everybody at once, handed over in windows as the lanes would."""
    columns = torch.stack([shape.border_columns for shape in sweep.shapes])
    own = border[columns[:, :, None], columns[:, None]]
    pairs, crosses = selected_pairs(reduction, own)
    size = sweep.shapes[0].unknowns
    first, second = pairs[..., :size, :size], pairs[..., size:, size:]
    for chain, shape in enumerate(sweep.shapes):
        frames = torch.stack([first[chain], second[chain]], dim=1).flatten(end_dim=1)
        cross = crosses[chain].reshape(len(frames), size, -1)
        for start in range(0, shape.frame_count, VISITED):
            span = slice(start, min(start + VISITED, shape.frame_count))
            visit(FrameCovariance(chain, start, frames[span], cross[span]))


def _middle(sweep: Sweep[S], chain: int, border: Float[Tensor, "g g"]) -> Float[Tensor, "w w"]:
    """Joint covariance of the two frames where the halves meet and of the border."""
    found = sweep.middles[chain]
    size = len(found.lower)
    gain = torch.linalg.solve_triangular(found.lower.T, found.panel[:, :-1], upper=True)
    cross = -gain @ border
    joint = border.new_empty(size + len(border), size + len(border))
    joint[:size, :size] = torch.cholesky_inverse(found.lower) - cross @ gain.T
    joint[:size, size:], joint[size:, :size] = cross, cross.T
    joint[size:, size:] = border
    return 0.5 * (joint + joint.T)


def _go_back(
    sweep: Sweep[S],
    found: Eliminated,
    joint: Float[Tensor, "w w"],
    visit: Callable[[FrameCovariance], None],
) -> None:
    """One lane, from the middle outwards."""
    lane, size = found.lane, sweep.shapes[found.lane.chain].unknowns
    if lane.backward:
        joint = swap_frames(joint, size)
    for index, factor in sweep.back(found):
        count = factor.panel.shape[-3]
        if count == 0:
            continue
        frames, cross, joint = selected_inverse(factor, joint)
        place = sweep.frames_of(lane, index, count)
        if lane.backward:
            frames, cross = frames.flip(0), cross.flip(0)
        visit(FrameCovariance(lane.chain, place.start, frames, cross))


def selected_inverse(
    factor: Factor, joint: Float[Tensor, "*batch w w"]
) -> tuple[
    Float[Tensor, "*batch n d d"], Float[Tensor, "*batch n d g"], Float[Tensor, "*batch w w"]
]:
    """Covariance of a factor's frames, and that with the border.

    `joint` is that of the two frames after the last and the border; returned for the first two.
    """
    count, size = factor.panel.shape[-3:-1]
    gain = torch.linalg.solve_triangular(factor.lower.mT, factor.panel[..., :-1], upper=True)
    own = torch.cholesky_inverse(factor.lower)
    frames, crosses = torch.empty_like(own), torch.empty_like(gain[..., 2 * size :])
    for t in range(count - 1, -1, -1):
        known = gain[..., t, :, :]
        cross = -(known @ joint)
        block = own[..., t, :, :] - cross @ known.mT
        block = 0.5 * (block + block.mT)
        frames[..., t, :, :], crosses[..., t, :, :] = block, cross[..., 2 * size :]
        ahead = torch.empty_like(joint)
        ahead[..., :size, :size] = block
        kept = torch.cat([cross[..., :size], cross[..., 2 * size :]], dim=-1)
        ahead[..., :size, size:] = kept
        ahead[..., size:, :size] = kept.mT
        ahead[..., size : 2 * size, size : 2 * size] = joint[..., :size, :size]
        ahead[..., size : 2 * size, 2 * size :] = joint[..., :size, 2 * size :]
        ahead[..., 2 * size :, size : 2 * size] = joint[..., 2 * size :, :size]
        ahead[..., 2 * size :, 2 * size :] = joint[..., 2 * size :, 2 * size :]
        joint = ahead
    return frames, crosses, joint
