"""Normal equations of one window of frames: block band, border, gradient.

Per feature group the residuals are first folded into feature space (3x3-sized weights per feature
and frame offset), then taken to the unknowns: directly where features are unknowns, by the closed
form of `articulated.py` where they are points on a tree of joints.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.articulated import (
    Twists,
    inertias,
    isotropic_inertias,
    quadratic_product,
    stretch,
    summed_twists,
    transposed_product,
    twists,
)
from slamhmr.solve.equations import Equations
from slamhmr.solve.problem import (
    MAX_STENCIL,
    ChainShape,
    FeatureGroup,
    Residual,
    Window,
    robust_weight,
)
from slamhmr.solve.rigid import add_rigid, total_twist


@dataclass
class _Folded:
    """Sums over residuals in the space of one group's features."""

    full: dict[int, Tensor]  # offset k: (n, F, D, D), between frame t and t + k
    scalar: dict[int, Tensor]  # offset k: (n, F), multiples of the identity that come on top
    border: Tensor  # (n, F, D, c): derivatives by the border, pulled back to the features
    gradient: Tensor  # (n, F, D)
    local: Tensor  # (n, F, D, l)
    pull: Tensor  # (n, F, D): the gradient of residuals on one frame, whole in one window

    @property
    def offsets(self) -> list[int]:
        """Offsets that hold anything and fit into the window."""
        return sorted(k for k in {*self.full, *self.scalar} if k < len(self.gradient))

    def general(self, offset: int) -> Tensor:
        """Weights of an offset, made at first use."""
        if offset not in self.full:
            frames, count, dimension = self.gradient.shape
            self.full[offset] = self.gradient.new_zeros(frames, count, dimension, dimension)
        return self.full[offset]

    def isotropic(self, offset: int) -> Tensor:
        """Scalar weights of an offset, made at first use."""
        if offset not in self.scalar:
            self.scalar[offset] = torch.zeros_like(self.gradient[..., 0])
        return self.scalar[offset]

    def weighted(self, offset: int, values: Tensor, first: int, other: int) -> Tensor:
        """M V from frame `first` on, V on the frames from `other` on; one of the two is 0."""
        length = len(self.gradient) - offset
        part, total = values[other : other + length], None
        if offset in self.full:
            weights = self.full[offset][:length]
            total = (weights if first == 0 else weights.mT) @ part
        if offset in self.scalar:
            scaled = self.scalar[offset][:length, :, None, None] * part
            total = scaled if total is None else total + scaled
        assert total is not None
        return total


def assemble(window: Window, shape: ChainShape, *, second_order: bool = True) -> Equations:
    """Normal equations with IRLS weights, linear in the number of frames.

    Gauss-Newton's, with the positive part of the rotations' own curvature (`articulated.stretch`)
    where `second_order` says so.
    """
    sample = window.residuals[0].value
    frames, size, shared = len(sample), shape.unknowns, len(shape.border_columns)
    equations = Equations(
        window.start,
        window.count,
        [sample.new_zeros(frames, size, size) for _ in range(MAX_STENCIL)],
        sample.new_zeros(frames, size, shared),
        sample.new_zeros(frames, size),
        sample.new_zeros(shared, shared),
        sample.new_zeros(shared),
    )
    eliminated, dense = _Local(window, equations), _dense_columns(window, shared)
    ridden: list[tuple[FeatureGroup, _Folded]] = []
    for name, group in window.groups.items():
        residuals = [r for r in window.residuals if r.group == name]
        if len(residuals) == 0:
            continue
        direct = group.articulation is None and group.border is not None
        width = shared if direct else dense
        folded = _empty_fold(group, frames, width, eliminated.width, sample)
        for residual in residuals:
            _fold(residual, window.count, folded, equations, eliminated)
        if group.border is not None:
            _fold_feature_border(group, folded, equations, eliminated)
        if group.articulation is None:
            _add_direct(group, folded, equations)
        else:
            ridden.append((group, folded))
    _add_articulated(ridden, equations, eliminated)
    if second_order and len(ridden) > 0:
        _add_stretch(ridden, equations)
    eliminated.take_off()
    return equations


def _dense_columns(window: Window, shared: int) -> int:
    """Border columns before those of rigid motions that come last."""
    places = {r.columns.stop: r.columns.start for g in window.groups.values() for r in g.rigid}
    while places.get(shared, 0) > 0:
        shared = places[shared]
    return shared


