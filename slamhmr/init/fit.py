"""Fit of one body to picture points: the quadratic model of every frame, and two solvers.

`fit_frames` treats frames (or readings of a frame) as independent; `fit_sequence` ties neighbours
together by second differences and solves the banded system. Both are Levenberg-Marquardt and never
accept a rise in energy.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.init.kinematics import TANGENT, Pose, Rig, forward, point_jacobian, retract
from slamhmr.skeleton import SMPL_JOINTS

MIN_DEPTH = 0.2  # m, points nearer than this are held there for the projection
# Hinges: (index into the 63 pose coordinates, sign of flexion). Knees bend about +x, elbows about
# -y / +y.
HINGES: tuple[tuple[int, float], ...] = (
    (3 * (SMPL_JOINTS.index("left_knee") - 1), 1.0),
    (3 * (SMPL_JOINTS.index("right_knee") - 1), 1.0),
    (3 * (SMPL_JOINTS.index("left_elbow") - 1) + 1, -1.0),
    (3 * (SMPL_JOINTS.index("right_elbow") - 1) + 1, 1.0),
)
HINGE_SIGMA = 0.10  # rad, over-extension


@dataclass(frozen=True)
class Mixture:
    """Gaussian mixture on the 63 pose coordinates, used as a max-mixture."""

    means: Float[Tensor, "M 63"]
    precision: Float[Tensor, "M 63 63"]
    offset: Float[Tensor, "M"]  # -log(weight) - 0.5 log det(precision), smallest at 0

    @cached_property
    def pulled(self) -> Float[Tensor, "M 63"]:
        """Precision times mean."""
        return (self.precision @ self.means[..., None])[..., 0]

    def to(self, dtype: torch.dtype) -> "Mixture":
        """Same mixture in another floating point type."""
        return Mixture(self.means.to(dtype), self.precision.to(dtype), self.offset.to(dtype))


@dataclass(frozen=True)
class Evidence:
    """What a frame's body is fitted to."""

    bearings: Float[Tensor, "B K 2"]  # picture points at z = 1
    weight: Float[Tensor, "B K"]  # 0 = not seen
    sigma: Float[Tensor, "B K"]  # of a point, in units of the bearings
    up: Float[Tensor, "B 3"]  # where the body's y axis is expected, camera axes; 0 = unknown

    def to(self, dtype: torch.dtype) -> "Evidence":
        """Same evidence in another floating point type."""
        return Evidence(
            self.bearings.to(dtype), self.weight.to(dtype), self.sigma.to(dtype), self.up.to(dtype)
        )

    def __getitem__(self, index: Tensor | slice) -> "Evidence":
        """Evidence of some batch items."""
        return Evidence(self.bearings[index], self.weight[index], self.sigma[index], self.up[index])


@dataclass(frozen=True)
class FitWeights:
    """Weights of the terms of one fit."""

    prior: float = 1.0
    robust: float = 9.0  # Geman-McClure scale on the squared whitened distance of a point
    up_sigma: float = 0.3  # rad
    # Second differences, per frame^2; infinity = not used.
    turn_sigma: float = 0.05  # rad, of rotations
    depth_sigma: float = 0.01  # of log depth


@dataclass(frozen=True)
class System:
    """Quadratic model of the energy of every frame."""

    energy: Float[Tensor, "B"]
    gradient: Float[Tensor, "B 69"]
    hessian: Float[Tensor, "B 69 69"]


def frame_energy(
    rig: Rig, evidence: Evidence, mixture: Mixture, weights: FitWeights, pose: Pose
) -> Float[Tensor, "B"]:
    """Energy of every frame: robust reprojection, pose prior, hinges, uprightness."""
    _, _, points = forward(rig, pose)
    residual = _project(points) - evidence.bearings
    squared = ((residual / evidence.sigma[..., None]) ** 2).sum(dim=-1)
    data = (evidence.weight * weights.robust * squared / (weights.robust + squared)).sum(dim=-1)
    prior, _, _ = _prior(mixture, pose.rotations)
    over = _over_extension(rig, pose.rotations)
    tilt = _tilt(evidence, weights, pose)
    squared_tilt = (tilt**2).sum(dim=-1)
    upright = 4 * squared_tilt / (4 + squared_tilt)
    return 0.5 * data + weights.prior * prior + 0.5 * (over**2).sum(dim=-1) + 0.5 * upright


