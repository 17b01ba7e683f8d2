"""One function per step of the pipeline: which backend, from which files, under which stamp."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from tqdm import tqdm

from slamhmr.artifacts import report_from_json, report_to_json
from slamhmr.body import BodyModel
from slamhmr.camera_step import track_camera as track_camera
from slamhmr.cameras import segment_starts
from slamhmr.checkpoint import Checkpoint
from slamhmr.config import Config, backend_options
from slamhmr.constraints import Constraints
from slamhmr.detect.tracklets import repair_tracks
from slamhmr.device import choose as choose_device
from slamhmr.device import memory_guarded
from slamhmr.device import required_memory as device_memory
from slamhmr.device import resources as device_resources
from slamhmr.errors import ConfigError
from slamhmr.exhaustion import memory_told
from slamhmr.export.result import build_result
from slamhmr.init.cast import leave_out_unplaced, leave_out_unseen
from slamhmr.init.stature import fit_heights
from slamhmr.judgement import judge_result
from slamhmr.nonsense import muted
from slamhmr.posterior import Calibration, posterior, with_offsets
from slamhmr.preemption import WATCH
from slamhmr.registry import DETECTORS, INITIALISERS, backend
from slamhmr.runfolder import RunFolder
from slamhmr.scene_problem import NEEDED_TERMS, Known, check_stage
from slamhmr.sequence import (
    Sequence,
    known_heights,
    prepare_observations,
    used_ids,
    with_people,
)
from slamhmr.solve.sweep import Resources
from slamhmr.sources import (
    choose,
    input_files,
    pixels,
    read_files,
    required,
    shooting,
    with_file,
)
from slamhmr.stages import Reached, run_stage
from slamhmr.terms import term_settings
from slamhmr.types import (
    CameraTrack,
    Initial,
    Observations,
    Result,
    SceneState,
    StageReport,
    Views,
)
from slamhmr.undistort import undistort_observations

PREPARE = "slamhmr.sequence"  # what is done to the files of a sequence before they are used


def stage_files(config: Config) -> list[str]:
    """Names of the files of the scheduled stages: "4_root", "5_smooth", ..."""
    return [f"{number}_{name}" for number, name in enumerate(config.schedule, start=4)]


def files(config: Config, *, several_views: bool = False) -> list[str]:
    """Names of all numbered files of a run."""
    seen = ["1_observations", *(["1_views"] if several_views else [])]
    return [*seen, "2_cameras", "3_initial", *stage_files(config)]


def check_schedule(config: Config) -> None:
    """Raise ConfigError if a stage or the posterior names something that does not exist."""
    for name in config.schedule:
        check_stage(name, config.stages[name])
    free = with_offsets(config.stages[config.schedule[-1]]).free
    for term, values in config.posterior.weights.items():
        chosen = term_settings("posterior.weights", term, values, 0)
        held = [name for name in free if term in NEEDED_TERMS.get(name, ())]
        if len(held) > 0 and chosen.weight == 0:
            raise ConfigError(
                f"posterior.weights.{term}.weight is 0; the free unknown '{held[0]}' needs it"
            )
    for name in ("relative", "absolute", "scale", "ground"):
        value = getattr(config.posterior, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"posterior.{name} is {value}, must be above 0")


def observe(run: RunFolder, sequence: Sequence, config: Config, progress: bool) -> Observations:
    """Step 1: everybody's keypoints, from observations.npz or a detector."""
    name = choose(config.detect, sequence.observations, "blazepose")
    cuts = () if name == "file" else sequence.cuts  # a file says itself who is who
    notes: list[str] = []
    module = backend("detect", name)
    options: Any = None
    if name != "file":
        options = backend_options(module.Options, name, config)
        options = with_file(options, module, sequence.folder)
    tracked = [] if name == "file" else read_files(options, module)  # by somebody else

    def repair(found: Observations) -> Observations:
        if name != "file" and len(tracked) == 0:
            return found  # our own detector has done so with the pixels at hand
        # a given start is bound to the ids of its file
        repaired, said = repair_tracks(
            found, sequence.cuts, identities=sequence.initial is None, named=used_ids(sequence)
        )
        notes.extend(said)
        return repaired

    def compute() -> Observations:
        if name == "file":
            found = module.read_observations(required(sequence.observations, "observations.npz"))
            notes.extend(
                f"person {person} is left out: no keypoint is seen in any frame"
                for person in found.person_id[~found.seen.any(dim=1)].tolist()
            )
            intrinsics, distortion = sequence.settings.intrinsics, sequence.settings.distortion
            if intrinsics is not None and distortion is not None:
                found = undistort_observations(found, intrinsics, distortion)
        else:
            video = pixels(sequence, f"detect={name}")
            with memory_told(f"detect={name}"):
                found = module.detect(video, options, cuts=cuts, progress=progress)
        return prepare_observations(found, sequence, repair)

    value, _ = run.step(
        "1_observations",
        Observations,
        compute,
        settings=[
            name,
            config.options.get(name),
            *shooting(sequence),
            cuts,
            sequence.cuts,
            sequence.initial is None,
            sorted(used_ids(sequence)) if name == "file" or len(tracked) > 0 else None,
            _corrections(sequence),
        ],
        inputs=[
            *input_files(sequence, sequence.observations if name == "file" else None),
            *tracked,
        ],
        code=(DETECTORS[name], PREPARE, "slamhmr.detect.tracklets", "slamhmr.undistort"),
        note=lambda: {"people": notes},
    )
    return value


