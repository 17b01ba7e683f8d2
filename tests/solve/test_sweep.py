"""One pass over a problem against dense and LAPACK solutions."""

import numpy as np
import pytest
import torch
from linear import LinearProblem, flat
from scipy.linalg import solveh_banded

from slamhmr.solve.banded import FLOOR, NotPositiveDefiniteError
from slamhmr.solve.sweep import Resources, Sweep


@pytest.mark.parametrize("lengths", [[1], [2], [3], [7], [9, 4], [3, 1, 6]])
@pytest.mark.parametrize("window", [1, 2, 3, 100])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_step_equals_dense(lengths, window, damping):
    problem = LinearProblem(lengths, size=4 if 1 in lengths else 5)
    jacobian, value = problem.dense()
    dense = jacobian.T @ jacobian
    scale = torch.diag(dense.diagonal() + FLOOR)
    expected = torch.linalg.solve(dense + damping * scale, -jacobian.T @ value)
    solved = Sweep(problem, problem.start(), damping, Resources(1, window, 1000)).solve()
    torch.testing.assert_close(flat(solved.step), expected, rtol=1e-8, atol=1e-9)
    decrease = -(value @ jacobian @ expected) - 0.5 * (jacobian @ expected).square().sum()
    assert solved.predicted == pytest.approx(float(decrease), rel=1e-8)


@pytest.mark.parametrize("kept", [0, 8, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_and_threads_leave_every_digit(kept, threads):
    problem = LinearProblem([31, 12])
    whole = Sweep(problem, problem.start(), 0.1, Resources(1, 4, 1000)).solve()
    other = Sweep(problem, problem.start(), 0.1, Resources(threads, 4, kept)).solve()
    assert torch.equal(flat(whole.step), flat(other.step))


@pytest.mark.parametrize("lengths", [[1], [2], [9, 4], [31, 12, 5], [3, 1, 6]])
@pytest.mark.parametrize("window", [2, 5, 100])
def test_one_batch_for_all_lanes_as_on_a_gpu(lengths, window):
    problem = LinearProblem(lengths, size=4 if 1 in lengths else 5)
    alone = Sweep(problem, problem.start(), 0.2, Resources(1, window)).solve()
    batched = Sweep(problem, problem.start(), 0.2, Resources(1, window, together=True)).solve()
    torch.testing.assert_close(flat(batched.step), flat(alone.step), rtol=1e-9, atol=1e-10)
    assert batched.predicted == pytest.approx(alone.predicted)


@pytest.mark.parametrize("together", [False, True])
def test_lapack_band_solver_agrees(together):
    """Without a border, LAPACK's own band solver is an independent reference."""
    problem = LinearProblem([12], shared=0, own=0)
    jacobian, value = problem.dense()
    dense = (jacobian.T @ jacobian).numpy()
    size, half = len(dense), 3 * 5 - 1
    band = np.zeros((half + 1, size))
    for k in range(half + 1):
        band[k, : size - k] = np.diagonal(dense, -k)
    expected = solveh_banded(band, -(jacobian.T @ value).numpy(), lower=True)
    solved = Sweep(problem, problem.start(), 0.0, Resources(together=together)).solve()
    np.testing.assert_allclose(flat(solved.step).numpy(), expected, rtol=1e-8)


def test_singular_matrix_is_refused():
    problem = LinearProblem([9])
    problem.parts[0]["rows"][:, 3:6] = 0.0
    problem.parts[0]["rows"][1:, :3] = 0.0
    with pytest.raises(NotPositiveDefiniteError):
        Sweep(problem, problem.start(), 0.0, Resources())
