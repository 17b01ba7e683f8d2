"""Supports: floor, steps, walls, from feet along the ground and heights; nothing where none is."""

import pytest
import torch

from slamhmr.supports import Supports, support_facts, support_notes, supports

FPS, STANCE = 30.0, 18  # frames of a stance
LEANING = 0.05


def walk(levels, *, slope=0.0, offset=0.0, noise=0.01, seed=0):
    """Left and right foot in turn, 0.6 m further with every stance, on the given levels."""
    generator = torch.Generator().manual_seed(seed)
    frames = STANCE * (len(levels) + 1)
    feet = torch.zeros(1, frames, 4, 3, dtype=torch.float64)
    contacts = torch.zeros(1, frames, 4, dtype=torch.float64)
    feet[..., 2] = 0.3
    feet[..., 0] = 2 * torch.arange(frames, dtype=torch.float64)[:, None] / FPS
    for number, level in enumerate(levels):
        there = slice(number * STANCE, (number + 1) * STANCE)
        own = slice(0, 2) if number % 2 == 0 else slice(2, 4)
        error = noise * torch.randn((), generator=generator, dtype=torch.float64)
        feet[:, there, own, 0] = 0.6 * number
        feet[:, there, own, 2] = level + offset + slope * 0.6 * number + error
        contacts[:, there, own] = 0.9
    return feet, contacts


def found(feet, contacts, camera=1.5, tilt_sigma=LEANING, cuts=(), **known):
    frames = feet.shape[1]
    times = torch.arange(frames, dtype=torch.float64) / FPS
    height = torch.full((frames,), camera, dtype=torch.float64)
    return supports(feet, contacts, times, height, tilt_sigma=tilt_sigma, cuts=cuts, **known)


