"""Hand-set poses for what the recordings lack: sitting, squatting, kneeling, desk work, carrying.

Angles in degrees, as an anatomist would say them; left side, the right one is its mirror image.
SMPL's zero pose is a T-pose, y up, x to the body's left, z forward.
"""

from collections.abc import Mapping

import roma
import torch
from jaxtyping import Float
from torch import Tensor

JOINTS = (
    "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar",
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist",
)  # fmt: skip
# hip flexion, abduction, outward rotation; knee flexion; ankle dorsiflexion
LEGS: dict[str, tuple[float, float, float, float, float]] = {
    "stand": (2, 2, 5, 4, 0), "shift": (12, 6, 10, 22, 8), "sit": (85, 8, 0, 85, 0),
    "sit_wide": (85, 25, 15, 80, 0), "sit_under": (80, 6, 0, 110, 20),
    "sit_out": (75, 5, 5, 35, -15), "ankle_on_knee": (90, 25, 70, 95, 0),
    "cross_legged": (88, 42, 60, 120, 0), "long_sit": (88, 6, 5, 5, -10),
    "squat": (115, 18, 10, 125, 28), "half_squat": (65, 12, 8, 75, 22),
    "kneel": (5, 6, 0, 95, -35), "kneel_sit": (60, 8, 0, 145, -45),
    "front_knee": (88, 6, 0, 92, 5), "lie_bent": (45, 5, 3, 80, -5),
    "step_up": (65, 4, 3, 70, 8),
}  # fmt: skip
LEG_PAIRS: tuple[tuple[str, str], ...] = (
    ("stand", "stand"), ("stand", "shift"), ("sit", "sit"), ("sit", "sit_out"),
    ("sit_wide", "sit_wide"), ("sit_under", "sit_under"), ("sit_under", "sit"),
    ("ankle_on_knee", "sit"), ("sit_out", "sit_out"), ("cross_legged", "cross_legged"),
    ("long_sit", "long_sit"), ("long_sit", "lie_bent"), ("squat", "squat"),
    ("half_squat", "half_squat"), ("kneel", "kneel"), ("kneel_sit", "kneel_sit"),
    ("kneel", "front_knee"), ("lie_bent", "lie_bent"), ("stand", "step_up"), ("sit", "sit"),
)  # fmt: skip
# arm raised forward, lowered from the T-pose, turned inwards; elbow flexion; supination
ARMS: dict[str, tuple[float, float, float, float, float]] = {
    "hang": (2, 74, 0, 15, 0), "on_thigh": (28, 72, 10, 50, 0), "on_knee": (48, 68, 5, 25, 0),
    "desk": (35, 68, 25, 75, 0), "crossed": (22, 68, 62, 95, 0), "phone": (40, 62, 10, 138, 30),
    "look_phone": (25, 70, 30, 105, 50), "pocket": (-12, 62, 5, 48, 0),
    "hip_hand": (-18, 45, 35, 85, 0), "carry": (22, 72, 12, 85, 60),
    "chin": (50, 70, 30, 130, 40), "overhead": (160, 70, 0, 20, 0), "reach": (75, 75, 0, 20, 0),
    "behind_head": (120, 55, 10, 125, 0), "push": (45, 68, 10, 60, 0), "side": (0, 20, 0, 15, 0),
    "support": (-30, 62, -20, 8, 0), "lap": (25, 72, 42, 70, 20),
}  # fmt: skip
ARM_PAIRS: tuple[tuple[str, str], ...] = (
    ("hang", "hang"), ("on_thigh", "on_thigh"), ("on_knee", "on_knee"), ("desk", "desk"),
    ("crossed", "crossed"), ("phone", "hang"), ("phone", "on_thigh"),
    ("look_phone", "look_phone"), ("look_phone", "hang"), ("pocket", "pocket"),
    ("hip_hand", "hip_hand"), ("hip_hand", "hang"), ("carry", "carry"), ("carry", "hang"),
    ("chin", "on_thigh"), ("chin", "desk"), ("overhead", "overhead"), ("overhead", "hang"),
    ("reach", "reach"), ("reach", "hang"), ("behind_head", "behind_head"), ("push", "push"),
    ("side", "side"), ("support", "support"), ("lap", "lap"), ("lap", "lap"),
    ("on_thigh", "desk"),
)  # fmt: skip
# bend forward, turn left, lean left, of the whole trunk; nod of neck and head
TRUNKS: dict[str, tuple[float, float, float, float]] = {
    "upright": (4, 0, 0, 2), "slouch": (25, 0, 0, -8), "forward": (45, 0, 0, -15),
    "look_down": (12, 0, 0, 30), "turned": (5, 28, 3, 2), "leaning": (4, 4, 16, 2),
    "back": (-10, 0, 0, 12),
}  # fmt: skip
NOISE_DEG = 7.0  # of every ball joint; hinges vary along their hinge
HINGE_NOISE_DEG = 9.0


def _turn(axis: str, degrees: Float[Tensor, "S"]) -> Float[Tensor, "S 3 3"]:
    rotvec = torch.zeros(len(degrees), 3, dtype=degrees.dtype)
    rotvec[:, "xyz".index(axis)] = torch.deg2rad(degrees)
    return roma.rotvec_to_rotmat(rotvec)


