"""Tracks put right without pixels: exchanged sides, exchanged rows, jumps, people who come back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slamhmr.body import load_body
from slamhmr.detect.identity import _percentile, merge_returns, repair_switches
from slamhmr.detect.sides import repair_sides
from slamhmr.detect.tracklets import repair_tracks
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import SceneSpec, make_scene

BODY = load_body()


@pytest.fixture(scope="module")
def clip():
    """Two people who walk, with a detector's errors but no exchanged legs."""
    spec = SceneSpec(seed=3, frames=120, people=2, motion="stroll", camera="static")
    return observe(make_scene(spec, BODY), BODY, spec)[0]


def columns(observations, side):
    names = observations.keypoint_names
    parts = ("hip", "knee", "ankle", "big_toe", "small_toe", "heel")
    return [names.index(f"{side}_{part}") for part in parts]


def with_exchanged_rows(clip, frame):
    parts = {}
    for name in ("keypoints", "confidence", "boxes"):
        values = getattr(clip, name).clone()
        values[:, frame:] = values[:, frame:].flip(0)
        parts[name] = values
    return replace(clip, **parts)


def hidden(clip, row, frames):
    confidence, boxes = clip.confidence.clone(), clip.boxes.clone()
    confidence[row, frames], boxes[row, frames] = 0, torch.nan
    return replace(clip, confidence=confidence, boxes=boxes)


def in_two_rows(clip, row, frame, back):
    """Person `row` is somebody new, id 9, from `back` on, and unseen from `frame` till then."""
    whole = {
        name: torch.cat([getattr(clip, name), getattr(clip, name)[row][None]])
        for name in ("keypoints", "confidence", "boxes")
    }
    ids = torch.cat([clip.person_id, torch.tensor([9])])
    double = replace(clip, person_id=ids, **whole)
    return hidden(hidden(double, row, slice(frame, None)), 2, slice(None, back))


def test_exchanged_legs_are_put_back_and_said(clip):
    points = clip.keypoints.clone()
    left, right = columns(clip, "left"), columns(clip, "right")
    span = slice(88, 98)
    confidence = clip.confidence.clone()
    for values, exact in ((points, clip.keypoints), (confidence, clip.confidence)):
        values[0, span] = values[0, span].index_copy(
            1, torch.tensor(left + right), exact[0, span][:, right + left]
        )
    spoilt = replace(clip, keypoints=points, confidence=confidence)
    apart = (clip.keypoints[0, span][:, left[2]] - clip.keypoints[0, span][:, right[2]]).norm(
        dim=-1
    )
    assert float(apart.max()) > 10  # px; an exchange that matters
    fixed, notes = repair_sides(spoilt)
    wrong = (fixed.keypoints != clip.keypoints).any(dim=-1)[0, span].any(dim=-1)
    assert int(wrong.sum()) <= 2
    assert any("person 1: left and right legs were exchanged" in note for note in notes)


def test_exact_sides_are_left_alone(clip):
    fixed, _ = repair_sides(clip)
    changed = (fixed.keypoints != clip.keypoints).any(dim=-1).any(dim=-1)
    assert float(changed.double().mean()) < 0.02


def test_sides_that_are_wrong_all_the_time_stay(clip):
    points = clip.keypoints.clone()
    left, right = columns(clip, "left"), columns(clip, "right")
    points[:, :, left + right] = clip.keypoints[:, :, right + left]
    fixed, _ = repair_sides(replace(clip, keypoints=points))
    same = (fixed.keypoints == points).all(dim=-1).all(dim=-1)
    assert float(same.double().mean()) > 0.97


@pytest.mark.parametrize("frame", [60, 77])
def test_exchanged_rows_are_put_back(clip, frame):
    fixed, notes = repair_switches(with_exchanged_rows(clip, frame))
    assert torch.equal(fixed.keypoints, clip.keypoints)
    assert fixed.person_id.tolist() == [1, 2]
    assert len(notes) == 2
    assert f"from frame {frame} on: the rows of the observations were exchanged there" in notes[0]


def test_rows_exchanged_for_a_while_are_put_back(clip):
    fixed, notes = repair_switches(with_exchanged_rows(with_exchanged_rows(clip, 60), 77))
    assert torch.equal(fixed.keypoints, clip.keypoints)
    assert len(notes) == 4


