"""`slamhmr bench speed`: what the solver costs in time and memory against frames and people."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slamhmr.bench.case import Case, Measurement, measure
from slamhmr.bench.plot import Chart, Curve, write_charts
from slamhmr.bench.table import Row, format_rows, write_csv
from slamhmr.bench.words import settings
from slamhmr.errors import ConfigError

LOG = logging.getLogger(__name__)
GROWTH = 1.1  # cost may grow so much faster than frames x people: 4.4 for 4 people, 8.8 for 8 times
MEMORY_FRAMES, MEMORY_GB = 20_000, 4.0  # one person's clip of that length, and its limit
CSV, PICTURE = "speed.csv", "speed.png"


@dataclass(frozen=True)
class SpeedSpec:
    """Which cases are run: `frames=1000,2000 people=1,4 threads=1,2`.

    All lengths with the fewest people and all numbers of people with the shortest clip, on most
    threads; the smallest case on every number of threads. `grid=true` runs every combination.
    """

    frames: list[int] = field(default_factory=lambda: [1000, 2000, 4000, 8000, 20_000])
    people: list[int] = field(default_factory=lambda: [1, 2, 4])
    threads: list[int] = field(default_factory=lambda: [1, 2])
    grid: bool = False
    seed: int = 0
    repeats: int = 2  # of the smallest cases, which the ratios divide by; the fastest counts

    def check(self) -> None:
        """Raise ConfigError for an empty list or a number below 1."""
        for name in ("frames", "people", "threads"):
            values = getattr(self, name)
            if len(values) == 0 or min(values) < 1:
                raise ConfigError(f"bench speed: {name}={values} needs numbers of at least 1")
        if self.repeats < 1:
            raise ConfigError(f"bench speed: repeats={self.repeats} must be at least 1")


def run(words: Sequence[str], out: Path) -> str:
    """Measure all cases of `key=value` words; write csv and picture into `out`, return the table.

    The csv is written anew after every case, so that what was measured survives an interruption.
    Raises ConfigError for unknown words, BackendError for a case that failed.
    """
    spec = settings(SpeedSpec, words, "bench speed")
    spec.check()
    cases = cases_of(spec)
    out.mkdir(parents=True, exist_ok=True)
    measured: list[Measurement] = []
    for number, case in enumerate(cases, start=1):
        LOG.info(
            "%d of %d: %d frames x %d people, threads: %d", number, len(cases), case.frames,
            case.people, case.threads,
        )  # fmt: skip
        measured.append(measure(case))
        write_csv(out / CSV, [row(m, full=True) for m in measured])
    write_charts(out / PICTURE, charts(measured))
    places = f"table: {out / CSV}\nplot: {out / PICTURE}"
    return "\n\n".join([format_rows([row(m) for m in measured]), *_findings(measured), places])


def cases_of(spec: SpeedSpec) -> list[Case]:
    """The cases of a specification, smallest first."""
    shortest, fewest, most = min(spec.frames), min(spec.people), max(spec.threads)
    chosen = [
        (frames, people, threads)
        for frames, people, threads in itertools.product(
            sorted(set(spec.frames)), sorted(set(spec.people)), sorted(set(spec.threads))
        )
        if spec.grid
        or (frames, people) == (shortest, fewest)
        or (threads == most and (frames == shortest or people == fewest))
    ]
    chosen.sort(key=lambda size: (size[0] * size[1], size[1], size[2]))
    smallest = shortest * fewest
    return [
        Case(frames, people, threads, spec.seed, spec.repeats if frames * people == smallest else 1)
        for frames, people, threads in chosen
    ]


def row(measurement: Measurement, *, full: bool = False) -> Row:
    """A line of the table; `full` adds the parts and what does not fit on a screen."""
    case = measurement.case
    cells: dict[str, float | int | str] = {
        "frames": case.frames,
        "people": case.people,
        "threads": case.threads,
        "wall_s": measurement.wall_s,
        "cpu_s": measurement.cpu_s,
        "ms_per_person_frame": measurement.ms_per_person_frame,
        "iterations": measurement.iterations,
        "rejected": measurement.rejected,
        "peak_gb": measurement.peak_gb,
        "pa_mpjpe_mm": measurement.pa_mpjpe_mm,
        "wa_mpjpe100_mm": measurement.wa_mpjpe100_mm,
        "scale_error_percent": measurement.scale_error_percent,
    }
    if full:
        cells |= {"before_gb": measurement.before_gb, "seed": case.seed, "repeats": case.repeats}
        cells |= {f"{name}_s": seconds for name, seconds in measurement.parts_s.items()}
    return cells


@dataclass(frozen=True)
class Ratio:
    """Cost of a case over that of the smallest case on as many threads."""

    case: Case
    reference: Case
    value: float
    per_iteration: float  # the same of the cost of one iteration: clips need different numbers
    limit: float

    def __str__(self) -> str:
        """The ratio as a line of the table's footer."""
        this, that = (f"({c.frames} x {c.people})" for c in (self.case, self.reference))
        verdict = "holds" if self.value <= self.limit else "does not hold"
        return (
            f"{this} / {that}, threads {self.case.threads}: {self.value:.2f}, "
            f"at most {self.limit:.2f}: {verdict} (per iteration {self.per_iteration:.2f})"
        )


