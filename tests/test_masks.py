"""Person masks: boxes, limbs, gaps and scaling."""

import numpy as np
import pytest
import torch

from slamhmr.masks import box_at, person_mask
from slamhmr.types import Observations


def observations(boxes: torch.Tensor, keypoints: torch.Tensor | None = None) -> Observations:
    """One or more people with only a left arm; unseen unless `keypoints` (N,T,2,2) are given."""
    people, frames = boxes.shape[:2]
    seen = keypoints is not None
    return Observations(
        person_id=torch.arange(1, people + 1),
        keypoints=torch.zeros(people, frames, 2, 2).double() if keypoints is None else keypoints,
        confidence=torch.full((people, frames, 2), 0.9 if seen else 0.0).double(),
        keypoint_names=("left_elbow", "left_wrist"),
        boxes=boxes,
        image_size=(200, 100),
        fps=10.0,
        timestamps=torch.arange(frames).double() / 10,
    )


def moving_box(frames: int, unseen: slice) -> torch.Tensor:
    start = torch.arange(frames).double()[:, None]
    boxes = torch.cat([start, start * 0 + 20, start + 30, start * 0 + 80], dim=1)[None]
    boxes[:, unseen] = torch.nan
    return boxes


def test_mask_covers_the_padded_box_and_nothing_far_from_it():
    boxes = torch.tensor([[[50.0, 20.0, 90.0, 80.0]]]).double()
    mask = person_mask(observations(boxes), 0)
    assert mask.shape == (100, 200)
    assert mask.dtype == bool
    assert mask[20:80, 50:90].all()
    assert mask[20:80, 48].all()  # padded
    assert not mask[:, :40].any()
    assert not mask[:, 100:].any()


def test_mask_of_a_short_gap_is_interpolated_and_of_a_long_one_empty():
    short = observations(moving_box(60, slice(20, 35)))
    box = box_at(short, 0, 27)
    assert box is not None
    assert np.allclose(box, [27, 20, 57, 80])
    assert person_mask(short, 27)[50, 30]
    long = observations(moving_box(60, slice(20, 50)))
    assert box_at(long, 0, 27) is None
    assert not person_mask(long, 27).any()


def test_nobody_is_assumed_before_entry_and_after_exit():
    boxes = moving_box(30, slice(0, 10))
    boxes[:, 20:] = torch.nan
    clip = observations(boxes)
    assert not person_mask(clip, 9).any()
    assert not person_mask(clip, 20).any()
    assert person_mask(clip, 10).any()


def test_limbs_outside_the_box_are_covered_past_the_wrist():
    boxes = torch.full((1, 1, 4), torch.nan).double()
    arm = torch.tensor([[[[40.0, 50.0], [140.0, 50.0]]]]).double()
    mask = person_mask(observations(boxes, arm), 0)
    assert mask[50, 40:150].all()  # the hand lies beyond the wrist
    assert mask[45:55, 90].all()
    assert not mask[:30].any()


def test_mask_scales_with_the_image():
    boxes = torch.tensor([[[50.0, 20.0, 90.0, 80.0]]]).double()
    full = person_mask(observations(boxes), 0)
    half = person_mask(observations(boxes), 0, (100, 50))
    assert half.shape == (50, 100)
    assert abs(half.mean() - full.mean()) < 0.02


def test_wild_keypoints_do_not_break_the_rasteriser():
    boxes = torch.full((1, 1, 4), torch.nan).double()
    arm = torch.tensor([[[[-1e12, 50.0], [1e12, 50.0]]]]).double()
    assert person_mask(observations(boxes, arm), 0).shape == (100, 200)


def test_frame_outside_the_clip_is_refused():
    with pytest.raises(ValueError, match="outside"):
        person_mask(observations(moving_box(5, slice(0, 0))), 5)
