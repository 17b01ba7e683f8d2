"""How each recorded skeleton maps onto SMPL: one table per family.

Vectors are in the local axes of the source joint. A `hinge` is the axis about which the limb
flexes, cross(upper, lower) of a bent limb: anatomical, hence the same in every skeleton. Elbow
hinges were measured on the recordings (spread < 2 degrees in CMU files, 5 in the idle ones); the
others follow from the rest pose.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

Vector = tuple[float, float, float]
X: Vector = (1.0, 0.0, 0.0)
Y: Vector = (0.0, 1.0, 0.0)
Z: Vector = (0.0, 0.0, 1.0)
_COS30, _COS20, _SIN20 = 0.8660, 0.9397, 0.3420


def _minus(vector: Vector) -> Vector:
    return (-vector[0], -vector[1], -vector[2])


@dataclass(frozen=True)
class Limb:
    """A SMPL joint driven by one source joint: where its limb and its second axis point."""

    joint: str
    along: Vector | str  # direction, or the joint the limb ends in
    second: Vector  # knees, elbows: hinge; ankles: the body's left; wrists: to the index finger


@dataclass(frozen=True)
class Trunk:
    """A SMPL joint that shares upright axes with the source: `share` of start -> joint."""

    joint: str
    start: str = ""
    share: float = 1.0
    up: Vector = Y
    forward: Vector = Z


@dataclass(frozen=True)
class Rig:
    """A family of skeletons. Joints without an entry follow their parent (untracked)."""

    name: str
    pelvis: Trunk
    joints: dict[str, Limb | Trunk]
    left_leg: tuple[str, str, str]  # hip, knee, ankle: measures the leg
    right_leg: tuple[str, str, str]
    synthesised: tuple[str, ...] = field(default=())  # shared out among joints, not recorded


def _sides(make: Callable[[str], dict[str, Limb | Trunk]]) -> dict[str, Limb | Trunk]:
    return {
        f"{side}_{name}": entry for side in ("left", "right") for name, entry in make(side).items()
    }


def _asf(side: str) -> dict[str, Limb | Trunk]:
    s, sign = side[0], 1.0 if side == "left" else -1.0
    elbow = (0.0, -_COS30 * sign, 0.5 * sign)
    lateral = (_COS20, _SIN20 * sign, 0.0)  # legs rest 20 degrees outwards, feet roll with them
    return {
        "hip": Limb(f"{s}femur", f"{s}tibia", lateral),
        "knee": Limb(f"{s}tibia", f"{s}foot", lateral),
        "ankle": Limb(f"{s}foot", Z, lateral),
        "foot": Limb(f"{s}toes", Z, lateral),
        "collar": Trunk(f"{s}clavicle"),
        "shoulder": Limb(f"{s}humerus", f"{s}radius", elbow),
        "elbow": Limb(f"{s}radius", f"{s}wrist", elbow),
        "wrist": Limb(f"{s}hand", (sign, 0.0, 0.0), Z),
    }


def _character_creator(side: str) -> dict[str, Limb | Trunk]:
    s, sign = side[0].upper(), 1.0 if side == "left" else -1.0
    base = f"CC_Base_{s}_"
    left = _minus(X)  # y runs down the limb and x to the body's right, so z stays forward
    elbow = (_COS30, 0.0, 0.5 * sign)
    return {
        "hip": Limb(f"{base}Thigh", f"{base}Calf", left),
        "knee": Limb(f"{base}Calf", f"{base}Foot", left),
        "ankle": Limb(f"{base}Foot", (0.0, 0.975, 0.222), left),  # the bone slopes down to the toes
        "foot": Limb(f"{base}ToeBase", Y, left),
        "collar": Trunk(f"{base}Clavicle", up=(-sign, 0.0, 0.0), forward=(0.0, -0.25, 0.968)),
        "shoulder": Limb(f"{base}Upperarm", f"{base}Forearm", elbow),
        "elbow": Limb(f"{base}Forearm", f"{base}Hand", elbow),
        "wrist": Limb(f"{base}Hand", Y, Z),
    }


def _poser(side: str) -> dict[str, Limb | Trunk]:
    s, sign = side[0], 1.0 if side == "left" else -1.0
    return {
        "hip": Limb(f"{s}Thigh", f"{s}Shin", X),
        "knee": Limb(f"{s}Shin", f"{s}Foot", X),
        "ankle": Limb(f"{s}Foot", Z, X),
        "collar": Trunk(f"{s}Collar"),
        "shoulder": Limb(f"{s}Shldr", f"{s}ForeArm", (0.0, -0.87 * sign, 0.5 * sign)),
        "elbow": Limb(f"{s}ForeArm", f"{s}Hand", (-0.11, -0.89 * sign, 0.44 * sign)),
        "wrist": Limb(f"{s}Hand", f"{s}Mid1", Z),
    }


def _idle(side: str) -> dict[str, Limb | Trunk]:
    s, sign = side[0].upper(), 1.0 if side == "left" else -1.0
    elbow = (0.0, -0.73 * sign, -0.69 * sign)
    return {
        "hip": Limb(f"thigh.{s}", f"shin.{s}", X),
        "knee": Limb(f"shin.{s}", f"foot.{s}", X),
        "ankle": Limb(f"foot.{s}", Z, X),
        "collar": Trunk(f"shoulder.{s}"),
        "shoulder": Limb(f"upper_arm.{s}", f"forearm.{s}", elbow),
        "elbow": Limb(f"forearm.{s}", f"forearm.{s}_end", elbow),
    }


def _deepmimic(side: str) -> dict[str, Limb | Trunk]:
    left = _minus(Z)  # x forward, y up, z right; arms hang at rest
    return {
        "hip": Limb(f"{side}_hip", f"{side}_knee", left),
        "knee": Limb(f"{side}_knee", f"{side}_ankle", left),
        "ankle": Limb(f"{side}_ankle", X, left),
        "shoulder": Limb(f"{side}_shoulder", f"{side}_elbow", Z),
        "elbow": Limb(f"{side}_elbow", f"{side}_wrist", Z),
    }


def _pitched(joint: str, degrees: float) -> Trunk:
    """A spine joint whose rest axes lean forward: measured against the same trials in ASF/AMC."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return Trunk(joint, up=(0.0, cosine, -sine), forward=(0.0, sine, cosine))


