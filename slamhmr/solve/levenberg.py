"""Levenberg-Marquardt with gain-ratio damping; a step that raises the energy is never taken.

Damping after Nielsen 1999 (IMM-REP-1999-05, section 3), scaled by diag(H) as Marquardt does,
because the border's units (metres, log scale, betas) differ. Robust kernels by iteratively
reweighted least squares: Triggs' second-order correction was measured to be worse (46 instead of
26 iterations).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from slamhmr.solve.assemble import NormalEquations, assemble
from slamhmr.solve.banded import NotPositiveDefiniteError, solve_damped
from slamhmr.solve.banded_torch import solve_damped_torch
from slamhmr.solve.problem import Linearisation, Problem, Step

S = TypeVar("S")
log = logging.getLogger(__name__)
MAX_DAMPING = 1e10


@dataclass(frozen=True)
class Schedule:
    """When to stop."""

    iterations: int = 30
    relative_decrease: float = 3e-4  # twice in a row below this: converged
    step_norm: float = 1e-7
    damping: float = 1e-3  # first lambda, relative to diag(H)


@dataclass(frozen=True)
class Summary:
    """What happened."""

    iterations: int
    rejected: int
    stopped: str
    energy_before: dict[str, float]
    energy_after: dict[str, float]

    @property
    def total_before(self) -> float:
        """Energy at the start."""
        return sum(self.energy_before.values())

    @property
    def total_after(self) -> float:
        """Energy at the end; never above `total_before`."""
        return sum(self.energy_after.values())


def minimise(
    problem: Problem[S],
    state: S,
    schedule: Schedule,
    *,
    on_iteration: Callable[[int, float], None] | None = None,
) -> tuple[S, Summary]:
    """Minimise the problem's energy from `state`.

    Raises ValueError when the energy at the start is not finite.
    """
    linearisation = problem.linearise(state, derivatives=True)
    before = linearisation.energies()
    energy, energies = sum(before.values()), before
    if not math.isfinite(energy):
        raise ValueError(f"energy at the start is not finite: {before}")
    damping, growth, rejected, flat = schedule.damping, 2.0, 0, 0
    stopped = f"reached the limit of {schedule.iterations} iterations"
    iteration = 0
    while iteration < schedule.iterations:
        equations = assemble(linearisation)
        accepted = False
        while not accepted:
            step, predicted = _propose(equations, damping)
            trial = problem.retract(state, step) if step is not None else state
            trial_energies = _energies(problem, trial) if step is not None else {}
            trial_energy = sum(trial_energies.values()) if step is not None else math.inf
            if step is not None and trial_energy <= energy:
                accepted = True
                break
            rejected += 1
            damping, growth = damping * growth, growth * 2
            if damping > MAX_DAMPING:
                break
        if not accepted or step is None:
            stopped = "no step lowers the energy any more"
            break
        iteration += 1
        gain = (energy - trial_energy) / predicted if predicted > 0 else 1.0
        damping *= max(1.0 / 3.0, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3)
        damping, growth = max(damping, 1e-12), 2.0
        decrease = (energy - trial_energy) / max(energy, 1e-300)
        state, energy, energies = trial, trial_energy, trial_energies
        log.debug("iteration %d: energy %.6g, damping %.1e", iteration, energy, damping)
        if on_iteration is not None:
            on_iteration(iteration, energy)
        flat = flat + 1 if decrease < schedule.relative_decrease else 0
        if flat == 2:
            stopped = f"energy fell by less than {schedule.relative_decrease:g} twice"
            break
        if step.norm() < schedule.step_norm:
            stopped = f"largest increment below {schedule.step_norm:g}"
            break
        linearisation = problem.linearise(state, derivatives=True)
    return state, Summary(iteration, rejected, stopped, before, energies)


def _propose(equations: NormalEquations, damping: float) -> tuple[Step | None, float]:
    """The damped step, and the decrease its quadratic model predicts; None where there is none."""
    on_gpu = equations.corner.device.type != "cpu"
    try:
        step = (solve_damped_torch if on_gpu else solve_damped)(equations, damping)
    except (NotPositiveDefiniteError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        return None, 0.0
    if not math.isfinite(step.norm()):
        return None, 0.0
    predicted = 0.0
    for chain, moved in zip(equations.chains, step.chains, strict=True):
        diagonal = chain.band[0].diagonal(dim1=-2, dim2=-1).clamp_min(1e-6)
        predicted += float((moved * (damping * diagonal * moved - chain.gradient)).sum())
    diagonal = equations.corner.diagonal().clamp_min(1e-6)
    border = step.border
    predicted += float((border * (damping * diagonal * border - equations.corner_gradient)).sum())
    return step, 0.5 * predicted


def _energies(problem: Problem[S], state: S) -> dict[str, float]:
    linearisation: Linearisation = problem.linearise(state, derivatives=False)
    energies = linearisation.energies()
    if not all(math.isfinite(value) for value in energies.values()):
        return {"not finite": math.inf}
    return energies
