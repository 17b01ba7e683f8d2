"""Left and right limbs that a detector exchanged for some frames, put back; without pixels."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from slamhmr.detect.repair import swapped
from slamhmr.types import Observations

LIMBS: dict[str, tuple[str, ...]] = {
    "arms": ("shoulder", "elbow", "wrist"),
    "legs": ("hip", "knee", "ankle", "big_toe", "small_toe", "heel"),
}
LEAST = 0.1  # confidence of a point that tells where a limb is
HEIGHT_SHARE = 0.5  # of the extent in the picture: a person's size, by which motion is measured
SIZE_SPAN = 0.5  # s to either side: a person's size is the median over them
LEAST_APART = 0.06  # person sizes between left and right, below which an exchange means nothing

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def repair_sides(observations: Observations) -> tuple[Observations, tuple[str, ...]]:
    """The observations with continuous sides of arms and legs, and what was exchanged.

    A few frames' exchange is undone; sides that are wrong most of the time stay, and so do frames
    in which the limbs lie on each other. Users' and detectors' files alike.
    """
    keypoints = observations.keypoints.numpy().copy()
    confidence = observations.confidence.numpy().copy()
    times = observations.timestamps.numpy()
    names, notes = observations.keypoint_names, []
    for row, person in enumerate(observations.person_id.tolist()):
        frames = np.flatnonzero((confidence[row] >= LEAST).sum(axis=1) >= 4)
        if len(frames) < 3:
            continue
        sizes = person_sizes(keypoints[row, frames], confidence[row, frames], observations.fps)
        for limb, parts in LIMBS.items():
            pairs = limb_pairs(names, parts)
            if len(pairs) < 2:
                continue
            points = keypoints[row, frames][:, pairs]  # (T, P, 2, 2)
            sure = confidence[row, frames][:, pairs]
            trusted = np.where(sure >= LEAST, sure, 0.0)
            wrong = swapped(points, trusted, sizes, times[frames])
            wrong &= _apart(points, trusted, sizes)
            if not wrong.any() or wrong.mean() > 0.5:
                continue
            left, right = pairs.T
            for values in (keypoints[row], confidence[row]):
                values[np.ix_(frames[wrong], [*left, *right])] = values[
                    np.ix_(frames[wrong], [*right, *left])
                ]
            notes.append(
                f"person {person}: left and right {limb} were exchanged in {int(wrong.sum())} of "
                f"{len(frames)} frames, the first of them {int(frames[wrong][0])}; put back"
            )
    if len(notes) == 0:
        return observations, ()
    points, sure = torch.from_numpy(keypoints), torch.from_numpy(confidence)
    return replace(observations, keypoints=points, confidence=sure), tuple(notes)


def limb_pairs(names: tuple[str, ...], parts: tuple[str, ...]) -> NDArray[np.int64]:
    """Columns (P,2), left and right, of the parts that the observations have."""
    both = [(f"left_{part}", f"right_{part}") for part in parts]
    return np.array(
        [[names.index(a), names.index(b)] for a, b in both if a in names and b in names],
        dtype=np.int64,
    ).reshape(-1, 2)


def person_sizes(points: Array, confidence: Array, fps: float) -> Array:
    """Size (T,) px of a person in frames: a share of the extent of points (T,K,2), smoothed."""
    seen = (confidence >= LEAST)[..., None]
    extent = np.where(seen, points, -np.inf).max(axis=1) - np.where(seen, points, np.inf).min(
        axis=1
    )
    side = np.maximum(extent.max(axis=1), 8.0)
    half = max(1, round(SIZE_SPAN * fps))
    padded = np.pad(side, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return HEIGHT_SHARE * np.median(windows, axis=-1)


def _apart(points: Array, weight: Array, sizes: Array) -> Mask:
    """Frames (T,) in which left and right points (T,P,2,2) are apart, in the weighted mean."""
    both = weight.min(axis=2)
    distance = np.linalg.norm(points[:, :, 0] - points[:, :, 1], axis=-1)
    mean = (both * distance).sum(axis=1) / np.maximum(both.sum(axis=1), 1e-9)
    return np.asarray(mean > LEAST_APART * sizes)
