"""One function per step of the pipeline: which backend, from which files, under which stamp."""

import dataclasses
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from slamhmr.artifacts import report_from_json, report_to_json
from slamhmr.body import BodyModel
from slamhmr.config import Config, backend_options, build
from slamhmr.constraints import Constraints
from slamhmr.errors import BackendError, ConfigError, InputError
from slamhmr.export.result import build_result
from slamhmr.geometry import default_intrinsics
from slamhmr.init.stature import fit_heights
from slamhmr.posterior import Calibration, posterior
from slamhmr.registry import DETECTORS, INITIALISERS, SLAM, backend
from slamhmr.runfolder import RunFolder
from slamhmr.scene_problem import Known, check_stage
from slamhmr.sequence import (
    Sequence,
    known_heights,
    prepare_cameras,
    prepare_observations,
)
from slamhmr.slam.intrinsics import known_intrinsics
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage
from slamhmr.terms import term_settings
from slamhmr.types import CameraTrack, Initial, Observations, Result, SceneState, StageReport, Video
from slamhmr.undistort import undistort_observations

# What the configuration and sequence.yaml may not say of the camera together.
CONTRADICTIONS = {("static", "moving"), ("rotation", "static"), ("sfm", "static")}
PREPARE = "slamhmr.sequence"  # what is done to the files of a sequence before they are used


def stage_files(config: Config) -> list[str]:
    """Names of the files of the scheduled stages: "4_root", "5_smooth", ..."""
    return [f"{number}_{name}" for number, name in enumerate(config.schedule, start=4)]


def files(config: Config) -> list[str]:
    """Names of all numbered files of a run."""
    return ["1_observations", "2_cameras", "3_initial", *stage_files(config)]


def check_schedule(config: Config) -> None:
    """Raise ConfigError if a stage or the posterior names something that does not exist."""
    for name in config.schedule:
        check_stage(name, config.stages[name])
    for term, values in config.posterior.weights.items():
        chosen = term_settings("posterior.weights", term, values, 0)
        if term in ("camera", "gravity", "focal") and chosen.weight == 0:
            raise ConfigError(f"posterior.weights.{term}.weight is 0; the unknown needs a prior")
    for name in ("keypoint_bias", "relative", "absolute", "scale", "ground"):
        value = getattr(config.posterior, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"posterior.{name} is {value}, must be above 0")


def observe(run: RunFolder, sequence: Sequence, config: Config, progress: bool) -> Observations:
    """Step 1: everybody's keypoints, from observations.npz or a detector."""
    name = _choose(config.detect, sequence.observations, "blazepose")
    cuts = () if name == "file" else sequence.cuts  # a file says itself who is who

    def compute() -> Observations:
        module = backend("detect", name)
        if name == "file":
            found = module.read_observations(_given(sequence.observations, "observations.npz"))
            intrinsics, distortion = sequence.settings.intrinsics, sequence.settings.distortion
            if intrinsics is not None and distortion is not None:
                found = undistort_observations(found, intrinsics, distortion)
        else:
            options = backend_options(module.Options, name, config)
            video = _video(sequence, f"detect={name}")
            found = module.detect(video, options, cuts=cuts, progress=progress)
        return prepare_observations(found, sequence)

    value, _ = run.step(
        "1_observations",
        Observations,
        compute,
        settings=[
            name,
            config.options.get(name),
            *_shooting(sequence),
            cuts,
            _corrections(sequence),
        ],
        inputs=_inputs(sequence, sequence.observations if name == "file" else None),
        code=(DETECTORS[name], PREPARE, "slamhmr.undistort"),
    )
    return value


