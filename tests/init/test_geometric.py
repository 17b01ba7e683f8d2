"""The lift on scenes with exact truth: accuracy, front and back, missing points, gaps, errors."""

from dataclasses import replace

import pytest
import roma
import torch

from slamhmr.body import BodyModel, forward_points, load_body
from slamhmr.errors import InputError
from slamhmr.geometry import apply, invert, similarity_between
from slamhmr.init.geometric import Options, initialise
from slamhmr.skeleton import BODY_JOINT_COUNT
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import CameraTrack, Initial, Observations

QUICK = Options(samples=0, yaws=16, pitches_deg=(0.0, 20.0))
CLEAN = {"keypoint_noise": 0.0, "outliers": 0.0, "slam_rotation_deg": 0.0, "slam_drift": 0.0}


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


def joints_cam(initial: Initial, body: BodyModel) -> torch.Tensor:
    points, _ = forward_points(
        body,
        initial.betas,
        initial.cam_from_root[..., :3, :3],
        initial.cam_from_root[..., :3, 3],
        roma.rotvec_to_rotmat(initial.body_pose),
    )
    return points[:, :, :BODY_JOINT_COUNT]


def pa_mpjpe_mm(estimate: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    scale, rotation, shift = similarity_between(estimate, truth)
    moved = scale[..., None, None] * (estimate @ rotation.transpose(-1, -2)) + shift[..., None, :]
    return 1000 * (moved - truth).norm(dim=-1).mean(dim=-1)


def truth_cam(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints and root rotations in the camera."""
    cam_from_world = invert(scene.world_from_cam)
    joints = apply(cam_from_world[None], scene.points[:, :, :BODY_JOINT_COUNT])
    return joints, cam_from_world[:, :3, :3] @ scene.root


def root_error_deg(initial: Initial, root: torch.Tensor) -> torch.Tensor:
    angle = roma.rotmat_geodesic_distance(initial.cam_from_root[..., :3, :3], root)
    return torch.rad2deg(angle)


def hidden(observations: Observations, *names: str) -> Observations:
    confidence = observations.confidence.clone()
    for name in names:
        confidence[..., observations.keypoint_names.index(name)] = 0
    return replace(observations, confidence=confidence)


def check(initial: Initial, scene: Scene, body: BodyModel, pa_mm: float, root_deg: float) -> None:
    joints, root = truth_cam(scene)
    assert float(pa_mpjpe_mm(joints_cam(initial, body), joints).mean()) < pa_mm
    errors = root_error_deg(initial, root)
    assert float(errors.mean()) < root_deg
    assert float((errors > 90).double().mean()) < 0.02


def test_a_clean_walk_is_recovered(body: BodyModel) -> None:
    spec = SceneSpec(seed=1, frames=45, motion="walk", camera="follow", **CLEAN)
    scene = make_scene(spec, body)
    observations, cameras = observe(scene, body, spec)
    initial = initialise(observations, cameras, body, QUICK)
    check(initial, scene, body, pa_mm=50, root_deg=12)
    assert bool(initial.valid.all())
    assert initial.confidence is not None
    assert float(initial.confidence.min()) >= 0
    assert float(initial.confidence.max()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("motion", "camera", "seed"),
    [
        ("walk", "follow", 1),
        ("turn", "static", 2),
        ("run", "follow", 2),
        ("wave", "static", 1),
        ("jump", "follow", 2),
        ("mixed", "static", 3),
        ("sit", "orbit", 4),
    ],
)
def test_noisy_motions_stay_within_the_targets(
    motion: str, camera: str, seed: int, body: BodyModel
) -> None:
    spec = SceneSpec(seed=seed, frames=60, motion=motion, camera=camera)
    scene = make_scene(spec, body)
    observations, cameras = observe(scene, body, spec)
    initial = initialise(observations, cameras, body, Options())
    check(initial, scene, body, pa_mm=80, root_deg=20)


def test_front_and_back_are_told_apart_without_a_face(body: BodyModel) -> None:
    """Somebody who turns is followed through front and back by limbs and trunk alone."""
    spec = SceneSpec(seed=3, frames=60, motion="turn", camera="static", **CLEAN)
    scene = make_scene(spec, body)
    observations, cameras = observe(scene, body, spec)
    face = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    initial = initialise(hidden(observations, *face), cameras, body, QUICK)
    check(initial, scene, body, pa_mm=60, root_deg=20)


def test_missing_feet_and_shins_do_not_break_the_lift(body: BodyModel) -> None:
    spec = SceneSpec(seed=2, frames=30, motion="walk", camera="follow", **CLEAN)
    scene = make_scene(spec, body)
    observations, cameras = observe(scene, body, spec)
    below = tuple(
        name
        for name in observations.keypoint_names
        if any(part in name for part in ("ankle", "toe", "heel", "knee"))
    )
    initial = initialise(hidden(observations, *below), cameras, body, QUICK)
    joints, root = truth_cam(scene)
    upper = [0, 1, 2, 3, 6, 9, 12, 15, 16, 17, 18, 19, 20, 21]
    estimate = joints_cam(initial, body)
    assert float(pa_mpjpe_mm(estimate[:, :, upper], joints[:, :, upper]).mean()) < 60
    assert float(root_error_deg(initial, root).mean()) < 25


def test_a_gap_is_bridged_with_confidence_zero(body: BodyModel) -> None:
    spec = SceneSpec(seed=1, frames=45, motion="walk", camera="static", **CLEAN)
    scene = make_scene(spec, body)
    observations, cameras = observe(scene, body, spec)
    confidence = observations.confidence.clone()
    confidence[:, :5] = 0
    confidence[:, 18:26] = 0
    confidence[:, 40:] = 0
    initial = initialise(replace(observations, confidence=confidence), cameras, body, QUICK)
    assert initial.valid[0].tolist() == [5 <= frame < 40 for frame in range(45)]
    assert initial.confidence is not None
    assert float(initial.confidence[0, 18:26].max()) == 0
    assert float(initial.confidence[0, 10:15].mean()) > 0.1
    depth = initial.cam_from_root[0, :, 2, 3]
    assert float((depth[1:] - depth[:-1]).abs().max()) < 0.25
    step = roma.rotmat_geodesic_distance(
        initial.cam_from_root[0, 17:26, :3, :3], initial.cam_from_root[0, 18:27, :3, :3]
    )
    assert float(step.max()) < 0.3


def test_one_frame_is_enough_and_none_is_an_error(body: BodyModel) -> None:
    spec = SceneSpec(seed=1, frames=6, motion="stand", camera="static", **CLEAN)
    scene = make_scene(spec, body)
    observations, cameras = observe(scene, body, spec)
    confidence = torch.zeros_like(observations.confidence)
    confidence[:, 2] = observations.confidence[:, 2]
    single = replace(observations, confidence=confidence)
    initial = initialise(single, cameras, body, QUICK)
    assert initial.valid[0].tolist() == [False, False, True, False, False, False]
    assert bool(torch.isfinite(initial.cam_from_root).all())
    joints, _ = truth_cam(scene)
    assert float(pa_mpjpe_mm(joints_cam(initial, body), joints)[0, 2]) < 80
    confidence[:, 2, 4:] = 0
    with pytest.raises(InputError, match="no frame with 6 or more keypoints"):
        initialise(replace(observations, confidence=confidence), cameras, body, QUICK)


def test_frame_counts_must_agree(body: BodyModel) -> None:
    spec = SceneSpec(seed=1, frames=6, motion="stand", camera="static")
    observations, cameras = observe(make_scene(spec, body), body, spec)
    short = replace(
        cameras,
        world_from_cam=cameras.world_from_cam[:5],
        intrinsics=cameras.intrinsics[:5],
        covariance=None,
    )
    with pytest.raises(InputError, match="6 frames, cameras 5"):
        initialise(observations, short, body, QUICK)


def spliced(parts: list[tuple[Observations, CameraTrack]]) -> tuple[Observations, CameraTrack]:
    """Clips of one person one after the other, each with its own camera."""
    first, cameras = parts[0]
    frames = sum(part.keypoints.shape[1] for part, _ in parts)
    together = {
        name: torch.cat([getattr(part, name) for part, _ in parts], dim=1)
        for name in ("keypoints", "confidence", "boxes")
    }
    times = torch.arange(frames, dtype=torch.float64) / first.fps
    tracks = {
        name: torch.cat([getattr(track, name) for _, track in parts])
        for name in ("world_from_cam", "intrinsics")
    }
    observations = replace(first, timestamps=times, **together)
    return observations, replace(cameras, points=None, covariance=None, **tracks)


def test_nothing_is_smoothed_or_filled_across_a_cut(body: BodyModel) -> None:
    """Two walks spliced at frame 21, unseen from 18 to 22: each is lifted as if it were alone."""
    parts = []
    for seed in (1, 2):
        spec = SceneSpec(seed=seed, frames=21, motion="walk", camera="static", **CLEAN)
        parts.append(observe(make_scene(spec, body), body, spec))
    observations, cameras = spliced(parts)
    confidence = observations.confidence.clone()
    confidence[:, 18:23] = 0
    observations = replace(observations, confidence=confidence)
    initial = initialise(observations, cameras, body, QUICK, cuts=(21,))
    assert bool(initial.valid.all())
    for held, seen in ((slice(18, 21), 17), (slice(21, 23), 23)):
        pose = initial.body_pose[:, held]
        torch.testing.assert_close(pose, initial.body_pose[:, [seen]].expand_as(pose))
        place, there = initial.cam_from_root[:, held], initial.cam_from_root[:, [seen]]
        torch.testing.assert_close(place, there.expand_as(place), atol=1e-6, rtol=0)
    for start, stop in ((0, 21), (21, 42)):
        alone = replace(
            observations,
            keypoints=observations.keypoints[:, start:stop],
            confidence=confidence[:, start:stop],
            boxes=observations.boxes[:, start:stop],
            timestamps=observations.timestamps[: stop - start],
        )
        track = replace(
            cameras,
            world_from_cam=cameras.world_from_cam[start:stop],
            intrinsics=cameras.intrinsics[start:stop],
        )
        single = joints_cam(initialise(alone, track, body, QUICK), body)
        both = joints_cam(initial, body)[:, start:stop]
        assert float((single - both).norm(dim=-1).mean()) < 0.03
