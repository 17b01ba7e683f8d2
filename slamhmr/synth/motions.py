"""Procedural SMPL motion of one person: a random script of actions with exact foot contacts."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slamhmr.skeleton import SMPL_JOINTS
from slamhmr.synth import actions, planned
from slamhmr.synth.actions import Seat, Style, Timeline
from slamhmr.synth.footsteps import (
    Foot,
    FootTrack,
    axis_rotation,
    foot_track,
    heading_frame,
    place_stances,
)
from slamhmr.synth.homing import turn_home
from slamhmr.synth.legs import REACH, Leg, solve_leg

Array = NDArray[np.float64]
GRID_RATE = (
    120.0  # Hz, at least; motions are made on a fine grid and then thinned to the frame rate
)
KINDS = ("mixed", "walk", "turn", "run", "sit", "jump", "wave", "stand", "stroll")
STANDING = 0.993  # of the straight leg
SEAT_DEPTH = 0.44  # m, of a chair; less for people whose thigh is shorter than that


@dataclass(frozen=True)
class Skeleton:
    """Rest geometry that a motion needs, body axes (x left, y up, z forward), metres."""

    legs: tuple[Leg, Leg]
    feet: tuple[Foot, Foot]
    seat: float  # pelvis joint above the surface one sits on

    def scaled(self, factor: float) -> "Skeleton":
        """Everything longer by a factor."""
        legs = [Leg(factor * x.hip, factor * x.thigh, factor * x.shank) for x in self.legs]
        feet = [
            Foot(x.side, factor * x.height, factor * x.heel, factor * x.ball) for x in self.feet
        ]
        return Skeleton((legs[0], legs[1]), (feet[0], feet[1]), factor * self.seat)


@dataclass(frozen=True)
class SeatBox:
    """Box that a person sits on."""

    centre: Array  # (2,) world, m
    yaw: float
    size: Array  # (3,) depth along the heading, width, height


@dataclass(frozen=True)
class Motion:
    """Motion of one person in its own world: z up, floor z = 0."""

    root: Array  # (T,3,3) world_from_root
    pelvis: Array  # (T,3)
    body: Array  # (T,21,3,3)
    contacts: NDArray[np.bool_]  # (T,4) left heel, left toe, right heel, right toe
    boxes: tuple[SeatBox, ...]
    flights: tuple[tuple[int, int], ...]  # frames of free fall, first and last
    seated: NDArray[np.bool_]  # (T,) sitting down, sitting or getting up
    support: Array | None = None  # (T,4) height under each contact where the floor is not level, m

    def scaled(self, factor: float) -> "Motion":
        """The same movements of somebody larger by a factor: paths grow with the body."""
        boxes = tuple(SeatBox(factor * b.centre, b.yaw, factor * b.size) for b in self.boxes)
        support = None if self.support is None else factor * self.support
        return replace(self, pelvis=factor * self.pelvis, boxes=boxes, support=support)


def skeleton_from_points(points: Array, names: tuple[str, ...], sole: float) -> Skeleton:
    """Skeleton from rest points (P,3) and names; `sole` is the height of the lowest vertex."""
    at = {name: points[i] for i, name in enumerate(names)}
    legs, feet = [], []
    for side, sign in (("left", 1.0), ("right", -1.0)):
        hip, knee, ankle = at[f"{side}_hip"], at[f"{side}_knee"], at[f"{side}_ankle"]
        legs.append(Leg(hip - at["pelvis"], knee - hip, ankle - knee))
        feet.append(
            Foot(
                sign,
                float(ankle[1] - sole),
                at[f"{side}_heel"] - ankle,
                at[f"{side}_foot"] - ankle,
            )
        )
    return Skeleton((legs[0], legs[1]), (feet[0], feet[1]), seat=0.115)


def random_style(rng: np.random.Generator) -> Style:
    """Walking style of one person."""
    return Style(
        cadence=rng.uniform(0.93, 1.07),
        arm_swing=rng.uniform(0.7, 1.3),
        elbow=rng.uniform(0.15, 0.4),
        drop=rng.uniform(1.3, 1.42),
        lean=rng.uniform(0.0, 0.06),
        sway=rng.uniform(0.7, 1.4),
        toe_out=rng.uniform(-0.06, 0.08),
        half_width=rng.uniform(0.045, 0.075),
    )


def make_motion(
    kind: str, frames: int, fps: float, skeleton: Skeleton, rng: np.random.Generator
) -> Motion:
    """Random motion of a `kind` of `KINDS` or `planned.KINDS`, `frames` frames at `fps`.

    A "stroll" is a mixture without running and seats that stays within a few metres of one place,
    however long it lasts. Raises ValueError for an unknown kind.
    """
    known = (*KINDS, *planned.KINDS)
    if kind not in known:
        raise ValueError(f"motion '{kind}' is unknown; available: {', '.join(known)}")
    stride = max(1, int(np.ceil(GRID_RATE / fps)))
    line, standing = new_timeline(frames, fps, stride, skeleton, rng)
    write = planned.write_plan if kind in planned.KINDS else write_script
    begin = write(line, kind, frames / fps, rng)
    if kind == "stroll":
        line.rate = line.rate + turn_home(line.times, line.speed, line.rate)
    idle(line, rng)
    keep = slice(None, int((begin + frames / fps + 1) * fps * stride))
    motion = play(line, skeleton, standing, keep)
    first = round(begin * fps) * stride
    return thin(motion, first, stride, frames)


def new_timeline(
    frames: int, fps: float, stride: int, skeleton: Skeleton, rng: np.random.Generator
) -> tuple[Timeline, float]:
    """Empty time line with room for `frames` / `fps` and 40 s, and the standing pelvis' height."""
    times = np.arange(int((frames / fps + 40) * fps * stride)) / (fps * stride)
    style = random_style(rng)
    leg, foot = skeleton.legs[0], skeleton.feet[0]
    standing = foot.height + STANDING * leg.length - leg.hip[1]
    sitting = foot.height + 0.97 * float(np.linalg.norm(leg.shank)) - leg.hip[1] + 0.02
    thigh = float(np.linalg.norm(leg.thigh))
    return Timeline(times, style, thigh, standing - sitting), standing


