"""Gravity, scale and floor on scenes with exact truth, from true poses and from the lift."""

import math
from dataclasses import replace

import pytest
import roma
import torch

from slamhmr.body import BodyModel, forward_points, load_body, rest_points
from slamhmr.errors import InputError
from slamhmr.geometry import invert, rigid
from slamhmr.init.align import _floor_normal, align
from slamhmr.init.geometric import Options, initialise
from slamhmr.init.gravity import robust_up
from slamhmr.scene import point_set
from slamhmr.skeleton import CONTACT_POINTS
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import CameraTrack, Initial, Observations, SceneState

CLEAN = {"keypoint_noise": 0.0, "outliers": 0.0, "slam_rotation_deg": 0.0, "slam_drift": 0.0}


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


def true_start(scene: Scene) -> Initial:
    """Exact poses in the camera, exact shape."""
    cam_from_world = invert(scene.world_from_cam)
    world_from_root = rigid(scene.root, scene.pelvis)
    return Initial(
        person_id=torch.arange(len(scene.betas)),
        cam_from_root=cam_from_world[None] @ world_from_root,
        body_pose=roma.rotmat_to_rotvec(scene.body_rotations),
        betas=scene.betas,
        valid=scene.valid,
    )


def made(spec: SceneSpec, body: BodyModel) -> tuple[Scene, Observations, CameraTrack]:
    scene = make_scene(spec, body)
    return scene, *observe(scene, body, spec)


def gravity_error_deg(state: SceneState, scene: Scene) -> float:
    turn = state.cameras.world_from_cam[:, :3, :3] @ scene.world_from_cam[:, :3, :3].transpose(
        -1, -2
    )
    up = torch.nn.functional.normalize(turn[:, :, 2].mean(dim=0), dim=0)
    return math.degrees(math.acos(min(1.0, float(up[2]))))


def size_ratio(scene: Scene, body: BodyModel) -> float:
    """Leg length of the mean body over that of the people: what a mean-shape start is scaled by."""

    def legs(betas: torch.Tensor) -> torch.Tensor:
        points = rest_points(body, betas)
        return (points[:, 1] - points[:, 4]).norm(dim=-1) + (points[:, 4] - points[:, 7]).norm(
            dim=-1
        )

    return float((legs(torch.zeros_like(scene.betas)) / legs(scene.betas)).mean())


def standing_height(state: SceneState, scene: Scene, body: BodyModel) -> float:
    """Median height above the found floor of heels and toes that truly stand, m."""
    points, _ = forward_points(
        body,
        state.betas,
        roma.rotvec_to_rotmat(state.root_orient),
        state.pelvis,
        roma.rotvec_to_rotmat(state.body_pose),
    )
    feet = points[:, :, [body.point_names.index(name) for name in CONTACT_POINTS]]
    above_sole = body.v_template[:, 1].min()
    clearance = body.point_template[[body.point_names.index(n) for n in CONTACT_POINTS], 1]
    height = feet @ state.ground[:3] + state.ground[3] - (clearance - above_sole)
    return float(height[scene.contacts > 0.5].median())


@pytest.mark.parametrize(("camera", "seed"), [("follow", 1), ("orbit", 2), ("forward", 3)])
def test_true_poses_give_scale_gravity_and_floor(camera: str, seed: int, body: BodyModel) -> None:
    scene, observations, cameras = made(
        SceneSpec(seed=seed, frames=90, motion="walk", camera=camera), body
    )
    state = align(true_start(scene), observations, cameras, body)
    assert abs(float(state.log_scale) - math.log(scene.scale)) < 0.05
    assert gravity_error_deg(state, scene) < 5
    assert abs(standing_height(state, scene, body)) < 0.1
    standing = (state.contacts > 0.5)[scene.contacts > 0.5]
    assert float(standing.double().mean()) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("camera", "seed"), [("follow", 1), ("follow", 2), ("orbit", 3)])
