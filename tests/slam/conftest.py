"""A textured room with boxes, ray traced with numpy, seen by cameras of exactly known motion."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from slamhmr.types import Observations, Video
from slamhmr.video import open_video

TEXELS_PER_METRE = 90.0
ROOM = np.array([[-4.0, -2.0, -3.0], [4.0, 1.2, 9.0]])  # y points down; the camera starts at 0
BOXES = (
    np.array([[-1.9, 0.2, 3.0], [-1.1, 1.2, 3.8]]),
    np.array([[1.2, -0.4, 4.0], [2.0, 1.2, 4.6]]),
    np.array([[-0.4, 0.7, 5.0], [0.6, 1.2, 5.8]]),
    np.array([[-3.2, -0.8, 5.5], [-2.2, 1.2, 6.3]]),
)


@dataclass(frozen=True)
class Clip:
    """A rendered clip with its truth."""

    video: Video
    observations: Observations
    intrinsics: Tensor
    world_from_cam: Tensor


def texture(seed: int, side: int = 1100) -> np.ndarray:
    """Noise on several scales, float32 0..255."""
    generator = np.random.default_rng(seed)
    total = np.zeros((side, side), np.float32)
    for cell, weight in ((4, 1.0), (10, 1.0), (28, 0.9), (90, 0.6)):
        coarse = generator.standard_normal((side // cell + 2, side // cell + 2)).astype(np.float32)
        total += weight * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 42 * total, 0, 255)


TEXTURES = tuple(texture(seed) for seed in range(6))


def _entry_exit(
    box: np.ndarray, centre: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (3,P) along each ray to the nearer and further plane of every axis of a box."""
    hits = (box[:, :, None] - centre[:, None]) * inverse
    return hits.min(axis=0), hits.max(axis=0)


def render(world_from_cam: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Grey image (H,W) of the room."""
    width, height = size
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    fx, fy, cx, cy = intrinsics
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)]).reshape(3, -1)
    rays = (world_from_cam[:3, :3] @ rays + 1e-7).astype(np.float32)
    centre, inverse = world_from_cam[:3, 3].astype(np.float32), 1 / rays
    leave = _entry_exit(ROOM.astype(np.float32), centre, inverse)[1]
    axis, depth, shift = leave.argmin(axis=0), leave.min(axis=0), np.zeros(u.size, np.float32)
    for number, box in enumerate(BOXES, start=1):
        enter, leave = _entry_exit(box.astype(np.float32), centre, inverse)
        near = enter.max(axis=0)
        hit = (near < leave.min(axis=0)) & (near > 0) & (near < depth)
        depth, axis = np.where(hit, near, depth), np.where(hit, enter.argmax(axis=0), axis)
        shift = np.where(hit, np.float32(0.37 * number), shift)
    points = centre[:, None] + depth * rays
    image = np.zeros((height, width), np.float32)
    for normal in range(3):
        first, second = np.delete(points, normal, axis=0)
        maps = [np.mod((p + 5 + shift) * TEXELS_PER_METRE, 1098) for p in (first, second)]
        maps = [m.astype(np.float32).reshape(height, width) for m in maps]
        wall = cv2.remap(TEXTURES[normal], maps[0], maps[1], cv2.INTER_LINEAR)
        image = np.where(axis.reshape(height, width) == normal, wall, image)
    return image


def motion(kind: str, count: int) -> Tensor:
    """Exact world_from_cam (T,4,4) of a named motion over `count` frames."""
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    zero = torch.zeros_like(t)
    shake = 0.004 * torch.stack([torch.sin(31 * t), torch.sin(23 * t + 1), torch.sin(17 * t)], -1)
    turn, centre = zero[:, None].expand(-1, 3), zero[:, None].expand(-1, 3)
    if kind == "rotation":
        turn = torch.stack([0.05 * torch.sin(9 * t), 0.45 * torch.sin(4 * t), zero], -1) + shake
    elif kind == "sway":
        centre = torch.stack([0.05 * torch.sin(6.28 * t), 0.01 * torch.sin(9 * t), zero], -1)
        turn = shake
    elif kind == "forward":
        centre = torch.stack([0.02 * torch.sin(25 * t), 0.02 * torch.sin(19 * t), 1.8 * t], -1)
        turn = shake
    elif kind == "lateral":
        centre = torch.stack([1.6 * t - 0.8, 0.02 * torch.sin(20 * t), 0.1 * t], -1)
        turn = shake
    elif kind == "orbit":
        angle = 0.6 * t - 0.3
        centre = torch.stack([-4 * torch.sin(angle), zero, 4 - 4 * torch.cos(angle)], -1)
        turn = torch.stack([zero, angle, zero], -1) + shake
    transform = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    transform[:, :3, :3] = roma.rotvec_to_rotmat(turn)
    transform[:, :3, 3] = centre
    return transform


def person_boxes(count: int, size: tuple[int, int]) -> np.ndarray:
    """A person (T,4) who walks through the picture."""
    width, height = size
    left = np.linspace(0.15, 0.6, count) * width
    ones = np.ones(count)
    return np.stack([left, 0.3 * height * ones, left + 0.16 * width, 0.95 * height * ones], -1)


def observe(boxes: np.ndarray, size: tuple[int, int], fps: float) -> Observations:
    """Observations (N=1) of a person whose keypoints fill the given boxes (T,4)."""
    at = torch.from_numpy(boxes)
    share = torch.tensor([[0.5, 0.08], [0.1, 0.3], [0.9, 0.3], [0.2, 0.95], [0.8, 0.95]]).double()
    keypoints = at[:, None, :2] + share * (at[:, None, 2:] - at[:, None, :2])
    names = ("nose", "left_shoulder", "right_shoulder", "left_ankle", "right_ankle")
    return Observations(
        person_id=torch.zeros(1, dtype=torch.int64),
        keypoints=keypoints[None],
        confidence=torch.ones(1, len(at), len(names), dtype=torch.float64),
        keypoint_names=names,
        boxes=at[None],
        image_size=size,
        fps=fps,
        timestamps=torch.arange(len(at), dtype=torch.float64) / fps,
    )


def make_clip(
    folder: Path,
    kind: str,
    *,
    count: int = 40,
    size: tuple[int, int] = (320, 240),
    noise: float = 2,
) -> Clip:
    """Render a clip of a named motion, with a person walking through, as JPEG files."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    focal = 0.85 * size[0]
    intrinsics = torch.tensor([focal, focal, size[0] / 2, size[1] / 2], dtype=torch.float64)
    world_from_cam = motion(kind, count)
    boxes = person_boxes(count, size)
    shirt = TEXTURES[5]
    for t in range(count):
        image = render(world_from_cam[t].numpy(), intrinsics.numpy(), size)
        x0, y0, x1, y1 = boxes[t].astype(int)
        image[y0:y1, x0:x1] = shirt[: y1 - y0, : x1 - x0]
        image = np.clip(image + noise * generator.standard_normal(image.shape), 0, 255)
        cv2.imwrite(
            str(folder / f"{t:04d}.jpg"), image.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
    video = open_video(folder, fps=30.0)
    return Clip(video, observe(boxes, size, 30.0), intrinsics, world_from_cam)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Clip]:
    """Clips by motion name, rendered once per session."""
    root = tmp_path_factory.mktemp("clips")
    made: dict[tuple[str, int], Clip] = {}

    def clip(kind: str, count: int = 40) -> Clip:
        if (kind, count) not in made:
            made[kind, count] = make_clip(root / f"{kind}_{count}", kind, count=count)
        return made[kind, count]

    return clip
