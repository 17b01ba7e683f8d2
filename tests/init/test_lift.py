"""The lifter as a start: accuracy, frame rates, gaps, cuts, places, errors."""

from dataclasses import fields, replace

import pytest
import roma
import torch

from slamhmr.body import BodyModel, forward_points, load_body
from slamhmr.errors import InputError, MissingAsset
from slamhmr.geometry import apply, invert, similarity_between
from slamhmr.geometry import bearings as to_bearings
from slamhmr.init import lift
from slamhmr.init.lift import Options, initialise
from slamhmr.skeleton import BODY_JOINT_COUNT, FOOT_KEYPOINTS
from slamhmr.synth.noise import observe, project_truth
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import CameraTrack, Initial, Observations

CLEAN = {"keypoint_noise": 0.0, "outliers": 0.0, "slam_rotation_deg": 0.0, "slam_drift": 0.0}
# Of one frame and joint; all that is one row per frame.
PER_FRAME = tuple(f.name for f in fields(Initial) if f.name not in ("person_id", "betas"))
Made = tuple[Scene, Observations, CameraTrack]


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


@pytest.fixture(scope="module")
def walk(body: BodyModel) -> Made:
    spec = SceneSpec(seed=1, frames=60, motion="walk", camera="follow")
    scene = make_scene(spec, body)
    return scene, *observe(scene, body, spec)


def errors(initial: Initial, scene: Scene, body: BodyModel) -> tuple[float, float, float]:
    """PA-MPJPE (mm), root (deg), depth (share), means over the frames."""
    points, _ = forward_points(
        body, initial.betas, initial.cam_from_root[..., :3, :3],
        initial.cam_from_root[..., :3, 3], roma.rotvec_to_rotmat(initial.body_pose),
    )  # fmt: skip
    found = points[:, :, :BODY_JOINT_COUNT]
    cam_from_world = invert(scene.world_from_cam)
    truth = apply(cam_from_world[None], scene.points[:, :, :BODY_JOINT_COUNT])
    scale, rotation, shift = similarity_between(found, truth)
    moved = scale[..., None, None] * (found @ rotation.mT) + shift[..., None, :]
    root = cam_from_world[:, :3, :3] @ scene.root
    angle = roma.rotmat_geodesic_distance(initial.cam_from_root[..., :3, :3], root)
    depth = (found[:, :, 0, 2] / truth[:, :, 0, 2]).log().abs()
    pa = 1000 * (moved - truth).norm(dim=-1).mean()
    return float(pa), float(torch.rad2deg(angle).mean()), float(depth.mean())


def hidden(observations: Observations, frames: slice, *names: str) -> Observations:
    confidence = observations.confidence.clone()
    places = [observations.keypoint_names.index(n) for n in names or observations.keypoint_names]
    confidence[:, frames, places] = 0
    return replace(observations, confidence=confidence)


@pytest.mark.parametrize(
    ("motion", "camera", "noise"),
    [("walk", "follow", "white"), ("walk", "static", "detector"), ("run", "orbit", "detector"),
     ("stand", "handheld", "white"), ("wave", "rotation", "detector"), ("sit", "static", "white")],
)  # fmt: skip
def test_people_are_lifted(motion: str, camera: str, noise: str, body: BodyModel) -> None:
    spec = SceneSpec(seed=5, frames=60, motion=motion, camera=camera, noise=noise)
    scene = make_scene(spec, body)
    initial = initialise(*observe(scene, body, spec), body, Options())
    pa_mm, root_deg, depth = errors(initial, scene, body)
    assert pa_mm < 90
    assert root_deg < 20
    assert depth < 0.2


def test_what_it_says_is_in_order(walk: Made, body: BodyModel) -> None:
    scene, observations, cameras = walk
    initial = initialise(observations, cameras, body, Options())
    assert torch.equal(initial.person_id, observations.person_id)
    for name in PER_FRAME:
        value = getattr(initial, name)
        assert value is not None, name
        assert bool(torch.isfinite(value).all()), name
    assert float(initial.rotation_sigma.min()) > 0
    assert float(initial.up_sigma.min()) > 0
    assert float(initial.root_velocity_sigma.min()) > 0
    torch.testing.assert_close(initial.up_cam.norm(dim=-1), torch.ones_like(initial.up_sigma))
    up = scene.world_from_cam[:, 2, :3]
    assert float((initial.up_cam[0] * up).sum(dim=-1).mean()) > 0.98
    standing = scene.contacts > 0.5
    said = initial.contacts
    assert float(said[standing].mean()) > float(said[~standing].mean()) + 0.3


