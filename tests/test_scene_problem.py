"""The energy of a stage on people who are seen briefly, on odd windows, after other stages."""

import math
from dataclasses import replace

import pytest
import roma
import synthetic
import torch

from slamhmr.layout import BorderLayout, Free
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.levenberg import Schedule, minimise
from slamhmr.solve.problem import Step
from slamhmr.solve.sweep import Resources, Sweep, energies_of
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


def test_jitter_of_an_earlier_stage_holds_in_a_stage_that_does_not_free_cameras():
    """It is in the result, so it must be in the energy: the very cameras that saw the keypoints."""
    problem, scene = problem_of(4, terms=("reprojection",))
    jitter = torch.full((4, 3), 0.01, dtype=torch.float64)
    back = roma.rotvec_to_rotmat(jitter)
    told = [replace(e, world_from_cam=e.world_from_cam @ back) for e in problem.evidence]
    problem = replace(problem, evidence=told)
    solved = replace(scene, jitter=jitter)  # takes out what the told cameras are off by
    before = energies_of(problem, scene, Resources())["reprojection"]
    assert energies_of(problem, solved, Resources())["reprojection"] < 1e-9 * before


def test_jitter_is_eliminated_from_the_energy_that_is_minimised():
    """The term's weight counts for both; the gradient at the settled jitter is zero."""
    terms = ("reprojection", "camera")
    problem, scene = problem_of(4, terms=terms, drift=6)
    moved = replace(scene.people[0], pelvis=scene.people[0].pelvis + 0.02)
    scene = replace(scene, people=(moved,))
    camera = replace(problem.settings["camera"], weight=9.0)
    problem = replace(problem, settings={**problem.settings, "camera": camera})
    settled = problem.settled(scene)
    lowest = sum(energies_of(problem, settled, Resources()).values())
    for factor in (0.98, 1.02):
        other = replace(settled, jitter=factor * settled.jitter)
        assert sum(energies_of(problem, other, Resources()).values()) > lowest


def test_drift_is_as_wide_as_the_clip_is_long_whoever_is_there():
    """A person who leaves early does not make the cameras better."""
    problem, scene = problem_of(12, terms=("reprojection", "camera"), drift=6)
    drifted = replace(scene, drift=torch.full_like(scene.drift, 0.01))
    early = replace(problem, evidence=[problem.evidence[0].part(0, 3)])
    whole = problem.border(drifted)[0].energy()
    torch.testing.assert_close(early.border(drifted)[0].energy(), whole)


def test_a_step_that_is_not_a_number_shows_in_its_norm():
    step = Step([torch.ones(2, 3)], torch.tensor([torch.nan]))
    assert math.isnan(step.norm())
