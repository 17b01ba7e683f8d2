"""Noise of a path's steps: found, taken off, and nothing else touched."""

import dataclasses

import numpy as np
import pytest
import torch

from slamhmr.slam.denoise import smooth_velocity, without_noise
from slamhmr.types import CameraTrack

FRAMES = 200
TIMES = torch.arange(FRAMES, dtype=torch.float64) / 30


def track(centres, **fields):
    poses = torch.eye(4, dtype=torch.float64).repeat(FRAMES, 1, 1)
    poses[:, :3, 3] = torch.as_tensor(centres)
    return CameraTrack(
        world_from_cam=poses,
        intrinsics=torch.tensor([[500.0, 500.0, 320.0, 180.0]], dtype=torch.float64).repeat(
            FRAMES, 1
        ),
        image_size=(640, 360),
        scale_known=False,
        moving=True,
        source="test",
        **fields,
    )


def paths(kind):
    t = TIMES.numpy()
    if kind == "walk":  # with the bounce of somebody who walks with the camera
        bounce = 0.015 * np.sin(2 * np.pi * 1.9 * t)
        return np.stack([1.3 * t, 0.02 * np.sin(2 * np.pi * 0.95 * t), bounce], axis=-1)
    if kind == "orbit":
        return 4 * np.stack([np.sin(0.1 * t), np.cos(0.1 * t), 0 * t], axis=-1)
    return np.stack([0.15 * np.sin(2 * np.pi * 0.3 * t), 0 * t, 0 * t], axis=-1)  # sway


def walked(noise, seed):
    rng = np.random.default_rng(seed)
    return np.cumsum(noise * rng.standard_normal((FRAMES, 3)), axis=0)


def steps(centres):
    return np.diff(np.asarray(centres), axis=0)


def slope(truth, measured):
    """Of true steps on measured ones: what a regression makes of them."""
    return (truth * measured).sum() / (measured**2).sum()


@pytest.mark.parametrize("kind", ["walk", "orbit", "sway"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_are_neither_longer_nor_shorter(kind, seed):
    truth = paths(kind)
    noisy = track(truth + walked(0.002, seed))
    quiet = without_noise(noisy, TIMES).world_from_cam[:, :3, 3].numpy()
    before = slope(steps(truth), steps(noisy.world_from_cam[:, :3, 3]))
    after = slope(steps(truth), steps(quiet))
    assert abs(after - 1) < max(0.25 * abs(before - 1), 0.01)
    given = noisy.world_from_cam[:, :3, 3].numpy()
    assert np.abs(quiet - truth).max() < np.abs(given - truth).max() + 0.01


@pytest.mark.parametrize("kind", ["walk", "orbit", "sway"])
def test_a_path_without_noise_stays(kind):
    truth = paths(kind)
    quiet = without_noise(track(truth), TIMES)
    assert np.abs(quiet.world_from_cam[:, :3, 3].numpy() - truth).max() < 2e-4
    assert quiet.notes == ()


def test_the_noise_is_measured_and_said():
    velocity = steps(paths("orbit")) * 30
    rng = np.random.default_rng(0)
    _, sigma = smooth_velocity(velocity + 0.06 * rng.standard_normal(velocity.shape))
    assert 0.05 < sigma < 0.07
    (note,) = without_noise(track(paths("orbit") + walked(0.002, 0)), TIMES).notes
    assert "noise of 2" in note  # 2 mm * sqrt(3) of 13 mm


def test_known_scales_and_standing_cameras_stay():
    noisy = track(paths("sway") + walked(0.002, 0))
    for kept in (
        dataclasses.replace(noisy, scale_known=True),
        dataclasses.replace(noisy, moving=False),
    ):
        assert without_noise(kept, TIMES) is kept


def test_pieces_are_smoothed_apart():
    centres = paths("walk") + walked(0.001, 0)
    centres[100:] += 5.0
    lost = torch.zeros(FRAMES, dtype=torch.bool)
    lost[40:60] = True
    given = track(centres, segments=torch.tensor([0, 100]), lost=lost)
    quiet = without_noise(given, TIMES).world_from_cam[:, :3, 3].numpy()
    for frame in (0, 39, 60, 99, 100, 199):
        np.testing.assert_allclose(quiet[frame], centres[frame], atol=1e-12)
    np.testing.assert_array_equal(quiet[40:60], centres[40:60])
