"""Who of one shot is who of another: by the colours of their clothes, where that is safe.

Across a cut nothing else carries over: places, sizes and speeds belong to the camera. Wrong joints
give two people one shape, so whoever looks like two people, or only roughly like one, is new.
"""

from collections.abc import Sequence

import numpy as np

from slamhmr.detect.track import Track

# Measured on 17 pieces of eight clips: the same person half a clip on 0.07-0.23 (0.35 in a shaky
# light), from a camera beside 0.3-0.45, from the other side or in other light above 0.5; different
# people above 0.5, in dark clothes above 0.2.
ALIKE = 0.35  # largest distance of one person's clothes in two shots
APART = 0.15  # by which everybody else in either shot must be farther


def across_shots(shots: Sequence[Sequence[Track]]) -> list[Track]:
    """Tracks of all shots, those of one person joined; at most one of each shot."""
    people: list[list[Track]] = []
    for tracks in shots:
        clothes = [worn(track) for track in tracks]
        known = [[worn(track) for track in person] for person in people]
        apart = np.array(
            [[min(distance(a, b) for a in looks) for b in clothes] for looks in known]
        ).reshape(len(people), len(tracks))
        joined = recognised(apart)
        for row, column in joined.items():
            people[row].append(tracks[column])
        new = sorted(set(range(len(tracks))) - set(joined.values()))
        people += [[tracks[column]] for column in new]
    return [Track(tuple(look for track in person for look in track.looks)) for person in people]


def recognised(apart: np.ndarray) -> dict[int, int]:
    """Column of each row that is safely the same person; `apart` (P,Q) holds distances."""
    found = {}
    for row, column in np.argwhere(apart < ALIKE):
        rivals = np.concatenate(
            [np.delete(apart[row], column), np.delete(apart[:, column], row), [np.inf]]
        )
        if rivals.min() > apart[row, column] + APART:
            found[int(row)] = int(column)
    return found


def worn(track: Track) -> np.ndarray:
    """Root (2, bins) of the mean colour histograms of torso and thighs; 0 where never seen."""
    colours = np.array([look.colour for look in track.looks]) ** 2
    seen = np.maximum((colours.sum(axis=2) > 0).sum(axis=0), 1)
    return np.sqrt(colours.sum(axis=0) / seen[:, None])


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Hellinger distance 0..1 of two people's clothes, of torso or thighs, whichever differs more.

    1 where a part was never seen.
    """
    shared = float((first * second).sum(axis=1).min())
    return float(np.sqrt(max(0.0, 1.0 - shared)))
