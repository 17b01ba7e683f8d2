import dataclasses

import pytest
import torch
from sequences import make_observations, make_state

from slamhmr.constraints import (
    apply_constraints,
    check_contacts,
    correct_contacts,
    read_constraints,
)
from slamhmr.errors import ConfigError, InputError


def corrected(tmp_path, text, people=2):
    path = tmp_path / "constraints.yaml"
    path.write_text(text)
    before = make_observations(make_state(people))
    return before, apply_constraints(before, read_constraints(path))


def test_no_file_changes_nothing(tmp_path):
    before = make_observations(make_state(2))
    after = apply_constraints(before, read_constraints(tmp_path / "constraints.yaml"))
    for field in dataclasses.fields(before):
        a, b = getattr(before, field.name), getattr(after, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_keypoints_are_moved_and_switched_off(tmp_path):
    text = """
keypoints:
  - {person: 2, frames: [3, 3], name: left_ankle, xy: [10.5, 20]}
  - {person: 1, frames: [0, 4], name: LWrist, seen: false}
"""
    before, after = corrected(tmp_path, text)
    names = before.keypoint_names
    ankle, wrist = names.index("left_ankle"), names.index("left_wrist")
    assert after.keypoints[1, 3, ankle].tolist() == [10.5, 20]
    assert (after.confidence[0, :5, wrist] == 0).all()
    assert int((before.confidence != after.confidence).sum()) == 5


def test_a_split_makes_a_new_person_from_that_frame(tmp_path):
    before, after = corrected(tmp_path, "split: [{person: 1, frame: 3, new_id: 9}]")
    assert after.person_id.tolist() == [1, 2, 9]
    assert after.seen[0].tolist() == [True] * 3 + [False] * 5
    assert after.seen[2].tolist() == [False] * 3 + [True] * 5
    assert torch.equal(after.keypoints[2, 3:], before.keypoints[0, 3:])


def test_split_then_merge_gives_the_tracks_other_owners(tmp_path):
    text = """
split: [{person: 1, frame: 4, new_id: 8}, {person: 2, frame: 4, new_id: 9}]
merge: [[1, 9], [2, 8]]
"""
    before, after = corrected(tmp_path, text)
    assert after.person_id.tolist() == [1, 2]
    assert torch.equal(after.keypoints[0, :4], before.keypoints[0, :4])
    assert torch.equal(after.keypoints[0, 4:], before.keypoints[1, 4:])
    assert torch.equal(after.boxes[1, 4:], before.boxes[0, 4:])


def test_excluded_frames_are_not_seen(tmp_path):
    _, after = corrected(tmp_path, "exclude: [{frames: [1, 2]}, {person: 2, frames: [5, 5]}]")
    assert after.seen[0].tolist() == [True, False, False, True, True, True, True, True]
    assert after.seen[1].tolist() == [True, False, False, True, True, False, True, True]
    assert after.boxes[1, 5].isnan().all()


def test_a_person_with_nothing_left_goes(tmp_path):
    _, after = corrected(tmp_path, "exclude: [{person: 1, frames: [0, 7]}]")
    assert after.person_id.tolist() == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keypoint: []", "did you mean 'keypoints'"),
        ("exclude: [{person: 1}]", "'exclude.*frames' is missing"),
        ("exclude: [{frames: [5, 2]}]", "must be"),
        ("exclude: [{frames: [5, 80]}]", "not within 0..7"),
        ("exclude: [{person: 7, frames: [1, 2]}]", "there is no person 7"),
        ("keypoints: [{person: 1, frames: [0, 0], name: nose}]", "needs xy"),
        ("keypoints: [{person: 1, frames: [0, 0], name: noze, seen: false}]", "mean 'nose'"),
        ("split: [{person: 1, frame: 3, new_id: 2}]", "id 2 is taken"),
        ("merge: [[1]]", "at least two ids"),
        ("contacts: [{person: 1, frames: [0, 1], point: left_hell}]", "mean 'left_heel'"),
        ("floor: [{frame: 0, xy: [3, 4]}]", "'floor' is not supported"),
        ("keypoints: [{person: 1, frames: [0, 0], name: nose, xy: [.nan, 3]}]", "needs xy"),
        ("height_m: {1: 17}", "metres"),
    ],
)
def test_impossible_corrections_are_one_line(tmp_path, text, message):
    with pytest.raises((InputError, ConfigError), match=message) as caught:
        corrected(tmp_path, text)
    assert "\n" not in str(caught.value)


def given(tmp_path, text):
    (tmp_path / "constraints.yaml").write_text(text)
    return read_constraints(tmp_path / "constraints.yaml")


def test_contacts_are_switched_on_and_off_where_the_person_is(tmp_path):
    text = """
contacts:
  - {person: 2, frames: [2, 5], point: right_heel}
  - {person: 2, frames: [4, 4], point: right_heel, touches: false}
  - {person: 1, frames: [0, 7], point: left_big_toe, touches: false}
"""
    state = make_state(2)
    state.contacts.fill_(0.5)
    state.valid[1, 5] = False
    after = correct_contacts(state, given(tmp_path, text)).contacts
    assert after[1, :, 2].tolist() == [0.5, 0.5, 1.0, 1.0, 0.0, 0.0, 0.5, 0.5]
    assert (after[0, :, 1] == 0).all()
    assert (after[0][:, [0, 2, 3]] == 0.5).all()
    assert (state.contacts == 0.5).all()


@pytest.mark.parametrize(
    ("fix", "message"),
    [("person: 7, frames: [0, 1]", "no person 7"), ("person: 1, frames: [6, 8]", "not within")],
)
def test_a_contact_of_nobody_is_refused_at_once(tmp_path, fix, message):
    constraints = given(tmp_path, f"contacts: [{{{fix}, point: left_heel}}]")
    with pytest.raises(InputError, match=message):
        check_contacts(constraints, make_observations(make_state(2)))
    with pytest.raises(InputError, match=message):
        correct_contacts(make_state(2), constraints)
