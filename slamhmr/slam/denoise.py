"""Noise in the steps of a camera's path, taken off before the path gives people's world its scale.

Feet that stand still say how long the camera's steps are; noise in the steps makes them longer
than they were, so that the scale comes out too small (attenuation, as in any regression on noisy
inputs): by 3 to 9 % for a camera that moves by 5 to 10 mm per frame and a noise of 1.5 mm.
"""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.geometry import runs, shot_numbers
from slamhmr.types import CameraTrack

Array = NDArray[np.float64]
SHORTEST = 30  # steps; of fewer, noise and motion cannot be told apart
SMOOTHNESS = 10.0 ** np.arange(-6.0, 3.01, 0.5)  # variance ratios that are tried
LOUD = 0.03  # share of the steps' length, above which the report speaks of the noise


def without_noise(track: CameraTrack, times: Float[Tensor, "T"]) -> CameraTrack:
    """The track with every piece's centres along smooth velocities, as far as its noise is known.

    `times` in s. Tracks that stand, or whose scale is known, stay as they are.
    """
    if not track.moving or track.scale_known:
        return track
    lost = torch.zeros(len(times), dtype=torch.bool) if track.lost is None else track.lost
    path, noise, length = track.world_from_cam.clone(), 0.0, 0.0
    for first, stop in runs(~lost, shot_numbers(len(times), track.starts)):
        if stop - first <= SHORTEST:
            continue
        centres = path[first:stop, :3, 3].numpy()
        seconds = np.diff(times[first:stop].numpy())[:, None]
        steps = np.diff(centres, axis=0)
        smooth, sigma = smooth_velocity(steps / seconds)
        moved = np.cumsum(smooth * seconds, axis=0)
        moved += np.linspace(0, 1, len(moved))[:, None] * (steps.sum(axis=0) - moved[-1])
        path[first + 1 : stop, :3, 3] = torch.from_numpy(centres[0] + moved)
        noise += sigma * np.sqrt(3) * float(seconds.sum())
        length += float(np.linalg.norm(steps, axis=1).sum())
    notes = track.notes
    if noise > LOUD * length:
        told = f"{100 * noise / length:.0f} %"
        notes = (*notes, f"the camera's steps carry noise of {told} of their length: smoothed")
    return dataclasses.replace(track, world_from_cam=path, notes=notes)


def smooth_velocity(velocity: Array) -> tuple[Array, float]:
    """Velocities (n,3) without white noise, and the noise's standard deviation per axis.

    The velocity is a cubic smoothing spline (its second differences are white), the ratio of the
    two variances that of greatest restricted likelihood: Wahba, Annals of Statistics 13 (1985).
    """
    from scipy.linalg import cho_solve_banded, cholesky_banded

    count = len(velocity)
    centred = velocity - velocity.mean(axis=0)
    least = 1e-12 * float((velocity**2).sum())
    if float((centred**2).sum()) <= least:
        return velocity, 0.0
    rough = _second_differences(count)
    best, found, variance = np.inf, velocity, 0.0
    for ratio in SMOOTHNESS:
        matrix = rough / ratio
        matrix[2] += 1
        factor = cholesky_banded(matrix)
        smooth = cho_solve_banded((factor, False), centred)
        left = max(float((centred * (centred - smooth)).sum()), least)
        freedom = 3 * (count - 2)
        loss = freedom * np.log(left) + 6 * np.log(factor[2]).sum() + freedom * np.log(ratio)
        if loss < best:
            best, variance = loss, left / freedom
            found = smooth + velocity.mean(axis=0)
    return found, float(np.sqrt(variance))


def _second_differences(count: int) -> Array:
    """Upper bands (3,n) of D' D, D the second differences of n values."""
    bands = np.tile(np.array([[1.0], [-4.0], [6.0]]), count)
    bands[0, :2], bands[1, 0] = 0, 0
    bands[1, [1, -1]] = -2
    bands[2, [0, -1]], bands[2, [1, -2]] = 1, 5
    return bands
