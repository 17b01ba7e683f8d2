"""Cameras that shake, drift and look past gravity: what stages do about it."""

from dataclasses import replace

import pytest
import roma
import synthetic
import torch
from sequences import BODY, make_state

from slamhmr.cameras import MODES, degrees_of_freedom, drift_basis, levelled, metric_cameras
from slamhmr.jitter import settle
from slamhmr.reprojection import project_keypoints
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.assemble import assemble
from slamhmr.terms import term_settings
from slamhmr.terms.data import ReprojectionSettings

DEGREE = torch.pi / 180


def shaken(people=1, frames=6):
    """Exact keypoints of cameras that shake by 0.3 degrees against what is said of them."""
    scene, evidence, points = synthetic.make_scene(frames=frames, people=people)
    generator = torch.Generator().manual_seed(3)
    jitter = 0.3 * DEGREE * torch.randn(frames, 3, generator=generator, dtype=torch.float64)
    told = [
        replace(e, world_from_cam=e.world_from_cam @ roma.rotvec_to_rotmat(jitter))
        for e in evidence
    ]
    return scene, told, points, jitter


@pytest.mark.parametrize("people", [1, 3])
def test_jitter_is_found_from_everybodys_keypoints(people):
    scene, evidence, points, jitter = shaken(people)
    layout = synthetic.layout()
    settings = ReprojectionSettings(sigma=0.001, mu=1e9)
    found = settle(scene, evidence, layout, points, settings, 1.0 * DEGREE)
    assert float((found.jitter - jitter).norm(dim=-1).max()) < 0.01 * DEGREE
    tied = settle(scene, evidence, layout, points, settings, 1e-6 * DEGREE)
    assert float(tied.jitter.norm(dim=-1).max()) < 1e-3 * DEGREE


def test_information_is_that_of_the_reduced_problem():
    """H with the jitter taken off = Schur complement of the matrix that holds it."""
    scene, evidence, points, _ = shaken(frames=4)
    layout, sigma = synthetic.layout(), 0.1 * DEGREE
    chosen = {"reprojection": term_settings("t", "reprojection", {}, 0)}
    scene = settle(scene, evidence, layout, points, chosen["reprojection"], sigma)
    problem = SceneProblem(points, evidence, layout, chosen, scene)
    window = problem.window(scene, 0, 0, 4, derivatives=True)
    free = assemble(window, problem.chains[0])
    fixed = assemble(replace(window, local=None, residuals=bare(window)), problem.chains[0])
    eps = 1e-6
    cross = []
    for axis in torch.eye(3, dtype=torch.float64):
        parts = []
        for step in (eps, -eps):
            moved = replace(scene, jitter=scene.jitter + step * axis)
            at = problem.window(moved, 0, 0, 4, derivatives=True)
            parts.append(assemble(replace(at, local=None, residuals=frozen(at, window)),
                                  problem.chains[0]).gradient)  # fmt: skip
        cross.append((parts[0] - parts[1]) / (2 * eps))
    cross = torch.stack(cross, dim=-1)  # (T, d, 3)
    information = scene.jitter_information
    expected = fixed.band[0] - cross @ torch.linalg.solve(information, cross.mT)
    taken = fixed.band[0] - expected
    assert float((free.band[0] - expected).norm()) < 0.01 * float(taken.norm())


def bare(window):
    return [replace(residual, local=None) for residual in window.residuals]


def frozen(there, here):
    """Values of another state with derivatives and weights of this one."""
    return [
        replace(a, value=b.value, local=None, kernel=None, weight=a.weight * robust(a))
        for a, b in zip(here.residuals, there.residuals, strict=True)
    ]


def robust(residual):
    from slamhmr.solve.problem import robust_weight

    return robust_weight((residual.value**2).sum(dim=-1), residual.kernel)


def test_drift_is_a_random_walk_that_begins_at_zero():
    basis = drift_basis(301)
    assert basis.shape == (301, MODES)
    assert float(basis[0].abs().max()) == 0
    variance = (basis**2).sum(dim=1)  # of unit coefficients: time itself, but for the cut-off
    expected = torch.linspace(0, 1, 301, dtype=torch.float64)
    assert float((variance - expected).abs().max()) < 0.08


def test_corrected_cameras_and_levelling_leave_the_image_alone():
    state = make_state()
    frames = state.valid.shape[1]
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return 0.02 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    state = replace(state, drift=noise(MODES, 6), jitter=noise(frames, 3))
    assert not torch.allclose(metric_cameras(state), metric_cameras(make_state()))
    tilted = torch.tensor([0.1, -0.05, 1.0], dtype=torch.float64)
    state = replace(state, up=tilted / tilted.norm())
    level = levelled(state)
    torch.testing.assert_close(level.up, torch.tensor([0.0, 0, 1], dtype=torch.float64))
    names = ("nose", "left_ankle")
    torch.testing.assert_close(
        project_keypoints(state, BODY, names), project_keypoints(level, BODY, names)
    )


def test_what_can_be_wrong_with_a_camera():
    cameras = make_state().cameras
    assert degrees_of_freedom(cameras) == 6
    still = replace(cameras, moving=False)
    eye = torch.eye(4, dtype=torch.float64).expand_as(cameras.world_from_cam)
    assert degrees_of_freedom(replace(still, world_from_cam=eye)) == 0
    turned = eye.clone()
    turned[1:, :3, :3] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.1, 0.0]).double())
    assert degrees_of_freedom(replace(still, world_from_cam=turned)) == 3