def test_a_row_that_jumps_to_another_place_is_a_new_person(clip):
    points = clip.keypoints.clone()
    points[0, 60:, :, 0] += 400.0
    fixed, notes = repair_switches(replace(clip, keypoints=points))
    assert fixed.person_id.tolist() == [1, 2, 3]
    assert torch.nonzero(fixed.seen[0])[-1] < 60
    assert torch.nonzero(fixed.seen[2])[0] >= 60
    assert notes == ("person 1 jumps to another place at frame 60: from there on it is person 3",)


def test_a_little_jump_is_left_alone(clip):
    points = clip.keypoints.clone()
    points[0, 60:, :, 0] += 90.0
    fixed, notes = repair_switches(replace(clip, keypoints=points))
    assert fixed.person_id.tolist() == [1, 2]
    assert notes == ()


def test_nothing_jumps_across_a_cut(clip):
    exchanged = with_exchanged_rows(clip, 40)
    fixed, notes = repair_switches(exchanged, cuts=(40,))
    assert fixed is exchanged
    assert notes == ()


def test_clean_tracks_are_left_alone(clip):
    fixed, notes = repair_switches(clip)
    assert fixed is clip
    assert notes == ()
    assert merge_returns(clip)[0] is clip


def test_who_comes_back_as_a_new_id_is_the_same_person(clip):
    fixed, notes = merge_returns(in_two_rows(clip, 1, 50, 80))
    assert fixed.person_id.tolist() == [1, 2]
    assert bool(fixed.seen[1, 80:].all())
    assert not bool(fixed.seen[1, 50:80].any())
    assert torch.equal(fixed.keypoints[1, 80:], clip.keypoints[1, 80:])
    assert notes[0].startswith("person 9 is person 2, who was last seen in frame 49 and comes back")


def test_rows_of_one_person_that_meet_in_a_few_frames_are_one(clip):
    double = in_two_rows(clip, 1, 52, 50)
    fixed, notes = merge_returns(double)
    assert fixed.person_id.tolist() == [1, 2]
    assert bool(fixed.seen[1].all())
    assert "person 9 is person 2, who was last seen in frame 51 and as both from 50 on" in notes[0]
    assert merge_returns(in_two_rows(clip, 1, 70, 50))[0].person_id.tolist() == [1, 2, 9]


def test_two_who_are_seen_together_at_the_border_are_two(clip):
    points = in_two_rows(clip, 1, 52, 50).keypoints.clone()
    tall = points[1, 51, :, 1].max() - points[1, 51, :, 1].min()
    points[:, :, :, 0] -= points[1, 51].mean(dim=0)[0] - 20  # leaves the picture on the left ...
    points[2] += tall * torch.tensor([0.27, 0.27])  # ... where somebody else has just come in
    double = replace(in_two_rows(clip, 1, 52, 50), keypoints=points)
    assert merge_returns(double)[0].person_id.tolist() == [1, 2, 9]
    apart = replace(in_two_rows(clip, 1, 50, 52), keypoints=points)
    assert merge_returns(apart)[0].person_id.tolist() == [1, 2]  # who comes back has moved


def test_a_named_id_does_not_vanish(clip):
    fixed, notes = merge_returns(in_two_rows(clip, 1, 50, 80), named=frozenset({9}))
    assert fixed.person_id.tolist() == [1, 2, 9]
    assert "person 9 may be person 2" in notes[0]
    assert "merge: [[2, 9]]" in notes[0]


def test_somebody_of_another_size_is_somebody_else(clip):
    double = in_two_rows(clip, 1, 50, 80)
    points = double.keypoints.clone()
    middle = points[2].mean(dim=1, keepdim=True)
    points[2] = middle + 2.5 * (points[2] - middle)
    fixed, notes = merge_returns(replace(double, keypoints=points))
    assert fixed.person_id.tolist() == [1, 2, 9]
    assert notes == ()


def test_no_repair_of_identities_where_they_are_known(clip):
    exchanged = with_exchanged_rows(clip, 40)
    fixed, _ = repair_tracks(exchanged, identities=False)
    assert fixed.person_id.tolist() == [1, 2]
    assert np.allclose(fixed.confidence.sum(), exchanged.confidence.sum())
    assert float((fixed.keypoints != exchanged.keypoints).double().mean()) < 0.01


def test_percentiles_of_what_is_seen_are_numpys():
    generator = np.random.default_rng(0)
    seen = generator.normal(size=(50, 17, 2))
    hidden = np.argsort(generator.random((50, 17)), axis=1) < generator.integers(0, 13, (50, 1))
    seen[hidden] = np.nan
    for percent in (10.0, 90.0):
        expected = np.nanpercentile(seen, percent, axis=1)
        assert np.allclose(_percentile(seen, percent), expected)
