"""Procedural motions: exact contacts, free fall, joints within human limits, determinism."""

import numpy as np
import pytest
import roma
import torch

from slamhmr.body import load_body
from slamhmr.skeleton import CONTACT_POINTS, SMPL_JOINTS
from slamhmr.synth import motions
from slamhmr.synth.scene import Scene, SceneSpec, make_scene, skeleton_of

BODY = load_body()
# Largest rotation angle, degrees, over the kinds; rounded up from the ranges of healthy adults.
LIMITS = {
    "hip": 125, "knee": 145, "ankle": 65, "foot": 70, "spine1": 25, "spine2": 25, "spine3": 25,
    "neck": 45, "head": 45, "collar": 30, "shoulder": 150, "elbow": 150, "wrist": 40,
}  # fmt: skip


def scene(kind: str, seed: int = 0, frames: int = 150) -> Scene:
    return make_scene(SceneSpec(seed=seed, frames=frames, motion=kind), BODY)


def feet(made: Scene) -> np.ndarray:
    index = [BODY.point_names.index(name) for name in CONTACT_POINTS]
    return made.points[0][:, index].numpy()


@pytest.mark.parametrize("kind", motions.KINDS)
def test_planted_feet_stand_still_on_the_floor(kind: str) -> None:
    for seed in (0, 1):
        made = scene(kind, seed)
        down, place = made.contacts[0].numpy() > 0, feet(made)
        assert down.any(), "somebody always touches the floor in these clips"
        step = np.linalg.norm(np.diff(place, axis=0), axis=-1)
        assert step[down[1:] & down[:-1]].max() < 1e-3
        for point in range(4):
            height = place[down[:, point], point, 2]
            assert np.ptp(height) < 0.003
            assert 0 <= height.min() < 0.035, "skin over the heel bone and toe is that thick"
        assert place[..., 2].min() > -0.005


@pytest.mark.parametrize("kind", motions.KINDS)
def test_joints_stay_within_human_limits(kind: str) -> None:
    made = scene(kind, 2)
    angle = torch.rad2deg(roma.rotmat_to_rotvec(made.body_rotations)[0].norm(dim=-1)).amax(dim=0)
    for name, largest in zip(SMPL_JOINTS[1:22], angle.tolist(), strict=True):
        part = name.removeprefix("left_").removeprefix("right_")
        assert largest < LIMITS[part], f"{name} turns by {largest:.0f} degrees"
    knees = torch.rad2deg(roma.rotmat_to_rotvec(made.body_rotations[0, :, 3:5]))
    assert knees[..., 0].min() > -1, "knees do not bend forwards"
    assert knees[..., 1:].abs().max() < 1e-6, "a knee is a hinge"


@pytest.mark.parametrize("kind", motions.KINDS)
def test_nothing_pops(kind: str) -> None:
    made = scene(kind, 3)
    acceleration = torch.diff(made.points[0, :, :22], n=2, dim=0).norm(dim=-1) * 30**2
    assert acceleration.max() < 190, "m/s^2; mocap of jumps and runs reaches this"


def test_jump_is_free_fall() -> None:
    made = scene("jump", 1, frames=120)
    flights = [span for span in made.flights[0] if span[1] - span[0] >= 4]
    assert len(flights) > 0
    for first, last in flights:
        height = made.pelvis[0, first : last + 1, 2]
        torch.testing.assert_close(
            torch.diff(height, n=2) * 30**2, torch.full((last - first - 1,), -9.81).double(),
            rtol=0.01, atol=0,
        )  # fmt: skip
        assert not made.contacts[0, first + 1 : last].any()


@pytest.mark.parametrize(("kind", "slowest", "fastest"), [("walk", 0.9, 1.7), ("run", 2.3, 3.8)])
def test_human_speeds(kind: str, slowest: float, fastest: float) -> None:
    made = scene(kind, 4)
    speed = torch.diff(made.pelvis[0, :, :2], dim=0).norm(dim=-1) * 30
    assert slowest < speed.median() < fastest
    assert speed.max() < fastest + 0.3


def test_turning_changes_the_heading() -> None:
    made = scene("turn", 5)
    forward = made.root[0, :, :2, 2]
    heading = np.unwrap(torch.atan2(forward[:, 1], forward[:, 0]).numpy())
    assert np.ptp(heading) > 0.6


def test_sitting_is_low_and_on_the_box() -> None:
    made = scene("sit", 1)
    lowest = made.pelvis[0, :, 2].argmin()
    box = made.boxes[0]
    assert made.pelvis[0, lowest, 2] < 0.75 * made.pelvis[0, :, 2].max()
    assert np.linalg.norm(made.pelvis[0, lowest, :2].numpy() - box.centre) < box.size[0] / 2
    assert 0 < made.pelvis[0, lowest, 2] - box.size[2] < 0.2
    assert made.contacts[0, lowest].all()


@pytest.mark.parametrize("seed", [34, 98, 106, 140])
def test_short_people_rise_clear_of_their_seat(seed: int) -> None:
    made = scene("sit", seed, frames=300)
    thigh = np.linalg.norm(skeleton_of(BODY, made.betas[0]).legs[0].thigh)
    assert thigh < 0.32, "these seeds draw short people"
    for box in made.boxes:
        assert box.size[0] == pytest.approx(thigh), "a seat is no deeper than the thigh"
        upright = made.pelvis[0, :, 2] > 0.95 * made.pelvis[0, :, 2].max()
        apart = np.linalg.norm(made.pelvis[0, upright, :2].numpy() - box.centre, axis=-1)
        assert apart.min() > box.size[0] / 2


def test_waving_hand_is_above_the_shoulder() -> None:
    made = scene("wave", 1)
    names = BODY.point_names
    above = [
        made.points[0, :, names.index(f"{side}_hand"), 2].amax()
        - made.points[0, :, names.index(f"{side}_shoulder"), 2].amax()
        for side in ("left", "right")
    ]
    assert max(above) > 0.15


def test_same_seed_same_motion_other_seed_another() -> None:
    first, again, other = scene("mixed", 7), scene("mixed", 7), scene("mixed", 8)
    torch.testing.assert_close(first.points, again.points, rtol=0, atol=0)
    assert (first.points - other.points).abs().max() > 0.1


def test_speed_does_not_depend_on_the_frame_rate() -> None:
    made = make_scene(SceneSpec(frames=240, fps=60.0, motion="walk", seed=4), BODY)
    speed = torch.diff(made.pelvis[0, :, :2], dim=0).norm(dim=-1) * 60
    assert 0.9 < speed.median() < 1.7


def test_a_stroll_stays_near_one_place_however_long() -> None:
    made = scene("stroll", 9, frames=3000)
    place = made.pelvis[0, :, :2]
    walked = torch.diff(place, dim=0).norm(dim=-1).sum()
    assert walked > 30, "a hundred seconds of it, half of them walking"
    assert (place - place.median(dim=0).values).norm(dim=-1).max() < 4
    heading = np.unwrap(torch.atan2(made.root[0, :, 1, 2], made.root[0, :, 0, 2]).numpy())
    rate = np.abs(np.diff(heading)) * 30
    assert np.quantile(rate, 0.99) < 3, "rad/s: people turn, they do not spin"


def test_unknown_kind_lists_what_exists() -> None:
    skeleton = skeleton_of(BODY, torch.zeros(10).double())
    with pytest.raises(ValueError, match="available: mixed, walk"):
        motions.make_motion("fly", 10, 30.0, skeleton, np.random.default_rng(0))
