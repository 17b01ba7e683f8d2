"""One pass over a problem: linearise window by window, eliminate, solve, substitute back.

Every chain is eliminated from both ends towards its middle, so two halves of time (and all
people) run side by side in threads. Equations never exist as a whole: a window of frames is
linearised, assembled, eliminated and forgotten. Its factor is kept while `Resources.frames` allow
it and made again on the way back otherwise: the same numbers whatever the memory, so a clip of
any length has one scale, one floor, one shape, and no seams.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.solve import cyclic
from slamhmr.solve.assemble import assemble
from slamhmr.solve.banded import (
    FLOOR,
    Band,
    Factor,
    Front,
    NotPositiveDefiniteError,
    back_substitute,
    eliminate,
    swap_frames,
)
from slamhmr.solve.equations import Equations
from slamhmr.solve.problem import MAX_STENCIL, REACH, ChainShape, Problem, Step

S = TypeVar("S")
A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True)
class Resources:
    """How much of the machine a pass may use."""

    threads: int = 1
    window: int = 200  # frames that are linearised at once: larger ones lose to page faults
    frames: int = 10_000  # frames, of all chains, whose factors are kept: about 0.15 MB each
    together: bool = False  # everybody's frames in one batch (`solve.cyclic`): for GPUs
    device: str = "cpu"  # where the numbers are


@dataclass(frozen=True)
class Lane:
    """One half of one chain: windows of frames in the order of elimination."""

    chain: int
    backward: bool
    windows: list[tuple[int, int]]  # [start, stop) of the residuals' first frames


@dataclass
class Eliminated:
    """What a lane leaves: a front, and what it takes to go back; of a whole chain, its sums."""

    lane: Lane
    fronts: list[Front]  # before every window
    factors: list[Factor | None]  # None: made again when needed
    front: Front
    diagonal: Float[Tensor, "T d"]  # of H, this lane's part
    gradient: Float[Tensor, "T d"]
    corner: Float[Tensor, "g g"]
    corner_gradient: Float[Tensor, "g"]

    def add(self, equations: Equations) -> None:
        """Sum up what is needed of a window's equations beside its factor."""
        touched = slice(equations.start, equations.start + len(equations.gradient))
        self.diagonal[touched] += equations.band[0].diagonal(dim1=-2, dim2=-1)
        self.gradient[touched] += equations.gradient
        self.corner += equations.corner
        self.corner_gradient += equations.corner_gradient


@dataclass(frozen=True)
class Solved:
    """The damped step of a pass and the decrease its quadratic model predicts."""

    step: Step
    predicted: float


def middle_of(frames: int) -> int:
    """First of the two frames at which both halves of a chain meet."""
    return max((frames - REACH) // 2, 0)


def lanes_of(shapes: Iterable[ChainShape], window: int) -> list[Lane]:
    """Both halves of every chain, longest first; only a lane's first window may be short."""
    lanes = []
    for index, shape in enumerate(shapes):
        middle = middle_of(shape.frame_count)
        last = shape.frame_count
        ahead = [(max(b - window, 0), b) for b in range(middle, 0, -window)][::-1]
        starts = [*range(middle, last, window)]
        if len(starts) > 1 and last - starts[-1] < REACH:  # too short to stand alone
            starts.pop()
        behind = [*zip(starts, [*starts[1:], last], strict=True)][::-1]
        lanes += [Lane(index, False, ahead), Lane(index, True, behind)]
    return sorted(lanes, key=lambda lane: -sum(b - a for a, b in lane.windows))


def in_threads(work: Callable[[A], R], items: list[A], threads: int) -> list[R]:
    """`work` on every item, in order; torch keeps to one thread in each."""
    if threads <= 1 or len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(work, items))


def band_of(equations: Equations, damping: float, *, backward: bool) -> Band:
    """A window's equations in the order of elimination, damped by a share of diag(H)."""
    diagonal = equations.band[0]
    if damping > 0:
        diagonal = diagonal.clone()
        diagonal.diagonal(dim1=-2, dim2=-1).mul_(1.0 + damping)
    shared = torch.cat([equations.border, equations.gradient[..., None]], dim=-1)
    band = Band(diagonal, equations.band[1], equations.band[2], shared)
    return band.reversed() if backward else band


