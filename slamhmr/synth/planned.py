"""Motions that follow a plan: straight on, out of the picture and back, stairs, kerbs, a drop.

Where the floor is not level, `Timeline.terrain` gives the height under every stance and
`Timeline.climb` that of the pelvis; a drop falls freely from one level to the next.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slamhmr.synth import actions
from slamhmr.synth.actions import GRAVITY, Timeline
from slamhmr.synth.footsteps import Step

Array = NDArray[np.float64]
KINDS = ("straight", "out_and_back", "stairs", "kerb", "drop")
LEVELLESS = ("stairs", "kerb", "drop")  # kinds whose floor is not level
SWING = 0.75  # of the time between two steps, for careful steps
TREAD, RISE = (0.27, 0.32), (0.15, 0.19)  # m, of a stair
KERB, KERB_EVERY = (0.10, 0.20), (1.6, 2.6)  # m: rise, and from one to the next
DROP = (0.3, 2.0)  # m, height of a wall that somebody jumps from
STRIDE_REACH = 0.3  # m by which the feet are before and behind the pelvis


def write_plan(line: Timeline, kind: str, seconds: float, rng: np.random.Generator) -> float:
    """Fill the time line with the actions of a planned kind; returns when the clip begins, s."""
    line.clock = 0.2
    begin = 1.3 if kind in ("straight", "kerb") else 0.2
    if kind == "straight":
        _walk_on(line, begin + seconds + 2.0 - line.clock, rng)
    elif kind == "out_and_back":
        _out_and_back(line, begin + seconds, rng)
    elif kind == "stairs":
        _stairs_of_scene(line, begin + seconds, rng)
    elif kind == "kerb":
        _kerbs(line, begin + seconds + 2.0 - line.clock, rng)
    else:
        _drop(line, begin + seconds, rng)
    return begin


def shuffle(
    line: Timeline, seconds: float, step_time: float, rng: np.random.Generator, *, strike: float,
    release: float = -0.25, clearance: float = 0.06, sideways: float = 0.0,
) -> Array:  # fmt: skip
    """Alternate the feet without the pitches of a walk; returns how fully the person moves."""
    first = sideways if sideways != 0 else float(rng.choice([-1.0, 1.0]))
    count = max(4, round(seconds / step_time))
    swing = SWING * step_time
    landings = [line.clock + 0.2 + swing + k * step_time for k in range(count)]
    for k, landing in enumerate(landings):
        final = k >= count - 2
        at = landings[-1] + 0.6 if final else landing + 0.45 * step_time
        width = 0.1
        if sideways != 0 and not final:  # the leading foot lands wide, the other one close to it
            width = 0.2 if k % 2 == 0 else 0.07
        line.steps.append(
            Step(
                first * (-1) ** k, landing - swing, landing, at, width, clearance, strike=strike,
                release=release, strike_time=0.14, release_time=0.12,
            )
        )  # fmt: skip
    start, end = landings[0] - 0.6 * step_time, landings[-1] + 0.25
    moving = line.window(start, end, 1.2 * step_time, 1.5 * step_time + 0.25)
    beat = first * np.cos(np.pi * (line.times - landings[0]) / step_time) * moving
    line.add("roll", 0.03 * beat)
    for side, sign in zip(actions.ARMS, (-1.0, 1.0), strict=True):
        line.add(f"{side}_swing", 0.1 * sign * beat)
    line.clock = end + 0.3
    return moving


def stairs(line: Timeline, seconds: float, rng: np.random.Generator, direction: float) -> float:
    """Up (+1) or down (-1) a flight of stairs; returns its whole rise, negative downwards, m."""
    tread, rise = rng.uniform(*TREAD), direction * rng.uniform(*RISE)
    step_time = rng.uniform(0.55, 0.75)
    start, count = rng.uniform(0.9, 1.6), rng.integers(8, 14)
    strike, release = (0.1, -0.4) if direction > 0 else (-0.4, -0.5)
    moving = shuffle(line, seconds, step_time, rng, strike=strike, release=release, clearance=0.12)
    line.speed = line.speed + tread / step_time * moving

    def terrain(place: Array) -> float:
        return float(rise * np.clip(np.floor((place[0] - start) / tread) + 1, 0, count))

    line.terrain = terrain
    behind = 1.2 if direction > 0 else 0.0  # the pelvis follows the rear foot upwards
    line.climb = rise * np.clip((_along(line) - start) / tread + 1 - behind, 0, count)
    line.add("lean", (0.12 if direction > 0 else 0.02) * np.ones_like(line.times))
    return float(rise * count)


def _stairs_of_scene(line: Timeline, seconds: float, rng: np.random.Generator) -> None:
    """A flight of stairs whose lower end is the floor of the scene."""
    whole = stairs(line, seconds, rng, float(rng.choice([-1.0, 1.0])))
    relative = line.terrain
    if whole < 0 and relative is not None:
        line.terrain = lambda place: relative(place) - whole
        line.climb = line.climb - whole


def _walk_on(line: Timeline, seconds: float, rng: np.random.Generator) -> None:
    """Walk straight ahead."""
    level = np.zeros_like(line.times)
    actions.walk(line, seconds, rng.uniform(1.0, 1.45), level, rng.choice([-1.0, 1.0]))


def _out_and_back(line: Timeline, until: float, rng: np.random.Generator) -> None:
    """Walk some three metres ahead, turn round, come back the same way, and stand."""
    level = np.zeros_like(line.times)
    for leg in range(2):
        speed = rng.uniform(1.35, 1.6)
        actions.walk(line, 3.9 / speed, speed, level, rng.choice([-1.0, 1.0]))
        if leg == 0:
            actions.turn(line, float(rng.choice([-1.0, 1.0])) * np.pi)
    if line.clock < until:
        actions.wave(line, max(until - line.clock, 1.6), rng.choice(["left", "right"]), 1.5)


def _kerbs(line: Timeline, seconds: float, rng: np.random.Generator) -> None:
    """Walk straight on over kerbs, one up, one down."""
    _walk_on(line, seconds, rng)
    edges = np.cumsum([1.2, *rng.uniform(*KERB_EVERY, 30)])
    high = np.where(np.arange(30) % 2 == 0, rng.uniform(*KERB, 30), 0.0)
    _step_levels(line, edges[:30], np.concatenate([[0.0], high]))
    line.steps = [replace(step, clearance=step.clearance + 0.1) for step in line.steps]
    behind, ahead = (_level_at(line, sign * STRIDE_REACH) for sign in (-1.0, 1.0))
    line.climb = _smooth(np.minimum(behind, ahead), 0.35, line)


def _drop(line: Timeline, until: float, rng: np.random.Generator) -> None:
    """Stand on a wall, jump down, land deep, and walk on."""
    height = float(np.exp(rng.uniform(*np.log(DROP))))
    actions.stand(line, rng.uniform(0.6, 1.0))
    forward = rng.uniform(0.55, 0.8)
    hop, flight, begin = rng.uniform(0.06, 0.14), 0.0, line.clock + 0.1
    up = float(np.sqrt(2 * GRAVITY * hop))
    down = float(np.sqrt(up**2 + 2 * GRAVITY * height))
    flight, crouch = (up + down) / GRAVITY, 0.22
    push = 2.1 * crouch / up
    lowest = begin + 0.5
    lift, land = lowest + push, lowest + push + flight
    dip = float(np.clip(0.1 * down, 0.25, 0.45))
    settled = land + 2.3 * dip / down
    knots = [
        (begin, height, 0.0), (lowest, height - crouch, 0.0), (lift, height, up),
        (land, 0.0, -down), (settled, -dip, 0.0), (settled + 0.8, 0.0, 0.0),
    ]  # fmt: skip
    curve = actions.knotted(line.times, knots, flight=(lift, land))
    line.climb = np.where(line.times < begin, height, curve)
    line.flights.append((lift, land))
    travel = line.window(lift - 0.6 * push, land + 0.1, 0.6 * push, 0.1)
    line.speed = line.speed + forward * travel / (travel.sum() * (line.times[1] - line.times[0]))
    low = line.window(begin, lift, 0.5, push)
    low = low + line.window(land - 0.05, settled + 0.8, settled - land, 0.75)
    line.add("lean", 0.5 * low)
    line.add("back", 0.1 * low)
    thrown = line.window(lowest - 0.05, settled + 0.3, 1.3 * push, 0.6)
    for side in actions.ARMS:
        line.add(f"{side}_swing", 0.9 * thrown)
        line.add(f"{side}_elbow", 0.4 * thrown)
    for foot in (1.0, -1.0):
        line.steps.append(
            Step(
                foot, lift, land, settled + 0.3, 0.1, 0.0, strike=-0.3, release=-0.7,
                strike_time=0.07, release_time=0.7 * push, scaled=False, ballistic=0.9 * GRAVITY,
            )
        )  # fmt: skip
    line.clock = settled + 0.95
    _step_levels(line, np.array([0.3]), np.array([height, 0.0]))
    actions.stand(line, rng.uniform(0.2, 0.6))
    if until > line.clock + 1.5:
        _walk_on(line, max(until + 1.0 - line.clock, 2.5), rng)


def _step_levels(line: Timeline, edges: Array, levels: Array) -> None:
    """A floor of `levels` along x, from one to the next at each of `edges`."""

    def terrain(place: Array) -> float:
        return float(levels[np.searchsorted(edges, place[0], side="right")])

    line.terrain = terrain


def _level_at(line: Timeline, offset: float) -> Array:
    """Height (T,) of the floor `offset` m ahead of the root."""
    terrain = line.terrain
    if terrain is None:
        return np.zeros_like(line.times)
    return np.array([terrain(np.array([x + offset, 0.0])) for x in _along(line)])


def _along(line: Timeline) -> Array:
    """Path (T,) along the heading, m."""
    return np.asarray(np.cumsum(line.speed) * (line.times[1] - line.times[0]))


def _smooth(values: Array, seconds: float, line: Timeline) -> Array:
    half = max(1, round(seconds / 2 / (line.times[1] - line.times[0])))
    kernel = np.hanning(2 * half + 3)[1:-1]
    return np.convolve(np.pad(values, half, mode="edge"), kernel / kernel.sum(), mode="valid")
