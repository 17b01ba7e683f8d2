"""Who takes part: hopeless tracks are left out and named, not the whole run refused."""

from dataclasses import replace

import pytest
import torch
from sequences import BODY, make_initial, make_observations, make_state

from slamhmr.errors import BackendError
from slamhmr.init.cast import leave_out_unplaced, leave_out_unseen


def unseen_from(observations, row, frame):
    confidence = observations.confidence.clone()
    confidence[row, frame:] = 0
    return replace(observations, confidence=confidence)


def test_a_person_seen_in_one_frame_is_left_out_and_named():
    observations = unseen_from(make_observations(make_state(3)), 1, 1)
    kept, notes = leave_out_unseen(observations)
    assert kept.person_id.tolist() == [1, 3]
    assert len(notes) == 1
    assert notes[0].startswith("person 2 is left out: 6 or more keypoints")
    assert "in 1 of 8 frames, 4 are needed" in notes[0]


def test_everybody_seen_is_kept_as_it_is():
    observations = make_observations(make_state(2))
    kept, notes = leave_out_unseen(observations)
    assert kept is observations
    assert notes == ()


def test_nobody_left_is_refused():
    observations = unseen_from(make_observations(make_state(1)), 0, 0)
    with pytest.raises(BackendError, match="nobody is left who can be solved for: person 1"):
        leave_out_unseen(observations)


def placed(rows, frames):
    """A start that puts people `rows` behind the camera in some frames."""
    state = make_state(3)
    initial, observations = make_initial(state), make_observations(state)
    pose = initial.cam_from_root.clone()
    pose[rows, frames, 2, 3] = -1.0
    return leave_out_unplaced(replace(initial, cam_from_root=pose), observations, BODY)


def test_a_start_behind_the_camera_leaves_that_person_out():
    initial, observations, notes = placed(1, slice(0, 6))
    assert initial.person_id.tolist() == observations.person_id.tolist() == [1, 3]
    assert initial.cam_from_root.shape[0] == 2
    assert notes == (
        "person 2 is left out: the start puts seen keypoints behind the camera in 6 of 8 frames",
    )


def test_a_few_frames_behind_the_camera_are_not_used():
    initial, observations, notes = placed(1, slice(3, 5))
    assert initial.person_id.tolist() == [1, 2, 3]
    assert not bool(observations.seen[1, 3:5].any())
    assert bool(observations.seen[1, 5:].all())
    assert "person 2: what is seen in 2 frames, the first of them 3, is not used" in notes[0]


def test_a_start_that_is_not_finite_leaves_that_person_out():
    state = make_state(2)
    initial, observations = make_initial(state), make_observations(state)
    pose = initial.cam_from_root.clone()
    pose[0, :, 0, 3] = torch.nan
    pose[0, :, 2, 3] = torch.nan
    kept, _, notes = leave_out_unplaced(replace(initial, cam_from_root=pose), observations, BODY)
    assert kept.person_id.tolist() == [2]
    assert notes[0].startswith("person 1 is left out")