def frame_system(
    rig: Rig, evidence: Evidence, mixture: Mixture, weights: FitWeights, pose: Pose
) -> System:
    """Energy, gradient and Gauss-Newton matrix (IRLS) of every frame in its tangent space."""
    turned, joints, points = forward(rig, pose)
    residual = (_project(points) - evidence.bearings) / evidence.sigma[..., None]
    squared = (residual**2).sum(dim=-1)
    irls = evidence.weight * (weights.robust / (weights.robust + squared)) ** 2
    jacobian = point_jacobian(rig, pose, turned, joints, points)
    depth = points[..., 2:].clamp_min(MIN_DEPTH)
    picture = jacobian[..., :2, :] - (points[..., :2] / depth)[..., None] * jacobian[..., 2:, :]
    rows = picture / (depth * evidence.sigma[..., None])[..., None]
    rows = (rows * irls.sqrt()[..., None, None]).flatten(1, 2)
    whitened = (residual * irls.sqrt()[..., None]).flatten(1, 2)
    gradient = torch.einsum("brd,br->bd", rows, whitened)
    hessian = rows.transpose(-1, -2) @ rows
    _, slope, chosen = _prior(mixture, pose.rotations)
    gradient[:, 6:] += weights.prior * slope
    hessian[:, 6:, 6:] += weights.prior * mixture.precision[chosen]
    _add_hinges(rig, pose.rotations, gradient, hessian)
    _add_tilt(evidence, weights, pose, gradient, hessian)
    energy = frame_energy(rig, evidence, mixture, weights, pose)
    return System(energy, gradient, hessian)


def fit_frames(
    rig: Rig,
    evidence: Evidence,
    mixture: Mixture,
    weights: FitWeights,
    pose: Pose,
    iterations: int,
) -> tuple[Pose, Float[Tensor, "B"]]:
    """Levenberg-Marquardt on every frame by itself; returns the poses and their energies."""
    damping = torch.full((len(pose.root), 1), 1e-2, dtype=pose.root.dtype)
    energy = frame_energy(rig, evidence, mixture, weights, pose)
    for _ in range(iterations):
        system = frame_system(rig, evidence, mixture, weights, pose)
        matrix = system.hessian.clone()
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        diagonal += damping * diagonal + 1e-3
        factor, _ = torch.linalg.cholesky_ex(matrix)
        step = -torch.cholesky_solve(system.gradient[..., None], factor)[..., 0]
        trial = retract(pose, step.nan_to_num(0.0, 0.0, 0.0))
        reached = frame_energy(rig, evidence, mixture, weights, trial)
        better = reached < energy
        pose = _choose(better, trial, pose)
        energy = torch.where(better, reached, energy)
        damping = torch.where(better[:, None], damping / 5, damping * 8).clamp(1e-6, 1e4)
    return pose, energy


def fit_sequence(
    rig: Rig,
    evidence: Evidence,
    mixture: Mixture,
    weights: FitWeights,
    pose: Pose,
    *,
    world_from_cam: Float[Tensor, "B 3 3"],
    linked: Float[Tensor, "S"],
    iterations: int,
) -> Pose:
    """Levenberg-Marquardt on all frames together, smooth in time.

    `linked[i]` is 1 where frames i, i+1, i+2 are evenly spaced neighbours, S = B - 2. Root
    rotations are compared in the world of `world_from_cam`, so that a panning camera is no
    acceleration of the person.
    """
    if len(pose.root) < 3:
        return fit_frames(rig, evidence, mixture, weights, pose, iterations)[0]
    damping, stall = 1e-3, 0
    energy = _total(rig, evidence, mixture, weights, pose, world_from_cam, linked)
    for _ in range(iterations):
        system = frame_system(rig, evidence, mixture, weights, pose)
        residual, sigma = _bends(weights, pose, world_from_cam)
        pull = residual / sigma**2 * linked[:, None]
        gradient = system.gradient
        gradient[:-2] += pull
        gradient[1:-1] -= 2 * pull
        gradient[2:] += pull
        while True:
            step = _solve_banded(system.hessian, gradient, sigma, linked, damping)
            trial = retract(pose, step)
            reached = _total(rig, evidence, mixture, weights, trial, world_from_cam, linked)
            if reached < energy or damping > 1e4:
                break
            damping *= 8
        if not reached < energy:
            break
        stall = stall + 1 if energy - reached < 1e-3 * energy else 0
        pose, energy, damping = trial, reached, max(damping / 5, 1e-6)
        if stall == 2:
            break
    return pose


def _total(
    rig: Rig,
    evidence: Evidence,
    mixture: Mixture,
    weights: FitWeights,
    pose: Pose,
    world_from_cam: Tensor,
    linked: Tensor,
) -> float:
    residual, sigma = _bends(weights, pose, world_from_cam)
    smooth = 0.5 * (((residual / sigma) ** 2).sum(dim=-1) * linked).sum()
    return float(frame_energy(rig, evidence, mixture, weights, pose).sum() + smooth)


def _bends(
    weights: FitWeights, pose: Pose, world_from_cam: Float[Tensor, "B 3 3"]
) -> tuple[Float[Tensor, "S 69"], Float[Tensor, "69"]]:
    """Second differences of root, log depth and pose; shifts in the picture are free."""
    root = world_from_cam @ pose.root
    turn = roma.rotmat_to_rotvec(root[:-1].transpose(-1, -2) @ root[1:])
    depth = pose.pelvis[:, 2:].clamp_min(MIN_DEPTH).log()
    bend = torch.cat(
        [
            turn[1:] - turn[:-1],
            torch.zeros(len(turn) - 1, 2, dtype=turn.dtype),
            depth[2:] - 2 * depth[1:-1] + depth[:-2],
            pose.rotations[2:] - 2 * pose.rotations[1:-1] + pose.rotations[:-2],
        ],
        dim=-1,
    )
    sigma = torch.full((TANGENT,), weights.turn_sigma, dtype=bend.dtype)
    sigma[3:5] = 1e6
    sigma[5] = weights.depth_sigma
    return bend, sigma


