"""L-BFGS on the energy of a stage: torch's, strong Wolfe, exact gradients by autograd."""

import dataclasses
import logging
import math
import time
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.scene import Scene, retract
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.problem import Step

LOG = logging.getLogger(__name__)
HISTORY = 100  # pairs that L-BFGS remembers: torch's default, which SLAHMR keeps
CHUNK = 20  # iterations between two looks at the clock; so many SLAHMR makes in one step


@dataclass
class Trace:
    """Wall seconds since the start and the least energy so far."""

    name: str
    seconds: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)

    def note(self, seconds: float, energy: float) -> None:
        """Append a point; energies that are not finite count as none."""
        least = self.energies[-1] if len(self.energies) > 0 else math.inf
        self.seconds.append(seconds)
        self.energies.append(min(least, energy) if math.isfinite(energy) else least)

    def within(self, seconds: float) -> float:
        """Least energy reached in that time."""
        return min(e for s, e in zip(self.seconds, self.energies, strict=True) if s <= seconds)

    def reaches(self, energy: float) -> float | None:
        """Seconds until the energy was at or below a value; None if it never was."""
        reached = (s for s, e in zip(self.seconds, self.energies, strict=True) if e <= energy)
        return next(reached, None)


def energy(problem: SceneProblem, state: Scene) -> Float[Tensor, ""]:
    """The energy of a state, differentiable, over the whole clip at once."""
    windows = (
        problem.window(state, index, 0, chain.frame_count, derivatives=False)
        for index, chain in enumerate(problem.chains)
    )
    parts = [part for window in windows for part in window.energies().values()]
    return torch.stack([*parts, *(r.energy() for r in problem.border(state))]).sum()


class Increments:
    """All unknowns as one flat vector of increments from a start; zero is the start itself."""

    def __init__(self, problem: SceneProblem, start: Scene) -> None:
        self.problem, self.start = problem, start
        self.shapes: list[tuple[int, ...]] = []
        self.shapes += [(c.frame_count, c.unknowns) for c in problem.chains]
        self.shapes += [(problem.border_count,)]
        if problem.layout.free.drift > 0:
            self.shapes += [tuple(start.jitter.shape)]
        self.count = sum(math.prod(shape) for shape in self.shapes)

    def state(self, flat: Float[Tensor, "U"]) -> Scene:
        """The start moved by increments."""
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = [p.reshape(s) for p, s in zip(torch.split(flat, sizes), self.shapes, strict=True)]
        chains = len(self.problem.chains)
        step = Step(parts[:chains], parts[chains])
        moved = retract(self.start, step, self.problem.layout, self.problem.evidence)
        if len(parts) > chains + 1:
            moved = dataclasses.replace(moved, jitter=moved.jitter + parts[-1])
        return moved


def run_lbfgs(problem: SceneProblem, start: Scene, seconds: float) -> Trace:
    """L-BFGS of torch until `seconds` are over; it ends sooner only when it no longer moves."""
    increments, trace = Increments(problem, start), Trace("L-BFGS")
    flat = torch.zeros(increments.count, dtype=start.log_scale.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [flat], max_iter=CHUNK, max_eval=100 * CHUNK, history_size=HISTORY, tolerance_grad=0.0,
        tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip
    began = time.perf_counter()

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = energy(problem, increments.state(flat))
        value.backward()  # type: ignore[no-untyped-call]
        trace.note(time.perf_counter() - began, value.item())
        return value

    while time.perf_counter() - began < seconds:
        before = flat.detach().clone()
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        if torch.equal(before, flat):
            LOG.info("L-BFGS no longer moves after %.1f s", time.perf_counter() - began)
            break
    return trace