class Sweep(Generic[S]):
    """A problem at a state, damped and eliminated down to its border.

    `floor`: information added to every unknown of the frames, for those that nothing speaks of.
    Raises NotPositiveDefiniteError where there is no factor.
    """

    def __init__(
        self,
        problem: Problem[S],
        state: S,
        damping: float,
        resources: Resources,
        *,
        floor: float = 0.0,
    ) -> None:
        self.problem, self.state = problem, state
        self.floor = damping * FLOOR + floor
        self.damping, self.resources = damping, resources
        self.shapes, self.border_terms = problem.chains, problem.border(state)
        self.reduction: cyclic.Reduction | None = None
        if resources.together:
            self._eliminate_together()
            return
        lanes = lanes_of(self.shapes, resources.window)
        kept = resources.frames // (len(lanes) * resources.window)
        self.eliminated = in_threads(
            lambda lane: self._eliminate_lane(lane, kept), lanes, resources.threads
        )
        self.middles = [self._meet(index, shape) for index, shape in enumerate(self.shapes)]
        self._reduce_border()

    def linearise(self, lane: Lane, index: int) -> Equations:
        """The equations of one window of a lane."""
        start, stop = lane.windows[index]
        window = self.problem.window(self.state, lane.chain, start, stop, derivatives=True)
        return assemble(window, self.shapes[lane.chain])

    def factor(self, lane: Lane, index: int, front: Front) -> tuple[Factor, Front, Equations]:
        """Linearise and eliminate one window of a lane."""
        equations = self.linearise(lane, index)
        band = band_of(equations, self.damping, backward=lane.backward)
        count = max(band.diagonal.shape[-3] - REACH, 0)
        factor, left = eliminate(band, front, count, self.floor)
        return factor, left, equations

    def _eliminate_together(self) -> None:
        """Everybody's equations in one batch of pairs of frames, reduced to the border.

        Chains are as long as the longest, with frames at their ends that touch nothing.
        """
        widest, chains = max(shape.frame_count for shape in self.shapes), len(self.shapes)
        self.eliminated = [self._empty(Lane(chain, False, [])) for chain in range(chains)]
        size, width = self.shapes[0].unknowns, len(self.shapes[0].border_columns) + 1
        frames = widest + widest % cyclic.PAIR
        sample = self.eliminated[0].gradient
        band = [sample.new_zeros(chains, frames, size, size) for _ in range(MAX_STENCIL)]
        shared = sample.new_zeros(chains, frames, size, width)
        for chain, each in enumerate(self.eliminated):
            last = self.shapes[chain].frame_count
            lane = Lane(chain, False, [
                (start, min(start + self.resources.window, last))
                for start in range(0, last, self.resources.window)
            ])  # fmt: skip
            for index in range(len(lane.windows)):
                equations = self.linearise(lane, index)
                each.add(equations)
                touched = slice(equations.start, equations.start + len(equations.gradient))
                for offset, whole in enumerate(band):
                    kept = slice(touched.start, max(touched.stop - offset, touched.start))
                    whole[chain, kept] += equations.band[offset][: kept.stop - kept.start]
                shared[chain, touched, :, :-1] += equations.border
            shared[chain, :last, :, -1] = each.gradient
            band[0][chain, last:].diagonal(dim1=-2, dim2=-1).fill_(1.0)
        band[0].diagonal(dim1=-2, dim2=-1).mul_(1.0 + self.damping).add_(self.floor)
        blocks = cyclic.blocks_of(band, shared)
        del band, shared
        self.reduction = cyclic.reduce(blocks)
        one = self.reduction
        self.middles = [
            Middle(*parts) for parts in zip(one.lower, one.panel, one.schur, strict=True)
        ]
        self._reduce_border()

    def _empty(self, lane: Lane) -> Eliminated:
        shape, border = self.shapes[lane.chain], self.border_terms
        there = torch.zeros((), dtype=torch.float64, device=self.resources.device)
        sample = border[0].value if len(border) > 0 else there
        shared = len(shape.border_columns)
        width = REACH * shape.unknowns + shared + 1
        return Eliminated(
            lane, [], [], sample.new_zeros(width, width),
            sample.new_zeros(shape.frame_count, shape.unknowns),
            sample.new_zeros(shape.frame_count, shape.unknowns),
            sample.new_zeros(shared, shared), sample.new_zeros(shared),
        )  # fmt: skip

    def _eliminate_lane(self, lane: Lane, kept: int) -> Eliminated:
        found = self._empty(lane)
        front = found.front
        for index in range(len(lane.windows)):
            found.fronts.append(front)
            factor, front, equations = self.factor(lane, index, front)
            found.factors.append(factor if index >= len(lane.windows) - kept else None)
            found.add(equations)
        found.front = front
        return found

    def halves(self, chain: int) -> list[Eliminated]:
        """What the two lanes of a chain left: forward, backward; in a batch, there is one."""
        found = [e for e in self.eliminated if e.lane.chain == chain]
        return sorted(found, key=lambda e: e.lane.backward)

    def _meet(self, chain: int, shape: ChainShape) -> "Middle":
        ahead, behind = self.halves(chain)
        size = shape.unknowns
        front = ahead.front + swap_frames(behind.front, size)
        frames = slice(0, REACH * size)
        block = front[frames, frames].clone()
        block.diagonal().add_(self.floor)
        if shape.frame_count < REACH:  # the first of two places is empty
            block[:size, :size] = torch.eye(size, dtype=block.dtype, device=block.device)
        lower = _cholesky(block, "the middle of a clip")
        panel = torch.linalg.solve_triangular(lower, front[frames, REACH * size :], upper=False)
        schur = front[REACH * size :, REACH * size :] - panel.T @ panel
        return Middle(lower, panel, schur)

    def _reduce_border(self) -> None:
        sample, count = self.eliminated[0].gradient, self.problem.border_count
        corner, gradient = sample.new_zeros(count, count), sample.new_zeros(count)
        for found in self.eliminated:
            columns = self.shapes[found.lane.chain].border_columns
            corner[columns[:, None], columns[None, :]] += found.corner
            gradient[columns] += found.corner_gradient
        for residual in self.border_terms:
            if residual.derivative is not None:
                corner += residual.weight * residual.derivative.T @ residual.derivative
                gradient += residual.weight * residual.derivative.T @ residual.value
        self.corner_diagonal, self.corner_gradient = corner.diagonal().clone(), gradient.clone()
        corner.diagonal().add_(self.damping * (self.corner_diagonal + FLOOR))
        for middle, shape in zip(self.middles, self.shapes, strict=True):
            columns = shape.border_columns
            corner[columns[:, None], columns[None, :]] += middle.schur[:-1, :-1]
            gradient[columns] += middle.schur[:-1, -1]
        self.border_gradient = gradient
        self.border_factor = _cholesky(corner, "the border") if count > 0 else corner

    def solve(self) -> Solved:
        """The step of (H + damping diag(H)) dx = -gradient."""
        border = self.border_gradient
        if len(border) > 0:
            border = -torch.cholesky_solve(border[:, None], self.border_factor)[:, 0]
        moved = self._back_together(border) if self.reduction else self._back_in_threads(border)
        whole = Step(moved, border)
        return Solved(whole, self._predicted(whole))

    def _back_together(self, border: Tensor) -> list[Tensor]:
        """Increments of every chain's frames from those of the border, in one batch."""
        assert self.reduction is not None
        columns = torch.stack([shape.border_columns for shape in self.shapes])
        own = torch.nn.functional.pad(border[columns], (0, 1), value=1.0)
        found = cyclic.back_substitute(self.reduction, own)
        found = found.reshape(len(found), -1, self.shapes[0].unknowns)
        return [step[: shape.frame_count] for step, shape in zip(found, self.shapes, strict=True)]

    def _back_in_threads(self, border: Tensor) -> list[Tensor]:
        """The same, lane by lane."""
        steps = []
        for chain, (middle, shape) in enumerate(zip(self.middles, self.shapes, strict=True)):
            own = torch.cat([border[shape.border_columns], border.new_ones(1)])
            right = middle.panel @ own
            upper = middle.lower.T
            met = -torch.linalg.solve_triangular(upper, right[:, None], upper=True)[:, 0]
            step = border.new_zeros(shape.frame_count, shape.unknowns)
            first = middle_of(shape.frame_count)
            step[first : first + REACH] = met.reshape(REACH, -1)[-shape.frame_count :]
            steps.append((chain, step, met, own))
        jobs = [
            (found, step, met, own)
            for chain, step, met, own in steps
            for found in self.halves(chain)
        ]
        in_threads(lambda job: self._go_back(*job), jobs, self.resources.threads)
        return [own for _, own, _, _ in steps]

    def _go_back(self, found: Eliminated, step: Tensor, met: Tensor, own: Tensor) -> None:
        """Write the increments of one lane into `step`, from the middle outwards."""
        frames = met.reshape(REACH, -1)
        known = torch.cat([*(frames.flip(0) if found.lane.backward else frames), own])
        for index, factor in self.back(found):
            part, known = back_substitute(factor, known)
            step[self.frames_of(found.lane, index, len(part))] = (
                part.flip(0) if found.lane.backward else part
            )

    def back(self, found: Eliminated) -> Iterator[tuple[int, Factor]]:
        """Windows of a lane and their factors, last eliminated first; made again if not kept."""
        for index in range(len(found.lane.windows) - 1, -1, -1):
            factor = found.factors[index]
            if factor is None:
                factor, _, _ = self.factor(found.lane, index, found.fronts[index])
            yield index, factor

    def frames_of(self, lane: Lane, index: int, count: int) -> slice:
        """The frames that a window of a lane eliminated, in ascending order."""
        start, _ = lane.windows[index]
        first = start + REACH if lane.backward else start
        return slice(first, first + count)

    def _predicted(self, step: Step) -> float:
        """Decrease of the undamped quadratic model: 1/2 dx' (damping D dx - g)."""
        total = step.border.new_zeros(())
        for chain, moved in enumerate(step.chains):
            halves = self.halves(chain)
            diagonal = torch.stack([half.diagonal for half in halves]).sum(dim=0)
            gradient = torch.stack([half.gradient for half in halves]).sum(dim=0)
            scaled = self.damping * (diagonal + FLOOR) * moved
            total = total + (moved * (scaled - gradient)).sum()
        border = step.border
        scaled = self.damping * (self.corner_diagonal + FLOOR) * border
        return 0.5 * float(total + (border * (scaled - self.corner_gradient)).sum())