def repairs(run: RunFolder) -> tuple[str, ...]:
    """What step 1 repaired of who is who and of left and right, in sentences."""
    return tuple(run.notes.get("1_observations", {}).get("people", ()))


@dataclass(frozen=True)
class Cast:
    """The people whom the stages are given, and the words on who is left out."""

    sequence: Sequence  # what it says of those who are left out is gone
    observations: Observations
    initial: Initial
    notes: tuple[str, ...]


def initialise(
    run: RunFolder,
    sequence: Sequence,
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    config: Config,
) -> Cast:
    """Step 3: everybody's pose in the camera, from initial.npz or from the keypoints.

    What is returned has the known heights, which are not in the file, and lacks the people who
    cannot be solved for. Raises BackendError if nobody can.
    """
    name = choose(config.init, sequence.initial, "lift")
    unseen: tuple[str, ...] = ()
    if name != "file":
        observations, unseen = leave_out_unseen(observations)
        sequence = with_people(sequence, observations.person_id.tolist())

    module = backend("init", name)
    options: Any
    if name == "file":
        options = module.Options(path=str(required(sequence.initial, "initial.npz")))
    else:
        options = backend_options(module.Options, name, config)
        options = with_file(options, module, sequence.folder)

    def compute() -> Initial:
        cuts = segment_starts(cameras, sequence.cuts)
        with memory_told(f"init={name}"):
            chosen = _on_device(options, name, config)
            return module.initialise(observations, cameras, body, chosen, cuts=cuts)

    made_of = [run.path("1_observations.npz"), run.path("2_cameras.npz")]
    value, _ = run.step(
        "3_initial",
        Initial,
        compute,
        settings=[
            name,
            config.options.get(name),
            sequence.settings.people,
            sequence.cuts,
            config.body,
            config.seed,
        ],
        inputs=[*made_of, *read_files(options, module)],
        code=(
            *(INITIALISERS.values() if name == "wham" else (INITIALISERS[name],)),
            *(("slamhmr.init.imported",) if hasattr(module, "FILES") else ()),
            "slamhmr.init.cast",
        ),
    )
    initial = fit_heights(value, body, known_heights(sequence, observations))
    initial, observations, unplaced = leave_out_unplaced(initial, observations, body)
    sequence = with_people(sequence, observations.person_id.tolist())
    return Cast(sequence, observations, initial, (*unseen, *unplaced))


@dataclass(frozen=True)
class Start:
    """What every stage is given beside the state: constant over the schedule."""

    sequence: Sequence
    observations: Observations
    initial: Initial
    body: BodyModel
    config: Config
    score: dict[str, object]  # of the start, by `reprojection.score`
    views: Views | None = None  # further cameras

    @property
    def known(self) -> Known:
        """What the solver is given of it."""
        heights = known_heights(self.sequence, self.observations)
        cuts = self.sequence.cuts
        seen = muted(self.observations, self.score)
        return Known(seen, self.initial, self.body, heights, cuts, self.views)


def required_memory(observations: Observations, config: Config) -> str:
    """A sentence on the memory that the solve needs; BackendError where it clearly lacks."""
    people, frames = observations.keypoints.shape[:2]
    size = observations.image_size
    return device_memory(config.device, config.threads, frames, people, size)


