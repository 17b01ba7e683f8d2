"""Recorded motions on the SMPL hierarchy: source rotations times one constant per joint."""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.errors import InputError
from slamhmr.motions.rigs import RIGS, Limb, Rig, Trunk
from slamhmr.motions.source import SourceMotion
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS, SMPL_PARENTS

# SMPL's zero pose, as limb directions of the left side in body axes (x left, y up, z forward),
# degrees rounded: upper arm 3 down 5 back, forearm 2 up, thigh 5 out, shank 2 in 5 back, foot 8
# out. Hinges as in `rigs`.
REST_LIMB: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "hip": ((0.087, -0.996, 0.0), (1.0, 0.0, 0.0)),
    "knee": ((-0.035, -0.996, -0.087), (1.0, 0.0, 0.0)),
    "ankle": ((0.139, 0.0, 0.990), (1.0, 0.0, 0.0)),
    "foot": ((0.139, 0.0, 0.990), (1.0, 0.0, 0.0)),
    "shoulder": ((0.995, -0.052, -0.087), (0.0, -1.0, 0.0)),
    "elbow": ((0.999, 0.035, 0.0), (0.0, -1.0, 0.0)),
    "wrist": ((0.995, -0.070, -0.070), (0.0, 0.0, 1.0)),
}
LEG_LENGTH = 0.81  # m, hip to knee to ankle of the default body
PELVIS_ABOVE_HIPS = 0.076  # m, pelvis joint over the middle of the hips of the default body
FOREARM_TWIST_SHARE = 0.5  # of the hand's turn about the forearm that the elbow takes (pronation)


@dataclass(frozen=True)
class Retargeted:
    """22 SMPL rotations and the pelvis joint in a z-up world, metres, at the source's rate."""

    rotations: Float[Tensor, "T 22 3 3"]  # global: world_from_joint
    pelvis: Float[Tensor, "T 3"]
    tracked: tuple[bool, ...]  # 21 body joints: recorded, not carried by the parent nor shared out


def rig_of(source: SourceMotion) -> Rig:
    """The first rig whose joints are all in the skeleton; InputError if none fits."""
    for rig in RIGS:
        used = {rig.pelvis.joint, *rig.left_leg, *rig.right_leg}
        used |= {entry.joint for entry in rig.joints.values()}
        if used <= set(source.names):
            return rig
    known = ", ".join(rig.name for rig in RIGS)
    raise InputError(
        f"skeleton with joints {', '.join(source.names[:6])}, ...: fits none of the known rigs "
        f"({known}); add one to slamhmr/motions/rigs.py"
    )


def retarget(source: SourceMotion, rig: Rig) -> Retargeted:
    """Source motion on the SMPL hierarchy, scaled by the length of the legs.

    G_smpl = up G_source C with C = [source limb frame] [SMPL rest limb frame]^T, constant per
    joint, so a limb points where the source's limb points and flexes about the same anatomical
    axis. Joints of the trunk use their own upright axes, because spines of different skeletons
    have different curves.
    """
    z_up = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    rotations = [_trunk(source, rig.pelvis)]
    for joint in range(1, BODY_JOINT_COUNT):
        entry = rig.joints.get(SMPL_JOINTS[joint])
        if entry is None:
            rotations.append(rotations[SMPL_PARENTS[joint]])
        elif isinstance(entry, Trunk):
            rotations.append(_trunk(source, entry))
        else:
            rotations.append(_limb(source, entry, SMPL_JOINTS[joint]))
    stacked = _share_forearm_twist(torch.stack(rotations, dim=1))
    hips = [source.names.index(leg[0]) for leg in (rig.left_leg, rig.right_leg)]
    scale = LEG_LENGTH / leg_length(source, rig)
    pelvis = source.positions[:, hips].mean(dim=1) * scale + stacked[:, 0, :, 1] * PELVIS_ABOVE_HIPS
    names = SMPL_JOINTS[1:BODY_JOINT_COUNT]
    tracked = tuple(name in rig.joints and name not in rig.synthesised for name in names)
    return Retargeted(rotations=z_up @ stacked, pelvis=pelvis @ z_up.T, tracked=tracked)


