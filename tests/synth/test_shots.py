"""Pieces of a camera track: each is the true path in a world and a scale of its own."""

import pytest
import torch

from slamhmr.body import load_body
from slamhmr.geometry import similarity_between
from slamhmr.synth.noise import slam_track
from slamhmr.synth.scene import SceneSpec, cut_frames, make_scene
from slamhmr.synth.shots import restart_frames
from slamhmr.synth.write import settings_text

BODY = load_body()
EXACT = {"slam_rotation_deg": 0.0, "slam_drift": 0.0}


def test_a_cut_goes_to_another_camera_in_another_world_and_scale() -> None:
    spec = SceneSpec(seed=51, frames=80, shots=2, camera="orbit", motion="stroll", **EXACT)
    scene = make_scene(spec, BODY)
    assert cut_frames(spec) == (40,)
    jump = (scene.world_from_cam[40, :3, 3] - scene.world_from_cam[39, :3, 3]).norm()
    assert float(jump) > 0.5
    track = slam_track(scene, spec)
    assert track.segments is not None
    assert track.segments.tolist() == [40]
    assert track.lost is None
    scales = []
    for piece in (slice(0, 40), slice(40, 80)):
        ours, truth = track.world_from_cam[piece], scene.world_from_cam[piece]
        scale, turn, move = similarity_between(ours[:, :3, 3], truth[:, :3, 3])
        moved = scale * ours[:, :3, 3] @ turn.T + move
        torch.testing.assert_close(moved, truth[:, :3, 3], rtol=0, atol=1e-8)
        torch.testing.assert_close(turn @ ours[:, :3, :3], truth[:, :3, :3], rtol=0, atol=1e-8)
        scales.append(float(scale))
    assert scales[0] == pytest.approx(scene.scale)
    assert abs(scales[1] / scales[0] - 1) > 0.01
    assert "cuts: [40]" in settings_text(scene, spec)


def test_slam_restarts_after_lost_frames() -> None:
    spec = SceneSpec(
        seed=52, frames=90, camera="orbit", slam_restarts=1, slam_lost_seconds=0.3, **EXACT
    )
    scene = make_scene(spec, BODY)
    track, (start,) = slam_track(scene, spec), restart_frames(spec)
    assert track.segments is not None
    assert track.segments.tolist() == [start]
    assert track.lost is not None
    assert bool(track.lost[start - 9 : start].all())
    assert not bool(track.lost[start])
    assert int(track.lost.sum()) == 18
    assert bool(torch.isfinite(track.world_from_cam).all())
    held = track.world_from_cam[start - 9 : start]
    torch.testing.assert_close(held, track.world_from_cam[start - 10].expand(9, 4, 4))


def test_a_wrong_lens_is_in_the_cameras_alone() -> None:
    spec = SceneSpec(seed=53, frames=20, focal_error=0.1)
    scene = make_scene(spec, BODY)
    track = slam_track(scene, spec)
    torch.testing.assert_close(track.intrinsics[:, :2], 1.1 * scene.intrinsics[:, :2])
    torch.testing.assert_close(track.intrinsics[:, 2:], scene.intrinsics[:, 2:])
    assert "intrinsics" not in settings_text(scene, spec)


def test_the_scale_of_a_path_drifts() -> None:
    spec = SceneSpec(seed=54, frames=90, camera="orbit", slam_scale_drift=0.1, **EXACT)
    scene = make_scene(spec, BODY)
    track = slam_track(scene, spec)
    ours = scene.scale * track.world_from_cam[:, :3, 3].diff(dim=0).norm(dim=-1)
    theirs = scene.world_from_cam[:, :3, 3].diff(dim=0).norm(dim=-1)
    gain = (ours / theirs).log()
    assert float(gain[0].abs()) < 1e-9
    assert 0.02 < float(gain.abs().max()) < 1.0
