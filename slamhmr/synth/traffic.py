"""People who cross each other's line of sight, and people who leave the picture and come back."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from slamhmr.synth.motions import Motion
from slamhmr.synth.placing import Placed, move

Array = NDArray[np.float64]
KINDS = ("apart", "cross", "exit")
LANE = 1.1  # m between people who pass each other
# m from the middle by which the camera still follows people
ASIDE = {"cross": 2.2, "exit": 0.8}
VIEW_ANGLE = -np.pi / 2  # rad: where the camera stands, for paths along x
LONGEST_LAPSE = 0.5  # s out of the picture that do not count as an exit
Draw = Callable[[int, np.random.Generator], Motion]


def place_crossing(draw: Draw, people: int, rng: np.random.Generator) -> list[Placed]:
    """People on parallel lanes along x, to and fro in turn, all at x = 0 half way through."""
    placed = []
    for k in range(people):
        motion = draw(k, rng)
        lane = np.array([rng.uniform(-0.3, 0.3), LANE * k])
        middle = motion.pelvis[len(motion.pelvis) // 2, :2]
        placed.append(move(motion, _yaw(motion, len(motion.pelvis) - 1, k), middle, lane))
    return placed


def place_leaving(draw: Draw, people: int, rng: np.random.Generator) -> list[Placed]:
    """The first person starts at the origin and goes along x; the others are beside the way."""
    placed = []
    for k in range(people):
        motion = draw(k, rng)
        first = k == 0
        goal = np.zeros(2) if first else np.array([-0.5 * k, LANE * (1.0 if k % 2 == 1 else -1.0)])
        far = int(np.argmax(np.linalg.norm(motion.pelvis[:, :2] - motion.pelvis[0, :2], axis=-1)))
        yaw = _yaw(motion, far, int(rng.integers(2))) if first else rng.uniform(-np.pi, np.pi)
        start = motion.pelvis[0, :2] if first else np.median(motion.pelvis[:, :2], axis=0)
        placed.append(move(motion, yaw, start, goal))
    return placed


def followed(traffic: str, pelvis: Array) -> Array:
    """Pelves (N,T,3) that the camera looks at: nobody is followed out of the picture."""
    if traffic not in ASIDE:
        return pelvis
    aside = ASIDE[traffic]
    return np.concatenate([np.clip(pelvis[..., :1], -aside, aside), pelvis[..., 1:]], axis=-1)


def in_picture(
    points: Array, world_from_cam: Array, intrinsics: Array, size: tuple[int, int], fps: float
) -> NDArray[np.bool_]:
    """Frames (N,T) in which any point (N,T,P,3) is in the picture, short lapses included."""
    rotation, centre = world_from_cam[:, :3, :3], world_from_cam[:, :3, 3]
    seen_from = np.einsum("ntpk,tkl->ntpl", points - centre[None, :, None], rotation)
    depth = np.maximum(seen_from[..., 2], 0.2)
    pixels = intrinsics[:2] * seen_from[..., :2] / depth[..., None] + intrinsics[2:]
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < size[0]) & (pixels[..., 1] < size[1])
    present = (inside & (seen_from[..., 2] > 0.2)).any(-1)
    for person in present:
        edges = np.flatnonzero(np.diff(np.concatenate([[True], person, [True]]).astype(int)))
        for start, end in edges.reshape(-1, 2):
            if end - start <= LONGEST_LAPSE * fps:
                person[start:end] = True
    return np.asarray(present)


def _yaw(motion: Motion, end: int, turned: int) -> float:
    """Yaw that brings the way from the first frame to `end` along +x, or -x if `turned` is odd."""
    way = motion.pelvis[end, :2] - motion.pelvis[0, :2]
    return float(-np.arctan2(way[1], way[0]) + np.pi * (turned % 2))
