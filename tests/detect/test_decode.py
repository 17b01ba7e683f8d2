"""The networks' raw numbers turned into people: anchors, detections, regions, crops, heat maps."""

import numpy as np
import pytest

from slamhmr.detect.detector import INPUT_SIZE, anchors, decode, same_region, sigmoid, suppress
from slamhmr.detect.landmarks import refine, support_at
from slamhmr.detect.regions import (
    cut_region,
    cut_window,
    detector_windows,
    image_from_region,
    region_from_points,
)


def test_anchors_lie_on_cell_centres_of_three_maps():
    grid = anchors()
    assert grid.shape == (2254, 2)
    assert np.allclose(grid[0], 0.5 / 28)
    assert np.allclose(grid[2], [1.5 / 28, 0.5 / 28])  # x runs first
    assert np.allclose(grid[28 * 28 * 2], 0.5 / 14)
    assert np.allclose(grid[-1], 6.5 / 7)


def test_decoding_adds_the_anchor_and_keeps_likely_ones():
    grid = anchors()
    raw = np.zeros((2254, 12))
    logits = np.full(2254, -1e4)  # would overflow a plain exponential
    raw[100, 4:8] = [22.4, 0.0, 0.0, -44.8]
    logits[100] = 3.0
    points, scores = decode(raw, logits, 0.5, grid)
    assert points.shape == (1, 2, 2)
    assert np.allclose(points[0, 0] - grid[100], [22.4 / INPUT_SIZE, 0])
    assert np.allclose(points[0, 1] - grid[100], [0, -44.8 / INPUT_SIZE])
    assert scores[0] == pytest.approx(1 / (1 + np.exp(-3)))


def test_sigmoid_is_finite_at_any_logit_of_float32():
    values = sigmoid(np.array([-1500.0, 0.0, 1500.0], dtype=np.float32))
    assert np.allclose(values, [0, 0.5, 1])


def test_suppression_keeps_the_best_of_each_person():
    regions = np.array(
        [[100, 100, 80, 0], [104, 98, 84, 0.1], [160, 100, 80, 0], [100, 100, 200, 0.0]]
    )
    assert sorted(suppress(regions, np.array([0.7, 0.9, 0.6, 0.8]))) == [1, 2, 3]
    assert not same_region(regions[0], regions[2])


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2, 3.0])
def test_region_of_a_turned_body_maps_its_rim_to_the_top(angle: float):
    centre = np.array([50.0, 70.0])
    rim = centre + 20 * np.array([np.sin(angle), -np.cos(angle)])
    region = region_from_points(centre, rim)
    assert region[2] == pytest.approx(50.0)
    assert np.allclose(image_from_region(region, np.array([0.5, 0.5])), centre)
    assert np.allclose(image_from_region(region, np.array([0.5, 0.1])), rim)
    right = image_from_region(region, np.array([0.9, 0.5])) - centre
    assert np.allclose(right, 20 * np.array([np.cos(angle), np.sin(angle)]))


def picture(width: int, height: int) -> np.ndarray:
    """Smooth picture whose two channels are the coordinates of the pixel centres."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y, 0 * x], axis=-1).astype(np.float32)


@pytest.mark.parametrize("region", [[60, 50, 40, 0.3], [60, 50, 64, 0.0], [100, 90, 150, -0.7]])
def test_crop_shows_each_pixel_where_the_region_says(region: list[float]):
    size = 32
    crop = cut_region(picture(200, 180), np.array(region), size)
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    expected = image_from_region(np.array(region), np.stack([x, y], axis=-1))
    inner = slice(3, -3)
    error = np.abs(crop[inner, inner, :2] - expected[inner, inner])
    assert error.max() < 0.1  # px; the half-pixel mistake would show as 0.5


def test_crop_outside_the_image_is_black():
    assert (cut_region(picture(50, 50) + 1, np.array([500.0, 500, 40, 0]), 16) == 0).all()
    assert (cut_window(picture(50, 50) + 1, np.array([-200.0, 0, 40]), 16) == 0).all()
    half = cut_window(picture(40, 40) + 1, np.array([-20.0, 0, 40]), 20)
    assert (half[:, :10] == 0).all()
    assert half[10, 15, 0] == pytest.approx(1 + 11, abs=0.6)


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (768, 576), (1920, 1080), (200, 200)])
def test_windows_show_every_small_person_whole_and_large_enough(size: tuple[int, int]):
    smallest = 0.1 * min(size)
    windows = detector_windows(size, smallest)
    assert 1 <= len(windows) < 80
    rng = np.random.default_rng(1)
    for height in (smallest, 2 * smallest, 0.3 * min(size)):
        for _ in range(100):
            x, y = rng.uniform([0, 0], np.array(size) - [height / 2, height])
            inside = (
                (windows[:, 0] <= x)
                & (windows[:, 1] <= y)
                & (windows[:, 0] + windows[:, 2] >= x + height / 2)
                & (windows[:, 1] + windows[:, 2] >= y + height)
            )
            assert (height / windows[inside, 2]).max() > 0.2


def test_whole_image_is_the_first_window():
    assert np.allclose(detector_windows((640, 360), 36.0)[0], [0, -140, 640])


def test_refinement_moves_to_the_peak_only_when_it_is_trusted():
    heat = np.zeros((64, 64, 3))
    heat[30, 21, 0] = 0.9
    heat[30, 21, 1] = 0.4
    start = np.array([[20.5, 30.5], [20.5, 30.5], [90.0, 10.0]]) / 64
    moved, peaks = refine(start, heat)
    assert np.allclose(moved[0] * 64, [21, 30])
    assert np.allclose(moved[1:], start[1:])
    assert np.allclose(peaks, [0.9, 0.4, 0.0])


def test_support_is_taken_nearby_and_zero_outside():
    person = np.zeros((256, 256))
    person[100:110, 50:60] = 1
    points = np.array([[55, 105], [64, 105], [80, 105], [300, 105]]) / 256
    assert support_at(person, points).tolist() == [1, 1, 0, 0]
