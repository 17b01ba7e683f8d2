"""One stage: frees some unknowns of a scene state and minimises the terms its YAML names."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.device import on
from slamhmr.errors import BackendError
from slamhmr.evidence import spans, standing, state_of
from slamhmr.reprojection import EXACT_PERCENT, score
from slamhmr.scene import Evidence, PointSet, Scene
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
from slamhmr.solve.levenberg import Progress, Schedule, Summary, minimise
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


@dataclass(frozen=True)
class Reached:
    """How far a stage has come: all that decides how it goes on."""

    state: SceneState  # with the contacts, supports and free fall that count now
    scene: Scene  # from which the minimisation under way began, or that it ended with
    start: Scene  # of the stage, on the ground of now
    origin: Scene  # of the round's problem: what the border's priors count from
    round: int = 0
    tightened: int = 0
    summaries: tuple[Summary, ...] = ()
    progress: Progress[Scene] | None = None  # within the minimisation under way
    seconds: float = 0.0


def run_stage(
    state: SceneState,
    known: Known,
    name: str,
    stage: StageSpec,
    *,
    resources: Resources | None = None,
    start_percent: float | None = None,
    on_iteration: Callable[[Reached], None] | None = None,
    reached: Reached | None = None,
) -> tuple[SceneState, StageReport]:
    """Solve one stage from `state`; each round of annealing begins where the last one ended.

    Where heights of contacts count, supports, free fall and, from the second round on, contacts
    are found anew before every round, and held in it.
    With `start_percent`, the `mean_percent` of `reprojection.score` at the start of all stages,
    the keypoints' sigma is lowered until the result is no farther from them: by `TIGHTER` at a
    time, `MOST_TIGHTER` times at most (the report's gate says where that, or a stage without
    keypoints, was not enough). Goes on from what was `reached` before, with the same digits as if
    undisturbed; `on_iteration` may keep it, and end the stage by raising. Raises ConfigError for a
    stage that cannot be run.
    """
    check_stage(name, stage)
    problem, scene = scene_problem(state, known, name, stage, round_index=0)
    _require_finite_start(problem, scene, state, name)
    task = _Task(
        problem, state.contacts, known, name, stage, resources or Resources(), start_percent,
        on_iteration,
    )  # fmt: skip
    following: Reached | None = reached or task.stood(Reached(state, scene, scene, scene))
    while following is not None:
        now = task.solved(following)
        following = task.following(now)
    problem = task.problem(now)
    report = StageReport(
        name,
        sum(s.iterations for s in now.summaries),
        sum(s.rejected for s in now.summaries),
        now.summaries[-1].stopped,
        energies_of(problem, problem.settled(now.start), task.resources),
        now.summaries[-1].energy_after,
        now.seconds,
        TIGHTER**now.tightened,
        idle_terms(stage, known.initial),
    )
    return state_of(now.scene, now.state), report


@dataclass(frozen=True)
class _Task:
    """What does not change while a stage runs."""

    first: SceneProblem  # of the stage's first round, at its start
    predicted: Float[Tensor, "N T 4"]  # contacts, from before any solve
    known: Known
    name: str
    spec: StageSpec
    resources: Resources
    start_percent: float | None
    on_iteration: Callable[[Reached], None] | None

    def problem(self, now: Reached) -> SceneProblem:
        """The energy that counts now: its terms' settings, how people stand, its origin."""
        settings = settings_of(self.name, self.spec, now.round, self.known.initial)
        if now.tightened > 0:
            tighter = TIGHTER**now.tightened * settings["reprojection"].sigma
            settings["reprojection"] = replace(settings["reprojection"], sigma=tighter)
        points = self.first.points
        evidence = [
            _standing(now.state, row, own, points) for row, own in enumerate(self.first.evidence)
        ]
        return replace(self.first, settings=settings, evidence=evidence, start=now.origin)

    def solved(self, now: Reached) -> Reached:
        """The minimisation under way brought to its end."""
        began, last = time.perf_counter(), now.round == rounds(self.spec) - 1
        fine = Schedule(relative_decrease=self.spec.tolerance, patience=2)
        device = self.resources.device
        problem, scene, progress = on((self.problem(now), now.scene, now.progress), device)

        def note(reached: Progress[Scene]) -> None:
            if self.on_iteration is not None:
                seconds = now.seconds + time.perf_counter() - began
                self.on_iteration(replace(now, progress=reached, seconds=seconds))

        end, summary = minimise(
            problem,
            scene if progress is not None else problem.settled(scene),
            replace(fine if last else COARSE, iterations=self.spec.iterations),
            resources=self.resources,
            on_iteration=note,
            reached=progress,
        )
        _log(self.name, summary)
        return replace(
            now,
            scene=on(end, "cpu"),
            summaries=(*now.summaries, summary),
            progress=None,
            seconds=now.seconds + time.perf_counter() - began,
        )

    def following(self, now: Reached) -> Reached | None:
        """The next round or, after the last, the same with tighter keypoints if it needs that."""
        if now.round < rounds(self.spec) - 1:
            return self.stood(replace(now, round=now.round + 1))
        most = MOST_TIGHTER if "reprojection" in self.spec.terms else 0
        if now.tightened < most and self._farther(now):
            return replace(now, tightened=now.tightened + 1)
        return None

    def stood(self, now: Reached) -> Reached:
        """The same with the contacts, supports and ground that `stand` finds."""
        if "contact_height" not in self.spec.terms:
            return now
        state = _stood(now.scene, now.state, self.known, self.predicted, solved=now.round > 0)
        lowered = state.ground - now.scene.ground

        def on_it(scene: Scene) -> Scene:
            return replace(scene, ground=scene.ground + lowered)

        return replace(
            now,
            state=state,
            scene=on_it(now.scene),
            start=on_it(now.start),
            origin=on_it(now.origin),
        )

    def _farther(self, now: Reached) -> bool:
        """True if the keypoints are farther from the scene than they were at the start."""
        if self.start_percent is None:
            return False
        solved, known = state_of(now.scene, now.state), self.known
        found = score(solved, known.observations, known.body, known.views)["mean_percent"]
        return float(str(found)) > max(self.start_percent, EXACT_PERCENT)


def _standing(state: SceneState, row: int, own: Evidence, points: PointSet) -> Evidence:
    """What is known of one person, who stands as a state says."""
    said = standing(state, row, slice(own.first, own.first + len(own.times)), points)
    support, flight = said.get("support"), said.get("flight")
    return replace(own, contacts=said["contacts"], support=support, flight=flight)


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
