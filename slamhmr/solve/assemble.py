"""Normal equations of a linearisation: block band per chain, border, gradient.

Per feature group the residuals are first folded into feature space (3x3-sized weights per feature
and frame offset), then taken to the unknowns by one batched product per frame offset, in pieces
of frames so that Jacobians and temporaries stay small.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.problem import (
    MAX_STENCIL,
    Chain,
    FeatureGroup,
    Linearisation,
    Residual,
    robust_weight,
)

CHUNK = 200  # frames per batched product: larger ones spend their time on page faults


@dataclass(frozen=True)
class ChainEquations:
    """Block band of one chain: `band[k][t]` couples frames t and t + k."""

    band: list[Float[Tensor, "T d d"]]  # offsets 0, 1, 2; the last k blocks of offset k are zero
    border: Float[Tensor, "T d g"]
    gradient: Float[Tensor, "T d"]


@dataclass(frozen=True)
class NormalEquations:
    """H dx = -g with arrow structure: chains and a corner of all border columns."""

    chains: list[ChainEquations]
    border_columns: list[Tensor]
    corner: Float[Tensor, "G G"]
    corner_gradient: Float[Tensor, "G"]


@dataclass
class _Folded:
    """Sums over residuals in the space of one group's features."""

    weights: list[Tensor]  # offset k: (T, F, D, D), between frame t and t + k
    border: Tensor  # (T, F, D, g): explicit border derivatives, pulled back to the features
    gradient: Tensor  # (T, F, D)


def assemble(linearisation: Linearisation) -> NormalEquations:
    """Gauss-Newton normal equations with IRLS weights. Linear in the number of frames."""
    sample = next(r.value for c in linearisation.chains for r in c.residuals)
    count = linearisation.border_count
    corner = sample.new_zeros(count, count)
    corner_gradient = sample.new_zeros(count)
    chains = []
    for chain in linearisation.chains:
        equations, own_corner, own_gradient = _assemble_chain(chain)
        columns = chain.border_columns
        corner[columns[:, None], columns[None, :]] += own_corner
        corner_gradient[columns] += own_gradient
        chains.append(equations)
    for residual in linearisation.border_residuals:
        assert residual.derivative is not None
        corner += residual.weight * residual.derivative.T @ residual.derivative
        corner_gradient += residual.weight * residual.derivative.T @ residual.value
    columns_of = [chain.border_columns for chain in linearisation.chains]
    return NormalEquations(chains, columns_of, corner, corner_gradient)


def _assemble_chain(chain: Chain) -> tuple[ChainEquations, Tensor, Tensor]:
    sample = chain.residuals[0].value
    frames, size, shared = chain.frame_count, chain.unknowns, len(chain.border_columns)
    band = [sample.new_zeros(frames, size, size) for _ in range(MAX_STENCIL)]
    equations = ChainEquations(
        band, sample.new_zeros(frames, size, shared), sample.new_zeros(frames, size)
    )
    corner, corner_gradient = sample.new_zeros(shared, shared), sample.new_zeros(shared)
    for name, group in chain.groups.items():
        residuals = [r for r in chain.residuals if r.group == name]
        if len(residuals) == 0:
            continue
        folded = _empty_fold(group, frames, shared, sample)
        for residual in residuals:
            _fold(residual, folded, corner, corner_gradient)
        if group.border is not None:
            _fold_feature_border(group, folded, corner, corner_gradient)
        if group.rows is None:
            _add_direct(group, folded, equations)
        else:
            _add_products(group, folded, equations)
    return equations, corner, corner_gradient


def _empty_fold(group: FeatureGroup, frames: int, shared: int, sample: Tensor) -> _Folded:
    count, dimension = group.feature_count, group.dimension
    return _Folded(
        [sample.new_zeros(frames, count, dimension, dimension) for _ in range(MAX_STENCIL)],
        sample.new_zeros(frames, count, dimension, shared),
        sample.new_zeros(frames, count, dimension),
    )