RIGS: tuple[Rig, ...] = (
    Rig(
        name="cmu_asf",
        pelvis=Trunk("root"),
        joints={
            "spine1": Trunk("lowerback"), "spine2": Trunk("upperback"), "spine3": Trunk("thorax"),
            "neck": Trunk("upperneck"), "head": Trunk("head"), **_sides(_asf),
        },
        left_leg=("lfemur", "ltibia", "lfoot"),
        right_leg=("rfemur", "rtibia", "rfoot"),
    ),
    Rig(
        name="character_creator",
        pelvis=Trunk("CC_Base_Hip"),
        joints={
            "spine1": _pitched("CC_Base_Waist", 15.0), "spine2": _pitched("CC_Base_Spine01", -5.0),
            "spine3": _pitched("CC_Base_Spine02", -10.0),
            "neck": _pitched("CC_Base_NeckTwist02", 9.5),
            "head": Trunk("CC_Base_Head"), **_sides(_character_creator),
        },
        left_leg=("CC_Base_L_Thigh", "CC_Base_L_Calf", "CC_Base_L_Foot"),
        right_leg=("CC_Base_R_Thigh", "CC_Base_R_Calf", "CC_Base_R_Foot"),
    ),
    Rig(
        name="poser",
        pelvis=Trunk("hip"),
        joints={
            "spine1": Trunk("abdomen", "hip", 0.5), "spine2": Trunk("abdomen"),
            "spine3": Trunk("chest"), "neck": Trunk("neck"), "head": Trunk("head"),
            **_sides(_poser),
        },
        left_leg=("lThigh", "lShin", "lFoot"),
        right_leg=("rThigh", "rShin", "rFoot"),
        synthesised=("spine1",),
    ),
    Rig(
        name="react_idle",
        pelvis=Trunk("pelvis"),
        joints={
            "spine1": Trunk("spine"), "spine2": Trunk("spine.001", "spine", 0.5),
            "spine3": Trunk("spine.001"), "neck": Trunk("neck"), "head": Trunk("face"),
            **_sides(_idle),
        },
        left_leg=("thigh.L", "shin.L", "foot.L"),
        right_leg=("thigh.R", "shin.R", "foot.R"),
        synthesised=("spine2",),
    ),
    Rig(
        name="deepmimic",
        pelvis=Trunk("root", forward=X),
        joints={
            "spine1": Trunk("chest", "root", 1 / 3, forward=X),
            "spine2": Trunk("chest", "root", 2 / 3, forward=X),
            "spine3": Trunk("chest", forward=X), "neck": Trunk("neck", "chest", 0.5, forward=X),
            "head": Trunk("neck", forward=X), **_sides(_deepmimic),
        },
        left_leg=("left_hip", "left_knee", "left_ankle"),
        right_leg=("right_hip", "right_knee", "right_ankle"),
        synthesised=("spine1", "spine2", "neck"),
    ),
)  # fmt: skip
