"""Occlusion of keypoints: limbs and whole people unseen for a while, people behind other people."""

import numpy as np
from numpy.typing import NDArray

from slamhmr.body import BodyModel
from slamhmr.skeleton import KEYPOINT_INDEX, SMPL_PARENTS
from slamhmr.synth.scene import Scene

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
LIMBS: tuple[tuple[str, ...], ...] = tuple(
    tuple(f"{side}_{part}" for part in parts)
    for side in ("left", "right")
    for parts in (("elbow", "wrist"), ("knee", "ankle", "big_toe", "small_toe", "heel"))
) + tuple(
    tuple(f"{side}_{part}" for side in ("left", "right") for part in parts)
    for parts in (("knee", "ankle", "big_toe", "small_toe", "heel"), ("elbow", "wrist"))
)
LIMB_GAP, FULL_GAP = (0.35, 1.2), (0.25, 0.7)  # s
LIMB_SECONDS, FULL_SECONDS = 4.0, 8.0  # on average one gap in so many seconds
TRUNK_RADIUS, LIMB_RADIUS = 0.15, 0.06  # m
WINDOW = 100  # frames; of W-MPJPE100
BEHIND = 0.25  # m by which a hidden point is farther away than what hides it


def gaps(shape: tuple[int, ...], fps: float, rng: np.random.Generator) -> Mask:
    """Where keypoints (N,T,K) are hidden: limbs for 0.35-1.2 s, whole people for 0.25-0.7 s."""
    people, frames, _ = shape
    mask = np.zeros(shape, dtype=bool)
    seconds = frames / fps
    for person in range(people):
        for _ in range(rng.poisson(seconds / LIMB_SECONDS)):
            limb = [KEYPOINT_INDEX[name] for name in LIMBS[rng.integers(len(LIMBS))]]
            start, end = _span(frames, LIMB_GAP, fps, rng)
            mask[person, start:end, limb] = True
        for _ in range(rng.poisson(seconds / FULL_SECONDS)):
            start, end = _span(frames, FULL_GAP, fps, rng)
            mask[person, start:end] = True
    return mask


def long_gaps(people: int, frames: int, length: float, rng: np.random.Generator) -> Mask:
    """Where a person (N,T) is hidden for `length` frames in a row, seen before and afterwards.

    Not at the beginning of a window of 100 frames where that can be: W-MPJPE100 would then be
    aligned on two poses that nobody saw, and tell nothing.
    """
    mask = np.zeros((people, frames), dtype=bool)
    count = min(round(length), frames // 2)
    starts = np.arange(frames // 5, max(frames // 5 + 1, 4 * frames // 5 - count))
    into = starts % WINDOW
    clear = starts[(into > 1) & (into + count <= WINDOW)]
    for person in mask:
        start = int(rng.choice(clear if len(clear) > 0 else starts))
        person[start : start + count] = True
    return mask


def _span(
    frames: int, seconds: tuple[float, float], fps: float, rng: np.random.Generator
) -> tuple[int, int]:
    length = min(frames - 1, max(1, round(fps * rng.uniform(*seconds))))
    start = int(rng.integers(0, frames - length + 1))
    return start, start + length


def hidden_by_others(scene: Scene, body: BodyModel, keypoints: Array, depth: Array) -> Mask:
    """Keypoints (N,T,K) that lie behind a bone (a thick line in the picture) of somebody nearer."""
    world_from_cam, intrinsics = scene.world_from_cam.numpy(), scene.intrinsics.numpy()
    joints = scene.points[:, :, :24].numpy() - world_from_cam[None, :, None, :3, 3]
    joints_cam = np.einsum("ntjk,tkl->ntjl", joints, world_from_cam[:, :3, :3])
    far = np.maximum(joints_cam[..., 2], 0.2)
    focal, centre = intrinsics[None, :, None, :2], intrinsics[None, :, None, 2:]
    pixels = focal * joints_cam[..., :2] / far[..., None] + centre
    mask = np.zeros(depth.shape, dtype=bool)
    for near in range(len(joints)):
        for child in range(1, 24):
            parent = SMPL_PARENTS[child]
            trunk = child in (3, 6, 9, 12, 13, 14, 15)
            radius = TRUNK_RADIUS if trunk else LIMB_RADIUS
            ends = pixels[near, :, parent], pixels[near, :, child]
            reach = radius * intrinsics[:, 0] / far[near, :, child]
            hit = _distance(keypoints, *ends) < reach[None, :, None]
            hit &= depth > far[near, :, child][None, :, None] + BEHIND
            hit[near] = False
            mask |= hit
    return mask


def _distance(points: Array, start: Array, end: Array) -> Array:
    """Pixel distance of points (N,T,K,2) from the line pieces start..end (T,2)."""
    along = (end - start)[None, :, None]
    offset = points - start[None, :, None]
    share = (offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    nearest = offset - np.clip(share, 0, 1)[..., None] * along
    return np.linalg.norm(nearest, axis=-1)
