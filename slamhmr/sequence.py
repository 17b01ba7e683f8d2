"""The sequence directory: what it holds, `sequence.yaml`, and the lengths that must agree."""

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.config import build, read_yaml
from slamhmr.constraints import (
    Constraints,
    apply_constraints,
    check_contacts,
    check_height,
    read_constraints,
    select_rows,
)
from slamhmr.errors import InputError
from slamhmr.types import CameraTrack, Observations, Video
from slamhmr.video import VIDEO_SUFFIXES, open_video

OBSERVATIONS = ("observations.npz",)
CAMERAS = ("cameras.npz", "cameras.txt", "cameras")  # ours, TUM, a COLMAP model folder
INITIAL = ("initial.npz",)
SETTINGS, CONSTRAINTS = "sequence.yaml", "constraints.yaml"
LOG = logging.getLogger(__name__)
LEAST_FRAMES = 2  # a path needs two frames; nothing moves in one


@dataclass(frozen=True)
class SequenceSettings:
    """`sequence.yaml`; every key is optional."""

    video: str | None = None  # file or image folder inside the directory
    fps: float | None = None
    intrinsics: list[float] | None = None  # fx fy cx cy, px
    distortion: list[float] | None = None  # k1 k2 p1 p2 [k3], OpenCV's model
    camera: str = "auto"
    people: Any = "all"  # or a list of ids
    # first frames of new shots, counted from 0 among the kept frames; unset: found in the pixels
    cuts: list[int] | None = None
    height_m: dict[int, float] = field(default_factory=dict)
    frames: list[int] | None = None  # first and last kept frame, both included


@dataclass(frozen=True)
class Sequence:
    """What a sequence directory holds."""

    folder: Path
    settings: SequenceSettings
    constraints: Constraints
    video: Video | None
    observations: Path | None
    cameras: Path | None
    initial: Path | None
    found_cuts: tuple[int, ...] | None = None  # in the pixels; None where nobody looked
    views: tuple["Sequence", ...] = ()  # further cameras, see `slamhmr.viewfolders`
    view_name: str = "main"  # of this one

    @property
    def cuts(self) -> tuple[int, ...]:
        """First frames of new shots: those of sequence.yaml, else those found."""
        given = self.settings.cuts
        return tuple(given) if given is not None else self.found_cuts or ()

    @property
    def texts(self) -> list[Path]:
        """The YAML files that are there."""
        found = (self.folder / name for name in (SETTINGS, CONSTRAINTS))
        return [path for path in found if path.exists()]

    @property
    def frames(self) -> tuple[int, int] | None:
        """First and last kept frame."""
        frames = self.settings.frames
        return None if frames is None else (frames[0], frames[1])


def open_sequence(folder: Path) -> Sequence:
    """Look at a sequence directory without computing anything.

    Raises InputError if it does not exist, holds neither a video nor observations with cameras, or
    its YAML files hold impossible values; ConfigError if they hold unknown keys.
    """
    if not folder.is_dir():
        if folder.is_file():
            raise InputError(f"'{folder}' is a file; put it into a directory of its own")
        raise InputError(f"sequence directory '{folder}' does not exist")
    settings = read_settings(folder / SETTINGS)
    path = find_video(folder, settings.video)
    observations = _first(folder, OBSERVATIONS)
    cameras = _first(folder, CAMERAS)
    if path is None and (observations is None or cameras is None):
        raise InputError(
            f"'{folder}' holds no video (video.*, images/ or one video file); without pixels both "
            "observations.npz and cameras.npz are needed"
        )
    frames = None if settings.frames is None else (settings.frames[0], settings.frames[1])
    video = None if path is None else open_video(path, fps=settings.fps, frames=frames)
    if video is not None:
        require_frames(video.frame_count, str(video.path))
    constraints = read_constraints(folder / CONSTRAINTS)
    initial = _first(folder, INITIAL)
    return Sequence(folder, settings, constraints, video, observations, cameras, initial)


