"""Puts anny's A-posed bodies into the rest pose of SMPL, so that a rotation means the same on both.

Arrays are numpy, y up, +x left, +z forward, metres; S shapes, R bones of anny's default rig. The
target directions are rounded angles, nothing is taken from a licensed file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SHOULDER_RAISE_DEG = {"clavicle": 10.0, "shoulder01": 18.0}  # about the forward axis, cumulative
FOOT_YAW_DEG = 8.0  # toes out
# Rest directions of the left side: x left, y up, z forward; the right side mirrors x.
BONE_TARGETS: dict[str, tuple[float, float, float]] = {
    "upperarm": (1.0, -np.tan(np.radians(3)), -np.tan(np.radians(5))),
    "lowerarm": (1.0, np.tan(np.radians(2)), 0.0),
    "hand": (1.0, -np.tan(np.radians(4)), -np.tan(np.radians(4))),
    "thigh": (np.tan(np.radians(5)), -1.0, 0.0),
    "shank": (-np.tan(np.radians(2)), -1.0, -np.tan(np.radians(5))),
}
PRONATION_SHARE = {"lowerarm01": 0.25, "lowerarm02": 0.65, "wrist": 1.0}
TOES = tuple(f"toe{toe}-1" for toe in range(1, 6))


@dataclass(frozen=True)
class Rig:
    """Bones of the source rig: names and parents (-1 for the root); parents come first."""

    names: tuple[str, ...]
    parents: tuple[int, ...]

    def index(self, name: str) -> int:
        """Row of a bone."""
        return self.names.index(name)


def t_pose_rotations(rig: Rig, heads: Array) -> Array:
    """World rotation (S, R, 3, 3) of every bone from the heads (S, R, 3) to SMPL's rest pose."""
    turned: dict[str, Array] = {}
    for side, sign in (("L", 1.0), ("R", -1.0)):
        turned |= _arm(rig, heads, side, sign) | _leg(rig, heads, side, sign)
    rotations = np.empty((*heads.shape, 3))
    for bone, (name, parent) in enumerate(zip(rig.names, rig.parents, strict=True)):
        inherited = np.eye(3) if parent < 0 else rotations[:, parent]
        rotations[:, bone] = turned.get(name, inherited)
    return rotations


def posed_heads(rig: Rig, heads: Array, rotations: Array) -> Array:
    """Bone heads (S, R, 3) after the bones have turned."""
    posed = heads.copy()
    for bone, parent in enumerate(rig.parents):
        if parent >= 0:
            offset = heads[:, bone] - heads[:, parent]
            posed[:, bone] = posed[:, parent] + _turn(rotations[:, parent], offset)
    return posed


def _arm(rig: Rig, heads: Array, side: str, sign: float) -> dict[str, Array]:
    def bone(start: str, end: str) -> Array:
        return heads[:, rig.index(f"{end}.{side}")] - heads[:, rig.index(f"{start}.{side}")]

    turned: dict[str, Array] = {}
    raised = 0.0
    forward = np.broadcast_to([0.0, 0.0, 1.0], heads[:, 0].shape)
    for name, angle in SHOULDER_RAISE_DEG.items():
        raised += np.radians(angle) * sign
        turned[name] = _about(forward, np.full(len(heads), raised))
    upper, fore = bone("upperarm01", "lowerarm01"), bone("lowerarm01", "wrist")
    target = _target("upperarm", sign, heads)
    swing = _swing(turned["shoulder01"], upper, target)
    hinge = _turn(swing, np.cross(upper, fore))
    down = np.broadcast_to([0.0, -sign, 0.0], target.shape)  # left elbow bends about -y
    twist = _angle_about(target, hinge, down)
    turned["upperarm01"] = _about(target, 0.5 * twist) @ swing
    turned["upperarm02"] = _about(target, twist) @ swing
    target = _target("lowerarm", sign, heads)
    straight = _swing(turned["upperarm02"], fore, target)
    hand_target = _target("hand", sign, heads)
    hand = _swing(straight, bone("wrist", "finger3-1"), hand_target)
    knuckles = _turn(hand, bone("finger5-1", "finger2-1"))
    pronation = _angle_about(hand_target, knuckles, forward)
    for name, share in PRONATION_SHARE.items():
        axis, base = (hand_target, hand) if name == "wrist" else (target, straight)
        turned[name] = _about(axis, share * pronation) @ base
    return {f"{name}.{side}": rotation for name, rotation in turned.items()}


def _leg(rig: Rig, heads: Array, side: str, sign: float) -> dict[str, Array]:
    hip, knee, ankle = (
        heads[:, rig.index(f"{name}.{side}")] for name in ("upperleg01", "lowerleg01", "foot")
    )
    toes = np.mean([heads[:, rig.index(f"{toe}.{side}")] for toe in TOES], axis=0)
    still = np.broadcast_to(np.eye(3), (len(heads), 3, 3))
    thigh = _swing(still, knee - hip, _target("thigh", sign, heads))
    shank = _swing(thigh, ankle - knee, _target("shank", sign, heads))
    up = np.broadcast_to([0.0, 1.0, 0.0], hip.shape)
    yaw = np.radians(FOOT_YAW_DEG) * sign
    outwards = np.broadcast_to([np.sin(yaw), 0.0, np.cos(yaw)], hip.shape)
    foot = _about(up, _angle_about(up, toes - ankle, outwards))  # yaw alone: the sole stays flat
    turned = {"upperleg01": thigh, "upperleg02": thigh, "lowerleg01": shank, "lowerleg02": shank}
    return {f"{name}.{side}": rotation for name, rotation in (turned | {"foot": foot}).items()}


def _target(name: str, sign: float, heads: Array) -> Array:
    direction = np.array(BONE_TARGETS[name]) * [sign, 1.0, 1.0]
    return np.broadcast_to(direction / np.linalg.norm(direction), heads[:, 0].shape)


def _turn(rotations: Array, points: Array) -> Array:
    return np.einsum("sij,sj->si", rotations, points)


def _about(axis: Array, angle: Array) -> Array:
    """Rotations by `angle` (S,) about unit axes (S, 3)."""
    cross = np.cross(axis[:, None, :], np.eye(3)).swapaxes(-1, -2)  # column k = axis x e_k
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)


def _swing(parent: Array, bone: Array, target: Array) -> Array:
    """The parent's rotation, then the smallest turn that takes the bone onto the target."""
    direction = _turn(parent, bone)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    axis = np.cross(direction, target)
    sine = np.linalg.norm(axis, axis=-1)
    angle = np.arctan2(sine, (direction * target).sum(axis=-1))
    return _about(axis / sine[:, None], angle) @ parent


def _angle_about(axis: Array, source: Array, target: Array) -> Array:
    """Signed angle (S,) about unit axes that turns `source` until it is above `target`."""
    across = source - (source * axis).sum(axis=-1, keepdims=True) * axis
    sine = (np.cross(across, target) * axis).sum(axis=-1)
    return np.arctan2(sine, (across * target).sum(axis=-1))
