"""A long clip in windows whose factors are forgotten, and as a whole: the same result, no seam."""

import pytest
import torch

from slamhmr.bench.scenes import bench_scene
from slamhmr.body import forward_points, load_body
from slamhmr.config import load_config
from slamhmr.evidence import scene_of
from slamhmr.init.align import align
from slamhmr.scene_problem import Known
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage

pytestmark = pytest.mark.benchmark
FRAMES, AGREE = 3000, 0.005  # m, at every joint


def solved(resources: Resources) -> torch.Tensor:
    body, config = load_body(), load_config()
    scene = bench_scene(FRAMES, 1, 3, body)
    heights = torch.full((1,), torch.nan, dtype=torch.float64)
    known = Known(scene.observations, scene.initial, body, heights)
    state = align(scene.initial, scene.observations, scene.cameras, body)
    for name in config.schedule:
        state, _ = run_stage(state, known, name, config.stages[name], resources=resources)
    someone = scene_of(state).people[0]
    joints, _ = forward_points(
        body, someone.betas[None], someone.rotations[None, :, 0], someone.pelvis[None],
        someone.rotations[None, :, 1:],
    )  # fmt: skip
    return joints[0, :, :24]


def test_windows_and_the_whole_agree_at_every_joint():
    whole = solved(Resources(threads=2, window=FRAMES, frames=10 * FRAMES))
    windows = solved(Resources(threads=2, window=150, frames=0))
    farthest = float((whole - windows).norm(dim=-1).max())
    print(f"farthest joint: {1000 * farthest:.2e} mm")
    assert farthest < AGREE
