"""Contacts from kinematics on hand-made foot tracks and on a synthetic walk."""

import torch

from slamhmr.body import load_body
from slamhmr.contacts import contacts_from_kinematics, point_velocity, reweighted
from slamhmr.skeleton import CONTACT_POINTS
from slamhmr.synth.scene import SceneSpec, make_scene

FLOOR = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)


def track(frames: int) -> torch.Tensor:
    """Point 0 stands; 1 moves at 1.5 m/s; 2 stops half way; 3 hangs still half a metre up."""
    points = torch.zeros(1, frames, 4, 3, dtype=torch.float64)
    times = torch.arange(frames, dtype=torch.float64) / 30
    points[0, :, 1, 0] = 1.5 * times
    points[0, :, 2, 0] = 1.5 * times.clamp_max(times[frames // 2])
    points[0, :, 3, 2] = 0.5
    return points


def test_standing_moving_stopping_and_hanging_points() -> None:
    contacts = contacts_from_kinematics(track(40), 30.0, FLOOR)[0]
    assert float(contacts[:, 0].min()) > 0.9
    assert float(contacts[:, 1].max()) < 0.1
    assert float(contacts[:15, 2].max()) < 0.1
    assert float(contacts[26:, 2].min()) > 0.9
    without_floor = contacts_from_kinematics(track(40), 30.0, None)[0]
    assert bool((contacts[:, 3] < without_floor[:, 3]).all())


def test_one_jumping_frame_does_not_end_a_contact() -> None:
    points = track(40)
    points[0, 20, 0, 1] = 0.06
    assert float(contacts_from_kinematics(points, 30.0, FLOOR)[0, :, 0].min()) > 0.5


def test_frames_outside_the_clip_are_zero() -> None:
    valid = torch.ones(1, 40, dtype=torch.bool)
    valid[0, :10] = False
    contacts = contacts_from_kinematics(track(40), 30.0, FLOOR, valid)
    assert float(contacts[0, :10].abs().max()) == 0
    assert float(contacts[0, 10:, 0].min()) > 0.8


def test_frame_rate_hardly_matters() -> None:
    fast = contacts_from_kinematics(track(40), 30.0, FLOOR)[0]
    slow = contacts_from_kinematics(track(40)[:, ::2], 15.0, FLOOR)[0]
    agree = (fast[::2] > 0.5) == (slow > 0.5)
    assert float(agree.double().mean()) > 0.93


def test_a_synthetic_walk_on_the_true_path() -> None:
    body = load_body()
    scene = make_scene(SceneSpec(seed=1, frames=90, motion="walk"), body)
    index = [body.point_names.index(name) for name in CONTACT_POINTS]
    contacts = contacts_from_kinematics(scene.points[:, :, index], 30.0, FLOOR)
    agree = (contacts > 0.5) == (scene.contacts > 0.5)
    assert float(agree.double().mean()) > 0.8
    assert float((contacts > 0.5)[scene.contacts > 0.5].double().mean()) > 0.95


def test_very_short_clips_are_finite() -> None:
    contacts = contacts_from_kinematics(track(2), 30.0, FLOOR)
    assert bool(torch.isfinite(contacts).all())


def test_nothing_is_carried_across_a_cut() -> None:
    """Feet that stand are elsewhere after the cut; those that move there say nothing before it."""
    points = track(40)
    points[0, 20:, 0, 0] += 3
    points[0, :20, 1, 0] = 0
    crossing = contacts_from_kinematics(points, 30.0, None)[0]
    assert float(crossing[18:22, 0].max()) < 0.5
    contacts = contacts_from_kinematics(points, 30.0, None, cuts=(20,))[0]
    assert float(contacts[:, 0].min()) > 0.9
    assert float(contacts[19, 1]) > 0.9
    assert float(contacts[20, 1]) < 0.1
    alone = contacts_from_kinematics(points[:, :20], 30.0, None)[0]
    torch.testing.assert_close(contacts[:20], alone)


def test_a_shot_of_one_frame_has_no_velocity() -> None:
    valid = torch.ones(1, 40, dtype=torch.bool)
    velocity, known = point_velocity(track(40), 30.0, valid, (20, 21))
    assert known[0].tolist() == [frame != 20 for frame in range(40)]
    torch.testing.assert_close(velocity[0, 21:24, 1, 0], torch.full((3,), 1.5).double())


def reweighted_track(predicted: float, height: float) -> torch.Tensor:
    points = track(40)
    said = torch.full((1, 40, 4), predicted, dtype=torch.float64)
    above = torch.full_like(said, height)
    return reweighted(said, points, above, 30.0, torch.ones(1, 40, dtype=torch.bool))[0]


def test_solved_feet_confirm_or_refute_predicted_contacts() -> None:
    """A foot that stands low is believed at 0.4; one that swings or is high up not at 0.6."""
    assert float(reweighted_track(0.4, 0.0)[:, 0].min()) > 0.5
    assert float(reweighted_track(0.6, 0.0)[:, 1].max()) < 0.5
    assert float(reweighted_track(0.6, 0.3)[:, 0].max()) < 0.5


def test_a_sure_prediction_outlasts_a_body_that_floats() -> None:
    assert float(reweighted_track(0.97, 0.12)[:, 0].min()) > 0.5
    assert float(reweighted_track(0.97, 0.6)[:, 0].max()) < 0.1


def test_what_somebody_has_set_stays() -> None:
    assert bool((reweighted_track(1.0, 2.0) == 1).all())
    assert bool((reweighted_track(0.0, 0.0) == 0).all())