@dataclass(frozen=True)
class Middle:
    """Where the halves of a chain meet: two frames, and what is left on the border."""

    lower: Float[Tensor, "D D"]  # D = 2 d
    panel: Float[Tensor, "D m"]
    schur: Float[Tensor, "m m"]


def _cholesky(matrix: Tensor, name: str) -> Tensor:
    lower, info = torch.linalg.cholesky_ex(matrix)
    if int(info) != 0:
        raise NotPositiveDefiniteError(name)
    return lower


def energies_of(problem: Problem[S], state: S, resources: Resources) -> dict[str, float]:
    """Energy of every term at a state; {"not finite": inf} where any is not finite."""
    jobs = [
        (chain, start, min(start + resources.window, shape.frame_count))
        for chain, shape in enumerate(problem.chains)
        for start in range(0, shape.frame_count, resources.window)
    ]

    def of_window(job: tuple[int, int, int]) -> dict[str, Tensor]:
        return problem.window(state, *job, derivatives=False).energies()

    parts = in_threads(of_window, jobs, resources.threads)
    parts += [{r.name: r.energy()} for r in problem.border(state)]
    named = [pair for part in parts for pair in part.items()]
    found = torch.stack([energy for _, energy in named]).tolist()  # all at once: one wait for a GPU
    total: dict[str, float] = {}
    for (name, _), energy in zip(named, found, strict=True):
        total[name] = total.get(name, 0.0) + energy
    if not all(math.isfinite(energy) for energy in total.values()):
        return {"not finite": math.inf}
    return total