def _fold(residual: Residual, folded: _Folded, corner: Tensor, corner_gradient: Tensor) -> None:
    """Add one residual's J' W J and J' W r in feature space, and its explicit border part."""
    assert residual.derivative is not None
    squared = (residual.value**2).sum(dim=-1)
    weight = residual.weight * robust_weight(squared, residual.kernel)
    weight = torch.where(residual.weight > 0, weight, torch.zeros_like(weight))
    value = torch.where(weight[..., None] > 0, residual.value, torch.zeros_like(residual.value))
    weighted_value = weight[..., None] * value
    stencil, frames = residual.derivative.shape[0], residual.value.shape[0]
    elements = residual.elements
    explicit = residual.border_derivative
    for i in range(stencil):
        weighted = weight[..., None, None] * residual.derivative[i]  # (T, E, R, D)
        span = slice(i, frames)  # frames t + i that exist; weights beyond the end must be zero
        kept = slice(0, frames - i)
        pulled = torch.einsum("terd,ter->ted", residual.derivative[i], weighted_value)
        folded.gradient[span].index_add_(1, elements, pulled[kept])
        for j in range(i, stencil):
            product = torch.einsum("terd,terf->tedf", weighted, residual.derivative[j])
            folded.weights[j - i][span].index_add_(1, elements, product[kept])
        if explicit is not None:
            product = torch.einsum("terd,terg->tedg", weighted, explicit)
            folded.border[span].index_add_(1, elements, product[kept])
    if explicit is not None:
        flat = explicit.flatten(end_dim=2)
        weights = weight[..., None].expand_as(value).reshape(-1, 1)
        corner += flat.T @ (weights * flat)
        corner_gradient += flat.T @ weighted_value.reshape(-1)


def _fold_feature_border(
    group: FeatureGroup, folded: _Folded, corner: Tensor, corner_gradient: Tensor
) -> None:
    """Take the features' own dependence on the border into `folded.border` and the corner."""
    assert group.border is not None
    frames = len(group.border)
    own = group.border.reshape(frames, group.feature_count, group.dimension, -1)
    explicit = folded.border.clone()
    folded.border += folded.weights[0] @ own
    for k in range(1, MAX_STENCIL):
        weights = folded.weights[k][: frames - k]
        folded.border[: frames - k] += weights @ own[k:]
        folded.border[k:] += weights.transpose(-1, -2) @ own[: frames - k]
    flat = own.flatten(end_dim=2)
    corner += flat.T @ folded.border.flatten(end_dim=2)
    corner += explicit.flatten(end_dim=2).T @ flat
    corner_gradient += flat.T @ folded.gradient.reshape(-1)


def _add_direct(group: FeatureGroup, folded: _Folded, equations: ChainEquations) -> None:
    """Features that are unknowns themselves: weights go straight onto the blocks' diagonals."""
    count, dimension = group.feature_count, group.dimension
    for f in range(count):
        columns = slice(group.column + f * dimension, group.column + (f + 1) * dimension)
        for k in range(MAX_STENCIL):
            equations.band[k][:, columns, columns] += folded.weights[k][:, f]
    columns = slice(group.column, group.column + count * dimension)
    frames = len(folded.gradient)
    equations.gradient[:, columns] += folded.gradient.reshape(frames, -1)
    equations.border[:, columns] += folded.border.flatten(start_dim=1, end_dim=2)


def _add_products(group: FeatureGroup, folded: _Folded, equations: ChainEquations) -> None:
    """Features with a dense Jacobian: H_(t,t+k) += J_t' M_k J_(t+k), in pieces of frames."""
    assert group.rows is not None
    frames, height = len(folded.gradient), group.feature_count * group.dimension
    used = [k for k in range(MAX_STENCIL) if bool((folded.weights[k] != 0).any())]
    reach = max(used, default=0)
    for start in range(0, frames, CHUNK):
        stop = min(start + CHUNK, frames)
        rows = group.rows(start, min(stop + reach, frames))
        here = rows[: stop - start].transpose(-1, -2)
        for k in used:
            length = min(stop, frames - k) - start
            if length <= 0:
                continue
            weights = folded.weights[k][start : start + length]
            ahead = rows[k : k + length]
            split = ahead.reshape(length, group.feature_count, group.dimension, -1)
            product = (weights @ split).reshape(length, height, -1)
            equations.band[k][start : start + length] += here[:length] @ product
        gradient = folded.gradient[start:stop].reshape(-1, height, 1)
        equations.gradient[start:stop] += (here @ gradient)[..., 0]
        border = folded.border[start:stop].flatten(start_dim=1, end_dim=2)
        equations.border[start:stop] += here @ border
