"""WHAM's inputs against golden values of the official preprocessing, and the corrected ways."""

import numpy as np
import pytest
import roma
import torch
from golden_files import FOLDER
from torch import Tensor

from priors.rotation6d import ROWS_IDENTITY, matrix_to_rows
from priors.wham_mirror import mean_pose, mirror_boxes, mirror_points, mirror_pose
from priors.wham_preprocess import (
    boxes,
    camera_velocity,
    centred,
    default_intrinsics,
    filter_boxes,
    median_width,
    normalise,
    soft_contacts,
)
from priors.wham_world import camera_translation

SIZE = (1280.0, 720.0)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(FOLDER / "wham_preproc.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def assert_near(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def cam_from_world(golden) -> Tensor:
    return roma.unitquat_to_rotmat(golden["in_slam_traj"][:, 3:]).mT


def test_boxes(golden):
    points, confidence = golden["in_keypoints"][..., :2], golden["in_keypoints"][..., 2]
    found = boxes(points, confidence)
    assert_near(found, golden["out_bbox_cxcys"], 1e-4)
    assert median_width(30.0) == int(golden["medfilt_kernel"]) == 15
    assert_near(filter_boxes(found, 15, "official"), golden["out_bbox_medfilt"], 1e-4)


def test_a_frame_without_keypoints_has_no_box(golden):
    points = golden["in_keypoints"][:2, :, :2]
    found = boxes(points, torch.tensor([[0.9], [0.3]]).expand(2, 17))
    assert torch.equal(found.isnan().all(dim=-1), torch.tensor([False, True]))


def test_the_corrected_filter_keeps_the_ends():
    """A still person keeps their box; the official zeros pull the ends of a short clip to 0."""
    still = torch.tensor([[400.0, 300.0, 1.5]]).expand(8, 3)
    assert torch.equal(filter_boxes(still, 15), still)
    assert float(filter_boxes(still, 15, "official")[0].max()) > 0
    assert float(filter_boxes(still[:7], 15, "official").abs().max()) == 0.0


def test_normalised_keypoints(golden):
    found = normalise(golden["in_keypoints"][..., :2], golden["out_bbox_medfilt"], SIZE)
    assert_near(found, golden["out_norm_kp37"], 2e-5)


def test_default_intrinsics(golden):
    assert_near(default_intrinsics(SIZE), golden["out_intrinsics"], 1e-3)


def test_official_camera_velocity(golden, cam_from_world):
    found = camera_velocity(cam_from_world, compat="official")
    assert_near(found, golden["out_cam_angvel_fps30"], 2e-5)
    assert_near(found * 25 / 30, golden["out_cam_angvel_fps25"], 2e-5)


def test_corrected_camera_velocity_repeats_the_last_and_follows_the_frames(cam_from_world):
    """A person who enters at frame 20 gets the rotations from there, not those from frame 0."""
    whole = camera_velocity(cam_from_world)
    assert torch.equal(whole[-1], whole[-2])
    frames = torch.arange(20, 50)
    assert torch.equal(camera_velocity(cam_from_world, frames), whole[20:50])
    official = camera_velocity(cam_from_world, frames, "official")
    assert torch.equal(official, whole[:30])


def test_a_still_camera_has_no_velocity():
    still = roma.random_rotmat(1, dtype=torch.float64).expand(5, 3, 3)
    assert_near(camera_velocity(still), torch.zeros(5, 6, dtype=torch.float64), 1e-12)
    assert torch.equal(camera_velocity(still[:1]), torch.zeros(1, 6, dtype=torch.float64))


def test_soft_contacts(golden):
    assert_near(soft_contacts(golden["in_feet"]), golden["out_contact_label"], 1e-5)


def test_mirrored_keypoints_and_boxes(golden):
    points = golden["in_keypoints"]
    assert_near(mirror_points(points[..., :2], SIZE[0]), golden["out_flip_kp"][..., :2], 1e-4)
    found = mirror_boxes(golden["out_bbox_medfilt"], SIZE[0])
    assert_near(found, golden["out_flip_bbox"], 1e-4)
    assert_near(mirror_points(mirror_points(points[..., :2], 640), 640), points[..., :2], 1e-3)


def test_mirrored_and_mean_poses(golden):
    mirrored = mirror_pose(golden["in_rot6d_flipped"])
    assert_near(mirrored, golden["out_flip_pose6d"], 5e-6)
    assert_near(mean_pose(golden["in_rot6d"], mirrored), golden["out_avg_rot6d"], 5e-6)
    assert_near(mirror_pose(mirror_pose(golden["in_rot6d"])), golden["in_rot6d"], 1e-6)


def test_the_mean_of_two_rotations_is_half_way():
    axis = torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)
    pose = matrix_to_rows(roma.rotvec_to_rotmat(axis)).expand(24, 6)
    still = torch.tensor(ROWS_IDENTITY, dtype=torch.float64).expand(24, 6)
    half = matrix_to_rows(roma.rotvec_to_rotmat(axis / 2)).expand(24, 6)
    assert_near(mean_pose(pose, still), half, 1e-12)


def test_centred_joints(golden):
    joints = golden["in_joints31"]
    parts = [centred(joints[:, :17]), centred(joints[:, 17:], 2, 3)]
    assert_near(torch.cat(parts, dim=1), golden["out_root_center_31"], 1e-6)
    assert_near(parts[0], golden["out_root_center_17"], 1e-6)


def test_cameras(golden):
    """Full camera and its pixels; the weak one of the box is TCMR's."""
    from priors.tcmr import crop_translation, project_to_crop

    case = {key.removeprefix("camera_"): value for key, value in golden.items()}
    position = camera_translation(case["in_cam"], case["in_bbox"], case["in_K"])
    assert_near(position, case["out_full_cam"], 1e-5)
    seen = (case["in_points"] + position[:, :, None]) @ case["in_K"].mT
    assert_near(seen[..., :2] / seen[..., 2:], case["out_full_joints2d"], 2e-3)
    camera = case["in_cam"].flatten(0, 1)
    assert_near(crop_translation(camera), case["out_weak_cam"].flatten(0, 1), 1e-4)
    weak = project_to_crop(case["in_points"].flatten(0, 1), camera)
    assert_near(weak, case["out_weak_joints2d"].flatten(0, 1), 1e-5)
