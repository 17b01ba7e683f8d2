"""People from pixels with the BlazePose networks on a CPU: everybody's keypoints and identity.

Detector on overlapping windows, landmark network per person (`search`), tracking over the clip
(`track`). Source of the networks: Bazarevsky et al. 2020, files from MediaPipe 0.10.21; all code
around them is ours.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from slamhmr.components import Lack, lacking_package, require
from slamhmr.detect.models import find_models, lacking_models
from slamhmr.errors import BackendError, ConfigError
from slamhmr.types import Observations, Video
from slamhmr.video import read_frames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Settings of detector `blazepose`."""

    landmarks: Literal["full", "heavy"] = "full"  # heavy: a little better, 3 times the cost
    models: str | None = None  # folder of the .tflite files; unset: fetched once and cached
    smallest_person: float = 0.1  # height of the smallest person over the image's shorter side
    redetect_seconds: float = 0.35  # time between two searches of the whole image
    detector_score: float = 0.5  # least score of a detection, MediaPipe's own default
    max_people: int = 12  # looks kept per frame
    longest_gap: float = 2.0  # s a person may be out of sight and keep the id
    threads: int = 0  # of each network; 0: as many as the machine has cores, at most 4


def lacking(options: Options) -> list[Lack]:
    """What this backend needs, does not have and cannot fetch by itself."""
    get = "pip install 'ai-edge-litert>=2.0', or give an observations.npz"
    runtime = lacking_package("ai_edge_litert", get, distribution="ai-edge-litert", version=">=2.0")
    return [*runtime, *lacking_models(options.landmarks, _folder(options))]


def detect(
    video: Video, options: Options, *, cuts: tuple[int, ...] = (), progress: bool
) -> Observations:
    """Everybody's keypoints in every frame of a video; nobody is followed across `cuts`.

    Raises MissingAsset if the networks or their runtime cannot be had, BackendError if nobody
    is found, ConfigError for an impossible setting.
    """
    from slamhmr.detect.ghosts import track_people
    from slamhmr.detect.observe import observe

    _check(options)
    require(lacking(options))
    search = _search(video, options, cuts)
    looks = search.run(_watched(video, progress))
    tracks = track_people(looks, video.fps, options.longest_gap, cuts)
    if len(tracks) == 0:
        raise BackendError(_nobody(video, sum(len(found) for found in looks), options))
    observations = observe(tracks, video, cuts)
    share = observations.seen.double().mean(dim=1)
    seen = ", ".join(f"{n} in {100 * part:.0f} %" for n, part in enumerate(share.tolist(), 1))
    log.info("found in %d frames: person %s", video.frame_count, seen)
    return observations


def _check(options: Options) -> None:
    """Refuse settings that have no meaning."""
    if options.landmarks not in ("full", "heavy"):
        raise ConfigError(
            f"options.blazepose.landmarks '{options.landmarks}' is unknown; available: full, heavy"
        )
    positive = ("smallest_person", "redetect_seconds", "detector_score", "max_people")
    for name in positive:
        if getattr(options, name) <= 0:
            raise ConfigError(
                f"options.blazepose.{name} is {getattr(options, name)}; must be above 0"
            )


def _search(
    video: Video,
    options: Options,
    cuts: tuple[int, ...],
) -> "Search":  # noqa: F821 - imported below, lazily
    from slamhmr.detect.detector import PersonDetector
    from slamhmr.detect.landmarks import LandmarkNetwork
    from slamhmr.detect.search import Search

    detector, landmarks = find_models(options.landmarks, _folder(options))
    threads = options.threads if options.threads > 0 else min(4, os.cpu_count() or 1)
    return Search(
        detector=PersonDetector(detector, threads, options.detector_score),
        landmarks=LandmarkNetwork(landmarks, threads),
        image_size=video.image_size,
        smallest=options.smallest_person * min(video.image_size),
        redetect=max(1, round(options.redetect_seconds * video.fps)),
        patience=max(1, round(video.fps)),
        limit=options.max_people,
        cuts=cuts,
    )


def _folder(options: Options) -> Path | None:
    return Path(options.models).expanduser() if options.models is not None else None


def _watched(video: Video, progress: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of the video, with a progress bar if wanted."""
    from tqdm import tqdm

    yield from tqdm(
        read_frames(video), total=video.frame_count, desc="people", disable=not progress
    )


def _nobody(video: Video, looks: int, options: Options) -> str:
    reason = "the detector saw none" if looks == 0 else f"none of {looks} looks lasts as a person"
    return (
        f"nobody found in {video.frame_count} frames of '{video.path.name}': {reason}; people "
        f"under {options.smallest_person * min(video.image_size):.0f} px are not looked for: lower "
        "options.blazepose.smallest_person, or give an observations.npz"
    )