def standing_on(result: Supports, contacts):
    """Support of every stance's middle frame."""
    frames = range(STANCE // 2, contacts.shape[1] - STANCE, STANCE)
    return [float(result.support[0, t][contacts[0, t] > 0.5].mean()) for t in frames]


@pytest.mark.parametrize("case", [{}, {"offset": 0.12}, {"slope": 0.05}, {"noise": 0.03}])
def test_a_floor_is_a_floor_wherever_the_body_is_taken_to_be(case):
    """Bodies of a wrong size float; a ground that leans by 3 degrees is no staircase."""
    feet, contacts = walk([0.0] * 14, **case)
    result = found(feet, contacts)
    assert float(result.support.abs().max()) == 0
    assert result.lowered == 0


@pytest.mark.parametrize("offset", [0.0, 0.06])
def test_stairs_are_as_many_levels_and_the_floor_before_them(offset):
    steps = [0.0] * 5 + [0.17, 0.34, 0.51, 0.68, 0.85, 0.85, 0.85]
    feet, contacts = walk(steps, offset=offset)
    result = found(feet, contacts)
    assert standing_on(result, contacts) == pytest.approx(steps, abs=0.06)
    facts = support_facts(result.support, contacts, 1 / FPS)
    assert len(facts) == 5
    assert facts[0]["people"] == 1
    assert "5 support levels besides the floor: +0.1" in support_notes(facts)[0]


@pytest.mark.parametrize(("measured", "height"), [(False, 0.0), (True, 0.35)])
def test_a_beam_is_seen_where_the_walker_is_measured(measured, height):
    """A guessed size explains 35 cm at 3 sigma; a stature that is known does not."""
    below, on_floor = walk([0.0] * 10)
    above, on_beam = walk([0.35] * 10, seed=1)
    feet, contacts = torch.cat([below, above]), torch.cat([on_floor, on_beam])
    feet[1, ..., 1] += 3.0
    known = torch.tensor([False, measured])
    result = found(feet, contacts, camera=2.0, tilt_sigma=0.01, measured=known)
    assert float(result.support[0].abs().max()) == 0
    assert standing_on(Supports(result.support[1:], 0), on_beam) == pytest.approx(
        [height] * 10, abs=0.05
    )


def test_a_known_vertical_does_not_lean_towards_somebody_on_a_wall():
    """Half a metre over three metres is a plane that leans by 9 degrees, or a wall."""
    below, on_floor = walk([0.0] * 10)
    above, on_wall = walk([0.5] * 10, seed=1)
    feet, contacts = torch.cat([below, above]), torch.cat([on_floor, on_wall])
    feet[1, ..., 1] += 3.0
    assert float(found(feet, contacts).support.max()) == 0
    level = found(feet, contacts, tilt_sigma=0.01)
    assert float(level.support[1].median()) == pytest.approx(0.5, abs=0.05)


def test_one_on_a_wall_does_not_lift_the_floor_for_the_other():
    below, on_floor = walk([0.0] * 10)
    above, on_wall = walk([2.0] * 8 + [0.0] * 2, seed=1)
    feet, contacts = torch.cat([below, above]), torch.cat([on_floor, on_wall])
    result = found(feet, contacts)
    assert float(result.support[0].abs().max()) == 0
    assert standing_on(Supports(result.support[1:], 0), on_wall) == pytest.approx(
        [2.0] * 8 + [0.0] * 2, abs=0.05
    )
    facts = support_facts(result.support, contacts, 1 / FPS)
    assert [fact["height_m"] for fact in facts] == pytest.approx([2.0], abs=0.05)
    assert facts[0]["seconds"] == pytest.approx(8 * STANCE / FPS, abs=0.7)


def test_the_lowest_lasting_level_is_the_floor():
    feet, contacts = walk([0.0] * 8 + [-1.0] * 3)
    result = found(feet, contacts)
    assert result.lowered == pytest.approx(1.0, abs=0.05)
    assert standing_on(result, contacts) == pytest.approx([1.0] * 8 + [0.0] * 3, abs=0.05)


@pytest.mark.parametrize("frames", [4, 6])
def test_a_stance_beside_every_level_is_on_the_nearest_not_up_on_the_wall(frames):
    feet, contacts = walk([0.0] * 8 + [-2.0] * 3 + [-2.4])
    contacts[:, frames - 2 * STANCE :] = 0  # a moment on the ground, and misjudged
    result = found(feet, contacts)
    assert result.lowered == pytest.approx(2.0, abs=0.05)
    on = standing_on(result, contacts.clamp_min(0.6))
    assert on[:8] == pytest.approx([2.0] * 8, abs=0.05)
    assert on[8:] == [0.0] * 4


def test_a_foot_that_moves_or_stays_a_moment_makes_no_level():
    feet, contacts = walk([0.0] * 8)
    contacts[0, 40:45, 2:] = 0.9  # at 2 m/s, 0.3 m up
    assert float(found(feet, contacts).support.abs().max()) == 0
    feet[0, 40:44, 2:, 0] = feet[0, 40, 2, 0]
    contacts[0, 44, 2:] = 0
    feet[0, 40:44, 2:, 2] = 0.5
    assert float(found(feet, contacts).support.abs().max()) == 0


def test_a_slam_systems_drift_in_a_long_clip_is_no_level():
    feet, contacts = walk([0.0] * 100)  # a minute to and fro, rising by 0.4 m
    frames = feet.shape[1]
    feet[0, ..., 0] = (feet[0, ..., 0] + 3) % 6
    feet[0, ..., 2] += torch.linspace(0, 0.4, frames, dtype=torch.float64)[:, None]
    assert float(found(feet, contacts).support.max()) > 0.1
    assert float(found(feet, contacts, drifting=True).support.max()) == 0


def test_stairs_are_no_drift():
    steps = [0.0] * 20 + [0.17, 0.34, 0.51] + [0.68] * 20
    feet, contacts = walk(steps)
    on = standing_on(found(feet, contacts, drifting=True), contacts)
    assert on[:18] == [0.0] * 18
    assert on[-15:] == pytest.approx([0.68] * 15, abs=0.12)


def test_nobody_who_stands_and_no_word_of_levels():
    feet, contacts = walk([0.0] * 3)
    result = found(feet, torch.zeros_like(contacts))
    assert float(result.support.abs().max()) == 0
    assert support_facts(None, contacts, 1 / FPS) == []
    assert support_notes([]) == []


def test_a_level_is_not_carried_across_a_cut():
    feet, contacts = walk([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    cut = 4 * STANCE + STANCE
    contacts[0, cut:] = 0
    contacts[0, cut + 2 :, 0] = 0.9
    feet[0, cut + 2 :, 0, 2] = 0
    feet[0, cut + 2 :, 0, 0] = 0
    result = found(feet, contacts, cuts=(cut,))
    assert float(result.support[0, cut - 2, 0]) == pytest.approx(1.0, abs=0.06)
    assert float(result.support[0, cut, 0]) == 0


def test_a_foot_without_a_stance_of_its_own_is_where_the_other_landed():
    feet, contacts = walk([2.0] * 6 + [0.0] * 4)
    contacts[0, 6 * STANCE :, 2:] = 0
    feet[0, 6 * STANCE :, :2, 2] = 0.0
    contacts[0, 6 * STANCE :, :2] = 0.9
    feet[0, 6 * STANCE :, :2, 0] = 3.6
    feet = torch.cat([walk([0.0] * 10)[0], feet])
    contacts = torch.cat([walk([0.0] * 10)[1], contacts])
    result = found(feet, contacts)
    assert float(result.support[1, 5 * STANCE, 2]) == pytest.approx(2.0, abs=0.05)
    assert float(result.support[1, 6 * STANCE + 6 :].abs().max()) == 0


@pytest.mark.parametrize("flat", [4, 6])
@pytest.mark.parametrize("direction", [1, -1])
def test_stairs_from_end_to_end_do_not_tilt_the_ground(flat, direction):
    """Feet in the middle of every step lie in one plane, but no ground leans by 11 degrees."""
    steps = [0.0] * flat + [0.12 * k for k in range(1, 11)]
    feet, contacts = walk(steps[::direction])
    levels = standing_on(found(feet, contacts), contacts)
    assert max(levels) - min(levels) == pytest.approx(1.2, abs=0.1)
