"""Slow motion and wrong frame rates are told from how people walk."""

import numpy as np
import pytest
import torch

from slamhmr.body import load_body
from slamhmr.cadence import gait, notes_on_cadence
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import Result

FPS = SceneSpec().fps


@pytest.fixture(scope="module", params=["walk", "run"])
def moving(request: pytest.FixtureRequest) -> Scene:
    spec = SceneSpec(seed=4, frames=320, motion=request.param, camera="static")
    return make_scene(spec, load_body())


def as_result(scene: Scene, fps: float) -> Result:
    """The truth of a scene as a result that claims a frame rate."""
    people, frames = scene.valid.shape
    return Result(
        person_id=torch.arange(people),
        valid=scene.valid,
        observed=scene.valid,
        root_orient=torch.zeros(people, frames, 3),
        transl=torch.zeros(people, frames, 3),
        body_pose=torch.zeros(people, frames, 63),
        betas=scene.betas,
        joints=scene.points[:, :, :24],
        contacts=torch.zeros(people, frames, 4),
        world_from_cam=torch.eye(4).repeat(frames, 1, 1),
        intrinsics=torch.ones(frames, 4),
        image_size=(640, 480),
        fps=fps,
        ground=torch.tensor([0.0, 0.0, 1.0, 0.0]),
        scale=1.0,
        scale_std=float("nan"),
        body_model="default",
        gender=("neutral",) * people,
    )


def test_nothing_is_said_of_the_right_rate(moving: Scene) -> None:
    walk = gait(moving.points[0, :210, :24].numpy(), FPS)
    assert walk is not None
    assert 1.4 < walk.cadence < 3.3
    assert notes_on_cadence(as_result(moving, FPS)) == []


@pytest.mark.parametrize(("factor", "words"), [(0.5, "as in slow motion"), (3.0, "sped up")])
def test_a_wrong_rate_is_told(moving: Scene, factor: float, words: str) -> None:
    told = notes_on_cadence(as_result(moving, factor * FPS))
    assert len(told) == 1
    assert words in told[0]
    guessed = float(told[0].split("about ")[1].split(" frames")[0])
    assert 0.6 * FPS < guessed < 1.6 * FPS


def test_who_stands_has_no_cadence() -> None:
    scene = make_scene(SceneSpec(seed=3, frames=180, motion="wave", camera="static"), load_body())
    assert gait(scene.points[0, :, :24].numpy(), FPS) is None
    assert gait(np.zeros((20, 24, 3)), 30.0) is None
