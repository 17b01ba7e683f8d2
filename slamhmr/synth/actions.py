"""Actions on a time line: walking, running, turning, sitting, jumping, waving, standing.

Each action adds root speed, turn rate, steps and curves ("channels") to a `Timeline`; `motions.py`
turns the finished time line into joint rotations. Amplitudes are chosen by eye, of the size that
textbooks of gait give.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slamhmr.synth.footsteps import Step, min_jerk, quintic

Array = NDArray[np.float64]
GRAVITY = 9.81
WALK_DUTY, RUN_DUTY = 0.62, 0.38  # share of the stride that a foot spends on the floor
PASSING = 0.40  # share of the stance after which the body is above the foot
ARMS = ("left", "right")
# Rest value of every channel: metres and radians; see `motions.pose` for their meaning.
CHANNELS: dict[str, float] = {
    "height": 0.0, "back": 0.0, "sway": 0.0, "lean": 0.04, "roll": 0.0, "pelvis_yaw": 0.0,
    "twist": 0.0, "look": 0.0, "nod": 0.0,
    **{f"{side}_{name}": value for side in ARMS
       for name, value in (("swing", 0.0), ("drop", 1.35), ("turn", 0.0), ("elbow", 0.25))},
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """What makes one person move unlike another; factors around 1."""

    cadence: float
    arm_swing: float
    elbow: float  # rad
    drop: float  # rad, upper arm below horizontal
    lean: float  # rad
    sway: float
    toe_out: float  # rad
    half_width: float  # m, half the distance between the feet when walking


@dataclass(frozen=True)
class Seat:
    """Time at which a person sits: the box is put there."""

    start: float
    end: float


@dataclass
class Timeline:
    """Growing script of one person; `clock` is where the next action starts."""

    times: Array
    style: Style
    thigh: float  # m
    seat_drop: float  # m, standing pelvis above sitting pelvis
    clock: float = 0.0
    speed: Array = field(init=False)  # forward, m/s
    rate: Array = field(init=False)  # of the heading, rad/s
    lateral: Array = field(init=False)  # to the left, m/s
    climb: Array = field(init=False)  # of the pelvis over a floor that rises, m
    terrain: Callable[[Array], float] | None = None  # height of the floor at a place (2,), m
    channels: dict[str, Array] = field(init=False)
    steps: list[Step] = field(default_factory=list)
    seats: list[Seat] = field(default_factory=list)
    flights: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.speed, self.rate = np.zeros_like(self.times), np.zeros_like(self.times)
        self.lateral, self.climb = np.zeros_like(self.times), np.zeros_like(self.times)
        self.channels = {name: np.full_like(self.times, v) for name, v in CHANNELS.items()}

    def ramp(self, start: float, end: float) -> Array:
        """Smooth 0 -> 1 between two times."""
        return min_jerk(np.clip((self.times - start) / max(end - start, 1e-6), 0, 1))

    def window(self, start: float, end: float, rise: float, fall: float) -> Array:
        """Smooth 0 -> 1 -> 0: rises after `start`, is back at 0 at `end`."""
        return self.ramp(start, start + rise) * (1 - self.ramp(end - fall, end))

    def blend(self, name: str, weight: Array, value: Array | float) -> None:
        """Move a channel towards `value` by `weight` 0..1."""
        self.channels[name] = self.channels[name] * (1 - weight) + value * weight

    def add(self, name: str, value: Array) -> None:
        """Add to a channel."""
        self.channels[name] = self.channels[name] + value


def stand(line: Timeline, duration: float) -> None:
    """Stand idle."""
    line.clock += duration


def walk(line: Timeline, duration: float, speed: float, rate: Array, first: float) -> None:
    """Walk for `duration` s at `speed` m/s, turning at `rate` (T,) rad/s; `first` +1: left foot."""
    step_time = 1 / (1.85 * line.style.cadence * np.sqrt(speed / 1.3))
    landings = _bout(line, duration, step_time, WALK_DUTY, first, running=False)
    moving = _drive(line, landings, step_time, speed, rate)
    phase = (line.times - landings[0]) / step_time
    beat = first * np.cos(np.pi * phase) * moving
    loud = speed / 1.3
    for side, sign in zip(ARMS, (-1.0, 1.0), strict=True):
        swing = 0.36 * line.style.arm_swing * loud * sign * beat
        line.add(f"{side}_swing", swing)
        line.add(f"{side}_elbow", 0.5 * np.maximum(swing, 0) + 0.08 * moving)
    stance = first * np.cos(np.pi * (phase - 0.5)) * moving
    line.add("sway", 0.02 * line.style.sway * stance)
    line.add("roll", 0.045 * stance)
    line.add("pelvis_yaw", -0.09 * loud * beat)
    line.add("twist", 0.17 * loud * beat)
    line.add("lean", 0.03 * loud * moving)


def run(line: Timeline, duration: float, speed: float, rate: Array, first: float) -> None:
    """Run: flight phases at true gravity, bent elbows."""
    step_time = 1 / (2.75 * line.style.cadence * (speed / 3.0) ** 0.3)
    landings = _bout(line, duration, step_time, RUN_DUTY, first, running=True)
    moving = _drive(line, landings, step_time, speed, rate)
    phase = (line.times - landings[0]) / step_time
    beat = first * np.cos(np.pi * phase) * moving
    for side, sign in zip(ARMS, (-1.0, 1.0), strict=True):
        line.add(f"{side}_swing", 0.62 * line.style.arm_swing * sign * beat - 0.12 * moving)
        line.blend(f"{side}_elbow", moving, 1.45)
        line.blend(f"{side}_drop", moving, line.style.drop - 0.08)
    line.add("roll", 0.05 * first * np.cos(np.pi * (phase - 0.4)) * moving)
    line.add("pelvis_yaw", -0.12 * beat)
    line.add("twist", 0.3 * beat)
    line.add("lean", 0.13 * moving)
    line.add("height", (_bounce(phase, step_time) - 0.085) * moving)


def turn(line: Timeline, angle: float) -> None:
    """Turn on the spot by `angle` rad, positive to the left, in small steps."""
    step_time = 0.46 / line.style.cadence
    count = int(np.ceil(abs(angle) / 0.75)) + 1
    first = float(np.sign(angle))
    landings = _bout(line, count * step_time, step_time, WALK_DUTY, first, running=False)
    start, end = landings[0] - 0.7 * step_time, landings[-1] + 0.1
    bell = np.gradient(line.ramp(start, end), line.times)
    line.rate = line.rate + angle * bell
    line.add("look", 0.35 * first * line.window(start - 0.2, end, 0.3, 0.6))
    line.clock = end + 0.2


def sit(line: Timeline, hold: float) -> None:
    """Sit down on a box behind the person, stay for `hold` s, get up again."""
    down, up = 1.35, 1.25
    start, seated = line.clock + 0.1, line.clock + 0.1 + down
    risen = seated + hold + up
    low = line.ramp(start, seated) * (1 - line.ramp(seated + hold, risen))
    line.add("height", -line.seat_drop * low)
    # The hips move back before they sink and rise before they come forward.
    behind = line.ramp(start, seated - 0.15) * (1 - line.ramp(seated + hold + 0.15, risen))
    line.add("back", 0.93 * line.thigh * behind)
    for begin, end in ((start, seated + 0.25), (seated + hold - 0.25, risen)):
        line.add("lean", 0.62 * line.window(begin, end, 0.55 * (end - begin), 0.45 * (end - begin)))
    for side in ARMS:
        line.blend(f"{side}_swing", low, 0.3)
        line.blend(f"{side}_elbow", low, 0.85)
    line.seats.append(Seat(start, risen))
    line.clock = risen + 0.15


def jump(line: Timeline, height: float, forward: float) -> None:
    """Crouch, push off, fall freely over `height` m up and `forward` m ahead, land, get up."""
    take_off_speed = float(np.sqrt(2 * GRAVITY * height))
    flight = 2 * take_off_speed / GRAVITY
    crouch, rise = 0.3, 0.0
    push = 2.1 * (crouch + rise) / take_off_speed
    begin = line.clock + 0.1
    lowest = begin + 0.5
    lift, land = lowest + push, lowest + push + flight
    settled = land + 0.28
    knots = [
        (begin, 0.0, 0.0), (lowest, -crouch, 0.0), (lift, rise, take_off_speed),
        (land, rise, -take_off_speed), (settled, -0.26, 0.0), (settled + 0.6, 0.0, 0.0),
    ]  # fmt: skip
    line.add("height", knotted(line.times, knots, flight=(lift, land)))
    line.flights.append((lift, land))
    line.speed = line.speed + forward / flight * line.window(
        lift - 0.6 * push, land + 0.2, 0.6 * push, 0.2
    ) * (flight / (flight + 0.3 * push + 0.1))
    low = line.window(begin, lift, 0.5, push) + line.window(land - 0.05, settled + 0.6, 0.3, 0.6)
    line.add("lean", 0.55 * low)
    line.add("back", 0.1 * low)
    armed = line.window(begin, lift, 0.45, 0.8 * push)
    thrown = line.window(lowest - 0.05, settled + 0.2, 1.3 * push, 0.6)
    for side in ARMS:
        line.add(f"{side}_swing", -0.7 * armed + 1.5 * thrown)
        line.add(f"{side}_elbow", 0.35 * thrown)
    for foot in (1.0, -1.0):
        line.steps.append(
            Step(
                foot, lift, land, settled + 0.3, 0.1, 0.0, strike=-0.35, release=-0.75,
                strike_time=0.09, release_time=0.75 * push, scaled=False, ballistic=0.8 * GRAVITY,
            )
        )  # fmt: skip
    line.clock = settled + 0.75


def wave(line: Timeline, duration: float, side: str, beat: float) -> None:
    """Raise one arm and wave the forearm at `beat` Hz."""
    start, end = line.clock, line.clock + duration
    raised = line.window(start, end, 0.6, 0.7)
    swinging = line.window(start + 0.4, end - 0.4, 0.3, 0.3)
    line.blend(f"{side}_drop", raised, 0.15)
    line.blend(f"{side}_turn", raised, -1.45)
    line.blend(f"{side}_swing", raised, 0.1)
    angle = 1.35 + 0.42 * np.sin(2 * np.pi * beat * (line.times - start)) * swinging
    line.blend(f"{side}_elbow", raised, angle)
    line.add("look", (0.12 if side == "left" else -0.12) * raised)
    line.clock = end


def _bout(
    line: Timeline, duration: float, step_time: float, duty: float, first: float, *, running: bool
) -> list[float]:
    """Append alternating steps, the last two side by side; return their landing times."""
    count = max(3, round(duration / step_time))
    swing, stance = 2 * step_time * (1 - duty), 2 * step_time * duty
    landings = [line.clock + 0.1 + swing + k * step_time for k in range(count)]
    for k, landing in enumerate(landings):
        final = k >= count - 2
        at = landings[-1] + 0.6 if final else landing + PASSING * stance
        width = 0.08 if final else (0.03 if running else line.style.half_width)
        lift = landing - swing if k != 1 or not running else landing - swing + 0.1
        line.steps.append(
            Step(
                first * (-1) ** k, lift, landing, at,
                width, 0.17 if running else 0.05,
                strike=0.06 if running else 0.36,
                release=-0.85 if running else -0.95,
                strike_time=0.06 if running else 0.13,
                release_time=0.6 * stance if running else 0.52 * stance,
            )
        )  # fmt: skip
    return landings


def _drive(
    line: Timeline, landings: list[float], step_time: float, speed: float, rate: Array
) -> Array:
    """Move the root along during a bout; returns how fully the person is moving, 0..1."""
    rise = max(1.2 * step_time, speed / 3.0)
    start, end = landings[0] - 0.6 * step_time, landings[-1] + 0.25
    # The last two feet end side by side: the root must not outrun one step while they land.
    fall = 1.5 * step_time + 0.25 if speed < 2 else 2.7 * step_time + 0.25
    moving = line.window(start, end, rise, fall)
    line.speed = line.speed + speed * moving
    line.rate = line.rate + rate * moving
    line.clock = end + 0.1
    return moving


def _bounce(phase: Array, step_time: float) -> Array:
    """Height of a runner: parabola at g in flight, half sine with the same end slopes in stance."""
    share = 2 * RUN_DUTY
    u = np.mod(phase, 1.0)
    flight, stance = (1 - share) * step_time, share * step_time
    dip = GRAVITY * flight / 2 * stance / np.pi
    tau = (u - share) * step_time
    return np.where(u < share, -dip * np.sin(np.pi * u / share), GRAVITY / 2 * tau * (flight - tau))


def knotted(
    times: Array, knots: list[tuple[float, float, float]], flight: tuple[float, float]
) -> Array:
    """Curve through (time, value, slope): quintic pieces, an exact free fall inside `flight`."""
    value = np.zeros_like(times)
    for (t0, p0, v0), (t1, p1, v1) in zip(knots[:-1], knots[1:], strict=True):
        inside = (times >= t0) & (times < t1)
        tau, span = times[inside] - t0, t1 - t0
        if (t0, t1) == flight:
            value[inside] = p0 + v0 * tau - GRAVITY / 2 * tau**2
        else:
            value[inside] = quintic(tau / span, p0, p1, v0 * span, v1 * span)
    return value
