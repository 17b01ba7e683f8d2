"""The energy of a stage: which unknowns it frees, which terms it minimises, on which evidence."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.cameras import degrees_of_freedom
from slamhmr.errors import ConfigError, InputError
from slamhmr.evidence import gather_evidence, scene_of
from slamhmr.features import person_features
from slamhmr.jitter import settle
from slamhmr.layout import BorderLayout, Free
from slamhmr.neighbours import neighbours, nobody
from slamhmr.scene import Evidence, PointSet, Scene, point_set, retract
from slamhmr.solve.problem import REACH, BorderResidual, ChainShape, Step, Window
from slamhmr.terms import TERMS, BorderContext, Term, term_settings
from slamhmr.types import CameraTrack, Initial, Observations, SceneState, Views

FREE_NAMES = (
    "root", "pose", "betas", "scale", "ground", "gravity", "focal", "cameras", "velocity_gain",
    "segments", "offsets",
)  # fmt: skip
# Unknowns that nothing but their own term holds, or that other terms need: free name -> terms.
NEEDED_TERMS = {
    "gravity": ("gravity",), "focal": ("focal",), "cameras": ("camera", "reprojection"),
    "velocity_gain": ("velocity_gain",), "segments": ("segments",),
    "offsets": ("keypoint_offset", "reprojection"),
}  # fmt: skip


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

    @property
    def tolerance(self) -> float:
        """Relative decrease of the energy at which the last round ends."""
        ...


@dataclass(frozen=True)
class SceneProblem:
    """The energy of one round of a stage, as Levenberg-Marquardt sees it."""

    points: PointSet
    evidence: list[Evidence]
    layout: BorderLayout
    settings: dict[str, Any]
    start: Scene

    @cached_property
    def chains(self) -> list[ChainShape]:
        """One chain per person."""
        return [
            ChainShape(len(known.times), self.layout.free.columns, columns)
            for known, columns in zip(self.evidence, self._columns(), strict=True)
        ]

    def _columns(self) -> list[Tensor]:
        """Border columns of every chain, where the numbers are."""
        there, people = self.start.ground.device, range(len(self.evidence))
        return [self.layout.columns(index).to(there) for index in people]

    @property
    def border_count(self) -> int:
        """Shared unknowns."""
        return self.layout.width(len(self.evidence))

    def window(
        self, state: Scene, chain: int, start: int, stop: int, *, derivatives: bool
    ) -> Window:
        """All terms of one person that begin in frames [start, stop) of its span."""
        known = self.evidence[chain]
        part = known.part(start, min(stop + REACH, len(known.times)))
        features = person_features(self.points, part, self.layout, state, chain, start)
        apart = self.settings.get("interpenetration")
        if apart is not None:
            count = len(part.times)
            others = (
                neighbours(self.points, self.evidence, state, chain, start, count)
                if apart.weight > 0
                else nobody(self.points, state.ground)
            )
            features = replace(features, neighbours=others)
        residuals = [
            term.person(features, chosen, derivatives)
            for term, chosen in self._terms()
            if term.person is not None
        ]
        local = None
        if derivatives and state.jitter_information is not None:
            local = state.jitter_information[part.first : part.first + len(part.times)]
        return Window(start, stop, features.groups() if derivatives else {}, residuals, local)

    @cached_property
    def _patterns(self) -> tuple[Tensor, ...]:
        if self.layout.free.offsets == 0:
            return ()
        return tuple(known.patterns() for known in self.evidence)

    def border(self, state: Scene) -> list[BorderResidual]:
        """Terms on shared unknowns alone."""
        context = BorderContext(
            state,
            self.start,
            self.layout,
            tuple(len(known.times) for known in self.evidence),
            tuple(known.height_m for known in self.evidence),
            self.points,
            self._seconds(len(state.jitter)),
            self._patterns,
        )
        return [
            residual
            for term, chosen in self._terms()
            if term.border is not None
            for residual in term.border(context, chosen)
        ]

    def _seconds(self, frames: int) -> float:
        """Duration of a clip, at the rate of the person who is there for longest."""
        duration, steps = self._longest
        return duration * frames / max(steps, 1)

    @cached_property
    def _longest(self) -> tuple[float, int]:
        """Seconds, and steps of time, of the person who is there for longest."""
        times = max((known.times for known in self.evidence), key=len)
        return float(times[-1] - times[0]), len(times) - 1

    def _terms(self) -> list[tuple[Term, Any]]:
        return [(TERMS[name], chosen) for name, chosen in self.settings.items()]

    def retract(self, state: Scene, step: Step) -> Scene:
        """The state moved by a step, and the cameras' jitter after it."""
        return self.settled(retract(state, step, self.layout, self.evidence))

    def settled(self, state: Scene) -> Scene:
        """The state with the jitter that suits it, where the cameras are free."""
        if self.layout.free.drift == 0:
            return state
        camera = self.settings["camera"]
        sigma = camera.jitter_deg * math.pi / 180.0 / math.sqrt(camera.weight)
        reprojection = self.settings["reprojection"]
        return settle(state, self.evidence, self.layout, self.points, reprojection, sigma)