def _choose(
    table: Mapping[str, tuple[int | float, ...]], names: list[str], noise: Float[Tensor, "S A"]
) -> Tensor:
    rows = torch.tensor([table[name] for name in names], dtype=noise.dtype)
    return rows + noise


def procedural_poses(count: int, generator: torch.Generator) -> Float[Tensor, "count 21 3 3"]:
    """Random legs, arms and trunk, the arms blended towards a second choice, with noise."""

    def noise(width: int) -> Tensor:
        return HINGE_NOISE_DEG * torch.randn(count, width, generator=generator, dtype=torch.float64)

    def pick(options: int) -> list[int]:
        return torch.randint(options, (count,), generator=generator).tolist()

    legs = [LEG_PAIRS[index] for index in pick(len(LEG_PAIRS))]
    arms, other = ([ARM_PAIRS[index] for index in pick(len(ARM_PAIRS))] for _ in range(2))
    blend = 0.5 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    leg_angles, arm_angles = [], []
    for number in (0, 1):
        leg_angles.append(_choose(LEGS, [pair[number] for pair in legs], noise(5)))
        arm = (1 - blend) * _choose(ARMS, [pair[number] for pair in arms], noise(5))
        arm_angles.append(arm + blend * _choose(ARMS, [pair[number] for pair in other], noise(5)))
    names = list(TRUNKS)
    trunk = _choose(TRUNKS, [names[index] for index in pick(len(names))], 0.5 * noise(4))
    trunk[:, 1:3] *= torch.randn(count, 1, generator=generator, dtype=torch.float64).sign()
    poses = posed_by_angles(torch.stack(leg_angles, 1), torch.stack(arm_angles, 1), trunk)
    swap = torch.rand(count, generator=generator) < 0.5
    poses[swap] = mirror_poses(poses[swap])
    ball = [
        index for index, name in enumerate(JOINTS) if "knee" not in name and "elbow" not in name
    ]
    jitter = torch.randn(count, len(ball), 3, generator=generator, dtype=torch.float64)
    poses[:, ball] = poses[:, ball] @ roma.rotvec_to_rotmat(torch.deg2rad(0.5 * NOISE_DEG * jitter))
    return poses


def posed_by_angles(
    legs: Float[Tensor, "S 2 5"], arms: Float[Tensor, "S 2 5"], trunk: Float[Tensor, "S 4"]
) -> Float[Tensor, "S 21 3 3"]:
    """Body pose of anatomical angles in degrees, left side first, as in LEGS, ARMS and TRUNKS."""
    poses = torch.eye(3, dtype=legs.dtype).repeat(len(legs), len(JOINTS), 1, 1)
    for number, side in enumerate(("left", "right")):
        for name, rotation in {**_leg(legs[:, number]), **_arm(arms[:, number])}.items():
            poses[:, JOINTS.index(f"{side}_{name}")] = _mirror(rotation) if number else rotation
    for name, rotation in _trunk(trunk).items():
        poses[:, JOINTS.index(name)] = rotation
    return poses


def _leg(angles: Float[Tensor, "S 5"]) -> dict[str, Float[Tensor, "S 3 3"]]:
    flexion, abduction, outward, knee, ankle = angles.unbind(dim=1)
    return {
        "hip": _turn("x", -flexion) @ _turn("z", abduction) @ _turn("y", outward),
        "knee": _turn("x", knee.clamp(0, 155)),
        "ankle": _turn("x", -ankle),
    }


def _arm(angles: Float[Tensor, "S 5"]) -> dict[str, Float[Tensor, "S 3 3"]]:
    forward, lowered, inward, elbow, supination = angles.unbind(dim=1)
    raised = (forward - 60).clamp_min(0) * 0.15
    return {
        "collar": _turn("z", raised),
        "shoulder": _turn("x", -forward) @ _turn("z", -lowered - raised) @ _turn("x", inward),
        "elbow": _turn("y", -elbow.clamp(0, 150)) @ _turn("x", -0.5 * supination),
        "wrist": _turn("x", -0.5 * supination),
    }


def _trunk(angles: Float[Tensor, "S 4"]) -> dict[str, Float[Tensor, "S 3 3"]]:
    bend, turn, lean, nod = angles.unbind(dim=1)
    third = _turn("y", turn / 3) @ _turn("z", -lean / 3) @ _turn("x", bend / 3)
    half = _turn("x", nod / 2)
    return {"spine1": third, "spine2": third, "spine3": third, "neck": half, "head": half}


def _mirror(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The same rotation seen in the mirror x -> -x."""
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=rotations.dtype))
    return flip @ rotations @ flip


def mirror_poses(poses: Float[Tensor, "*batch 21 3 3"]) -> Float[Tensor, "*batch 21 3 3"]:
    """Left and right exchanged."""
    swapped = {"left": "right", "right": "left"}
    order = []
    for name in JOINTS:
        side, _, part = name.partition("_")
        order.append(
            JOINTS.index(f"{swapped[side]}_{part}") if side in swapped else JOINTS.index(name)
        )
    return _mirror(poses[..., order, :, :])
