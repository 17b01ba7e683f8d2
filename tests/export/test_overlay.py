import numpy as np
import pytest
import torch
from sequences import BODY, SIZE, make_observations, make_state, write_video

from slamhmr.config import OverlayConfig
from slamhmr.export.colours import person_colour
from slamhmr.export.overlay import draw_people, write_overlay
from slamhmr.export.result import build_result
from slamhmr.export.topview import draw_topview, write_topview
from slamhmr.video import open_video, read_frames

INTRINSICS = np.array([300.0, 300.0, 160.0, 120.0])
GREY = np.full((240, 320, 3), 128, dtype=np.uint8)


def square(depth, *, half=0.5, x=0.0):
    """Two triangles that face the camera, and their mirror images that face away."""
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    points = np.concatenate([corners + [x, 0], np.full((4, 1), depth)], axis=1)
    return points.astype(np.float32), np.array([[0, 2, 1], [0, 3, 2]])


def test_a_square_covers_its_pixels():
    points, faces = square(3.0)
    image = draw_people(GREY, [(1, (points, (255, 0, 0), 1.0))], faces, INTRINSICS)
    changed = (image != GREY).any(axis=-1)
    assert changed[100:140, 140:180].all()
    assert not changed[:45].any()
    assert image[120, 160, 0] > 100
    assert image[120, 160, 1] == 0
    inside = changed[72:].sum()  # below the label
    assert inside == pytest.approx(100 * 100, rel=0.05)


def test_faces_turned_away_are_not_drawn():
    points, faces = square(3.0)
    image = draw_people(GREY, [(1, (points, (255, 0, 0), 1.0))], faces[:, ::-1], INTRINSICS)
    assert (image[110:] == GREY[110:]).all()


def test_the_nearer_person_covers_the_farther_one():
    near, faces = square(2.0)
    far, _ = square(4.0)
    for order in ([(1, near), (2, far)], [(2, far), (1, near)]):
        colours = {1: (255, 0, 0), 2: (0, 255, 0)}
        people = [(person, (points, colours[person], 1.0)) for person, points in order]
        image = draw_people(GREY, people, faces, INTRINSICS)
        assert image[120, 160, 0] > image[120, 160, 1]


def test_opacity_blends():
    points, faces = square(3.0)
    faint = draw_people(GREY, [(1, (points, (255, 0, 0), 0.25))], faces, INTRINSICS)
    assert 80 < faint[120, 160, 1] < 128


def test_a_body_behind_the_camera_is_not_drawn():
    points, faces = square(-2.0)
    assert (draw_people(GREY, [(1, (points, (255, 0, 0), 1.0))], faces, INTRINSICS) == GREY).all()


@pytest.mark.parametrize("max_width", [960, 160])
def test_the_video_shows_bodies_where_the_keypoints_are(tmp_path, max_width):
    state = make_state(2)
    state.observed[1, 4:] = False
    observations = make_observations(state)
    result = build_result(state, BODY, observations, body_model="default", provenance={})
    video = open_video(write_video(tmp_path / "video.mp4"))
    options = OverlayConfig(max_width=max_width)
    write_overlay(tmp_path / "o.mp4", video, result, BODY, options=options, progress=False)
    drawn = open_video(tmp_path / "o.mp4")
    factor = min(1, max_width / SIZE[0])
    assert drawn.image_size == (round(320 * factor), round(240 * factor))
    frames = [image.astype(float) for _, image in read_frames(drawn)]
    hips = [observations.keypoint_names.index(f"{side}_hip") for side in ("left", "right")]
    for row in range(2):
        middle = observations.keypoints[row, :, hips].mean(dim=1) * factor
        for index in (0, 7):
            x, y = (int(v) for v in middle[index])
            difference = frames[index][y, x] - (90 + 5 * index)
            expected = np.array(person_colour(row)) - 128.0
            assert np.abs(difference).max() > 8
            if index == 0:
                assert np.dot(difference, expected - expected.mean()) > 0
    strong, faint = (np.ptp(frames[i][int(middle[i][1]), int(middle[i][0])]) for i in (0, 7))
    assert strong > 1.5 * faint


def test_the_topview_marks_start_and_end(tmp_path):
    state = make_state(2)
    state.pelvis[1, :, 1] += torch.linspace(0, 2, 8)
    result = build_result(
        state, BODY, make_observations(state), body_model="default", provenance={}
    )
    image = draw_topview(result)
    for row in range(2):
        assert (image == np.array(person_colour(row))).all(axis=-1).sum() > 100
    write_topview(tmp_path / "top.png", result)
    assert (tmp_path / "top.png").read_bytes()[:4] == b"\x89PNG"


def test_somebody_who_stands_still_has_a_topview():
    state = make_state(1)
    state.pelvis[:] = state.pelvis[:, :1]
    image = draw_topview(
        build_result(state, BODY, make_observations(state), body_model="default", provenance={})
    )
    assert max(image.shape) < 1400


def test_the_topview_joins_no_two_worlds():
    """Half of a path lies 10 m away, after SLAM began anew: nothing is drawn in between."""
    state = make_state(1)
    state.pelvis[0, 4:, 1] += 10.0
    result = build_result(
        state, BODY, make_observations(state), body_model="default", provenance={}
    )
    inked = [
        int((draw_topview(result, starts) == np.array(person_colour(0))).all(axis=-1).sum())
        for starts in ((), (4,))
    ]
    assert inked[1] < 0.7 * inked[0]
