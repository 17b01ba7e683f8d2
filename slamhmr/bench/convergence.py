"""`slamhmr bench convergence`: our solver and L-BFGS on the same energy from the same start.

The energy is the last annealing round of the `motion` stage, the start what the stages before it
leave. L-BFGS (torch's, strong Wolfe, as SLAHMR uses it) gets exact gradients by autograd over one
graph of the whole clip, and ten times our time. Its unknowns are the increments of all our
unknowns from the start, through the same retraction: it profits from the camera-anchored scale,
too. What our solver eliminates in every frame (the cameras' jitter) it gets as unknowns of their
own.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from slamhmr.bench.lbfgs import Trace, energy, run_lbfgs
from slamhmr.bench.plot import Chart, Curve, write_charts
from slamhmr.bench.scenes import bench_scene
from slamhmr.bench.table import Row, format_rows, write_csv
from slamhmr.bench.words import settings
from slamhmr.body import load_body
from slamhmr.config import load_config
from slamhmr.errors import ConfigError
from slamhmr.init.align import align
from slamhmr.scene import Scene
from slamhmr.scene_problem import Known, SceneProblem, scene_problem
from slamhmr.solve.levenberg import Schedule, minimise
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage
from slamhmr.threads import bounded_threads

LOG = logging.getLogger(__name__)
STAGE = "motion"
SCHEDULE = Schedule(relative_decrease=2e-3, patience=2)  # as configs/stages/motion.yaml
FLOOR_PERCENT = 0.01  # where curves end that reach the least energy seen
CSV, SUMMARY, PICTURE = "convergence.csv", "convergence_summary.csv", "convergence.png"


@dataclass(frozen=True)
class ConvergenceSpec:
    """The clip, and how much time L-BFGS gets: `frames=300 people=1 times=10`."""

    frames: int = 300
    people: int = 1
    seed: int = 0
    threads: int = 1  # of our solver and of torch under L-BFGS
    times: float = 10.0  # our time that L-BFGS gets

    def check(self) -> None:
        """Raise ConfigError for a number out of range."""
        for name in ("threads", "times"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"bench convergence: {name}={getattr(self, name)} must be above 0"
                )


def run(words: Sequence[str], out: Path) -> str:
    """Run both solvers; write both curves and their plot into `out`, return the statement.

    Raises ConfigError for unknown words.
    """
    spec = settings(ConvergenceSpec, words, "bench convergence")
    spec.check()
    with bounded_threads(spec.threads):
        problem, start = motion_problem(spec)
        LOG.info("our solver")
        ours = run_ours(problem, start, spec.threads)
        LOG.info("L-BFGS: %.0f s", spec.times * ours.seconds[-1])
        theirs = run_lbfgs(problem, start, spec.times * ours.seconds[-1])
    out.mkdir(parents=True, exist_ok=True)
    curve: list[Row] = [
        {"solver": trace.name, "seconds": s, "energy": e}
        for trace in (ours, theirs)
        for s, e in zip(trace.seconds, trace.energies, strict=True)
    ]
    rows = summary(ours, theirs)
    write_csv(out / CSV, curve)
    write_csv(out / SUMMARY, rows)
    write_charts(out / PICTURE, [chart(ours, theirs)])
    places = f"curves: {out / CSV}\nplot: {out / PICTURE}"
    return "\n\n".join([format_rows(rows), statement(ours, theirs, spec.times), places])


def motion_problem(spec: ConvergenceSpec) -> tuple[SceneProblem, Scene]:
    """The energy of the last round of the stage, and the state that the stages before it leave."""
    body, config = load_body(), load_config()
    made = bench_scene(spec.frames, spec.people, spec.seed, body)
    heights = torch.full((spec.people,), torch.nan, dtype=torch.float64)
    known = Known(made.observations, made.initial, body, heights)
    state = align(made.initial, made.observations, made.cameras, body)
    for name in config.schedule[: config.schedule.index(STAGE)]:
        state, _ = run_stage(
            state, known, name, config.stages[name], resources=Resources(threads=spec.threads)
        )
    return scene_problem(state, known, STAGE, config.stages[STAGE])


def run_ours(problem: SceneProblem, start: Scene, threads: int) -> Trace:
    """Our solver, stopping as it does in the last round of every stage."""
    trace = Trace("Levenberg-Marquardt")
    with torch.no_grad():
        trace.note(0.0, float(energy(problem, start)))
        resources = Resources(threads=threads)
        began = time.perf_counter()
        minimise(
            problem, start, SCHEDULE, resources=resources,
            on_iteration=lambda now: trace.note(time.perf_counter() - began, now.energy),
        )  # fmt: skip
        trace.note(time.perf_counter() - began, trace.energies[-1])
    return trace


def summary(ours: Trace, theirs: Trace) -> list[Row]:
    """One line per solver."""
    return [
        {
            "solver": trace.name,
            "seconds": trace.seconds[-1],
            "evaluations": len(trace.seconds) - 1,
            "energy_start": trace.energies[0],
            "energy_end": trace.energies[-1],
            "energy_in_our_time": trace.within(ours.seconds[-1]),
        }
        for trace in (ours, theirs)
    ]


def statement(ours: Trace, theirs: Trace, times: float) -> str:
    """Whether our final energy is not above theirs, and when theirs passed ours if it did."""
    share = 100.0 * (ours.energies[-1] / theirs.energies[-1] - 1.0)
    holds = "holds" if ours.energies[-1] <= theirs.energies[-1] else "does not hold"
    first = (
        f"our final energy {ours.energies[-1]:.6g} <= {theirs.energies[-1]:.6g} of L-BFGS in "
        f"{times:g} times our time ({share:+.2f} %): {holds}"
    )
    reached = theirs.reaches(ours.energies[-1])
    if reached is None:
        return f"{first}; L-BFGS never came so far"
    return f"{first}; L-BFGS came so far after {reached / ours.seconds[-1]:.1f} times our time"


def chart(ours: Trace, theirs: Trace) -> Chart:
    """Both curves on logarithmic axes: percent above the least energy seen, against seconds."""
    least = min(ours.energies[-1], theirs.energies[-1])
    curves = []
    for trace in (ours, theirs):
        points = zip(trace.seconds, trace.energies, strict=True)
        above = [(s, 100.0 * (e / least - 1.0)) for s, e in points if s > 0]
        shown = [(s, max(percent, FLOOR_PERCENT)) for s, percent in above]
        curves.append(Curve(trace.name, [s for s, _ in shown], [p for _, p in shown]))
    return Chart("energy above the least one seen, %", "s", curves, log_x=True, log_y=True)
