"""Travelling cameras end to end, and what happens when the path cannot be trusted."""

import logging

import numpy as np
import pytest
import roma
import torch

from slamhmr.errors import BackendError
from slamhmr.geometry import similarity_between
from slamhmr.slam import auto, sfm
from slamhmr.slam.gaps import bridge
from slamhmr.slam.tracks import Tracks


def solve(clip, **settings):
    options = auto.Options(**settings)
    return auto.track_camera(
        clip.video, clip.observations, clip.intrinsics, options, progress=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["forward", "lateral", "orbit"])
def test_path_of_a_travelling_camera(rendered, kind):
    clip = rendered(kind, 60)
    track = solve(clip)
    truth = clip.world_from_cam
    scale, rotation, shift = similarity_between(track.world_from_cam[:, :3, 3], truth[:, :3, 3])
    aligned = scale * track.world_from_cam[:, :3, 3] @ rotation.T + shift
    error = (aligned - truth[:, :3, 3]).norm(dim=-1)
    path = (truth[1:, :3, 3] - truth[:-1, :3, 3]).norm(dim=-1).sum()
    assert track.source == "sfm"
    assert track.moving
    assert not track.scale_known
    assert torch.allclose(track.world_from_cam[0], torch.eye(4).double(), atol=1e-9)
    assert error.square().mean().sqrt() < 0.01 * path
    relative = truth[0, :3, :3].T @ truth[:, :3, :3]
    angle = roma.rotmat_geodesic_distance(track.world_from_cam[:, :3, :3], relative)
    assert torch.rad2deg(angle).max() < 1.0  # 320x240; at 640x360 0.2


@pytest.mark.slow
def test_same_clip_same_path(rendered):
    clip = rendered("forward", 60)
    assert torch.equal(solve(clip).world_from_cam, solve(clip).world_from_cam)


def test_pure_rotation_sold_as_travel_is_refused(rendered):
    clip = rendered("rotation")
    with pytest.raises(BackendError, match=r"cannot be trusted.*allow_degraded"):
        solve(clip, assume="translation")


@pytest.mark.slow
def test_degraded_only_when_allowed_and_noted(rendered, caplog):
    clip = rendered("rotation")
    with caplog.at_level(logging.WARNING):
        track = solve(clip, assume="translation", allow_degraded=True)
    assert track.source == "rotation"
    assert not track.moving
    assert any("DEGRADED" in note for note in track.notes)
    assert "degraded" in caplog.text


def test_keyframes_are_bounded_and_span_the_clip():
    ids = (np.arange(50),) * 100
    at = np.random.default_rng(0).uniform(0, 600, (50, 2))
    tracks = Tracks(ids, tuple(at + 5.0 * t for t in range(100)), (640, 480))
    keys = sfm.choose_keyframes(tracks, 200)
    assert keys[0] == 0
    assert keys[-1] == 99
    assert np.diff(keys)[:-1].max() == 3
    assert len(sfm.choose_keyframes(tracks, 10)) == 10


def test_interpolation_holds_known_poses():
    poses = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    poses[4, :3, :3] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.8, 0.0]).double())
    poses[4, :3, 3] = torch.tensor([4.0, 0.0, 0.0])
    known = torch.tensor([True, False, False, False, True])
    filled = bridge(poses, known)
    assert torch.equal(filled[known], poses[known])
    vectors = roma.rotmat_to_rotvec(filled[:, :3, :3])
    torch.testing.assert_close(vectors[:, 1], torch.arange(5).double() * 0.2)
    torch.testing.assert_close(filled[:, 0, 3], torch.arange(5).double())
