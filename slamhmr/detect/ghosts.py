"""From looks to people: tracks, less things that look like one, second looks and flashes."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from slamhmr.detect.landmarks import Candidate
from slamhmr.detect.reidentify import across_shots
from slamhmr.detect.similarity import BODY, body_box, likelihood, overlap, person_size
from slamhmr.detect.track import SAME_PLACE, Track, centre, link, stitch, united

SHORTEST = 0.4  # s of looks that a person must have, or half the clip if that is shorter
LIKELY = 0.30  # median likelihood of a person who moves through the image
LIKELY_RESTING = 0.42  # median likelihood of one who does not: things stay where they are
RESTING = 0.35  # person sizes: total drift of the body's centre below which a track rests
RIGID = (
    0.0015  # person sizes: shape change below which a track of `RIGID_SPAN` is a picture or statue
)
RIGID_SPAN = 3.0  # s; a bystander who hardly moves was measured at 0.004 over 1.7 s
# Two tracks of one person take turns: often, seldom both at once, and each where the other is.
TURNS, BOTH, NEAR_S = 4, 0.2, 0.35
SHADOWED = 0.6  # share of a box covered by a likelier track, and share of frames, of a second look


def track_people(
    looks: Sequence[Sequence[Candidate]], fps: float, longest_gap: float, cuts: Sequence[int] = ()
) -> list[Track]:
    """Tracks of the people among the looks of every frame, gaps to `longest_gap` s bridged.

    Every shot (`cuts`: first frames of new ones) is tracked by itself; then people are recognised
    by their clothes where that is safe. Order of the result: by total likelihood, largest first.
    """
    shots = []
    for start, stop in zip((0, *cuts), (*cuts, len(looks)), strict=True):
        found = stitch(link(looks[start:stop], fps, start), fps, longest_gap)
        shots.append(people_among(found, fps, stop - start))
    tracks = across_shots(shots)
    return sorted(tracks, key=lambda track: -sum(likelihood(look) for look in track.looks))


def people_among(tracks: Sequence[Track], fps: float, frame_count: int) -> list[Track]:
    """Tracks that are people: long enough, likely, no resting thing, no second look."""
    shortest = max(1, min(round(SHORTEST * fps), (frame_count + 1) // 2))
    whole = merge_alternating(tracks, fps)
    real = [t for t in whole if len(t.looks) >= shortest and is_person(t, fps)]
    ordered = sorted(real, key=lambda t: -quality(t) * len(t.looks))
    kept: list[Track] = []
    for track in ordered:
        if not any(_shadowed(track, other) for other in kept):
            kept.append(track)
    return kept


def merge_alternating(tracks: Sequence[Track], fps: float) -> list[Track]:
    """Tracks with those joined that take turns at one place: one person, looked at in two ways."""
    merged: list[Track] = []
    for track in sorted(tracks, key=lambda t: -len(t.looks)):
        same = next((k for k, other in enumerate(merged) if alternate(track, other, fps)), None)
        if same is None:
            merged.append(track)
        else:
            merged[same] = united(merged[same], track)
    return merged


def alternate(first: Track, second: Track, fps: float) -> bool:
    """Whether two tracks take turns at one place, hardly ever seen well in the same frame."""
    good = [[k for k in track.looks if likelihood(k) >= LIKELY] for track in (first, second)]
    frames = [{look.frame for look in looks} for looks in good]
    if len(frames[0] & frames[1]) > BOTH * min(map(len, frames)):
        return False
    order = sorted(frames[0] ^ frames[1])
    turns = sum((a in frames[0]) != (b in frames[0]) for a, b in pairwise(order))
    if turns < TURNS:
        return False
    places = []
    for look in good[0]:
        near = min(good[1], key=lambda other: abs(other.frame - look.frame))
        if abs(near.frame - look.frame) <= NEAR_S * fps:
            places.append(overlap(body_box(look.points), body_box(near.points)))
    return len(places) > 0 and float(np.median(places)) > SAME_PLACE


def is_person(track: Track, fps: float) -> bool:
    """Whether a track is rather a person than a thing, by likelihood, drift, change of shape."""
    limit = LIKELY_RESTING if drift(track) < RESTING else LIKELY
    if quality(track) < limit:
        return False
    return not (len(track.looks) >= RIGID_SPAN * fps and shape_change(track) < RIGID)


def quality(track: Track) -> float:
    """Median likelihood of the looks, 0..1."""
    return float(np.median([likelihood(look) for look in track.looks]))


def drift(track: Track) -> float:
    """Diagonal of the range of the body's centre (5th to 95th percentile), in person sizes."""
    places = np.array([centre(look) for look in track.looks])
    size = float(np.median([person_size(look.points) for look in track.looks]))
    low, high = np.percentile(places, [5, 95], axis=0)
    return float(np.hypot(*(high - low))) / size


def shape_change(track: Track) -> float:
    """Median over body points of their deviation in time, centre removed, in person sizes."""
    shapes = np.array([_shape(look) for look in track.looks])
    return float(np.median(np.sqrt(shapes.var(axis=0).sum(axis=-1))))


def _shape(look: Candidate) -> np.ndarray:
    body = look.points[BODY]
    return (body - body.mean(axis=0)) / person_size(look.points)


def _shadowed(track: Track, other: Track) -> bool:
    """Whether a track lies inside a likelier one most of its time."""
    if quality(track) > quality(other):
        return False
    boxes = {look.frame: body_box(look.points) for look in other.looks}
    covered = [
        look.frame in boxes and overlap(body_box(look.points), boxes[look.frame]) > SHADOWED
        for look in track.looks
    ]
    return float(np.mean(covered)) > SHADOWED
