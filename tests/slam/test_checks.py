"""Good paths pass, each kind of junk is named."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slamhmr.slam.checks import distrust_model, distrust_path
from slamhmr.slam.mapping import Model

GOOD = Model(
    frames=np.arange(0, 90, 5),
    world_from_cam=np.tile(np.eye(4), (18, 1, 1)),
    asked=18,
    point_ids=np.arange(800),
    points=np.ones((800, 3)),
    angle=2.0,
    points_per_frame=500.0,
    error=0.25,
)
JUNK = {
    "keyframes were placed": {
        "frames": np.arange(2),
        "world_from_cam": np.tile(np.eye(4), (2, 1, 1)),
        "asked": 2,
    },
    "of 60 keyframes": {"asked": 60},
    "points": {"points_per_frame": 4.0},
    "reprojection error": {"error": 1.12},
    "parallax": {"angle": 0.1},
    "reprojection error nan": {"error": float("nan")},
}


def path(centres):
    poses = np.tile(np.eye(4), (len(centres), 1, 1))
    poses[:, :3, 3] = centres
    return poses


def walk(count=90):
    t = np.arange(count) / 30.0
    return np.stack([0.02 * np.sin(6 * t), 0.03 * np.sin(12 * t), 1.2 * t], axis=1)


def verdict(poses, measured=None):
    known = np.ones(len(poses), dtype=bool) if measured is None else measured
    return " ".join(distrust_path(poses, known, 30.0))


def test_good_model_passes():
    assert distrust_model(GOOD, 1.0) == []


@pytest.mark.parametrize(("reason", "change"), JUNK.items())
def test_junk_model_is_named(reason, change):
    found = distrust_model(replace(GOOD, **change), 1.0)
    assert len(found) == 1
    assert reason in found[0]


def test_error_scales_with_the_picture():
    assert distrust_model(replace(GOOD, error=2.0), 3.0) == []


def test_walk_passes(rendered):
    assert verdict(path(walk())) == ""
    for kind in ("forward", "lateral", "orbit", "sway"):
        assert verdict(rendered(kind).world_from_cam.numpy()) == ""


def test_frames_dropped_by_a_rate_conversion_pass():
    every_fifth_dropped = walk(150)[np.arange(150) % 5 != 4]
    assert verdict(path(every_fifth_dropped)) == ""


def test_jumps_are_named():
    centres = walk()
    centres[40:] += [0.5, 0, 0]
    assert "jumps" in verdict(path(centres))


def test_zigzag_is_named():
    noise = np.random.default_rng(3).normal(0, 1.0, (90, 3))
    assert "zigzags" in verdict(path(noise))


def test_flipped_view_is_named():
    poses = path(walk())
    poses[50:, :3, :3] = np.diag([-1.0, 1.0, -1.0])
    assert "view direction" in verdict(poses)


def test_gap_is_named():
    measured = np.ones(90, dtype=bool)
    measured[10:80] = False
    assert "no measured pose" in verdict(path(walk()), measured)


def test_nan_is_named():
    poses = torch.eye(4).repeat(10, 1, 1).numpy()
    poses[3, 0, 3] = np.nan
    assert "finite" in verdict(poses)
