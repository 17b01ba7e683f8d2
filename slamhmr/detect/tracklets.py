"""Tracks put right before anything is made of them: sides of limbs, exchanged rows, re-entries."""

from slamhmr.detect.identity import merge_returns, repair_switches
from slamhmr.detect.sides import repair_sides
from slamhmr.types import Observations


def repair_tracks(
    observations: Observations,
    cuts: tuple[int, ...] = (),
    *,
    identities: bool = True,
    named: frozenset[int] = frozenset(),
) -> tuple[Observations, tuple[str, ...]]:
    """Observations of any detector with their tracks put right, and what was done, in sentences.

    Without `identities` only left and right are looked at: who is who is then known better, from
    clothes or by hand. `named` are ids that somebody has used and that must not vanish.
    """
    if not identities:
        return repair_sides(observations)
    observations, switched = repair_switches(observations, cuts)
    observations, merged = merge_returns(observations, cuts, named)
    observations, sides = repair_sides(observations)
    return observations, (*switched, *merged, *sides)
