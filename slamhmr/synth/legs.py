"""Two-bone inverse kinematics of SMPL legs: hip and ankle given, the knee is a pure hinge."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slamhmr.synth.footsteps import axis_rotation

Array = NDArray[np.float64]
REACH = (
    0.995  # of the straight leg: closer to straight the knee angle changes too fast to look human
)


@dataclass(frozen=True)
class Leg:
    """Rest bones in body axes."""

    hip: Array  # (3,) from the pelvis joint
    thigh: Array  # (3,) hip -> knee
    shank: Array  # (3,) knee -> ankle

    @property
    def length(self) -> float:
        """Longest distance hip to ankle that the hinge allows."""
        c, s, constant = _hinge_terms(self)
        squared = float(self.thigh @ self.thigh + self.shank @ self.shank)
        return float(np.sqrt(squared + 2 * (constant + np.hypot(c, s))))


def _hinge_terms(leg: Leg) -> tuple[float, float, float]:
    """Return (a, b, c) of thigh . R_x(flex) shank = a cos(flex) + b sin(flex) + c."""
    k, a = leg.thigh, leg.shank
    return (
        float(k[1] * a[1] + k[2] * a[2]),
        float(k[2] * a[1] - k[1] * a[2]),
        float(k[0] * a[0]),
    )


def solve_leg(
    leg: Leg, hip: Array, ankle: Array, lateral: Array
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """World rotation of the thigh (T,3,3), knee flexion (T,) >= 0, ankle in reach (T,).

    `lateral` (T,3) is the wanted direction of the knee's axis (the body's left). Out of reach the
    leg is straight towards the ankle.
    """
    a, b, constant = _hinge_terms(leg)
    squared = float(leg.thigh @ leg.thigh + leg.shank @ leg.shank)
    offset = ankle - hip
    distance = np.linalg.norm(offset, axis=-1)
    cosine = ((distance**2 - squared) / 2 - constant) / np.hypot(a, b)
    flex = np.arctan2(b, a) + np.arccos(np.clip(cosine, -1, 1))
    turned = axis_rotation(0, flex) @ leg.shank
    source = leg.thigh + turned  # hip -> ankle in thigh axes
    rotation = _frame(offset, lateral) @ np.swapaxes(_frame(source, np.array([1.0, 0, 0])), -1, -2)
    return rotation, flex, np.abs(cosine) <= 1


def _frame(down: Array, lateral: Array) -> Array:
    """Columns: lateral made orthogonal, up along -down, and their cross product."""
    up = -down / np.linalg.norm(down, axis=-1, keepdims=True)
    side = lateral - (lateral * up).sum(-1, keepdims=True) * up
    side = side / np.linalg.norm(side, axis=-1, keepdims=True)
    return np.stack([side, up, np.cross(side, up)], axis=-1)
