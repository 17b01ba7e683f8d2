"""Straight edges of the picture that lie on nobody: door frames, masts, trunks show what is up."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Bool, Float

from slamhmr.geometry import bearings
from slamhmr.masks import person_mask
from slamhmr.types import CameraTrack, Observations, Video
from slamhmr.video import read_frames

FRAMES = 16  # that are looked at, spread over the clip
LONGEST_SIDE = 1280  # px in which edges are sought
SHORTEST = 0.03  # of the longer side
MOST = 600  # per frame, the longest
BORDER = 0.01  # of the longer side: what lies this near to the picture's border is no edge
BLACK = 6  # of 255: what undistortion or a letterbox leaves at the borders
MARGIN = 5  # px, kept clear around people and black borders


def with_edges(track: CameraTrack, video: Video, observations: Observations) -> CameraTrack:
    """The track with the edges of some frames, as rays in the camera of their frame.

    Edges are found by LSD (von Gioi et al., PAMI 2010). Where the camera is lost none is sought.
    """
    found, owners = [], []
    stride = max(1, video.frame_count // FRAMES)
    for frame, image in read_frames(video, stride=stride, longest=LONGEST_SIDE):
        if track.lost is not None and bool(track.lost[frame]):
            continue
        full = torch.tensor(track.image_size, dtype=torch.float64)
        ends = torch.from_numpy(straight_edges(image, _free(image, observations, frame)))
        ends = ends * full / ends.new_tensor(image.shape[1::-1])
        rays = bearings(ends, track.intrinsics[frame].expand(len(ends), 4))
        found.append(torch.nn.functional.normalize(rays, dim=-1))
        owners.append(torch.full((len(ends),), frame))
    if len(found) == 0:
        return track
    return dataclasses.replace(track, edges=torch.cat(found), edge_frames=torch.cat(owners))


def straight_edges(image: np.ndarray, free: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "E 2 2"]:
    """Both ends x y, px, of the straight edges of an RGB picture whose ends and middle are free."""
    import cv2

    height, width = image.shape[:2]
    found = cv2.createLineSegmentDetector().detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    if found is None:
        return np.zeros((0, 2, 2))
    ends = np.asarray(found, dtype=np.float64).reshape(-1, 2, 2) + 0.5
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    longest = max(width, height)
    kept = length > SHORTEST * longest
    for share in (0.0, 0.5, 1.0):
        x, y = ((1 - share) * ends[:, 0] + share * ends[:, 1]).T
        kept &= free[np.clip(y.astype(int), 0, height - 1), np.clip(x.astype(int), 0, width - 1)]
    x, y = ends.mean(axis=1).T  # near the border: it runs along it
    kept &= np.minimum.reduce([x, width - x, y, height - y]) > BORDER * longest
    order = np.argsort(-length[kept], kind="stable")[:MOST]
    return ends[kept][order]


def _free(image: np.ndarray, observations: Observations, frame: int) -> Bool[np.ndarray, "h w"]:
    """Where neither people nor black borders are."""
    import cv2

    height, width = image.shape[:2]
    taken = person_mask(observations, frame, (width, height)) | (image.max(axis=2) < BLACK)
    kernel = np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)
    return np.asarray(cv2.dilate(taken.astype(np.uint8), kernel) == 0)
