"""Tracks that no body explains: they have no say in what everybody shares."""

from dataclasses import replace
from typing import Any

import torch

from slamhmr.types import Observations

NONSENSE_PERCENT = 30.0  # of the box height, median of the start; real starts are within 3 to 12
TRUST = 1e-3  # share that is left of such a track's keypoints: enough to have a place


def muted(observations: Observations, start: dict[str, Any]) -> Observations:
    """The observations as the solver believes them; `start`: `reprojection.score` of the start.

    A track whose keypoints jump between people, or lie anywhere, gives its body great energies in
    metres, which a smaller world would have less of: one such track of two made the other person
    33 to 50 % too small. It fails the gates alone, by the observations as they are.
    """
    share = torch.ones_like(observations.confidence[:, :1, :1])
    for row, person in enumerate(observations.person_id.tolist()):
        share[row] = TRUST if _nonsense(start, person) else 1.0
    return replace(observations, confidence=share * observations.confidence)


def sentences(observations: Observations, start: dict[str, Any]) -> tuple[str, ...]:
    """One for each track that is muted."""
    return tuple(
        f"person {person}: the keypoints are {start['median_percent_by_person'][str(person)]:.0f} "
        "% of the box height from any body that the start found (median): no say in scale, floor "
        "and cameras"
        for person in observations.person_id.tolist()
        if _nonsense(start, person)
    )


def _nonsense(start: dict[str, Any], person: int) -> bool:
    """False for who is never well seen (NaN): nothing of them weighs much."""
    return bool(start["median_percent_by_person"][str(person)] > NONSENSE_PERCENT)
