"""One stage: frees some unknowns of a scene state and minimises the terms its YAML names."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.errors import ConfigError
from slamhmr.scene import (
    BorderLayout,
    Evidence,
    Free,
    Person,
    PointSet,
    Scene,
    person_features,
    point_set,
    retract,
)
from slamhmr.solve.levenberg import Schedule, Summary, minimise
from slamhmr.solve.problem import BorderResidual, Chain, Linearisation, Residual, Step
from slamhmr.terms import TERMS, BorderContext, term_settings
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
                TERMS[name].function(features, chosen, derivatives)  # type: ignore[call-arg, arg-type, misc]
                for name, chosen in self.settings.items()
                if not TERMS[name].on_border
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
            for name, chosen in self.settings.items()
            if TERMS[name].on_border
            for residual in TERMS[name].function(context, chosen)  # type: ignore[call-arg, arg-type, union-attr]
        ]

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
    for term_name, values in stage.terms.items():
        term_settings(name, term_name, values, 0)
        if TERMS[term_name].needs_pose and "pose" not in stage.free:
            raise ConfigError(f"stage '{name}': term '{term_name}' needs 'pose' among the free")


def rounds(stage: StageSpec) -> int:
    """Number of rounds: the length of the longest list among the settings (annealing)."""
    lengths = [
        len(value)
        for values in stage.terms.values()
        for value in values.values()
        if isinstance(value, list | tuple)
    ]
    return max(lengths, default=1)


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

    `height_m` is NaN where no stature is known; `cuts` are first frames of new takes, across which no
    term reaches. Raises ConfigError for a stage that cannot be run.
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


def spans(state: SceneState) -> list[tuple[int, int]]:
    """First and last-plus-one frame of every person's span."""
    found = []
    for valid in state.valid:
        frames = torch.nonzero(valid)[:, 0]
        found.append((int(frames[0]), int(frames[-1]) + 1))
    return found


def scene_of(state: SceneState) -> Scene:
    """The solver's unknowns of a state, each person over its own span."""
    people = []
    for index, (start, stop) in enumerate(spans(state)):
        vectors = torch.cat([state.root_orient[index, :, None], state.body_pose[index]], dim=1)
        rotations = roma.rotvec_to_rotmat(vectors[start:stop])
        people.append(Person(rotations, state.pelvis[index, start:stop], state.betas[index]))
    return Scene(tuple(people), state.log_scale, state.ground)


def state_of(scene: Scene, before: SceneState) -> SceneState:
    """`before` with the solved unknowns in place; frames outside a span hold its nearest frame."""
    root, pelvis, pose = [], [], []
    frames = before.valid.shape[1]
    for person, (start, stop) in zip(scene.people, spans(before), strict=True):
        vectors = roma.rotmat_to_rotvec(person.rotations)
        held = torch.arange(frames).clamp(start, stop - 1) - start
        root.append(vectors[held, 0])
        pose.append(vectors[held, 1:])
        pelvis.append(person.pelvis[held])
    return replace(
        before,
        root_orient=torch.stack(root),
        pelvis=torch.stack(pelvis),
        body_pose=torch.stack(pose),
        betas=torch.stack([person.betas for person in scene.people]),
        log_scale=scene.log_scale,
        ground=scene.ground,
    )


def gather_evidence(
    state: SceneState,
    observations: Observations,
    initial: Initial,
    points: PointSet,
    height_m: Float[Tensor, "N"],
    cuts: tuple[int, ...],
) -> list[Evidence]:
    """The constants of the solve for every person, over its span."""
    cameras = state.cameras
    keypoint_points = torch.tensor([points.names.index(n) for n in observations.keypoint_names])
    linked = torch.ones(state.valid.shape[1], dtype=torch.bool)
    linked[-1] = False
    for cut in cuts:
        linked[cut - 1] = False
    sizes = apparent_size(observations)
    gathered = []
    for index, (start, stop) in enumerate(spans(state)):
        span = slice(start, stop)
        own_linked = linked[span].clone()
        own_linked[-1] = False
        camera = initial_world_rotations(state, initial, index)[span]
        confidence = (
            initial.confidence[index, span]
            if initial.confidence is not None
            else initial.valid[index, span, None].expand(-1, 22).to(camera)
        )
        height = float(height_m[index])
        gathered.append(
            Evidence(
                keypoints=observations.keypoints[index, span],
                confidence=observations.confidence[index, span],
                keypoint_points=keypoint_points,
                size_px=sizes[index, span],
                cam_from_world=cameras.world_from_cam[span, :3, :3].transpose(1, 2),
                centres=cameras.world_from_cam[span, :3, 3],
                intrinsics=cameras.intrinsics[span],
                contacts=state.contacts[index, span],
                times=observations.timestamps[span],
                linked=own_linked,
                initial_rotations=camera,
                initial_confidence=confidence,
                height_m=height if height == height else None,
            )
        )
    return gathered


def initial_world_rotations(
    state: SceneState, initial: Initial, index: int
) -> Float[Tensor, "T 22 3 3"]:
    """The start's root (turned into the world) and local joint rotations."""
    root = state.cameras.world_from_cam[:, :3, :3] @ initial.cam_from_root[index, :, :3, :3]
    joints = roma.rotvec_to_rotmat(initial.body_pose[index])
    return torch.cat([root[:, None], joints], dim=1)


def apparent_size(observations: Observations) -> Float[Tensor, "N T"]:
    """Apparent size of each person, px: the longer side of its box, median over a second, gaps filled.

    Keypoint errors grow with it; a running median keeps one wrong box from changing the weights.
    """
    boxes = observations.boxes
    side = (boxes[..., 2:] - boxes[..., :2]).amax(dim=-1)
    half = max(1, round(observations.fps / 2))
    sizes = torch.full_like(side, torch.nan)
    for frame in range(side.shape[1]):
        near = side[:, max(0, frame - half) : frame + half + 1]
        sizes[:, frame] = torch.nanmedian(near, dim=1).values
    overall = torch.nanmedian(side, dim=1, keepdim=True).values
    return torch.where(torch.isfinite(sizes), sizes, overall).clamp_min(8.0)