def solve_stage(
    run: RunFolder, state: SceneState, start: Start, *, file: str, after: str, progress: bool
) -> tuple[SceneState, StageReport]:
    """Step 4 and on: the stage that `file` ("4_root") names, on the state of the file `after`."""
    name = file.split("_", 1)[1]
    settings, last = start.config.stages[name], name == start.config.schedule[-1]
    known, contacts = start.known, start.sequence.constraints.contacts
    reports: list[StageReport] = []
    fixed = start.config.body, start.config.seed

    def compute() -> SceneState:
        checkpoint = Checkpoint(run.checkpoint(file), run.making)
        bar = tqdm(desc=name, unit=" iterations", disable=not progress)

        def keep(reached: Reached) -> None:
            _advance(bar, reached)
            checkpoint.keep(reached)

        with bar, _solver(f"stage '{name}'", start) as allowed, WATCH.held():
            solved, report = run_stage(
                state,
                known,
                name,
                settings,
                resources=allowed,
                start_percent=float(str(start.score["mean_percent"])) if last else None,
                on_iteration=keep,
                reached=checkpoint.read(),
            )
        reports.append(report)
        return solved

    seen = ["1_observations", *(["1_views"] if start.views is not None else [])]
    made_of = dict.fromkeys([*seen, "2_cameras", "3_initial", after])
    solved, note = run.step(
        file,
        SceneState,
        compute,
        settings=[settings, last, known.height_m, known.cuts, contacts, *fixed],
        inputs=[run.path(f"{made}.npz") for made in made_of],
        code=(
            "slamhmr.stages",
            "slamhmr.nonsense",
            "slamhmr.init.segments",
            "slamhmr.init.stature",
            "slamhmr.init.cast",
            "slamhmr.constraints",
        ),
        note=lambda: report_to_json(reports[0]),
    )
    WATCH.obey()  # asked after the last iteration: the stage is written now
    return solved, report_from_json(note)


def conclude(
    run: RunFolder, state: SceneState, start: Start, *, after: str, provenance: dict[str, object]
) -> tuple[Result, dict[str, Any]]:
    """The step that turns the last state into the deliverable, with its uncertainty.

    Frames that fail alone are not `valid` in it.

    Also what the posterior says of the unknowns that all share, for the report.
    """
    config, last = start.config, start.config.schedule[-1]
    notes: dict[str, Any] = {}

    def compute() -> Result:
        found = None
        if config.posterior.enabled:
            values = {f.name: getattr(config.posterior, f.name) for f in fields(Calibration)}
            with _solver("posterior", start) as allowed:
                found = posterior(
                    state,
                    start.known,
                    last,
                    config.stages[last],
                    Calibration(**values),
                    resources=allowed,
                )
            notes.update(prior_share=found.prior_share, seconds=found.seconds)
        whole = build_result(
            state,
            start.body,
            start.observations,
            body_model=config.body.model,
            provenance=provenance,
            found=found,
        )
        cuts = segment_starts(state.cameras, start.sequence.cuts)
        return judge_result(
            whole, state, start.observations, start.body, config.gates, cuts,
            measured=~start.known.height_m.isnan() | (start.views is not None),
        )[0]  # fmt: skip

    return run.step(
        "result",
        Result,
        compute,
        settings=[config.body, config.posterior, config.gates, config.stages[last], provenance],
        inputs=[run.path(f"{after}.npz")],
        code=(
            "slamhmr.export.result",
            "slamhmr.nonsense",
            "slamhmr.posterior",
            "slamhmr.judgement",
        ),
        note=lambda: notes,
    )


@contextmanager
def _solver(what: str, start: Start) -> Iterator[Resources]:
    """What the configuration's device gives a solve, whose memory running out is said."""
    config, (people, frames) = start.config, start.observations.keypoints.shape[:2]
    allowed = device_resources(config.device, config.threads, frames, people)
    with memory_guarded(what, allowed.device, frames, people):
        yield allowed


def _on_device(options: Any, name: str, config: Config) -> Any:
    """A backend's options with the run's device, unless they name their own."""
    if not hasattr(options, "device") or "device" in config.options.get(name, {}):
        return options
    return dataclasses.replace(options, device=str(choose_device(config.device).device))


def _advance(bar: Any, reached: Reached) -> None:
    if reached.progress is not None:
        bar.set_postfix_str(f"energy {reached.progress.energy:.4g}")
    bar.update()


def _corrections(sequence: Sequence) -> Constraints:
    """The part of constraints.yaml that changes the observations."""
    return dataclasses.replace(sequence.constraints, height_m={}, contacts=[])
