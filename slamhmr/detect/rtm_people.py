"""Looks of other networks than BlazePose's made fit for the tracker, and tracks to observations."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from slamhmr.detect.ghosts import track_people
from slamhmr.detect.landmarks import LANDMARKS, Candidate, colours
from slamhmr.detect.observe import observe_with
from slamhmr.detect.regions import cut_region
from slamhmr.detect.rtm import DEVICES, Array, Detector
from slamhmr.detect.search import distinct
from slamhmr.detect.sides import repair_sides
from slamhmr.detect.similarity import BODY, likelihood
from slamhmr.detect.track import Track
from slamhmr.errors import BackendError, ConfigError
from slamhmr.skeleton import KEYPOINT_INDEX
from slamhmr.types import Observations, Video
from slamhmr.video import read_frames

log = logging.getLogger(__name__)

COLOUR_SIDE = 128  # px of the crop whose colours are compared
REGION = 1.25  # side of a look's region over the longer side of its box
LEAST_LIKELY = 0.15  # looks under this are not tracked
# What stands in for a landmark of BlazePose that no other network has, for the tracker.
STAND_INS = (
    ("eye", "{side}_eye"), ("mouth", "nose"), ("pinky", "{side}_wrist"), ("thumb", "{side}_wrist"),
    ("foot_index", "{side}_ankle"), ("heel", "{side}_ankle"), ("index", "{side}_wrist"),
)  # fmt: skip


@dataclass(frozen=True)
class Look(Candidate):
    """One network's opinion of one person in one frame, in the points of its own layout."""

    keypoints: Array  # (K,2) px of the full image
    confidence: Array  # (K,) 0..1


@dataclass(frozen=True)
class Common:
    """Settings that all detectors here share."""

    pose: str = ""  # the network of points as .onnx
    device: str = "cpu"  # "cuda" or "cuda:N" needs onnxruntime-gpu
    batch: int = 16  # frames read at a time, and crops per run where the file allows several
    certain: float = 1.0  # the network's score that counts as confidence 1
    max_people: int = 12  # looks kept per frame
    longest_gap: float = 2.0  # s a person may be out of sight and keep the id


@dataclass(frozen=True)
class TopDown(Common):
    """Settings of detectors that look for boxes first."""

    detector: str = ""  # YOLOX as .onnx, with or without non-maximum suppression inside
    detector_score: float = 0.5  # least score of a box; files with suppression inside use 0.3
    detector_overlap: float = 0.45  # IoU above which the worse of two boxes is dropped


def check_common(name: str, options: Common) -> None:
    """Raise ConfigError for settings that have no meaning."""
    kind, colon, index = options.device.partition(":")
    if kind not in DEVICES or (colon != "" and (kind != "cuda" or not index.isdecimal())):
        known = ", ".join([*DEVICES, "cuda:N"])
        raise ConfigError(
            f"options.{name}.device '{options.device}' is unknown; available: {known}"
        )
    for field in ("batch", "certain", "max_people", "longest_gap"):
        value = getattr(options, field)
        if not value > 0:
            raise ConfigError(f"options.{name}.{field} is {value}; must be above 0")


def follow(
    video: Video,
    detector: Detector,
    names: dict[str, int],
    common: Common,
    *,
    cuts: tuple[int, ...],
    progress: bool,
    name: str,
) -> Observations:
    """Everybody's keypoints in every frame, looks joined by the tracker that BlazePose uses.

    Raises BackendError if nobody is found.
    """
    looks: list[list[Candidate]] = []
    for first, images in _chunks(video, common.batch, progress):
        for offset, (image, found) in enumerate(zip(images, detector(images), strict=True)):
            looks.append(_looks(first + offset, image, found, names, common))
    tracks = track_people(looks, video.fps, common.longest_gap, cuts)
    if len(tracks) == 0:
        count = sum(len(frame) for frame in looks)
        reason = "the detector saw none" if count == 0 else f"none of {count} looks lasts"
        raise BackendError(
            f"nobody found in {video.frame_count} frames of '{video.path.name}': {reason}; lower "
            f"the thresholds of options.{name}, or give an observations.npz"
        )
    order = sorted(names, key=KEYPOINT_INDEX.__getitem__)
    columns = {name: column for column, name in enumerate(order)}
    observations = observe_with(tracks, video, cuts, columns, _evidence)
    repaired, notes = repair_sides(observations)
    for note in notes:
        log.info(note)
    return repaired


