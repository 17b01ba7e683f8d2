"""Who is who: looks at single frames become tracks of people, with the whole clip at hand.

Two passes: link looks of nearby frames (Hungarian on keypoint similarity, box overlap and colour
under constant velocity), then stitch tracklets over gaps. Offline, so births and deaths are decided
with the future known; `ghosts` drops what is no person.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slamhmr.detect.landmarks import Candidate
from slamhmr.detect.similarity import (
    BODY,
    body_box,
    likelihood,
    overlap,
    person_size,
    point_similarity,
)

MEMORY = 0.35  # s, a track that has no look for longer ends; stitching may go on with it
LINK_SCORE = 0.35  # least score (0..1) of a link between a track and a look
VELOCITY_SPAN = 0.4  # s over which a track's velocity is measured
SPEED_LIMIT = 2.0  # person sizes per second of unexplained motion: a run across the view
LASTING = 0.3  # s of looks of a track that is stitched before the briefer ones
SAME_PLACE = 0.5  # overlap of two boxes of one frame, of the smaller, above which they are one's
STITCH_SLACK = 0.5  # person sizes: two ends of one gap may always differ by this much
STITCH_SPEED = 0.8  # person sizes per second of gap: how wrong constant velocity may become
STITCH_SIZE = 1.5  # largest ratio of sizes over a gap
STITCH_COST = 1.0  # largest cost (distance over its limit + colour difference) of a stitch
COLOUR_TOLERANCE = 0.7  # Hellinger distance beyond noise that costs as much as the place limit
COLOUR_NOISE = 0.3  # Hellinger distance between looks at one small person seconds apart


@dataclass(frozen=True)
class Track:
    """Looks at one person in the order of their frames, at most one per frame."""

    looks: tuple[Candidate, ...]

    @property
    def first(self) -> int:
        """Frame of the first look."""
        return self.looks[0].frame

    @property
    def last(self) -> int:
        """Frame of the last look."""
        return self.looks[-1].frame

    def parts(self, cuts: Sequence[int]) -> list["Track"]:
        """The looks of each shot, of those where there are any; `cuts` are their first frames."""
        bounds = zip((0, *cuts), (*cuts, self.last + 1), strict=True)
        looks = [tuple(k for k in self.looks if start <= k.frame < stop) for start, stop in bounds]
        return [Track(part) for part in looks if len(part) > 0]


def link(looks: Sequence[Sequence[Candidate]], fps: float, first: int = 0) -> list[Track]:
    """Tracks without gaps longer than `MEMORY`, over all frames; the first of them is `first`."""
    from scipy.optimize import linear_sum_assignment

    open_tracks: list[list[Candidate]] = []
    closed: list[list[Candidate]] = []
    memory = max(2, round(MEMORY * fps))
    for frame, found in enumerate(looks, start=first):
        stale = [track for track in open_tracks if frame - track[-1].frame > memory]
        open_tracks = [track for track in open_tracks if frame - track[-1].frame <= memory]
        closed += stale
        scores = np.array(
            [[link_score(track, look, fps) for look in found] for track in open_tracks]
        )
        scores = scores.reshape(len(open_tracks), len(found))
        taken = set()
        for row, column in zip(*linear_sum_assignment(-scores), strict=True):
            if scores[row, column] > LINK_SCORE:
                open_tracks[row].append(found[column])
                taken.add(column)
        open_tracks += [[look] for n, look in enumerate(found) if n not in taken]
    ordered = sorted(closed + open_tracks, key=lambda track: track[0].frame)
    return [Track(tuple(track)) for track in ordered]


def link_score(track: Sequence[Candidate], look: Candidate, fps: float) -> float:
    """How well a look goes on with a track, 0..1; the points count most."""
    latest = track[-1]
    seconds = (look.frame - latest.frame) / fps
    shift = velocity(track, fps) * seconds
    size = (person_size(latest.points) + person_size(look.points)) / 2
    predicted = latest.points[BODY] + shift
    distance = np.hypot(*np.median(look.points[BODY] - predicted, axis=0)) / size
    if distance > 0.2 + SPEED_LIMIT * seconds:
        return 0.0
    weight = np.maximum(latest.visibility, look.visibility)[BODY]
    points = point_similarity(predicted, look.points[BODY], weight, size)
    box = np.concatenate([predicted.min(axis=0), predicted.max(axis=0)])
    return (
        0.6 * points
        + 0.15 * iou(box, body_box(look.points))
        + 0.15 * (1 - hellinger(latest, look))
        + 0.1 * likelihood(look)
    )


def velocity(looks: Sequence[Candidate], fps: float, *, forward: bool = True) -> np.ndarray:
    """Velocity (2,) px/s of a person at the end (or, not `forward`, at the start) of a track.

    Slope of a line through the median body point over `VELOCITY_SPAN`; zero for a single look.
    """
    ordered = looks if forward else looks[::-1]
    end = ordered[-1].frame
    near = [look for look in ordered[-30:] if abs(look.frame - end) <= max(1, VELOCITY_SPAN * fps)]
    if len(near) < 2:
        return np.zeros(2)
    times = np.array([look.frame for look in near]) / fps
    places = np.array([centre(look) for look in near])
    times, places = times - times.mean(), places - places.mean(axis=0)
    return (times[:, None] * places).sum(axis=0) / (times**2).sum()


def centre(look: Candidate) -> np.ndarray:
    """Median (2,) of shoulders and hips, px: moves with the person, not with the limbs."""
    return np.mean(look.points[[11, 12, 23, 24]], axis=0)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    areas = [float(np.prod(box[2:] - box[:2])) for box in (first, second)]
    shared = overlap(first, second) * min(areas)
    return shared / max(sum(areas) - shared, 1e-9)


def hellinger(first: Candidate, second: Candidate) -> float:
    """Colour distance 0..1 of two looks; 0.5 where neither torso nor thighs can be compared."""
    known = (first.colour.sum(axis=1) > 0) & (second.colour.sum(axis=1) > 0)
    if not known.any():
        return 0.5
    shared = (first.colour[known] * second.colour[known]).sum(axis=1).mean()
    return float(np.sqrt(max(0.0, 1.0 - shared)))


def stitch(tracks: Sequence[Track], fps: float, longest_gap: float) -> list[Track]:
    """Tracks whose ends fit together joined, by the cheapest set of joints of the whole clip.

    Tracks that last are joined first, so that a stray look does not come between two of them.
    """
    lasting = [track for track in tracks if len(track.looks) >= LASTING * fps]
    brief = [track for track in tracks if len(track.looks) < LASTING * fps]
    joined = _join(lasting, fps, longest_gap)
    return _join(sorted(joined + brief, key=lambda t: t.first), fps, longest_gap)


def _join(tracks: Sequence[Track], fps: float, longest_gap: float) -> list[Track]:
    """One round of stitching: every end to at most one start, over gaps to `longest_gap` s."""
    from scipy.optimize import linear_sum_assignment

    if len(tracks) == 0:
        return []
    costs = np.full((len(tracks), len(tracks)), np.inf)
    for row, before in enumerate(tracks):
        for column, after in enumerate(tracks):
            ended = _before_both(before, after, fps)
            if ended is not None and after.first - ended.last <= longest_gap * fps:
                costs[row, column] = stitch_cost(ended, after, fps)
    # an end left alone costs as much as the dearest joint, so that no joint is forced
    rows, columns = linear_sum_assignment(np.minimum(costs, STITCH_COST))
    pairs = zip(rows, columns, strict=True)
    successor = {int(r): int(c) for r, c in pairs if costs[r, c] < STITCH_COST}
    joined = []
    for start in sorted(set(range(len(tracks))) - set(successor.values())):
        whole, at = tracks[start], start
        while at in successor:
            at = successor[at]
            whole = united(whole, tracks[at])
        joined.append(whole)
    return joined


def united(first: Track, second: Track) -> Track:
    """The looks of both, of a frame that both have the likelier one."""
    looks = {look.frame: look for look in first.looks}
    for look in second.looks:
        if look.frame not in looks or likelihood(look) > likelihood(looks[look.frame]):
            looks[look.frame] = look
    return Track(tuple(looks[frame] for frame in sorted(looks)))


def _before_both(before: Track, after: Track, fps: float) -> Track | None:
    """The looks of a track before another begins, None where the other cannot go on with it.

    Where somebody is looked at twice, one look may end a track and the other begin one: for up to
    `MEMORY` both may be there, at one place.
    """
    if not (before.first < after.first and before.last < after.last):
        return None
    if before.last - after.first >= MEMORY * fps:
        return None
    boxes = {k.frame: body_box(k.points) for k in after.looks if k.frame <= before.last}
    both = [k for k in before.looks if k.frame in boxes]
    if any(overlap(body_box(k.points), boxes[k.frame]) < SAME_PLACE for k in both):
        return None
    return Track(tuple(k for k in before.looks if k.frame < after.first))


def stitch_cost(before: Track, after: Track, fps: float) -> float:
    """Cost of taking two tracks for one person: misfit of place over its limit, plus colour.

    The place is predicted over the gap from both sides; constant velocity and standing still
    both count as explanations, so the nearer one is taken. Infinite for people of different
    size.
    """
    seconds = (after.first - before.last) / fps
    ends = centre(before.looks[-1]), centre(after.looks[0])
    sizes = [
        float(np.median([person_size(k.points) for k in part])) for part in _ends(before, after)
    ]
    if max(sizes) > STITCH_SIZE * min(sizes):
        return np.inf
    gap = ends[1] - ends[0]
    speeds = velocity(before.looks, fps), velocity(after.looks, fps, forward=False)
    guesses = [np.zeros(2), speeds[0], speeds[1], (speeds[0] + speeds[1]) / 2]
    distance = min(float(np.hypot(*(gap - guess * seconds))) for guess in guesses)
    limit = (STITCH_SLACK + STITCH_SPEED * seconds) * min(sizes)
    return distance / limit + _colour_cost(before, after)


def _ends(before: Track, after: Track) -> tuple[tuple[Candidate, ...], tuple[Candidate, ...]]:
    return before.looks[-5:], after.looks[:5]


def _colour_cost(before: Track, after: Track) -> float:
    """Median colour distance of looks beside a gap over its tolerance; usual noise is free."""
    left, right = before.looks[-15::3], after.looks[:15:3]
    distance = float(np.median([hellinger(a, b) for a in left for b in right]))
    return max(0.0, distance - COLOUR_NOISE) / COLOUR_TOLERANCE