@dataclass(frozen=True)
class Known:
    """What every stage of a run is given beside the state.

    `height_m` is NaN where no stature is known; `cuts` are first frames of new takes, across
    which no term reaches.
    """

    observations: Observations
    initial: Initial
    body: BodyModel
    height_m: Float[Tensor, "N"]
    cuts: tuple[int, ...] = ()
    views: Views | None = None  # further cameras, calibrated


def check_stage(name: str, stage: StageSpec) -> None:
    """Raise ConfigError if a stage frees or uses something that does not exist."""
    for free in stage.free:
        if free not in FREE_NAMES:
            raise ConfigError(
                f"stage '{name}': free '{free}' is unknown; available: {', '.join(FREE_NAMES)}"
            )
        for needed in NEEDED_TERMS.get(free, ()):
            if needed not in stage.terms:
                raise ConfigError(f"stage '{name}': free '{free}' needs the term '{needed}'")
    if "root" not in stage.free:
        raise ConfigError(f"stage '{name}': 'root' must be among the free unknowns")
    if stage.iterations < 1:
        raise ConfigError(f"stage '{name}': iterations is {stage.iterations}, must be 1 or more")
    if not 0 < stage.tolerance < 1:
        raise ConfigError(f"stage '{name}': tolerance is {stage.tolerance}, must be in (0, 1)")
    for term_name, values in stage.terms.items():
        for index in range(rounds(stage)):
            _check_files(name, term_name, term_settings(name, term_name, values, index))
        if TERMS[term_name].needs_pose and "pose" not in stage.free:
            raise ConfigError(f"stage '{name}': term '{term_name}' needs 'pose' among the free")
    _check_held(name, stage)
    if all(TERMS[term_name].person is None for term_name in stage.terms):
        raise ConfigError(f"stage '{name}': no term looks at people, nothing can be solved")


def _check_files(name: str, term_name: str, settings: Any) -> None:
    """Raise ConfigError where a file that the settings of a term name is missing or another."""
    check = TERMS[term_name].check
    if check is not None:
        try:
            check(settings)
        except InputError as e:
            raise ConfigError(f"stage '{name}', {e}") from e


def _check_held(name: str, stage: StageSpec) -> None:
    """Raise ConfigError where a term that a free unknown needs has no weight."""
    for index in range(rounds(stage)):
        settings = settings_of(name, stage, index)
        for free in stage.free:
            for term in NEEDED_TERMS.get(free, ()):
                if settings[term].weight == 0:
                    raise ConfigError(
                        f"stage '{name}': free '{free}' needs the term '{term}' with a weight "
                        "above 0"
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


def settings_of(
    name: str, stage: StageSpec, round_index: int, initial: Initial | None = None
) -> dict[str, Any]:
    """The settings of every term of a stage in one round, but of those idle with this start."""
    idle = [] if initial is None else idle_terms(stage, initial)
    return {
        term: term_settings(name, term, values, round_index)
        for term, values in stage.terms.items()
        if term not in idle
    }


def idle_terms(stage: StageSpec, initial: Initial) -> list[str]:
    """Terms of the stage whose input this start does not predict; they are left out."""
    needed = {name: TERMS[name].needs for name in stage.terms}
    return [name for name, need in needed.items() if need and getattr(initial, need) is None]


def free_unknowns(
    stage: StageSpec, cameras: CameraTrack, initial: Initial, *, calibrated: bool = False
) -> Free:
    """What the stage moves of what this clip's cameras leave open and its start predicts.

    Nothing of cameras that are `calibrated`, as those of several views are.
    """
    moves = cameras.moving and not cameras.scale_known
    open_cameras = "cameras" in stage.free and not calibrated
    return Free(
        pose="pose" in stage.free,
        betas="betas" in stage.free,
        scale="scale" in stage.free and moves,
        ground="ground" in stage.free,
        gravity="gravity" in stage.free,
        focal="focal" in stage.free and not calibrated,
        drift=degrees_of_freedom(cameras) if open_cameras else 0,
        velocity_gain="velocity_gain" in stage.free and initial.root_velocity is not None,
        segments=len(cameras.starts) if "segments" in stage.free else 0,
    )


def scene_problem(
    state: SceneState, known: Known, name: str, stage: StageSpec, *, round_index: int = -1
) -> tuple[SceneProblem, Scene]:
    """The energy of one round of a stage at a state (the last one by default), and that state."""
    points = point_set(known.body)
    evidence = gather_evidence(
        state, known.observations, known.initial, points, known.height_m, known.cuts, known.views
    )
    calibrated = known.views is not None
    free = free_unknowns(stage, state.cameras, known.initial, calibrated=calibrated)
    scene = scene_of(state)
    if "offsets" in stage.free:
        count = evidence[0].keypoint_count
        free = replace(free, offsets=2 * count)
        if scene.offsets is None:
            scene = replace(scene, offsets=scene.ground.new_zeros(len(evidence), count, 2))
    layout = BorderLayout(free, state.betas.shape[-1])
    settings = settings_of(name, stage, round_index % rounds(stage), known.initial)
    problem = SceneProblem(points, evidence, layout, settings, scene)
    return problem, scene
