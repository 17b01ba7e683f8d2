"""One stage: frees some unknowns of a scene state and minimises the terms its YAML names."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.device import on
from slamhmr.errors import BackendError
from slamhmr.evidence import spans, standing, state_of
from slamhmr.reprojection import EXACT_PERCENT, score
from slamhmr.scene import Scene
from slamhmr.scene_problem import (
    Known,
    SceneProblem,
    StageSpec,
    check_stage,
    idle_terms,
    rounds,
    scene_problem,
    settings_of,
)
from slamhmr.solve.levenberg import Schedule, Summary, minimise
from slamhmr.solve.sweep import Resources, energies_of
from slamhmr.standing import stand
from slamhmr.types import SceneState, StageReport

log = logging.getLogger(__name__)
WINDOW = 1000  # frames that are checked at once
TIGHTER, MOST_TIGHTER = 0.8, 5
COARSE = Schedule(relative_decrease=5e-3, patience=1)  # of a round that only leads to the next


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
    start_percent: float | None = None,
    on_iteration: Callable[[int, float], None] | None = None,
) -> tuple[SceneState, StageReport]:
    """Solve one stage from `state`; each round of annealing begins where the last one ended.

    Where heights of contacts count, supports, free fall and, from the second round on, contacts
    are found anew before every round, and held in it.
    With `start_percent`, the `mean_percent` of `reprojection.score` at the start of all stages,
    the keypoints' sigma is lowered until the result is no farther from them: by `TIGHTER` at a
    time, `MOST_TIGHTER` times at most (the report's gate says where that, or a stage without
    keypoints, was not enough). Raises ConfigError for a stage that cannot be run.
    """
    check_stage(name, stage)
    began = time.perf_counter()
    summaries: list[Summary] = []
    problem, scene = scene_problem(state, known, name, stage, round_index=0)
    _require_finite_start(problem, scene, state, name)
    start, resources = scene, resources or Resources()
    fine = Schedule(relative_decrease=stage.tolerance, patience=2)

    def solve(schedule: Schedule) -> Scene:
        allowed = replace(schedule, iterations=stage.iterations)
        there, begun = on((problem, scene), resources.device)
        solved, summary = minimise(
            there, there.settled(begun), allowed, resources=resources, on_iteration=on_iteration
        )
        summaries.append(summary)
        _log(name, summary)
        return on(solved, "cpu")

    predicted = state.contacts
    for index in range(rounds(stage)):
        problem = replace(problem, settings=settings_of(name, stage, index, known.initial))
        if "contact_height" in stage.terms:
            state = _stood(scene, state, known, predicted, solved=index > 0)
            problem, scene, start = _restood(problem, scene, start, state)
        scene = solve(fine if index == rounds(stage) - 1 else COARSE)
    tightened, most = 0, MOST_TIGHTER if "reprojection" in stage.terms else 0
    while tightened < most and _farther(scene, state, known, start_percent):
        problem, tightened = _tighter(problem), tightened + 1
        scene = solve(fine)
    report = StageReport(
        name,
        sum(s.iterations for s in summaries),
        sum(s.rejected for s in summaries),
        summaries[-1].stopped,
        energies_of(problem, problem.settled(start), resources),
        summaries[-1].energy_after,
        time.perf_counter() - began,
        TIGHTER**tightened,
        idle_terms(stage, known.initial),
    )
    return state_of(scene, state), report


def _log(name: str, summary: Summary) -> None:
    log.info(
        "stage %s: energy %.5g -> %.5g in %d iterations; %s", name,
        summary.total_before, summary.total_after, summary.iterations, summary.stopped,
    )  # fmt: skip


def _stood(
    scene: Scene,
    state: SceneState,
    known: Known,
    predicted: Float[Tensor, "N T 4"],
    *,
    solved: bool,
) -> SceneState:
    """The scene as a state, with supports and free fall and, once `solved`, contacts anew."""
    times = known.observations.timestamps
    reached = state_of(scene, state)
    measured = ~known.height_m.isnan() | (known.views is not None)
    return stand(
        reached, known.body, times, known.cuts, predicted, solved=solved, measured=measured
    )


def _restood(
    problem: SceneProblem, scene: Scene, start: Scene, state: SceneState
) -> tuple[SceneProblem, Scene, Scene]:
    """Problem and scenes with the contacts, supports and ground that `stand` has found."""
    evidence = []
    for index, known in enumerate(problem.evidence):
        said = standing(state, index, slice(known.first, known.first + len(known.times)))
        support, flight = said.get("support"), said.get("flight")
        evidence.append(replace(known, contacts=said["contacts"], support=support, flight=flight))
    lowered = state.ground - scene.ground

    def on_it(scene: Scene) -> Scene:
        return replace(scene, ground=scene.ground + lowered)

    problem = replace(problem, evidence=evidence, start=on_it(problem.start))
    return problem, on_it(scene), on_it(start)


def _farther(scene: Scene, state: SceneState, known: Known, start_percent: float | None) -> bool:
    """True if the keypoints are farther from the scene than they were at the start."""
    if start_percent is None:
        return False
    solved = state_of(scene, state)
    found = score(solved, known.observations, known.body, known.views)["mean_percent"]
    return float(str(found)) > max(start_percent, EXACT_PERCENT)


def _tighter(problem: SceneProblem) -> SceneProblem:
    """The same energy with a smaller sigma of the keypoints."""
    settings = problem.settings["reprojection"]
    chosen = replace(settings, sigma=TIGHTER * settings.sigma)
    return replace(problem, settings={**problem.settings, "reprojection": chosen})
