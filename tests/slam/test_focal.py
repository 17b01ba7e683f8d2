"""Focal lengths from the background: told where it can, kept where it cannot, and the words."""

import numpy as np
import pytest
import roma
import torch

from slamhmr.slam import auto
from slamhmr.slam.classify import telling_pairs
from slamhmr.slam.focal import Focal, focal_note, focal_of_turn
from slamhmr.slam.tracks import Tracks

K = np.array([500.0, 500.0, 320.0, 240.0])


def turning(angles, noise=0.1, points=300):
    """Tracks of a camera of focal length 500 px that turns by yaw angles, rad."""
    rng = np.random.default_rng(3)
    rays = np.stack([*rng.uniform([-0.7, -0.5], [0.7, 0.5], (points, 2)).T, np.ones(points)], 1)
    seen = []
    for angle in angles:
        turn = roma.rotvec_to_rotmat(torch.tensor([0.1 * angle, angle, 0.0]).double()).numpy()
        turned = rays @ turn
        at = K[:2] * turned[:, :2] / turned[:, 2:] + K[2:]
        seen.append(at + noise * rng.standard_normal(at.shape))
    return Tracks((np.arange(points),) * len(angles), tuple(seen), (640, 480))


@pytest.mark.parametrize("guess", [0.75, 1.0, 1.4])
def test_a_turn_tells_its_focal_length(guess):
    tracks = turning(np.linspace(0, 0.3, 9))
    found = focal_of_turn(tracks, [(0, frame) for frame in range(3, 9)], K * [guess, guess, 1, 1])
    assert abs(guess * found.factor - 1) < 0.03
    assert found.sigma <= 0.05
    assert found.differs() == (abs(np.log(guess)) > 0.05)


def test_too_small_a_turn_tells_nothing():
    tracks = turning(np.linspace(0, 0.02, 9), noise=0.3)
    assert telling_pairs(tracks) == []
    assert focal_of_turn(tracks, [], K) is None


def test_a_turn_just_large_enough_is_as_sure_as_it_is_right():
    tracks = turning(np.linspace(0, 0.1, 12), noise=0.3)
    found = focal_of_turn(tracks, telling_pairs(tracks), K * [1.3, 1.3, 1, 1])
    assert found is None or abs(np.log(1.3 * found.factor)) < 3 * found.sigma


def test_words():
    said = focal_note(Focal(0.8, 0.04), 1100.0)
    assert said == (
        "focal length estimated: 880 px (+- 4 %) from the background (was a guess of 1100 px)"
    )


def camera(clip, factor, **settings):
    wrong = clip.intrinsics * torch.tensor([factor, factor, 1.0, 1.0])
    options = auto.Options(**settings)
    return auto.track_camera(clip.video, clip.observations, wrong, options, progress=False)


def test_the_guess_for_a_turning_camera_is_replaced(rendered):
    clip = rendered("rotation")
    track = camera(clip, 1.25, refine_focal=True)
    assert abs(float(track.intrinsics[0, 0] / clip.intrinsics[0]) - 1) < 0.04
    assert float(track.focal_sigma) < 0.1
    assert any("focal length estimated: " in note for note in track.notes)
    relative = clip.world_from_cam[0, :3, :3].T @ clip.world_from_cam[:, :3, :3]
    angle = roma.rotmat_geodesic_distance(track.world_from_cam[:, :3, :3], relative)
    assert torch.rad2deg(angle).max() < 1.0  # held at the guess: 5 deg


def test_given_intrinsics_are_kept_and_doubted(rendered):
    clip = rendered("rotation")
    track = camera(clip, 1.25)
    assert torch.allclose(track.intrinsics[0, 0], 1.25 * clip.intrinsics[0])
    assert track.focal_sigma is None
    assert any("check the intrinsics" in note for note in track.notes)
    assert not any("check the intrinsics" in note for note in camera(clip, 1.0).notes)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.4])
def test_a_reconstruction_tells_its_focal_length(rendered, factor):
    clip = rendered("orbit", 60)
    track = camera(clip, factor, refine_focal=True)
    assert abs(float(track.intrinsics[0, 0] / clip.intrinsics[0]) - 1) < 0.06
    assert float(track.focal_sigma) < 0.1
