"""Constant errors of keypoints: found in a solve, and what they blur in the posterior."""

from dataclasses import replace

import pytest
import roma
import torch
from scenes import BODY

from slamhmr.bench.nuisances import Solved, nuisance_spec
from slamhmr.bench.posterior import stated
from slamhmr.config import load_config
from slamhmr.init.align import align
from slamhmr.layout import BorderLayout
from slamhmr.posterior import Calibration, one_guess_per_gap, with_offsets
from slamhmr.scene_problem import Known, scene_problem
from slamhmr.solve.posterior import border_covariance
from slamhmr.solve.sweep import Resources, Sweep
from slamhmr.stages import run_stage
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import make_scene
from slamhmr.types import Initial

CONFIG = load_config()
FRAMES = 12


def at_truth(frames: int, people: int, **changes: object) -> Solved:
    """The truth seen through noise, as if it had been solved for."""
    spec = replace(nuisance_spec("fit", 0)[0], frames=frames, people=people, **changes)
    truth = make_scene(spec, BODY)
    observations, cameras = observe(truth, BODY, spec)
    cam = torch.linalg.inv(truth.world_from_cam)
    pose = torch.eye(4, dtype=torch.float64).repeat(people, frames, 1, 1)
    pose[..., :3, :3], pose[..., :3, 3] = truth.root, truth.pelvis
    initial = Initial(
        observations.person_id, cam @ pose, roma.rotmat_to_rotvec(truth.body_rotations),
        truth.betas, truth.valid,
        root_velocity=torch.zeros_like(truth.pelvis),
        root_velocity_sigma=torch.ones_like(truth.pelvis),
    )  # fmt: skip
    heights = torch.full((people,), torch.nan, dtype=torch.float64)
    known = Known(observations, initial, BODY, heights)
    return Solved(truth, known, align(initial, observations, cameras, BODY))


@pytest.fixture(scope="module")
def solved() -> Solved:
    return at_truth(FRAMES, 2)


def test_an_offset_of_one_keypoint_is_found() -> None:
    made = at_truth(40, 1, keypoint_noise=0.0, outliers=0.0, noise="white", motion="turn")
    seen = made.known.observations
    names, wrong = seen.keypoint_names, torch.zeros(len(seen.keypoint_names), 2).double()
    wrong[names.index("left_hip")] = torch.tensor([0.02, -0.03])
    wrong[names.index("right_knee")] = torch.tensor([-0.03, 0.0])
    size = (seen.boxes[..., 2:] - seen.boxes[..., :2]).amax(dim=-1).median()
    known = replace(made.known, observations=replace(seen, keypoints=seen.keypoints + size * wrong))
    stage = with_offsets(replace(CONFIG.stages["motion"], free=["root", "pose", "offsets"]))
    terms = {**stage.terms, "keypoint_offset": {"sigma": 0.02}}
    state, _ = run_stage(made.state, known, "motion", replace(stage, terms=terms))
    assert state.keypoint_offsets is not None
    found = state.keypoint_offsets[0]
    assert float((found * wrong).sum() / (wrong**2).sum()) > 0.5
    untouched = (wrong == 0).all(dim=1)
    assert float(found[untouched].abs().max()) < 0.02


def posterior_problem(solved: Solved, sigma: float) -> tuple[BorderLayout, Sweep]:
    stage = CONFIG.stages["motion"]
    terms = {**stage.terms, "keypoint_offset": {"sigma": sigma}}
    problem, scene = scene_problem(
        solved.state, solved.known, "motion", replace(stage, terms=terms)
    )
    problem = one_guess_per_gap(problem, solved.state.observed)
    return problem.layout, Sweep(problem, problem.settled(scene), 0.0, Resources())


def test_offsets_blur_shapes(solved: Solved) -> None:
    def shapes(sigma: float) -> torch.Tensor:
        layout, sweep = posterior_problem(solved, sigma)
        place = layout.betas_of(1)
        return border_covariance(sweep)[place, place]

    sharp, blurred = shapes(1e-6), shapes(0.02)
    least = torch.linalg.eigvalsh(blurred - sharp).amin()
    assert float(least) > -1e-6 * float(blurred.abs().max()), "never surer for an unknown more"
    assert float(blurred.trace()) > 1.05 * float(sharp.trace())


def test_the_posterior_has_offsets_whether_the_stage_has_or_not(solved: Solved) -> None:
    stage = CONFIG.stages["motion"]
    plain = replace(
        stage,
        free=[name for name in stage.free if name != "offsets"],
        terms={name: v for name, v in stage.terms.items() if name != "keypoint_offset"},
    )
    widened = with_offsets(plain)
    assert "offsets" in widened.free
    assert "keypoint_offset" in widened.terms
    assert with_offsets(stage) is stage


def test_distance_from_the_posteriors_minimum_counts_as_an_error(solved: Solved) -> None:
    """Its weights are not the stage's: variances are second moments about the state."""
    layout, sweep = posterior_problem(solved, 0.01)
    border, step = border_covariance(sweep), sweep.solve().step
    weights = {"keypoint_offset": {"sigma": 0.01, "scale": 1.0}}
    found = stated(solved, CONFIG, Calibration(weights=weights))
    place = layout.ground
    assert found.ground_cov is not None
    own = border[place, place] + torch.outer(step.border[place], step.border[place])
    assert torch.allclose(found.ground_cov, own, rtol=1e-6)
    assert float(step.border[place].norm()) > 0


def test_offsets_that_enlarge_the_person_are_held(solved: Solved) -> None:
    stage = CONFIG.stages["motion"]
    problem, scene = scene_problem(solved.state, solved.known, "motion", stage)
    evidence = problem.evidence[0]
    (pattern,) = evidence.patterns()
    moved = replace(evidence, keypoints=2 * evidence.keypoints + 30.0)
    assert torch.allclose(moved.patterns()[0], 2 * pattern)
    unseen = evidence.confidence.clone()
    unseen[:, 3] = 0
    assert float(replace(evidence, confidence=unseen).patterns()[0, 3].norm()) == 0

    def energy(offsets: torch.Tensor) -> float:
        both = torch.stack([offsets, torch.zeros_like(offsets)])
        residuals = problem.border(replace(scene, offsets=both))
        return float(sum(r.energy() for r in residuals if r.name == "keypoint_offset"))

    larger = 0.01 * pattern
    aside = larger.roll(1, dims=0)  # of the same length, in no order
    held = stage.terms["keypoint_offset"]["scale"]
    share = float((aside * pattern).sum() / (pattern**2).sum())
    expected = 0.5 * (0.01**2 - share**2) / held**2
    assert energy(larger) - energy(aside) == pytest.approx(expected, rel=1e-6)
    assert expected > 1