def write_script(line: Timeline, kind: str, seconds: float, rng: np.random.Generator) -> float:
    """Fill the time line with `seconds` of actions; returns the time at which the clip begins."""
    rolling = kind in ("walk", "run")  # the clip starts in full motion
    line.clock = 0.2
    begin = 1.3 if rolling else rng.uniform(0.0, 0.3)
    if kind == "mixed" and rng.random() < 0.5:
        begin = 1.2
    cycle = {
        "walk": ["walk"], "run": ["run"], "stand": ["stand"], "turn": ["turn", "walk"],
        "sit": ["sit", "stand", "walk", "turn_round"], "jump": ["jump", "stand"],
        "wave": ["wave", "stand"], "mixed": [], "stroll": [],
    }[kind]  # fmt: skip
    queue: list[str] = []
    while line.clock < begin + seconds + 0.5:
        if len(queue) == 0:
            queue = list(cycle) if len(cycle) > 0 else _mixture(kind, rng)
        act(line, queue.pop(0), begin + seconds + 2.0 - line.clock, rng)
    return begin


def _mixture(kind: str, rng: np.random.Generator) -> list[str]:
    pauses = [["wave"], ["turn"], ["jump"], ["turn_round", "sit"], ["stand"], ["run"], ["turn"]]
    if kind == "stroll":
        pauses = [["wave"], ["turn"], ["jump"], ["stand"], ["turn"]]
    return ["walk", *pauses[rng.integers(len(pauses))]]


