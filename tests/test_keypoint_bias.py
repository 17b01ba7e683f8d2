"""Constant errors of keypoints: their derivative, their place in the border, what they blur."""

from dataclasses import replace

import pytest
import roma
import torch
from scenes import BODY

from slamhmr.bench.nuisances import Solved, nuisance_spec
from slamhmr.bench.posterior import stated
from slamhmr.config import load_config
from slamhmr.init.align import align
from slamhmr.keypoint_bias import BiasedProblem
from slamhmr.posterior import Calibration
from slamhmr.scene_problem import Known, scene_problem
from slamhmr.solve.assemble import assemble
from slamhmr.solve.posterior import border_covariance
from slamhmr.solve.sweep import Resources, Sweep
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import make_scene
from slamhmr.types import Initial

CONFIG = load_config()
FRAMES = 12


@pytest.fixture(scope="module")
def solved() -> Solved:
    """The truth seen through noise, as if it had been solved for."""
    spec = replace(nuisance_spec("fit", 0)[0], frames=FRAMES, people=2)
    truth = make_scene(spec, BODY)
    observations, cameras = observe(truth, BODY, spec)
    cam = torch.linalg.inv(truth.world_from_cam)
    pose = torch.eye(4, dtype=torch.float64).repeat(2, FRAMES, 1, 1)
    pose[..., :3, :3], pose[..., :3, 3] = truth.root, truth.pelvis
    initial = Initial(
        observations.person_id, cam @ pose, roma.rotmat_to_rotvec(truth.body_rotations),
        truth.betas, truth.valid,
        root_velocity=torch.zeros_like(truth.pelvis),
        root_velocity_sigma=torch.ones_like(truth.pelvis),
    )  # fmt: skip
    known = Known(observations, initial, BODY, torch.full((2,), torch.nan, dtype=torch.float64))
    return Solved(truth, known, align(initial, observations, cameras, BODY))


def biased(solved: Solved, sigma: float, **changes: object) -> tuple[BiasedProblem, object]:
    stage = replace(CONFIG.stages["motion"], **changes)
    problem, scene = scene_problem(solved.state, solved.known, "motion", stage)
    return BiasedProblem(problem, sigma), problem.settled(scene)


@pytest.mark.parametrize("focal", [False, True])
def test_derivative_is_that_of_moved_keypoints(solved: Solved, focal: bool) -> None:
    stage = CONFIG.stages["motion"]
    free = [*stage.free, *(["focal"] if focal else [])]
    terms = {**stage.terms, **({"focal": {}} if focal else {})}
    problem, scene = biased(solved, 0.01, free=free, terms=terms)
    known = problem.unbiased.evidence[1]
    window = problem.window(scene, 1, 0, FRAMES, derivatives=True)
    found = next(r for r in window.residuals if r.name == "reprojection")
    keypoint, step = 4, 1e-5
    moved = known.keypoints.clone()
    moved[:, keypoint, 1] -= step * known.size_px  # the image point lies that much lower
    inner = replace(
        problem.unbiased,
        evidence=[problem.unbiased.evidence[0], replace(known, keypoints=moved)],
    )
    other = inner.window(scene, 1, 0, FRAMES, derivatives=False)
    after = next(r for r in other.residuals if r.name == "reprojection").value
    slope = (after - found.value) / step
    column = problem.place.start + 2 * keypoint + 1 - found.border_slice.start
    seen = found.weight > 0
    assert torch.allclose(found.border_derivative[..., column][seen], slope[seen], atol=1e-4)
    assert float(slope[:, keypoint, 1][seen[:, keypoint]].abs().min()) > 1


def test_the_other_columns_stay_what_they_are(solved: Solved) -> None:
    problem, scene = biased(solved, 0.01)
    for chain, shape in enumerate(problem.chains):
        before = problem.unbiased.chains[chain]
        assert torch.equal(shape.border_columns[problem.kept], before.border_columns)
        plain = assemble(problem.unbiased.window(scene, chain, 0, FRAMES, derivatives=True), before)
        wide = assemble(problem.window(scene, chain, 0, FRAMES, derivatives=True), shape)
        kept = problem.kept
        assert torch.allclose(wide.border[..., kept], plain.border, rtol=1e-10, atol=1e-8)
        corner = wide.corner[kept[:, None], kept]
        assert torch.allclose(corner, plain.corner, rtol=1e-9, atol=1e-7)
        assert torch.allclose(wide.corner, wide.corner.T, rtol=1e-9, atol=1e-7)


def test_offsets_blur_shapes(solved: Solved) -> None:
    def shapes(sigma: float) -> torch.Tensor:
        problem, scene = biased(solved, sigma)
        border = border_covariance(Sweep(problem, scene, 0.0, Resources()))
        place = problem.unbiased.layout.betas_of(1)
        return border[place, place]

    sharp, blurred = shapes(1e-6), shapes(0.02)
    least = torch.linalg.eigvalsh(blurred - sharp).amin()
    assert float(least) > -1e-6 * float(blurred.abs().max()), "never surer for an unknown more"
    assert float(blurred.trace()) > 1.05 * float(sharp.trace())


def test_distance_from_the_posteriors_minimum_counts_as_an_error(solved: Solved) -> None:
    """Its weights are not the stage's: variances are second moments about the state."""
    problem, scene = biased(solved, 0.01)
    sweep = Sweep(problem, scene, 0.0, Resources())
    border, step = border_covariance(sweep), sweep.solve().step
    found = stated(solved, CONFIG, Calibration(keypoint_bias=0.01))
    layout = problem.unbiased.layout
    place = layout.ground
    assert found.ground_cov is not None
    own = border[place, place] + torch.outer(step.border[place], step.border[place])
    assert torch.allclose(found.ground_cov, own, rtol=1e-6)
    assert float(step.border[place].norm()) > 0
