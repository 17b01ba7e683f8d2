"""Observations of a scene: noise as large and as lasting as asked for, honest cameras."""

import dataclasses

import numpy as np
import pytest
import roma
import torch

from slamhmr import geometry
from slamhmr.body import load_body
from slamhmr.skeleton import KEYPOINT_INDEX, KEYPOINTS
from slamhmr.synth.hiding import long_gaps
from slamhmr.synth.noise import ar1, flipped_contacts, observe, project_truth, slam_track, spans
from slamhmr.synth.scene import SceneSpec, make_scene

BODY = load_body()
SPEC = SceneSpec(seed=21, frames=200, people=2)
SCENE = make_scene(SPEC, BODY)


def errors(spec: SceneSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoint errors over box height (N,T,K,2) and confidence (N,T,K)."""
    observations, _ = observe(SCENE, BODY, spec)
    truth, _ = project_truth(SCENE, BODY)
    size = (truth[..., 1].amax(-1) - truth[..., 1].amin(-1))[..., None, None]
    return (observations.keypoints - truth) / size, observations.confidence


def test_without_noise_the_truth_is_seen() -> None:
    error, confidence = errors(dataclasses.replace(SPEC, keypoint_noise=0.0, outliers=0.0))
    assert error.abs().max() < 1e-9
    assert (confidence > 0).double().mean() > 0.9


def test_white_noise_has_the_size_asked_for() -> None:
    error, _ = errors(dataclasses.replace(SPEC, outliers=0.0))
    assert error.std() == pytest.approx(
        0.01, rel=0.15
    )  # the box is a little higher than the points
    assert abs(float(np.corrcoef(error[:, 1:].flatten(), error[:, :-1].flatten())[0, 1])) < 0.05


def test_share_of_outliers() -> None:
    error, _ = errors(SPEC)
    far = error.norm(dim=-1) > 0.06
    assert 0.035 < far.double().mean() < 0.055


def test_detector_errors_last_and_are_biased() -> None:
    error, confidence = errors(dataclasses.replace(SPEC, noise="detector", outliers=0.0))
    upper = error[:, :, [KEYPOINT_INDEX[f"left_{p}"] for p in ("shoulder", "elbow", "wrist")]]
    assert float(np.corrcoef(upper[:, 1:].flatten(), upper[:, :-1].flatten())[0, 1]) > 0.5
    bias = upper.mean(dim=1).norm(dim=-1)
    assert (bias > 0.006).all()
    assert (bias < 0.03).all()
    size = error.norm(dim=-1)
    seen = confidence > 0
    correlation = np.corrcoef(size[seen].numpy(), confidence[seen].numpy())[0, 1]
    assert -0.95 < correlation < -0.1, "confidence knows something, not everything"
    assert confidence.max() <= 1


def test_detector_swaps_legs_for_a_while() -> None:
    spec = dataclasses.replace(SPEC, noise="detector", outliers=0.0)
    observations, _ = observe(SCENE, BODY, spec)
    truth, _ = project_truth(SCENE, BODY)
    left, right = KEYPOINT_INDEX["left_knee"], KEYPOINT_INDEX["right_knee"]
    own = (observations.keypoints[:, :, left] - truth[:, :, left]).norm(dim=-1)
    other = (observations.keypoints[:, :, left] - truth[:, :, right]).norm(dim=-1)
    apart = (truth[:, :, left] - truth[:, :, right]).norm(dim=-1) > 15
    share = float((other < own)[apart].double().mean())
    assert 0 < share < 0.15


def test_occlusions_hide_limbs_and_people() -> None:
    spec = dataclasses.replace(SPEC, frames=200, occlusions=True)
    hidden, shown = errors(spec)[1] == 0, errors(SPEC)[1] == 0
    assert 0.02 < (hidden & ~shown).double().mean() < 0.5
    wrist = hidden[:, :, KEYPOINT_INDEX["left_wrist"]] | hidden[:, :, KEYPOINT_INDEX["right_ankle"]]
    assert wrist.any()


def test_points_outside_the_picture_are_not_seen() -> None:
    narrow = dataclasses.replace(SPEC, image_size=(320, 180))
    observations, _ = observe(SCENE, BODY, narrow)
    truth, _ = project_truth(SCENE, BODY)
    outside = (truth < 0).any(dim=-1) | (truth >= torch.tensor([320, 180])).any(dim=-1)
    assert outside.any()
    assert (observations.confidence[outside] == 0).all()
    assert torch.isfinite(observations.keypoints).all()
    unseen = ~observations.seen
    assert torch.isnan(observations.boxes[unseen]).all()
    assert torch.isfinite(observations.boxes[~unseen]).all()


def test_observations_are_complete_and_repeat() -> None:
    first, track = observe(SCENE, BODY, SPEC)
    again, track_again = observe(SCENE, BODY, SPEC)
    assert first.keypoint_names == KEYPOINTS
    assert first.person_id.tolist() == [1, 2]
    torch.testing.assert_close(first.keypoints, again.keypoints, rtol=0, atol=0)
    torch.testing.assert_close(track.world_from_cam, track_again.world_from_cam, rtol=0, atol=0)


def test_slam_track_is_the_truth_up_to_scale_and_gravity() -> None:
    spec = dataclasses.replace(SPEC, slam_rotation_deg=0.0, slam_drift=0.0)
    track = slam_track(SCENE, spec)
    torch.testing.assert_close(track.world_from_cam[0], torch.eye(4).double())
    moved = SCENE.world_from_cam[0, :3, :3] @ track.world_from_cam[:, :3, 3:] * SCENE.scale
    wanted = SCENE.world_from_cam[:, :3, 3] - SCENE.world_from_cam[0, :3, 3]
    torch.testing.assert_close(moved[..., 0], wanted)
    assert not track.scale_known
    assert track.moving


def test_slam_noise_has_the_size_asked_for() -> None:
    spec = dataclasses.replace(SPEC, slam_drift=0.0)
    clean = slam_track(SCENE, dataclasses.replace(spec, slam_rotation_deg=0.0)).world_from_cam
    noisy = slam_track(SCENE, spec).world_from_cam
    turn = roma.rotmat_to_rotvec((geometry.invert(clean) @ noisy)[1:, :3, :3])
    assert torch.rad2deg(turn).std() == pytest.approx(0.1, rel=0.15)
    drifting = dataclasses.replace(SPEC, slam_rotation_deg=0.0, slam_drift=0.002)
    offset = (slam_track(SCENE, drifting).world_from_cam - clean)[:, :3, 3] * SCENE.scale
    assert torch.diff(offset, dim=0).std() == pytest.approx(0.002, rel=0.15)


@pytest.mark.parametrize("camera", ["static", "rotation"])
def test_cameras_that_stay_do_not_translate(camera: str) -> None:
    spec = SceneSpec(seed=22, frames=40, camera=camera)
    track = slam_track(make_scene(spec, BODY), spec)
    assert not track.moving
    assert track.world_from_cam[:, :3, 3].abs().max() == 0


def test_ar1_has_unit_variance_and_the_correlation_asked_for() -> None:
    noise = ar1((400, 300), 5.0, np.random.default_rng(0), axis=1)
    assert noise.std() == pytest.approx(1, rel=0.03)
    assert np.corrcoef(noise[:, 5:].ravel(), noise[:, :-5].ravel())[0, 1] == pytest.approx(
        np.exp(-1), abs=0.03
    )


def test_spans_cover_their_share() -> None:
    rng = np.random.default_rng(1)
    covered = [
        sum(b - a for a, b in spans(600, 0.1, (0.3, 1.0), 30.0, rng)) / 600 for _ in range(200)
    ]
    assert np.mean(covered) == pytest.approx(0.1, rel=0.2)


def test_rotation_drift_is_a_random_walk_from_the_first_camera_on() -> None:
    still = dataclasses.replace(SPEC, slam_rotation_deg=0.0)
    walks = []
    for seed in range(40):
        spec = dataclasses.replace(still, seed=seed, slam_rotation_drift_deg=0.5)
        exact = slam_track(SCENE, dataclasses.replace(spec, slam_rotation_drift_deg=0.0))
        drifted = slam_track(SCENE, spec)
        turn = drifted.world_from_cam[:, :3, :3] @ exact.world_from_cam[:, :3, :3].mT
        walks.append(torch.rad2deg(roma.rotmat_to_rotvec(turn)))
        assert torch.equal(drifted.world_from_cam[:, :3, 3], exact.world_from_cam[:, :3, 3])
    off = torch.stack(walks)
    assert off[:, 0].abs().max() < 1e-5
    for frame in (50, 199):
        expected = 0.5 * (frame / SPEC.fps) ** 0.5
        assert float((off[:, frame] ** 2).mean().sqrt()) == pytest.approx(expected, rel=0.25)


def test_flipped_contacts_are_wrong_in_runs() -> None:
    contacts = torch.rand(3, 2000, 4, dtype=torch.float64, generator=torch.manual_seed(1))
    flipped = flipped_contacts(contacts, 0.1, 30.0, seed=5)
    wrong = flipped != contacts
    assert torch.equal(flipped[wrong], 1 - contacts[wrong])
    assert 0.06 < float(wrong.double().mean()) < 0.13
    begins = (wrong[:, 1:] & ~wrong[:, :-1]).sum()
    assert 5 < float(wrong.sum() / begins) < 15, "runs of 0.3 s in the mean"
    assert torch.equal(flipped_contacts(contacts, 0.0, 30.0, seed=5), contacts)


def test_long_gaps_spare_the_frames_that_windows_are_aligned_on() -> None:
    hidden = long_gaps(20, 260, 75, np.random.default_rng(3))
    assert (hidden.sum(axis=1) == 75).all()
    assert not hidden[:, [0, 1, 100, 101, 200, 201]].any()
    assert len({int(person.argmax()) for person in hidden}) > 3