def read_settings(path: Path) -> SequenceSettings:
    """`sequence.yaml`, the defaults if there is none.

    Raises ConfigError for unknown keys and wrong types, InputError for impossible values.
    """
    settings = build(SequenceSettings, read_yaml(path) if path.exists() else {}, path.name)
    _check(settings)
    return settings


def find_video(folder: Path, named: str | None) -> Path | None:
    """The video: named in sequence.yaml, else video.*, else images/, else the only video file.

    None if there is none. Raises InputError if a named one is missing or several could be meant.
    """
    if named is not None:
        if not (folder / named).exists():
            raise InputError(f"sequence.yaml: video '{named}' is not in '{folder}'")
        return folder / named
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    called_video = [p for p in files if p.stem == "video"]
    if len(called_video) == 1:
        return called_video[0]
    if len(called_video) == 0 and (folder / "images").is_dir():
        return folder / "images"
    if len(files) > 1:
        names = ", ".join(p.name for p in files)
        raise InputError(f"'{folder}' holds several videos ({names}); name one in sequence.yaml")
    return files[0] if len(files) == 1 else None


def require_frames(count: int, where: str) -> None:
    """Raise InputError if a clip is too short to solve."""
    if count < LEAST_FRAMES:
        raise InputError(f"'{where}' has {count} frame(s); at least {LEAST_FRAMES} are needed")


def used_ids(sequence: Sequence) -> frozenset[int]:
    """Ids by which sequence.yaml and constraints.yaml speak of people who must be there."""
    settings, constraints = sequence.settings, sequence.constraints
    wanted = [] if settings.people == "all" else settings.people
    merged = [person for group in constraints.merge for person in group]
    fixed = [
        *(exclusion.person for exclusion in constraints.exclude),
        *(fix.person for fix in constraints.keypoints),
        *(contact.person for contact in constraints.contacts),
    ]
    corrected = [person for person in fixed if person is not None]
    heights = (*settings.height_m, *constraints.height_m)
    return frozenset([*wanted, *merged, *corrected, *heights])


def prepare_observations(
    observations: Observations,
    sequence: Sequence,
    repair: Callable[[Observations], Observations] | None = None,
) -> Observations:
    """Observations of the kept frames, corrected by `constraints.yaml`, of everybody.

    What `repair` puts right by itself comes first, so that manual corrections have the last word.

    `fps` of sequence.yaml outweighs the times of the video, and those the file's where it has no
    `timestamps`. Raises InputError if lengths or image sizes disagree or nobody is left.
    """
    if sequence.video is not None:
        size = sequence.video.image_size
        _require_size(observations.image_size, "observations.npz", size, "the video")
    count = observations.keypoints.shape[1]
    kept = _kept(count, sequence, "observations.npz")
    if (kept.start, kept.stop) != (0, count):
        times = observations.timestamps[kept]
        observations = dataclasses.replace(
            observations,
            keypoints=observations.keypoints[:, kept],
            confidence=observations.confidence[:, kept],
            boxes=observations.boxes[:, kept],
            timestamps=times - times[0],
        )
    fps = sequence.settings.fps
    if fps is None:
        observations = _timed(observations, sequence.video)
    elif fps != observations.fps:
        times = torch.arange(observations.keypoints.shape[1], dtype=torch.float64) / fps
        observations = dataclasses.replace(observations, fps=fps, timestamps=times)
    require_frames(observations.keypoints.shape[1], "observations")
    if repair is not None:
        observations = repair(observations)
    observations = apply_constraints(observations, sequence.constraints)
    if len(observations.person_id) == 0:
        raise InputError(f"nobody is seen in '{sequence.folder}'; nothing to optimise")
    return observations


def _timed(observations: Observations, video: Video | None) -> Observations:
    """Observations at the times of the video's frames, unless they have times of their own."""
    times = observations.timestamps
    even = torch.arange(len(times), dtype=times.dtype) / observations.fps
    if video is None or not torch.allclose(times, even, atol=1e-6):
        return observations
    return dataclasses.replace(observations, fps=video.fps, timestamps=video.timestamps)


