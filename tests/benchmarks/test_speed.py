"""What the solver costs: seconds, memory, growth with frames and people, accuracy of what is timed.

Every case is solved in a process of its own; run it on an otherwise idle machine.
"""

from functools import cache

import pytest

from slamhmr.bench.case import Case, Measurement, measure

pytestmark = pytest.mark.benchmark
LONGEST, GIGABYTES = 20_000, 4.0
SECONDS = 20.0  # 1000 frames, one person, two threads: as long as 600 frames of video play
CASES = [(1000, 1, 1), (1000, 1, 2), (1000, 4, 2), (8000, 1, 2), (LONGEST, 1, 2)]


@cache
def measured(frames: int, people: int, threads: int) -> Measurement:
    return measure(Case(frames, people, threads, repeats=2 if frames * people == 1000 else 1))


@pytest.mark.parametrize("size", CASES, ids="{0[0]}x{0[1]}-{0[2]}".format)
def test_a_case_is_no_worse_than_it_was(size: tuple[int, int, int], compare):
    found = measured(*size)
    name = "speed {} x {}, threads {}: ".format(*size)
    print(f"{name}{found.wall_s:.1f} s, {found.peak_gb:.2f} GB, {found.pa_mpjpe_mm:.1f} mm")
    compare(f"{name}wall", found.wall_s, "s")
    compare(f"{name}cpu", found.cpu_s, "s")
    compare(f"{name}peak", found.peak_gb, "GB")
    compare(f"{name}iterations", found.iterations, "iterations")
    compare(f"{name}PA-MPJPE", found.pa_mpjpe_mm, "mm")
    compare(f"{name}WA-MPJPE100", found.wa_mpjpe100_mm, "mm")


def test_a_thousand_frames_are_solved_faster_than_they_play():
    assert measured(1000, 1, 2).wall_s <= SECONDS


@pytest.mark.parametrize(("frames", "people", "limit"), [(1000, 4, 4.4), (8000, 1, 8.8)])
def test_cost_grows_in_proportion(frames: int, people: int, limit: float):
    ratio = measured(frames, people, 2).wall_s / measured(1000, 1, 2).wall_s
    print(f"({frames} x {people}) / (1000 x 1): {ratio:.2f}, at most {limit}")
    assert ratio <= limit


def test_memory_of_a_long_clip_is_bounded():
    assert measured(LONGEST, 1, 2).peak_gb < GIGABYTES
