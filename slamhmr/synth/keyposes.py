"""Motions between hand-set key poses: the body rests on whatever part of it is lowest.

A script is a list of `Key`s in anatomical angles (`priors.training.procedural`). Angles run from
key to key along minimum-jerk curves, with slow noise; the root follows from the support: its height
keeps the lowest point of the skin on the floor, its path keeps the supporting points where they
are. Then feet are planted. Ours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from priors.training.procedural import ARMS, LEGS, TRUNKS, posed_by_angles
from slamhmr.body import BodyModel, forward_points
from slamhmr.motions.floor import floor_contacts, foot_points
from slamhmr.motions.plant import Posed, plant_feet
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS
from slamhmr.synth.footsteps import axis_rotation, heading_frame, min_jerk
from slamhmr.synth.motions import smooth_noise

Array = NDArray[np.float64]
# Legs whose sole lies flat on the floor: the ankle follows from the rest of the leg.
FLAT = frozenset(
    {"stand", "shift", "sit", "sit_wide", "squat", "half_squat", "front_knee", "buckle", "bow",
     "low_bow", "knee_up"}
)  # fmt: skip
FLAT_RANGE = (-40.0, 38.0)  # degrees of ankle dorsiflexion
EVERY_VERTEX = 41  # of the skin that feels the floor: 300 points, lowest within a few mm
SUPPORT_DEPTH = 0.01  # m: points this much higher than the lowest carry 1/e of its share
SMOOTH = 0.1  # s, half width of the smoothing of the root's height and path
LIFT = (22.0, 45.0)  # degrees of hip and knee flexion by which a foot steps
NOISE_DEG = {"legs": 1.0, "arms": 3.0, "trunk": 1.5}
ARM_JOINTS = tuple(
    i for i, n in enumerate(SMPL_JOINTS) if n.split("_")[-1] in "elbow wrist hand shoulder"
)


@dataclass(frozen=True)
class Key:
    """A pose to reach within `seconds` and to keep for `hold`; degrees.

    `pitch` leans the root forward (90 prone, -90 supine), `roll` turns it about its long axis,
    `turn` changes the heading to the left. `lift` names the feet that step on the way; `hands`
    says that the arms carry the body too.
    """

    seconds: float
    hold: float
    legs: tuple[str, str]
    arms: tuple[str, str]
    trunk: str = "upright"
    pitch: float = 0.0
    roll: float = 0.0
    turn: float = 0.0
    lift: str = ""
    hands: bool = False


@dataclass(frozen=True)
class _Curves:
    legs: Array  # (T,2,5) degrees
    arms: Array  # (T,2,5)
    trunk: Array  # (T,4)
    root: Array  # (T,3) pitch, roll, heading
    hands: Array  # (T,) 0..1


def play_keys(
    body: BodyModel, keys: list[Key], fps: float, rng: np.random.Generator, *, seat: float = 0.0
) -> tuple[Posed, Bool[Tensor, "T 4"]]:
    """Motion of the mean shape through `keys` and its contacts, floor at 0.

    A `seat` (m, height of the pelvis joint) keeps the pelvis in its place instead of the floor.
    """
    curves = _curves(keys, fps, rng)
    tensors = (torch.from_numpy(a) for a in (curves.legs, curves.arms, curves.trunk))
    joints = posed_by_angles(*tensors)
    pitch, roll, heading = np.deg2rad(curves.root).T
    root = heading_frame(heading) @ axis_rotation(0, pitch) @ axis_rotation(1, roll)
    hanging = Posed(torch.from_numpy(root), torch.zeros(len(root), 3).double(), joints)
    if seat > 0:
        sway = [smooth_noise(np.arange(len(root)) / fps, rng, 0.006, 4.0) for _ in range(2)]
        pelvis = torch.from_numpy(np.stack([*sway, np.full(len(root), seat)], axis=1))
    else:
        pelvis = _supported(body, hanging, torch.from_numpy(curves.hands), fps)
    posed = Posed(hanging.root, pelvis, joints)
    feet = foot_points(body, posed.root, pelvis, joints)
    contacts = floor_contacts(feet, pelvis, fps)
    planted = plant_feet(body, posed, contacts, fps)
    feet = foot_points(body, planted.root, planted.pelvis, planted.joints)
    return planted, contacts & floor_contacts(feet, planted.pelvis, fps)  # those in reach


def arm_rotations(
    pairs: list[tuple[str, str]], spans: Array, fps: float, rng: np.random.Generator
) -> Tensor:
    """Rotations (T,21,3,3) with arms that go through `pairs`, reached at the times `spans`, s."""
    times = np.arange(int(spans[-1] * fps) + 1) / fps
    table = np.array([[ARMS[name] for name in pair] for pair in pairs], dtype=np.float64)
    angles = np.repeat(table[:1], len(times), axis=0)
    for index in range(1, len(pairs)):
        reach = rng.uniform(0.5, 0.9)
        ramp = min_jerk(np.clip((times - spans[index - 1]) / reach, 0, 1))
        angles = angles + ramp[:, None, None] * (table[index] - table[index - 1])
    angles = angles + _noise(times, angles.shape[1:], NOISE_DEG["arms"], rng)
    still = torch.zeros(len(times), 2, 5, dtype=torch.float64)
    return posed_by_angles(still, torch.from_numpy(angles), still[:, 0, :4])


def _curves(keys: list[Key], fps: float, rng: np.random.Generator) -> _Curves:
    """Angles of every frame."""
    length = sum(key.seconds + key.hold for key in keys[1:]) + keys[0].hold
    times = np.arange(int(length * fps) + 1) / fps
    rows = [_angles(key) for key in keys]
    values = np.repeat(rows[0][None], len(times), axis=0)
    lifts = np.zeros((len(times), 2))
    clock = keys[0].hold
    for before, after, key in zip(rows[:-1], rows[1:], keys[1:], strict=True):
        share = np.clip((times - clock) / key.seconds, 0, 1)
        values = values + min_jerk(share)[:, None] * (after - before)
        feet = [side for side in ("left", "right") if side in key.lift.split()]
        for number, side in enumerate(feet):  # two feet step one after the other
            at = np.clip(share * len(feet) - number, 0, 1)
            lifts[:, ("left", "right").index(side)] += 16 * (at * (1 - at)) ** 2
        clock += key.seconds + key.hold
    legs, arms = values[:, :10].reshape(-1, 2, 5), values[:, 10:20].reshape(-1, 2, 5)
    legs = legs + _noise(times, (2, 5), NOISE_DEG["legs"], rng)
    legs[..., 0] += LIFT[0] * lifts
    legs[..., 3] += LIFT[1] * lifts
    legs[..., 3] = np.maximum(legs[..., 3], 2.0)
    arms = arms + _noise(times, (2, 5), NOISE_DEG["arms"], rng)
    arms[..., 3] = np.maximum(arms[..., 3], 2.0)
    trunk = values[:, 20:24] + _noise(times, (4,), NOISE_DEG["trunk"], rng)
    return _Curves(legs, arms, trunk, values[:, 24:27], values[:, 27])


def _angles(key: Key) -> Array:
    """All angles of a key in one row, ankles of flat feet included."""
    legs = np.array([LEGS_AND_OURS[name] for name in key.legs], dtype=np.float64)
    for number, name in enumerate(key.legs):
        if name in FLAT:
            legs[number, 4] = np.clip(key.pitch - legs[number, 0] + legs[number, 3], *FLAT_RANGE)
    arms = np.array([ARMS[name] for name in key.arms], dtype=np.float64)
    root = [key.pitch, key.roll, key.turn]
    return np.concatenate([legs.ravel(), arms.ravel(), TRUNKS[key.trunk], root, [float(key.hands)]])


# Beyond the poses that the pose prior learns from.
LEGS_AND_OURS: dict[str, tuple[float, float, float, float, float]] = {
    **LEGS,
    "straight": (0, 5, 8, 3, -35), "on_all_fours": (75, 4, 0, 88, -40),
    "buckle": (45, 8, 8, 70, 10), "bow": (58, 4, 5, 14, 0), "low_bow": (85, 8, 8, 55, 0),
    "knee_up": (122, 6, 0, 92, 0),
}  # fmt: skip


def _noise(times: Array, shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Array:
    """Slow noise (T, *shape), degrees."""
    count = int(np.prod(shape))
    rows = [smooth_noise(times, rng, sigma, 2.5) for _ in range(count)]
    return np.stack(rows, axis=-1).reshape(len(times), *shape)


def _supported(
    body: BodyModel, hanging: Posed, hands: Float[Tensor, "T"], fps: float
) -> Float[Tensor, "T 3"]:
    """Pelvis (T,3) of a body that rests on its lowest points, which do not slide."""
    skin, arm = _skin(body, hanging)
    height = skin[..., 2] + arm * (1 - hands[:, None])  # arms that do not carry are out of the way
    lowest = height.min(dim=1).values
    share = torch.softmax(-(height - lowest[:, None]) / SUPPORT_DEPTH, dim=1)
    share = 0.5 * (share[1:] + share[:-1])
    slide = ((skin[1:, :, :2] - skin[:-1, :, :2]) * share[..., None]).sum(dim=1)
    path = torch.cat([torch.zeros(1, 2).to(slide), -slide.cumsum(dim=0)])
    rough = torch.cat([path, -lowest[:, None]], dim=1)
    half = max(1, round(SMOOTH * fps))
    window = torch.hann_window(2 * half + 3, periodic=False, dtype=rough.dtype)[1:-1]
    padded = torch.nn.functional.pad(rough.T[:, None], (half, half), mode="replicate")
    return torch.nn.functional.conv1d(padded, (window / window.sum())[None, None])[:, 0].T


def _skin(body: BodyModel, hanging: Posed) -> tuple[Float[Tensor, "T P 3"], Float[Tensor, "P"]]:
    """Some skin points of the mean shape, and 1 for those of the arms."""
    betas = torch.zeros(1, body.shapedirs.shape[-1], dtype=torch.float64)
    points, rotations = forward_points(
        body, betas, hanging.root[None], hanging.pelvis[None], hanging.joints[None]
    )
    rest = body.point_template[:BODY_JOINT_COUNT]
    turn, place = rotations[0][:, :BODY_JOINT_COUNT], points[0][:, :BODY_JOINT_COUNT]
    weights = body.skin_weights[::EVERY_VERTEX]
    shift = place - (turn @ rest[None, :, :, None])[..., 0]
    blended = torch.einsum("pj,tjik->tpik", weights, turn)
    skin = (blended @ body.v_template[::EVERY_VERTEX][None, :, :, None])[..., 0]
    skin = skin + torch.einsum("pj,tji->tpi", weights, shift)
    return skin, torch.isin(weights.argmax(dim=1), torch.tensor(ARM_JOINTS)).double()
