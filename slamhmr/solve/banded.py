"""Elimination of arrow-shaped block-banded normal equations, one frame at a time, from either end.

Frames are eliminated in order (block Cholesky, right-looking): the panel of a frame holds its
couplings to the next two frames, the border and the gradient, so one triangular solve and one
product per frame do everything. Cost O(T d^3), linear in the clip. What is left of a run of frames
is its `Front`: a dense matrix over the next two frames, the border and the gradient.

All tensors may carry leading batch axes (people, halves of a clip): on a GPU one call eliminates a
frame of all of them. Torch releases the interpreter's lock inside LAPACK, which scipy's wrappers do
not: two threads side by side take half the time. LAPACK's own band solver is the reference in the
tests (it loses with a border: `pbtrs` takes right-hand sides one by one).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.problem import REACH

FLOOR = 1e-6  # added to diag(H) in the damping, so that unknowns nothing speaks of stay put


class NotPositiveDefiniteError(Exception):
    """The damped matrix has no Cholesky factor; more damping is needed."""


@dataclass(frozen=True)
class Band:
    """Block rows in the order of elimination.

    `ahead[t]` couples frames t and t + 1, `beyond[t]` t and t + 2.
    """

    diagonal: Float[Tensor, "*batch n d d"]
    ahead: Float[Tensor, "*batch n d d"]
    beyond: Float[Tensor, "*batch n d d"]
    shared: Float[Tensor, "*batch n d m"]  # border columns, then the gradient

    def reversed(self) -> "Band":
        """The same rows, last frame first."""

        def coupling(block: Tensor, offset: int) -> Tensor:
            turned = torch.zeros_like(block)
            count = max(block.shape[-3] - offset, 0)
            kept = block[..., :count, :, :].flip(-3).transpose(-1, -2)
            turned[..., :count, :, :] = kept
            return turned

        return Band(
            self.diagonal.flip(-3),
            coupling(self.ahead, 1),
            coupling(self.beyond, 2),
            self.shared.flip(-3),
        )


@dataclass(frozen=True)
class Factor:
    """Per frame the lower factor L (d, d) and the panel L^-1 [A_(t,t+1) A_(t,t+2) B_t g_t]."""

    lower: Float[Tensor, "*batch n d d"]
    panel: Float[Tensor, "*batch n d w"]  # w = 2 d + m


Front = Float[Tensor, "*batch w w"]  # next two frames, border, gradient; symmetric


def eliminate(band: Band, front: Front, count: int, floor: float = 0.0) -> tuple[Factor, Front]:
    """Eliminate the first `count` frames; what the others hold so far joins the new front.

    `floor` is added to every eliminated pivot. Raises NotPositiveDefiniteError.
    """
    batch, size = band.diagonal.shape[:-3], band.diagonal.shape[-1]
    width = front.shape[-1]
    lower = band.diagonal.new_empty(*batch, count, size, size)
    panels = band.diagonal.new_empty(*batch, count, size, width)
    failed = []
    first, second, rest = slice(0, size), slice(size, 2 * size), slice(2 * size, None)
    eye = floor * torch.eye(size, dtype=front.dtype, device=front.device)
    # The upper triangle of the front, block row by block row: half of the products suffice.
    top, middle, corner = front[..., first, :], front[..., second, size:], front[..., rest, rest]
    for t in range(count):
        panel = panels[..., t, :, :]
        torch.add(top[..., second], band.ahead[..., t, :, :], out=panel[..., first])
        panel[..., second] = band.beyond[..., t, :, :]
        torch.add(top[..., rest], band.shared[..., t, :, :], out=panel[..., rest])
        pivot = top[..., first] + band.diagonal[..., t, :, :] + eye
        factor, info = torch.linalg.cholesky_ex(pivot)
        failed.append(info)
        lower[..., t, :, :] = factor
        solved = torch.linalg.solve_triangular(factor, panel, upper=False)
        panels[..., t, :, :] = solved
        negative = -solved.mT
        top = negative[..., first, :] @ solved
        top[..., first] += middle[..., first]
        top[..., rest] += middle[..., size:]
        middle = negative[..., second, :] @ solved[..., size:]
        corner = corner + negative[..., rest, :] @ solved[..., rest]
    if count > 0 and bool((torch.stack(failed) != 0).any()):
        raise NotPositiveDefiniteError("pivot block of a frame")
    return Factor(lower, panels), _mirrored(top, middle, corner) + _left_over(band, count, front)


def _mirrored(top: Tensor, middle: Tensor, corner: Tensor) -> Front:
    """The whole front from its upper block rows."""
    size = top.shape[-2]
    front = top.new_zeros(*top.shape[:-2], top.shape[-1], top.shape[-1])
    front[..., :size, size:] = top[..., size:]
    front[..., size : 2 * size, 2 * size :] = middle[..., size:]
    front = front + front.mT
    front[..., :size, :size] = top[..., :size]
    front[..., size : 2 * size, size : 2 * size] = middle[..., :size]
    front[..., 2 * size :, 2 * size :] = corner
    return front


def _left_over(band: Band, count: int, front: Front) -> Front:
    """What a band holds of the (at most two) frames that are not eliminated."""
    size = band.diagonal.shape[-1]
    added = torch.zeros_like(front)
    left = band.diagonal.shape[-3] - count
    for i in range(left):
        rows = slice(i * size, (i + 1) * size)
        added[..., rows, rows] = band.diagonal[..., count + i, :, :]
        shared = band.shared[..., count + i, :, :]
        added[..., rows, 2 * size :] = shared
        added[..., 2 * size :, rows] = shared.transpose(-1, -2)
    if left == REACH:
        coupling = band.ahead[..., count, :, :]
        added[..., :size, size : 2 * size] = coupling
        added[..., size : 2 * size, :size] = coupling.transpose(-1, -2)
    return added


def back_substitute(
    factor: Factor, known: Float[Tensor, "*batch w"]
) -> tuple[Float[Tensor, "*batch n d"], Float[Tensor, "*batch w"]]:
    """Increments of the frames of a factor, last eliminated first.

    `known` holds the increments of the two frames after the last, of the border, and 1 for the
    gradient; returned with the first two frames of the factor in their place.
    """
    count, size = factor.panel.shape[-3:-1]
    step = factor.panel.new_empty(*factor.panel.shape[:-3], count, size)
    for t in range(count - 1, -1, -1):
        right = factor.panel[..., t, :, :] @ known[..., None]
        upper = factor.lower[..., t, :, :].transpose(-1, -2)
        step[..., t, :] = -torch.linalg.solve_triangular(upper, right, upper=True)[..., 0]
        known = torch.cat([step[..., t, :], known[..., :size], known[..., 2 * size :]], dim=-1)
    return step, known


def swap_frames(front: Front, size: int) -> Front:
    """A front with its two frames exchanged: what the other end's elimination left."""
    width = front.shape[-1]
    order = torch.arange(width, device=front.device)
    order[: 2 * size] = order[: 2 * size].roll(size)
    return front[..., order, :][..., :, order]