class _Local:
    """Cross terms with the frames' own eliminated unknowns, and their Schur complement."""

    def __init__(self, window: Window, equations: Equations) -> None:
        self.equations = equations
        self.information = window.local
        self.width = 0 if window.local is None else window.local.shape[-1]
        frames, size, shared = equations.border.shape
        self.chain = equations.border.new_zeros(frames, size, self.width)
        self.border = equations.border.new_zeros(frames, self.width, shared)

    def take_off(self) -> None:
        """H -= H_l H_ll^-1 H_l' on the frames of this window; the gradient needs none of it."""
        if self.information is None:
            return
        count = self.equations.count
        factor = torch.linalg.cholesky(self.information[:count])
        chain = torch.linalg.solve_triangular(factor, self.chain[:count].mT, upper=False)
        border = torch.linalg.solve_triangular(factor, self.border[:count], upper=False)
        self.equations.band[0][:count] -= chain.mT @ chain
        self.equations.border[:count] -= chain.mT @ border
        flat = border.flatten(end_dim=1)
        self.equations.corner.sub_(flat.T @ flat)


def _empty_fold(
    group: FeatureGroup, frames: int, dense: int, local: int, sample: Tensor
) -> _Folded:
    count, dimension = group.feature_count, group.dimension
    return _Folded(
        {},
        {},
        sample.new_zeros(frames, count, dimension, dense),
        sample.new_zeros(frames, count, dimension),
        sample.new_zeros(frames, count, dimension, local),
        sample.new_zeros(frames, count, dimension),
    )


def _fold(
    residual: Residual, count: int, folded: _Folded, equations: Equations, eliminated: _Local
) -> None:
    """Add one residual's J' W J and J' W r in feature space, and its explicit border part."""
    weight, weighted_value = irls(residual, count)
    if residual.isotropic is not None:
        _fold_isotropic(residual, weight, weighted_value, folded)
    else:
        _fold_general(residual, weight, weighted_value, folded)
    explicit, columns = residual.border_derivative, residual.border_slice
    if explicit is None or columns is None:
        return
    flat = explicit.flatten(end_dim=2)
    weights = weight[..., None].expand_as(residual.value).reshape(-1, 1)
    equations.corner[columns, columns] += flat.T @ (weights * flat)
    equations.corner_gradient[columns] += flat.T @ weighted_value.reshape(-1)
    if residual.local is not None:
        weighted = weight[..., None, None] * residual.local
        eliminated.border[..., columns] += torch.einsum("terl,terg->tlg", weighted, explicit)


def _fold_general(
    residual: Residual, weight: Tensor, weighted_value: Tensor, folded: _Folded
) -> None:
    """Products in the precision of the derivative; their sums, and gradients, in the value's."""
    derivative, elements = residual.derivative, residual.elements
    assert derivative is not None
    frames = len(residual.value)
    explicit, columns = residual.border_derivative, residual.border_slice
    weight = weight.to(derivative)
    for i in range(len(derivative)):
        span, kept = slice(i, frames), slice(0, frames - i)  # frames t + i that exist
        weighted = weight[..., None, None] * derivative[i]  # (n, E, R, D)
        pulled = (weighted_value[..., None, :] @ derivative[i].to(weighted_value))[..., 0, :]
        folded.gradient[span].index_add_(1, elements, pulled[kept])
        if len(derivative) == 1:
            folded.pull.index_add_(1, elements, pulled)
        for j in range(i, len(derivative)):
            product = (weighted.mT @ derivative[j]).to(residual.value)
            folded.general(j - i)[span].index_add_(1, elements, product[kept])
        if explicit is not None and columns is not None:
            product = (weighted.mT @ explicit.to(weighted)).to(explicit)
            folded.border[span][..., columns].index_add_(1, elements, product[kept])
        if residual.local is not None:
            product = (weighted.mT @ residual.local.to(weighted)).to(residual.local)
            folded.local[span].index_add_(1, elements, product[kept])


def _fold_isotropic(
    residual: Residual, weight: Tensor, weighted_value: Tensor, folded: _Folded
) -> None:
    isotropic, elements = residual.isotropic, residual.elements
    assert isotropic is not None
    frames = len(residual.value)
    explicit, columns = residual.border_derivative, residual.border_slice
    for i in range(len(isotropic)):
        span, kept = slice(i, frames), slice(0, frames - i)
        weighted = weight * isotropic[i]
        pulled = weighted_value * isotropic[i][..., None]
        folded.gradient[span].index_add_(1, elements, pulled[kept])
        for j in range(i, len(isotropic)):
            product = weighted * isotropic[j]
            folded.isotropic(j - i)[span].index_add_(1, elements, product[kept])
        if explicit is not None and columns is not None:
            product = weighted[..., None, None] * explicit
            folded.border[span][..., columns].index_add_(1, elements, product[kept])


def irls(residual: Residual, count: int) -> tuple[Float[Tensor, "n E"], Float[Tensor, "n E R"]]:
    """Weight of every element and weight times value; zero in frames of the next window."""
    present = residual.weight > 0
    present[count:] = False
    value = torch.where(present[..., None], residual.value, 0.0)
    squared = (value**2).sum(dim=-1)
    weight = torch.where(present, residual.weight * robust_weight(squared, residual.kernel), 0.0)
    return weight, weight[..., None] * value


