"""Poses of our body from 3D points of another: inverse kinematics by Gauss-Newton, frame by frame.

Energy: squared distances of the points in units of `POINT_SIGMA`, and the Gaussian of the poses
that the pose prior draws, which decides on what the points leave open: twists of limbs, how the
spine's bend is shared, how far the pelvis tilts about the hips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from priors.pose import PosePrior
from slamhmr.body import BodyModel
from slamhmr.geometry import similarity_between
from slamhmr.init.geometric import pose_mixture
from slamhmr.init.kinematics import (
    TANGENT,
    Pose,
    Rig,
    body_pose,
    build_rig,
    coordinates,
    forward,
    point_jacobian,
    retract,
)
from slamhmr.skeleton import SMPL_JOINTS

POINT_SIGMA = 0.01  # m: the same joint of two body models
LANDMARK_SIGMA = 0.03  # m: face and feet, which lie on the skin
DRAWN = 2000  # poses
LEAST_VARIANCE = 0.01  # rad^2, added to that of the poses drawn
ITERATIONS = 20
LIMBS = (
    ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"),
)  # fmt: skip
TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")


@dataclass(frozen=True)
class _Task:
    """What poses are fitted to, and which are expected."""

    rig: Rig
    points: Float[Tensor, "S K 3"]
    sigma: Float[Tensor, "K"]
    mean: Float[Tensor, "63"]
    precision: Float[Tensor, "63 63"]


def pose_from_points(
    body: BodyModel, betas: Float[Tensor, "B"], names: Sequence[str], points: Float[Tensor, "S K 3"]
) -> tuple[Float[Tensor, "S 3 3"], Float[Tensor, "S 3"], Float[Tensor, "S 21 3"]]:
    """Roots, pelvis joints and rotation vectors with which a body's points lie on `points` best.

    `names` are keypoints or joints that the body has, among them shoulders and hips; points in the
    camera, m, for a body of this size (`size_ratio`).
    """
    prior, _ = pose_mixture()
    rig = build_rig(body, betas, tuple(names), prior.mean_rotations)
    pose = _start(rig, names, points)
    sigma = torch.tensor(
        [POINT_SIGMA if name in SMPL_JOINTS else LANDMARK_SIGMA for name in names],
        dtype=points.dtype,
    )
    task = _Task(rig, points, sigma, *_poses(rig, prior))
    energy = _energy(task, pose)
    damping = torch.full((len(points), 1), 1e-3, dtype=points.dtype)
    for _ in range(ITERATIONS):
        trial = retract(pose, _step(task, pose, damping))
        reached = _energy(task, trial)
        better = reached < energy
        pose = Pose(
            torch.where(better[:, None, None], trial.root, pose.root),
            torch.where(better[:, None], trial.pelvis, pose.pelvis),
            torch.where(better[:, None], trial.rotations, pose.rotations),
        )
        energy = torch.where(better, reached, energy)
        damping = torch.where(better[:, None], damping / 5, damping * 8).clamp(1e-9, 1e6)
    return pose.root, pose.pelvis, body_pose(rig, pose)


def size_ratio(
    body: BodyModel, betas: Float[Tensor, "B"], names: Sequence[str], points: Float[Tensor, "S K 3"]
) -> float:
    """Length of a body's limbs over that of the same bones of `points`, median over time."""
    prior, _ = pose_mixture()
    rig = build_rig(body, betas, tuple(names), prior.mean_rotations)
    pairs = [
        [names.index(f"{side}_{part}") for part in bone]
        for bone in LIMBS
        for side in ("left", "right")
    ]
    upper, lower = torch.tensor(pairs).T
    theirs = (points[:, upper] - points[:, lower]).norm(dim=-1).sum(dim=1).median()
    ours = sum(rig.offsets[SMPL_JOINTS.index(names[place])].norm() for place in lower.tolist())
    return float(ours / theirs)


def _start(rig: Rig, names: Sequence[str], points: Float[Tensor, "S K 3"]) -> Pose:
    """The mean pose, its trunk on the points' trunk."""
    count = len(points)
    still = Pose(
        torch.eye(3, dtype=points.dtype)[None],
        torch.zeros(1, 3, dtype=points.dtype),
        torch.zeros(1, 63, dtype=points.dtype),
    )
    _, _, rest = forward(rig, still)
    trunk = [names.index(name) for name in TRUNK]
    source = rest[:, trunk].expand(count, -1, -1)
    _, root, shift = similarity_between(source, points[:, trunk], with_scale=False)
    return Pose(root, shift, torch.zeros(count, 63, dtype=points.dtype))


def _poses(rig: Rig, prior: PosePrior) -> tuple[Float[Tensor, "63"], Float[Tensor, "63 63"]]:
    """Mean and precision of the coordinates of poses that the prior draws."""
    drawn = prior.sample(torch.Generator().manual_seed(0), DRAWN)
    values = coordinates(rig, roma.rotmat_to_rotvec(drawn).to(rig.offsets))
    spread = torch.cov(values.T) + LEAST_VARIANCE * torch.eye(values.shape[1]).to(values)
    return values.mean(dim=0), torch.linalg.inv(spread)


def _energy(task: _Task, pose: Pose) -> Float[Tensor, "S"]:
    _, _, reached = forward(task.rig, pose)
    data = (((reached - task.points) / task.sigma[:, None]) ** 2).sum(dim=(-1, -2))
    off = pose.rotations - task.mean
    return data + ((off @ task.precision) * off).sum(dim=-1)


def _step(task: _Task, pose: Pose, damping: Float[Tensor, "S 1"]) -> Float[Tensor, "S 69"]:
    turned, joints, reached = forward(task.rig, pose)
    jacobian = point_jacobian(task.rig, pose, turned, joints, reached)
    rows = (jacobian / task.sigma[:, None, None]).flatten(1, 2)
    residual = ((reached - task.points) / task.sigma[:, None]).flatten(1)
    gradient = torch.einsum("srd,sr->sd", rows, residual)
    matrix = rows.mT @ rows
    gradient[:, TANGENT - 63 :] += (pose.rotations - task.mean) @ task.precision
    matrix[:, TANGENT - 63 :, TANGENT - 63 :] += task.precision
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    diagonal += damping * diagonal + 1e-6
    return -torch.linalg.solve(matrix, gradient[..., None])[..., 0]
