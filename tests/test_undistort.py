import numpy as np
import pytest
import torch
from sequences import SIZE, FakeSteps, make_observations, make_state, write_sequence, write_video

from slamhmr.config import load_config
from slamhmr.pipeline import optimize
from slamhmr.undistort import undistort_points
from slamhmr.video import VideoWriter, open_video, read_frames

INTRINSICS = [300.0, 310.0, 161.0, 119.0]
DISTORTION = [-0.2, 0.05, 0.001, -0.002, 0.01]


def distorted(points):
    """Where a pinhole point lands behind the lens: the model of OpenCV's documentation."""
    fx, fy, cx, cy = INTRINSICS
    k1, k2, p1, p2, k3 = DISTORTION
    x, y = (points[..., 0] - cx) / fx, (points[..., 1] - cy) / fy
    r = x**2 + y**2
    radial = 1 + k1 * r + k2 * r**2 + k3 * r**3
    moved_x = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x**2)
    moved_y = y * radial + p1 * (r + 2 * y**2) + 2 * p2 * x * y
    return torch.stack([fx * moved_x + cx, fy * moved_y + cy], dim=-1)


def test_points_come_back():
    grid = torch.cartesian_prod(torch.linspace(20, 300, 5), torch.linspace(20, 220, 5)).double()
    torch.testing.assert_close(
        undistort_points(distorted(grid), INTRINSICS, DISTORTION), grid, atol=1e-5, rtol=0
    )


def test_unseen_boxes_stay_unknown():
    points = torch.full((2, 2), torch.nan, dtype=torch.float64)
    assert undistort_points(points, INTRINSICS, DISTORTION).isnan().all()


@pytest.fixture
def fakes(monkeypatch):
    return FakeSteps(make_state()).install(monkeypatch)


def settings(folder):
    text = f"intrinsics: {INTRINSICS}\ndistortion: {DISTORTION}\n"
    (folder / "sequence.yaml").write_text(text)


def test_pixels_move_with_the_points(tmp_path, fakes):
    spot = torch.tensor([60.0, 50.0], dtype=torch.float64)
    x, y = (float(v) - 0.5 for v in distorted(spot))
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50)
    with VideoWriter(tmp_path / "video.mp4", 25.0, SIZE) as writer:
        for _ in range(8):
            writer.write(np.repeat(blob[..., None], 3, axis=2).astype(np.uint8))
    settings(tmp_path)
    optimize(tmp_path, load_config((), ["overlay.enabled=false"]))
    made = tmp_path / "slamhmr" / "0_undistorted.mp4"
    _, image = next(iter(read_frames(open_video(made))))
    weight = np.where(image[..., 1] > 60, image[..., 1], 0).astype(float)
    assert (weight * columns).sum() / weight.sum() + 0.5 == pytest.approx(60, abs=0.3)
    assert (weight * rows).sum() / weight.sum() + 0.5 == pytest.approx(50, abs=0.3)


def test_it_is_made_once_and_again_when_the_lens_changes(tmp_path, fakes):
    write_video(tmp_path / "video.mp4")
    settings(tmp_path)
    config = load_config((), ["overlay.enabled=false"])
    optimize(tmp_path, config)
    fakes.calls.clear()
    optimize(tmp_path, config)
    assert fakes.calls == []
    (tmp_path / "sequence.yaml").write_text(f"intrinsics: {INTRINSICS}\ndistortion: [0, 0, 0, 0]")
    optimize(tmp_path, config)
    assert fakes.calls[0] == "detect"


def test_given_keypoints_are_moved_too(tmp_path, fakes):
    write_sequence(tmp_path)
    settings(tmp_path)
    optimize(tmp_path, load_config())
    with np.load(tmp_path / "slamhmr" / "1_observations.npz") as file:
        moved = torch.from_numpy(file["keypoints"])
    expected = make_observations(make_state()).keypoints
    torch.testing.assert_close(distorted(moved), expected, atol=1e-4, rtol=0)
