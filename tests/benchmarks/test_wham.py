"""WHAM's predictor against its modules called frame by frame, in the same run."""

import time
from collections.abc import Callable

import pytest
from wham_case import crop, naive, network, random_case

from priors.wham import Predictor

pytestmark = pytest.mark.benchmark
FRAMES = 300
FRAMES_OF_MODULES = 60


def milliseconds(run: Callable[[], object], frames: int) -> float:
    """Least time per frame of three runs, ms."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1000 * min(times) / frames


@pytest.mark.parametrize("people", [1, 4, 8])
def test_the_predictor_is_three_times_as_fast_as_its_modules(people: int, capsys):
    start, clip = random_case(people, FRAMES)
    few = crop(clip, 0, FRAMES_OF_MODULES)
    single, half = Predictor(network()), Predictor(network(), "bfloat16")
    slow = milliseconds(lambda: naive(network(), start, few), FRAMES_OF_MODULES)
    ours = milliseconds(lambda: single.predict(start, clip), FRAMES)
    rough = milliseconds(lambda: half.predict(start, clip), FRAMES)
    with capsys.disabled():
        print(
            f"\nWHAM, {people} people, ms per frame: float32 {ours:.2f}, bfloat16 {rough:.2f}, "
            f"modules {slow:.2f}"
        )
    assert slow >= 3 * ours
