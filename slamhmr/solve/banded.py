"""Factorisation of arrow-shaped block-banded normal equations by LAPACK, one frame at a time.

Frames are eliminated in order (block Cholesky, right-looking): the panel of frame t holds its
couplings to frames t + 1, t + 2, the border and the gradient, so one triangular solve and one
symmetric update per frame do everything. Cost O(T d^3), linear in the clip. `banded_torch.py` is
the same recursion for GPUs; LAPACK's own band solver is the reference in the tests (it loses with
a border: `pbtrs` takes right-hand sides one by one).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import blas, lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

from slamhmr.solve.assemble import ChainEquations, NormalEquations
from slamhmr.solve.problem import Step


class NotPositiveDefiniteError(Exception):
    """The damped matrix has no Cholesky factor; more damping is needed."""


@dataclass(frozen=True)
class ChainFactor:
    """Per frame the lower factor L (d, d) and L^-1 [A_(t,t+1) A_(t,t+2) B_t g_t] (d, n)."""

    lower: Float[np.ndarray, "T d d"]
    panel: Float[np.ndarray, "T d n"]
    schur: Float[
        np.ndarray, "m m"
    ]  # what the chain takes off corner and corner gradient, m = g + 1, n = 2 d + m


def solve_damped(equations: NormalEquations, damping: float) -> Step:
    """Solve (H + damping diag(H)) dx = -gradient.

    Raises NotPositiveDefiniteError when a pivot block has no Cholesky factor.
    """
    with threadpool_limits(limits=1, user_api="blas"):  # spinning threads lose 10x on 69x69 blocks
        factors = [factor_chain(chain, damping) for chain in equations.chains]
        border = _solve_border(equations, factors, damping)
        steps = [
            torch.from_numpy(_back_substitute(factor, border[columns.numpy()]))
            for factor, columns in zip(factors, equations.border_columns, strict=True)
        ]
    return Step(steps, torch.from_numpy(border))


def border_covariance(equations: NormalEquations) -> Float[Tensor, "G G"]:
    """Covariance of the border's unknowns: inverse of the Schur complement of all chains.

    Directions without any information get the pseudo-inverse's zero removed: their variance is
    infinite. Raises NotPositiveDefiniteError when a chain itself is singular.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        factors = [factor_chain(chain, 0.0) for chain in equations.chains]
        complement = _reduced_corner(equations, factors, 0.0)[:-1, :-1]
    values, vectors = np.linalg.eigh(complement)
    with np.errstate(divide="ignore"):
        inverse = np.where(values > 1e-12 * max(values.max(), 1e-300), 1.0 / values, np.inf)
    inverse = np.minimum(inverse, 1e12)
    return torch.from_numpy((vectors * inverse) @ vectors.T)


def damping_scale(diagonal: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """diag(H) of Marquardt, kept away from zero so that unseen unknowns stay where they are."""
    return np.maximum(diagonal, 1e-6)


def factor_chain(chain: ChainEquations, damping: float) -> ChainFactor:
    """Eliminate all frames of one chain."""
    band = [block.numpy() for block in chain.band]
    border, gradient = chain.border.numpy(), chain.gradient.numpy()
    frames, size = gradient.shape
    shared = border.shape[-1] + 1
    width = 2 * size + shared
    lower = np.empty((frames, size, size)).transpose(
        0, 2, 1
    )  # column-major blocks, as LAPACK wants
    panels = np.empty((frames, width, size)).transpose(0, 2, 1)
    schur = np.zeros((shared, shared))
    update = np.zeros((width, width))  # of the frame before, upper triangle
    older = np.zeros((size, size + shared))  # of two frames before, on the frame now eliminated
    for t in range(frames):
        pivot = band[0][t] - update[:size, :size] - older[:, :size]
        pivot[np.diag_indices(size)] += damping * damping_scale(np.diagonal(band[0][t]))
        panel = panels[t]
        panel[:, :size] = band[1][t]
        panel[:, :size] -= update[:size, size : 2 * size]
        panel[:, size : 2 * size] = band[2][t]
        panel[:, 2 * size : -1] = border[t]
        panel[:, -1] = gradient[t]
        panel[:, 2 * size :] -= update[:size, 2 * size :] + older[:, size:]
        older = np.concatenate(
            [update[size : 2 * size, size : 2 * size], update[size : 2 * size, 2 * size :]], axis=1
        )
        factor, info = lapack.dpotrf(pivot.T, lower=1, clean=0, overwrite_a=1)
        if info != 0:
            raise NotPositiveDefiniteError(f"pivot block of frame {t}")
        lower[t] = (
            factor  # its lower triangle; the transpose hands LAPACK the updated upper triangle
        )
        solved = blas.dtrsm(1.0, factor, panel, lower=1)
        panels[t] = solved
        update = blas.dsyrk(1.0, solved, trans=1, lower=0)
        schur += update[2 * size :, 2 * size :]
    return ChainFactor(lower, panels, schur)


def _reduced_corner(
    equations: NormalEquations, factors: list[ChainFactor], damping: float
) -> Float[np.ndarray, "n n"]:
    """Corner with its gradient as last column, chains eliminated; upper triangle mirrored."""
    corner = equations.corner.numpy()
    count = len(corner)
    full = np.zeros((count + 1, count + 1))
    full[:count, :count] = corner
    full[np.arange(count), np.arange(count)] += damping * damping_scale(np.diagonal(corner))
    full[:count, -1] = full[-1, :count] = equations.corner_gradient.numpy()
    for factor, columns in zip(factors, equations.border_columns, strict=True):
        places = np.append(columns.numpy(), count)
        upper = np.triu(factor.schur)
        full[np.ix_(places, places)] -= upper + np.triu(upper, 1).T
    return full


def _solve_border(
    equations: NormalEquations, factors: list[ChainFactor], damping: float
) -> Float[np.ndarray, "G"]:
    full = _reduced_corner(equations, factors, damping)
    count = len(full) - 1
    if count == 0:
        return np.zeros(0)
    factor, info = lapack.dpotrf(full[:count, :count], lower=1)
    if info != 0:
        raise NotPositiveDefiniteError("border")
    solution, info = lapack.dpotrs(factor, -full[:count, -1], lower=1)
    assert info == 0
    return solution


def _back_substitute(factor: ChainFactor, border: Float[np.ndarray, "g"]) -> np.ndarray:
    frames, size, width = factor.panel.shape
    step = np.zeros((frames + 2, size))
    known = np.empty(width)
    known[2 * size : -1] = border
    known[-1] = 1.0  # the gradient's own column
    for t in range(frames - 1, -1, -1):
        known[:size] = step[t + 1]
        known[size : 2 * size] = step[t + 2]
        right = factor.panel[t] @ known
        step[t] = blas.dtrsv(factor.lower[t], -right, lower=1, trans=1)
    return step[:frames]