def act(line: Timeline, name: str, left: float, rng: np.random.Generator) -> None:
    """Append one random action of that name; `left` seconds remain of the script."""
    first = 1.0 if rng.random() < 0.5 else -1.0
    if name == "walk":
        duration = left if left < 6.0 else rng.uniform(3.0, 5.0)
        rate = wandering(line, rng, 0.9)
        actions.walk(line, max(duration, 2.5), rng.uniform(1.0, 1.55), rate, first)
    elif name == "run":
        duration = rng.uniform(2.5, 4.0) if left > 5 else left
        rate = wandering(line, rng, 1.1)
        actions.run(line, max(duration, 2.2), rng.uniform(2.5, 3.4), rate, first)
    elif name == "turn":
        actions.turn(line, first * rng.uniform(0.7, 2.6))
    elif name == "turn_round":
        actions.turn(line, first * rng.uniform(2.7, 3.4))
    elif name == "sit":
        actions.sit(line, rng.uniform(0.8, 2.2))
    elif name == "jump":
        actions.jump(line, rng.uniform(0.18, 0.34), rng.uniform(0.0, 0.5))
    elif name == "wave":
        actions.wave(
            line, rng.uniform(2.2, 3.4), rng.choice(["left", "right"]), rng.uniform(1.2, 2)
        )
    else:
        actions.stand(line, rng.uniform(0.6, 1.6))


def wandering(line: Timeline, rng: np.random.Generator, strength: float) -> Array:
    """Turn rate, rad/s: now and then a clear bend, a slight wander in between."""
    rate = smooth_noise(line.times, rng, 0.12, 4.0)
    at = line.clock + rng.uniform(0.8, 1.6)
    for _ in range(12):
        width, angle = rng.uniform(1.2, 2.2), rng.choice([-1, 1]) * rng.uniform(0.5, 1.6) * strength
        bump = np.gradient(line.ramp(at, at + width), line.times)
        rate = rate + angle * bump
        at += width + rng.uniform(0.5, 2.5)
    return rate


def smooth_noise(times: Array, rng: np.random.Generator, sigma: float, period: float) -> Array:
    """Sum of six sinusoids with periods around `period` s, of standard deviation `sigma`."""
    total = np.zeros_like(times)
    for _ in range(6):
        cycle = period * np.exp(rng.uniform(-0.7, 0.7))
        total += np.sin(2 * np.pi * (times / cycle + rng.random()))
    return sigma * total / np.sqrt(3)


def idle(line: Timeline, rng: np.random.Generator) -> None:
    """Small never-ending movements: weight shifts, head, arms."""
    calm = 1 / (1 + 2 * np.abs(line.speed))
    line.add("lean", np.full_like(line.times, line.style.lean))
    line.add("sway", smooth_noise(line.times, rng, 0.012, 3.5) * calm)
    line.add("back", smooth_noise(line.times, rng, 0.006, 3.0) * calm)
    line.add("look", smooth_noise(line.times, rng, 0.16, 3.0))
    line.add("nod", smooth_noise(line.times, rng, 0.06, 2.5) + 0.04)
    line.add("twist", smooth_noise(line.times, rng, 0.04, 3.0))
    for side in actions.ARMS:
        line.add(f"{side}_swing", smooth_noise(line.times, rng, 0.05, 2.5) + 0.03)
        line.add(f"{side}_drop", smooth_noise(line.times, rng, 0.03, 2.5) + line.style.drop - 1.35)
        line.add(f"{side}_turn", smooth_noise(line.times, rng, 0.06, 2.5))
        line.add(f"{side}_elbow", smooth_noise(line.times, rng, 0.07, 2.5) + line.style.elbow - 0.2)


