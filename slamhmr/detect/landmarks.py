"""BlazePose landmark network: one person region in, 33 body points with evidence out.

Numbers of the network: MediaPipe's pose_landmark graph, version 0.10.21 (Bazarevsky et al. 2020,
GHUM topology).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slamhmr.detect.detector import Interpreter, sigmoid
from slamhmr.detect.regions import cut_region, image_from_region, region_from_points

INPUT_SIZE = 256  # px
POINT_COUNT = 39  # 33 body points, then region centre, region rim and four unused ones
LANDMARKS: tuple[str, ...] = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye",
    "right_eye_outer", "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_pinky",
    "right_pinky", "left_index", "right_index", "left_thumb", "right_thumb", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel", "right_heel",
    "left_foot_index", "right_foot_index",
)  # fmt: skip
CENTRE, RIM = 33, 34  # points that give the person's region in the next frame
HEATMAP_REACH = 3  # cells each side of a point that its heat map may move it by
HEATMAP_TRUSTED = 0.5  # heat maps with a lower peak do not move their point
COLOUR_BINS = (4, 6, 6)  # lightness, a, b of CIELAB
TORSO = (11, 12, 24, 23)
THIGHS = (23, 24, 26, 25)


@dataclass(frozen=True)
class Candidate:
    """One look of the landmark network at one region of one frame."""

    frame: int
    region: np.ndarray  # (4,) cx cy side angle, px: where it looked
    next_region: np.ndarray  # (4,) where the person is, by the network's own opinion
    points: np.ndarray  # (33,2) px of the full image
    visibility: np.ndarray  # (33,) network's probability that the point is not hidden
    presence: np.ndarray  # (33,) network's probability that the point is inside the region
    support: np.ndarray  # (33,) segmentation probability around the point
    peak: np.ndarray  # (33,) heat map value around the point
    score: float  # network's probability that the region shows a person
    coverage: float  # share of the region that the segmentation calls person
    colour: np.ndarray  # (2, bins) root of the colour histograms of torso and thighs


class LandmarkNetwork:
    """Runs the landmark network on person regions."""

    def __init__(self, path: Path, threads: int) -> None:
        self._net = Interpreter(path, threads)

    def __call__(self, image: np.ndarray, region: np.ndarray, frame: int) -> Candidate:
        """Look at one region (4,) of an RGB image (H,W,3)."""
        pixels = cut_region(image, region, INPUT_SIZE)
        raw, score, segmentation, heat, _ = self._net(pixels.astype(np.float32) / 255.0)
        values = raw.reshape(POINT_COUNT, 5)
        body, peak = refine(values[:33, :2] / INPUT_SIZE, sigmoid(heat[..., :33]))
        person = sigmoid(segmentation[..., 0])
        rim = image_from_region(region, values[[CENTRE, RIM], :2] / INPUT_SIZE)
        return Candidate(
            frame=frame,
            region=region,
            next_region=region_from_points(rim[0], rim[1]),
            points=image_from_region(region, body),
            visibility=sigmoid(values[:33, 3]),
            presence=sigmoid(values[:33, 4]),
            support=support_at(person, body),
            peak=peak,
            score=float(score[0]),
            coverage=float((person > 0.5).mean()),
            colour=colours(pixels, body, person > 0.5),
        )


def refine(points: np.ndarray, heat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (K,2) of the unit square moved to the centroid of their heat maps, and peaks (K,).

    The centroid is taken over the cells within `HEATMAP_REACH` of the point, as in MediaPipe's
    refinement; a point whose peak there is under `HEATMAP_TRUSTED` stays, one outside the map
    has peak 0.
    """
    size = heat.shape[0]
    refined, peaks = points.copy(), np.zeros(len(points))
    cells = np.floor(points * size).astype(int)
    for k, (column, row) in enumerate(cells):
        if not (0 <= column < size and 0 <= row < size):
            continue
        rows = slice(max(row - HEATMAP_REACH, 0), min(row + HEATMAP_REACH + 1, size))
        columns = slice(max(column - HEATMAP_REACH, 0), min(column + HEATMAP_REACH + 1, size))
        local = heat[rows, columns, k]
        peaks[k] = local.max()
        if peaks[k] < HEATMAP_TRUSTED:
            continue
        x = (np.arange(columns.start, columns.stop) * local.sum(axis=0)).sum()
        y = (np.arange(rows.start, rows.stop) * local.sum(axis=1)).sum()
        refined[k] = np.array([x, y]) / local.sum() / size
    return refined, peaks


def support_at(person: np.ndarray, points: np.ndarray, reach: int = 6) -> np.ndarray:
    """Largest segmentation probability (K,) within `reach` px of points (K,2), unit square."""
    import cv2

    spread = cv2.dilate(person.astype(np.float32), np.ones((2 * reach + 1, 2 * reach + 1)))
    size = person.shape[0]
    cells = np.floor(points * size).astype(int)
    inside = ((cells >= 0) & (cells < size)).all(axis=1)
    clipped = cells.clip(0, size - 1)
    return np.where(inside, spread[clipped[:, 1], clipped[:, 0]], 0.0)


def colours(pixels: np.ndarray, points: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Root histograms (2, bins) of the person's pixels on torso and thighs; zeros if none."""
    import cv2

    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    out = np.zeros((2, int(np.prod(COLOUR_BINS))))
    for part, corners in enumerate((TORSO, THIGHS)):
        mask = np.zeros(person.shape, dtype=np.uint8)
        outline = (points[list(corners)] * person.shape[0]).clip(-1e4, 1e4).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 1)
        mask &= person.astype(np.uint8)
        if mask.sum() < 30:  # px of the crop: too few for a histogram
            continue
        histogram = cv2.calcHist([lab], [0, 1, 2], mask, COLOUR_BINS, [0, 256, 64, 192, 64, 192])
        out[part] = np.sqrt(histogram.ravel() / max(float(histogram.sum()), 1.0))
    return out
