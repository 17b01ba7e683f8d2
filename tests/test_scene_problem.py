"""The energy of a stage on people who are seen briefly, on odd windows, after other stages."""

from dataclasses import replace

import pytest
import synthetic
import torch

from slamhmr.scene import BorderLayout, Free
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.levenberg import Schedule, minimise
from slamhmr.solve.sweep import Resources, Sweep
from slamhmr.terms import term_settings

TERMS = (
    "reprojection",
    "initial_pose",
    "acceleration",
    "turning",
    "pose_prior",
    "contact_velocity",
)


def problem_of(frames, terms=TERMS, **free):
    scene, evidence, points = synthetic.make_scene(frames=frames)
    chosen = {name: term_settings("t", name, {}, 0) for name in terms}
    layout = BorderLayout(Free(**{"pose": True, "betas": False, "scale": True, "ground": False,
                                  **free}), len(scene.people[0].betas))  # fmt: skip
    return SceneProblem(points, evidence, layout, chosen, scene), scene


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_somebody_present_for_a_few_frames_is_solved(frames):
    problem, scene = problem_of(frames, betas=True)
    moved = replace(scene.people[0], pelvis=scene.people[0].pelvis + 0.05)
    start = replace(scene, people=(moved,))
    _, summary = minimise(problem, start, Schedule(iterations=5))
    assert summary.total_after < 0.5 * summary.total_before


def test_windows_that_end_in_two_frames_give_the_same_step():
    """With windows of 4, a clip of 10 frames leaves the last one with 2."""
    problem, scene = problem_of(10)
    whole = Sweep(problem, scene, 0.1, Resources()).solve().step
    parts = Sweep(problem, scene, 0.1, Resources(window=4)).solve().step
    torch.testing.assert_close(whole.chains[0], parts.chains[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.border, parts.border, rtol=0, atol=1e-5)