def choose_people(observations: Observations, sequence: Sequence) -> Observations:
    """The people that sequence.yaml asks for; the others only hide background from the camera step.

    Raises InputError, before the long steps, if sequence.yaml or constraints.yaml name a person or
    a frame that is not there.
    """
    wanted = sequence.settings.people
    if wanted != "all":
        ids = observations.person_id.tolist()
        for person in wanted:
            if person not in ids:
                raise InputError(f"sequence.yaml: person {person} was not found; found: {ids}")
        chosen = torch.tensor([person in wanted for person in ids], dtype=torch.bool)
        observations = select_rows(observations, chosen)
    known_heights(sequence, observations)
    check_contacts(sequence.constraints, observations)
    count = observations.keypoints.shape[1]
    for cut in sequence.settings.cuts or ():
        if cut >= count:
            raise InputError(f"sequence.yaml: cut {cut} is not within the frames 1..{count - 1}")
    return observations


def with_people(sequence: Sequence, people: list[int]) -> Sequence:
    """The sequence without what it says of others than `people`: heights and contacts."""
    settings, constraints = sequence.settings, sequence.constraints
    heights, corrected = (
        {person: height for person, height in given.height_m.items() if person in people}
        for given in (settings, constraints)
    )
    contacts = [contact for contact in constraints.contacts if contact.person in people]
    return dataclasses.replace(
        sequence,
        settings=dataclasses.replace(settings, height_m=heights),
        constraints=dataclasses.replace(constraints, height_m=corrected, contacts=contacts),
    )


def prepare_cameras(
    cameras: CameraTrack, sequence: Sequence, observations: Observations
) -> CameraTrack:
    """Cameras of the kept frames, from a file.

    Raises InputError if they do not fit the observations or contradict sequence.yaml's `camera`.
    """
    said = {"static": False, "moving": True}.get(sequence.settings.camera, cameras.moving)
    if said != cameras.moving:
        raise InputError(
            f"sequence.yaml says camera: {sequence.settings.camera}, the camera file says moving = "
            f"{str(cameras.moving).lower()}; change or remove one of them"
        )
    _require_size(cameras.image_size, "cameras.npz", observations.image_size, "observations")
    count = len(cameras.world_from_cam)
    kept = _kept(count, sequence, "cameras.npz", observations.keypoints.shape[1])
    notes = (*cameras.notes, *_other_lens(cameras, sequence))
    return dataclasses.replace(_trimmed(cameras, kept), notes=notes)


def _trimmed(cameras: CameraTrack, kept: slice) -> CameraTrack:
    """The frames `kept` of a track, with the segments and scene points that are left."""
    covariance, lost, points = cameras.covariance, cameras.lost, cameras.points
    starts, owners = cameras.segments, cameras.point_segments
    if starts is not None:
        earlier = int((starts <= kept.start).sum())
        inside = (starts > kept.start) & (starts < kept.stop)
        if points is not None:
            owners = torch.zeros(len(points), dtype=torch.long) if owners is None else owners
            near = (owners >= earlier) & (owners <= earlier + int(inside.sum()))
            points, owners = points[near], owners[near] - earlier
        starts = starts[inside] - kept.start if bool(inside.any()) else None
    return dataclasses.replace(
        cameras,
        world_from_cam=cameras.world_from_cam[kept],
        intrinsics=cameras.intrinsics[kept],
        covariance=None if covariance is None else covariance[kept],
        lost=None if lost is None else lost[kept],
        segments=starts,
        points=points,
        point_segments=owners,
    )


def _other_lens(cameras: CameraTrack, sequence: Sequence) -> tuple[str, ...]:
    """Sentence for the report if sequence.yaml states another lens than the camera file."""
    stated, used = sequence.settings.intrinsics, cameras.intrinsics[0].tolist()
    if stated is None or all(
        abs(a - b) <= 0.01 * abs(a) for a, b in zip(stated, used, strict=True)
    ):
        return ()
    return (
        f"the camera file's intrinsics {[round(value, 1) for value in used]} are used, not "
        f"those of sequence.yaml {stated}",
    )


