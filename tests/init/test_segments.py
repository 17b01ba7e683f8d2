import dataclasses

import pytest
import roma
import torch
from sequences import BODY, make_cameras, make_initial, make_observations, make_state

from slamhmr.errors import InputError
from slamhmr.init.segments import place

FRAMES, START = 40, 20


@pytest.fixture(scope="module")
def clip():
    state = make_state(1, FRAMES)
    return make_initial(state), make_observations(state), make_cameras(FRAMES)


def turned_after(cameras, start, tilt):
    """The same path, its frames from `start` on in a world that is tilted by `tilt`, rad."""
    turn = roma.rotvec_to_rotmat(torch.tensor([tilt, 0.0, 0.0]).double())
    poses = cameras.world_from_cam.clone()
    poses[start:, :3] = turn @ poses[start:, :3]
    return dataclasses.replace(cameras, world_from_cam=poses, segments=torch.tensor([start]))


def test_people_stay_where_they_are_across_a_restart_of_metric_tracks(clip):
    initial, seen, cameras = clip
    metric = cameras.world_from_cam.clone()
    metric[:, :3, 3] *= 2.0  # as in make_state
    cameras = dataclasses.replace(cameras, world_from_cam=metric, scale_known=True)
    whole = place(initial, seen, cameras, BODY)
    split = place(initial, seen, turned_after(cameras, START, 1.2), BODY)
    assert torch.allclose(split.pelvis, whole.pelvis, atol=0.05)


def test_a_known_scale_is_known_in_every_piece(clip):
    initial, seen, cameras = clip
    cameras = dataclasses.replace(cameras, scale_known=True, segments=torch.tensor([START]))
    state = place(initial, seen, cameras, BODY)
    assert float(state.segment_sigma[0, 3]) <= 0.01
    assert not any("scale cannot be found" in note for note in state.cameras.notes)


def test_an_unknown_scale_is_open_in_every_piece(clip):
    initial, seen, cameras = clip
    state = place(initial, seen, dataclasses.replace(cameras, segments=torch.tensor([START])), BODY)
    assert float(state.segment_sigma[0, 3]) > 0.1


def test_up_is_said_of_the_first_piece_alone(clip):
    initial, seen, cameras = clip
    up = torch.tensor([0.0, 0.0, 1.0]).double()
    tracks = dataclasses.replace(turned_after(cameras, START, 1.2), up=up)
    poses = place(initial, seen, tracks, BODY).cameras.world_from_cam
    assert torch.allclose(poses[START, :3, :3], poses[START - 1, :3, :3], atol=0.1)


def test_people_unseen_in_a_piece_are_not_valid_there(clip):
    initial, seen, cameras = clip
    valid = initial.valid.clone()
    valid[:, :START] = False
    initial = dataclasses.replace(initial, valid=valid)
    state = place(initial, seen, dataclasses.replace(cameras, segments=torch.tensor([START])), BODY)
    assert state.valid.sum(dim=1).tolist() == [FRAMES - START]
    assert bool(torch.isfinite(state.pelvis).all())


def test_a_path_of_which_no_piece_can_be_scaled_is_refused():
    state = make_state(1, 8)
    cameras = dataclasses.replace(make_cameras(8), segments=torch.tensor([4]))
    with pytest.raises(InputError, match="scale of no piece"):
        place(make_initial(state), make_observations(state), cameras, BODY)
