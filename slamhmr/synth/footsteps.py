"""Feet: where and when each foot stands, and its exact path in between.

A foot on the floor never slides: while the heel strikes it turns about its heel, then it is flat,
then it rolls over the ball while the toes stay flat. World z up, floor at 0; m, rad, s.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FOREVER = 1e3  # s; a foot that never lifts again
# m from one place of a foot to the next at which its pitches are full: a walk at 1.2 m/s.
FULL_STRIDE = 1.3


@dataclass(frozen=True)
class Foot:
    """Rest geometry of one foot in body axes (x left, y up, z forward), relative to the ankle."""

    side: float  # +1 left, -1 right
    height: float  # of the ankle above the sole
    heel: Array  # (3,)
    ball: Array  # (3,) base of the toes: the SMPL foot joint


@dataclass(frozen=True)
class Step:
    """One swing of one foot, from lift to landing, to where the root is at time `at`."""

    side: float
    lift: float
    land: float
    at: float  # time at which the body passes over the new place
    half_width: float  # of the track
    clearance: float  # extra height of the ankle in mid swing
    strike: float = 0.33  # pitch at landing for a full stride, toes up positive
    release: float = -0.9  # pitch at lift for a full stride, heel up negative
    strike_time: float = 0.12
    release_time: float = 0.3
    scaled: bool = True  # pitches shrink with the length of the stride
    ballistic: float = 0.0  # gravity of a jump's swing: adds g/2 tau (T - tau) to the height


@dataclass(frozen=True)
class Stance:
    """One foot on the floor from `start` to `end`."""

    start: float
    end: float
    place: Array  # (2,) of the ankle of the flat foot
    yaw: float
    strike: float
    strike_time: float
    release: float
    release_time: float
    clearance: float  # of the swing that follows
    ballistic: float
    base: float = 0.0  # height of the floor there, m


@dataclass(frozen=True)
class FootTrack:
    """Path of one foot on a time grid: rotation = heading(yaw) @ pitch about the lateral axis."""

    ankle: Array  # (T,3)
    yaw: Array  # (T,)
    pitch: Array  # (T,) toes up positive
    toe: Array  # (T,) bend of the toes against the foot; -pitch where the toes lie flat
    heel_down: NDArray[np.bool_]  # (T,)
    toe_down: NDArray[np.bool_]  # (T,)
    base: Array  # (T,) height of the floor under the last stance, m; zeros where it is level


def heading_frame(yaw: Array) -> Array:
    """Rotation (...,3,3) of an upright body (x left, y up, z forward) facing `yaw`, world z up."""
    yaw = np.asarray(yaw, dtype=np.float64)
    c, s, o = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)
    rows = [[-s, o, c], [c, o, s], [o, o + 1, o]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def axis_rotation(axis: int, angle: Array) -> Array:
    """Rotation (...,3,3) about coordinate axis 0, 1 or 2."""
    angle = np.asarray(angle, dtype=np.float64)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*angle.shape, 3, 3))
    j, k = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., axis, axis] = 1
    matrix[..., j, j], matrix[..., j, k] = c, -s
    matrix[..., k, j], matrix[..., k, k] = s, c
    return matrix


def place_stances(
    steps: list[Step],
    side: float,
    path: Callable[[float], tuple[Array, float]],
    *,
    half_width: float,
    toe_out: float,
) -> list[Stance]:
    """Stances of one foot: the start, one after every step; `path(t)` is root place, heading."""
    own = sorted((s for s in steps if s.side == side), key=lambda s: s.land)
    places, yaws = [], []
    for at, width in [(0.0, half_width), *((s.at, s.half_width) for s in own)]:
        centre, heading = path(at)
        left = np.array([-np.sin(heading), np.cos(heading)])
        places.append(centre + side * width * left)
        yaws.append(heading - side * toe_out)
    strides = [float(np.linalg.norm(b - a)) for a, b in zip(places[:-1], places[1:], strict=True)]
    shares = [
        min(n / FULL_STRIDE, 1.15) if s.scaled else 1.0 for n, s in zip(strides, own, strict=True)
    ]
    stances = []
    for i, (place, yaw) in enumerate(zip(places, yaws, strict=True)):
        came = own[i - 1] if i > 0 else None
        goes = own[i] if i < len(own) else None
        start = came.land if came is not None else -FOREVER
        end = goes.lift if goes is not None else FOREVER
        strike_time = came.strike_time if came is not None else 0.1
        release_time = goes.release_time if goes is not None else 0.1
        shrink = min(1.0, (end - start) / (strike_time + release_time + 0.02))
        stances.append(
            Stance(
                start=start,
                end=end,
                place=place,
                yaw=yaw,
                strike=came.strike * shares[i - 1] if came is not None else 0.0,
                strike_time=strike_time * shrink,
                release=goes.release * shares[i] if goes is not None else 0.0,
                release_time=release_time * shrink,
                clearance=goes.clearance * (0.4 + 0.6 * min(shares[i], 1)) if goes else 0.0,
                ballistic=goes.ballistic if goes is not None else 0.0,
            )
        )
    return stances


def foot_track(stances: list[Stance], foot: Foot, times: Array) -> FootTrack:
    """Pose and contacts of one foot at every time: exact stances, swings with matched velocity."""
    ankle, yaw = np.zeros((len(times), 3)), np.zeros(len(times))
    pitch, toe = np.zeros(len(times)), np.zeros(len(times))
    heel_down = np.zeros(len(times), dtype=bool)
    toe_down = np.zeros(len(times), dtype=bool)
    base = np.zeros(len(times))
    for i, stance in enumerate(stances):
        inside = (times >= stance.start) & (times <= stance.end)
        now = times[inside]
        ankle[inside], pitch[inside] = _stance_pose(stance, foot, now)
        yaw[inside] = stance.yaw
        base[times >= stance.start] = stance.base
        toe[inside] = -np.minimum(pitch[inside], 0)
        landed, leaving = stance.start + stance.strike_time, stance.end - stance.release_time
        heel_down[inside] = (now <= leaving) & ((now >= landed) | (stance.strike >= 0))
        toe_down[inside] = (now >= landed) | (stance.strike <= 0)
        if i + 1 < len(stances):
            aloft = (times > stance.end) & (times < stances[i + 1].start)
            swing = _swing_pose(stance, stances[i + 1], foot, times[aloft])
            ankle[aloft], yaw[aloft], pitch[aloft], toe[aloft] = swing
    return FootTrack(ankle, yaw, pitch, toe, heel_down, toe_down, base)


def _stance_pose(stance: Stance, foot: Foot, now: Array) -> tuple[Array, Array]:
    """Ankle (n,3) and pitch (n,) of a foot on the floor: on the heel, flat, then on the ball."""
    strike = np.clip(1 - (now - stance.start) / max(stance.strike_time, 1e-6), 0, 1) ** 2
    release = np.clip(1 - (stance.end - now) / max(stance.release_time, 1e-6), 0, 1) ** 2
    pitch = stance.strike * strike + stance.release * release
    frame = heading_frame(np.asarray(stance.yaw))
    flat = np.array([*stance.place, stance.base + foot.height])
    pivot = np.where((pitch > 0)[:, None], foot.heel, foot.ball)
    turned = np.einsum("nij,nj->ni", axis_rotation(0, -pitch), pivot)
    return flat + (pivot - turned) @ frame.T, pitch


def _swing_pose(
    before: Stance, after: Stance, foot: Foot, now: Array
) -> tuple[Array, Array, Array, Array]:
    """Ankle, yaw, pitch and toe bend in the air between two stances."""
    duration, delta = after.start - before.end, 1e-4
    ends, slopes, pitches, rates = [], [], [], []
    for stance, at in ((before, before.end - delta), (after, after.start)):
        position, pitch = _stance_pose(stance, foot, np.array([at, at + delta]))
        ends.append(position[0 if stance is after else 1])
        pitches.append(pitch[0 if stance is after else 1])
        slopes.append((position[1] - position[0]) / delta)
        rates.append((pitch[1] - pitch[0]) / delta)
    u = ((now - before.end) / duration)[:, None]
    ankle = quintic(u, ends[0], ends[1], slopes[0] * duration, slopes[1] * duration)
    u = u[:, 0]
    if before.ballistic > 0:  # a fall sinks evenly under its parabola
        ankle[:, 2] += (after.base - before.base) * (u - min_jerk(u))
    ankle[:, 2] += before.clearance * 16 * (u * (1 - u)) ** 2
    ankle[:, 2] += before.ballistic / 2 * (now - before.end) * (after.start - now)
    # The foot leaves with its rate, bounded so that it does not turn far on, and lands at rest.
    bound = abs(pitches[0])
    slope = float(np.clip(rates[0] * duration, -bound, bound))
    pitch = quintic(u, pitches[0], pitches[1], slope, 0.0)
    yaw = before.yaw + (after.yaw - before.yaw) * min_jerk(u)
    fade_out = 1 - min_jerk(np.clip(u / 0.5, 0, 1))
    fade_in = min_jerk(np.clip((u - 0.5) / 0.5, 0, 1))
    toe = -min(before.release, 0.0) * fade_out - min(after.strike, 0.0) * fade_in
    return ankle, yaw, pitch, toe


def min_jerk(u: Array) -> Array:
    """Smooth step 0 -> 1 with zero velocity and acceleration at both ends."""
    return u**3 * (10 - 15 * u + 6 * u**2)


def quintic(
    u: Array, p0: Array | float, p1: Array | float, v0: Array | float, v1: Array | float
) -> Array:
    """Fifth-degree blend from p0 to p1, end slopes v0, v1 per unit u, end accelerations zero."""
    step = min_jerk(u)
    out = u - u**3 * (6 - 8 * u + 3 * u**2)  # slope 1 at 0, everything else 0
    into = -(u**3) * (4 - 7 * u + 3 * u**2)  # slope 1 at 1
    return p0 + (p1 - p0) * step + v0 * out + v1 * into
