from dataclasses import replace

import pytest
import torch
from sequences import BODY, make_observations, make_state

from slamhmr.reprojection import box_heights, metric_cameras, reprojection_error, score


def test_exact_keypoints_have_no_error():
    state = make_state(2)
    assert float(reprojection_error(state, make_observations(state), BODY).max()) < 1e-9


def test_a_shift_is_measured_in_px_and_in_percent_of_the_box():
    state = make_state(2)
    observations = make_observations(state)
    observations.keypoints[..., 0] += 3.0
    observations.boxes[:] = torch.tensor([0.0, 0, 50, 150])
    facts = score(state, observations, BODY)
    assert facts["median_px"] == pytest.approx(3)
    assert facts["median_percent"] == pytest.approx(2)
    assert facts["median_percent_by_person"] == pytest.approx({"1": 2.0, "2": 2.0})
    assert facts["keypoints"] == 2 * 8 * 23


def test_offsets_that_the_solver_estimated_are_errors_still():
    """Constant offsets explain the pixels to the solver; what is drawn on them stays as far off."""
    state = make_state(1)
    observations = make_observations(state)
    observations.keypoints[..., 0] += 3.0
    shape = (1, observations.keypoints.shape[2], 2)
    explained = replace(state, keypoint_offsets=torch.full(shape, 0.02, dtype=torch.float64))
    assert score(explained, observations, BODY)["median_px"] == pytest.approx(3)


def test_keypoints_not_well_seen_do_not_count():
    state = make_state(1)
    observations = make_observations(state)
    observations.keypoints[:, :, 0] += 500
    observations.confidence[:, :, 0] = 0.4
    assert score(state, observations, BODY)["p90_px"] < 1e-9
    observations.confidence[:] = 0
    facts = score(state, observations, BODY)
    assert facts["keypoints"] == 0
    assert facts["median_px"] != facts["median_px"]


def test_frames_without_the_person_do_not_count():
    state = make_state(1)
    observations = make_observations(state)
    state.valid[0, 5:] = False
    state.pelvis[0, 5:] += 3.0
    facts = score(state, observations, BODY)
    assert facts["keypoints"] == 5 * 23
    assert facts["p90_px"] < 1e-9


def test_behind_the_camera_is_as_bad_as_can_be():
    state = make_state(1)
    observations = make_observations(state)
    state.pelvis[..., 1] = -4.0
    assert score(state, observations, BODY)["median_px"] == float("inf")


def test_boxes_without_a_detector_are_those_of_the_keypoints():
    observations = make_observations(make_state(1))
    given = box_heights(observations).clone()
    observations.boxes[:, :4] = torch.nan
    torch.testing.assert_close(box_heights(observations), given)


def test_metric_cameras_scale_the_centres_only():
    state = make_state(1, scale=2.0)
    metric = metric_cameras(state)
    assert torch.equal(metric[:, :3, :3], state.cameras.world_from_cam[:, :3, :3])
    torch.testing.assert_close(metric[:, 0, 3], 2 * state.cameras.world_from_cam[:, 0, 3])
