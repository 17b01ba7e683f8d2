"""Border columns that move all points of a frame as one body: scale, drift of the camera.

Their derivative is a twist per frame times a basis over time, so their products follow from the
sums over points that the chain needs anyway, whatever the number of columns.
"""

from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.articulated import Twists, carried
from slamhmr.solve.equations import Equations
from slamhmr.solve.problem import RigidBorder


def total_twist(found: Twists, values: Float[Tensor, "T F 3 m"]) -> Float[Tensor, "T 6 m"]:
    """Sum of A_f' V_f over all points."""
    return found.points.flatten(1, 2).mT @ values.flatten(1, 2)


def add_rigid(
    rigids: tuple[RigidBorder, ...],
    found: Twists,
    inertia: dict[int, Float[Tensor, "_ C 6 6"]],
    sums: Float[Tensor, "T 6 m"],
    equations: Equations,
) -> None:
    """Add all blocks of rigid columns, in place.

    `inertia` per frame offset and `sums` (gradient, then the border's dense columns) are those of
    the points that the columns move.
    """
    for rigid in rigids:
        columns, dense = rigid.columns, sums.shape[-1] - 1
        product = rigid.twist.mT @ sums  # (T, c, m)
        spread = (rigid.basis.T @ product.flatten(start_dim=1)).reshape(-1, dense + 1)
        equations.corner_gradient[columns] += spread[:, 0]
        equations.corner[columns, :dense] += spread[:, 1:]
        equations.corner[:dense, columns] += spread[:, 1:].T
    for offset, summed in inertia.items():
        _add_chain(rigids, found, offset, summed, equations)
        for rigid in rigids:
            for other in rigids:
                _add_pair(rigid, other, offset, summed, equations)


def _add_chain(
    rigids: tuple[RigidBorder, ...],
    found: Twists,
    offset: int,
    inertia: Tensor,
    equations: Equations,
) -> None:
    """Cross terms with the unknowns of the frames."""
    length = len(inertia)
    here, ahead = slice(0, length), slice(offset, offset + length)
    summed = carried(inertia.mT, found.span(0, length)).mT  # (n, d, 6)
    for rigid in rigids:
        _add_modes(equations, here, rigid, summed @ rigid.twist[ahead], ahead)
    if offset > 0:
        summed = carried(inertia, found.span(offset, length)).mT
        for rigid in rigids:
            _add_modes(equations, ahead, rigid, summed @ rigid.twist[here], here)


def _add_modes(
    equations: Equations, frames: slice, rigid: RigidBorder, moved: Tensor, at: slice
) -> None:
    modes = rigid.basis[at][:, None, :, None] * moved[:, :, None]  # (n, d, k, c)
    equations.border[frames, :, rigid.columns] += modes.flatten(start_dim=2)


def _add_pair(
    first: RigidBorder, second: RigidBorder, offset: int, inertia: Tensor, equations: Equations
) -> None:
    """Terms among rigid columns."""
    length = len(inertia)
    ahead = slice(offset, offset + length)
    product = first.twist[:length].mT @ inertia[:, 0] @ second.twist[ahead]  # (n, c, c')
    modes = first.basis[:length, :, None] * second.basis[ahead, None, :]  # (n, k, k')
    spread = modes.flatten(start_dim=1).T @ product.flatten(start_dim=1)
    sizes = (modes.shape[1], modes.shape[2], product.shape[1], product.shape[2])
    block = spread.reshape(sizes).permute(0, 2, 1, 3)  # (k, c, k', c')
    block = block.reshape(sizes[0] * sizes[2], -1)
    equations.corner[first.columns, second.columns] += block
    if offset > 0:
        equations.corner[second.columns, first.columns] += block.T
