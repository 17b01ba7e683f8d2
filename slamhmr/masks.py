"""Where people are in the picture: masks that keep the camera step off moving bodies."""

import numpy as np
from jaxtyping import Bool

from slamhmr.types import Observations

LIMBS: tuple[tuple[str, str], ...] = (
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"), ("left_shoulder", "right_hip"),
    ("right_shoulder", "left_hip"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("left_ankle", "left_big_toe"),
    ("right_ankle", "right_big_toe"), ("left_ankle", "left_heel"), ("right_ankle", "right_heel"),
    ("nose", "left_shoulder"), ("nose", "right_shoulder"), ("left_ear", "right_ear"),
)  # fmt: skip
LIMB_RADIUS = 0.07  # of the box's longer side: half a thigh (5 % of the height) and a margin
EXTENSION = 1.8  # hands and feet go on past wrist and ankle keypoints by about this many radii
BOX_PADDING = 0.08  # of each box side: hair, clothes and the detector's own error
LONGEST_GAP = 2.0  # s, a person unseen for longer is not assumed to be on the way between


def person_mask(
    observations: Observations, frame: int, image_size: tuple[int, int] | None = None
) -> Bool[np.ndarray, "H W"]:
    """True on every pixel that may show a person in frame `frame`.

    Union over the people of the padded box and of thick limbs around the seen keypoints. A box
    that is missing for less than `LONGEST_GAP` seconds is interpolated between its neighbours.
    `image_size` (width, height) is that of the mask, by default the observations' own; all
    coordinates are scaled to it. Raises ValueError if `frame` is outside the clip.
    """
    frames = observations.boxes.shape[1]
    if not 0 <= frame < frames:
        raise ValueError(f"frame {frame} is outside 0..{frames - 1}")
    width, height = image_size if image_size is not None else observations.image_size
    scale = np.array([width, height]) / np.array(observations.image_size)
    mask = np.zeros((height, width), dtype=np.uint8)
    for person in range(len(observations.person_id)):
        box = box_at(observations, person, frame)
        if box is not None:
            _fill_box(mask, box.reshape(2, 2) * scale)
        _fill_limbs(mask, observations, person, frame, scale)
    return mask > 0


def box_at(observations: Observations, person: int, frame: int) -> np.ndarray | None:
    """Box (4,) of a person in a frame, px, interpolated over short gaps; None if away."""
    boxes = observations.boxes[person].numpy()
    known = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    after = int(np.searchsorted(known, frame))
    if after < len(known) and known[after] == frame:
        return boxes[frame]
    if after == 0 or after == len(known):
        return None
    first, last = int(known[after - 1]), int(known[after])
    times = observations.timestamps.numpy()
    if times[last] - times[first] > LONGEST_GAP:
        return None
    share = (times[frame] - times[first]) / (times[last] - times[first])
    return (1 - share) * boxes[first] + share * boxes[last]


def _fill_box(mask: np.ndarray, corners: np.ndarray) -> None:
    """Mark a padded box; `corners` (2,2) px of the mask, top left and bottom right."""
    pad = BOX_PADDING * (corners[1] - corners[0])
    low = np.floor(corners[0] - pad).clip(0).astype(int)
    high = np.ceil(corners[1] + pad).clip(0).astype(int)
    mask[low[1] : high[1], low[0] : high[0]] = 1


def _fill_limbs(
    mask: np.ndarray, observations: Observations, person: int, frame: int, scale: np.ndarray
) -> None:
    """Mark capsules along the limbs whose two ends are seen; distal ones reach past their end."""
    import cv2

    seen = observations.confidence[person, frame].numpy() > 0
    if seen.sum() < 2:
        return
    limit = 2.0 * max(mask.shape)  # a wild point must not overflow the integer rasteriser
    points = (observations.keypoints[person, frame].numpy() * scale).clip(-limit, limit)
    index = {name: k for k, name in enumerate(observations.keypoint_names) if seen[k]}
    radius = LIMB_RADIUS * float(np.ptp(points[seen], axis=0).max())
    thickness = max(1, round(2 * radius))
    for first, last in LIMBS:
        if first not in index or last not in index:
            continue
        start, end = points[index[first]], points[index[last]]
        if last.endswith(("wrist", "ankle", "toe")):
            along = end - start
            end = end + EXTENSION * radius * along / max(float(np.hypot(*along)), 1e-9)
        corners = [tuple(int(v) for v in p) for p in (start, end)]
        cv2.line(mask, corners[0], corners[1], 1, thickness)
