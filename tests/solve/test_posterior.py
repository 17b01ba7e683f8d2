"""Selected inversion against the inverse of the dense matrix."""

import pytest
import torch
from linear import LinearProblem

from slamhmr.solve.posterior import border_covariance, frame_covariances
from slamhmr.solve.sweep import Resources, Sweep

RESOURCES = [Resources(1, 100), Resources(2, 3), Resources(1, 2, 0), Resources(1, 4, together=True)]


@pytest.mark.parametrize("lengths", [[1], [2], [3], [8], [13, 5], [4, 1, 9]])
@pytest.mark.parametrize("resources", RESOURCES)
def test_equals_the_dense_inverse(lengths, resources):
    problem = LinearProblem(lengths, size=4 if 1 in lengths else 5)
    jacobian, _ = problem.dense()
    dense = torch.linalg.inv(jacobian.T @ jacobian)
    sweep = Sweep(problem, problem.start(), 0.0, resources)
    border = border_covariance(sweep)
    total = sum(lengths) * problem.size
    close = {"rtol": 1e-6, "atol": 1e-6 * float(dense.abs().max())}
    torch.testing.assert_close(border, dense[total:, total:], **close)
    seen = []

    def visit(found):
        offset = sum(lengths[: found.chain]) * problem.size
        columns = total + problem.chains[found.chain].border_columns
        for i, (own, cross) in enumerate(zip(found.frames, found.cross, strict=True)):
            first = offset + (found.start + i) * problem.size
            rows = slice(first, first + problem.size)
            torch.testing.assert_close(own, dense[rows, rows], **close)
            torch.testing.assert_close(cross, dense[rows][:, columns], **close)
            seen.append((found.chain, found.start + i))

    frame_covariances(sweep, border, visit)
    everything = [(c, t) for c, length in enumerate(lengths) for t in range(length)]
    assert sorted(seen) == everything


def test_long_chain_stays_accurate():
    """Rounding errors must not grow along the chain."""
    problem = LinearProblem([120], size=3)
    jacobian, _ = problem.dense()
    dense = torch.linalg.inv(jacobian.T @ jacobian)
    sweep = Sweep(problem, problem.start(), 0.0, Resources(1, 50))
    found = {}
    frame_covariances(sweep, border_covariance(sweep), lambda f: found.update({f.start: f.frames}))
    first = found[0][0]
    torch.testing.assert_close(first, dense[:3, :3], rtol=1e-8, atol=0)
