"""People and spans of frames that fail alone, on measures made up one by one."""

import dataclasses

import pytest
import torch
from sequences import BODY, make_observations, make_state

from slamhmr.config import GatesConfig
from slamhmr.export.result import build_result
from slamhmr.judgement import (
    guessed_sizes,
    judge_people,
    judge_result,
    window_median,
    without,
)
from slamhmr.quality import LIMBS, Quality, natural_jitter
from slamhmr.types import Result

LIMITS = GatesConfig()
NOBODY = torch.zeros(2, dtype=torch.bool)
FRAMES, FPS = 150, 25.0  # of `make_observations`


@pytest.fixture(scope="module")
def result() -> Result:
    state = make_state(2, FRAMES)
    return build_result(state, BODY, make_observations(state), body_model="default", provenance={})


def measures(**changed: torch.Tensor) -> Quality:
    """Nothing is wrong with anybody but what is said."""
    shape = (2, FRAMES)
    return dataclasses.replace(
        Quality(
            pixel_percent=torch.full(shape, 1.0).double(),
            limb_percent=torch.full((2, len(LIMBS)), 1.5).double(),
            sliding_mm=torch.full((*shape, 4), torch.nan).double(),
            floating_cm=torch.full((*shape, 4), torch.nan).double(),
            depth_cm=torch.zeros(shape).double(),
            jitter=torch.full(shape, 10.0).double(),
            acceleration=torch.full((*shape, 22), 3.0).double(),
            speed=torch.full(shape, 1.0).double(),
            overlap_cm=torch.zeros(shape).double(),
        ),
        **changed,
    )


def in_frames(value: float, first: int, last: int, otherwise: float) -> torch.Tensor:
    """The value in some frames of the second person."""
    values = torch.full((2, FRAMES), otherwise).double()
    values[1, first : last + 1] = value
    return values


def test_good_people_do_not_fail(result):
    failed, failures = judge_people(result, measures(), LIMITS)
    assert failures == []
    assert not failed.any()


NATURAL = natural_jitter(FPS)
SPANS = {
    "pixels": ("pixel_percent", 14.0, 16.0, 1.0, "pixel error is 16.0 % of the box height"),
    "in the floor": ("depth_cm", 19.0, 30.0, 0.0, "30 cm under the ground"),
    "exploded": ("jitter", 9.5 * NATURAL, 11 * NATURAL, 10.0, "11.0 times that of real motion"),
}


@pytest.mark.parametrize("case", SPANS)
def test_a_span_fails_alone(result, case):
    name, little, much, otherwise, words = SPANS[case]
    assert judge_people(
        result, measures(**{name: in_frames(little, 50, 80, otherwise)}), LIMITS
    )[1] == []  # fmt: skip
    failed, failures = judge_people(
        result, measures(**{name: in_frames(much, 50, 80, otherwise)}), LIMITS
    )
    assert len(failures) == 1
    assert words in failures[0].sentence
    assert failures[0].person == 2
    assert abs(failures[0].first - 50) + abs(failures[0].last - 80) <= 2
    assert not failed[0].any()
    assert 29 <= int(failed[1].sum()) <= 33


def test_one_wrong_frame_is_an_outlier(result):
    found = measures(pixel_percent=in_frames(90.0, 60, 62, 1.0))
    assert judge_people(result, found, LIMITS)[1] == []


@pytest.mark.parametrize(("speed", "fails"), [(14.0, False), (16.0, True)])
def test_jumps(result, speed, fails):
    _, failures = judge_people(result, measures(speed=in_frames(speed, 70, 70, 1.0)), LIMITS)
    assert [f.reason.split(";")[0] for f in failures] == (["jumps at 16 m/s"] if fails else [])
    assert not fails or failures[0].first <= 70 < failures[0].last


@pytest.mark.parametrize(("seconds", "fails"), [(2.9, False), (3.1, True)])
def test_gaps(result, seconds, fails):
    observed = result.observed.clone()
    observed[1, 30 : 30 + round(seconds * FPS)] = False
    gone = dataclasses.replace(result, observed=observed)
    failed, failures = judge_people(gone, measures(), LIMITS)
    whole = [f for f in failures if "not seen for" in f.reason]
    assert len(whole) == int(fails)
    assert bool(failed.any()) is fails


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pixel_percent": in_frames(40.0, 0, FRAMES, 1.0)}, "median pixel error is 40.0 %"),
        ({"pixel_percent": in_frames(7.9, 0, FRAMES, 1.0)}, None),
        ({"limb_percent": torch.tensor([[1.0] * 4, [1.0, 13.0, 1.0, 1.0]]).double()},
         "the right arm is 13.0 % of the box height"),
        ({"limb_percent": torch.tensor([[1.0] * 4, [1.0, 11.0, 1.0, 1.0]]).double()}, None),
        ({"depth_cm": in_frames(30.0, 20, 120, 0.0)}, "% of its frames fail"),
    ],
)  # fmt: skip
def test_a_person_fails_as_a_whole(result, changed, words):
    failed, failures = judge_people(result, measures(**changed), LIMITS)
    assert failed.all(dim=1).tolist() == [False, words is not None]
    assert (words is None) is (failures == [])
    if words is not None:
        assert words in failures[0].reason
        assert (failures[0].first, failures[0].last) == (0, FRAMES - 1)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([0.0, 2.4], []),
        ([torch.nan, 2.6], ["is larger than the mean by 2.6 standard deviations"]),
        ([-2.7, torch.nan], ["is smaller than the mean by 2.7 standard deviations"]),
    ],
)
def test_somebody_whom_the_floor_alone_makes_a_giant(result, sizes, words):
    failed, failures = judge_people(result, measures(), LIMITS, sizes=torch.tensor(sizes))
    assert [f.reason.split(", which")[0] for f in failures] == words
    assert failed.any(dim=1).tolist() == [abs(size) > 2.5 for size in sizes]


