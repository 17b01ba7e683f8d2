"""Camera that travels, by DROID-SLAM (Teed and Deng, NeurIPS 2021), with people left out.

The official package runs as it is, in this process or in an environment of its own (`python`),
through `third_party/droid_slam/run.py`; how to install it stands beside that file. Pinned:
princeton-vl/DROID-SLAM@2dfd39f. Its defaults here are those of its demo.py, but for `filter_thresh`
and `stride`, which are those of SLAHMR (vye16/slahmr@628d982, preproc/run_slam.py).

What it is known to crash on is found first: a camera that stands still or only turns (told from the
pixels, and taken as such), clips with fewer frames than it starts with, more keyframes than fit.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.components import (
    GIB,
    Lack,
    devices,
    lacking_commit,
    lacking_file,
    lacking_gpu,
    lacking_package,
    own_install,
    require,
)
from slamhmr.errors import BackendError, ConfigError
from slamhmr.exhaustion import exhausted
from slamhmr.foreign import run_foreign, script_path
from slamhmr.slam import rotation, static
from slamhmr.slam.checks import distrust_path
from slamhmr.slam.classify import Motion, classify
from slamhmr.slam.droid_frames import Reduction, camera_path, tracked_frames, write_frames
from slamhmr.slam.tracks import Tracks, follow_background
from slamhmr.types import CameraTrack, Observations, Video

log = logging.getLogger(__name__)

SCRIPT = "droid_slam/run.py"
RECIPE = "third_party/droid_slam/README.md"
# The pinned commit, and the older one whose calls are the same.
COMMITS = ("2dfd39f0dcad44012ca7bbb8aa70b55edbfa9c99", "8016d2b9b72b101a3e9ac804ebf20b4c654dc291")
CLONE = "git clone https://github.com/princeton-vl/DROID-SLAM.git"
GET_WEIGHTS = (
    "pip install gdown; gdown 1PpqVt1H4maBa_GbPJp4NwxRsd9jk-elh, then options.droid.weights=PATH"
)
LEAST_GIB = 10.2  # "a GPU with at least 11G" (its README); such cards report 10.7 GiB and more
RESERVED = 17  # slots of the buffer that are no keyframes, as in run.py
LEAST_BUFFER = 64
# Bytes of a keyframe's slot per px (droid_slam/depth_video.py): picture 3, upsampled disparity 4,
# two disparities of 4 and three maps of 128 half floats in every cell of 64 px.
SLOT_BYTES = 3 + 4 + (2 * 4 + 3 * 128 * 2) / 64
BUFFER_SHARE = 0.4  # of the GPU's memory that the buffer may take; edges and maps take the rest


@dataclass(frozen=True)
class Options:
    """Settings of DROID-SLAM; thresholds in px at an eighth of the reduced picture's size."""

    repository: str = ""  # clone of princeton-vl/DROID-SLAM
    weights: str = ""  # droid.pth
    python: str = ""  # interpreter of the environment that has its packages; "": this one
    timeout_s: float = 0.0  # of that environment; 0: as long as it takes
    check: bool = True  # look first whether the camera travels, and do not run it if not
    mask: bool = True  # leave people out
    mask_grow: int = 1  # cells of 8 px around them that are left out too
    stride: int = 1  # every so many frames are tracked, those between are interpolated
    area: int = 384 * 512  # px of the reduced picture
    buffer: int = 0  # keyframes that fit; 0: as many as the clip may need and the GPU holds
    filter_thresh: float = 1.0  # mean motion that makes a frame a keyframe for now
    warmup: int = 8  # keyframes that it starts with
    keyframe_thresh: float = 4.0  # distance under which a keyframe is dropped again
    beta: float = 0.3  # weight of rotation against translation in that distance
    frontend_thresh: float = 16.0
    frontend_window: int = 25
    frontend_radius: int = 2
    frontend_nms: int = 1
    backend_thresh: float = 22.0
    backend_radius: int = 2
    backend_nms: int = 3


# Settings that Droid's args take under the same names.
PASSED = (
    "filter_thresh", "warmup", "keyframe_thresh", "beta", "frontend_thresh", "frontend_window",
    "frontend_radius", "frontend_nms", "backend_thresh", "backend_radius", "backend_nms",
)  # fmt: skip


def _check_out(folder: str) -> str:
    """The commands that bring a clone to the pinned commit."""
    git = f"git -C {folder}"
    return f"{git} checkout {COMMITS[0]} && {git} submodule update --init --recursive"


