import dataclasses

import pytest
import roma
import torch
from sequences import BODY, make_observations, make_state

from slamhmr import artifacts
from slamhmr.body import forward_points, pelvis_from_transl
from slamhmr.errors import BackendError
from slamhmr.export.result import build_result, ground_below
from slamhmr.geometry import apply, invert, project
from slamhmr.types import Result


def built(state):
    return build_result(
        state, BODY, make_observations(make_state(2)), body_model="default", provenance={}
    )


def test_origin_is_the_first_cameras_footprint_on_the_ground():
    result = built(make_state(2))
    first = result.world_from_cam[0, :3, 3]
    torch.testing.assert_close(first, torch.tensor([0.0, 0, 1.4], dtype=torch.float64))
    torch.testing.assert_close(result.ground, torch.tensor([0.0, 0, 1, 0], dtype=torch.float64))


def test_cameras_are_metric_and_image_points_stay():
    state = make_state(2, scale=2.5)
    result = built(state)
    moved = result.world_from_cam[-1, :3, 3] - result.world_from_cam[0, :3, 3]
    assert float(moved.norm()) == pytest.approx(2.5 * 0.1)
    observations = make_observations(state)
    column = observations.keypoint_names.index("left_knee")
    joint = BODY.point_names.index("left_knee")
    cams = invert(result.world_from_cam).expand(2, -1, -1, -1)
    image = project(apply(cams, result.joints), result.intrinsics.expand(2, -1, -1))
    torch.testing.assert_close(image[:, :, joint], observations.keypoints[:, :, column])


def test_parameters_reproduce_the_joints():
    result = built(make_state(2))
    pose = result.body_pose.reshape(2, -1, 21, 3)
    points, _ = forward_points(
        BODY,
        result.betas,
        roma.rotvec_to_rotmat(result.root_orient),
        pelvis_from_transl(BODY, result.betas, result.transl),
        roma.rotvec_to_rotmat(pose),
    )
    torch.testing.assert_close(points[:, :, :24], result.joints)


def test_frames_outside_the_clip_hold_the_nearest_valid_one():
    state = make_state(2)
    state.valid[0, :2] = False
    state.pelvis[0, :2] = torch.nan
    state.root_orient[0, :2] = torch.nan
    state.body_pose[0, :2] = torch.nan
    result = built(state)
    assert torch.equal(result.transl[0, 0], result.transl[0, 2])
    assert result.observed[0].tolist() == [False] * 2 + [True] * 6
    assert torch.isfinite(result.joints).all()


def test_a_state_that_is_not_finite_is_refused():
    state = make_state(2)
    state.pelvis[1, 3] = torch.nan
    with pytest.raises(BackendError, match="not finite"):
        built(state)


def test_a_vertical_ground_is_refused():
    ground = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    with pytest.raises(BackendError, match="vertical"):
        built(dataclasses.replace(make_state(2), ground=ground))


def test_ground_below_a_slope():
    ground = torch.nn.functional.normalize(torch.tensor([0.1, 0.0, 1.0]).double(), dim=0)
    plane = torch.cat([ground, torch.tensor([0.5]).double()])
    point = ground_below(torch.tensor([2.0, 1.0, 3.0]).double(), plane)
    assert point[:2].tolist() == [2.0, 1.0]
    assert float(plane[:3] @ point + plane[3]) == pytest.approx(0)


def test_it_says_where_pieces_of_the_world_begin_and_which_nobody_ties(tmp_path):
    state = make_state(2)
    assert built(state).segments is None
    cameras = dataclasses.replace(state.cameras, segments=torch.tensor([3, 6]))
    state = dataclasses.replace(
        state, cameras=cameras, segment_tied=torch.tensor([True, False])
    )  # fmt: skip
    artifacts.save(tmp_path / "result.npz", built(state), stamp={})
    read = artifacts.load(tmp_path / "result.npz", Result)
    assert read.segments.tolist() == [3, 6]
    assert read.segment_tied.tolist() == [True, False]
    assert read.apart == (6,)
