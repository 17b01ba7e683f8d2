"""Straight edges of pictures: where they lie, and where none is sought."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from slamhmr.slam.edges import straight_edges, with_edges
from slamhmr.types import CameraTrack, Observations
from slamhmr.video import VideoWriter, open_video

SIZE = (640, 360)


def picture() -> np.ndarray:
    """A bright door on a grey wall, and a bar that leans."""
    image = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    cv2.rectangle(image, (200, 80), (300, 300), (230, 230, 230), -1)
    cv2.line(image, (400, 80), (460, 300), (20, 20, 20), 9)
    return image


def track(frames: int) -> CameraTrack:
    return CameraTrack(
        world_from_cam=torch.eye(4, dtype=torch.float64).expand(frames, 4, 4),
        intrinsics=torch.tensor([500.0, 500, 320, 180]).double().expand(frames, 4),
        image_size=SIZE, scale_known=False, moving=False, source="test",
    )  # fmt: skip


def nobody(frames: int, box: tuple[float, ...] | None = None) -> Observations:
    boxes = torch.full((1, frames, 4), torch.nan, dtype=torch.float64)
    if box is not None:
        boxes[:] = torch.tensor(box)
    return Observations(
        person_id=torch.zeros(1, dtype=torch.long),
        keypoints=torch.zeros(1, frames, 1, 2, dtype=torch.float64),
        confidence=torch.zeros(1, frames, 1, dtype=torch.float64),
        keypoint_names=("nose",), boxes=boxes, image_size=SIZE, fps=25.0,
        timestamps=torch.arange(frames, dtype=torch.float64) / 25,
    )  # fmt: skip


@pytest.fixture
def video(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25.0, SIZE) as writer:
        for _ in range(40):
            writer.write(picture())
    return open_video(tmp_path / "v.mp4")


def near(ends: np.ndarray, x: float) -> bool:
    """True if an upright edge lies at column x."""
    return bool((np.abs(ends[:, :, 0] - x).max(axis=1) < 3).any())


def test_the_sides_of_a_door_and_a_bar_are_found():
    ends = straight_edges(picture(), np.ones(SIZE[::-1], bool))
    assert near(ends, 200)
    assert near(ends, 300)
    slopes = (ends[:, 1, 0] - ends[:, 0, 0]) / (ends[:, 1, 1] - ends[:, 0, 1] + 1e-9)
    assert (np.abs(slopes - 60 / 220) < 0.03).any()


def test_what_is_not_free_or_runs_along_the_border_is_left_out():
    free = np.ones(SIZE[::-1], bool)
    free[:, 190:210] = False
    image = picture()
    image[:, :3] = 255
    ends = straight_edges(image, free)
    assert not near(ends, 200)
    assert not near(ends, 3)
    assert near(ends, 300)


def test_a_plain_picture_has_none():
    plain = np.full((90, 160, 3), 128, np.uint8)
    assert straight_edges(plain, np.ones((90, 160), bool)).shape == (0, 2, 2)


def test_edges_are_unit_rays_in_the_camera_of_some_frames(video):
    found = with_edges(track(40), video, nobody(40))
    assert found.edges.norm(dim=-1).allclose(torch.ones(()).double())
    assert set(found.edge_frames.tolist()) == set(range(0, 40, 2))
    pixels = 500 * found.edges[..., :2] / found.edges[..., 2:] + torch.tensor([320.0, 180.0])
    assert near(pixels[found.edge_frames == 0].numpy(), 300)


def test_none_is_sought_on_people_or_where_the_camera_is_lost(video):
    lost = torch.arange(40) < 20
    found = with_edges(
        replace(track(40), lost=lost), video, nobody(40, (280.0, 60.0, 480.0, 320.0))
    )
    assert int(found.edge_frames.min()) == 20
    pixels = 500 * found.edges[..., :2] / found.edges[..., 2:] + torch.tensor([320.0, 180.0])
    assert near(pixels.numpy(), 200)
    assert not near(pixels.numpy(), 300)


def test_a_camera_that_is_lost_throughout_has_no_edges(video):
    found = with_edges(replace(track(40), lost=torch.ones(40, dtype=torch.bool)), video, nobody(40))
    assert found.edges is None