def play(line: Timeline, skeleton: Skeleton, standing: float, keep: slice) -> Motion:
    """Integrate the path, plant the feet, lower the pelvis where legs are short, solve the legs."""
    times = line.times
    delta = times[1] - times[0]
    heading = np.cumsum(line.rate) * delta
    velocity = line.speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    velocity = velocity + line.lateral[:, None] * np.stack([-np.sin(heading), np.cos(heading)], -1)
    path = np.cumsum(velocity, axis=0) * delta

    def path_at(time: float) -> tuple[Array, float]:
        place = [np.interp(time, times, path[:, k]) for k in (0, 1)]
        return np.array(place), float(np.interp(time, times, heading))

    tracks = []
    for foot in skeleton.feet:
        width, toe_out = 0.08, line.style.toe_out
        stances = place_stances(line.steps, foot.side, path_at, half_width=width, toe_out=toe_out)
        if line.terrain is not None:
            stances = [replace(s, base=line.terrain(s.place)) for s in stances]
        tracks.append(foot_track(stances, foot, times[keep]))
    channels = {name: values[keep] for name, values in line.channels.items()}
    heading, path, times, climb = heading[keep], path[keep], times[keep], line.climb[keep]
    frame = heading_frame(heading)
    root = heading_frame(heading + channels["pelvis_yaw"])
    root = root @ axis_rotation(0, 0.4 * channels["lean"]) @ axis_rotation(2, channels["roll"])
    pelvis = np.concatenate([path, (standing + channels["height"] + climb)[:, None]], axis=1)
    pelvis = pelvis + channels["sway"][:, None] * frame[..., 0]
    pelvis = pelvis - channels["back"][:, None] * frame[..., 2]
    pelvis[:, 2] -= _too_high(pelvis, root, tracks, skeleton, delta)
    body = _upper_body(channels)
    for leg, track, offset in zip(skeleton.legs, tracks, (0, 1), strict=True):
        _put_leg(body, root, pelvis, leg, track, offset)
    contacts = np.stack(
        [tracks[0].heel_down, tracks[0].toe_down, tracks[1].heel_down, tracks[1].toe_down], -1
    )
    boxes = tuple(_seat_box(s, pelvis, heading, times, skeleton) for s in _reached(line, times))
    flights = tuple((int(a / delta) + 1, int(b / delta)) for a, b in line.flights if b < times[-1])
    seated = np.zeros(len(times), dtype=bool)
    for seat in line.seats:
        seated |= (times >= seat.start) & (times <= seat.end)
    bases = None if line.terrain is None else np.stack([tracks[k].base for k in (0, 0, 1, 1)], -1)
    return Motion(root, pelvis, body, contacts, boxes, flights, seated, bases)


def _reached(line: Timeline, times: Array) -> list[Seat]:
    return [seat for seat in line.seats if seat.start < times[-1]]


def _too_high(
    pelvis: Array, root: Array, tracks: list[FootTrack], skeleton: Skeleton, delta: float
) -> Array:
    """How far the pelvis must sink (T,) for every planted foot to be in reach, smoothed upwards."""
    excess = np.zeros(len(pelvis))
    for leg, track in zip(skeleton.legs, tracks, strict=True):
        hip = pelvis + root @ leg.hip
        across = ((hip - track.ankle)[:, :2] ** 2).sum(-1)
        room = np.sqrt(np.maximum((REACH * leg.length) ** 2 - across, 0.01))
        planted = track.heel_down | track.toe_down
        excess = np.maximum(excess, np.where(planted, hip[:, 2] - track.ankle[:, 2] - room, 0))
    half = max(1, round(0.09 / delta))
    padded = np.pad(excess, half, mode="edge")
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1).max(-1)
    kernel = np.hanning(2 * half + 3)[1:-1]
    return np.convolve(np.pad(highest, half, mode="edge"), kernel / kernel.sum(), mode="valid")


def _put_leg(
    body: Array, root: Array, pelvis: Array, leg: Leg, track: FootTrack, offset: int
) -> None:
    """Write hip, knee, ankle and toe rotations of one leg (offset 0 left, 1 right) into `body`."""
    hip = pelvis + root @ leg.hip
    toward = track.ankle - hip
    distance = np.linalg.norm(toward, axis=-1, keepdims=True)
    planted = (track.heel_down | track.toe_down)[:, None]
    limit = np.where(planted, np.inf, REACH * leg.length)  # a foot in the air is pulled along
    ankle = hip + toward * np.minimum(1, limit / distance)
    lateral = root[..., 0] + heading_frame(track.yaw)[..., 0]
    thigh, flex, _ = solve_leg(leg, hip, ankle, lateral)
    knee = axis_rotation(0, flex)
    foot = heading_frame(track.yaw) @ axis_rotation(0, -track.pitch)
    inverse = np.swapaxes(thigh @ knee, -1, -2)
    body[:, offset] = np.swapaxes(root, -1, -2) @ thigh
    body[:, 3 + offset] = knee
    body[:, 6 + offset] = inverse @ foot
    body[:, 9 + offset] = axis_rotation(0, -track.toe)


