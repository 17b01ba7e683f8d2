"""Tracking on made-up looks: crossings, gaps, ghosts, flashes, duplicates, swapped sides."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from slamhmr.detect.detector import PersonDetector
from slamhmr.detect.ghosts import is_person, merge_alternating, track_people
from slamhmr.detect.landmarks import LANDMARKS, Candidate, LandmarkNetwork
from slamhmr.detect.observe import face_turned_here, keypoint_boxes, observe, point_confidence
from slamhmr.detect.reidentify import distance, recognised, worn
from slamhmr.detect.repair import steadiness, unswap
from slamhmr.detect.search import Search, distinct, without_people
from slamhmr.detect.similarity import likelihood, person_size, similarity
from slamhmr.detect.track import Track, link, stitch
from slamhmr.types import Video

FPS = 20.0
HEIGHT = 100.0
HEIGHTS = {  # above the ground, and to the left of the middle, in body heights
    "nose": (0.93, 0.0), "eye": (0.95, 0.02), "ear": (0.94, 0.04), "mouth": (0.91, 0.01),
    "shoulder": (0.82, 0.1), "elbow": (0.65, 0.13), "wrist": (0.5, 0.14), "pinky": (0.46, 0.14),
    "index": (0.46, 0.13), "thumb": (0.47, 0.12), "hip": (0.52, 0.06), "knee": (0.28, 0.07),
    "ankle": (0.04, 0.07), "heel": (0.01, 0.07), "foot": (0.0, 0.08),
}  # fmt: skip


def standing() -> np.ndarray:
    """Landmarks (33,2) of a frontal figure of height 1 with the feet at 0, y down."""
    rows = []
    for name in LANDMARKS:
        part = next(key for key in HEIGHTS if key in name)
        up, out = HEIGHTS[part]
        rows.append([out if "left" in name else -out, -up])
    return np.array(rows)


def look(
    frame: int, x: float, y: float = 300.0, *, rng: np.random.Generator, peak: float = 0.75,
    colour: int = 0, phase: float | None = None, height: float = HEIGHT,
) -> Candidate:  # fmt: skip
    """A person with feet at (x, y) px, legs and arms swinging by `phase`, 1 % noise."""
    points = standing()
    swing = 0.12 * np.sin(0.6 * frame) if phase is None else phase
    for side, sign in (("left", 1), ("right", -1)):
        for part, share in (("wrist", -1), ("elbow", -0.4), ("knee", 0.5), ("ankle", 1.0)):
            points[LANDMARKS.index(f"{side}_{part}"), 0] += sign * share * swing
    points = points + rng.normal(0, 0.01, points.shape)
    bins = np.zeros((2, 144))
    bins[:, colour] = np.sqrt(0.8)
    bins[:, 143] = np.sqrt(0.2)
    region = np.array([x, y - height / 2, 1.3 * height, 0])
    return Candidate(
        frame, region, region, points * height + [x, y], np.full(33, 0.95), np.ones(33),
        np.ones(33), np.full(33, peak), 1.0, 0.1, bins,
    )  # fmt: skip


def walker(frames: range, start: float, speed: float, **options: object) -> list[Candidate]:
    rng = np.random.default_rng(int(start))
    return [look(f, start + speed * f, rng=rng, **options) for f in frames]


def by_frame(count: int, *people: list[Candidate]) -> list[list[Candidate]]:
    return [[c for person in people for c in person if c.frame == f] for f in range(count)]


def owners(track: Track, *people: list[Candidate]) -> set[int]:
    """Which of the people the looks of a track belong to."""
    return {
        n for c in track.looks for n, person in enumerate(people) if any(c is p for p in person)
    }


def video(count: int) -> Video:
    return Video(Path("v.mp4"), (1000, 400), FPS, torch.arange(count).double() / FPS, 0, 0)


@pytest.mark.parametrize("colour", [0, 5])
def test_two_people_who_cross_keep_their_ids(colour: int):
    left, right = walker(range(100), 100, 4.0), walker(range(100), 500, -4.0, colour=colour)
    hidden = [c for c in right if not 47 <= c.frame <= 53]  # behind the other in the crossing
    tracks = track_people(by_frame(100, left, hidden), FPS, 2.0)
    assert len(tracks) == 2
    assert owners(tracks[0], left, hidden) == {0}
    assert owners(tracks[1], left, hidden) == {1}


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.8])
def test_id_survives_a_gap_and_the_box_is_interpolated(seconds: float):
    whole = walker(range(120), 100, 3.0)
    gap = range(50, 50 + round(seconds * FPS))
    tracks = track_people(by_frame(120, [c for c in whole if c.frame not in gap]), FPS, 2.0)
    assert len(tracks) == 1
    seen = observe(tracks, video(120))
    middle = gap[len(gap) // 2]
    assert (seen.confidence[0, list(gap)] == 0).all()
    assert seen.boxes[0].isfinite().all()
    assert float(seen.boxes[0, middle, ::2].mean()) == pytest.approx(100 + 3.0 * middle, abs=8)


@pytest.mark.parametrize("both", [1, 5])
def test_one_person_looked_at_twice_at_the_end_of_a_track_is_one(both: int):
    # a jumper who lands: followed by one region, found again by the detector, crouching
    first = walker(range(0, 30 + both), 100, 3)
    second = walker(range(30, 60), 101, 3, phase=0.3)
    (track,) = track_people(by_frame(60, first, second), FPS, 2.0)
    assert [k.frame for k in track.looks] == list(range(60))


def test_two_people_seen_together_for_a_moment_stay_two():
    first, second = walker(range(0, 33), 100, 3), walker(range(30, 60), 145, 3)
    assert len(track_people(by_frame(60, first, second), FPS, 2.0)) == 2


def test_a_gap_longer_than_allowed_gives_a_new_id():
    whole = walker(range(160), 100, 3.0)
    looks = by_frame(160, [c for c in whole if not 50 <= c.frame < 110])
    assert len(track_people(looks, FPS, 2.0)) == 2
    assert len(track_people(looks, FPS, 4.0)) == 1


def test_a_gap_is_not_bridged_to_somebody_elsewhere_or_of_another_size():
    first, far = walker(range(30), 100, 0.0), walker(range(40, 80), 700, 0.0)
    assert len(track_people(by_frame(80, first, far), FPS, 2.0)) == 2
    small = walker(range(40, 80), 101, 0.0, height=50.0)
    assert len(track_people(by_frame(80, first, small), FPS, 2.0)) == 2


def test_two_people_lost_together_are_told_apart_by_colour():
    red, blue = walker(range(90), 300, 0.0), walker(range(90), 340, 0.0, colour=7)
    swap = [look(c.frame, 340, rng=np.random.default_rng(1)) for c in red if c.frame > 60]
    back = [
        look(c.frame, 300, rng=np.random.default_rng(2), colour=7) for c in blue if c.frame > 60
    ]
    looks = by_frame(90, [c for c in red if c.frame < 40] + swap, blue[:40] + back)
    for track in track_people(looks, FPS, 2.0):
        colours = {int(c.colour[0].argmax()) for c in track.looks}
        assert len(colours) == 1


def test_things_that_rest_are_dropped_and_people_who_rest_stay():
    person = walker(range(100), 300, 0.0)
    bag = walker(range(100), 600, 0.0, peak=0.33)
    passer = walker(range(100), 50, 5.0, peak=0.4, y=340.0)
    tracks = track_people(by_frame(100, person, bag, passer), FPS, 2.0)
    assert [owners(t, person, bag, passer) for t in tracks] == [{0}, {2}]


def test_a_picture_of_a_person_is_dropped():
    frozen = [look(f, 300, rng=np.random.default_rng(0), phase=0.1) for f in range(100)]
    assert not is_person(Track(tuple(frozen)), FPS)
    assert is_person(Track(tuple(walker(range(100), 300, 0.0))), FPS)


def test_flashes_are_dropped_but_not_in_a_clip_of_one_frame():
    person, flash = walker(range(60), 100, 2.0), walker(range(20, 24), 700, 0.0)
    assert len(track_people(by_frame(60, person, flash), FPS, 2.0)) == 1
    assert len(track_people(by_frame(1, person[:1]), FPS, 2.0)) == 1


def test_nobody_gives_no_track():
    assert track_people([[], [], []], FPS, 2.0) == []
    assert stitch([], FPS, 2.0) == []


def test_eight_people_side_by_side():
    people = [walker(range(40), 60 + 100 * n, 1.0) for n in range(8)]
    tracks = track_people(by_frame(40, *people), FPS, 2.0)
    assert sorted(owners(t, *people) for t in tracks) == sorted({n} for n in range(8))


def test_second_looks_are_removed_and_neighbours_kept():
    rng = np.random.default_rng(0)
    best, again = look(0, 300, rng=rng), look(0, 302, rng=rng, peak=0.6)
    neighbour = look(0, 340, rng=rng, peak=0.6)
    upside_down = look(0, 300, 300 - HEIGHT, rng=rng, peak=0.4, height=-HEIGHT)
    rated = [(likelihood(c), False, c) for c in (again, upside_down, neighbour, best)]
    kept = distinct(rated)
    assert len(kept) == 2
    assert kept[0] is best
    assert kept[1] is neighbour
    assert similarity(best, again) > 0.9 > similarity(best, neighbour)


def test_a_short_swap_of_the_legs_is_undone_and_the_arms_left_alone():
    looks = walker(range(40), 100, 2.0)
    points = np.array([c.points for c in looks])
    sizes = np.array([person_size(c.points) for c in looks])
    swapped = points.copy()
    legs = [k for k, name in enumerate(LANDMARKS) if name[-3:] in ("hip", "nee", "kle", "eel")]
    legs += [LANDMARKS.index("left_foot_index"), LANDMARKS.index("right_foot_index")]
    left = [k for k in legs if LANDMARKS[k].startswith("left")]
    right = [LANDMARKS.index(LANDMARKS[k].replace("left", "right")) for k in left]
    bad = slice(15, 21)
    swapped[bad, left], swapped[bad, right] = points[bad, right], points[bad, left]
    mended, _ = unswap(swapped, np.ones((40, 33)), sizes, np.arange(40) / FPS)
    assert not np.allclose(swapped, points)
    assert np.allclose(mended, points)


def test_sides_without_a_swap_stay_as_they_are():
    points = np.array([c.points for c in walker(range(60), 100, 2.0)])
    sizes = np.full(60, HEIGHT)
    mended, confidence = unswap(points, np.ones((60, 33)), sizes, np.arange(60) / FPS)
    assert np.allclose(mended, points)
    assert (confidence == 1).all()


def test_a_point_that_jumps_loses_confidence_and_a_whole_body_that_moves_does_not():
    points = np.array([c.points for c in walker(range(9), 100, 30.0)])
    points[4, 15] += 0.4 * HEIGHT
    factor = steadiness(points, np.full(9, HEIGHT), np.arange(9))
    assert factor[4, 15] < 0.1
    assert factor[4, 16] > 0.8
    assert (factor[[0, 8]] == 1).all()


def test_observations_are_sorted_and_hidden_or_outside_points_come_out_low():
    main, brief = walker(range(60), 300, 1.0), walker(range(20, 50), 990, 0.0)
    hidden = [c.visibility.__setitem__(15, 0.05) for c in main]
    assert len(hidden) == 60
    seen = observe(track_people(by_frame(60, main, brief), FPS, 2.0), video(60))
    assert seen.person_id.tolist() == [1, 2]
    names = seen.keypoint_names
    assert len(names) == 21  # no small toes in this network
    assert seen.confidence[0, 30, names.index("left_wrist")] < 0.1
    assert seen.confidence[0, 30, names.index("left_hip")] > 0.9
    assert seen.confidence[1, 30, names.index("left_shoulder")] == 0  # x > 1000
    assert seen.boxes[1, 10].isnan().all()
    expected = main[30].points[LANDMARKS.index("right_knee")]
    assert np.allclose(seen.keypoints[0, 30, names.index("right_knee")], expected)


def test_boxes_hold_the_sure_points_only_and_nothing_gives_nan():
    points = torch.tensor([[[10.0, 10], [20, 60], [500, 500]], [[1, 1], [2, 2], [3, 3.0]]]).double()
    confidence = torch.tensor([[0.9, 0.9, 0.05], [0, 0, 0]]).double()
    boxes = keypoint_boxes(points, confidence)
    assert boxes[0].tolist() == pytest.approx([7, 7, 23, 63])
    assert boxes[1].isnan().all()


def test_links_are_only_to_near_frames():
    person = walker(range(30), 100, 0.0)
    parts = link(by_frame(30, person[:5] + person[20:]), FPS)
    assert [(t.first, t.last) for t in parts] == [(0, 4), (20, 29)]


def test_a_face_seen_from_behind_is_not_sure():
    front = standing() * HEIGHT
    assert face_turned_here(front) > 0.9
    back = front * [-1, 1]  # left is on the left
    assert face_turned_here(back) < 0.3
    rng = np.random.default_rng(0)
    turned = look(0, 300, rng=rng)
    turned.points[:, 0] = 600 - turned.points[:, 0]
    sure = point_confidence(turned, (1000, 400))
    assert sure[LANDMARKS.index("nose")] < 0.3 < sure[LANDMARKS.index("left_ear")]


def test_painting_covers_a_person_and_leaves_the_rest():
    image = np.zeros((400, 600, 3), dtype=np.uint8)
    person = look(0, 300, rng=np.random.default_rng(0))
    painted = without_people(image, [person])
    for name in ("left_wrist", "right_ankle", "left_shoulder", "nose"):
        x, y = person.points[LANDMARKS.index(name)].astype(int)
        assert (painted[y, x] == 127).all()
    assert (painted[:, 400:] == 0).all()
    assert (image == 0).all()


def test_nobody_is_followed_across_a_cut():
    """Somebody in other clothes stands where the first one stood."""
    first, second = walker(range(40), 300, 0.0), walker(range(40, 80), 300, 0.0, colour=7)
    looks = by_frame(80, first, second)
    assert [owners(t, first, second) for t in track_people(looks, FPS, 2.0)] == [{0, 1}]
    tracks = track_people(looks, FPS, 2.0, (40,))
    assert sorted(map(tuple, (owners(t, first, second) for t in tracks))) == [(0,), (1,)]


def test_clothes_tell_who_is_who_after_a_cut_and_after_another_shot():
    """The camera moves: red is elsewhere and larger, blue comes and goes."""
    red = walker(range(40), 300, 1.0)
    blue = walker(range(40, 80), 320, 0.0, colour=7)
    again = walker(range(80, 120), 700, 0.0, height=180.0)
    late = walker(range(80, 120), 200, 0.0, height=90.0, colour=7)
    looks = by_frame(120, red, blue, again, late)
    tracks = track_people(looks, FPS, 2.0, (40, 80))
    people = sorted(tuple(sorted(owners(t, red, blue, again, late))) for t in tracks)
    assert people == [(0, 2), (1, 3)]


def test_people_in_the_same_clothes_are_new_after_a_cut():
    before = walker(range(40), 200, 0.0), walker(range(40), 600, 0.0)
    after = walker(range(40, 80), 250, 0.0), walker(range(40, 80), 650, 0.0)
    looks = by_frame(80, *before, *after)
    assert len(track_people(looks, FPS, 2.0, (40,))) == 4
    alone = by_frame(80, *before, after[0])
    assert len(track_people(alone, FPS, 2.0, (40,))) == 3


def test_boxes_and_sides_do_not_reach_across_a_cut():
    """After the cut the camera looks from behind: left and right change places, rightly."""
    front = walker(range(40), 300, 0.0)
    rng = np.random.default_rng(1)
    back = [look(f, 500, rng=rng, phase=0.0) for f in range(45, 80)]
    for candidate in back:
        candidate.points[:, 0] = 1000 - candidate.points[:, 0]
    tracks = track_people(by_frame(80, front, back), FPS, 2.0, (40,))
    seen = observe(tracks, video(80), (40,))
    assert seen.person_id.tolist() == [1]
    assert seen.boxes[0].isfinite().all(dim=-1).tolist() == [not 40 <= f < 45 for f in range(80)]
    names = seen.keypoint_names
    left, right = (seen.keypoints[0, :, names.index(f"{s}_hip"), 0] for s in ("left", "right"))
    assert (left[:40] > right[:40]).all()
    assert (left[45:] < right[45:]).all()


@pytest.mark.parametrize(
    ("apart", "found"),
    [
        ([[0.1, 0.6], [0.7, 0.2]], {0: 0, 1: 1}),
        ([[0.1, 0.2], [0.7, 0.6]], {}),  # two of the new shot look like the first
        ([[0.1], [0.2]], {}),  # two of the old one look like the new one
        ([[0.4]], {}),
        ([[0.3, 0.5]], {0: 0}),
    ],
)
def test_only_clear_likeness_is_the_same_person(apart, found):
    assert recognised(np.array(apart)) == found


def test_clothes_that_were_never_seen_are_no_evidence():
    shirt_only = [
        dataclasses.replace(c, colour=c.colour * [[1.0], [0.0]])
        for c in walker(range(20), 100, 0.0)
    ]
    whole = worn(Track(tuple(walker(range(20), 100, 0.0))))
    assert distance(whole, whole) == pytest.approx(0, abs=1e-6)
    assert distance(whole, worn(Track(tuple(shirt_only)))) == 1


def test_the_search_begins_anew_at_a_cut():
    """Whom the region follows is forgotten, and the detector looks at once."""
    asked: dict[int, list[float]] = {}

    class Detector(PersonDetector):
        def __init__(self) -> None:
            pass

        def __call__(self, image: np.ndarray, windows: np.ndarray) -> np.ndarray:
            return np.array([[float(image[0, 0, 0]), 200.0, 130.0, 0.0]])

    class Landmarks(LandmarkNetwork):
        def __init__(self) -> None:
            pass

        def __call__(self, image: np.ndarray, region: np.ndarray, frame: int) -> Candidate:
            asked.setdefault(frame, []).append(float(region[0]))
            return look(frame, float(region[0]), y=250.0, rng=np.random.default_rng(frame))

    search = Search(Detector(), Landmarks(), (400, 300), 30.0, 7, 20, 5, cuts=(4,))
    images = [np.full((300, 400, 3), 100 if n < 4 else 200, np.uint8) for n in range(7)]
    found = search.run(enumerate(images))
    assert [len(people) for people in found] == [1] * 7
    assert asked == {n: [100.0 if n < 4 else 200.0] for n in range(7)}


@pytest.mark.parametrize(("behind", "people"), [(0.0, 1), (200.0, 2)])
def test_two_tracks_that_take_turns_at_one_place_are_one_person(behind, people):
    """Looks of one person that two tracks shared out; of two people, apart, they stay two."""
    rng = np.random.default_rng(7)
    turns = [frame // 15 % 2 for frame in range(120)]
    whole = [look(f, 300 + 2 * f + turns[f] * behind, rng=rng) for f in range(120)]
    parts = [Track(tuple(k for k in whole if turns[k.frame] == own)) for own in (0, 1)]
    merged = merge_alternating(parts, FPS)
    assert len(merged) == people
    if people == 1:
        assert [k.frame for k in merged[0].looks] == list(range(120))


def test_two_who_are_seen_together_are_two_people():
    rng = np.random.default_rng(8)
    parts = [Track(tuple(look(f, 300 + 2 * f + x, rng=rng) for f in range(80))) for x in (0, 20)]
    assert len(merge_alternating(parts, FPS)) == 2
