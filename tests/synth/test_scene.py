"""Scenes: determinism, frames of reference, people apart and in view, cameras, bad settings."""

import dataclasses

import numpy as np
import pytest
import torch

from slamhmr import geometry
from slamhmr.body import load_body
from slamhmr.errors import ConfigError
from slamhmr.synth import cameras
from slamhmr.synth.noise import project_truth
from slamhmr.synth.placing import PERSONAL_SPACE
from slamhmr.synth.scene import SceneSpec, demo_spec, make_scene

BODY = load_body()


@pytest.mark.parametrize("camera", cameras.KINDS)
@pytest.mark.parametrize("people", [1, 3])
def test_people_are_in_view_and_not_too_near(camera: str, people: int) -> None:
    spec = SceneSpec(seed=11, frames=150, people=people, camera=camera)
    scene = make_scene(spec, BODY)
    image, depth = project_truth(scene, BODY)
    limit = torch.tensor(spec.image_size)
    inside = ((image >= 0) & (image < limit)).all(dim=-1) & (depth > 0.2)
    assert inside.double().mean() > 0.8
    assert depth.min() > 1.0


@pytest.mark.parametrize("camera", cameras.KINDS)
def test_cameras_are_rigid_smooth_and_level(camera: str) -> None:
    scene = make_scene(SceneSpec(seed=12, frames=90, camera=camera), BODY)
    rotation, centre = scene.world_from_cam[:, :3, :3], scene.world_from_cam[:, :3, 3]
    eye = torch.eye(3).double().expand(90, 3, 3)
    torch.testing.assert_close(rotation @ rotation.transpose(-1, -2), eye)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(90).double())
    torch.testing.assert_close(centre[0, :2], torch.zeros(2).double())
    assert (centre[:, 2] > 0.8).all()
    assert (rotation[:, 2, 1] < -0.7).all(), "the picture's down is the world's down"
    moved = torch.diff(centre, dim=0).norm(dim=-1)
    assert moved.max() * 30 < (cameras.DRIVE[1] + 0.5 if camera == "drive" else 3.5), "m/s"
    if camera in cameras.MOVING:
        assert moved.sum() > 0.15
    else:
        assert moved.max() == 0
    turned = (rotation[1:] - rotation[:-1]).abs().max()
    assert (turned == 0) == (camera == "static")


@pytest.mark.parametrize("people", [2, 8])
def test_nobody_walks_through_anybody(people: int) -> None:
    scene = make_scene(SceneSpec(seed=13, frames=120, people=people), BODY)
    place = scene.pelvis[..., :2]
    apart = (place[:, None] - place[None]).norm(dim=-1).amin(dim=-1)
    apart.fill_diagonal_(9.0)
    assert apart.min() > PERSONAL_SPACE


def test_same_spec_same_scene() -> None:
    spec = SceneSpec(seed=14, frames=40, people=2, camera="orbit")
    first, again = make_scene(spec, BODY), make_scene(spec, BODY)
    for field in ("betas", "points", "world_from_cam", "intrinsics"):
        torch.testing.assert_close(getattr(first, field), getattr(again, field), rtol=0, atol=0)
    assert first.scale == again.scale
    other = make_scene(dataclasses.replace(spec, seed=15), BODY)
    assert (first.points - other.points).abs().max() > 0.1
    assert first.scale != other.scale


def test_noise_settings_do_not_change_the_truth() -> None:
    spec = SceneSpec(seed=16, frames=40)
    noisy = dataclasses.replace(spec, noise="detector", occlusions=True, keypoint_noise=0.03)
    torch.testing.assert_close(make_scene(spec, BODY).points, make_scene(noisy, BODY).points)


def test_projection_agrees_with_geometry() -> None:
    scene = make_scene(SceneSpec(seed=17, frames=20), BODY)
    image, depth = project_truth(scene, BODY)
    shoulder = BODY.point_names.index("left_shoulder")
    cam_from_world = geometry.invert(scene.world_from_cam[5])
    point = geometry.apply(cam_from_world, scene.points[0, 5, shoulder][None])
    torch.testing.assert_close(image[0, 5, 5], geometry.project(point, scene.intrinsics[5])[0])
    torch.testing.assert_close(depth[0, 5, 5], point[0, 2])


def test_people_differ_in_shape() -> None:
    scene = make_scene(SceneSpec(seed=18, frames=20, people=4), BODY)
    assert torch.pdist(scene.betas).min() > 0.5
    assert scene.betas.abs().max() <= 2


def test_demo_shows_a_person_of_a_good_size() -> None:
    spec = demo_spec()
    assert 120 <= spec.frames <= 150
    scene = make_scene(spec, BODY)
    image, _ = project_truth(scene, BODY)
    height = (image[..., 1].amax(-1) - image[..., 1].amin(-1)) / spec.image_size[1]
    assert 0.35 < height[0].median() < 0.75
    assert torch.diff(scene.world_from_cam[:, :3, 3], dim=0).norm(dim=-1).sum() > 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"people": 9}, "people 9"),
        ({"frames": 1}, "1 frames"),
        ({"camera": "crane"}, "camera 'crane' is unknown; available: follow"),
        ({"motion": "fly"}, "motion 'fly' is unknown; available: mixed"),
        ({"noise": "pink"}, "noise 'pink' is unknown; available: white"),
        ({"slam_scale": 0.0}, "slam_scale 0.0 is not positive"),
    ],
)
def test_impossible_settings(change: dict[str, object], message: str) -> None:
    spec = dataclasses.replace(SceneSpec(frames=30), **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        make_scene(spec, BODY)


def test_scale_is_drawn_within_its_range() -> None:
    scales = [make_scene(SceneSpec(seed=s, frames=5, motion="stand"), BODY).scale for s in range(8)]
    assert 0.2 <= min(scales) < max(scales) <= 5
    assert np.std(np.log(scales)) > 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (641, 360)}, "must be even"),
        ({"image_size": (0, 0)}, "at least 32"),
        ({"outliers": 1.5}, "outliers 1.5 is out of range"),
        ({"keypoint_noise": -0.1}, "keypoint_noise -0.1 is out of range"),
        ({"camera_distance": 0.0}, "camera_distance 0.0 is not positive"),
    ],
)
def test_settings_that_no_scene_can_have_are_one_line(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SceneSpec(**changes).check()
    assert "\n" not in str(caught.value)
