"""`slamhmr bench convergence` on a tiny clip: one energy, exact gradients, an honest statement."""

import csv
from pathlib import Path

import pytest
import torch

from slamhmr.bench.convergence import (
    ConvergenceSpec,
    motion_problem,
    run,
    statement,
)
from slamhmr.bench.lbfgs import Increments, Trace, energy
from slamhmr.solve.problem import Step
from slamhmr.solve.sweep import Resources, energies_of


@pytest.fixture(scope="module")
def tiny():
    return motion_problem(ConvergenceSpec(frames=24))


def test_both_solvers_see_the_energy_of_the_solver(tiny):
    problem, start = tiny
    at_zero = Increments(problem, start)
    flat = torch.zeros(at_zero.count, dtype=torch.float64)
    ours = sum(energies_of(problem, start, Resources()).values())
    assert float(energy(problem, at_zero.state(flat))) == pytest.approx(ours, rel=1e-9)


def test_increments_move_the_scene_as_the_solver_does(tiny):
    problem, start = tiny
    generator = torch.Generator().manual_seed(5)
    sizes = [(c.frame_count, c.unknowns) for c in problem.chains]
    chains = [0.01 * torch.randn(*s, generator=generator, dtype=torch.float64) for s in sizes]
    border = 0.01 * torch.randn(problem.border_count, generator=generator, dtype=torch.float64)
    theirs = problem.retract(start, Step(chains, border))
    increments = Increments(problem, start)
    flat = torch.cat([*(chain.flatten() for chain in chains), border])
    ours = increments.state(torch.nn.functional.pad(flat, (0, increments.count - len(flat))))
    for one, other in zip(ours.people, theirs.people, strict=True):
        torch.testing.assert_close(one.rotations, other.rotations)
        torch.testing.assert_close(one.pelvis, other.pelvis)
        torch.testing.assert_close(one.betas, other.betas)
    torch.testing.assert_close(ours.log_scale, theirs.log_scale)


def test_the_gradient_is_that_of_the_energy(tiny):
    """Along a random direction, against central differences; no kernel has a kink just there."""
    problem, start = tiny
    increments = Increments(problem, start)
    generator = torch.Generator().manual_seed(3)
    middle = 1e-3 * torch.randn(increments.count, generator=generator, dtype=torch.float64)
    direction = torch.randn(increments.count, generator=generator, dtype=torch.float64)
    flat = middle.clone().requires_grad_(True)
    energy(problem, increments.state(flat)).backward()
    ahead, behind = (
        float(energy(problem, increments.state(middle + h * direction))) for h in (1e-6, -1e-6)
    )
    assert float(flat.grad @ direction) == pytest.approx((ahead - behind) / 2e-6, rel=1e-4)


def test_the_whole_comparison(tiny, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("slamhmr.bench.convergence.motion_problem", lambda spec: tiny)
    words = run(["frames=24", "times=2"], tmp_path)
    assert "our final energy" in words
    with (tmp_path / "convergence_summary.csv").open() as file:
        ours, theirs = csv.DictReader(file)
    assert float(ours["energy_start"]) == pytest.approx(float(theirs["energy_start"]), rel=1e-9)
    assert float(ours["energy_end"]) < float(ours["energy_start"])
    assert float(theirs["energy_end"]) < float(theirs["energy_start"])
    assert float(theirs["seconds"]) >= 2 * float(ours["seconds"])
    assert (tmp_path / "convergence.png").stat().st_size > 1000


def test_the_statement_can_be_against_us():
    ours, theirs = Trace("ours"), Trace("theirs")
    for trace, end in ((ours, 5.0), (theirs, 4.0)):
        trace.note(0.0, 10.0)
        trace.note(2.0, end)
    assert "does not hold" in statement(ours, theirs, 10.0)
    assert "after 1.0 times our time" in statement(ours, theirs, 10.0)
    assert statement(theirs, ours, 10.0).endswith("holds; L-BFGS never came so far")


def test_a_trace_never_rises():
    trace = Trace("one")
    for second, value in enumerate((9.0, 12.0, float("nan"), 7.0)):
        trace.note(float(second), value)
    assert trace.energies == [9.0, 9.0, 9.0, 7.0]
    assert trace.within(2.5) == 9.0
    assert trace.reaches(8.0) == 3.0
    assert trace.reaches(1.0) is None
