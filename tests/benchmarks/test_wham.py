"""WHAM's predictor against its modules called frame by frame, in the same run."""

import time
from collections.abc import Callable

import pytest
from wham_case import naive, network, random_case

from priors.wham import Predictor

pytestmark = pytest.mark.benchmark
FRAMES = 60
ROUNDS = 6


def milliseconds(runs: list[Callable[[], object]]) -> list[float]:
    """Least time per frame of each run, ms; the runs take turns, so that all meet calm moments."""
    best = [float("inf")] * len(runs)
    for _ in range(ROUNDS):
        for index, run in enumerate(runs):
            started = time.perf_counter()
            run()
            best[index] = min(best[index], 1000 * (time.perf_counter() - started) / FRAMES)
    return best


# Eight rows are near the processor's own limit, and the modules' products gain from them too.
@pytest.mark.parametrize(("people", "times"), [(1, 3.0), (4, 3.0), (8, 2.5)])
def test_the_predictor_is_three_times_as_fast_as_its_modules(people: int, times: float, capsys):
    start, clip = random_case(people, FRAMES)
    single, half = Predictor(network()), Predictor(network(), "bfloat16")
    slow, ours, rough = milliseconds(
        [
            lambda: naive(network(), start, clip),
            lambda: single.predict(start, clip),
            lambda: half.predict(start, clip),
        ]
    )
    with capsys.disabled():
        print(
            f"\nWHAM, {people} people, ms per frame: float32 {ours:.2f}, bfloat16 {rough:.2f}, "
            f"modules {slow:.2f}"
        )
    assert slow >= times * ours
