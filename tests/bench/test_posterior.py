"""The benchmark of the posterior: its truth, its table, its sentences."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scenes import BODY

from slamhmr.bench.nuisances import SETS, nuisance_spec
from slamhmr.bench.posterior import (
    ABSOLUTE,
    HEIGHT,
    Errors,
    coverage_rows,
    outside,
    run,
    true_joints,
    true_up,
)
from slamhmr.cameras import uncorrected
from slamhmr.errors import ConfigError
from slamhmr.geometry import rotation_between
from slamhmr.synth.noise import slam_track
from slamhmr.synth.scene import Scene, make_scene
from slamhmr.types import SceneState


def perfect(scene: Scene) -> SceneState:
    """A state whose cameras are the scene's, turned any way, and nobody of interest in it."""
    spec = replace(scene.spec, slam_rotation_deg=0, slam_drift=0, slam_rotation_drift_deg=0)
    track = slam_track(scene, spec)
    anyhow = rotation_between(torch.tensor([0.3, 0.9, 0.2]).double(), torch.eye(3).double()[2])
    turned = track.world_from_cam.clone()
    turned[:, :3] = anyhow @ turned[:, :3]
    nothing = torch.zeros(1, spec.frames, 3, dtype=torch.float64)
    return SceneState(
        person_id=torch.tensor([1]), valid=scene.valid, observed=scene.valid, root_orient=nothing,
        pelvis=nothing, body_pose=nothing[:, :, None].expand(-1, -1, 21, -1), betas=scene.betas,
        contacts=scene.contacts, log_scale=torch.tensor(0.0).double(),
        scale_prior=torch.zeros(2).double(), ground=torch.tensor([0.0, 0, 1, 0]).double(),
        cameras=replace(track, world_from_cam=turned), **uncorrected(spec.frames),
    )  # fmt: skip


def test_true_joints_stand_on_the_floor_and_are_seen_by_the_first_camera_as_in_the_scene() -> None:
    spec = replace(nuisance_spec("fit", 0)[0], frames=20)
    scene = make_scene(spec, BODY)
    state = perfect(scene)
    joints = true_joints(scene, state)
    assert torch.allclose(joints[..., 2], scene.points[:, :, :24, 2], atol=1e-9)
    level = rotation_between(true_up(scene, state), torch.tensor([0.0, 0.0, 1.0]).double())
    turn = level @ state.cameras.world_from_cam[0, :3, :3]
    height = torch.stack([*torch.zeros(2).double(), scene.world_from_cam[0, 2, 3]])
    seen = (joints - height) @ turn
    first = scene.world_from_cam[0]
    expected = (scene.points[:, :, :24] - first[:3, 3]) @ first[:3, :3]
    assert torch.allclose(seen, expected, atol=1e-9)


def test_sets_share_no_seed_and_no_level() -> None:
    seeds = {name: {nuisance_spec(name, i)[0].seed for i in range(200)} for name in SETS}
    for name in SETS:
        others = set().union(*(seeds[other] for other in SETS if other != name))
        assert seeds[name].isdisjoint(others)
    fitted = {level for name in SETS if name != "check" for level in SETS[name].levels}
    assert fitted.isdisjoint(SETS["check"].levels)
    with pytest.raises(ConfigError, match="set 'chek' is unknown"):
        nuisance_spec("chek", 0)


def test_rows_and_sentences() -> None:
    rng = torch.Generator().manual_seed(1)

    def scene(size: float) -> dict[str, Errors]:
        error = size * torch.randn(500, 3, generator=rng, dtype=torch.float64)
        height = torch.zeros(1, 1, dtype=torch.float64)
        return {
            ABSOLUTE: Errors(error, torch.eye(3, dtype=torch.float64).expand(500, 3, 3)),
            HEIGHT: Errors(height, torch.ones(1, 1, 1, dtype=torch.float64)),
        }

    rows = coverage_rows([scene(2.0), scene(2.0)])
    assert [row["quantity"] for row in rows] == [ABSOLUTE, HEIGHT]
    assert rows[0]["factor_90%"] == pytest.approx(4.0, rel=0.15)
    wrong = outside(rows)
    assert len(wrong) == 4
    assert "joints, absolute: the 90 % region holds" in wrong[1]
    assert outside(coverage_rows([scene(1.0)]))[0].startswith("floor, height: the 50 %")


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set=all is not one of"):
        run(["set=all"], tmp_path)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        run(["scenes=0"], tmp_path)
