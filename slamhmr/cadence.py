"""Whether people walk in the time that the clip claims: slow motion, or a wrong frame rate."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slamhmr.geometry import runs
from slamhmr.types import Result

GRAVITY = 9.81
# Ankles and hips, indices of the SMPL joints.
HIP, KNEE, ANKLES = 1, 4, (7, 8)
SHORTEST_S, LEAST_SPEED = 3.0, 0.3  # of a walk: seconds in sight, m/s in the median
WINDOW_S = 7.0  # looked at together: nobody keeps pace and direction for long
LEAST_STEP = 0.4  # leg lengths, of the ankles' separation: below it nobody walks
LEAST_PERIODIC = 0.5  # autocorrelation after one stride: dancers and fighters step at no even pace
STEADY = 0.5, 1.5  # steps times cadence, of the speed on the way: whoever walks covers it by steps
# Step length over cadence ("walk ratio", Sekiya et al. 1996), in leg lengths and pendulum periods
# of the leg: a person keeps it at all speeds. In 60 recorded walks and 32 solved ones it is 0.8 to
# 2.0, in somebody's slow walk 2.3 (in dances to 4.8). Played slower by a factor it grows by that.
USUAL, SLOW, FAST = 1.6, 2.35, 0.75


@dataclass(frozen=True)
class Gait:
    """How somebody walks."""

    cadence: float  # steps per second
    step: float  # m between the ankles along the way, 95 % of the frames are below it
    leg: float  # m from hip to ankle

    @property
    def walk_ratio(self) -> float:
        """Step length over cadence, without unit: lengths in legs, times in sqrt(leg / g)."""
        return self.step / self.leg / (self.cadence * math.sqrt(self.leg / GRAVITY))


def gait(joints: Float[np.ndarray, "T 24 3"], fps: float) -> Gait | None:
    """Cadence and step length of one person, m, world z up; None for whoever does not walk.

    The cadence is that of the ankles' separation along the way, by its first peak of
    autocorrelation: it does not need contacts, and the length of the way (the scale) not either.
    """
    from scipy.ndimage import gaussian_filter1d

    if len(joints) < SHORTEST_S * fps:
        return None
    path = gaussian_filter1d(joints[:, 0, :2], 0.3 * fps, axis=0)
    velocity = np.gradient(path, axis=0) * fps
    speed = np.linalg.norm(velocity, axis=1)
    if np.median(speed) < LEAST_SPEED:
        return None
    forward = velocity / speed.clip(1e-6)[:, None]
    apart = ((joints[:, ANKLES[0], :2] - joints[:, ANKLES[1], :2]) * forward).sum(axis=1)
    apart = gaussian_filter1d(apart, 0.03 * fps)
    step = float(np.percentile(np.abs(apart), 95))
    stride = _period(apart - apart.mean())
    chain = joints[:, [HIP, KNEE, ANKLES[0]]]
    leg = float(np.linalg.norm(np.diff(chain, axis=1), axis=-1).sum(axis=1).mean())
    if stride is None or step < LEAST_STEP * leg:
        return None
    found = Gait(2 * fps / stride, step, leg)
    steady = STEADY[0] < step * found.cadence / float(np.median(speed)) < STEADY[1]
    return found if steady else None


def _period(signal: Float[np.ndarray, "T"]) -> int | None:
    """Samples after which a signal repeats: the first peak of its autocorrelation."""
    correlation = np.correlate(signal, signal, "full")[len(signal) - 1 :]
    correlation /= max(correlation[0], 1e-12)
    inner = correlation[1:-1]
    peak = (inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > LEAST_PERIODIC)
    return int(peak.argmax()) + 1 if peak.any() else None


def _walks(joints: Float[np.ndarray, "T 24 3"], fps: float) -> list[Gait]:
    """Every span of `WINDOW_S` in which the person walks at an even pace."""
    length = round(WINDOW_S * fps)
    starts = range(0, max(len(joints) - length, 0) + 1, max(length // 2, 1))
    walks = [gait(joints[start : start + length], fps) for start in starts]
    return [walk for walk in walks if walk is not None]


def notes_on_cadence(result: Result) -> list[str]:
    """One sentence if the walkers of the clip step as in slow motion, or as if it were sped up."""
    found = []
    for row in range(len(result.person_id)):
        seen = runs(result.valid[row] & result.observed[row])
        if len(seen) > 0:
            first, last = max(seen, key=lambda run: run[1] - run[0])
            found += _walks(result.joints[row, first:last].numpy(), result.fps)
    if len(found) == 0:
        return []
    ratio = float(np.median([walk.walk_ratio for walk in found]))
    if FAST <= ratio <= SLOW:
        return []
    walk = min(found, key=lambda walk: abs(walk.walk_ratio - ratio))
    how = "slow motion" if ratio > SLOW else "a clip that is sped up"
    return [
        f"people walk (or dance) as in {how}: {walk.step:.2f} m between the feet at "
        f"{walk.cadence:.2f} steps per second; played at its own speed the clip would have about "
        f"{result.fps * ratio / USUAL:.0f} frames per second instead of {result.fps:.4g}: speeds, "
        "accelerations and free fall are those of the frame rate given (`fps` in sequence.yaml)"
    ]
