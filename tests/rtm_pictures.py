"""Pictures of coloured dots on plates, and networks that find them: detectors without weights.

A person is a plate of an own grey with one dot per keypoint, each keypoint of an own colour. A
network that sees these colours in the right order of channels can answer exactly where they are.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

GREY = 128
PLATES = (64, 192)  # grey of the first and of the second person's plate
SIGMA = 8.0  # of a colour, in its 256 steps
RADIUS = 6  # px of a dot
WIDTH, HEIGHT = 960, 540
COLOURS = np.array(
    [c for c in itertools.product((0, 128, 255), repeat=3) if c != (GREY, GREY, GREY)], dtype=float
)
# Somebody upright in a plate of 150 x 330 px: COCO-17, then head, neck, hip, feet as in Halpe-26.
PLACES = np.array(
    [
        (75, 24), (95, 18), (55, 18), (115, 26), (35, 26), (113, 75), (37, 75), (128, 120),
        (22, 120), (132, 165), (18, 165), (98, 170), (52, 170), (99, 235), (51, 235), (100, 290),
        (50, 290), (75, 45), (75, 66), (75, 180), (115, 315), (35, 315), (130, 308), (20, 308),
        (93, 308), (57, 308),
    ]
)  # fmt: skip
PLATE = (150, 330)


@dataclass(frozen=True)
class Pictures:
    """A folder of pictures and what they show."""

    folder: Path
    points: np.ndarray  # (N,T,K,2) px, pixel centres at 0.5
    shown: np.ndarray  # (N,T,K) bool


def draw(folder: Path, frames: int = 4, count: int = 17) -> Pictures:
    """Two people who walk towards each other; the second one's left wrist is hidden in frame 2."""
    folder.mkdir(parents=True, exist_ok=True)
    points = np.zeros((2, frames, count, 2))
    shown = np.ones((2, frames, count), dtype=bool)
    shown[1, 2, 9] = False
    for frame in range(frames):
        image = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
        for person, (x, y) in enumerate(((100 + 7 * frame, 60), (620 - 5 * frame, 120 + frame))):
            image[y : y + PLATE[1], x : x + PLATE[0]] = PLATES[person]
            for k, place in enumerate(PLACES[:count]):
                at = place + (x, y)
                points[person, frame, k] = at + 0.5
                if shown[person, frame, k]:
                    cv2.circle(image, at.tolist(), RADIUS, COLOURS[k].tolist(), -1)
        cv2.imwrite(str(folder / f"{frame:03d}.png"), image[..., ::-1])
    return Pictures(folder, points, shown)


def dots(image: np.ndarray, count: int, inside: np.ndarray | None = None) -> np.ndarray:
    """Centre (K,2), counted from 0, and strength (K,) 0..1 of every colour in an RGB image."""
    height, width = image.shape[:2]
    found = np.zeros((count, 3))
    y, x = np.mgrid[:height, :width]
    for k in range(count):
        near = np.exp(-((image - COLOURS[k]) ** 2).sum(axis=-1) / (2 * SIGMA**2))
        if inside is not None:
            near = near * inside
        total = near.sum()
        centre = ((near * x).sum(), (near * y).sum())
        found[k] = (*(np.array(centre) / max(total, 1e-9)), min(total / 10.0, 1.0))
    return found


def plates(image: np.ndarray) -> list[np.ndarray]:
    """Box (4,) and score of the plate of each person, edges at whole numbers; score 0 if absent."""
    found = []
    for grey in PLATES:
        near = (np.abs(image - float(grey)) < 8).all(axis=-1).astype(np.float32)
        ys, xs = np.nonzero(cv2.blur(near, (5, 5)) > 0.6)  # no edge of a dot
        if len(xs) == 0:
            found.append(np.zeros(5))
            continue
        found.append(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, 1.0]))
    return found
