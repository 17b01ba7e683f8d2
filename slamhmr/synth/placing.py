"""Where people go: motions are turned and shifted until nobody walks through anybody or a seat."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slamhmr.errors import ConfigError
from slamhmr.synth.footsteps import axis_rotation
from slamhmr.synth.motions import Motion, SeatBox

Array = NDArray[np.float64]
PERSONAL_SPACE = 0.9  # m between two pelves, or a pelvis and somebody else's seat
SEAT_SPACE = 0.16  # m from the edge of the own seat to the pelvis: just risen, or passing
TRIES = 120


@dataclass(frozen=True)
class Placed:
    """A motion at its place in the common world."""

    motion: Motion
    root: Array  # (T,3,3)
    pelvis: Array  # (T,3)
    boxes: tuple[SeatBox, ...]


def place_people(
    draw: Callable[[int, np.random.Generator], Motion], people: int, rng: np.random.Generator
) -> list[Placed]:
    """Draw and place all people, close together but never closer than `PERSONAL_SPACE`."""
    placed: list[Placed] = []
    for k in range(people):
        motion = _draw_clear(draw, k, rng)
        middle = np.median(motion.pelvis[:, :2], axis=0)
        attempt, clear = 0, False
        while not clear:  # ends: the circle grows until nobody is near
            radius = 0.0 if k == 0 else 1.0 + 0.04 * attempt
            angle, yaw = rng.uniform(-np.pi, np.pi, 2)
            goal = radius * np.array([np.cos(angle), np.sin(angle)])
            candidate = move(motion, yaw, middle, goal)
            clear = all(_clear(candidate, other) for other in placed)
            attempt += 1
        placed.append(candidate)
    return placed


def _draw_clear(
    draw: Callable[[int, np.random.Generator], Motion], k: int, rng: np.random.Generator
) -> Motion:
    """First drawn motion in which the person does not walk through the own seat.

    Raises ConfigError when none of `TRIES` motions is free of it.
    """
    for _ in range(TRIES):
        motion = draw(k, rng)
        if not _hits_own_seat(motion):
            return motion
    raise ConfigError(f"every one of {TRIES} motions runs into its own seat")


def _hits_own_seat(motion: Motion) -> bool:
    walked = motion.pelvis[~motion.seated, :2]
    return len(walked) > 0 and any(
        np.linalg.norm(walked - box.centre, axis=-1).min() < box.size[0] / 2 + SEAT_SPACE
        for box in motion.boxes
    )


def move(motion: Motion, yaw: float, middle: Array, goal: Array) -> Placed:
    """The motion turned by `yaw` about `middle` (2,), which comes to `goal` (2,)."""
    turn = axis_rotation(2, np.asarray(yaw))
    flat = turn[:2, :2]
    pelvis = motion.pelvis.copy()
    pelvis[:, :2] = (pelvis[:, :2] - middle) @ flat.T + goal
    boxes = tuple(
        SeatBox(flat @ (box.centre - middle) + goal, box.yaw + yaw, box.size)
        for box in motion.boxes
    )
    return Placed(motion, turn @ motion.root, pelvis, boxes)


def _clear(one: Placed, other: Placed) -> bool:
    """No pelvis near the other's pelvis at the same time, nor near the other's seat at any time."""
    apart = np.linalg.norm((one.pelvis - other.pelvis)[:, :2], axis=-1).min()
    seats = [
        np.linalg.norm(a.pelvis[:, :2] - box.centre, axis=-1).min()
        for a, b in ((one, other), (other, one))
        for box in b.boxes
    ]
    return bool(min([apart, *seats]) > PERSONAL_SPACE)