def known_heights(sequence: Sequence, observations: Observations) -> Float[Tensor, "N"]:
    """Stature of each person, m, NaN where unknown; constraints.yaml outweighs sequence.yaml.

    Raises InputError if a height is given for somebody who is not there.
    """
    given = {**sequence.settings.height_m, **sequence.constraints.height_m}
    ids = observations.person_id.tolist()
    for person in given:
        if person not in ids:
            raise InputError(f"height_m names person {person}; there are {ids}")
    return torch.tensor([given.get(person, torch.nan) for person in ids], dtype=torch.float64)


def _require_size(
    size: tuple[int, int], name: str, other: tuple[int, int], other_name: str
) -> None:
    if size != other:
        raise InputError(f"{name} is for images of {size} px, {other_name} of {other}")


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _kept(count: int, sequence: Sequence, name: str, expected: int | None = None) -> slice:
    """Which frames of a file of `count` frames are kept: all, or those that `frames` names."""
    if expected is None:
        expected = None if sequence.video is None else sequence.video.frame_count
    frames = sequence.frames
    if frames is not None and expected is None and frames[0] >= count:
        raise InputError(f"sequence.yaml: frames {list(frames)} lie beyond the {count} of {name}")
    if frames is not None and frames[0] < count and count != expected:
        if frames[1] >= count:
            LOG.warning("frames %s go beyond the %d of %s: it ends with its last one",
                        list(frames), count, name)  # fmt: skip
        kept = slice(frames[0], min(frames[1] + 1, count))
    else:
        kept = slice(0, count)
    length = kept.stop - kept.start
    if expected is not None and length != expected:
        other = "observations" if sequence.video is None else f"'{sequence.video.path.name}'"
        raise InputError(f"{name} has {count} frames, {other} {expected}; they must agree")
    return kept


def _check(settings: SequenceSettings) -> None:
    numbers = {"intrinsics": (4,), "distortion": (4, 5), "frames": (2,)}
    for name, lengths in numbers.items():
        values = getattr(settings, name)
        if values is not None and len(values) not in lengths:
            raise InputError(f"sequence.yaml: '{name}' has {len(values)} numbers, not {lengths[0]}")
    if settings.frames is not None and not 0 <= settings.frames[0] <= settings.frames[1]:
        raise InputError(f"sequence.yaml: frames {settings.frames} must be [first, last]")
    for name in ("intrinsics", "distortion"):
        if not all(map(math.isfinite, getattr(settings, name) or [])):
            raise InputError(f"sequence.yaml: '{name}' {getattr(settings, name)} must be finite")
    if settings.intrinsics is not None and min(settings.intrinsics[:2]) <= 0:
        raise InputError(f"sequence.yaml: focal lengths {settings.intrinsics[:2]} must be positive")
    if settings.distortion is not None and settings.intrinsics is None:
        raise InputError("sequence.yaml: 'distortion' means nothing without 'intrinsics'")
    if settings.fps is not None and not 0 < settings.fps < 100000:
        raise InputError(f"sequence.yaml: fps {settings.fps} must be positive")
    if settings.camera not in ("auto", "static", "moving"):
        raise InputError(f"sequence.yaml: camera '{settings.camera}'; auto, static or moving")
    people = settings.people
    listed = isinstance(people, list) and all(type(p) is int for p in people) and len(people) > 0
    if people != "all" and not listed:
        raise InputError(f"sequence.yaml: people '{people}' must be 'all' or a list of ids")
    cuts = settings.cuts or []
    if any(cut < 1 for cut in cuts) or sorted(set(cuts)) != cuts:
        raise InputError(f"sequence.yaml: cuts {cuts} must be growing frame numbers")
    for person, height in settings.height_m.items():
        check_height("sequence.yaml", person, height)
