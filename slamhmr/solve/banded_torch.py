"""The block recursion of `banded.py` in batched torch: for GPUs, and the oracle of the LAPACK one.

Chains are stacked (padded to the longest with identity blocks), so one frame of every person is
eliminated by the same few kernels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve.assemble import NormalEquations
from slamhmr.solve.problem import Step


def solve_damped_torch(equations: NormalEquations, damping: float) -> Step:
    """Solve (H + damping diag(H)) dx = -gradient on the device of the equations.

    All chains must have the same number of unknowns per frame and of border columns.
    Raises torch.linalg.LinAlgError when a pivot block has no Cholesky factor.
    """
    frames = max(len(chain.gradient) for chain in equations.chains)
    band0, band1, band2, border, gradient = _stack(equations, frames)
    size = gradient.shape[-1]
    eye = torch.eye(size, dtype=gradient.dtype, device=gradient.device)
    padding = (band0.diagonal(dim1=-2, dim2=-1) == 0).all(dim=-1)
    band0 = band0 + padding[..., None, None] * eye
    band0 = band0 + damping * torch.diag_embed(band0.diagonal(dim1=-2, dim2=-1).clamp_min(1e-6))
    panels = torch.cat([band1, band2, border, gradient[..., None]], dim=-1)
    pivots = band0.clone()
    lowers = torch.empty_like(band0)
    for t in range(frames):
        lowers[:, t] = torch.linalg.cholesky(pivots[:, t])
        panel = torch.linalg.solve_triangular(lowers[:, t], panels[:, t], upper=False)
        panels[:, t] = panel
        update = panel.transpose(-1, -2) @ panel
        if t + 1 < frames:
            pivots[:, t + 1] -= update[:, :size, :size]
            panels[:, t + 1, :, :size] -= update[:, :size, size : 2 * size]
            panels[:, t + 1, :, 2 * size :] -= update[:, :size, 2 * size :]
        if t + 2 < frames:
            pivots[:, t + 2] -= update[:, size : 2 * size, size : 2 * size]
            panels[:, t + 2, :, 2 * size :] -= update[:, size : 2 * size, 2 * size :]
    shared = panels[..., 2 * size :]
    schur = torch.einsum("ptdm,ptdn->pmn", shared, shared)
    border_step = _solve_border(equations, schur, damping)
    steps = _back_substitute(equations, lowers, panels, border_step)
    return Step(steps, border_step)


def _stack(equations: NormalEquations, frames: int) -> tuple[Tensor, ...]:
    def padded(parts: list[Tensor]) -> Tensor:
        shape = (len(parts), frames, *parts[0].shape[1:])
        stacked = parts[0].new_zeros(shape)
        for index, part in enumerate(parts):
            stacked[index, : len(part)] = part
        return stacked

    chains = equations.chains
    bands = [padded([chain.band[k] for chain in chains]) for k in range(3)]
    return (*bands, padded([c.border for c in chains]), padded([c.gradient for c in chains]))


def _solve_border(
    equations: NormalEquations, schur: Float[Tensor, "P m m"], damping: float
) -> Float[Tensor, "G"]:
    corner = equations.corner.clone()
    corner += damping * torch.diag(equations.corner.diagonal().clamp_min(1e-6))
    gradient = equations.corner_gradient.clone()
    for own, columns in zip(schur, equations.border_columns, strict=True):
        corner[columns[:, None], columns[None, :]] -= own[:-1, :-1]
        gradient[columns] -= own[:-1, -1]
    if len(gradient) == 0:
        return gradient
    lower = torch.linalg.cholesky(corner)
    return -torch.cholesky_solve(gradient[:, None], lower)[:, 0]


def _back_substitute(
    equations: NormalEquations, lowers: Tensor, panels: Tensor, border: Float[Tensor, "G"]
) -> list[Tensor]:
    people, frames, size, _ = panels.shape
    own = torch.stack([border[columns] for columns in equations.border_columns])
    steps = panels.new_zeros(people, frames + 2, size)
    one = torch.ones_like(own[:, :1])
    for t in range(frames - 1, -1, -1):
        known = torch.cat([steps[:, t + 1], steps[:, t + 2], own, one], dim=-1)
        right = panels[:, t] @ known[..., None]
        solved = torch.linalg.solve_triangular(lowers[:, t].transpose(-1, -2), right, upper=True)
        steps[:, t] = -solved[..., 0]
    return [step[: len(c.gradient)] for step, c in zip(steps, equations.chains, strict=True)]
