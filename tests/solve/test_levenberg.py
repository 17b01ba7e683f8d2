"""Every problem of the table ends at its known optimum; no step ever raises the energy."""

import math
from dataclasses import dataclass

import pytest
import roma
import torch

from slamhmr.solve.levenberg import Schedule, minimise
from slamhmr.solve.manifolds import compose_rotation, logarithm, right_jacobian_inverse
from slamhmr.solve.problem import ChainShape, FeatureGroup, Residual, Window
from slamhmr.solve.sweep import Resources

NO_COLUMNS = torch.zeros(0, dtype=torch.int64)
ONE = torch.zeros(1, dtype=torch.int64)


class OneChain:
    """A chain without a border whose features are its unknowns."""

    border_count = 0

    @property
    def chains(self):
        return [ChainShape(len(self.start), self.size, NO_COLUMNS)]

    def window(self, state, chain, start, stop, *, derivatives):
        residuals = self.residuals(state[start : stop + 2], start)
        return Window(start, stop, {"x": FeatureGroup(1, self.size)}, residuals)

    def border(self, state):
        return []


class Rosenbrock(OneChain):
    """(1 - a, 10 (b - a^2)): a curved valley; optimum (1, 1)."""

    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
    size = 2

    def residuals(self, state, first):
        a, b = state[0]
        value = torch.stack([1 - a, 10 * (b - a**2)])[None, None]
        zero = torch.zeros_like(a)
        rows = torch.stack([zero - 1, zero, -20 * a, zero + 10]).reshape(1, 1, 1, 2, 2)
        weight = torch.ones(1, 1, dtype=torch.float64)
        return [Residual("r", "x", ONE, value, weight, rows)]

    def retract(self, state, step):
        return state + step.chains[0]

    def distance(self, state):
        return float((state - 1.0).abs().max())


class Valley(OneChain):
    """Two unknowns tied to one another 250,000 times more than to their place, and noise.

    What the valley's floor has to give is less of the energy than what calls it converged.
    """

    start = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    size = 2

    def residuals(self, state, first):
        a, b = state[0]
        value = torch.stack([50 * (a - b), 0.1 * (a + b - 20), 100 + 0 * a])[None, None]
        rows = torch.tensor([[50.0, -50.0], [0.1, 0.1], [0.0, 0.0]], dtype=torch.float64)
        weight = torch.ones(1, 1, dtype=torch.float64)
        return [Residual("r", "x", ONE, value, weight, rows.reshape(1, 1, 1, 3, 2))]

    def retract(self, state, step):
        return state + step.chains[0]


@pytest.mark.parametrize("damping", [Schedule().damping, 1e-3, 1.0])
def test_a_flat_valley_is_followed_to_its_end_whatever_the_rest_of_the_energy(damping):
    problem = Valley()
    schedule = Schedule(relative_decrease=2e-3, damping=damping)
    end, summary = minimise(problem, problem.start, schedule)
    assert float((end - 10).abs().max()) < 0.2
    assert "the energy fell by less" in summary.stopped


@dataclass
class RotationSmoothing(OneChain):
    """Chain of rotations: robust measurements with gross outliers, neighbours alike."""

    frames: int = 40
    size = 3

    def __post_init__(self):
        generator = torch.Generator().manual_seed(0)
        time = torch.linspace(0, 1, self.frames, dtype=torch.float64)[:, None]
        axis = torch.tensor([0.3, 2.0, -0.5], dtype=torch.float64)
        self.truth = roma.rotvec_to_rotmat(time * axis)
        noise = 0.01 * torch.randn(self.frames, 3, generator=generator, dtype=torch.float64)
        noise[::9] += 1.5
        self.measured = self.truth @ roma.rotvec_to_rotmat(noise)
        self.start = self.measured.clone()

    def residuals(self, state, first):
        count = len(state)
        measured = self.measured[first : first + count]
        error = logarithm(measured.transpose(-1, -2) @ state)
        slope = right_jacobian_inverse(error)
        ones = torch.ones(count, 1, dtype=torch.float64)
        data = Residual("data", "x", ONE, error[:, None] / 0.02, ones,
                        slope[None, :, None] / 0.02, kernel=25.0)  # fmt: skip
        turn = torch.zeros(count, 3, dtype=torch.float64)
        turn[:-1] = logarithm(state[:-1].transpose(-1, -2) @ state[1:])
        ahead = right_jacobian_inverse(turn)
        rows = torch.stack([-ahead.transpose(-1, -2), ahead])[:, :, None] / 0.1
        weight = ones.clone()
        weight[-1] = 0
        smooth = Residual("smooth", "x", ONE, turn[:, None] / 0.1, weight, rows)
        return [data, smooth]

    def retract(self, state, step):
        return compose_rotation(state, step.chains[0])

    def distance(self, state):
        return 0.1 * float(logarithm(self.truth.transpose(-1, -2) @ state).norm(dim=-1).max())


@pytest.mark.parametrize("problem", [Rosenbrock(), RotationSmoothing()])
def test_reaches_the_known_optimum(problem):
    energies = []
    state, summary = minimise(
        problem,
        problem.start,
        Schedule(iterations=100, relative_decrease=1e-12),
        resources=Resources(threads=2, window=7),
        on_iteration=lambda now: energies.append(now.energy),
    )
    assert problem.distance(state) < 0.01
    assert summary.total_after < summary.total_before
    assert energies == sorted(energies, reverse=True)
    assert summary.iterations == len(energies)
    assert len(summary.stopped.split()) > 3


@pytest.mark.parametrize("problem", [Rosenbrock(), RotationSmoothing()])
def test_going_on_after_any_iteration_gives_the_same_digits(problem):
    """Whatever was reached holds all that decides how it goes on."""
    schedule = Schedule(iterations=40, relative_decrease=1e-6)
    given = {"resources": Resources(threads=1, window=7)}
    reached = []
    once, told = minimise(problem, problem.start, schedule, on_iteration=reached.append, **given)
    assert len(reached) == told.iterations > 3
    for now in reached:
        again, summary = minimise(problem, problem.start, schedule, reached=now, **given)
        assert torch.equal(again, once)
        assert summary == told


class Cliff(Rosenbrock):
    """Rosenbrock whose energy is not finite beyond a wall: such a step must be rejected."""

    def residuals(self, state, first):
        residuals = super().residuals(state, first)
        if float(state[0, 0]) > 0.5:
            residuals[0].value.fill_(math.nan)
        return residuals


def test_non_finite_energy_is_a_rejected_step():
    state, summary = minimise(Cliff(), Cliff.start, Schedule(iterations=60))
    assert float(state[0, 0]) <= 0.5
    assert summary.rejected > 0
    assert math.isfinite(summary.total_after)


def test_non_finite_start_is_an_error():
    with pytest.raises(ValueError, match="not finite"):
        minimise(Cliff(), torch.ones(1, 2, dtype=torch.float64), Schedule())


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.5, 2.0, 3.1])
def test_right_jacobian_inverse_against_differences(angle):
    axis = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
    rotvec = angle * axis
    rotation = roma.rotvec_to_rotmat(rotvec)
    slope = right_jacobian_inverse(rotvec)
    eps = 1e-6
    for i, unit in enumerate(torch.eye(3, dtype=torch.float64)):
        ahead = logarithm(compose_rotation(rotation, eps * unit))
        behind = logarithm(compose_rotation(rotation, -eps * unit))
        torch.testing.assert_close((ahead - behind) / (2 * eps), slope[:, i], rtol=1e-5, atol=1e-7)