def test_the_body_lies_on_its_keypoints(walk: Made, body: BodyModel) -> None:
    scene, observations, cameras = walk
    initial = initialise(observations, cameras, body, Options())
    points, _ = forward_points(
        body, initial.betas, initial.cam_from_root[..., :3, :3],
        initial.cam_from_root[..., :3, 3], roma.rotvec_to_rotmat(initial.body_pose),
    )  # fmt: skip
    shown = replace(scene, points=apply(scene.world_from_cam[None], points))
    truth, _ = project_truth(scene, body)
    found, _ = project_truth(shown, body)
    height = truth[..., 1].amax(dim=-1) - truth[..., 1].amin(dim=-1)
    off = (found - truth).norm(dim=-1).median(dim=-1).values / height
    assert float(off.mean()) < 0.04


@pytest.fixture(scope="module")
def fine(body: BodyModel) -> tuple[Scene, Observations, CameraTrack]:
    """Two seconds at 300 frames per second, exact."""
    spec = SceneSpec(seed=3, frames=600, fps=300.0, motion="walk", camera="orbit", **CLEAN)
    scene = make_scene(spec, body)
    return scene, *observe(scene, body, spec)


def at_rate(made: Made, fps: int) -> tuple[Observations, CameraTrack]:
    """Every so manyth frame."""
    _, observations, cameras = made
    rows = slice(None, None, 300 // fps)
    return replace(
        observations, keypoints=observations.keypoints[:, rows],
        confidence=observations.confidence[:, rows], boxes=observations.boxes[:, rows],
        timestamps=observations.timestamps[rows], fps=float(fps),
    ), replace(
        cameras, world_from_cam=cameras.world_from_cam[rows], intrinsics=cameras.intrinsics[rows]
    )  # fmt: skip


@pytest.mark.parametrize("fps", [25, 50, 60])
def test_other_frame_rates_give_the_same_poses(fps: int, fine: Made, body: BodyModel) -> None:
    ours, theirs = (initialise(*at_rate(fine, rate), body, Options()) for rate in (30, fps))
    mine, other = (slice(0, 2 * rate - rate // 5, rate // 5) for rate in (30, fps))  # 5 times a s
    joints = roma.rotmat_geodesic_distance(
        roma.rotvec_to_rotmat(ours.body_pose[:, mine]),
        roma.rotvec_to_rotmat(theirs.body_pose[:, other]),
    )
    assert float(torch.rad2deg(joints).mean()) < 1.5
    place = ours.cam_from_root[:, mine, :3, 3] - theirs.cam_from_root[:, other, :3, 3]
    assert float(place.norm(dim=-1).mean()) < 0.05
    speed = ours.root_velocity[:, mine] - theirs.root_velocity[:, other]
    assert float(speed.norm(dim=-1).mean()) < 0.1
    assert float((ours.contacts[:, mine] - theirs.contacts[:, other]).abs().mean()) < 0.05


def test_feet_that_no_detector_gives_are_not_needed(walk: Made, body: BodyModel) -> None:
    scene, observations, cameras = walk
    places = [i for i, n in enumerate(observations.keypoint_names) if n not in FOOT_KEYPOINTS]
    coco = replace(
        observations, keypoints=observations.keypoints[:, :, places],
        confidence=observations.confidence[:, :, places],
        keypoint_names=tuple(observations.keypoint_names[i] for i in places),
    )  # fmt: skip
    initial = initialise(coco, cameras, body, Options())
    pa_mm, root_deg, _ = errors(initial, scene, body)
    assert pa_mm < 90
    assert root_deg < 20
    blind = initialise(hidden(observations, slice(None), *FOOT_KEYPOINTS), cameras, body, Options())
    torch.testing.assert_close(initial.body_pose, blind.body_pose)


def test_the_order_of_the_keypoints_does_not_matter(walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    order = list(range(len(observations.keypoint_names)))[::-1]
    other = replace(
        observations, keypoints=observations.keypoints[:, :, order],
        confidence=observations.confidence[:, :, order],
        keypoint_names=observations.keypoint_names[::-1],
    )  # fmt: skip
    first, second = (initialise(o, cameras, body, Options()) for o in (observations, other))
    torch.testing.assert_close(first.body_pose, second.body_pose)


def test_a_gap_is_bridged_without_confidence(walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    gone = hidden(hidden(hidden(observations, slice(0, 5)), slice(20, 32)), slice(55, 60))
    initial = initialise(gone, cameras, body, Options())
    assert initial.valid[0].tolist() == [5 <= frame < 55 for frame in range(60)]
    assert float(initial.confidence[0, 20:32].max()) == 0
    assert float(initial.confidence[0, 5:20].min()) == 1
    step = torch.diff(initial.cam_from_root[0, 5:55, :3, 3], dim=0).norm(dim=-1)
    assert float(step.max()) < 0.3
    for name in PER_FRAME:
        assert bool(torch.isfinite(getattr(initial, name)).all()), name
    assert torch.equal(initial.body_pose[0, :5], initial.body_pose[0, 5:6].expand(5, -1, -1))


def test_nothing_reaches_across_a_cut(walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    points = observations.keypoints.clone()
    points[:, 30:] = points[:, 30:].flip(-2) + 40
    first, other = (
        initialise(replace(observations, keypoints=given), cameras, body, Options(), cuts=(30,))
        for given in (observations.keypoints, points)
    )
    uncut = initialise(replace(observations, keypoints=points), cameras, body, Options())
    for name in PER_FRAME:
        kept, changed = getattr(first, name), getattr(other, name)
        torch.testing.assert_close(changed[:, :30], kept[:, :30], msg=name)
    assert not torch.allclose(first.body_pose[:, 30:], other.body_pose[:, 30:])
    assert not torch.allclose(uncut.body_pose[:, 25:30], other.body_pose[:, 25:30])


def test_a_shot_alone_is_what_it_is_between_cuts(walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    alone = initialise(
        replace(
            observations, keypoints=observations.keypoints[:, 20:45],
            confidence=observations.confidence[:, 20:45], boxes=observations.boxes[:, 20:45],
            timestamps=observations.timestamps[20:45] - observations.timestamps[20],
        ),
        replace(
            cameras, world_from_cam=cameras.world_from_cam[20:45],
            intrinsics=cameras.intrinsics[20:45],
        ),
        body, Options(),
    )  # fmt: skip
    within = initialise(observations, cameras, body, Options(), cuts=(20, 45))
    for name in PER_FRAME:
        torch.testing.assert_close(getattr(within, name)[:, 20:45], getattr(alone, name), msg=name)


def test_somebody_missing_from_a_shot_has_no_confidence_there(walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    gone = hidden(observations, slice(20, 40))
    initial = initialise(gone, cameras, body, Options(), cuts=(20, 40))
    assert float(initial.confidence[0, 20:40].max()) == 0
    assert float(initial.confidence[0, :20].min()) == 1
    assert bool(initial.valid.all())
    assert initial.contacts is not None
    assert initial.root_velocity_sigma is not None
    assert float(initial.contacts[0, 20:40].max()) == 0
    assert float(initial.root_velocity_sigma[0, 20:40].min()) > 5
    assert float(initial.root_velocity_sigma[0, :20].max()) < 5


def test_frames_before_somebody_is_seen_hold_their_own_shot(walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    late = hidden(observations, slice(30, 40))
    pelvis = initialise(late, cameras, body, Options(), cuts=(30,)).cam_from_root[0, :, :3, 3]
    assert torch.equal(pelvis[30:40], pelvis[40].expand(10, 3))


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_few_frames_are_enough(frames: int, walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    seen = hidden(hidden(observations, slice(0, 30)), slice(30 + frames, 60))
    initial = initialise(seen, cameras, body, Options())
    assert int(initial.valid.sum()) == frames
    for name in PER_FRAME:
        assert bool(torch.isfinite(getattr(initial, name)).all()), name
    assert 1 < float(initial.cam_from_root[0, 30, 2, 3]) < 15


def test_people_do_not_change_each_other(body: BodyModel) -> None:
    spec = SceneSpec(seed=2, frames=20, people=2, motion="walk", camera="static")
    observations, cameras = observe(make_scene(spec, body), body, spec)
    both = initialise(observations, cameras, body, Options())
    alone = initialise(
        replace(
            observations, person_id=observations.person_id[1:],
            keypoints=observations.keypoints[1:], confidence=observations.confidence[1:],
            boxes=observations.boxes[1:],
        ),
        cameras, body, Options(),
    )  # fmt: skip
    torch.testing.assert_close(both.body_pose[1:], alone.body_pose)
    torch.testing.assert_close(both.cam_from_root[1:], alone.cam_from_root)


def test_nonsense_gives_finite_numbers(walk: Made, body: BodyModel) -> None:
    """Points anywhere in a very wide picture, at full confidence."""
    _, observations, cameras = walk
    generator = torch.Generator().manual_seed(0)
    shape = observations.keypoints.shape
    points = 4000 * torch.randn(shape, generator=generator, dtype=torch.float64)
    given = replace(
        observations, keypoints=points, confidence=torch.ones_like(observations.confidence)
    )
    initial = initialise(given, cameras, body, Options())
    for name in PER_FRAME:
        assert bool(torch.isfinite(getattr(initial, name)).all()), name
    assert float(initial.cam_from_root[..., 2, 3].min()) > 0


def placed(
    scene: Scene, body: BodyModel, prior: torch.Tensor, sigma: float, wrong: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where `_place` puts the exact body, and the truth; some keypoints wrong."""
    cam_from_world = invert(scene.world_from_cam)
    truth = apply(cam_from_world, scene.pelvis[0][:, None])[:, 0]
    rotations = torch.cat(
        [(cam_from_world[:, :3, :3] @ scene.root[0])[:, None], scene.body_rotations[0]], dim=1
    )
    image, _ = project_truth(scene, body)
    rays = to_bearings(image[0], scene.intrinsics)[..., :2]
    spread = rays.std(dim=1).norm(dim=-1)
    rays[:, :wrong] += 2.0
    found = lift._place(
        body, scene.betas[0], rotations, prior * truth, torch.full_like(truth[:, 0], sigma),
        rays, torch.ones(rays.shape[:2]).double(), spread,
    )  # fmt: skip
    return found, truth


@pytest.mark.parametrize("seed", [1, 2])
def test_exact_keypoints_and_pose_give_the_exact_pelvis(seed: int, body: BodyModel) -> None:
    scene = make_scene(SceneSpec(seed=seed, frames=20, motion="walk", camera="orbit"), body)
    one = torch.ones(3, dtype=torch.float64)
    found, truth = placed(scene, body, one, 0.1)
    torch.testing.assert_close(found, truth, atol=1e-6, rtol=0)
    found, truth = placed(scene, body, 1.3 * one, 1e3)
    torch.testing.assert_close(found, truth, atol=1e-3, rtol=0)
    found, truth = placed(scene, body, one, 0.1, wrong=5)
    assert float((found - truth).norm(dim=-1).max()) < 0.1


def test_depth_is_held_by_its_sigma(body: BodyModel) -> None:
    scene = make_scene(SceneSpec(seed=1, frames=10, motion="walk", camera="static"), body)
    one = torch.ones(3, dtype=torch.float64)
    off = []
    for sigma in (0.0, 0.1, 10.0):
        found, truth = placed(scene, body, 1.1 * one, sigma)
        off.append(float((found[:, 2] / truth[:, 2]).log().mean()))
    assert 0.095 > off[0] > off[1] > off[2] > -1e-3
    assert off[0] > 0.01


def test_a_prior_behind_the_camera_is_survived(body: BodyModel) -> None:
    scene = make_scene(SceneSpec(seed=1, frames=10, motion="walk", camera="static"), body)
    found, _ = placed(scene, body, torch.tensor([1.0, 1.0, -0.2]).double(), 1.0)
    assert bool(torch.isfinite(found).all())
    assert float(found[:, 2].min()) > 0


def test_missing_or_foreign_weights_are_named(walk: Made, body: BodyModel, tmp_path) -> None:
    _, observations, cameras = walk
    with pytest.raises(MissingAsset, match=r"none\.safetensors' does not exist; .*slamhmr train"):
        initialise(observations, cameras, body, Options(weights=str(tmp_path / "none.safetensors")))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"nothing")
    with pytest.raises(MissingAsset, match="init=geometric"):
        initialise(observations, cameras, body, Options(weights=str(other)))


def test_nobody_to_lift_is_an_error(walk: Made, body: BodyModel) -> None:
    _, observations, cameras = walk
    with pytest.raises(InputError, match="person 1 has no frame with 6 or more keypoints"):
        initialise(hidden(observations, slice(None)), cameras, body, Options())
    few = hidden(observations, slice(None), *observations.keypoint_names[5:])
    with pytest.raises(InputError, match="leave the person out"):
        initialise(few, cameras, body, Options())
    short = replace(
        cameras, world_from_cam=cameras.world_from_cam[:-1], intrinsics=cameras.intrinsics[:-1]
    )
    with pytest.raises(InputError, match="observations have 60 frames, cameras 59"):
        initialise(observations, short, body, Options())
