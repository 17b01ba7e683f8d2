"""Keypoints of the posed body and their derivative, batched over frames.

Tangent of a frame (69): root rotation increment in the body frame (3), pelvis (3), 21 rotation
vectors (63). The pelvis moves as p += z (a, b, 0) + p c: a and b shift the picture, c scales depth
along the ray.
"""

from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slamhmr.body import BodyModel, rest_points
from slamhmr.skeleton import BODY_JOINT_COUNT, KEYPOINT_JOINT

TANGENT = 69


@dataclass(frozen=True)
class Rig:
    """One person's rest skeleton and the observed points on it. Metres, body frame."""

    parents: tuple[int, ...]  # of the 22 body joints
    offsets: Float[Tensor, "22 3"]  # joint minus parent joint at rest; the pelvis at 0
    point_joint: Int[Tensor, "K"]  # joint the point is rigid on
    point_offset: Float[Tensor, "K 3"]  # point minus that joint at rest
    moves: Bool[Tensor, "K 22"]  # turning the joint moves the point
    mean_rotations: Float[Tensor, "21 3 3"]  # about which poses are written down

    def to(self, dtype: torch.dtype) -> "Rig":
        """Same rig in another floating point type."""
        return replace(
            self,
            offsets=self.offsets.to(dtype),
            point_offset=self.point_offset.to(dtype),
            mean_rotations=self.mean_rotations.to(dtype),
        )


@dataclass(frozen=True)
class Pose:
    """Body in camera space, one per batch item."""

    root: Float[Tensor, "B 3 3"]  # cam_from_root
    pelvis: Float[Tensor, "B 3"]
    rotations: Float[Tensor, "B 63"]  # x, local rotation of joint j = M_j exp(x_j), M of the rig

    def __getitem__(self, index: Tensor | slice) -> "Pose":
        """Poses of some batch items."""
        return Pose(self.root[index], self.pelvis[index], self.rotations[index])

    def to(self, dtype: torch.dtype) -> "Pose":
        """Same poses in another floating point type."""
        return Pose(self.root.to(dtype), self.pelvis.to(dtype), self.rotations.to(dtype))


def build_rig(
    body: BodyModel,
    betas: Float[Tensor, "B"],
    point_names: tuple[str, ...],
    mean_rotations: Float[Tensor, "21 3 3"],
) -> Rig:
    """Rest skeleton of one shape with the named body points (joints or landmarks)."""
    rest = rest_points(body, betas[None])[0]
    joints = rest[:BODY_JOINT_COUNT]
    parents = tuple(int(parent) for parent in body.parents[:BODY_JOINT_COUNT])
    names = list(body.point_names)
    joint_count = len(names) - len(body.landmark_names)
    attached, positions = [], []
    for name in point_names:
        index = names.index(KEYPOINT_JOINT.get(name, name))
        rigid_on = index if index < joint_count else int(body.landmark_joint[index - joint_count])
        attached.append(min(rigid_on, BODY_JOINT_COUNT - 1) if index < joint_count else rigid_on)
        positions.append(rest[index])
    point_joint = torch.tensor(attached)
    moves = torch.zeros(len(point_names), BODY_JOINT_COUNT, dtype=torch.bool)
    for row, joint in enumerate(attached):
        while joint >= 0:
            moves[row, joint] = True
            joint = parents[joint]
    parent_index = torch.tensor([max(parent, 0) for parent in parents])
    offsets = joints - joints[parent_index]
    point_offset = torch.stack(positions) - joints[point_joint]
    return Rig(parents, offsets, point_joint, point_offset, moves, mean_rotations)


def coordinates(rig: Rig, body_pose: Float[Tensor, "P 21 3"]) -> Float[Tensor, "P 63"]:
    """Coordinates x of poses given as rotation vectors."""
    local = rig.mean_rotations.transpose(-1, -2) @ roma.rotvec_to_rotmat(body_pose)
    return roma.rotmat_to_rotvec(local).flatten(1)


def body_pose(rig: Rig, pose: Pose) -> Float[Tensor, "B 21 3"]:
    """Rotation vectors of the 21 local rotations."""
    local = rig.mean_rotations @ roma.rotvec_to_rotmat(pose.rotations.reshape(-1, 21, 3))
    return roma.rotmat_to_rotvec(local)


def forward(
    rig: Rig, pose: Pose
) -> tuple[Float[Tensor, "B 22 3 3"], Float[Tensor, "B 22 3"], Float[Tensor, "B K 3"]]:
    """Global rotations and positions of the joints, and the points, in the camera."""
    local = rig.mean_rotations @ roma.rotvec_to_rotmat(pose.rotations.reshape(-1, 21, 3))
    rotation, position = [pose.root], [pose.pelvis]
    for joint in range(1, BODY_JOINT_COUNT):
        parent = rig.parents[joint]
        position.append(position[parent] + rotation[parent] @ rig.offsets[joint])
        rotation.append(rotation[parent] @ local[:, joint - 1])
    turned, joints = torch.stack(rotation, dim=1), torch.stack(position, dim=1)
    arms = torch.einsum("bkij,kj->bki", turned[:, rig.point_joint], rig.point_offset)
    return turned, joints, joints[:, rig.point_joint] + arms


def point_jacobian(
    rig: Rig,
    pose: Pose,
    turned: Float[Tensor, "B 22 3 3"],
    joints: Float[Tensor, "B 22 3"],
    points: Float[Tensor, "B K 3"],
) -> Float[Tensor, "B K 3 69"]:
    """Derivative of the points with respect to the frame's tangent.

    A body-frame increment d of joint k moves a descendant p by (G_k d) x (p - p_k); rotation
    vectors add their right Jacobian.
    """
    batch, count = points.shape[:2]
    axes = turned.clone()
    axes[:, 1:] = turned[:, 1:] @ right_jacobian(pose.rotations.reshape(batch, 21, 3))
    lever = (points[:, :, None] - joints[:, None]) * rig.moves[None, :, :, None]
    columns = torch.linalg.cross(
        axes.transpose(-1, -2)[:, None].expand(batch, count, -1, 3, 3),
        lever[:, :, :, None].expand(batch, count, BODY_JOINT_COUNT, 3, 3),
        dim=-1,
    )  # B K 22 (axis) (xyz)
    turning = columns.reshape(batch, count, 66, 3).transpose(-1, -2)
    shift = torch.zeros(batch, 3, 3, dtype=points.dtype)
    shift[:, 0, 0] = shift[:, 1, 1] = pose.pelvis[:, 2]
    shift[:, :, 2] = pose.pelvis
    return torch.cat(
        [turning[..., :3], shift[:, None].expand(-1, count, -1, -1), turning[..., 3:]], dim=-1
    )


def right_jacobian(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Right Jacobian of SO(3): exp(v + dv) = exp(v) exp(J dv)."""
    angle = rotvec.norm(dim=-1)[..., None, None].clamp_min(1e-4)
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    first = (1 - torch.cos(angle)) / angle**2
    second = (angle - torch.sin(angle)) / angle**3
    return torch.eye(3, dtype=rotvec.dtype) - first * cross + second * (cross @ cross)


def retract(pose: Pose, step: Float[Tensor, "B 69"]) -> Pose:
    """Pose moved by a tangent step."""
    shift = torch.cat([step[:, 3:5] * pose.pelvis[:, 2:], torch.zeros_like(step[:, :1])], dim=-1)
    return Pose(
        pose.root @ roma.rotvec_to_rotmat(step[:, :3]),
        pose.pelvis * torch.exp(step[:, 5:6].clamp(-0.5, 0.5)) + shift,
        pose.rotations + step[:, 6:],
    )
