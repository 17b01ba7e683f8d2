"""One stage: frees some unknowns of a scene state and minimises the terms its YAML names."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.errors import BackendError, ConfigError
from slamhmr.evidence import gather_evidence, scene_of, spans, state_of
from slamhmr.scene import (
    BorderLayout,
    Evidence,
    Free,
    PointSet,
    Scene,
    person_features,
    point_set,
    retract,
)
from slamhmr.solve.levenberg import Schedule, Summary, minimise
from slamhmr.solve.problem import BorderResidual, Chain, Linearisation, Residual, Step
from slamhmr.terms import TERMS, BorderContext, Term, term_settings
from slamhmr.types import Initial, Observations, SceneState, StageReport

log = logging.getLogger(__name__)
FREE_NAMES = ("root", "pose", "betas", "scale", "ground")


@runtime_checkable
class StageSpec(Protocol):
    """What a stage of the configuration holds."""

    @property
    def free(self) -> list[str]:
        """Unknowns the stage moves."""
        ...

    @property
    def terms(self) -> dict[str, dict[str, Any]]:
        """Terms and their settings."""
        ...

    @property
    def iterations(self) -> int:
        """Most iterations of one round."""
        ...


@dataclass(frozen=True)
class SceneProblem:
    """The energy of one round of a stage, as Levenberg-Marquardt sees it."""

    points: PointSet
    evidence: list[Evidence]
    layout: BorderLayout
    settings: dict[str, Any]
    start: Scene

    def linearise(self, state: Scene, *, derivatives: bool) -> Linearisation:
        """All terms of all people at `state`."""
        chains = []
        for index, known in enumerate(self.evidence):
            features = person_features(self.points, known, self.layout, state, index)
            residuals: list[Residual] = [
                term.person(features, chosen, derivatives)
                for term, chosen in self._terms()
                if term.person is not None
            ]
            chains.append(
                Chain(
                    features.frame_count,
                    self.layout.free.columns,
                    self.layout.columns(index),
                    features.groups() if derivatives else {},
                    residuals,
                )
            )
        return Linearisation(
            chains, self.layout.width(len(self.evidence)), self._border_residuals(state)
        )

    def _border_residuals(self, state: Scene) -> list[BorderResidual]:
        context = BorderContext(
            state,
            self.start,
            self.layout,
            tuple(len(known.times) for known in self.evidence),
            tuple(known.height_m for known in self.evidence),
            self.points,
        )
        return [
            residual
            for term, chosen in self._terms()
            if term.border is not None
            for residual in term.border(context, chosen)
        ]

    def _terms(self) -> list[tuple[Term, Any]]:
        return [(TERMS[name], chosen) for name, chosen in self.settings.items()]

    def retract(self, state: Scene, step: Step) -> Scene:
        """The state moved by a step."""
        return retract(state, step, self.layout, self.evidence)


def check_stage(name: str, stage: StageSpec) -> None:
    """Raise ConfigError if a stage frees or uses something that does not exist."""
    for free in stage.free:
        if free not in FREE_NAMES:
            raise ConfigError(
                f"stage '{name}': free '{free}' is unknown; available: {', '.join(FREE_NAMES)}"
            )
    if "root" not in stage.free:
        raise ConfigError(f"stage '{name}': 'root' must be among the free unknowns")
    if stage.iterations < 1:
        raise ConfigError(f"stage '{name}': iterations is {stage.iterations}, must be 1 or more")
    for term_name, values in stage.terms.items():
        for index in range(rounds(stage)):
            term_settings(name, term_name, values, index)
        if TERMS[term_name].needs_pose and "pose" not in stage.free:
            raise ConfigError(f"stage '{name}': term '{term_name}' needs 'pose' among the free")
    if all(TERMS[term_name].person is None for term_name in stage.terms):
        raise ConfigError(f"stage '{name}': no term looks at people, nothing can be solved")


def _require_finite_start(
    problem: SceneProblem, scene: Scene, state: SceneState, name: str
) -> None:
    """Raise BackendError naming person and frame where the energy is not finite at the start."""
    chains = problem.linearise(scene, derivatives=False).chains
    for person, chain, (first, _) in zip(
        state.person_id.tolist(), chains, spans(state), strict=True
    ):
        for residual in chain.residuals:
            wrong = ~torch.isfinite(residual.value).all(dim=-1) & (residual.weight > 0)
            if bool(wrong.any()):
                frame = first + int(wrong.any(dim=1).nonzero()[0, 0])
                raise BackendError(
                    f"stage '{name}': person {person} cannot be placed in frame {frame}: term "
                    f"'{residual.name}' is not finite there (the start puts a seen point behind "
                    "the camera); exclude the frame or the person in constraints.yaml"
                )


def rounds(stage: StageSpec) -> int:
    """Number of rounds: the length of the longest list among the settings (annealing)."""
    lengths = [
        len(value)
        for values in stage.terms.values()
        for value in values.values()
        if isinstance(value, list | tuple)
    ]
    return max([*lengths, 1])


def run_stage(
    state: SceneState,
    observations: Observations,
    initial: Initial,
    body: BodyModel,
    name: str,
    stage: StageSpec,
    *,
    height_m: Float[Tensor, "N"],
    cuts: tuple[int, ...],
    on_iteration: Callable[[int, float], None] | None = None,
) -> tuple[SceneState, StageReport]:
    """Solve one stage from `state`; each round of annealing begins where the last one ended.

    `height_m` is NaN where no stature is known; `cuts` are first frames of new takes, across
    which no term reaches. Raises ConfigError for a stage that cannot be run.
    """
    check_stage(name, stage)
    began = time.perf_counter()
    moves = state.cameras.moving and not state.cameras.scale_known
    free = Free(
        pose="pose" in stage.free,
        betas="betas" in stage.free,
        scale="scale" in stage.free and moves,
        ground="ground" in stage.free,
    )
    points = point_set(body)
    evidence = gather_evidence(state, observations, initial, points, height_m, cuts)
    scene, layout = scene_of(state), BorderLayout(free, state.betas.shape[-1])
    summaries: list[Summary] = []
    start = scene
    for index in range(rounds(stage)):
        settings = {
            term: term_settings(name, term, values, index) for term, values in stage.terms.items()
        }
        problem = SceneProblem(points, evidence, layout, settings, start)
        if index == 0:
            _require_finite_start(problem, scene, state, name)
        scene, summary = minimise(
            problem, scene, Schedule(stage.iterations), on_iteration=on_iteration
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
        summaries[-1].energy_before,
        summaries[-1].energy_after,
        time.perf_counter() - began,
    )
    return state_of(scene, state), report
