"""Interpolation between knots."""

import pytest
import torch

from slamhmr.geometry import between, ramps, runs, shot_numbers


def test_between_interpolates_what_is_linear_exactly_and_holds_the_ends():
    knots = torch.tensor([-1.0, 0.5, 0.75, 4.0], dtype=torch.float64)
    values = 3 * knots - 2
    at = torch.tensor([-5.0, -1.0, -0.2, 0.5, 0.6, 3.9, 4.0, 9.0], dtype=torch.float64)
    left, right, share = between(knots, at)
    found = torch.lerp(values[left], values[right], share)
    torch.testing.assert_close(found, 3 * at.clamp(-1, 4) - 2)
    assert bool((right - left == 1).all())


@pytest.mark.parametrize("place", [-1.0, 2.0, 7.0])
def test_between_a_single_knot_and_itself(place: float):
    left, right, share = between(torch.tensor([2.0]).double(), torch.tensor([place]).double())
    assert (left.tolist(), right.tolist()) == ([0], [0])
    assert bool(torch.isfinite(share).all())


def test_a_place_a_rounding_error_before_a_knot_counts_as_the_knot():
    knots = torch.arange(20, dtype=torch.float64) / 30
    left, _, share = between(knots, knots[:-1] - 1e-12)
    assert left.tolist() == list(range(19))
    assert float(share.max()) < 1e-6


def test_runs_of_true_flags_within_one_shot():
    flags = torch.tensor([True, False, True, True, True, False, True])
    assert runs(flags) == [(0, 1), (2, 5), (6, 7)]
    assert runs(flags, shot_numbers(7, [3])) == [(0, 1), (2, 3), (3, 5), (6, 7)]
    assert runs(torch.zeros(4, dtype=torch.bool)) == []


def test_ramps_rise_one_after_the_other_and_not_at_all_in_short_clips() -> None:
    times = torch.linspace(0, 25, 26, dtype=torch.float64)
    rise = ramps(times, 25.0, 10.0)
    assert rise.shape == (26, 2)
    assert torch.equal(rise[0], torch.zeros(2).double())
    assert torch.equal(rise[-1], torch.ones(2).double())
    assert torch.allclose(rise.sum(dim=1), 2 * times / 25)
    assert bool((rise[times < 12.5, 1] == 0).all())
    assert ramps(times, 9.9, 10.0).shape == ramps(times, 0.0, 10.0).shape == (26, 0)
