"""World paths from velocities, cameras and feet: exact evidence gives the exact path."""

import math
from dataclasses import replace

import pytest
import roma
import torch

from slamhmr.body import BodyModel, load_body
from slamhmr.cameras import uncorrected
from slamhmr.geometry import invert, rigid
from slamhmr.init.trajectory import refine_paths
from slamhmr.scene import point_set
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import CameraTrack, Initial, SceneState

FRAMES = 80


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


@pytest.fixture(scope="module")
def scene(body: BodyModel) -> Scene:
    spec = SceneSpec(seed=4, frames=FRAMES, people=2, motion="walk", camera="follow")
    return make_scene(spec, body)


def start_of(scene: Scene, body: BodyModel, sigma: float = 0.1) -> Initial:
    """Exact poses and root velocities."""
    step = torch.diff(scene.pelvis, dim=1, append=scene.pelvis[:, -1:]) * scene.spec.fps
    sizes = torch.stack([point_set(body).size(betas) for betas in scene.betas])
    own = (scene.root.mT @ step[..., None])[..., 0] / sizes[:, None, None]
    return Initial(
        person_id=torch.arange(len(scene.betas)),
        cam_from_root=invert(scene.world_from_cam)[None] @ rigid(scene.root, scene.pelvis),
        body_pose=roma.rotmat_to_rotvec(scene.body_rotations),
        betas=scene.betas,
        valid=scene.valid,
        root_velocity=own,
        root_velocity_sigma=torch.full_like(own, sigma),
    )


def state_of(scene: Scene) -> SceneState:
    """The truth, but for nobody who stands."""
    turn, centres = scene.world_from_cam[:, :3, :3], scene.world_from_cam[:, :3, 3]
    log_scale = torch.tensor(math.log(scene.scale), dtype=torch.float64)
    return SceneState(
        person_id=torch.arange(len(scene.betas)),
        valid=scene.valid,
        observed=scene.valid,
        root_orient=roma.rotmat_to_rotvec(scene.root),
        pelvis=scene.pelvis,
        body_pose=roma.rotmat_to_rotvec(scene.body_rotations),
        betas=scene.betas,
        contacts=torch.zeros_like(scene.contacts),
        log_scale=log_scale,
        scale_prior=torch.stack([log_scale, torch.tensor(0.5).double()]),
        ground=torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64),
        **uncorrected(len(turn)),
        cameras=CameraTrack(
            world_from_cam=rigid(turn, centres / scene.scale), intrinsics=scene.intrinsics,
            image_size=scene.spec.image_size, scale_known=False, moving=True, source="exact",
        ),
    )  # fmt: skip


def errors(state: SceneState, scene: Scene) -> torch.Tensor:
    """Distance of every pelvis from the truth, m."""
    return (state.pelvis - scene.pelvis).norm(dim=-1)


def misplaced(scene: Scene, share: float, seed: int = 0) -> torch.Tensor:
    """Pelves moved along their rays by white errors of the depth."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*scene.pelvis.shape[:2], 1, generator=generator, dtype=torch.float64)
    return scene.pelvis + share * noise * (scene.pelvis - scene.world_from_cam[:, :3, 3])


def test_exact_velocities_and_cameras_give_the_truth(scene: Scene, body: BodyModel) -> None:
    found = refine_paths(state_of(scene), start_of(scene, body), body, scene.spec.fps)
    assert float(errors(found, scene).max()) < 1e-6


def test_feet_that_stand_agree_with_the_truth(scene: Scene, body: BodyModel) -> None:
    """Their soles are on the floor and do not move, to a few centimetres."""
    state = replace(state_of(scene), contacts=scene.contacts)
    found = refine_paths(state, start_of(scene, body), body, scene.spec.fps)
    assert float(errors(found, scene).max()) < 0.06
    still = refine_paths(
        state, replace(start_of(scene, body), root_velocity=None, root_velocity_sigma=None),
        body, scene.spec.fps,
    )  # fmt: skip
    assert float(errors(still, scene).mean()) < 0.06


@pytest.mark.parametrize("with_feet", [True, False])
def test_depth_errors_are_smoothed_away(with_feet: bool, scene: Scene, body: BodyModel) -> None:
    state = replace(state_of(scene), pelvis=misplaced(scene, 0.05))
    if with_feet:
        state = replace(state, contacts=scene.contacts)
    found = refine_paths(state, start_of(scene, body), body, scene.spec.fps)
    assert float(errors(found, scene).mean()) < 0.35 * float(errors(state, scene).mean())


def test_velocities_bridge_a_gap(scene: Scene, body: BodyModel) -> None:
    pelvis, observed = scene.pelvis.clone(), scene.valid.clone()
    pelvis[:, 25:50] += torch.tensor([1.0, -2.0, 0.5])
    observed[:, 25:50] = False
    state = replace(state_of(scene), pelvis=pelvis, observed=observed)
    found = refine_paths(state, start_of(scene, body), body, scene.spec.fps)
    assert float(errors(found, scene).max()) < 0.02
    blind = replace(start_of(scene, body), root_velocity=None, root_velocity_sigma=None)
    worse = refine_paths(state, blind, body, scene.spec.fps)
    assert float(errors(worse, scene)[:, 30:45].mean()) > float(errors(found, scene).max())


def test_nothing_is_joined_across_a_cut(scene: Scene, body: BodyModel) -> None:
    pelvis = misplaced(scene, 0.05)
    moved = pelvis.clone()
    moved[:, 40:] += torch.tensor([2.0, 1.0, 0.0])
    start = start_of(scene, body)
    first, other, uncut = (
        refine_paths(replace(state_of(scene), pelvis=p), start, body, scene.spec.fps, cuts)
        for p, cuts in ((pelvis, (40,)), (moved, (40,)), (moved, ()))
    )
    torch.testing.assert_close(first.pelvis[:, :40], other.pelvis[:, :40])
    assert float((uncut.pelvis - other.pelvis)[:, 36:44].norm(dim=-1).mean()) > 0.1


def test_people_have_paths_of_their_own(scene: Scene, body: BodyModel) -> None:
    pelvis = misplaced(scene, 0.05)
    moved = pelvis.clone()
    moved[1] += 1.0
    start = start_of(scene, body)
    first, other = (
        refine_paths(replace(state_of(scene), pelvis=p), start, body, scene.spec.fps)
        for p in (pelvis, moved)
    )
    torch.testing.assert_close(first.pelvis[0], other.pelvis[0])


def test_the_result_does_not_depend_on_where_the_world_is(scene: Scene, body: BodyModel) -> None:
    """Turned about the vertical and moved sideways: the path turns and moves along."""
    state = replace(state_of(scene), pelvis=misplaced(scene, 0.05), contacts=scene.contacts)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.1], dtype=torch.float64))
    shift = torch.tensor([3.0, -2.0, 0.0], dtype=torch.float64)
    cameras = state.cameras.world_from_cam
    there = replace(
        state,
        root_orient=roma.rotmat_to_rotvec(turn @ scene.root),
        pelvis=state.pelvis @ turn.T + shift,
        cameras=replace(
            state.cameras,
            world_from_cam=rigid(
                turn @ cameras[:, :3, :3], cameras[:, :3, 3] @ turn.T + shift / scene.scale
            ),
        ),
    )
    start = start_of(scene, body)
    here, moved = (refine_paths(s, start, body, scene.spec.fps) for s in (state, there))
    torch.testing.assert_close(moved.pelvis, here.pelvis @ turn.T + shift, atol=1e-6, rtol=0)
