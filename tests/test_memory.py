"""The memory estimate against measured runs, and what it refuses."""

import pytest

from slamhmr.errors import BackendError
from slamhmr.memory import GB, There, estimate, machine, require_fits

# Peak resident set of `optimize`, GB: frames, people (2 threads, synthetic, no pixels).
MEASURED = [(200, 1, 0.648), (1000, 1, 1.284), (3000, 1, 1.525), (1000, 3, 1.530)]


@pytest.mark.parametrize(("frames", "people", "peak"), MEASURED)
def test_measured_runs(frames, people, peak):
    assert 0.95 * peak < estimate(frames, people).host / GB < 1.35 * peak


def test_a_long_clip_streams_on_the_processor():
    """Factors beyond 10 000 frames are made again: only results grow."""
    grown = estimate(40_000, 1).host - estimate(20_000, 1).host
    assert grown < 2.5 * GB


def test_gpu_grows_with_frames_and_its_window_fills_what_is_left():
    small, large = (estimate(1000, people, gpu=int(80 * GB)) for people in (1, 4))
    assert small.gpu < large.gpu < 10 * GB
    assert small.window == 16_384
    tight = estimate(1000, 4, gpu=int(6 * GB))
    assert 100 <= tight.window < 4000
    assert estimate(1000, 1).gpu == 0


def test_sentence_and_refusal():
    need = estimate(1000, 1, gpu=int(24 * GB))
    there = There(int(24 * GB), int(24 * GB))
    assert "of 24 GB on the GPU" in need.sentence(there)
    require_fits(need, there)
    with pytest.raises(BackendError, match="GPU memory.*device=cpu"):
        require_fits(estimate(100_000, 10, gpu=int(24 * GB)), There(10**12, int(24 * GB)))
    with pytest.raises(BackendError, match="GB of memory"):
        require_fits(need, There(int(0.5 * GB), int(24 * GB)))


def test_this_machine_has_memory():
    assert 0.5 * GB < machine().host < 1e14
