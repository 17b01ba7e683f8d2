"""One stage: frees some unknowns of a scene state and minimises the terms its YAML names."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from slamhmr.errors import BackendError
from slamhmr.evidence import spans, state_of
from slamhmr.scene import Scene
from slamhmr.scene_problem import (
    Known,
    SceneProblem,
    StageSpec,
    check_stage,
    rounds,
    scene_problem,
)
from slamhmr.solve.levenberg import Schedule, Summary, minimise
from slamhmr.solve.sweep import Resources, energies_of
from slamhmr.terms import term_settings
from slamhmr.types import SceneState, StageReport

log = logging.getLogger(__name__)
WINDOW = 1000  # frames that are checked at once
FINE = Schedule(relative_decrease=3e-4, patience=2)
COARSE = Schedule(relative_decrease=2e-3, patience=1)  # of a round that only leads to the next


def _require_finite_start(
    problem: SceneProblem, scene: Scene, state: SceneState, name: str
) -> None:
    """Raise BackendError naming person and frame where the energy is not finite at the start."""
    for chain, (person, (first, _)) in enumerate(
        zip(state.person_id.tolist(), spans(state), strict=True)
    ):
        for start in range(0, len(problem.evidence[chain].times), WINDOW):
            stop = min(start + WINDOW, len(problem.evidence[chain].times))
            window = problem.window(scene, chain, start, stop, derivatives=False)
            for residual in window.residuals:
                wrong = ~torch.isfinite(residual.value).all(dim=-1) & (residual.weight > 0)
                if bool(wrong.any()):
                    frame = first + start + int(wrong.any(dim=1).nonzero()[0, 0])
                    raise BackendError(
                        f"stage '{name}': person {person} cannot be placed in frame {frame}: term "
                        f"'{residual.name}' is not finite there (the start puts a seen point "
                        "behind the camera); exclude the frame or the person in constraints.yaml"
                    )


def run_stage(
    state: SceneState,
    known: Known,
    name: str,
    stage: StageSpec,
    *,
    resources: Resources | None = None,
    on_iteration: Callable[[int, float], None] | None = None,
) -> tuple[SceneState, StageReport]:
    """Solve one stage from `state`; each round of annealing begins where the last one ended.

    Raises ConfigError for a stage that cannot be run.
    """
    check_stage(name, stage)
    began = time.perf_counter()
    summaries: list[Summary] = []
    first, scene = scene_problem(state, known, name, stage, round_index=0)
    _require_finite_start(first, scene, state, name)
    last, _ = scene_problem(state, known, name, stage)
    resources = resources or Resources()
    before = energies_of(last, last.settled(scene), resources)  # comparable with that at the end
    for index in range(rounds(stage)):
        final = index == rounds(stage) - 1
        settings = {
            term: term_settings(name, term, values, index) for term, values in stage.terms.items()
        }
        problem = replace(first, settings=settings)
        scene, summary = minimise(
            problem,
            problem.settled(scene),
            replace(FINE if final else COARSE, iterations=stage.iterations),
            resources=resources,
            on_iteration=on_iteration,
        )
        summaries.append(summary)
        log.info(
            "stage %s, round %d: energy %.5g -> %.5g in %d iterations; %s", name, index + 1,
            summary.total_before, summary.total_after, summary.iterations, summary.stopped,
        )  # fmt: skip
    report = StageReport(
        name,
        sum(s.iterations for s in summaries),
        sum(s.rejected for s in summaries),
        summaries[-1].stopped,
        before,
        summaries[-1].energy_after,
        time.perf_counter() - began,
    )
    return state_of(scene, state), report
