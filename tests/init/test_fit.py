"""Derivatives and solvers of the initialiser against finite differences and dense algebra."""

import pytest
import roma
import torch

from slamhmr.body import load_body
from slamhmr.init.fit import (
    Evidence,
    FitWeights,
    Mixture,
    _solve_banded,
    fit_frames,
    frame_energy,
    frame_system,
)
from slamhmr.init.kinematics import (
    TANGENT,
    Pose,
    Rig,
    build_rig,
    forward,
    point_jacobian,
    retract,
)
from slamhmr.init.library import build_views, everyday_poses
from slamhmr.init.lookup import look_up
from slamhmr.init.path import PathWeights, best_path
from slamhmr.skeleton import KEYPOINTS

STEP = 1e-6


@pytest.fixture(scope="module")
def rig() -> Rig:
    generator = torch.Generator().manual_seed(0)
    body = load_body()
    mean = roma.rotvec_to_rotmat(0.2 * torch.randn(21, 3, generator=generator, dtype=torch.float64))
    betas = torch.zeros(body.shapedirs.shape[-1], dtype=torch.float64)
    return build_rig(body, betas, KEYPOINTS, mean)


def random_pose(count: int, seed: int = 1) -> Pose:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    pelvis = torch.tensor([0.2, -0.1, 4.0], dtype=torch.float64) + 0.2 * draw(count, 3)
    return Pose(roma.rotvec_to_rotmat(draw(count, 3)), pelvis, 0.4 * draw(count, 63))


def evidence_near(rig: Rig, pose: Pose) -> Evidence:
    _, _, points = forward(rig, pose)
    bearings = points[..., :2] / points[..., 2:]
    generator = torch.Generator().manual_seed(5)
    noise = 0.01 * torch.randn(bearings.shape, generator=generator, dtype=torch.float64)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64).expand(len(bearings), 3)
    weight = torch.full(bearings.shape[:2], 0.8, dtype=torch.float64)
    return Evidence(bearings + noise, weight, torch.full_like(weight, 0.008), up)


def two_gaussians() -> Mixture:
    means = torch.stack([torch.zeros(63), 0.3 * torch.ones(63)]).double()
    precision = torch.stack([torch.eye(63) * 4, torch.eye(63) * 9]).double()
    return Mixture(means, precision, torch.tensor([0.0, 1.5], dtype=torch.float64))


def test_point_jacobian_matches_central_differences(rig: Rig) -> None:
    pose = random_pose(2)
    analytic = point_jacobian(rig, pose, *forward(rig, pose))
    for column in range(TANGENT):
        step = torch.zeros(2, TANGENT, dtype=torch.float64)
        step[:, column] = STEP
        ahead, behind = forward(rig, retract(pose, step))[2], forward(rig, retract(pose, -step))[2]
        numeric = (ahead - behind) / (2 * STEP)
        torch.testing.assert_close(analytic[..., column], numeric, atol=1e-6, rtol=1e-5)


def test_gradient_matches_central_differences(rig: Rig) -> None:
    target = random_pose(3)
    evidence, mixture, weights = evidence_near(rig, target), two_gaussians(), FitWeights()
    pose = retract(target, 0.05 * torch.ones(3, TANGENT, dtype=torch.float64))
    system = frame_system(rig, evidence, mixture, weights, pose)
    for column in range(TANGENT):
        step = torch.zeros(3, TANGENT, dtype=torch.float64)
        step[:, column] = STEP
        ahead = frame_energy(rig, evidence, mixture, weights, retract(pose, step))
        behind = frame_energy(rig, evidence, mixture, weights, retract(pose, -step))
        numeric = (ahead - behind) / (2 * STEP)
        torch.testing.assert_close(system.gradient[:, column], numeric, atol=2e-3, rtol=1e-4)