def _chunks(video: Video, batch: int, progress: bool) -> Iterator[tuple[int, list[Array]]]:
    """Frames of the video, `batch` at a time, with the number of the first."""
    from tqdm import tqdm

    images: list[Array] = []
    frames = tqdm(read_frames(video), total=video.frame_count, desc="people", disable=not progress)
    for index, image in frames:
        images.append(image)
        if len(images) == batch or index == video.frame_count - 1:
            yield index + 1 - len(images), images
            images = []


def _looks(
    frame: int,
    image: Array,
    found: tuple[Array, Array, Array],
    names: dict[str, int],
    common: Common,
) -> list[Candidate]:
    """Looks at one frame, likeliest first, none of them twice."""
    order = sorted(names, key=KEYPOINT_INDEX.__getitem__)
    columns = [names[name] for name in order]
    points, scores, likely = found
    candidates = []
    for keypoints, score, whole in zip(points, scores, likely, strict=True):
        sure = np.clip(np.nan_to_num(score[columns]) / common.certain, 0.0, 1.0)
        candidates.append(
            _look(frame, image, keypoints[columns].astype(np.float64), sure, float(whole), order)
        )
    rated = [(likelihood(look), False, look) for look in candidates]
    return distinct([item for item in rated if item[0] > LEAST_LIKELY])[: common.max_people]


def _look(
    frame: int, image: Array, keypoints: Array, sure: Array, score: float, order: list[str]
) -> Look:
    source = [order.index(name) for name in _stand_ins(tuple(order))]
    body, visible = keypoints[source], sure[source]
    size = (image.shape[1], image.shape[0])
    inside = ((keypoints >= 0) & (keypoints <= np.array(size))).all(axis=-1)
    low, high = body[BODY].min(axis=0), body[BODY].max(axis=0)
    side = REGION * max(float((high - low).max()), 1.0)
    region = np.array([*(low + high) / 2, side, 0.0])
    unit = (body - region[:2]) / side + 0.5
    pixels = cut_region(image, region, COLOUR_SIDE)
    ones = np.ones(len(LANDMARKS))
    return Look(
        frame=frame,
        region=region,
        next_region=region,
        points=body,
        visibility=visible,
        presence=ones,
        support=ones,
        peak=ones,
        score=min(score, 1.0),
        coverage=1.0,
        colour=colours(pixels, unit, np.ones((COLOUR_SIDE, COLOUR_SIDE), dtype=bool)),
        keypoints=keypoints,
        confidence=sure * inside,
    )


def _stand_ins(order: tuple[str, ...]) -> list[str]:
    """For each landmark of BlazePose the keypoint that has its place, or the nearest to it."""
    aliases = {"left_foot_index": "left_big_toe", "right_foot_index": "right_big_toe"}
    chosen = []
    for landmark in LANDMARKS:
        name = aliases.get(landmark, landmark)
        if name not in order:
            side = "left" if "left" in landmark else "right"
            name = next(stand for part, stand in STAND_INS if part in landmark).format(side=side)
        chosen.append(name)
    return chosen


def _evidence(track: Track) -> tuple[Array, Array]:
    """Points (T,K,2) and confidence (T,K) of a track's looks, as their network gave them."""
    own = [look for look in track.looks if isinstance(look, Look)]
    return np.array([look.keypoints for look in own]), np.array([look.confidence for look in own])
