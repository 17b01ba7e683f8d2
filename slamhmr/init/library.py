"""Poses seen from all sides: what a 2D skeleton is looked up in.

The poses are everyday ones set by hand here (a stance x arms x trunk product) together with those
of the pose prior. Hand-set angles are round numbers of ours, from no data.
"""

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.init.kinematics import Pose, Rig, coordinates, forward
from slamhmr.skeleton import SMPL_JOINTS

# (thigh flexion, thigh abduction, knee flexion) of the left and the right leg, degrees.
LEGS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "stand": ((0, 3, 2), (0, 3, 2)),
    "wide": ((0, 18, 5), (0, 18, 5)),
    "left_step": ((25, 2, 5), (-18, 2, 12)),
    "right_step": ((-18, 2, 12), (25, 2, 5)),
    "left_swing": ((22, 2, 50), (0, 2, 3)),
    "right_swing": ((0, 2, 3), (22, 2, 50)),
    "left_push": ((-15, 2, 40), (12, 2, 5)),
    "right_push": ((12, 2, 5), (-15, 2, 40)),
    "left_run": ((55, 2, 80), (-15, 2, 25)),
    "right_run": ((-15, 2, 25), (55, 2, 80)),
    "left_kick_back": ((5, 2, 100), (25, 2, 30)),
    "right_kick_back": ((25, 2, 30), (5, 2, 100)),
    "sit": ((85, 8, 85), (85, 8, 85)),
    "half_squat": ((50, 8, 70), (50, 8, 70)),
    "squat": ((110, 15, 125), (110, 15, 125)),
    "left_kneel": ((80, 5, 85), (0, 5, 90)),
    "right_kneel": ((0, 5, 90), (80, 5, 85)),
    "left_lunge": ((70, 5, 70), (-20, 5, 30)),
    "right_lunge": ((-20, 5, 30), (70, 5, 70)),
    "left_high": ((90, 5, 60), (0, 3, 3)),
    "right_high": ((0, 3, 3), (90, 5, 60)),
}
# (abduction from hanging, swing forward, elbow flexion) of the left and the right arm, degrees.
ARMS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "hang": ((10, 0, 15), (10, 0, 15)),
    "left_fore": ((8, 28, 25), (8, -22, 15)),
    "right_fore": ((8, -22, 15), (8, 28, 25)),
    "bent": ((12, 15, 85), (12, 15, 85)),
    "left_run": ((12, 40, 90), (12, -40, 90)),
    "right_run": ((12, -40, 90), (12, 40, 90)),
    "forward": ((8, 80, 15), (8, 80, 15)),
    "side": ((88, 0, 8), (88, 0, 8)),
    "up": ((165, 0, 15), (165, 0, 15)),
    "left_up": ((155, 0, 35), (10, 0, 15)),
    "right_up": ((10, 0, 15), (155, 0, 35)),
    "left_wave": ((85, 10, 100), (10, 0, 15)),
    "right_wave": ((10, 0, 15), (85, 10, 100)),
    "hips": ((45, -15, 90), (45, -15, 90)),
}
TRUNK: dict[str, float] = {"upright": 4, "lean": 30, "bow": 75}  # forward bend, degrees
# Every stance goes with the arms that belong to it, standing with all of them.
CALM_ARMS = ("hang", "bent", "forward")
STRIDE_ARMS = {
    "left_step": ("right_fore", "right_run", "hang"),
    "right_step": ("left_fore", "left_run", "hang"),
    "left_swing": ("right_fore", "hang"),
    "right_swing": ("left_fore", "hang"),
    "left_push": ("left_fore", "hang"),
    "right_push": ("right_fore", "hang"),
    "left_run": ("right_run", "bent"),
    "right_run": ("left_run", "bent"),
    "left_kick_back": ("left_run", "bent"),
    "right_kick_back": ("right_run", "bent"),
}


