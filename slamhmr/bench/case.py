"""One solve of a benchmark scene, timed, in a process of its own: peak memory is then its own.

`measure` starts the process, which runs this module and prints one line of JSON. What is timed is
the solver alone: alignment, every stage of the default schedule, and the posterior.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from slamhmr.bench.scenes import BenchScene, bench_scene
from slamhmr.body import BodyModel, load_body
from slamhmr.config import load_config
from slamhmr.errors import BackendError
from slamhmr.eval import metrics
from slamhmr.export.result import build_result
from slamhmr.init.align import align
from slamhmr.posterior import Calibration, posterior
from slamhmr.scene_problem import Known
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage
from slamhmr.threads import bounded_threads
from slamhmr.types import SceneState

WARM_UP_FRAMES = 20  # solved before the clock starts: imports, weights, first allocations
BYTES_PER_KB, BYTES_PER_GB = 1024, 1e9


@dataclass(frozen=True)
class Case:
    """What is solved and how often; the fastest of `repeats` runs counts."""

    frames: int
    people: int
    threads: int
    seed: int = 0
    repeats: int = 1


@dataclass(frozen=True)
class Measurement:
    """What one case took and how good it got."""

    case: Case
    wall_s: float
    cpu_s: float
    parts_s: dict[str, float]  # wall seconds: alignment, every stage, posterior
    iterations: int
    rejected: int
    peak_gb: float  # largest resident memory of the process, its scene and imports included
    before_gb: float  # resident before the first solve: imports, body, scene
    pa_mpjpe_mm: float
    wa_mpjpe100_mm: float
    scale_error_percent: float

    @property
    def person_frames(self) -> int:
        """Size of the problem."""
        return self.case.frames * self.case.people

    @property
    def ms_per_person_frame(self) -> float:
        """Wall milliseconds that a frame of one person costs."""
        return 1000.0 * self.wall_s / self.person_frames


@dataclass(frozen=True)
class Run:
    """One timed solve."""

    state: SceneState
    wall_s: float
    cpu_s: float
    parts_s: dict[str, float]
    iterations: int
    rejected: int


def measure(case: Case) -> Measurement:
    """Run a case in a fresh Python process.

    Raises BackendError with the last line it said if that process fails or is killed.
    """
    words = [sys.executable, "-m", "slamhmr.bench.case", json.dumps(dataclasses.asdict(case))]
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BackendError(f"benchmark {case} ended with {done.returncode}: {last}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Measurement(case=Case(**answer.pop("case")), **answer)


def solve_case(case: Case) -> Measurement:
    """Make the scene, solve it `repeats` times in this process, score the result."""
    body = load_body()
    with bounded_threads(1):
        warm_up = bench_scene(WARM_UP_FRAMES, case.people, case.seed, body)
        timed_solve(warm_up, body, case.threads)
        scene = bench_scene(case.frames, case.people, case.seed, body)
        before = memory_gb("VmRSS")
        runs = [timed_solve(scene, body, case.threads) for _ in range(case.repeats)]
        peak = memory_gb("VmHWM")
        best = min(runs, key=lambda run: run.wall_s)
        pa, wa, scale = accuracy(best.state, scene, body)
    return Measurement(
        case=case, wall_s=best.wall_s, cpu_s=best.cpu_s, parts_s=best.parts_s,
        iterations=best.iterations, rejected=best.rejected, peak_gb=peak, before_gb=before,
        pa_mpjpe_mm=pa, wa_mpjpe100_mm=wa, scale_error_percent=scale,
    )  # fmt: skip


def timed_solve(scene: BenchScene, body: BodyModel, threads: int) -> Run:
    """The solver alone: alignment, every stage of the default schedule, posterior."""
    config, parts, reports = load_config(), {}, []
    heights = torch.full((len(scene.truth.betas),), torch.nan, dtype=torch.float64)
    known = Known(scene.observations, scene.initial, body, heights)
    began, began_cpu = time.perf_counter(), time.process_time()
    state = align(scene.initial, scene.observations, scene.cameras, body)
    parts["align"] = time.perf_counter() - began
    resources = Resources(threads=threads)
    for name in config.schedule:
        state, report = run_stage(state, known, name, config.stages[name], resources=resources)
        parts[name] = report.seconds
        reports.append(report)
    last = config.schedule[-1]
    found = posterior(state, known, last, config.stages[last], Calibration(), resources=resources)
    parts["posterior"] = found.seconds
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    iterations, rejected = (sum(getattr(r, n) for r in reports) for n in ("iterations", "rejected"))
    return Run(state, wall, cpu, parts, iterations, rejected)


def accuracy(state: SceneState, scene: BenchScene, body: BodyModel) -> tuple[float, float, float]:
    """PA-MPJPE and WA-MPJPE100, mm, over all people, and the error of the scale, percent."""
    result = build_result(
        state, body, scene.observations, body_model="default", provenance={"source": "benchmark"}
    )
    pairs = list(zip(result.joints, scene.truth.points[:, :, :24], strict=True))
    pa, wa = (
        float(torch.cat([metric(mine, theirs) for mine, theirs in pairs]).mean())
        for metric in (metrics.pa_mpjpe_mm, metrics.wa_mpjpe100_mm)
    )
    return pa, wa, 100.0 * metrics.scale_error(result.scale, scene.truth.scale)


def memory_gb(field: str) -> float:
    """Resident memory of this process, GB: now (VmRSS) or at most since it began (VmHWM).

    Not `getrusage`: its peak includes that of the process which started this one. Raises
    BackendError where /proc does not tell.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * BYTES_PER_KB / BYTES_PER_GB
    raise BackendError(f"'{status}' does not tell {field}; memory is measured on Linux only")


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(solve_case(Case(**json.loads(sys.argv[1]))))))
