"""Mutual position of people: hand-computed, free of the world's origin and heading only."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import BODY

from slamhmr.eval.mutual import mutual_position_error_m
from slamhmr.synth.footsteps import axis_rotation
from slamhmr.synth.scene import SceneSpec, make_scene
from slamhmr.synth.write import truth
from slamhmr.types import Result

PAIRS = [(0, 0), (1, 1)]


@pytest.fixture(scope="module")
def exact() -> Result:
    spec = SceneSpec(seed=61, frames=12, people=2, motion="stand", camera="static")
    return truth(make_scene(spec, BODY), BODY, spec)


def moved(result: Result, turn: torch.Tensor, shift: torch.Tensor, size: float = 1.0) -> Result:
    poses = result.world_from_cam.clone()
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    poses[:, :3, 3] = size * poses[:, :3, 3] @ turn.T + shift
    return replace(result, joints=size * result.joints @ turn.T + shift, world_from_cam=poses)


def test_heading_and_origin_do_not_count(exact: Result) -> None:
    turn = torch.from_numpy(axis_rotation(2, np.asarray(1.1)))
    other = moved(exact, turn, torch.tensor([3.0, -2.0, 0.5]).double())
    assert float(mutual_position_error_m(other, exact, PAIRS).max()) < 1e-9


def test_size_and_tilt_count(exact: Result) -> None:
    apart = (exact.joints[0, :, 0] - exact.joints[1, :, 0]).norm(dim=-1)
    ends = exact.joints[:, :, 0] - exact.world_from_cam[:, :3, 3]
    far = ends.norm(dim=-1).mean(dim=0)
    larger = moved(exact, torch.eye(3).double(), torch.zeros(3).double(), 1.1)
    found = mutual_position_error_m(larger, exact, PAIRS)
    torch.testing.assert_close(found, 0.1 * apart * 5.0 / far)
    tilt = torch.from_numpy(axis_rotation(0, np.asarray(math.radians(5.0))))
    tilted = moved(exact, tilt, torch.zeros(3).double())
    assert float(mutual_position_error_m(tilted, exact, PAIRS).max()) > 0.001


def test_only_frames_of_both_count(exact: Result) -> None:
    valid = exact.valid.clone()
    valid[1, 4:] = False
    assert len(mutual_position_error_m(replace(exact, valid=valid), exact, PAIRS)) == 4
    assert len(mutual_position_error_m(exact, exact, PAIRS[:1])) == 0


def test_the_heading_of_every_piece_that_nobody_ties_is_its_own(exact: Result) -> None:
    turn = torch.from_numpy(axis_rotation(2, np.asarray(1.1)))
    other = moved(exact, turn, torch.tensor([3.0, -2.0, 0.5]).double())
    mixed = replace(
        exact,
        joints=torch.cat([exact.joints[:, :5], other.joints[:, 5:]], dim=1),
        world_from_cam=torch.cat([exact.world_from_cam[:5], other.world_from_cam[5:]]),
        segments=torch.tensor([5]),
        segment_tied=torch.tensor([False]),
    )
    assert float(mutual_position_error_m(mixed, exact, PAIRS).max()) < 1e-9
    tied = replace(mixed, segment_tied=torch.tensor([True]))
    assert float(mutual_position_error_m(tied, exact, PAIRS).max()) > 0.1