def test_sizes_count_where_nothing_but_the_floor_tells_them():
    state = make_state(2, FRAMES)
    state.betas[:] = 0.0
    state.betas[1, 0] = 3.0
    measured = torch.tensor([False, True])
    still = dataclasses.replace(state, cameras=dataclasses.replace(state.cameras, moving=False))
    found = guessed_sizes(still, BODY, torch.zeros(2, dtype=torch.bool))
    assert found[0] == pytest.approx(0.0, abs=1e-3)
    assert found[1] == pytest.approx(2.7, abs=0.5)
    assert guessed_sizes(still, BODY, measured).isnan().tolist() == [False, True]
    travels = dataclasses.replace(state.cameras, moving=True)
    moved = guessed_sizes(dataclasses.replace(state, cameras=travels), BODY, measured)
    assert moved.isnan().all()


@pytest.mark.parametrize(("seen", "fails"), [(0.32, False), (0.28, True)])
def test_somebody_who_is_hardly_seen(result, seen, fails):
    """Seen every third frame or so: no gap is long."""
    places = torch.linspace(0, FRAMES - 1, round(seen * FRAMES)).round().long()
    observed = result.observed.clone()
    observed[1] = False
    observed[1, places] = True
    _, failures = judge_people(dataclasses.replace(result, observed=observed), measures(), LIMITS)
    assert [f.reason for f in failures] == (["seen in 28 % of its frames; limit 30 %"] * fails)


def test_null_switches_every_limit_off(result):
    nothing = GatesConfig(**{field.name: None for field in dataclasses.fields(GatesConfig)})
    worst = measures(
        pixel_percent=in_frames(90.0, 0, FRAMES, 90.0), depth_cm=in_frames(90.0, 0, FRAMES, 90.0),
        speed=in_frames(90.0, 0, FRAMES, 90.0), jitter=in_frames(1e6, 0, FRAMES, 1e6),
    )  # fmt: skip
    unseen = dataclasses.replace(result, observed=torch.zeros_like(result.observed))
    assert judge_people(unseen, worst, nothing)[1] == []


def test_failed_frames_are_not_valid_and_stay_finite(result):
    failed = torch.zeros_like(result.valid)
    failed[1, 50:81] = True
    kept = without(result, failed)
    assert kept.valid.sum(dim=1).tolist() == [FRAMES, FRAMES - 31]
    assert not kept.observed[1, 50:81].any()
    torch.testing.assert_close(kept.joints, result.joints, rtol=0, atol=0)


def test_judging_again_changes_nothing():
    """The report judges what is on the disk, in which failed frames are no longer valid."""
    state = make_state(2, 40)
    state.observed[1, 10:25] = False
    seen = make_observations(state)
    limits = dataclasses.replace(LIMITS, gap_s=0.2)
    whole = build_result(state, BODY, seen, body_model="default", provenance={})
    once, _, failures = judge_result(whole, state, seen, BODY, limits, measured=NOBODY)
    again, _, same = judge_result(once, state, seen, BODY, limits, measured=NOBODY)
    assert [f.sentence for f in failures] == [
        "person 2, frames 10-24: not seen for 0.6 s; limit 0.2"
    ]
    assert same == failures
    assert torch.equal(again.valid, once.valid)


@pytest.mark.parametrize(("last", "fails"), [(32, False), (33, True)])
def test_frames_without_a_camera_for_long_fail(result, last, fails):
    lost = torch.zeros(FRAMES, dtype=torch.bool)
    lost[20:last] = True
    failed, failures = judge_people(result, measures(), LIMITS, lost)
    assert failed.any(dim=0).nonzero()[:, 0].tolist() == (list(range(20, last)) if fails else [])
    words = f"frames 20-{last - 1}: the camera is lost for 0.5 s; limit 0.5"
    assert [f.sentence.endswith(words) for f in failures] == ([True, True] if fails else [])


def test_medians():
    values = torch.tensor([1.0, 9.0, 2.0, float("nan"), 4.0]).double()
    assert window_median(values, 1).tolist() == [1.0, 2.0, 2.0, 2.0, 4.0]
