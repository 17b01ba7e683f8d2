"""Block cyclic reduction: all frames and people eliminated in log2 steps of batched products.

Frames are taken in pairs, which makes the band of reach 2 block tridiagonal. Every level eliminates
each second pair of what is left, of everybody at once (Hockney 1965; Heller 1976, SIAM J. Numer.
Anal. 13, section 3); a Cholesky factor per pivot keeps it as stable as the sweep over frames, which
is its naive twin (`banded.py`). 2.7 times its arithmetic, but 9 levels for 1000 frames where the
sweep makes 1000 steps: for GPUs, on which a launch costs more than a matrix.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.banded import NotPositiveDefiniteError

PAIR = 2  # frames of one block: residuals reach two frames ahead, so a pair sees only the next one


@dataclass(frozen=True)
class Blocks:
    """A block tridiagonal matrix of pairs of frames, border columns, gradient; of N chains."""

    diagonal: Float[Tensor, "N n D D"]
    ahead: Float[Tensor, "N n D D"]  # couples pairs i and i + 1; the last is zero
    shared: Float[Tensor, "N n D m"]  # border columns, then the gradient


@dataclass(frozen=True)
class Level:
    """Of every second pair: factor L and panel L^-1 [A_left A_right B g]."""

    lower: Float[Tensor, "N k D D"]
    panel: Float[Tensor, "N k D w"]  # w = 2 D + m


@dataclass(frozen=True)
class Reduction:
    """All levels, the last pair's factor and panel, and what is left on border and gradient."""

    levels: list[Level]
    lower: Float[Tensor, "N D D"]
    panel: Float[Tensor, "N D m"]
    schur: Float[Tensor, "N m m"]


