"""Line charts drawn with OpenCV: curves of cost and of energy, linear or logarithmic axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slamhmr.artifacts import atomic
from slamhmr.export.colours import PALETTE

Image = NDArray[np.uint8]
WIDTH, HEIGHT = 620, 440  # px of one chart
LEFT, RIGHT, TOP, BOTTOM = 70, 18, 56, 52  # px around the axes
INK, GRID, FAINT = (40, 40, 40), (225, 225, 225), (150, 150, 150)
LETTER = 8  # px, about the width of one
MOST_DOTS = 40  # a curve of more points is drawn without them
LEAST_TICKS = 3  # a logarithmic axis with fewer powers of ten gets their multiples too


@dataclass(frozen=True)
class Curve:
    """Points (x, y) of one line, and its name in the legend; a faint line is a reference."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves on common axes; `log_x`, `log_y` need values above 0."""

    title: str  # and the unit of y
    x_label: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False


def write_charts(path: Path, charts: Sequence[Chart]) -> None:
    """Write charts side by side as a PNG."""
    import cv2

    image = np.concatenate([draw_chart(chart) for chart in charts], axis=1)
    with atomic(path) as temporary:
        cv2.imwrite(str(temporary), image[..., ::-1])


def draw_chart(chart: Chart) -> Image:
    """RGB picture (HEIGHT,WIDTH,3) of a chart.

    Raises ValueError if there is no point, or none that a logarithmic axis can hold.
    """
    import cv2

    image = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    x_axis = _axis([v for c in chart.curves for v in c.x], chart.log_x, LEFT, WIDTH - RIGHT)
    y_axis = _axis([v for c in chart.curves for v in c.y], chart.log_y, HEIGHT - BOTTOM, TOP)
    for tick in x_axis.ticks:
        at = x_axis.pixel(tick)
        cv2.line(image, (at, TOP), (at, HEIGHT - BOTTOM), GRID, 1)
        _text(image, f"{tick:g}", (at - 4 * len(f"{tick:g}"), HEIGHT - BOTTOM + 18), INK)
    for tick in y_axis.ticks:
        at = y_axis.pixel(tick)
        cv2.line(image, (LEFT, at), (WIDTH - RIGHT, at), GRID, 1)
        _text(image, f"{tick:g}", (LEFT - 8 - 8 * len(f"{tick:g}"), at + 4), INK)
    cv2.rectangle(image, (LEFT, TOP), (WIDTH - RIGHT, HEIGHT - BOTTOM), INK, 1)
    _text(image, chart.title, (LEFT, TOP - 32), INK)
    _text(image, chart.x_label, (WIDTH // 2 - 4 * len(chart.x_label), HEIGHT - 12), FAINT)
    for row, curve in enumerate(chart.curves):
        colour = FAINT if curve.faint else PALETTE[row % len(PALETTE)]
        _draw_curve(image, curve, x_axis, y_axis, colour)
        before = sum(len(c.name) + 3 for c in chart.curves[:row])
        _text(image, curve.name, (LEFT + LETTER * before, TOP - 10), colour)
    return image


def _draw_curve(
    image: Image, curve: Curve, x_axis: "_Axis", y_axis: "_Axis", colour: tuple[int, int, int]
) -> None:
    import cv2

    pairs = zip(curve.x, curve.y, strict=True)
    points = [(x_axis.pixel(x), y_axis.pixel(y)) for x, y in pairs]
    line = np.array(points, dtype=np.int32).reshape(-1, 2)
    cv2.polylines(image, [line], False, colour, 1 if curve.faint else 2, cv2.LINE_AA)
    if not curve.faint and len(points) <= MOST_DOTS:
        for point in points:
            cv2.circle(image, point, 3, colour, -1, cv2.LINE_AA)


@dataclass(frozen=True)
class _Axis:
    """Values low .. high on pixels first .. last."""

    low: float
    high: float
    log: bool
    first: int
    last: int
    ticks: Sequence[float]

    def pixel(self, value: float) -> int:
        """Pixel of a value; beyond the ends: the end."""
        share = (self._on(value) - self._on(self.low)) / (self._on(self.high) - self._on(self.low))
        return round(self.first + min(max(share, 0.0), 1.0) * (self.last - self.first))

    def _on(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value


def _axis(values: Sequence[float], log: bool, first: int, last: int) -> _Axis:
    usable = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if len(usable) == 0:
        raise ValueError("a chart needs at least one finite point (above 0 on a logarithmic axis)")
    low, high = min(usable), max(usable)
    if log:
        low, high = low / 1.15, high * 1.15
        return _Axis(low, high, True, first, last, log_ticks(low, high))
    low, high = min(low, 0.0), high * 1.05 if high > 0 else 1.0
    return _Axis(low, high, False, first, last, linear_ticks(low, high))


def linear_ticks(low: float, high: float) -> list[float]:
    """Four to nine round values between two numbers."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two positive numbers, with 2 and 5 times those where they are few.

    Where even those are few (a curve that hardly falls): round values at equal distances.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1,), (1, 2, 5)):
        ticks = [m * 10.0**p for p in powers for m in multiples if low <= m * 10.0**p <= high]
        if len(ticks) >= LEAST_TICKS:
            return ticks
    return [tick for tick in linear_ticks(low, high) if tick >= low]


def _text(image: Image, words: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    import cv2

    cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
