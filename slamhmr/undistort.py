"""Lens distortion is taken out once, at the border: every later step sees a pinhole camera.

OpenCV's model, k1 k2 p1 p2 [k3]. Its pixel centres are whole numbers, ours end in .5.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from slamhmr.types import Observations, Video
from slamhmr.video import VideoWriter, read_frames


def write_undistorted(
    path: Path, video: Video, intrinsics: list[float], distortion: list[float], *, progress: bool
) -> None:
    """Write the kept frames as a pinhole camera with the same `intrinsics` would see them."""
    import cv2

    camera, model = _camera_matrix(intrinsics), np.array(distortion)
    first, second = cv2.initUndistortRectifyMap(
        camera, model, None, camera, video.image_size, cv2.CV_16SC2
    )
    frames = tqdm(read_frames(video), "undistort", video.frame_count, disable=not progress)
    with VideoWriter(path, video.fps, video.image_size) as writer:
        for _, image in frames:
            writer.write(cv2.remap(image, first, second, cv2.INTER_LINEAR))


def undistorted_video(path: Path, video: Video) -> Video:
    """The video that `write_undistorted` made of `video`: upright, from its first kept frame on."""
    width, height = video.image_size
    return dataclasses.replace(
        video, path=path, image_size=(width // 2 * 2, height // 2 * 2), first=0, rotation=0
    )


def undistort_observations(
    observations: Observations, intrinsics: list[float], distortion: list[float]
) -> Observations:
    """Keypoints and boxes measured in the distorted image, moved to the pinhole image."""
    boxes = observations.boxes
    corners = torch.stack([boxes[..., [0, 1]], boxes[..., [2, 3]]], dim=-2)
    moved = undistort_points(observations.keypoints, intrinsics, distortion)
    seen = (observations.confidence > 0)[..., None]  # unseen points mean nothing, and may diverge
    return dataclasses.replace(
        observations,
        keypoints=torch.where(seen, moved, observations.keypoints),
        boxes=undistort_points(corners, intrinsics, distortion).flatten(start_dim=-2),
    )


def undistort_points(
    points: Float[Tensor, "*batch 2"], intrinsics: list[float], distortion: list[float]
) -> Float[Tensor, "*batch 2"]:
    """Image points of the pinhole camera that `points`, px, were distorted from; NaN stays NaN."""
    import cv2

    camera = _camera_matrix(intrinsics)
    flat = points.reshape(-1, 1, 2).numpy() - 0.5
    precise = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
    straight = cv2.undistortPoints(
        flat, camera, np.array(distortion), R=None, P=camera, criteria=precise
    )
    return torch.from_numpy(straight + 0.5).reshape(points.shape).to(points.dtype)


def _camera_matrix(intrinsics: list[float]) -> np.ndarray:
    fx, fy, cx, cy = intrinsics
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
