"""Step 2: the camera's path, from cameras.npz or from the pixels of every shot by itself."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.config import Config, build
from slamhmr.errors import BackendError, InputError
from slamhmr.exhaustion import memory_told
from slamhmr.geometry import default_intrinsics
from slamhmr.registry import SLAM, backend
from slamhmr.runfolder import RunFolder
from slamhmr.sequence import Sequence, prepare_cameras
from slamhmr.slam.denoise import without_noise
from slamhmr.slam.edges import with_edges
from slamhmr.slam.gaps import lost_note
from slamhmr.slam.intrinsics import known_intrinsics
from slamhmr.slam.pieces import join, part_of_observations, part_of_video
from slamhmr.sources import choose, input_files, pixels, required, shooting
from slamhmr.types import DEGRADED, GUESSED, CameraTrack, Observations, Video

LOG = logging.getLogger(__name__)
# What the configuration and sequence.yaml may not say of the camera together.
CONTRADICTIONS = {
    ("static", "moving"),
    ("rotation", "static"),
    ("sfm", "static"),
    ("droid", "static"),
}
ESTIMATED = "focal length estimated"
MOST_LOST = 0.5  # share of the frames without a camera, above which nothing is solved
# Of a guess: phones have 24 to 30 mm (of full frame) where the diagonal says 43. Half of it where
# the camera does not travel: people alone say little, and the solve is led astray.
GUESS_SIGMA = 0.3


def track_camera(
    run: RunFolder, sequence: Sequence, observations: Observations, config: Config, progress: bool
) -> CameraTrack:
    """The camera's path, from cameras.npz or from the pixels.

    Raises BackendError if there is none to be had; a degraded one must be allowed.
    """
    said = sequence.settings.camera
    if (config.slam, said) in CONTRADICTIONS:
        raise InputError(f"slam={config.slam} contradicts camera: {said} in sequence.yaml")
    name = choose(config.slam, sequence.cameras, "static" if said == "static" else "auto")

    def compute() -> CameraTrack:
        if name == "file":
            cameras = _from_file(sequence, observations)
        else:
            cameras = _from_pixels(name, sequence, observations, config, progress)
        cameras = _found(without_noise(cameras, observations.timestamps))
        if config.vertical_edges and cameras.up is None and sequence.video is not None:
            cameras = with_edges(cameras, sequence.video, observations)
        return cameras

    value, _ = run.step(
        "2_cameras",
        CameraTrack,
        compute,
        settings=[
            name,
            config.options.get(name),
            *shooting(sequence),
            sequence.settings.camera,
            sequence.cuts,
            config.allow_degraded,
            config.vertical_edges,
        ],
        inputs=_inputs(sequence, name, run, config),
        code=("slamhmr.camera_step", *(SLAM.values() if name == "auto" else (SLAM[name],))),
    )
    return value


def _inputs(sequence: Sequence, name: str, run: RunFolder, config: Config) -> list[Path]:
    """The files this step reads: those of cameras or the pixels, and these for edges, too."""
    given = sequence.cameras if name == "file" else None
    found = input_files(sequence, given, run.path("1_observations.npz"))
    if given is not None and config.vertical_edges and sequence.video is not None:
        found.append(sequence.video.path)
    return found


def _from_file(sequence: Sequence, observations: Observations) -> CameraTrack:
    """The cameras of a file, those of the kept frames."""
    path = required(sequence.cameras, "cameras.npz")
    lens = _lens(sequence, observations)
    cameras = backend("slam", "file").read_cameras(
        path,
        frame_count=None if sequence.frames else observations.keypoints.shape[1],
        intrinsics=lens.intrinsics,
        image_size=observations.image_size,
        times=observations.timestamps,
    )
    if path.suffix == ".txt":  # only a TUM file needs the intrinsics
        notes = (*lens.notes, *cameras.notes)
        cameras = dataclasses.replace(cameras, notes=notes, focal_sigma=lens.sigma)
    cameras = prepare_cameras(cameras, sequence, observations)
    crossed = [cut for cut in sequence.cuts if cut not in cameras.starts]
    if len(crossed) == 0:
        return cameras
    where = ", ".join(map(str, crossed))
    note = (
        f"the camera file names no segment at the cut of frame {where}: its path is taken as one "
        "world across it"
    )
    return dataclasses.replace(cameras, notes=(*cameras.notes, note))


def _from_pixels(
    name: str, sequence: Sequence, observations: Observations, config: Config, progress: bool
) -> CameraTrack:
    """The path of every shot by itself, in order; each after the first is a segment."""
    module = backend("slam", name)
    lens = _lens(sequence, observations)
    options = _camera_options(module.Options, name, sequence, config, lens)
    video = pixels(sequence, f"slam={name}")
    bounds = list(zip((0, *sequence.cuts), (*sequence.cuts, video.frame_count), strict=True))
    tracks = []
    for number, (first, stop) in enumerate(bounds, start=1):
        shot = f"shot {number} (frames {first}-{stop - 1})" if len(bounds) > 1 else ""
        part = part_of_video(video, first, stop)
        seen = part_of_observations(observations, first, stop)
        try:
            with memory_told(f"slam={name}"):
                track = module.track_camera(part, seen, lens.intrinsics, options, progress=progress)
        except BackendError as e:
            if not config.allow_degraded:
                raise BackendError(_of_shot(str(e), shot)) from e
            track = _degraded(part, seen, lens.intrinsics, str(e), progress)
        notes = tuple(_of_shot(note, shot) for note in track.notes)
        track = dataclasses.replace(track, notes=notes)
        if track.focal_sigma is None and lens.sigma is not None:
            sigma = lens.sigma if track.moving else lens.sigma / 2
            track = dataclasses.replace(track, focal_sigma=sigma)
        tracks.append(track)
    cameras = join(tracks)
    estimated = all(ESTIMATED in " ".join(track.notes) for track in tracks)
    return dataclasses.replace(
        cameras, notes=cameras.notes if estimated else (*lens.notes, *cameras.notes)
    )


def _of_shot(note: str, shot: str) -> str:
    """A note that says which shot it is about."""
    if shot == "":
        return note
    if "frame" in note and not shot.startswith("shot 1 "):
        note += " (frames counted from the shot's first)"
    if note.startswith(DEGRADED):
        return f"{DEGRADED} in {shot}{note.removeprefix(DEGRADED)}"
    return f"{shot}: {note}"


def _degraded(
    video: Video,
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    failure: str,
    progress: bool,
) -> CameraTrack:
    """What is left where a backend failed and that is allowed: rotations, else one fixed pose."""
    LOG.warning("%s; degraded as allowed", failure)
    rotation, static = backend("slam", "rotation"), backend("slam", "static")
    try:
        track: CameraTrack = rotation.track_camera(
            video, observations, intrinsics, rotation.Options(), progress=progress
        )
        kind = "rotation-only"
    except BackendError:
        track = static.track_camera(
            video, observations, intrinsics, static.Options(), progress=progress
        )
        kind = "a camera that stands still"
    return dataclasses.replace(track, notes=(f"{DEGRADED} to {kind}: {failure}", *track.notes[1:]))


def _found(cameras: CameraTrack) -> CameraTrack:
    """The cameras, with a note where they were lost. Raises BackendError if that is too often."""
    lost = cameras.lost
    if lost is None or not bool(lost.any()):
        return cameras
    note, share = lost_note(lost, cameras.starts), float(lost.double().mean())
    if share > MOST_LOST:
        raise BackendError(
            f"{note.split(':')[0]}, which is {100 * share:.0f} % (at most {100 * MOST_LOST:.0f} % "
            "can be bridged); give cameras.npz from another tool, or keep fewer frames ('frames' "
            "in sequence.yaml)"
        )
    return dataclasses.replace(cameras, notes=(*cameras.notes, note))


def _camera_options(
    options_type: Any, name: str, sequence: Sequence, config: Config, lens: "Lens"
) -> Any:
    """Options of a camera backend; what the sequence and `allow_degraded` say goes in first."""
    said: dict[str, Any] = {}
    if name in ("auto", "sfm"):
        said["allow_degraded"] = config.allow_degraded
    if name in ("auto", "sfm", "rotation"):
        said["refine_focal"] = lens.sigma is not None
    if name == "auto" and sequence.settings.camera == "moving":
        said["assume"] = "moving"
    return build(options_type, {**said, **config.options.get(name, {})}, f"options.{name}")


@dataclasses.dataclass(frozen=True)
class Lens:
    """Fx fy cx cy, px; relative standard deviation of the focal length if guessed; a sentence."""

    intrinsics: Float[Tensor, "4"]
    sigma: Float[Tensor, ""] | None = None
    notes: tuple[str, ...] = ()


def _lens(sequence: Sequence, observations: Observations) -> Lens:
    """Focal lengths as sequence.yaml gives them, the pictures' EXIF entry, or guessed."""
    given = sequence.settings.intrinsics
    if given is not None:
        return Lens(torch.tensor(given, dtype=torch.float64))
    written = known_intrinsics(sequence.video) if sequence.video is not None else None
    if written is not None:
        note = f"focal length from EXIF: {float(written[0]):.0f} px"
        return Lens(written, notes=(note,))
    guessed = default_intrinsics(observations.image_size)
    note = f"{GUESSED}: {float(guessed[0]):.0f} px, the diagonal of the image"
    return Lens(guessed, torch.tensor(GUESS_SIGMA, dtype=torch.float64), (note,))