def track_camera(
    run: RunFolder, sequence: Sequence, observations: Observations, config: Config, progress: bool
) -> CameraTrack:
    """Step 2: the camera's path, from cameras.npz or from the pixels.

    Raises BackendError if there is none to be had; a degraded one must be allowed.
    """
    said = sequence.settings.camera
    if (config.slam, said) in CONTRADICTIONS:
        raise InputError(f"slam={config.slam} contradicts camera: {said} in sequence.yaml")
    name = _choose(config.slam, sequence.cameras, "static" if said == "static" else "auto")

    def compute() -> CameraTrack:
        module = backend("slam", name)
        intrinsics, notes = _intrinsics(sequence, observations)
        if name == "file":
            path = _given(sequence.cameras, "cameras.npz")
            cameras = module.read_cameras(
                path,
                frame_count=None if sequence.frames else observations.keypoints.shape[1],
                intrinsics=intrinsics,
                image_size=observations.image_size,
            )
            if path.suffix != ".txt":  # only a TUM file needs the intrinsics
                notes = ()
            cameras = dataclasses.replace(cameras, notes=(*notes, *cameras.notes))
            return prepare_cameras(cameras, sequence, observations)
        options = _camera_options(module.Options, name, sequence, config)
        video = _video(sequence, f"slam={name}")
        try:
            cameras = module.track_camera(
                video, observations, intrinsics, options, progress=progress
            )
        except BackendError as e:
            raise BackendError(f"{e}{_blame(sequence.cuts)}") from e
        return dataclasses.replace(cameras, notes=(*notes, *cameras.notes))

    value, _ = run.step(
        "2_cameras",
        CameraTrack,
        compute,
        settings=[
            name,
            config.options.get(name),
            *_shooting(sequence),
            sequence.settings.camera,
            config.allow_degraded,
        ],
        inputs=_inputs(
            sequence, sequence.cameras if name == "file" else None, run.path("1_observations.npz")
        ),
        code=(*SLAM.values(), PREPARE) if name == "auto" else (SLAM[name], PREPARE),
    )
    return value


def initialise(
    run: RunFolder,
    sequence: Sequence,
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    config: Config,
) -> Initial:
    """Step 3: everybody's pose in the camera, from initial.npz or from the keypoints.

    What is returned has the known heights, which are not in the file.
    """
    name = _choose(config.init, sequence.initial, "lift")

    def compute() -> Initial:
        module = backend("init", name)
        if name == "file":
            options = module.Options(path=str(_given(sequence.initial, "initial.npz")))
        else:
            options = backend_options(module.Options, name, config)
        return module.initialise(observations, cameras, body, options, cuts=sequence.cuts)

    made_of = [run.path("1_observations.npz"), run.path("2_cameras.npz")]
    given = sequence.initial if name == "file" else None
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
        inputs=[*made_of, *([given] if given is not None else [])],
        code=tuple(INITIALISERS.values()) if name == "wham" else (INITIALISERS[name],),
    )
    return fit_heights(value, body, known_heights(sequence, observations))


@dataclass(frozen=True)
class Start:
    """What every stage is given beside the state: constant over the schedule."""

    sequence: Sequence
    observations: Observations
    initial: Initial
    body: BodyModel
    config: Config
    score: dict[str, object]  # of the start, by `reprojection.score`

    @property
    def known(self) -> Known:
        """What the solver is given of it."""
        heights = known_heights(self.sequence, self.observations)
        cuts = self.sequence.cuts
        return Known(self.observations, self.initial, self.body, heights, cuts)


def solve_stage(
    run: RunFolder, state: SceneState, start: Start, *, file: str, after: str, progress: bool
) -> tuple[SceneState, StageReport]:
    """Step 4 and on: the stage that `file` ("4_root") names, on the state of the file `after`."""
    name = file.split("_", 1)[1]
    settings, last = start.config.stages[name], name == start.config.schedule[-1]
    known, contacts = start.known, start.sequence.constraints.contacts
    reports: list[StageReport] = []

    def compute() -> SceneState:
        with tqdm(desc=name, unit=" iterations", disable=not progress) as bar:
            solved, report = run_stage(
                state,
                known,
                name,
                settings,
                resources=Resources(start.config.threads),
                start_percent=float(str(start.score["mean_percent"])) if last else None,
                on_iteration=lambda _, energy: _advance(bar, energy),
            )
        reports.append(report)
        return solved

    made_of = dict.fromkeys(["1_observations", "2_cameras", "3_initial", after])
    solved, note = run.step(
        file,
        SceneState,
        compute,
        settings=[
            settings,
            last,
            known.height_m,
            known.cuts,
            contacts,
            start.config.body,
            start.config.seed,
        ],
        inputs=[run.path(f"{made}.npz") for made in made_of],
        code=(
            "slamhmr.stages",
            "slamhmr.init.align",
            "slamhmr.init.stature",
            "slamhmr.constraints",
        ),
        note=lambda: report_to_json(reports[0]),
    )
    return solved, report_from_json(note)


