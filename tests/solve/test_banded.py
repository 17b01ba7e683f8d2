import numpy as np
import pytest
import torch
from scipy.linalg import solveh_banded

from slamhmr.solve.assemble import ChainEquations, NormalEquations
from slamhmr.solve.banded import NotPositiveDefiniteError, border_covariance, solve_damped
from slamhmr.solve.banded_torch import solve_damped_torch


def random_equations(lengths, size=5, shared=2, own=3, seed=0):
    """Arrow-shaped equations from random residuals, and the same matrix dense."""
    generator = torch.Generator().manual_seed(seed)
    count = shared + own * len(lengths)
    total = sum(lengths) * size
    rows, offset = [], 0
    columns_of = []
    for index, length in enumerate(lengths):
        columns = [*range(shared), *range(shared + own * index, shared + own * (index + 1))]
        columns_of.append(torch.tensor(columns, dtype=torch.int64))
        for t in range(length):
            block = torch.zeros(size + 2, total + count, dtype=torch.float64)
            stop = min(t + 3, length)
            width = (stop - t) * size
            start = offset + t * size
            block[:, start : start + width] = torch.randn(
                size + 2, width, generator=generator, dtype=torch.float64
            )
            block[:, [total + c for c in columns]] = torch.randn(
                size + 2, len(columns), generator=generator, dtype=torch.float64
            )
            rows.append(block)
        offset += length * size
    rows.append(torch.eye(total + count, dtype=torch.float64))  # keeps short chains regular
    jacobian = torch.cat(rows)
    value = torch.randn(len(jacobian), generator=generator, dtype=torch.float64)
    dense, gradient = jacobian.T @ jacobian, jacobian.T @ value
    chains, offset = [], 0
    for index, length in enumerate(lengths):
        band = [torch.zeros(length, size, size, dtype=torch.float64) for _ in range(3)]
        for t in range(length):
            for k in range(min(3, length - t)):
                a, b = offset + t * size, offset + (t + k) * size
                band[k][t] = dense[a : a + size, b : b + size]
        span = slice(offset, offset + length * size)
        border = dense[span, total:][:, columns_of[index]].reshape(length, size, -1)
        chains.append(ChainEquations(band, border, gradient[span].reshape(length, size)))
        offset += length * size
    corner = dense[total:, total:]
    return NormalEquations(chains, columns_of, corner, gradient[total:]), dense, gradient


def flat(step):
    return torch.cat([*[c.reshape(-1) for c in step.chains], step.border])


@pytest.mark.parametrize("solve", [solve_damped, solve_damped_torch])
@pytest.mark.parametrize("lengths", [[1], [2], [7], [9, 4], [3, 1, 6]])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_solution_equals_dense(solve, lengths, damping):
    equations, dense, gradient = random_equations(lengths)
    damped = dense + damping * torch.diag(dense.diagonal())
    expected = torch.linalg.solve(damped, -gradient)
    torch.testing.assert_close(flat(solve(equations, damping)), expected, rtol=1e-8, atol=1e-9)


def test_lapack_band_solver_agrees():
    """Without a border, LAPACK's own band solver is an independent reference."""
    equations, dense, gradient = random_equations([12], shared=0, own=0)
    size, half = len(dense), 3 * 5 - 1
    band = np.zeros((half + 1, size))
    for k in range(half + 1):
        band[k, : size - k] = np.diagonal(dense.numpy(), -k)
    expected = solveh_banded(band, -gradient.numpy(), lower=True)
    np.testing.assert_allclose(flat(solve_damped(equations, 0.0)).numpy(), expected, rtol=1e-8)


def test_border_covariance_is_block_of_inverse():
    equations, dense, _ = random_equations([6, 5])
    expected = torch.linalg.inv(dense)[-len(equations.corner) :, -len(equations.corner) :]
    torch.testing.assert_close(border_covariance(equations), expected, rtol=1e-8, atol=1e-10)


def test_indefinite_matrix_is_refused():
    equations, _, _ = random_equations([4])
    equations.chains[0].band[0][2] -= 1e4 * torch.eye(5)
    with pytest.raises(NotPositiveDefiniteError):
        solve_damped(equations, 0.0)
