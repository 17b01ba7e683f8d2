"""Elimination of all lanes in one batch: on a GPU one kernel serves every person and half."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.banded import Band, Factor, back_substitute, eliminate
from slamhmr.solve.problem import REACH


@dataclass
class Batch:
    """Factors of all lanes, turn by turn; a lane that is short is padded at its far end."""

    lanes: int
    factors: list[Factor] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)  # frames of each lane, turn by turn

    def eliminate(
        self, bands: list[Band | None], fronts: Float[Tensor, "L w w"], floor: float
    ) -> Float[Tensor, "L w w"]:
        """Eliminate one window of every lane; None for a lane that has not begun."""
        sample = next(band for band in bands if band is not None)
        longest = max(len(band.diagonal) for band in bands if band is not None)
        longest = max(longest, REACH)
        padded = [_padded(band, longest, sample) for band in bands]
        stacked = Band(
            torch.stack([band.diagonal for band in padded]),
            torch.stack([band.ahead for band in padded]),
            torch.stack([band.beyond for band in padded]),
            torch.stack([band.shared for band in padded]),
        )
        factor, left = eliminate(stacked, fronts, longest - REACH, floor)
        self.factors.append(factor)
        self.counts.append([0 if b is None else max(len(b.diagonal) - REACH, 0) for b in bands])
        return left

    def factor_of(self, lane: int, turn: int) -> Factor:
        """A lane's own part of one turn."""
        factor, count = self.factors[turn], self.counts[turn][lane]
        first = factor.lower.shape[1] - count
        return Factor(factor.lower[lane, first:], factor.panel[lane, first:])

    def back(self, known: Float[Tensor, "L w"]) -> list[Float[Tensor, "L n d"]]:
        """Increments turn by turn, in the order of elimination."""
        parts = []
        for factor in reversed(self.factors):
            part, known = back_substitute(factor, known)
            parts.append(part)
        return parts[::-1]


def _padded(band: Band | None, length: int, sample: Band) -> Band:
    """A band with frames before its first that touch nothing, and empty ones after a single one."""
    size, shared = sample.shared.shape[-2:]
    have = 0 if band is None else len(band.diagonal)
    behind = max(REACH - have, 0)
    before = length - have - behind
    like = sample.diagonal
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    empty = like.new_zeros(0, size, size)
    parts = band or Band(empty, empty, empty, like.new_zeros(0, size, shared))

    def around(block: Tensor, *, unit: bool = False) -> Tensor:
        first = block.new_zeros(before, *block.shape[1:])
        if unit:
            first += eye
        return torch.cat([first, block, block.new_zeros(behind, *block.shape[1:])])

    return Band(
        around(parts.diagonal, unit=True),
        around(parts.ahead),
        around(parts.beyond),
        around(parts.shared),
    )
