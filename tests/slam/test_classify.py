"""The decision table: which motion of the camera is recognised as what."""

import numpy as np
import pytest
import torch

from slamhmr.errors import BackendError
from slamhmr.slam import auto
from slamhmr.slam.classify import ROTATION_SHARE, classify
from slamhmr.slam.tracks import Tracks, follow_background

TABLE = {
    "static": "static",
    "rotation": "rotation",
    "forward": "translation",
    "lateral": "translation",
    "orbit": "translation",
}


@pytest.mark.parametrize(("motion", "kind"), TABLE.items())
def test_recognises_motion(rendered, motion, kind):
    clip = rendered(motion)
    tracks = follow(clip)
    found = classify(tracks, clip.intrinsics.numpy())
    assert found.kind == kind, found
    assert found.kind in found.note()


def test_sway_of_20_cm_is_at_the_edge_and_says_so(rendered):
    clip = rendered("sway")
    found = classify(follow(clip), clip.intrinsics.numpy())
    assert abs(found.rotation_share - ROTATION_SHARE) < 0.2
    assert found.uncertain or found.residual > auto.PARALLAX
    assert not found.uncertain or "close to the threshold" in found.note()


def test_static_differs_when_the_user_says_moving(rendered):
    clip = rendered("static")
    found = classify(follow(clip), clip.intrinsics.numpy(), moving=True)
    assert found.kind == "rotation"


def test_wrong_focal_length_does_not_hide_a_rotation(rendered):
    clip = rendered("rotation")
    wrong = clip.intrinsics.numpy() * np.array([1.4, 1.4, 1.0, 1.0])
    found = classify(follow(clip), wrong)
    assert found.kind == "rotation"
    assert 0.6 <= found.focal_factor <= 0.8  # the truth is 1 / 1.4


def test_points_stay_off_people(rendered):
    clip = rendered("static")
    tracks = follow(clip)
    for frame in (0, 20, 39):
        x0, y0, x1, y1 = clip.observations.boxes[0, frame].tolist()
        x, y = tracks.points[frame].T
        assert len(x) > 100
        assert not np.any((x > x0) & (x < x1) & (y > y0) & (y < y1))


def test_plain_background_is_an_error(rendered):
    empty = Tracks((np.arange(3),) * 4, (np.ones((3, 2)),) * 4, (640, 480))
    with pytest.raises(BackendError, match="background points"):
        classify(empty, np.array([500.0, 500.0, 320.0, 240.0]))


def test_static_clip_gives_identity_and_numbers(rendered):
    clip = rendered("static")
    track = auto.track_camera(
        clip.video, clip.observations, clip.intrinsics, auto.Options(), progress=False
    )
    assert track.source == "static"
    assert not track.moving
    assert torch.equal(track.world_from_cam, torch.eye(4).double().repeat(40, 1, 1))
    assert "px" in track.notes[0]


def test_word_of_the_user_is_noted(rendered):
    clip = rendered("orbit")
    options = auto.Options(assume="static")
    track = auto.track_camera(
        clip.video, clip.observations, clip.intrinsics, options, progress=False
    )
    assert track.source == "static"
    assert "not measured" in track.notes[0]


def follow(clip):
    return follow_background(
        clip.video, clip.observations, longest_side=640, count=400, progress=False
    )