def test_the_lift_gives_scale_gravity_and_floor(camera: str, seed: int, body: BodyModel) -> None:
    """Scale relative to body size, which one camera cannot see: the start has the mean body."""
    scene, observations, cameras = made(
        SceneSpec(seed=seed, frames=90, motion="walk", camera=camera), body
    )
    initial = initialise(observations, cameras, body, Options())
    state = align(initial, observations, cameras, body)
    ratio = size_ratio(scene, body)
    assert abs(float(state.log_scale) - math.log(scene.scale * ratio)) < 0.1
    assert gravity_error_deg(state, scene) < 5
    assert abs(standing_height(state, scene, body)) < 0.1


def test_world_conventions(body: BodyModel) -> None:
    scene, observations, cameras = made(
        SceneSpec(seed=1, frames=40, motion="walk", camera="follow"), body
    )
    state = align(true_start(scene), observations, cameras, body)
    first = state.cameras.world_from_cam[0]
    torch.testing.assert_close(first[:3, 3], torch.zeros(3, dtype=torch.float64))
    assert abs(float(first[0, 2])) < 1e-6
    assert float(first[1, 2]) > 0
    turn = state.cameras.world_from_cam[:, :3, :3]
    levelled = turn @ cameras.world_from_cam[:, :3, :3].transpose(-1, -2)
    torch.testing.assert_close(levelled[:1].expand_as(levelled), levelled)
    # the person reprojects where the start had it: x_cam = R' (X - s c)
    centres = state.log_scale.exp() * state.cameras.world_from_cam[:, :3, 3]
    cam = ((state.pelvis[0] - centres)[:, None] @ turn)[:, 0]
    torch.testing.assert_close(cam, true_start(scene).cam_from_root[0, :, :3, 3])


@pytest.mark.parametrize("known", [True, False])
def test_a_known_scale_or_a_standing_camera_is_left_alone(known: bool, body: BodyModel) -> None:
    scene, observations, cameras = made(
        SceneSpec(seed=1, frames=30, motion="walk", camera="follow"), body
    )
    fixed = replace(cameras, scale_known=known, moving=known)
    state = align(true_start(scene), observations, fixed, body)
    assert float(state.log_scale) == 0


def test_gravity_survives_bending_and_sitting(body: BodyModel) -> None:
    scene, observations, cameras = made(
        SceneSpec(seed=2, frames=90, motion="mixed", camera="static"), body
    )
    start = true_start(scene)
    bent = start.cam_from_root.clone()
    nod = roma.rotvec_to_rotmat(torch.tensor([1.2, 0.0, 0.0], dtype=torch.float64))
    bent[:, :25, :3, :3] = bent[:, :25, :3, :3] @ nod
    state = align(replace(start, cam_from_root=bent), observations, cameras, body)
    assert gravity_error_deg(state, scene) < 6


def told(scene: Scene, body: BodyModel) -> Initial:
    """The exact start with everything that a network can say, exact."""
    start = true_start(scene)
    step = torch.diff(scene.pelvis, dim=1, append=scene.pelvis[:, -1:]) * scene.spec.fps
    sizes = torch.stack([point_set(body).size(betas) for betas in scene.betas])
    sigma = torch.full(scene.valid.shape, 0.1, dtype=torch.float64)
    return replace(
        start,
        contacts=scene.contacts,
        up_cam=scene.world_from_cam[:, 2, :3].expand(len(scene.betas), -1, -1).clone(),
        up_sigma=sigma,
        root_velocity=(scene.root.mT @ step[..., None])[..., 0] / sizes[:, None, None],
        root_velocity_sigma=sigma[..., None].expand(-1, -1, 3).clone(),
    )


@pytest.mark.parametrize(("camera", "seed"), [("follow", 1), ("orbit", 2), ("forward", 3)])
def test_what_a_network_says_exactly_is_found(camera: str, seed: int, body: BodyModel) -> None:
    scene, observations, cameras = made(
        SceneSpec(seed=seed, frames=60, motion="walk", camera=camera, **CLEAN), body
    )
    state = align(told(scene, body), observations, cameras, body)
    assert abs(float(state.log_scale) - math.log(scene.scale)) < 0.02
    assert gravity_error_deg(state, scene) < 3.5  # people lean into a walk, cameras are level
    assert torch.equal(state.contacts, scene.contacts)
    assert abs(standing_height(state, scene, body)) < 0.03


