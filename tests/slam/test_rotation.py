"""Rotations from bearing vectors: one pair, chains, averages, a rendered turn."""

import numpy as np
import pytest
import roma
import torch

from slamhmr.errors import BackendError
from slamhmr.slam import rotation
from slamhmr.slam.bearings import average_rotations, fit_rotation
from slamhmr.slam.tracks import Tracks

K = np.array([500.0, 500.0, 320.0, 240.0])


def angle_deg(a, b):
    steps = roma.rotmat_geodesic_distance(torch.as_tensor(a), torch.as_tensor(b))
    return torch.rad2deg(steps)


def test_finds_the_rotation_among_outliers():
    generator = np.random.default_rng(1)
    before = generator.uniform([0, 0], [640, 480], (200, 2))
    truth = roma.rotvec_to_rotmat(torch.tensor([0.05, -0.1, 0.03]).double()).numpy()
    rays = np.concatenate([(before - K[2:]) / K[:2], np.ones((200, 1))], axis=1) @ truth.T
    after = K[:2] * rays[:, :2] / rays[:, 2:] + K[2:] + 0.2 * generator.standard_normal((200, 2))
    after[:80] += generator.uniform(5, 60, (80, 2))
    found, error = fit_rotation(before, after, K, 1.5)
    assert angle_deg(found, truth) < 0.01
    assert (error[80:] < 1.5).mean() > 0.99
    assert (error[:80] > 3).all()


def test_average_closes_the_loop():
    generator = np.random.default_rng(2)
    vectors = np.cumsum(generator.normal(0, 0.1, (12, 3)), axis=0)
    truth = roma.rotvec_to_rotmat(torch.from_numpy(vectors)).numpy()
    truth = truth[0].T @ truth
    pairs = np.array([(i, i + 1) for i in range(11)] + [(0, 11), (0, 6), (3, 10)])
    exact = truth[pairs[:, 1]].transpose(0, 2, 1) @ truth[pairs[:, 0]]
    start = np.eye(3)[None].repeat(12, axis=0)
    for a in range(11):  # a chain with 1 deg of drift at every link
        drift = roma.rotvec_to_rotmat(torch.tensor([0, np.radians(1), 0]).double()).numpy()
        start[a + 1] = start[a] @ exact[a].T @ drift
    found = average_rotations(start, pairs, exact, np.ones(len(pairs)))
    assert angle_deg(found, truth).max() < 1e-5
    assert angle_deg(start, truth).max() > 5


def test_rendered_turn(rendered):
    clip = rendered("rotation")
    track = rotation.track_camera(
        clip.video, clip.observations, clip.intrinsics, rotation.Options(), progress=False
    )
    truth = clip.world_from_cam[0, :3, :3].T @ clip.world_from_cam[:, :3, :3]
    error = angle_deg(track.world_from_cam[:, :3, :3], truth)
    assert error.mean() < 0.03
    assert error.max() < 0.1
    assert not track.moving
    assert torch.equal(track.world_from_cam[:, :3, 3], torch.zeros(40, 3).double())


def test_cut_is_an_error(rendered):
    clip = rendered("static")
    one, two = np.arange(50), np.arange(50, 100)
    at = np.random.default_rng(0).uniform(0, 300, (50, 2))
    tracks = Tracks((one, one, two, two), (at, at, at, at), (320, 240))
    with pytest.raises(BackendError, match="at a cut"):
        rotation.turn(clip.video, clip.observations, tracks, clip.intrinsics, ())