def blocks_of(band: list[Float[Tensor, "N T d d"]], shared: Float[Tensor, "N T d m"]) -> Blocks:
    """Frames in pairs; T is even, `band[k][:, t]` couples frames t and t + k."""
    chains, frames, size, width = shared.shape
    own, ahead, beyond = (part.reshape(chains, frames // PAIR, PAIR, size, size) for part in band)
    diagonal = shared.new_zeros(chains, frames // PAIR, PAIR * size, PAIR * size)
    diagonal[..., :size, :size], diagonal[..., size:, size:] = own[:, :, 0], own[:, :, 1]
    diagonal[..., :size, size:], diagonal[..., size:, :size] = ahead[:, :, 0], ahead[:, :, 0].mT
    coupling = torch.zeros_like(diagonal)
    coupling[..., :size, :size], coupling[..., size:, size:] = beyond[:, :, 0], beyond[:, :, 1]
    coupling[..., size:, :size] = ahead[:, :, 1]
    return Blocks(diagonal, coupling, shared.reshape(chains, frames // PAIR, PAIR * size, width))


def reduce(blocks: Blocks) -> Reduction:
    """Eliminate everything but border and gradient. Raises NotPositiveDefiniteError."""
    levels, failed = [], []
    schur = blocks.shared.new_zeros(())
    while blocks.diagonal.shape[1] > 1:
        level, blocks, left, info = _level(blocks)
        schur = schur + left
        levels.append(level)
        failed.append(info.flatten())
    lower, info = torch.linalg.cholesky_ex(blocks.diagonal[:, 0])
    panel = torch.linalg.solve_triangular(lower, blocks.shared[:, 0], upper=False)
    failed.append(info)
    if bool((torch.cat(failed) != 0).any()):
        raise NotPositiveDefiniteError("pivot block of two frames")
    return Reduction(levels, lower, panel, schur - panel.mT @ panel)


def _level(blocks: Blocks) -> tuple[Level, Blocks, Tensor, Tensor]:
    """One level: pairs 1, 3, 5 ... leave; each couples the pairs on its two sides.

    Also what leaves the corner, and LAPACK's info of every pivot.
    """
    size = blocks.diagonal.shape[-1]
    lower, info = torch.linalg.cholesky_ex(blocks.diagonal[:, 1::2])
    count = lower.shape[1]
    left, right = blocks.ahead[:, : 2 * count : 2].mT, blocks.ahead[:, 1::2]
    rows = torch.cat([left, right, blocks.shared[:, 1::2]], dim=-1)
    panel = torch.linalg.solve_triangular(lower, rows, upper=False)
    first, second, rest = panel[..., :size], panel[..., size : 2 * size], panel[..., 2 * size :]
    behind = first.mT @ panel  # on the pair to the left: with itself, the right one, the border
    after = second.mT @ panel[..., size:]
    flat = rest.flatten(start_dim=1, end_dim=2)
    diagonal, shared = blocks.diagonal[:, ::2].clone(), blocks.shared[:, ::2].clone()
    reached = diagonal.shape[1] - 1  # pairs that have an eliminated one on their left
    diagonal[:, :count] -= behind[..., :size]
    shared[:, :count] -= behind[..., 2 * size :]
    diagonal[:, 1:] -= after[:, :reached, :, :size]
    shared[:, 1:] -= after[:, :reached, :, size:]
    ahead = torch.zeros_like(diagonal)
    ahead[:, :reached] = -behind[:, :reached, :, size : 2 * size]
    return Level(lower, panel), Blocks(diagonal, ahead, shared), -flat.mT @ flat, info


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """Entries 0, 2, 4 ... and 1, 3, 5 ... of axis 1."""
    whole = even.new_empty(len(even), even.shape[1] + odd.shape[1], *even.shape[2:])
    whole[:, ::2], whole[:, 1::2] = even, odd
    return whole


def _right(even: Tensor, count: int) -> Tensor:
    """The entry to the right of each of `count` eliminated ones; zero where there is none."""
    missing = count + 1 - even.shape[1]
    right = even[:, 1:]
    if missing == 0:
        return right
    return torch.cat([right, torch.zeros_like(even[:, :1])], dim=1)


def back_substitute(reduction: Reduction, own: Float[Tensor, "N m"]) -> Float[Tensor, "N n D"]:
    """Increments of all pairs; `own` holds those of the border, and 1 for the gradient."""
    right = reduction.panel @ own[..., None]
    known = -torch.linalg.solve_triangular(reduction.lower.mT, right, upper=True).mT
    for level in reversed(reduction.levels):
        count = level.lower.shape[1]
        beside = [known[:, :count], _right(known, count), own[:, None].expand(-1, count, -1)]
        right = level.panel @ torch.cat(beside, dim=-1)[..., None]
        found = -torch.linalg.solve_triangular(level.lower.mT, right, upper=True)[..., 0]
        known = _interleaved(known, found)
    return known


def selected_inverse(
    reduction: Reduction, border: Float[Tensor, "N g g"]
) -> tuple[Float[Tensor, "N n D D"], Float[Tensor, "N n D g"]]:
    """Covariance of every pair, and that with the border, from that of the border."""
    gain = torch.linalg.solve_triangular(reduction.lower.mT, reduction.panel[..., :-1], upper=True)
    cross = -(gain @ border)
    own = torch.cholesky_inverse(reduction.lower) - cross @ gain.mT
    own, cross = _symmetric(own)[:, None], cross[:, None]
    ahead = own[:, :0]  # covariance of pairs i and i + 1
    for level in reversed(reduction.levels):
        own, ahead, cross = _covariances(level, own, ahead, cross, border)
    return own, cross


def _covariances(
    level: Level, own: Tensor, ahead: Tensor, cross: Tensor, border: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the pairs of one more level between those that are known."""
    size, count = own.shape[-1], level.lower.shape[1]
    gain = torch.linalg.solve_triangular(level.lower.mT, level.panel[..., :-1], upper=True)
    left, right = slice(0, size), slice(size, 2 * size)
    joint = own.new_zeros(len(own), count, gain.shape[-1], gain.shape[-1])
    reached = own.shape[1] - 1
    joint[..., left, left], joint[..., right, right] = own[:, :count], _right(own, count)
    joint[:, :reached, left, right], joint[:, :reached, right, left] = ahead, ahead.mT
    joint[..., left, 2 * size :] = cross[:, :count]
    joint[..., right, 2 * size :] = _right(cross, count)
    joint[..., 2 * size :, : 2 * size] = joint[..., : 2 * size, 2 * size :].mT
    joint[..., 2 * size :, 2 * size :] = border[:, None]
    shared = -(gain @ joint)  # of an eliminated pair with left, right, border
    found = _symmetric(torch.cholesky_inverse(level.lower) - shared @ gain.mT)
    ahead = _interleaved(shared[..., left].mT, shared[:, :reached, :, right])
    return _interleaved(own, found), ahead, _interleaved(cross, shared[..., 2 * size :])


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)