def test_a_vertical_corrects_people_who_all_lean(body: BodyModel) -> None:
    scene, observations, cameras = made(
        SceneSpec(seed=2, frames=60, motion="walk", camera="static", **CLEAN), body
    )
    start = told(scene, body)
    nod = roma.rotvec_to_rotmat(torch.tensor([0.25, 0.0, 0.0], dtype=torch.float64))
    leaning = start.cam_from_root.clone()
    leaning[..., :3, :3] = leaning[..., :3, :3] @ nod
    start = replace(start, cam_from_root=leaning)
    with_it = align(start, observations, cameras, body)
    without = align(replace(start, up_cam=None, up_sigma=None), observations, cameras, body)
    error, alone = gravity_error_deg(with_it, scene), gravity_error_deg(without, scene)
    assert error < 0.8 * alone
    assert with_it.up_sigma is not None
    assert without.up_sigma is None


def test_velocities_find_the_scale_where_feet_mislead(body: BodyModel) -> None:
    """Contacts that are wrong half of the time; velocities are right."""
    scene, observations, cameras = made(
        SceneSpec(seed=1, frames=90, motion="walk", camera="follow", **CLEAN), body
    )
    start = replace(told(scene, body), contacts=1 - scene.contacts)
    blind = replace(start, root_velocity=None, root_velocity_sigma=None)
    off = [
        abs(float(align(given, observations, cameras, body).log_scale) - math.log(scene.scale))
        for given in (start, blind)
    ]
    assert off[0] < 0.05
    assert off[0] < off[1]


def test_nobody_is_an_error(body: BodyModel) -> None:
    scene, observations, cameras = made(
        SceneSpec(seed=1, frames=10, motion="stand", camera="static"), body
    )
    start = true_start(scene)
    with pytest.raises(InputError, match="no person is valid"):
        align(replace(start, valid=torch.zeros_like(start.valid)), observations, cameras, body)


def test_robust_up_ignores_a_minority_of_leaning_votes() -> None:
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    axes = up.expand(10, 3).clone()
    axes[:3] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    cameras = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    found = robust_up(axes, torch.ones(10, dtype=torch.float64), cameras)
    assert math.degrees(math.acos(float(found @ up))) < 4


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1.06, 0.96), (0.96, 1.06)])
def test_wrong_sizes_of_two_people_do_not_tilt_the_floor(sizes: tuple[float, float]) -> None:
    feet = torch.zeros(2, 120, 4, 3, dtype=torch.float64)  # two who cross, at two distances
    along = torch.linspace(-2.5, 2.5, 120, dtype=torch.float64)[:, None]
    feet[0, ..., 0], feet[1, ..., 0] = along, -along
    feet[0, ..., 1], feet[1, ..., 1] = 6.0, 7.2
    feet[..., 2] = -1.6
    feet = feet * torch.tensor(sizes, dtype=torch.float64)[:, None, None, None]
    contacts, eyes = torch.ones(2, 120, 4).double(), torch.zeros(120, 3).double()
    up = _floor_normal(feet, contacts, eyes, 30.0, doubt=0.04)
    assert float(torch.rad2deg(torch.arccos(up[2]))) < 1.2


def test_a_travelling_cameras_drift_in_a_long_clip_does_not_tilt_the_floor() -> None:
    frames = 1800  # a minute; the person goes away, and the heights of the world rise
    feet, eyes = torch.zeros(1, frames, 4, 3).double(), torch.zeros(frames, 3).double()
    time = torch.linspace(0, 1, frames, dtype=torch.float64)
    feet[0, ..., 1], feet[..., 2] = 4 + 2 * time[:, None], -1.6 + 0.3 * time[:, None]
    eyes[:, 0] = time
    contacts = torch.ones(1, frames, 4).double()
    tilts = [
        float(torch.rad2deg(torch.arccos(_floor_normal(feet, contacts, path, 30.0, doubt=0.04)[2])))
        for path in (eyes, 0 * eyes)
    ]
    assert tilts[0] < 0.5 * tilts[1]