def _fold_feature_border(
    group: FeatureGroup, folded: _Folded, equations: Equations, eliminated: _Local
) -> None:
    """Take the features' own dependence on the border into `folded.border` and the corner."""
    columns = group.border_slice
    assert group.border is not None
    assert columns is not None
    frames, width = len(group.border), folded.border.shape[-1]
    own = group.border.reshape(frames, group.feature_count, group.dimension, -1)
    flat = own.flatten(end_dim=2)
    explicit = flat.T @ folded.border.flatten(end_dim=2)
    for k in folded.offsets:
        folded.border[: frames - k, ..., columns] += folded.weighted(k, own, 0, k)
        if k > 0:
            folded.border[k:, ..., columns] += folded.weighted(k, own, k, 0)
    equations.corner[columns, :width] += flat.T @ folded.border.flatten(end_dim=2)
    equations.corner[:width, columns] += explicit.T
    equations.corner_gradient[columns] += flat.T @ folded.gradient.reshape(-1)
    if eliminated.width > 0:
        local = torch.einsum("tfdl,tfdg->tlg", folded.local, own)
        eliminated.border[..., columns] += local


def _add_direct(group: FeatureGroup, folded: _Folded, equations: Equations) -> None:
    """Features that are unknowns themselves: weights go straight onto the blocks' diagonals."""
    count, dimension = group.feature_count, group.dimension
    columns = slice(group.column, group.column + count * dimension)
    frames, width = len(folded.gradient), folded.border.shape[-1]
    assert len(folded.scalar) == 0
    for k, weights in folded.full.items():
        block = equations.band[k][:, columns, columns]
        split = block.view(frames, count, dimension, count, dimension)
        diagonal = split.diagonal(dim1=1, dim2=3)  # (n, D, D, F)
        diagonal += weights.permute(0, 2, 3, 1)
    equations.gradient[:, columns] += folded.gradient.reshape(frames, -1)
    equations.border[:, columns, :width] += folded.border.flatten(start_dim=1, end_dim=2)


def _add_articulated(
    ridden: list[tuple[FeatureGroup, _Folded]], equations: Equations, eliminated: _Local
) -> None:
    """Points on a tree of joints; groups on the same points share all products."""
    if len(ridden) == 0:
        return
    articulation = ridden[0][0].articulation
    assert articulation is not None
    assert all(group.articulation is articulation for group, _ in ridden)
    found = twists(articulation)
    inertia: dict[int, Tensor] = {}
    for group, folded in ridden:
        own = {k: _inertia(found, folded, k) for k in folded.offsets}
        for k, part in own.items():
            inertia[k] = inertia[k] + part if k in inertia else part
        if len(group.rigid) > 0:
            sums = total_twist(found, torch.cat([folded.gradient[..., None], folded.border], -1))
            add_rigid(group.rigid, found, own, sums, equations)
    for k, summed in inertia.items():
        here, there = found.span(0, len(summed)), found.span(k, len(summed))
        product = quadratic_product(here, there, summed, same_frame=k == 0)
        equations.band[k][: len(summed)] += product
    values = torch.cat(
        [
            _total([folded.gradient for _, folded in ridden])[..., None],
            _total([folded.border for _, folded in ridden]),
            _total([folded.local for _, folded in ridden]),
        ],
        dim=-1,
    )
    product = transposed_product(found, summed_twists(found, values))
    width = ridden[0][1].border.shape[-1]
    equations.gradient.add_(product[..., 0])
    equations.border[..., :width] += product[..., 1 : 1 + width]
    eliminated.chain += product[..., 1 + width :]


def _add_stretch(ridden: list[tuple[FeatureGroup, _Folded]], equations: Equations) -> None:
    articulation = ridden[0][0].articulation
    assert articulation is not None
    curvature = stretch(articulation, _total([folded.pull for _, folded in ridden]))
    frames, joints = curvature.shape[:2]
    block = equations.band[0][:, 3 : 3 + 3 * joints, 3 : 3 + 3 * joints]
    diagonal = block.view(frames, joints, 3, joints, 3).diagonal(dim1=1, dim2=3)
    diagonal += curvature.permute(0, 2, 3, 1)


def _inertia(found: Twists, folded: _Folded, offset: int) -> Tensor:
    """Sums over points of one group's weights, as `articulated.inertias`."""
    length = len(folded.gradient) - offset
    here, there = found.span(0, length), found.span(offset, length)
    total = None
    if offset in folded.scalar:
        total = isotropic_inertias(here, there, folded.scalar[offset][:length])
    if offset in folded.full:
        full = inertias(here, there, folded.full[offset][:length])
        total = full if total is None else total + full
    assert total is not None
    return total


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
