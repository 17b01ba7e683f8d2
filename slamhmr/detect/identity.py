"""Who is who along rows of keypoints, without pixels: exchanged rows, rows that jump, re-entries.

Evidence is where people are, how fast and how large. What is certain is repaired; what is only
likely is said; an exchange while two are at one place is not seen. Lengths are in extents: the
longer side of a person in the picture.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.detect.sides import LEAST
from slamhmr.types import Observations

LEAST_POINTS = 4  # of a frame that tells where somebody is
BESIDE = 0.2  # s on either side of an instant that tell where and how fast somebody is
LEAST_BESIDE = 3  # frames of them
LONGEST_STEP = 0.5  # s without a look, over which places are compared
JUMP, JUMP_SPEED = 0.5, 1.5  # extents, extents per second of gap: nobody moves by so much
FAR = 1.5  # times as far nobody's row goes: from there on it is somebody new
FITS = 0.5  # share of that within which another row goes on instead
LASTING = 1.0  # s over which a person's extent is measured: poses change it too
ALIKE = 1.35  # largest ratio of two extents of one person
MERGE_SECONDS, EXIT_SECONDS = 3.0, 10.0  # longest absence inside the picture, and outside it
MERGE_PLACE, MERGE_SPEED = 0.4, 0.4  # extents, extents per second: how far off one may come back
MOST = 10.0  # percent of the points at either end that do not count in an extent
BORDER = 0.04  # of the picture's width: a point so near is at the border

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Row:
    """Where somebody is in the frames in which that can be told."""

    frames: NDArray[np.int64]
    centre: Array  # (n, 2) px
    extent: Array  # (n,) px

    def end(self, at: int, times: Array, *, after: bool) -> tuple[Array, Array, float] | None:
        """Place and velocity by the frames up to (or from) place `at` in the row, and extent."""
        now = times[self.frames[at]]
        near = np.abs(times[self.frames] - now) <= BESIDE
        near &= (np.arange(len(near)) >= at) if after else (np.arange(len(near)) <= at)
        if near.sum() < LEAST_BESIDE:
            return None
        since = times[self.frames[near]] - now
        slope, place = np.polyfit(since, self.centre[near], 1)
        lasting = np.abs(times[self.frames] - now) <= LASTING
        lasting &= (np.arange(len(near)) >= at) if after else (np.arange(len(near)) <= at)
        return place, slope, float(np.median(self.extent[lasting]))


def _rows(observations: Observations) -> list[_Row]:
    keypoints, confidence = observations.keypoints.numpy(), observations.confidence.numpy()
    found = []
    for points, sure in zip(keypoints, confidence, strict=True):
        frames = np.flatnonzero((sure >= LEAST).sum(axis=1) >= LEAST_POINTS)
        seen = np.where((sure[frames] >= LEAST)[..., None], points[frames], np.nan)
        empty = len(frames) == 0
        centre = np.zeros((0, 2)) if empty else np.nanmedian(seen, axis=1)
        extent = np.zeros(0) if empty else _extent(seen)
        found.append(_Row(frames, centre, extent))
    return found


def _extent(seen: Array) -> Array:
    """Extent (n,) px of points (n,K,2), NaN where not seen: of most of them, outliers are many."""
    low, high = _percentile(seen, MOST), _percentile(seen, 100 - MOST)
    return np.asarray(np.maximum((high - low).max(axis=-1), 8.0))


def _percentile(seen: Array, percent: float) -> Array:
    """`np.nanpercentile` (n,2) over the points of each frame, 100 times as fast."""
    ordered = np.sort(seen, axis=1)  # NaN last
    place = percent / 100 * (np.isfinite(seen).sum(axis=1) - 1)
    below, above = (
        np.take_along_axis(ordered, rounded(place).astype(np.int64)[:, None], axis=1)[:, 0]
        for rounded in (np.floor, np.ceil)
    )
    return np.asarray(below + (place - np.floor(place)) * (above - below))


def repair_switches(
    observations: Observations, cuts: tuple[int, ...] = ()
) -> tuple[Observations, tuple[str, ...]]:
    """Rows that exchange their people, or jump to somebody else, put right; and what was done.

    From the frame of a jump on, a row is that of whoever it fits, if somebody's does; else it is a
    new person's. No jump is seen across `cuts`.
    """
    notes: list[str] = []
    times, done = observations.timestamps.numpy(), 0
    while True:
        rows = _rows(observations)
        jumps = [jump for row, own in enumerate(rows) for jump in _jumps(row, own, times, cuts)]
        later = sorted((jump for jump in jumps if jump.frame > done), key=lambda j: j.frame)
        if len(later) == 0:
            return observations, tuple(notes)
        together = _together(later, times)
        observations, said = _put_right(observations, together, times)
        notes += said
        done = max(jump.frame for jump in together)


@dataclass(frozen=True)
class _Jump:
    """A row that is elsewhere from `frame` on: where it was at `last`, and where it is."""

    row: int
    last: int
    frame: int
    before: tuple[Array, Array, float]
    after: tuple[Array, Array, float]


def _jumps(row: int, own: _Row, times: Array, cuts: tuple[int, ...]) -> list[_Jump]:
    found = []
    steps = np.hypot(*np.diff(own.centre, axis=0).T) / own.extent[1:]
    for at in (np.flatnonzero(steps > JUMP) + 1).tolist():
        last, frame = int(own.frames[at - 1]), int(own.frames[at])
        gap = times[frame] - times[last]
        if gap > LONGEST_STEP or any(last < cut <= frame for cut in cuts):
            continue
        before, after = own.end(at - 1, times, after=False), own.end(at, times, after=True)
        if before is not None and after is not None and _misfit(before, after, gap) > 1:
            found.append(_Jump(row, last, frame, before, after))
    return found


def _misfit(
    before: tuple[Array, Array, float], after: tuple[Array, Array, float], gap: float
) -> float:
    """Distance of where somebody is from where he was expected, over what a person may do."""
    step = after[0] - before[0]
    steps = step, step - before[1] * gap, step - after[1] * gap
    distance = min(float(np.hypot(*left)) for left in steps)
    return distance / max(before[2], after[2]) / (JUMP + JUMP_SPEED * gap)


def _together(jumps: list[_Jump], times: Array) -> list[_Jump]:
    """The first jump and those of other rows at about the same time."""
    first, found = jumps[0], {jumps[0].row: jumps[0]}
    for jump in jumps[1:]:
        if times[jump.last] - times[first.frame] <= BESIDE and jump.row not in found:
            found[jump.row] = jump
    return list(found.values())


def _put_right(
    observations: Observations, jumps: list[_Jump], times: Array
) -> tuple[Observations, list[str]]:
    """What comes after each jump moved to the row that it fits, else to a new one."""
    from scipy.optimize import linear_sum_assignment

    costs = np.array([
        [_misfit(a.before, b.after, max(times[b.frame] - times[a.last], 0.0)) for b in jumps]
        for a in jumps
    ])  # fmt: skip
    chosen = zip(*linear_sum_assignment(np.minimum(costs, 1.0)), strict=True)
    fits = {int(b): int(a) for a, b in chosen if costs[a, b] <= FITS}
    taken = set(fits.values())  # whose row goes on with somebody else's frames
    kept = [b for b in range(len(jumps)) if b in fits or b in taken or costs[b, b] > FAR]
    ids, notes = observations.person_id.tolist(), []
    parts = {name: getattr(observations, name).clone() for name in _FRAMEWISE}
    for place in kept:
        _clear(parts, jumps[place].row, jumps[place].frame)
    for place in kept:
        jump = jumps[place]
        person = ids[jump.row]
        if place in fits:
            to = jumps[fits[place]]
            start = max(jump.frame, to.frame)
            for name, values in parts.items():
                values[to.row, start:] = getattr(observations, name)[jump.row, start:]
            notes.append(
                f"person {person} goes on as person {ids[to.row]} from frame {start} on: the rows "
                "of the observations were exchanged there; put back"
            )
        else:
            parts = {
                name: torch.cat([values, getattr(observations, name)[jump.row][None]])
                for name, values in parts.items()
            }
            _clear(parts, -1, jump.frame, before=True)
            ids.append(max(ids) + 1)
            notes.append(
                f"person {person} jumps to another place at frame {jump.frame}: from there on it "
                f"is person {ids[-1]}"
            )
    people = torch.tensor(ids, dtype=observations.person_id.dtype)
    return replace(observations, person_id=people, **parts), notes


_FRAMEWISE = ("keypoints", "confidence", "boxes")


def _clear(parts: dict[str, Tensor], row: int, frame: int, *, before: bool = False) -> None:
    """Nothing is seen of a row from a frame on, or before it."""
    gone = slice(None, frame) if before else slice(frame, None)
    parts["confidence"][row, gone] = 0
    parts["boxes"][row, gone] = torch.nan


def merge_returns(
    observations: Observations, cuts: tuple[int, ...] = (), named: frozenset[int] = frozenset()
) -> tuple[Observations, tuple[str, ...]]:
    """People who come back as somebody new, one again where that is certain; and what was done.

    Certain: time, place (or side of the picture), and size agree, and nobody else fits. The later
    id goes, unless it is among the `named`: then, and where two could be meant, it is only said.
    """
    notes: list[str] = []
    while True:
        rows, times = _rows(observations), observations.timestamps.numpy()
        fits = [
            (a, b)
            for a in range(len(rows))
            for b in range(len(rows))
            if _returns(rows[a], rows[b], observations, times, cuts)
        ]
        ids = observations.person_id.tolist()
        sole = [
            (a, b) for a, b in fits
            if sum(a == first for first, _ in fits) == sum(b == last for _, last in fits) == 1
        ]  # fmt: skip
        certain = [(a, b) for a, b in sole if ids[b] not in named]
        if len(certain) == 0:
            notes += [
                f"person {ids[b]} may be person {ids[a]}, who was last seen in frame "
                f"{int(rows[a].frames[-1])}; if so: merge: [[{ids[a]}, {ids[b]}]] in "
                "constraints.yaml"
                for a, b in fits
            ]
            return observations, tuple(notes)
        a, b = certain[0]
        last, first = int(rows[a].frames[-1]), int(rows[b].frames[0])
        met = f"and comes back in frame {first}" if last < first else f"and as both from {first} on"
        notes.append(
            f"person {ids[b]} is person {ids[a]}, who was last seen in frame {last} {met}: time, "
            "place and size agree"
        )
        observations = _joined(observations, a, b, first)


def _returns(
    gone: _Row, back: _Row, observations: Observations, times: Array, cuts: tuple[int, ...]
) -> bool:
    """Whether the second row may be the first one's person, who left and came back."""
    if min(len(gone.frames), len(back.frames)) < LEAST_BESIDE:
        return False
    last, first = int(gone.frames[-1]), int(back.frames[0])
    gap = times[first] - times[last]
    both = first <= last  # for a moment one person may have two rows, at one place
    if both and (gap < -BESIDE or back.frames[-1] <= last or first <= gone.frames[0]):
        return False
    if gap > EXIT_SECONDS or any(last < cut <= first for cut in cuts):
        return False
    before = gone.end(len(gone.frames) - 1, times, after=False)
    after = back.end(0, times, after=True)
    if before is None or after is None:
        return False
    if max(before[2], after[2]) > ALIKE * min(before[2], after[2]):
        return False
    extent = min(before[2], after[2])
    side = _side(before, observations.image_size[0])
    if side != 0 and not both:
        level = abs(before[0][1] - after[0][1]) < MERGE_PLACE * extent
        return bool(level) and side == _side(after, observations.image_size[0])
    away = min(
        float(np.hypot(*(before[0] + before[1] * gap * share - after[0]))) for share in (0, 0.5, 1)
    )
    reach = (MERGE_PLACE + MERGE_SPEED * max(gap, 0.0)) * extent
    return bool(gap <= MERGE_SECONDS and away < reach)


def _side(end: tuple[Array, Array, float], width: int) -> int:
    """-1 or 1 where somebody is at the left or right border of the picture, else 0."""
    reach = 0.3 * end[2] + BORDER * width  # half the width of a person
    return int(end[0][0] > width - reach) - int(end[0][0] < reach)


def _joined(observations: Observations, row: int, later: int, frame: int) -> Observations:
    """The later row's frames in the earlier row, the later row gone."""
    keep = torch.arange(len(observations.person_id)) != later
    parts = {}
    for name in _FRAMEWISE:
        values = getattr(observations, name).clone()
        values[row, frame:] = values[later, frame:]
        parts[name] = values[keep]
    return replace(observations, person_id=observations.person_id[keep], **parts)
