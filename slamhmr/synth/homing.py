"""Walkers who stay near one place: a turn towards home, the stronger the further out they are."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CALM, EDGE = 1.0, 2.0  # m from home at which turning begins and is at its strongest
SHARPEST = 1.0  # rad per metre walked: a bend of one metre's radius


def turn_home(times: Array, speed: Array, rate: Array) -> Array:
    """Turn rate (T,), rad/s, that with `rate` added keeps a walk near (0, 0), where it begins.

    `speed` (T,) is along the heading, m/s, which begins at 0 rad. Who stands still does not turn.
    """
    delta = float(times[1] - times[0])
    turn = np.zeros_like(times)
    x = y = heading = 0.0
    for t, (pace, wander) in enumerate(zip(speed.tolist(), rate.tolist(), strict=True)):
        away = math.hypot(x, y)
        if away > CALM and pace > 0:
            off = math.remainder(math.atan2(-y, -x) - heading, 2 * math.pi)
            strength = min((away - CALM) / (EDGE - CALM), 1.0)
            turn[t] = SHARPEST * pace * strength * max(-1.0, min(1.0, off))
        heading += (turn[t] + wander) * delta
        x += pace * delta * math.cos(heading)
        y += pace * delta * math.sin(heading)
    return turn