def _solve_banded(
    hessian: Float[Tensor, "B 69 69"],
    gradient: Float[Tensor, "B 69"],
    sigma: Float[Tensor, "69"],
    linked: Float[Tensor, "S"],
    damping: float,
) -> Float[Tensor, "B 69"]:
    """Step of the damped system; blocks off the diagonal are themselves diagonal."""
    from scipy.linalg import solveh_banded

    frames = len(hessian)
    stiff = linked[:, None] / sigma**2
    diagonal = hessian.diagonal(dim1=-2, dim2=-1).clone()
    diagonal[:-2] += stiff
    diagonal[1:-1] += 4 * stiff
    diagonal[2:] += stiff
    first = torch.zeros_like(gradient)
    first[1:-1] -= 2 * stiff
    first[2:] -= 2 * stiff
    second = torch.zeros_like(gradient)
    second[2:] += stiff
    band = torch.zeros(2 * TANGENT + 1, frames, TANGENT, dtype=torch.float64)
    for offset in range(1, TANGENT):
        band[2 * TANGENT - offset, :, offset:] = hessian.diagonal(offset, dim1=-2, dim2=-1)
    band[2 * TANGENT] = diagonal * (1 + damping) + 1e-6
    band[TANGENT] = first
    band[0] = second
    step = solveh_banded(
        band.flatten(1).numpy(), -gradient.double().flatten().numpy(), check_finite=False
    )
    return torch.from_numpy(step).reshape(frames, TANGENT).to(gradient.dtype)


def _project(points: Float[Tensor, "B K 3"]) -> Float[Tensor, "B K 2"]:
    return points[..., :2] / points[..., 2:].clamp_min(MIN_DEPTH)


def _prior(mixture: Mixture, rotations: Float[Tensor, "B 63"]) -> tuple[Tensor, Tensor, Tensor]:
    """Energy of the nearest component, its gradient, and which it is."""
    squared = torch.stack([((rotations @ half) * rotations).sum(-1) for half in mixture.precision])
    constant = 0.5 * (mixture.pulled * mixture.means).sum(dim=-1) + mixture.offset
    energy = 0.5 * squared.T - rotations @ mixture.pulled.T + constant
    least, chosen = energy.min(dim=1)
    apart = rotations - mixture.means[chosen]
    slope = (mixture.precision[chosen] @ apart[..., None])[..., 0]
    return least, slope, chosen


def _over_extension(rig: Rig, rotations: Float[Tensor, "B 63"]) -> Float[Tensor, "B 4"]:
    """Flexion below 0 in `HINGE_SIGMA`; flexion of the mean and about it add up, one axis."""
    whole = rotations + roma.rotmat_to_rotvec(rig.mean_rotations).reshape(63)
    flexion = torch.stack([sign * whole[:, index] for index, sign in HINGES], dim=-1)
    return flexion.clamp_max(0) / HINGE_SIGMA


def _add_hinges(rig: Rig, rotations: Tensor, gradient: Tensor, hessian: Tensor) -> None:
    over = _over_extension(rig, rotations)
    for column, (index, sign) in enumerate(HINGES):
        gradient[:, 6 + index] += over[:, column] * sign / HINGE_SIGMA
        hessian[:, 6 + index, 6 + index] += (over[:, column] < 0) / HINGE_SIGMA**2


def _tilt(evidence: Evidence, weights: FitWeights, pose: Pose) -> Float[Tensor, "B 3"]:
    """Deviation of the body's y axis from the expected one, body frame; 0 where unknown."""
    expected = (pose.root.transpose(-1, -2) @ evidence.up[..., None])[..., 0]
    known = evidence.up.norm(dim=-1, keepdim=True)
    axis = torch.tensor([0.0, 1.0, 0.0], dtype=expected.dtype)
    return (expected - known * axis) / weights.up_sigma


def _add_tilt(
    evidence: Evidence, weights: FitWeights, pose: Pose, gradient: Tensor, hessian: Tensor
) -> None:
    tilt = _tilt(evidence, weights, pose)
    irls = (4 / (4 + (tilt**2).sum(dim=-1))) ** 2
    expected = (pose.root.transpose(-1, -2) @ evidence.up[..., None])[..., 0]
    x, y, z = expected.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)
    rows = cross / weights.up_sigma
    gradient[:, :3] += irls[:, None] * (rows.transpose(-1, -2) @ tilt[..., None])[..., 0]
    hessian[:, :3, :3] += irls[:, None, None] * rows.transpose(-1, -2) @ rows


def _choose(better: Tensor, first: Pose, second: Pose) -> Pose:
    return replace(
        first,
        root=torch.where(better[:, None, None], first.root, second.root),
        pelvis=torch.where(better[:, None], first.pelvis, second.pelvis),
        rotations=torch.where(better[:, None], first.rotations, second.rotations),
    )