@dataclass(frozen=True)
class ViewLibrary:
    """Poses x directions, pelvis at 0, with their orthographic image; M = poses x views."""

    root: Float[Tensor, "M 3 3"]  # cam_from_root of the view
    rotations: Float[Tensor, "M 63"]
    points: Float[Tensor, "M K 3"]  # metres, camera axes
    tilt: Float[Tensor, "M"]  # angle from upright seen at eye level, rad


def everyday_poses() -> Float[Tensor, "P 21 3"]:
    """Hand-set standing, walking, running, sitting, squatting, waving and bending poses."""
    combos = [("stand", arms, "upright") for arms in ARMS]
    combos += [("wide", arms, "upright") for arms in ("hang", "side", "up", "hips")]
    combos += [(legs, arms, "upright") for legs, group in STRIDE_ARMS.items() for arms in group]
    others = [legs for legs in LEGS if legs not in STRIDE_ARMS and legs not in ("stand", "wide")]
    combos += [(legs, arms, "upright") for legs in others for arms in CALM_ARMS]
    combos += [(legs, "hang", "lean") for legs in others]
    combos += [(legs, "forward", "lean") for legs in ("squat", "half_squat", "sit")]
    combos += [("stand", arms, trunk) for arms in ("hang", "forward") for trunk in ("lean", "bow")]
    return torch.stack(
        [_pose(LEGS[legs], ARMS[arms], TRUNK[trunk]) for legs, arms, trunk in combos]
    )


def _pose(
    legs: tuple[tuple[float, float, float], tuple[float, float, float]],
    arms: tuple[tuple[float, float, float], tuple[float, float, float]],
    bend: float,
) -> Float[Tensor, "21 3"]:
    """Rotation vectors of one stance (angles in degrees)."""
    vectors = torch.zeros(21, 3, dtype=torch.float64)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        index = 0 if side == "left" else 1
        flexion, abduction, knee = (math.radians(angle) for angle in legs[index])
        raised, swing, elbow = (math.radians(angle) for angle in arms[index])
        thigh = _turn(0, -flexion) @ _turn(2, sign * abduction)
        arm = _turn(0, -swing) @ _turn(2, -sign * (math.pi / 2 - raised))
        for joint, rotation in (
            ("hip", thigh),
            ("knee", _turn(0, knee)),
            ("shoulder", arm),
            ("elbow", _turn(1, -sign * elbow)),
        ):
            vectors[SMPL_JOINTS.index(f"{side}_{joint}") - 1] = roma.rotmat_to_rotvec(rotation)
    for joint in ("spine1", "spine2", "spine3"):
        vectors[SMPL_JOINTS.index(joint) - 1, 0] = math.radians(bend) / 3
    return vectors


def _turn(axis: int, angle: float) -> Float[Tensor, "3 3"]:
    vector = torch.zeros(3, dtype=torch.float64)
    vector[axis] = angle
    return roma.rotvec_to_rotmat(vector)


def build_views(
    rig: Rig, poses: Float[Tensor, "P 21 3"], yaws: int, pitches_deg: tuple[float, ...]
) -> ViewLibrary:
    """Every pose seen from `yaws` directions around it and from each camera elevation.

    Positive pitch: the camera looks down on the person.
    """
    eye_level = torch.tensor([[1, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=poses.dtype)
    roots, tilts = [], []
    for pitch in pitches_deg:
        for index in range(yaws):
            yaw = _turn(1, 2 * math.pi * index / yaws)
            roots.append(_turn(0, math.radians(pitch)) @ eye_level @ yaw)
            tilts.append(math.radians(pitch))
    root = torch.stack(roots).repeat(len(poses), 1, 1)
    rotations = coordinates(rig, poses).repeat_interleave(len(roots), dim=0)
    pose = Pose(root, torch.zeros(len(root), 3, dtype=poses.dtype), rotations)
    _, _, points = forward(rig, pose)
    return ViewLibrary(root, rotations, points, torch.tensor(tilts).repeat(len(poses)).to(poses))
