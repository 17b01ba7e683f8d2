"""Whole motion clips for training, of the kinds that recordings lack, with exact contacts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.body import BodyModel, load_body
from slamhmr.errors import InputError
from slamhmr.motions.motion import MOTION_FPS, Motion, as_motion, save_motion
from slamhmr.motions.plant import Posed
from slamhmr.skeleton import SMPL_JOINTS
from slamhmr.synth import actions, motions, scripts
from slamhmr.synth.actions import Timeline
from slamhmr.synth.keyposes import Key, arm_rotations, play_keys
from slamhmr.synth.planned import shuffle, stairs
from slamhmr.synth.scene import skeleton_of
from slamhmr.synth.scripts import HANG, SEATED_ARMS, STANDING_ARMS, Pair, any_of

Array = NDArray[np.float64]
Rng = np.random.Generator
STRIDE = 4  # samples of the time line per frame
SECONDS = (6.0, 15.0)  # length of a clip that has no end of its own
FADE = 0.6  # s over which arms leave the swing of a walk for a gesture, and come back
WALKING_ARMS: tuple[Pair, ...] = (
    ("carry", "carry"), ("carry", "hang"), ("pocket", "pocket"), ("phone", "hang"),
    ("look_phone", "hang"), ("look_phone", "look_phone"), ("crossed", "crossed"), ("push", "push"),
)  # fmt: skip
ARM_JOINTS = tuple(
    i - 1
    for i, name in enumerate(SMPL_JOINTS[:22])
    if name.split("_")[-1] in ("collar", "shoulder", "elbow", "wrist")
)


@dataclass(frozen=True)
class Gestures:
    """Arms of a clip, one pair after the other, each for about `every` seconds."""

    pairs: tuple[Pair, ...]
    every: tuple[float, float] = (1.2, 3.5)
    always: bool = False  # without pauses in which the arms hang or swing


Script = Callable[[Timeline, float, Rng], None]  # fills a time line with so many seconds


def _walk(line: Timeline, seconds: float, rng: Rng) -> None:
    speed = rng.uniform(0.55, 1.75)
    actions.walk(line, seconds, speed, motions.wandering(line, rng, 1.0), rng.choice([-1.0, 1.0]))


def _errands(line: Timeline, seconds: float, rng: Rng) -> None:
    while line.clock < seconds:
        motions.act(line, rng.choice(["walk", "turn", "stand", "turn_round"]), 8.0, rng)


def _stand(line: Timeline, seconds: float, rng: Rng) -> None:
    while line.clock < seconds:
        motions.act(line, rng.choice(["stand", "stand", "stand", "turn"]), 8.0, rng)


def _wave(line: Timeline, seconds: float, rng: Rng) -> None:
    while line.clock < seconds:
        motions.act(line, rng.choice(["wave", "stand"]), 8.0, rng)


def _chair(line: Timeline, seconds: float, rng: Rng) -> None:
    actions.stand(line, rng.uniform(0.2, 1.0))
    actions.sit(line, max(seconds - 4.5, 2.0))
    actions.stand(line, 0.5)


def _jump(line: Timeline, seconds: float, rng: Rng) -> None:
    while line.clock < seconds:
        motions.act(line, rng.choice(["jump", "stand"]), 8.0, rng)


def _run(line: Timeline, seconds: float, rng: Rng) -> None:
    rate = motions.wandering(line, rng, 1.1)
    actions.run(line, seconds, rng.uniform(2.1, 3.6), rate, rng.choice([-1.0, 1.0]))


def _backward(line: Timeline, seconds: float, rng: Rng) -> None:
    """Backward walking: the toes land first."""
    step_time, speed = rng.uniform(0.55, 0.7), rng.uniform(0.4, 0.8)
    moving = shuffle(line, seconds, step_time, rng, strike=-0.4)
    line.speed = line.speed - speed * moving
    line.add("lean", 0.04 * moving)


def _sideways(line: Timeline, seconds: float, rng: Rng) -> None:
    """Side steps to one side; the other foot follows."""
    step_time, speed = rng.uniform(0.4, 0.6), rng.choice([-1, 1]) * rng.uniform(0.2, 0.4)
    moving = shuffle(line, seconds, step_time, rng, strike=0.0, sideways=float(np.sign(speed)))
    line.lateral = line.lateral + speed * moving
    line.channels["height"] = line.channels["height"] - 0.03 * moving


def _stairs(direction: float) -> Script:
    def script(line: Timeline, seconds: float, rng: Rng) -> None:
        stairs(line, seconds, rng, direction)

    return script


KEYED: dict[str, Callable[[Rng], list[Key]]] = {
    "seated": scripts.seated, "crouch": scripts.crouch, "bend": scripts.bend,
    "kneel": scripts.kneel, "floorsit": scripts.on_floor, "fall": scripts.fall,
    "lie": scripts.lie, "crawl": scripts.crawl,
}  # fmt: skip
STEPPED: dict[str, tuple[Script, Gestures | None]] = {
    "walk": (_walk, None),
    "carry": (_walk, Gestures(WALKING_ARMS, (2.5, 8.0), always=True)),
    "errands": (_errands, Gestures((*WALKING_ARMS, HANG))),
    "run": (_run, None),
    "backward": (_backward, Gestures((HANG, HANG, ("carry", "carry")))),
    "sideways": (_sideways, Gestures((HANG, ("push", "push"), ("side", "side")))),
    "upstairs": (_stairs(1.0), Gestures((HANG, HANG, ("carry", "carry"), ("reach", "hang")))),
    "downstairs": (_stairs(-1.0), Gestures((HANG, HANG, ("carry", "carry"), ("reach", "hang")))),
    "chair": (_chair, Gestures(SEATED_ARMS)),
    "stand": (_stand, Gestures(STANDING_ARMS)),
    "wave": (_wave, None),
    "jump": (_jump, None),
}
KINDS: tuple[str, ...] = (*STEPPED, *KEYED)


def make_clips(count: int, seed: int, out: Path) -> list[Path]:
    """Write `count` clips `proc_<kind>_<number>.npz` of all kinds in turn; returns their paths.

    Raises InputError for a count below 1.
    """
    if count < 1:
        raise InputError(f"number of procedural motions {count} must be at least 1")
    body = load_body()
    paths = []
    for index in range(count):
        kind, number = KINDS[index % len(KINDS)], seed * 1000 + index // len(KINDS)
        path = out / f"proc_{kind}_{number:04d}.npz"
        save_motion(path, make_clip(kind, number, body))
        paths.append(path)
    return paths


def make_clip(kind: str, number: int, body: BodyModel) -> Motion:
    """One clip of a kind (see `KINDS`), the same for the same number, at 30 fps on the mean shape.

    On stairs a contact lies on a step, not on the floor at 0: their `source` says `stairs`.
    """
    rng = np.random.default_rng([KINDS.index(kind), number])
    if kind in KEYED:
        seat = _seat_height(body) if kind == "seated" else 0.0
        posed, contacts = play_keys(body, KEYED[kind](rng), MOTION_FPS, rng, seat=seat)
    else:
        posed, contacts = _stepped(body, *STEPPED[kind], rng)
    note = ", stairs" if kind in ("upstairs", "downstairs") else ""
    source = f"procedural {kind}, number {number}{note}"
    return as_motion(body, posed, contacts, (True,) * 21, source=source)


def _seat_height(body: BodyModel) -> float:
    """Height of the pelvis joint of somebody on a chair, m."""
    skeleton = skeleton_of(body, torch.zeros(body.shapedirs.shape[-1], dtype=torch.float64))
    leg, foot = skeleton.legs[0], skeleton.feet[0]
    return float(foot.height + np.linalg.norm(leg.shank) - leg.hip[1] - 0.01)


def _stepped(
    body: BodyModel, script: Script, gestures: Gestures | None, rng: Rng
) -> tuple[Posed, Bool[Tensor, "T 4"]]:
    """A clip of steps with exact contacts, and arms that do something else meanwhile."""
    frames = int(rng.uniform(*SECONDS) * MOTION_FPS)
    skeleton = skeleton_of(body, torch.zeros(body.shapedirs.shape[-1], dtype=torch.float64))
    line, standing = motions.new_timeline(frames, MOTION_FPS, STRIDE, skeleton, rng)
    line.clock = 0.2
    script(line, frames / MOTION_FPS, rng)
    motions.idle(line, rng)
    whole = motions.play(line, skeleton, standing, slice(None, (frames + 8) * STRIDE))
    made = motions.thin(whole, 0, STRIDE, frames)
    joints = torch.from_numpy(made.body)
    if gestures is not None:
        joints = _gesture(joints, gestures, rng)
    posed = Posed(torch.from_numpy(made.root), torch.from_numpy(made.pelvis), joints)
    return posed, torch.from_numpy(made.contacts)


def _gesture(
    joints: Float[Tensor, "T 21 3 3"], gestures: Gestures, rng: Rng
) -> Float[Tensor, "T 21 3 3"]:
    """Arms moved from what they did to the gestures and back."""
    seconds, spans, pairs, busy = len(joints) / MOTION_FPS, [0.0], [], []
    while spans[-1] < seconds:
        spans.append(spans[-1] + rng.uniform(*gestures.every))
        pairs.append(any_of(gestures.pairs, rng))
        busy.append(gestures.always or rng.random() < 0.7)
    spans.append(spans[-1] + 1.0)
    pairs.append(HANG)
    arms = arm_rotations(pairs, np.array(spans), MOTION_FPS, rng)[: len(joints)]
    times = np.arange(len(joints)) / MOTION_FPS
    inside = np.array(busy)[np.clip(np.searchsorted(spans, times, "right") - 1, 0, len(busy) - 1)]
    half = round(FADE * MOTION_FPS / 2)
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(inside.astype(np.float64), half, mode="edge")
    weight = torch.from_numpy(np.convolve(padded, kernel / kernel.sum(), mode="valid"))
    result, chosen = joints.clone(), list(ARM_JOINTS)
    turn = roma.rotmat_to_rotvec(joints[:, chosen].transpose(-1, -2) @ arms[:, chosen])
    result[:, chosen] = joints[:, chosen] @ roma.rotvec_to_rotmat(weight[:, None, None] * turn)
    return result