def ratios(measured: Sequence[Measurement]) -> list[Ratio]:
    """Growth of the wall time against the smallest case; linear is the ratio of sizes."""
    found = []
    for threads in sorted({m.case.threads for m in measured}):
        same = [m for m in measured if m.case.threads == threads]
        least = min(same, key=lambda m: m.person_frames)
        for m in same:
            if m is not least:
                growth, limit = m.wall_s / least.wall_s, GROWTH * m.person_frames
                each = growth * least.iterations / m.iterations
                found.append(Ratio(m.case, least.case, growth, each, limit / least.person_frames))
    return found


def _findings(measured: Sequence[Measurement]) -> list[str]:
    found = []
    if len(lines := [str(ratio) for ratio in ratios(measured)]) > 0:
        found.append("\n".join(lines))
    long = [m for m in measured if m.case.frames == MEMORY_FRAMES and m.case.people == 1]
    for m in long:
        verdict = "holds" if m.peak_gb < MEMORY_GB else "does not hold"
        found.append(f"{MEMORY_FRAMES} frames: {m.peak_gb:.2f} GB, under {MEMORY_GB}: {verdict}")
    return found


def charts(measured: Sequence[Measurement]) -> list[Chart]:
    """Seconds against frames, seconds against people, memory against frames."""
    fewest, shortest = (min(getattr(m.case, n) for m in measured) for n in ("people", "frames"))
    by_length = [m for m in measured if m.case.people == fewest]
    by_people = [m for m in measured if m.case.frames == shortest]
    return [
        Chart(f"wall time, s; people: {fewest}", "frames",
              [*_curves(by_length, "frames", "wall_s"), _linear(by_length, "frames")],
              log_x=True, log_y=True),
        Chart(f"wall time, s; frames: {shortest}", "people",
              [*_curves(by_people, "people", "wall_s"), _linear(by_people, "people")]),
        Chart(f"peak memory, GB; people: {fewest}", "frames",
              _curves(by_length, "frames", "peak_gb")),
    ]  # fmt: skip


def _curves(measured: Sequence[Measurement], axis: str, value: str) -> list[Curve]:
    curves = []
    for threads in sorted({m.case.threads for m in measured}):
        own = [m for m in measured if m.case.threads == threads]
        own.sort(key=lambda m: getattr(m.case, axis))
        x, y = [getattr(m.case, axis) for m in own], [getattr(m, value) for m in own]
        curves.append(Curve(f"threads: {threads}", x, y))
    return curves


def _linear(measured: Sequence[Measurement], axis: str) -> Curve:
    """What a cost in proportion would be, from the smallest case on most threads."""
    most = max(m.case.threads for m in measured)
    own = sorted(getattr(m.case, axis) for m in measured if m.case.threads == most)
    first = min(
        (m for m in measured if m.case.threads == most), key=lambda m: getattr(m.case, axis)
    )
    return Curve("in proportion", own, [first.wall_s * x / own[0] for x in own], faint=True)
