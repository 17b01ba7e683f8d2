"""Sequence directories: keys and shapes of the contract, consistent truth, readable video."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slamhmr import artifacts
from slamhmr.body import forward_points, load_body, pelvis_from_transl
from slamhmr.geometry import apply, invert
from slamhmr.synth.noise import observe, project_truth
from slamhmr.synth.scene import SceneSpec, make_scene
from slamhmr.synth.write import truth, write_scene
from slamhmr.types import CameraTrack, Observations, Result
from slamhmr.video import open_video, read_frames

BODY = load_body()
SPEC = SceneSpec(seed=41, frames=24, people=2, image_size=(160, 90), occlusions=True)
SCENE = make_scene(SPEC, BODY)


def test_observations_and_cameras_round_trip(tmp_path: Path) -> None:
    write_scene(tmp_path, SCENE, BODY, SPEC, pixels=False, observations=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cameras.npz", "observations.npz", "sequence.yaml", "truth.npz",
    ]  # fmt: skip
    wanted, track = observe(SCENE, BODY, SPEC)
    seen = artifacts.load(tmp_path / "observations.npz", Observations)
    torch.testing.assert_close(seen.keypoints, wanted.keypoints)
    torch.testing.assert_close(seen.confidence, wanted.confidence)
    cameras = artifacts.load(tmp_path / "cameras.npz", CameraTrack)
    torch.testing.assert_close(cameras.world_from_cam, track.world_from_cam)
    assert not cameras.scale_known


def test_truth_has_the_result_layout(tmp_path: Path) -> None:
    write_scene(tmp_path, SCENE, BODY, SPEC, pixels=False, observations=False)
    with np.load(tmp_path / "truth.npz", allow_pickle=False) as file:
        shapes = {key: file[key].shape for key in file.files}
    people, frames = 2, 24
    for key, shape in {
        "schema_version": (), "person_id": (people,), "valid": (people, frames),
        "root_orient": (people, frames, 3), "transl": (people, frames, 3),
        "body_pose": (people, frames, 63), "betas": (people, 10), "joints": (people, frames, 24, 3),
        "contacts": (people, frames, 4), "world_from_cam": (frames, 4, 4),
        "intrinsics": (frames, 4),
        "ground": (4,), "scale": (), "gender": (people,), "provenance": (),
    }.items():  # fmt: skip
        assert shapes[key] == shape, key
    result = artifacts.load(tmp_path / "truth.npz", Result)
    assert result.scale == SCENE.scale
    assert "intrinsics" in (tmp_path / "sequence.yaml").read_text()


def test_truth_parameters_give_the_joints() -> None:
    import roma

    result = truth(SCENE, BODY, SPEC)
    pelvis = pelvis_from_transl(BODY, result.betas, result.transl)
    rotations = roma.rotvec_to_rotmat(result.body_pose.reshape(2, 24, 21, 3))
    root = roma.rotvec_to_rotmat(result.root_orient)
    points, _ = forward_points(BODY, result.betas, root, pelvis, rotations)
    torch.testing.assert_close(points[:, :, :24], result.joints)
    lowest = result.joints[..., 2].amin()
    assert 0 < lowest < 0.1, "feet on the floor z = 0"


def test_cameras_file_and_truth_differ_by_the_scale() -> None:
    result = truth(SCENE, BODY, SPEC)
    _, track = observe(SCENE, BODY, SPEC)
    relative = invert(result.world_from_cam[0]) @ result.world_from_cam
    path = relative[:, :3, 3].norm(dim=-1)
    tracked = track.world_from_cam[:, :3, 3].norm(dim=-1) * result.scale
    assert (path - tracked).abs().max() < 0.02


def test_noise_free_keypoints_are_the_projected_truth() -> None:
    result = truth(SCENE, BODY, SPEC)
    cam_from_world = invert(result.world_from_cam).expand(2, 24, 4, 4)
    shoulders = apply(cam_from_world, result.joints[:, :, [16, 17]])
    pixels = result.intrinsics[None, :, None, :2] * shoulders[..., :2] / shoulders[..., 2:]
    pixels = pixels + result.intrinsics[None, :, None, 2:]
    torch.testing.assert_close(pixels, project_truth(SCENE, BODY)[0][:, :, [5, 6]])


@pytest.mark.slow
def test_video_is_readable(tmp_path: Path) -> None:
    write_scene(tmp_path, SCENE, BODY, SPEC, pixels=True, observations=False)
    video = open_video(tmp_path / "video.mp4")
    assert video.frame_count == 24
    assert video.image_size == (160, 90)
    assert video.fps == pytest.approx(30)
    assert sum(1 for _ in read_frames(video)) == 24
