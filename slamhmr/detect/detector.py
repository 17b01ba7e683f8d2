"""BlazePose person detector: anchors, decoding of its raw output, non-maximum suppression.

Numbers of the network (input, strides, anchors, score threshold): MediaPipe's pose_detection graph,
version 0.10.21.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slamhmr.detect.regions import cut_window, region_from_points
from slamhmr.errors import MissingAsset

INPUT_SIZE = 224  # px
# cells per side and anchors per cell of the three feature maps; strides 8, 16 and 3 times 32
ANCHOR_GRIDS: tuple[tuple[int, int], ...] = ((28, 2), (14, 2), (7, 6))
LOGIT_LIMIT = 50.0  # scores are clipped before the exponential
SAME_CENTRE = (
    0.25  # of the body circle's radius: two detections closer than this are one person ...
)
SAME_SIZE = 1.5  # ... when their sizes differ by less than this ratio


def anchors() -> np.ndarray:
    """Anchor centres (2254,2) x y in units of the input; all anchors have size 1."""
    grids = []
    for cells, per_cell in ANCHOR_GRIDS:
        centre = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(centre, centre)
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), per_cell, axis=0))
    return np.concatenate(grids)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)))


def decode(
    raw: np.ndarray, logits: np.ndarray, threshold: float, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mid hip and rim point (D,2,2) in units of the window, scores (D,), above `threshold`.

    `raw` (A,12): box centre, box size, four keypoints, in px of the input relative to the
    anchor; `logits` (A,).
    """
    scores = sigmoid(logits)
    kept = np.flatnonzero(scores >= threshold)
    points = raw[kept, 4:8].reshape(-1, 2, 2) / INPUT_SIZE + grid[kept, None]
    return points, scores[kept]


def suppress(regions: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices of the regions (D,4) left when, best score first, each removes its duplicates."""
    left = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while len(left) > 0:
        best = left.pop(0)
        kept.append(int(best))
        left = [other for other in left if not same_region(regions[best], regions[other])]
    return np.array(kept, dtype=int)


def same_region(first: np.ndarray, second: np.ndarray) -> bool:
    """True if two regions (4,) enclose the same person as far as centre and size can tell."""
    radius = 0.4 * max(first[2], second[2])  # the side is 2.5 radii
    ratio = max(first[2], second[2]) / min(first[2], second[2])
    distance = float(np.hypot(*(first[:2] - second[:2])))
    return bool(distance < SAME_CENTRE * radius and ratio < SAME_SIZE)


@dataclass
class Interpreter:
    """A .tflite network on the CPU (XNNPACK): arrays in, arrays by output number out."""

    path: Path
    threads: int

    def __post_init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter as LiteRt

        try:
            self._net = LiteRt(str(self.path), num_threads=self.threads)
        except ValueError as e:
            raise MissingAsset(f"model '{self.path}' cannot be loaded: {e}") from e
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._outputs = [item["index"] for item in self._net.get_output_details()]

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Outputs of one image (S,S,3) float32, batch axis removed."""
        self._net.set_tensor(self._input, image[None])
        self._net.invoke()
        return [self._net.get_tensor(index)[0] for index in self._outputs]


class PersonDetector:
    """Finds the body circles of people in windows of a frame."""

    def __init__(self, path: Path, threads: int, threshold: float) -> None:
        self._net = Interpreter(path, threads)
        self._anchors = anchors()
        self._threshold = threshold

    def __call__(self, image: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Regions (D,4) of the people seen in any of the windows (W,3), best score first."""
        regions, scores = [], []
        for window in windows:
            pixels = cut_window(image, window, INPUT_SIZE).astype(np.float32) / 127.5 - 1.0
            raw, logits = self._net(pixels)
            points, score = decode(raw, logits[:, 0], self._threshold, self._anchors)
            points = points * window[2] + window[:2]
            regions += [region_from_points(*pair) for pair in points]
            scores += list(score)
        if len(regions) == 0:
            return np.zeros((0, 4))
        stacked = np.array(regions)
        return stacked[suppress(stacked, np.array(scores))]