def _upper_body(channels: dict[str, Array]) -> Array:
    """Rotations (T,21,3,3) of spine, neck and arms from the channels; the legs stay at identity."""
    count = len(channels["lean"])
    body = np.broadcast_to(np.eye(3), (count, 21, 3, 3)).copy()
    index = {name: i - 1 for i, name in enumerate(SMPL_JOINTS)}
    lean, twist, roll = channels["lean"], channels["twist"], channels["roll"]
    for name, share in (("spine1", 0.25), ("spine2", 0.2), ("spine3", 0.15)):
        bend = axis_rotation(1, twist / 3) @ axis_rotation(0, share * lean)
        body[:, index[name]] = bend @ axis_rotation(2, -roll / 3)
    level = 0.35 * np.clip(lean, -0.5, 0.9)  # keeps the eyes near the horizon
    look, nod = channels["look"] - 0.6 * (twist + channels["pelvis_yaw"]), channels["nod"]
    body[:, index["neck"]] = axis_rotation(1, look / 2) @ axis_rotation(0, nod / 2 - level)
    body[:, index["head"]] = axis_rotation(1, look / 2) @ axis_rotation(0, nod / 2 - level)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        drop, swing = channels[f"{side}_drop"], channels[f"{side}_swing"]
        turn, elbow = channels[f"{side}_turn"], np.maximum(channels[f"{side}_elbow"], 0.03)
        collar = 0.12 * drop  # the shoulder girdle takes part of the arm's way
        body[:, index[f"{side}_collar"]] = axis_rotation(2, -sign * collar)
        upper = axis_rotation(0, -swing) @ axis_rotation(2, -sign * (drop - collar))
        body[:, index[f"{side}_shoulder"]] = upper @ axis_rotation(0, turn)
        body[:, index[f"{side}_elbow"]] = axis_rotation(1, -sign * elbow)
        body[:, index[f"{side}_wrist"]] = axis_rotation(1, -sign * 0.15 * elbow)
    return body


def _seat_box(
    seat: Seat, pelvis: Array, heading: Array, times: Array, skeleton: Skeleton
) -> SeatBox:
    inside = np.flatnonzero((times >= seat.start) & (times <= seat.end))
    lowest = inside[np.argmin(pelvis[inside, 2])]
    yaw = float(heading[lowest])
    forward = np.array([np.cos(yaw), np.sin(yaw)])
    height = float(pelvis[lowest, 2]) - skeleton.seat
    centre = pelvis[lowest, :2] - 0.08 * forward
    depth = min(SEAT_DEPTH, float(np.linalg.norm(skeleton.legs[0].thigh)))
    return SeatBox(centre, yaw, np.array([depth, 0.5, height]))


def thin(motion: Motion, first: int, stride: int, frames: int) -> Motion:
    """Every `stride`-th sample from `first` on; flights in frames of the result."""
    keep = slice(first, first + frames * stride, stride)
    flights = []
    for start, end in motion.flights:
        begin, last = -(-(start - first) // stride), (end - first) // stride
        if last > max(begin, 0) and begin < frames:
            flights.append((max(begin, 0), min(last, frames - 1)))
    return Motion(
        motion.root[keep], motion.pelvis[keep], motion.body[keep], motion.contacts[keep],
        motion.boxes, tuple(flights), motion.seated[keep],
        None if motion.support is None else motion.support[keep],
    )  # fmt: skip
