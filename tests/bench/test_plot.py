"""Charts and tables of the benchmarks."""

from pathlib import Path

import numpy as np
import pytest

from slamhmr.bench.plot import Chart, Curve, draw_chart, linear_ticks, log_ticks
from slamhmr.bench.table import format_rows, write_csv
from slamhmr.export.colours import PALETTE


def drawn(chart: Chart) -> np.ndarray:
    """Rows and columns of the first curve's pixels inside the axes."""
    image = draw_chart(chart)
    return np.argwhere((image[60:380] == PALETTE[0]).all(axis=-1))


@pytest.mark.parametrize("log", [False, True])
def test_a_rising_curve_rises_from_left_to_right(log: bool):
    pixels = drawn(Chart("cost", "frames", [Curve("a", [1, 2, 4], [10, 20, 40])], log, log))
    left, right = pixels[pixels[:, 1].argmin()], pixels[pixels[:, 1].argmax()]
    assert right[0] < left[0] - 50, "rows count downwards"
    assert right[1] > left[1] + 200


def test_proportion_is_a_straight_line_on_logarithmic_axes():
    pixels = drawn(Chart("", "", [Curve("a", [1, 10, 100], [3, 30, 300])], True, True))
    slope, offset = np.polyfit(pixels[:, 1], pixels[:, 0], 1)
    assert slope < 0
    assert np.abs(pixels[:, 0] - slope * pixels[:, 1] - offset).max() < 6


@pytest.mark.parametrize("curve", [Curve("", [], []), Curve("", [1, 2], [0, float("nan")])])
def test_a_chart_without_a_point_is_refused(curve: Curve):
    with pytest.raises(ValueError, match="at least one finite point"):
        draw_chart(Chart("", "", [curve], log_y=True))


def test_ticks_are_round_and_never_fewer_than_three():
    assert linear_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert log_ticks(1, 1000) == [1, 10, 100, 1000]
    assert log_ticks(15, 120) == [20, 50, 100]
    assert len(log_ticks(1000, 1090)) >= 3


def test_rows_of_different_columns_line_up(tmp_path: Path):
    rows = [{"frames": 10, "wall_s": 1.23456}, {"frames": 20000, "name": "x"}]
    lines = format_rows(rows).splitlines()
    assert lines[0].split() == ["frames", "wall_s", "name"]
    assert lines[1].split() == ["10", "1.235", "-"]
    assert len({len(line) for line in lines}) == 1
    write_csv(tmp_path / "rows.csv", rows)
    assert (tmp_path / "rows.csv").read_text() == "frames,wall_s,name\n10,1.23456,\n20000,,x\n"