def lacking(options: Options) -> list[Lack]:
    """What DROID-SLAM needs and does not have: its clone, packages, weights and a GPU."""
    code = "" if options.repository == "" else f"{options.repository}/droid_slam/droid.py"
    clone = f"{CLONE} && {_check_out('DROID-SLAM')}, then options.droid.repository=PATH ({RECIPE})"
    what = "code of slam 'droid' (options.droid.repository)"
    lacks = lacking_file(code, what, clone)
    if len(lacks) == 0:
        lacks = lacking_commit(options.repository, COMMITS, what, _check_out(options.repository))
    python = options.python or None
    build = "pip install --no-build-isolation"
    here = options.repository or "DROID-SLAM"
    for module, name, folder in (
        ("droid_backends", "droid_backends", here),
        ("lietorch", "lietorch", f"{here}/thirdparty/lietorch"),
        ("torch_scatter", "torch-scatter", f"{here}/thirdparty/pytorch_scatter"),
    ):
        install = f"{own_install('droid', flags='--no-build-isolation')}, or in an environment of "
        install += f"its own ({RECIPE})"
        if python is not None:
            install = f"{python} -m {build} {folder} ({RECIPE})"
        lacks += lacking_package(module, install, distribution=name, python=python)
    lacks += lacking_file(
        options.weights, "weights of slam 'droid' (options.droid.weights)", GET_WEIGHTS
    )
    return [*lacks, *lacking_gpu("slam 'droid'", LEAST_GIB, python=python)]


def track_camera(
    video: Video,
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    *,
    progress: bool,
) -> CameraTrack:
    """Path of the camera in every frame, frame 0 at identity, in an arbitrary scale.

    A camera that stands still or only turns is taken as that, and the notes say so, unless `check`
    is off. Raises ConfigError for impossible settings, MissingAsset for what is missing,
    BackendError where the clip is too short or DROID-SLAM fails.
    """
    check_options(options)
    require(lacking(options))
    numbers = tracked_frames(video.frame_count, options.stride)
    if len(numbers) < options.warmup:
        raise BackendError(
            f"slam=droid: the clip has {len(numbers)} frames (stride {options.stride}), fewer than "
            f"the {options.warmup} that DROID-SLAM starts with; lower options.droid.stride, or "
            "take slam=auto"
        )
    notes: tuple[str, ...] = ()
    if options.check:
        motion, tracks, notes = _motion(video, observations, intrinsics, progress=progress)
        if motion is not None and motion.kind == "static":
            return static.stand_still(video, intrinsics, f"{notes[0]}; DROID-SLAM was not run")
        if motion is not None and motion.kind == "rotation":
            turns = (f"{notes[0]}; DROID-SLAM was not run",)
            return rotation.turn(video, observations, tracks, intrinsics, turns)
    reduction = Reduction.to_area(video.image_size, options.area)
    buffer, said = buffer_size(options, len(numbers), reduction)
    notes = (*notes, *said)
    with tempfile.TemporaryDirectory(prefix="slamhmr-droid-") as folder:
        file = Path(folder) / "frames.npy"
        write_frames(file, video, numbers, reduction, progress=progress)
        arrays = _arrays(observations, intrinsics, numbers, reduction, options)
        answer = _run(arrays, _settings(options, buffer, file), options)
    return _track(answer, video, intrinsics, numbers, notes, options)


def check_options(options: Options) -> None:
    """Raise ConfigError for settings that DROID-SLAM cannot run with."""
    least = {"stride": 1, "warmup": 5, "mask_grow": 0, "area": 64 * 64, "frontend_window": 5}
    for name, value in least.items():
        if getattr(options, name) < value:
            given = getattr(options, name)
            raise ConfigError(f"options.droid.{name}={given} is too small, at least {value}")
    for name in PASSED[:1] + PASSED[2:3] + ("frontend_thresh", "backend_thresh"):
        if not getattr(options, name) > 0:
            raise ConfigError(f"options.droid.{name}={getattr(options, name)} must be positive")
    if options.buffer != 0 and options.buffer < options.warmup + RESERVED:
        raise ConfigError(
            f"options.droid.buffer={options.buffer} is too small, at least "
            f"{options.warmup + RESERVED}; 0 chooses it"
        )


def buffer_size(options: Options, frames: int, reduction: Reduction) -> tuple[int, tuple[str, ...]]:
    """Slots for keyframes, and a sentence where not every frame could become one."""
    slot = SLOT_BYTES * reduction.size[0] * reduction.size[1]
    memory = max((gpu.gib for gpu in devices()), default=LEAST_GIB) * GIB
    fits = max(LEAST_BUFFER, int(BUFFER_SHARE * memory / slot))
    wanted = max(LEAST_BUFFER, frames + RESERVED)
    buffer = options.buffer if options.buffer > 0 else min(wanted, fits)
    log.info(
        "slam=droid: %d frames of %d x %d px, buffer of %d keyframes (%.1f GB of the GPU)",
        frames, *reduction.size, buffer, buffer * slot / 1e9,
    )  # fmt: skip
    if frames + RESERVED <= buffer:
        return buffer, ()
    note = (
        f"DROID-SLAM's buffer holds {buffer - RESERVED} keyframes and the clip has {frames} "
        "tracked frames: it stops where more of them become keyframes "
        "(options.droid.buffer, stride, filter_thresh)"
    )
    log.warning("slam=droid: %s", note)
    return buffer, (note,)