def conclude(
    run: RunFolder, state: SceneState, start: Start, *, after: str, provenance: dict[str, object]
) -> tuple[Result, dict[str, Any]]:
    """The step that turns the last state into the deliverable, with its uncertainty.

    Also what the posterior says of the unknowns that all share, for the report.
    """
    config, last = start.config, start.config.schedule[-1]
    notes: dict[str, Any] = {}

    def compute() -> Result:
        found = None
        if config.posterior.enabled:
            values = {f.name: getattr(config.posterior, f.name) for f in fields(Calibration)}
            found = posterior(
                state,
                start.known,
                last,
                config.stages[last],
                Calibration(**values),
                resources=Resources(config.threads),
            )
            notes.update(prior_share=found.prior_share, seconds=found.seconds)
        return build_result(
            state,
            start.body,
            start.observations,
            body_model=config.body.model,
            provenance=provenance,
            found=found,
        )

    return run.step(
        "result",
        Result,
        compute,
        settings=[config.body, config.posterior, config.stages[last], provenance],
        inputs=[run.path(f"{after}.npz")],
        code=("slamhmr.export.result", "slamhmr.posterior"),
        note=lambda: notes,
    )


def _advance(bar: Any, energy: float) -> None:
    bar.set_postfix_str(f"energy {energy:.4g}")
    bar.update()


def _choose(asked: str, given: Path | None, otherwise: str) -> str:
    if asked != "auto":
        return asked
    return "file" if given is not None else otherwise


def _given(path: Path | None, name: str) -> Path:
    if path is None:
        raise InputError(f"'{name}' is not in the sequence directory, but the config asks for it")
    return path


def _video(sequence: Sequence, wanted_by: str) -> Video:
    if sequence.video is None:
        raise InputError(f"'{sequence.folder}' holds no video, which {wanted_by} needs")
    return sequence.video


def _camera_options(options_type: Any, name: str, sequence: Sequence, config: Config) -> Any:
    """Options of a camera backend; what the sequence and `allow_degraded` say goes in first."""
    said: dict[str, Any] = {}
    if name in ("auto", "sfm"):
        said["allow_degraded"] = config.allow_degraded
    if name == "auto" and sequence.settings.camera == "moving":
        said["assume"] = "moving"
    return build(options_type, {**said, **config.options.get(name, {})}, f"options.{name}")


def _blame(cuts: tuple[int, ...]) -> str:
    """What to do about cuts where no camera path was found; nothing without cuts."""
    if len(cuts) == 0:
        return ""
    where = ", ".join(map(str, cuts))
    return (
        f"; the video is cut at frame {where}, and one camera path is sought for all of it: give "
        "every shot a directory of its own ('frames' in sequence.yaml) or a cameras.npz"
    )


def _inputs(sequence: Sequence, given: Path | None, *made: Path) -> list[Path]:
    """The files a step reads: the given file where there is one, the pixels otherwise."""
    if given is not None:
        return [given, *made]
    return [*([sequence.video.path] if sequence.video is not None else []), *made]


def _shooting(sequence: Sequence) -> list[object]:
    """What sequence.yaml says of the pixels: the rest of it leaves the first steps alone."""
    settings = sequence.settings
    return [settings.fps, settings.frames, settings.intrinsics, settings.distortion]


def _corrections(sequence: Sequence) -> Constraints:
    """The part of constraints.yaml that changes the observations."""
    return dataclasses.replace(sequence.constraints, height_m={}, contacts=[])


def _intrinsics(
    sequence: Sequence, observations: Observations
) -> tuple[Float[Tensor, "4"], tuple[str, ...]]:
    """Focal lengths and principal point, px, and the sentence to report if they were guessed."""
    given = sequence.settings.intrinsics
    if given is not None:
        return torch.tensor(given, dtype=torch.float64), ()
    written = known_intrinsics(sequence.video) if sequence.video is not None else None
    if written is not None:
        return written, (f"focal length from EXIF: {float(written[0]):.0f} px",)
    guessed = default_intrinsics(observations.image_size)
    note = f"focal length guessed: {float(guessed[0]):.0f} px, the diagonal of the image"
    return guessed, (note,)
