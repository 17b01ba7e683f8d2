"""Planned motions: exact supports, free fall off a wall, people who leave, cross, are small."""

import dataclasses

import pytest
import torch

from slamhmr.body import load_body
from slamhmr.errors import ConfigError
from slamhmr.skeleton import CONTACT_POINTS
from slamhmr.synth import planned
from slamhmr.synth.noise import observe, project_truth
from slamhmr.synth.scene import SceneSpec, make_scene

BODY = load_body()
FEET = [BODY.point_names.index(name) for name in CONTACT_POINTS]
FPS = 30.0


@pytest.mark.parametrize("kind", planned.LEVELLESS)
def test_feet_stand_on_their_support_and_do_not_slide(kind: str) -> None:
    scene = make_scene(SceneSpec(seed=41, frames=150, motion=kind), BODY)
    assert scene.support is not None
    feet, down = scene.points[:, :, FEET], scene.contacts > 0
    level = make_scene(SceneSpec(seed=41, frames=20, motion="stand"), BODY)
    height = level.points[:, :, FEET, 2].mean(dim=1, keepdim=True)  # of the points above the sole
    above = feet[..., 2] - scene.support - height
    assert float(above[down].abs().max()) < 0.02
    both = down[:, 1:] & down[:, :-1]
    step = (feet[:, 1:] - feet[:, :-1]).norm(dim=-1)[both]
    assert float(step.max()) < 1e-6
    assert float(scene.support.min()) == 0.0
    assert float(scene.support.max()) > 0.09


def test_a_drop_is_a_free_fall_from_one_level_to_the_next() -> None:
    scene = make_scene(SceneSpec(seed=42, frames=200, motion="drop", camera="static"), BODY)
    ((start, end),) = scene.flights[0]
    assert scene.support is not None
    assert float(scene.contacts[0, start:end].sum()) == 0
    height = scene.pelvis[0, start : end + 1, 2]
    fall = FPS**2 * (height[2:] - 2 * height[1:-1] + height[:-2])
    torch.testing.assert_close(fall, torch.full_like(fall, -9.81), rtol=0, atol=0.2)
    before, after = scene.support[0, start - 1].max(), scene.support[0, end + 2].max()
    assert 0.3 <= float(before - after) <= 2.0


def test_who_leaves_is_not_valid_until_he_is_back() -> None:
    spec = SceneSpec(
        seed=43, frames=330, motion="wave", traffic="exit", people=2, camera="static",
        camera_distance=4.2, noise="detector",
    )  # fmt: skip
    scene = make_scene(spec, BODY)
    gone = ~scene.valid[0]
    assert 1.5 * FPS < int(gone.sum()) < 6 * FPS
    assert bool(scene.valid[0, 0])
    assert bool(scene.valid[0, -1])
    assert bool(scene.valid[1].all())
    image, _ = project_truth(scene, BODY)
    size = torch.tensor(spec.image_size)
    inside = ((image[0] >= 0) & (image[0] < size)).all(dim=-1).any(dim=-1)
    assert not bool((inside & gone).any())
    observations, _ = observe(scene, BODY, spec)
    assert not bool(observations.seen[0, gone].any())


def test_crossing_people_hide_each_other_half_way() -> None:
    spec = SceneSpec(
        seed=44, frames=150, motion="straight", traffic="cross", people=2, camera="static",
        occlusions=True,
    )  # fmt: skip
    scene = make_scene(spec, BODY)
    image, depth = project_truth(scene, BODY)
    apart = image[1, :, :, 0].mean(dim=-1) - image[0, :, :, 0].mean(dim=-1)
    assert float(apart[0] * apart[-1]) < 0, "they change sides"
    assert bool((depth[1].mean(dim=-1) > depth[0].mean(dim=-1)).all())
    observations, _ = observe(scene, BODY, spec)
    crossing = int(apart.abs().argmin())
    hidden = observations.confidence[1, crossing - 3 : crossing + 4] == 0
    assert float(hidden.double().mean()) > 0.3


@pytest.mark.parametrize("height", [1.0, 2.1])
def test_people_are_as_tall_as_asked(height: float) -> None:
    spec = SceneSpec(seed=45, frames=40, motion="walk", stature=(height, height))
    scene = make_scene(spec, BODY)
    skin = BODY.v_template[:, 1] + BODY.shapedirs[:, 1] @ scene.betas[0]
    assert float(skin.max() - skin.min()) == pytest.approx(height, abs=0.005)
    down = (scene.contacts > 0)[:, 1:] & (scene.contacts > 0)[:, :-1]
    feet = scene.points[:, :, FEET]
    assert float((feet[:, 1:] - feet[:, :-1]).norm(dim=-1)[down].max()) < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"traffic": "jam"}, "traffic 'jam' is unknown; available: apart"),
        ({"shots": 0}, "shots 0"),
        ({"stature": (0.5, 1.0)}, "stature"),
        ({"focal_error": -0.9}, "focal_error -0.9"),
    ],
)
def test_impossible_settings(change: dict[str, object], message: str) -> None:
    spec = dataclasses.replace(SceneSpec(frames=30), **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        make_scene(spec, BODY)
