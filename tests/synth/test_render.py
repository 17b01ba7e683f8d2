"""Pixels: a still camera sees a still room, bodies are painted where their joints project."""

import dataclasses

import numpy as np
import pytest

from slamhmr.body import load_body
from slamhmr.synth.motions import SeatBox
from slamhmr.synth.noise import project_truth
from slamhmr.synth.raster import EMPTY, decode, rasterise
from slamhmr.synth.render import render_frames
from slamhmr.synth.room import PLANES, build_room, see_room
from slamhmr.synth.scene import Scene, SceneSpec, make_scene

BODY = load_body()
SIZE = (320, 180)


def rendered(scene: Scene, frames: range) -> np.ndarray:
    return np.stack([image for _, image in render_frames(scene, BODY, frames)]).astype(int)


@pytest.fixture(scope="module")
def static_scene() -> Scene:
    spec = SceneSpec(seed=31, frames=40, motion="walk", camera="static", image_size=SIZE)
    return make_scene(spec, BODY)


def test_still_camera_sees_a_still_room(static_scene: Scene) -> None:
    images = rendered(static_scene, range(0, 40, 13))
    change = np.abs(images - images[:1]).max((0, -1))
    assert (change == 0).mean() > 0.6
    assert (change > 20).mean() > 0.01, "and somebody walks in it"


def test_people_are_painted_where_their_joints_are(static_scene: Scene) -> None:
    first, last = rendered(static_scene, range(0, 40, 39))
    changed = np.abs(first - last).max(-1) > 12
    truth, _ = project_truth(static_scene, BODY)
    for frame in (0, 39):
        pixels = np.floor(truth[0, frame].numpy()).astype(int)
        inside = ((pixels >= 1) & (pixels < np.array(SIZE) - 1)).all(-1)
        hit = [changed[y - 1 : y + 2, x - 1 : x + 2].any() for x, y in pixels[inside]]
        assert np.mean(hit) > 0.85


def test_pictures_repeat_and_follow_the_seed() -> None:
    spec = SceneSpec(seed=32, frames=4, motion="stand", image_size=SIZE)
    first, again = (rendered(make_scene(spec, BODY), range(2)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = rendered(make_scene(dataclasses.replace(spec, seed=33), BODY), range(2))
    assert np.abs(first - other).mean() > 5


def test_room_is_textured_everywhere() -> None:
    """Enough corners for SIFT or KLT in every quarter of the picture."""
    import cv2

    scene = make_scene(SceneSpec(seed=34, frames=2, image_size=(640, 360)), BODY)
    image = rendered(scene, range(1))[0].astype(np.uint8)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for half in np.split(grey, 2, axis=1):
        corners = cv2.goodFeaturesToTrack(half, 400, 0.02, 5)
        assert corners is not None
        assert len(corners) > 80


def camera_at(place: list[float]) -> np.ndarray:
    """World-from-camera that looks along world +y."""
    transform = np.eye(4)
    transform[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    transform[:3, 3] = place
    return transform


def test_depth_of_walls_floor_and_boxes() -> None:
    box = SeatBox(np.array([0.0, 3.0]), 0.0, np.array([1.0, 1.0, 1.0]))
    places = np.array([[[-2.0, 0.0, 1.0], [2.0, 4.0, 1.0]]]).reshape(-1, 3)
    room = build_room(places, places, (box,), np.random.default_rng(0))
    focal = np.array([160.0, 160.0, 160.0, 90.0])
    view = see_room(room, camera_at([0.0, 0.0, 0.5]), focal, SIZE)
    assert view.depth[90, 160] == pytest.approx(2.5, abs=1e-3), "front of the box"
    assert view.image.shape == (180, 320, 3)
    low = view.depth[179, 10]
    assert low == pytest.approx(0.5 / ((179.5 - 90) / 160), rel=1e-3), "floor"
    assert view.floor[1, 179, 10] == pytest.approx(low, rel=1e-3)
    assert view.depth[30, 200] == pytest.approx(room.high[1], rel=1e-3), "wall"
    assert len(room.patches) == PLANES + 5 * len(room.boxes)


def test_nearer_triangle_wins_and_back_faces_vanish() -> None:
    square = np.array(
        [[[2.0, 2, 4], [2, 18, 4], [18, 2, 4]], [[18.0, 2, 4], [2, 18, 4], [18, 18, 4]]]
    )
    nearer = square[:1] - np.array([0, 0, 1.0])
    buffer = np.full((20, 20), EMPTY, dtype=np.int64)
    rasterise(buffer, square, 0)
    assert (buffer[2:18, 2:18] != EMPTY).all(), "no holes along the shared edge"
    assert (buffer != EMPTY).sum() == 16 * 16
    rasterise(buffer, nearer, 7)
    face, depth = decode(buffer[4:5, 4:5])
    assert face.item() == 7
    assert depth.item() == pytest.approx(3, abs=1e-3)
    behind = np.full((20, 20), EMPTY, dtype=np.int64)
    rasterise(behind, square[:, ::-1], 0)
    assert (behind == EMPTY).all()