def _motion(
    video: Video, observations: Observations, intrinsics: Float[Tensor, "4"], *, progress: bool
) -> tuple[Motion | None, Tracks, tuple[str, ...]]:
    """What the background says of the camera's motion; None where it says nothing."""
    tracks = follow_background(video, observations, longest_side=640, count=800, progress=progress)
    try:
        motion = classify(tracks, intrinsics.double().numpy())
    except BackendError as e:
        log.warning("slam=droid: the camera's motion could not be classified: %s", e)
        return None, tracks, ("the camera's motion could not be classified before DROID-SLAM ran",)
    log.info("%s", motion.note())
    return motion, tracks, (motion.note(),)


def _arrays(
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    numbers: list[int],
    reduction: Reduction,
    options: Options,
) -> dict[str, NDArray[Any]]:
    """The arrays of IN.npz."""
    arrays: dict[str, NDArray[Any]] = {
        "intrinsics": reduction.intrinsics(intrinsics.double().numpy()),
        "numbers": np.array(numbers),
    }
    if options.mask:
        cells = [reduction.people(observations, n, options.mask_grow) for n in numbers]
        arrays["people"] = np.stack(cells)
    return arrays


def _settings(options: Options, buffer: int, frames: Path) -> dict[str, Any]:
    """The settings of IN.npz."""
    droid: dict[str, Any] = {name: getattr(options, name) for name in PASSED}
    droid |= {"buffer": buffer, "stereo": False, "upsample": False, "disable_vis": True}
    droid |= {"asynchronous": False, "frontend_device": "cuda", "backend_device": "cuda"}
    return {
        "repository": str(Path(options.repository).expanduser().resolve()),
        "weights": str(Path(options.weights).expanduser().resolve()),
        "frames": str(frames),
        "droid": droid,
    }


def _run(
    arrays: Mapping[str, NDArray[Any]], settings: dict[str, Any], options: Options
) -> dict[str, NDArray[Any]]:
    """What run.py makes of it, in the environment that is asked for."""
    droid = settings["droid"]
    advice = (
        f"lower options.droid.buffer (now {droid['buffer']}) or options.droid.area (now "
        f"{options.area} px), or raise options.droid.stride (now {options.stride})"
    )
    if options.python != "":
        limit = options.timeout_s if options.timeout_s > 0 else None
        return run_foreign(
            Path(options.python), SCRIPT, arrays, settings,
            what="slam=droid", timeout_s=limit, advice=advice,
        )  # fmt: skip
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            return dict(_script().run(arrays, settings))
    except Exception as e:  # whatever their code raises ends as one line
        where = exhausted(e)
        if where is not None:
            raise BackendError(f"slam=droid: out of memory of the {where}; {advice}") from e
        said = " ".join(f"{type(e).__name__}: {e}".split())
        raise BackendError(f"slam=droid: DROID-SLAM failed: {said}") from e
    finally:
        for line in printed.getvalue().splitlines():
            log.info("slam=droid: %s", line)


def _script() -> ModuleType:
    """run.py as a module of this process."""
    spec = importlib.util.spec_from_file_location("slamhmr_droid_slam_run", script_path(SCRIPT))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _track(
    answer: Mapping[str, NDArray[Any]],
    video: Video,
    intrinsics: Float[Tensor, "4"],
    numbers: list[int],
    notes: tuple[str, ...],
    options: Options,
) -> CameraTrack:
    """The answer of run.py as a track of all frames."""
    if "refused" in answer:
        raise BackendError(f"slam=droid: {answer['refused']}")
    if not {"poses", "keyframes"} <= set(answer):
        raise BackendError(f"slam=droid: run.py answered with {sorted(answer)}, not with poses")
    keyframes = int(answer["keyframes"])
    if keyframes <= 1:
        raise BackendError(f"slam=droid: DROID-SLAM kept {keyframes} keyframe, it did not start")
    path = camera_path(answer["poses"].astype(np.float64), numbers, video.frame_count)
    text = f"DROID-SLAM: {keyframes} keyframes of {len(numbers)} frames"
    text += ", people left out" if options.mask else ", people not left out"
    if options.stride > 1:
        text += f"; every {options.stride}. frame was tracked, those between are interpolated"
    tracked = path[numbers].numpy()
    doubts = distrust_path(tracked, np.ones(len(numbers), bool), video.fps / options.stride)
    if len(doubts) > 0:
        text += f"; its path may be wrong: {'; '.join(doubts)}"
        log.warning("slam=droid: the path may be wrong: %s", "; ".join(doubts))
    return CameraTrack(
        world_from_cam=path,
        intrinsics=intrinsics.double().repeat(video.frame_count, 1),
        image_size=video.image_size,
        scale_known=False,
        moving=True,
        source="droid",
        notes=(*notes, text),
    )
