"""People from PHALP's tracks: ids, boxes and keypoints out of `results/demo_*.pkl`.

SLAHMR's PHALP keeps ViTPose's keypoints (`extra_data`). 4D-Humans' own has none; its `2d_joints`
are joints of HMR2's body put back into the picture, so they say nothing that the start does not.
They are taken with a lower confidence, and the log says so.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slamhmr.components import Lack, require
from slamhmr.errors import InputError
from slamhmr.phalp_tracks import FILES as FILES
from slamhmr.phalp_tracks import Look, Tracks, lacking_tracks, read_tracks
from slamhmr.skeleton import BODY_25, canonical_keypoint
from slamhmr.types import Observations, Video

LOG = logging.getLogger(__name__)
PIXEL = 0.5  # ViTPose (mmpose) has the middle of the first pixel at 0
COLUMNS = {
    name: column for column, raw in enumerate(BODY_25) if (name := canonical_keypoint(raw))
}  # canonical name -> slot
JOINTS_2D = 45  # 25 OpenPose joints, 19 of SMPL's regressor, the origin


@dataclass(frozen=True)
class Options:
    """Settings of detector `phalp`."""

    path: str = ""  # unset: demo_*.pkl in the sequence directory, or in results/ or phalp/ there
    first: int = 0  # frame of the file that is the video's first
    least_frames: int = 5  # tracks that are seen in fewer are left out
    max_people: int = 12  # tracks kept, those seen most
    reprojected: float = 0.3  # confidence of keypoints that are joints of HMR2's own body


def lacking(options: Options) -> list[Lack]:
    """The track file, if it is not there."""
    return lacking_tracks("detect", "phalp", options.path)


def detect(
    video: Video, options: Options, *, cuts: tuple[int, ...] = (), progress: bool
) -> Observations:
    """Observations of a track file, with its ids; frames without a look have confidence 0.

    Raises MissingAsset without the file, InputError if it does not fit the video.
    """
    require(lacking(options))
    tracks = read_tracks(Path(options.path).expanduser())
    _check(tracks, video, options)
    start = options.first + video.first
    looks = [look for look in tracks.looks if 0 <= look.frame - start < video.frame_count]
    people = _people(looks, options, tracks.path)
    shape = (len(people), video.frame_count)
    keypoints = np.zeros((*shape, len(COLUMNS), 2))
    confidence = np.zeros((*shape, len(COLUMNS)))
    boxes = np.full((*shape, 4), np.nan)
    slots = list(COLUMNS.values())
    measured = 0
    for look in looks:
        if look.track not in people:
            continue
        cell = people.index(look.track), look.frame - start
        points, sure, own = _points(look, options, video.image_size)
        measured += own
        keypoints[cell], confidence[cell] = points[slots], sure[slots]
        x, y, width, height = look.numbers("bbox", (4,))
        boxes[cell] = x, y, x + width, y + height
    if measured == 0:
        LOG.warning(
            "'%s' has no keypoints of a detector (extra_data), only HMR2's joints: the picture "
            "corrects nothing; take detect=vitpose with init=hmr2 instead", tracks.path.name,
        )  # fmt: skip
    kept = np.flatnonzero((confidence > 0).any(axis=(0, 1)))
    if len(kept) == 0:
        raise InputError(f"'{tracks.path}': every keypoint has confidence 0")
    return Observations(
        person_id=torch.tensor(people),
        keypoints=torch.from_numpy(keypoints[:, :, kept]),
        confidence=torch.from_numpy(confidence[:, :, kept]),
        keypoint_names=tuple(np.array(list(COLUMNS))[kept].tolist()),
        boxes=torch.from_numpy(boxes),
        image_size=video.image_size,
        fps=video.fps,
        timestamps=video.timestamps,
    )


def _check(tracks: Tracks, video: Video, options: Options) -> None:
    if tracks.image_size != video.image_size:
        raise InputError(
            f"'{tracks.path}': made of pictures of {tracks.image_size} px, the video has "
            f"{video.image_size}; both must be the same"
        )
    needed = options.first + video.first + video.frame_count
    if tracks.frame_count < needed:
        raise InputError(
            f"'{tracks.path}': {tracks.frame_count} frames, {needed} are needed; make it from the "
            "whole video, or say which of its frames is the video's first (options.phalp.first)"
        )
    if tracks.frame_count > needed:
        LOG.warning(
            "'%s' has %d frames, the video ends at its frame %d; the others are left out",
            tracks.path.name, tracks.frame_count, needed - 1,
        )  # fmt: skip


def _people(looks: list[Look], options: Options, path: Path) -> list[int]:
    """Ids of the tracks that are kept, ascending."""
    ids, counts = np.unique([look.track for look in looks], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    kept = [int(ids[n]) for n in order if counts[n] >= options.least_frames][: options.max_people]
    if len(kept) == 0:
        raise InputError(
            f"'{path}': no track is seen in {options.least_frames} frames of the video "
            "(options.phalp.least_frames)"
        )
    left = sorted(set(ids.tolist()) - set(kept))
    if len(left) > 0:
        LOG.warning(
            "'%s': tracks %s are left out (options.phalp.least_frames, max_people)",
            path.name, ", ".join(map(str, left)),
        )  # fmt: skip
    return sorted(kept)


def _points(
    look: Look, options: Options, size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Points (25,2) px and confidence (25,) in OpenPose's slots; whether a detector saw them."""
    if look.measured:
        found = look.numbers("extra_data", (25, 3))
        return found[:, :2] + PIXEL, np.clip(found[:, 2], 0.0, 1.0), True
    # In a square around the picture, of side 1: brjathu/PHALP@2b77b4d phalp/models/hmar/hmar.py.
    joints = look.numbers("2d_joints", (JOINTS_2D, 2))[:25]
    side = max(size)
    margin = np.array([(side - size[0]) // 2, (side - size[1]) // 2])
    points = joints * side - margin
    inside = ((points >= 0) & (points <= np.array(size))).all(axis=1)
    return points, np.where(inside, options.reprojected, 0.0), False