def leg_length(source: SourceMotion, rig: Rig) -> float:
    """Thigh plus shank of the source, both sides averaged, in the units of its file."""
    lengths = []
    for leg in (rig.left_leg, rig.right_leg):
        points = source.rest_positions[[source.names.index(name) for name in leg]]
        lengths.append(float((points[1:] - points[:-1]).norm(dim=-1).sum()))
    return sum(lengths) / len(lengths)


def limb_direction(source: SourceMotion, limb: Limb) -> Float[Tensor, "3"]:
    """Unit direction of a limb in the local axes of its source joint."""
    if isinstance(limb.along, str):
        start, end = source.names.index(limb.joint), source.names.index(limb.along)
        bone = source.rest_positions[end] - source.rest_positions[start]
        direction = source.rest_rotations[start].T @ bone
    else:
        direction = torch.tensor(limb.along, dtype=torch.float64)
    return torch.nn.functional.normalize(direction, dim=-1)


def _frame(first: Float[Tensor, "3"], second: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Frame with columns `first`, `second` made orthogonal to it, and their cross product."""
    a = torch.nn.functional.normalize(first, dim=-1)
    b = torch.nn.functional.normalize(second - (second @ a) * a, dim=-1)
    return torch.stack([a, b, torch.linalg.cross(a, b)], dim=-1)


def _limb(source: SourceMotion, limb: Limb, name: str) -> Float[Tensor, "T 3 3"]:
    side, part = name.split("_")
    along, second = (torch.tensor(v, dtype=torch.float64) for v in REST_LIMB[part])
    if side == "right":  # mirror in the plane x = 0; a hinge or lateral axis is a pseudovector
        mirror = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
        along, second = along * mirror, second * (mirror if part == "wrist" else -mirror)
    here = _frame(limb_direction(source, limb), torch.tensor(limb.second, dtype=torch.float64))
    constant = here @ _frame(along, second).T
    return source.rotations[:, source.names.index(limb.joint)] @ constant


def _trunk(source: SourceMotion, trunk: Trunk) -> Float[Tensor, "T 3 3"]:
    up, forward = (torch.tensor(v, dtype=torch.float64) for v in (trunk.up, trunk.forward))
    constant = torch.stack([torch.linalg.cross(up, forward), up, forward], dim=-1)
    rotation = source.rotations[:, source.names.index(trunk.joint)]
    if trunk.start:
        start = source.rotations[:, source.names.index(trunk.start)]
        turn = roma.rotmat_to_rotvec(start.transpose(-1, -2) @ rotation)
        rotation = start @ roma.rotvec_to_rotmat(trunk.share * turn)
    return rotation @ constant


def _share_forearm_twist(rotations: Float[Tensor, "T 22 3 3"]) -> Float[Tensor, "T 22 3 3"]:
    """Give the elbow its share of the hand's turn about the forearm; limb directions stay.

    Source skeletons put pronation into the hand; in a skinned body that wrings the wrist.
    """
    result = rotations.clone()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        elbow, wrist = (SMPL_JOINTS.index(f"{side}_{part}") for part in ("elbow", "wrist"))
        axis = torch.tensor(REST_LIMB["elbow"][0], dtype=torch.float64)
        axis = torch.nn.functional.normalize(axis * torch.tensor([sign, 1.0, 1.0]).to(axis), dim=-1)
        local = rotations[:, elbow].transpose(-1, -2) @ rotations[:, wrist]
        quaternion = roma.rotmat_to_unitquat(local)  # x y z w
        angle = 2 * torch.atan2(quaternion[:, :3] @ axis, quaternion[:, 3])
        angle = torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
        turn = roma.rotvec_to_rotmat(FOREARM_TWIST_SHARE * angle[:, None] * axis)
        result[:, elbow] = rotations[:, elbow] @ turn
    return result
