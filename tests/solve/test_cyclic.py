"""Cyclic reduction against the sweep over frames, and its number of steps."""

import pytest
import torch
from linear import LinearProblem, flat

from slamhmr.solve.banded import NotPositiveDefiniteError
from slamhmr.solve.posterior import border_covariance, frame_covariances
from slamhmr.solve.sweep import Resources, Sweep


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 33, 100])
@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_step_is_that_of_the_sweep(frames, damping):
    problem = LinearProblem([frames, max(frames // 3, 1)], size=4)
    swept = Sweep(problem, problem.start(), damping, Resources(1, 50)).solve()
    reduced = Sweep(problem, problem.start(), damping, Resources(1, 50, together=True)).solve()
    torch.testing.assert_close(flat(reduced.step), flat(swept.step), rtol=1e-9, atol=1e-11)
    assert reduced.predicted == pytest.approx(swept.predicted, rel=1e-9)


def test_posterior_of_a_long_chain_stays_accurate():
    problem = LinearProblem([300], size=3)
    found = {}
    for together in (False, True):
        sweep = Sweep(problem, problem.start(), 0.0, Resources(1, 50, together=together))
        parts = []
        frame_covariances(sweep, border_covariance(sweep), parts.append)
        parts.sort(key=lambda part: part.start)
        found[together] = [torch.cat([getattr(p, n) for p in parts]) for n in ("frames", "cross")]
    for reduced, swept in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(reduced, swept, rtol=1e-8, atol=1e-10 * float(swept.abs().max()))


def test_levels_are_the_logarithm_of_the_frames():
    problem = LinearProblem([1000], size=3)
    sweep = Sweep(problem, problem.start(), 0.1, Resources(together=True))
    assert len(sweep.reduction.levels) == 9  # of 500 pairs


def test_singular_matrix_is_refused():
    problem = LinearProblem([9])
    problem.parts[0]["rows"][:, 3:6] = 0.0
    problem.parts[0]["rows"][1:, :3] = 0.0
    with pytest.raises(NotPositiveDefiniteError):
        Sweep(problem, problem.start(), 0.0, Resources(together=True))