def test_banded_step_equals_a_dense_solve() -> None:
    generator = torch.Generator().manual_seed(2)
    frames, damping = 5, 0.1
    root = torch.randn(frames, TANGENT, TANGENT, generator=generator, dtype=torch.float64)
    hessian = root @ root.transpose(-1, -2) / TANGENT + torch.eye(TANGENT, dtype=torch.float64)
    gradient = torch.randn(frames, TANGENT, generator=generator, dtype=torch.float64)
    sigma = torch.rand(TANGENT, generator=generator, dtype=torch.float64) + 0.5
    linked = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    dense = torch.block_diag(*hessian)
    for first in range(frames - 2):
        rows = torch.zeros(TANGENT, frames * TANGENT, dtype=torch.float64)
        for offset, factor in enumerate((1.0, -2.0, 1.0)):
            start = (first + offset) * TANGENT
            rows[:, start : start + TANGENT] = torch.diag(factor / sigma)
        dense = dense + linked[first] * rows.T @ rows
    dense = dense + torch.diag(damping * dense.diagonal() + 1e-6)
    expected = torch.linalg.solve(dense, -gradient.flatten()).reshape(frames, TANGENT)
    step = _solve_banded(hessian, gradient, sigma, linked, damping)
    torch.testing.assert_close(step, expected, atol=1e-9, rtol=1e-9)


def test_fitting_frames_never_raises_the_energy(rig: Rig) -> None:
    target = random_pose(4)
    evidence, mixture, weights = evidence_near(rig, target), two_gaussians(), FitWeights()
    start = retract(target, 0.2 * torch.ones(4, TANGENT, dtype=torch.float64))
    before = frame_energy(rig, evidence, mixture, weights, start)
    fitted, energy = fit_frames(rig, evidence, mixture, weights, start, 8)
    assert bool((energy < 0.5 * before).all())
    again = frame_energy(rig, evidence, mixture, weights, fitted)
    torch.testing.assert_close(energy, again)


def test_a_library_view_is_found_again(rig: Rig) -> None:
    library = build_views(rig, everyday_poses()[:12], 8, (0.0,))
    wanted = torch.tensor([5, 40, 77])
    depth = torch.tensor([3.0, 5.0, 9.0], dtype=torch.float64)
    far = library.points[wanted][..., :2] / depth[:, None, None]
    found = look_up(library, far, torch.ones(far.shape[:2], dtype=torch.float64), 3)
    best = found.pose[torch.arange(3) * 3]
    turn = roma.rotmat_geodesic_distance(best.root, library.root[wanted])
    assert float(turn.max()) < 0.1  # the virtual camera aims at the points, not at the pelvis
    torch.testing.assert_close(best.pelvis[:, 2], depth, rtol=0.02, atol=0.02)


def test_the_path_prefers_steady_readings_over_single_frames() -> None:
    """The other reading looks slightly better in one frame; changing to it and back costs more."""
    frames = 9
    joints = torch.zeros(frames, 2, 22, 3, dtype=torch.float64)
    joints[:, 1] = 0.4
    energy = torch.zeros(frames, 2, dtype=torch.float64)
    energy[:, 1] = 2.0
    energy[4] = torch.tensor([3.0, 0.0], dtype=torch.float64)
    seconds = torch.arange(frames, dtype=torch.float64) / 15
    path, marginal = best_path(
        energy, joints, torch.full((frames, 2), 4.0, dtype=torch.float64), seconds, PathWeights()
    )
    assert path.tolist() == [0] * frames
    assert float(marginal.min()) == 0
    assert bool((marginal[:, 1] > 0).all())


def test_the_path_may_change_its_reading_freely_at_a_cut() -> None:
    """The other reading is slightly better from frame 5 on, the change to it dear."""
    frames = 10
    joints = torch.zeros(frames, 2, 22, 3, dtype=torch.float64)
    joints[:, 1] = 3.0
    energy = torch.tensor([[0.0, 1.0]] * 5 + [[1.0, 0.0]] * 5, dtype=torch.float64)
    depth = torch.full((frames, 2), 4.0, dtype=torch.float64)
    seconds = torch.arange(frames, dtype=torch.float64) / 15
    path, _ = best_path(energy, joints, depth, seconds, PathWeights())
    assert len(set(path.tolist())) == 1
    linked = torch.arange(1, frames) != 5
    path, _ = best_path(energy, joints, depth, seconds, PathWeights(), linked)
    assert path.tolist() == [0] * 5 + [1] * 5
