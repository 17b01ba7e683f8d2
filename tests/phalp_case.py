"""A track file as PHALP writes it (brjathu/PHALP@b41f606), from a known truth."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import roma
import torch
from foreign_case import Truth

from slamhmr.skeleton import BODY_25, KEYPOINTS, canonical_keypoint

FOCAL = 5000.0 / 256.0  # over the longer side of the picture
PADDED = 1.3  # the crop's side over the box's, as 4D-Humans makes it


def weak_camera(truth: Truth, person: int, centre: np.ndarray, side: np.ndarray) -> np.ndarray:
    """HMR2's (s, tx, ty) for crops (T,2), (T,) that place the person at the truth, (T,3)."""
    size = np.array(truth.observations.image_size)
    focal = FOCAL * size.max()
    place = truth.transl(person, (focal, focal, *(size / 2)))
    depth = place[:, 2:]
    across = place[:, :2] - (centre - size / 2) * depth / focal
    return np.concatenate([2 * focal / (side[:, None] * depth), across], axis=1)


def slots(truth: Truth, person: int, frame: int) -> np.ndarray:
    """OpenPose's slots (25,3) as ViTPose fills them: COCO only, first pixel's middle at 0."""
    filled = np.zeros((25, 3))
    for row, raw in enumerate(BODY_25):
        name = canonical_keypoint(raw)
        if name in KEYPOINTS[:17]:
            column = KEYPOINTS.index(name)
            filled[row, :2] = truth.observations.keypoints[person, frame, column].numpy() - 0.5
            filled[row, 2] = 0.8
    return filled


def phalp_frames(truth: Truth, unseen: dict[int, set[int]] | None = None) -> dict[str, Any]:
    """Content of a track file; `unseen`: frames, by track, that PHALP only predicted."""
    seen = truth.observations
    width, height = seen.image_size
    frames: dict[str, Any] = {}
    boxes = seen.boxes.numpy()
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    scale = PADDED * sides
    cameras = [weak_camera(truth, n, centre[n], scale[n].max(axis=1)) for n in range(len(boxes))]
    hands = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    margin = np.array([(width - height) // 2 * (height > width), (width - height) // 2])
    for t in range(boxes.shape[1]):
        frame: dict[str, Any] = {"time": t, "shot": int(t == 5), "frame_path": f"img/{t + 1}.jpg"}
        for key in (
            "tid", "tracked_ids", "bbox", "center", "scale", "size", "conf", "smpl", "camera_bbox",
            "camera", "2d_joints", "extra_data", "mask", "annotations",
        ):  # fmt: skip
            frame[key] = []
        for n, track in enumerate(seen.person_id.tolist()):
            turns = roma.rotvec_to_rotmat(truth.pose[n, t])
            joints = np.zeros((45, 2))
            joints[:25] = slots(truth, n, t)[:, :2] + 0.5
            entry = {
                "tid": track,
                "bbox": np.concatenate([boxes[n, t, :2], sides[n, t]]),
                "center": centre[n, t],
                "scale": scale[n, t],
                "size": [height, width],
                "conf": np.float32(0.9),
                "smpl": {
                    "global_orient": truth.root[n, t][None].numpy(),
                    "body_pose": torch.cat([turns, hands]).numpy(),
                    "betas": truth.betas[n].numpy(),
                },
                "camera_bbox": cameras[n][t],
                "camera": np.zeros(3),
                "2d_joints": ((joints + margin) / max(width, height)).reshape(-1),
                "extra_data": slots(truth, n, t),
                "mask": [{"size": [height, width], "counts": "abc"}],
                "annotations": [],
            }
            for key, value in entry.items():
                frame[key].append(value)
            if t not in (unseen or {}).get(track, set()):
                frame["tracked_ids"].append(track)
        frames[frame["frame_path"]] = frame
    return frames


def write_phalp(path: Path, content: dict[str, Any]) -> Path:
    joblib.dump(content, path, compress=3)
    return path
