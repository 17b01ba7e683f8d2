"""Left and right put back in order along a track, and points that jump marked as doubtful."""

import numpy as np

from slamhmr.detect.landmarks import LANDMARKS

ARMS = ("shoulder", "elbow", "wrist", "pinky", "index", "thumb")
LEGS = ("hip", "knee", "ankle", "heel", "foot_index")
SWAPPED_COST = 0.01  # person sizes per frame: without evidence the network's own sides stand
STEP_LIMIT = (
    0.25  # person sizes: motion of a point between two frames beyond which it tells nothing
)
LONGEST_STEP = 0.25  # s between two looks over which sides are compared
JUMP_FREE = 0.04  # person sizes: distance to the middle of its neighbours that a point may have
JUMP_SCALE = 0.08  # person sizes over which confidence falls by exp(-1/2) beyond that


def pairs(parts: tuple[str, ...]) -> np.ndarray:
    """Landmark indices (P,2), left and right, of some body parts."""
    return np.array(
        [[LANDMARKS.index(f"{side}_{part}") for side in ("left", "right")] for part in parts]
    )


def swapped(
    points: np.ndarray, weight: np.ndarray, sizes: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Looks (T,) of a limb pair whose left and right are exchanged, by continuity along the track.

    Viterbi over two states per look: the sides as they are or exchanged. Neighbouring looks
    cost the weighted mean distance that their points (T,P,2,2) travel, in person sizes (T,),
    `weight` (T,P,2); an exchanged look costs `SWAPPED_COST`. So a short exchange is undone and
    sides that are wrong most of the time stay.
    """
    count = len(points)
    cost = np.array([0.0, SWAPPED_COST])
    back = np.zeros((count, 2), dtype=int)
    for t in range(1, count):
        keep = cross = 0.0
        if times[t] - times[t - 1] <= LONGEST_STEP:
            size = (sizes[t] + sizes[t - 1]) / 2
            keep = _travel(points[t - 1], points[t], weight[t - 1] * weight[t], size)
            cross = _travel(
                points[t - 1], points[t, :, ::-1], weight[t - 1] * weight[t, :, ::-1], size
            )
        total = cost[:, None] + np.array([[keep, cross], [cross, keep]])
        back[t] = total.argmin(axis=0)
        cost = total.min(axis=0) + np.array([0.0, SWAPPED_COST])
    states = np.zeros(count, dtype=bool)
    state = int(cost.argmin())
    for t in range(count - 1, -1, -1):
        states[t] = state == 1
        state = int(back[t, state])
    return states


def _travel(first: np.ndarray, second: np.ndarray, weight: np.ndarray, size: float) -> float:
    """Weighted mean distance of points (P,2,2), at most `STEP_LIMIT` each, in person sizes."""
    distance = np.minimum(np.linalg.norm(first - second, axis=-1) / size, STEP_LIMIT)
    return float((weight * distance).sum() / max(float(weight.sum()), 1e-9))


def unswap(
    points: np.ndarray, confidence: np.ndarray, sizes: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points (T,33,2) and confidence (T,33) with continuous sides of arms and of legs."""
    points, confidence = points.copy(), confidence.copy()
    for parts in (ARMS, LEGS):
        index = pairs(parts)
        wrong = np.flatnonzero(swapped(points[:, index], confidence[:, index], sizes, times))
        for left, right in index:
            for values in (points, confidence):
                values[wrong, left], values[wrong, right] = (
                    values[wrong, right].copy(),
                    values[wrong, left].copy(),
                )
    return points, confidence


def steadiness(points: np.ndarray, sizes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Factor (T,K) 0..1 for points (T,K,2): 1 for steady ones, small for single-frame jumps.

    A point is compared with the middle of its two neighbours in time, the body's own motion
    removed first (median over points); ends of the track and looks beside a gap keep 1.
    """
    factor = np.ones(points.shape[:2])
    if len(points) < 3:
        return factor
    away = points[1:-1] - (points[:-2] + points[2:]) / 2
    away = away - np.median(away, axis=1, keepdims=True)
    distance = np.linalg.norm(away, axis=-1) / sizes[1:-1, None]
    beside = (np.diff(frames)[:-1] == 1) & (np.diff(frames)[1:] == 1)
    excess = np.maximum(distance - JUMP_FREE, 0.0) / JUMP_SCALE
    factor[1:-1] = np.where(beside[:, None], np.exp(-(excess**2) / 2), 1.0)
    return factor
