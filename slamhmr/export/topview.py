"""The top view: paths of people and camera seen from above, on a grid of metres."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slamhmr.artifacts import atomic
from slamhmr.export.colours import person_colour
from slamhmr.geometry import runs, shot_numbers
from slamhmr.types import Result

SIDE = 900  # px, longer side of the map
MARGIN = 60  # px around it, for the axes
LEGEND = 190  # px to its right
LEAST_EXTENT = 2.0  # m; a person who stands still gets a map of this size
STEPS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)  # m, grid spacings
CAMERA_COLOUR = (90, 90, 90)
INK = (40, 40, 40)
GRID = (225, 225, 225)


def write_topview(path: Path, result: Result, starts: Sequence[int] = ()) -> None:
    """Write the picture as PNG: x to the right, y up, metres; start a disc, end an arrow head.

    No line is drawn from one piece of the clip to the next (`starts`: their first frames), nor
    across frames in which a person is not valid.
    """
    import cv2

    with atomic(path) as temporary:
        cv2.imwrite(str(temporary), draw_topview(result, starts)[..., ::-1])


def draw_topview(result: Result, starts: Sequence[int] = ()) -> np.ndarray:
    """RGB picture (H,W,3) of everybody's pelvis path and the camera's centre, from above."""
    import cv2

    shot = shot_numbers(len(result.world_from_cam), starts)

    def pieces(places: Tensor, there: Tensor) -> list[np.ndarray]:
        return [places[first:stop, :2].numpy() for first, stop in runs(there, shot)]

    people = [
        (
            f"person {person}",
            pieces(result.joints[row, :, 0], result.valid[row]),
            person_colour(row),
        )
        for row, person in enumerate(result.person_id.tolist())
    ]
    always = torch.ones_like(result.valid[0])
    camera = ("camera", pieces(result.world_from_cam[:, :3, 3], always), CAMERA_COLOUR)
    paths = [entry for entry in (camera, *people) if len(entry[1]) > 0]
    everything = np.concatenate([points for _, parts, _ in paths for points in parts])
    low, high = _bounds(everything)
    scale = SIDE / float((high - low).max())
    width, height = (int(side) for side in np.ceil((high - low) * scale))
    image = np.full((height + 2 * MARGIN, width + 2 * MARGIN + LEGEND, 3), 255, dtype=np.uint8)

    def pixel(points: np.ndarray) -> np.ndarray:
        x = MARGIN + (points[..., 0] - low[0]) * scale
        y = MARGIN + (high[1] - points[..., 1]) * scale
        return np.stack([x, y], axis=-1).round().astype(np.int32)

    _draw_grid(image, pixel(low), pixel(high), low, scale)
    for name, parts, colour in paths:
        lines = [pixel(points) for points in parts]
        cv2.polylines(image, lines, False, colour, 2, cv2.LINE_AA)
        cv2.circle(image, _point(lines[0][0]), 7, colour, -1, cv2.LINE_AA)
        _draw_head(image, lines[-1], colour)
        if name == "camera":
            _draw_view(image, lines[0][0], result.world_from_cam[0, :2, 2].numpy())
    _draw_legend(image, [(name, colour, parts) for name, parts, colour in paths])
    return image


def _bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the map: all paths and some air, at least LEAST_EXTENT wide."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum((high - low) * 1.15, LEAST_EXTENT)
    extent = np.maximum(extent, extent.max() / 2)
    middle = (low + high) / 2
    return middle - extent / 2, middle + extent / 2


def _draw_grid(
    image: np.ndarray, low_px: np.ndarray, high_px: np.ndarray, low: np.ndarray, scale: float
) -> None:
    """Grid lines with their metres along the lower and left border."""
    import cv2

    left, bottom = _point(low_px)
    right, top = _point(high_px)
    step = next((s for s in STEPS if s * scale >= 60), STEPS[-1])
    for metres in np.arange(np.ceil(low[0] / step), (low[0] + (right - left) / scale) / step):
        x = round(left + (metres * step - low[0]) * scale)
        cv2.line(image, (x, top), (x, bottom), GRID, 1)
        _text(image, f"{metres * step + 0.0:g}", (x - 8, bottom + 18), INK)
    for metres in np.arange(np.ceil(low[1] / step), (low[1] + (bottom - top) / scale) / step):
        y = round(bottom - (metres * step - low[1]) * scale)
        cv2.line(image, (left, y), (right, y), GRID, 1)
        _text(image, f"{metres * step + 0.0:g}", (left - 45, y + 5), INK)
    cv2.rectangle(image, (left, top), (right, bottom), INK, 1)
    _text(image, "x, m", ((left + right) // 2 - 15, bottom + 40), INK)
    _text(image, "y, m", (left - 50, top - 12), INK)


def _draw_head(image: np.ndarray, places: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Arrow head at the end, along the last stretch that is long enough to have a direction."""
    import cv2

    away = np.linalg.norm(places - places[-1], axis=1) >= 8
    if not away.any():
        return
    direction = (places[-1] - places[np.flatnonzero(away)[-1]]).astype(float)
    direction /= np.linalg.norm(direction)
    side = np.array([-direction[1], direction[0]])
    tip = places[-1] + 10 * direction
    corners = np.stack(
        [tip, places[-1] - 6 * direction + 8 * side, places[-1] - 6 * direction - 8 * side]
    )
    cv2.fillConvexPoly(image, corners.round().astype(np.int32), colour, cv2.LINE_AA)


def _draw_view(image: np.ndarray, place: np.ndarray, forward: np.ndarray) -> None:
    """Two short rays of the first camera's view."""
    import cv2

    angle = np.arctan2(-forward[1], forward[0])
    for turn in (-0.4, 0.4):
        end = place + 45 * np.array([np.cos(angle + turn), np.sin(angle + turn)])
        cv2.line(image, _point(place), _point(end), CAMERA_COLOUR, 1, cv2.LINE_AA)


def _draw_legend(
    image: np.ndarray, entries: list[tuple[str, tuple[int, int, int], list[np.ndarray]]]
) -> None:
    import cv2

    left = image.shape[1] - LEGEND + 5
    for number, (name, colour, parts) in enumerate(entries):
        y = MARGIN + 24 * number + 10
        length = sum(float(np.linalg.norm(np.diff(p, axis=0), axis=1).sum()) for p in parts)
        cv2.circle(image, (left, y), 6, colour, -1, cv2.LINE_AA)
        _text(image, f"{name}: {length:.1f} m", (left + 14, y + 5), INK)
    y = MARGIN + 24 * len(entries) + 10
    _text(image, "disc: start, arrow: end", (left - 6, y + 5), INK)


def _text(
    image: np.ndarray, words: str, place: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    import cv2

    cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def _point(values: np.ndarray) -> tuple[int, int]:
    return round(float(values[0])), round(float(values[1]))
