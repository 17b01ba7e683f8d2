"""Checkpoints inside a stage: what goes on from one ends with the same digits, bit by bit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from slamhmr import checkpoint, stages
from slamhmr.artifacts import to_arrays
from slamhmr.body import load_body
from slamhmr.checkpoint import Checkpoint
from slamhmr.config import load_config
from slamhmr.errors import Preempted
from slamhmr.init import geometric
from slamhmr.init.segments import place
from slamhmr.preemption import WATCH
from slamhmr.scene_problem import Known
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import SceneSpec, make_scene
from slamhmr.types import SceneState

STAMP = {"config": "a", "inputs": "b", "code": "c"}


@pytest.fixture(scope="module")
def begun():
    """Two people who walk before a moving camera, where the last stage begins."""
    spec = SceneSpec(seed=4, frames=8, people=2, motion="walk", camera="follow", noise="detector")
    body = load_body()
    scene = make_scene(spec, body)
    observations, cameras = observe(scene, body, spec)
    initial = geometric.initialise(observations, cameras, body, geometric.Options())
    height = torch.full((2,), torch.nan, dtype=torch.float64)
    return place(initial, observations, cameras, body), Known(observations, initial, body, height)


@pytest.fixture
def unasked():
    yield
    WATCH.asked = ""


def solve(
    begun, at: Checkpoint | None = None, stop_after: int | None = None, percent: float = 100.0
):
    """The last stage; with a checkpoint, from it and stopped after so many iterations in all."""
    state, known = begun
    done = []

    def keep(reached):
        done.append(reached)
        if len(done) == stop_after:
            WATCH.asked = "SIGTERM"
        if at is not None:
            at.keep(reached)

    stage = dataclasses.replace(load_config().stages["motion"], iterations=3)
    solved, report = run_stage(
        state, known, "motion", stage, resources=Resources(1), start_percent=percent,
        on_iteration=keep, reached=None if at is None else at.read(),
    )  # fmt: skip
    return solved, report, len(done)


def assert_same(again: SceneState, once: SceneState) -> None:
    ours, theirs = to_arrays(again), to_arrays(once)
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=key)


@pytest.mark.slow
def test_stopped_again_and_again_a_stage_ends_the_same(begun, tmp_path, unasked, monkeypatch):
    """Over rounds of annealing and of tighter keypoints, stopped after every other iteration."""
    monkeypatch.setattr(stages, "MOST_TIGHTER", 1)
    once, told, _ = solve(begun, percent=0.01)
    assert told.keypoint_sigma < 1
    stops = 0
    while True:
        WATCH.asked = ""
        at = Checkpoint(tmp_path / "c.npz", STAMP)
        try:
            again, report, _ = solve(begun, at, 1 + stops % 2, percent=0.01)
            break
        except Preempted:
            stops += 1
    assert stops > 4
    assert_same(again, once)
    same = ("iterations", "rejected", "stopped", "energy_before", "energy_after", "keypoint_sigma")
    assert [getattr(report, name) for name in same] == [getattr(told, name) for name in same]


def test_a_checkpoint_of_something_else_or_a_damaged_one_is_left_out(
    begun, tmp_path, unasked, caplog
):
    path = tmp_path / "c.npz"
    with pytest.raises(Preempted):
        solve(begun, Checkpoint(path, STAMP), stop_after=1)
    assert Checkpoint(path, STAMP).read() is not None
    with caplog.at_level("INFO"):
        assert Checkpoint(path, {**STAMP, "code": "d"}).read() is None
        assert "of other settings, inputs or code" in caplog.text
        path.write_bytes(path.read_bytes()[:-2000])
        assert Checkpoint(path, STAMP).read() is None
        assert "cannot be read and is left out" in caplog.text


def test_one_is_written_now_and_then_unasked(begun, tmp_path, monkeypatch):
    at = Checkpoint(tmp_path / "c.npz", STAMP)
    monkeypatch.setattr(checkpoint, "EVERY_S", 1e6)
    solve(begun, at)
    assert list(Path(tmp_path).iterdir()) == []
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    once, _, _ = solve(begun, at)
    assert at.path.exists()
    assert_same(solve(begun, at)[0], once)
    at.remove()
    assert not at.path.exists()
