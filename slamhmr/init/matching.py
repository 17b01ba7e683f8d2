"""Which of a foreign file's tracks is which observed person, by where their joints lie."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.body import BodyModel, forward_points
from slamhmr.errors import InputError
from slamhmr.geometry import project
from slamhmr.skeleton import COCO_KEYPOINTS
from slamhmr.types import CameraTrack, Observations

LOG = logging.getLogger(__name__)

BODY_KEYPOINTS = COCO_KEYPOINTS[5:]  # shoulders to ankles: joints of every model
SURE = 0.3  # confidence of a keypoint that tells who is who
LEAST_POINTS = 4  # of a frame that does
SAME = 0.35  # of a person's longer side in the picture: mean distance of joints up to it match


@dataclass(frozen=True)
class Track:
    """One person of a foreign file, in the camera of `intrinsics`, with our body's betas."""

    name: str  # as the file calls the person
    frames: Int[Tensor, "S"]  # of the observations, ascending
    root: Float[Tensor, "S 3 3"]  # cam_from_root
    pelvis: Float[Tensor, "S 3"]  # m
    rotations: Float[Tensor, "S 21 3 3"]
    betas: Float[Tensor, "B"]
    intrinsics: Float[Tensor, "4"] | None  # of the file; None: those of the camera track
    contacts: Float[Tensor, "S 4"] | None = None
    velocity: Float[Tensor, "S 3"] | None = None  # as `Initial.root_velocity`; NaN where unknown
    up: Float[Tensor, "S 3"] | None = None  # against gravity, in the camera


def match(
    tracks: Sequence[Track], observations: Observations, cameras: CameraTrack, body: BodyModel
) -> list[int | None]:
    """Row of the person that each track is; the best pairs first, one track per person and frame.

    Source: ours; the cost of a pair is `distance`.
    """
    from scipy.optimize import linear_sum_assignment

    people = len(observations.person_id)
    cost = np.array(
        [[distance(t, n, observations, cameras, body) for n in range(people)] for t in tracks]
    ).reshape(len(tracks), people)
    owners: list[int | None] = [None] * len(tracks)
    taken = torch.zeros(observations.confidence.shape[:2], dtype=torch.bool)
    while True:
        allowed = cost <= SAME
        for number, track in enumerate(tracks):
            overlaps = taken[:, track.frames].any(dim=1).numpy()
            allowed[number] &= ~overlaps & (owners[number] is None)
        if not allowed.any():
            return owners
        for number, person in zip(
            *linear_sum_assignment(np.where(allowed, cost, 1e6)), strict=True
        ):
            if allowed[number, person]:
                owners[number] = int(person)
                taken[person, tracks[number].frames] = True


def distance(
    track: Track, person: int, observations: Observations, cameras: CameraTrack, body: BodyModel
) -> float:
    """Mean distance of a track's joints from a person's keypoints over the person's longer side.

    Median over the frames with `LEAST_POINTS` sure keypoints; infinite where there is none.
    """
    image, sure = body_keypoints(observations, person, track.frames)
    trusted = torch.where(sure >= SURE, sure, 0.0)
    frames = (trusted > 0).sum(dim=1) >= LEAST_POINTS
    if not bool(frames.any()):
        return float("inf")
    joints = track_joints(track, body)[frames]
    image, trusted = image[frames], trusted[frames]
    seen = project(joints, cameras.intrinsics[track.frames][frames])
    seen = torch.where(joints[..., 2:] > 0.1, seen, torch.inf)
    shown = trusted[..., None] > 0
    low = torch.where(shown, image, torch.inf).amin(dim=1)
    high = torch.where(shown, image, -torch.inf).amax(dim=1)
    side = (high - low).amax(dim=1).clamp_min(1.0)
    off = (seen - image).norm(dim=-1).clamp_max(1e6)
    mean = (off * trusted).sum(dim=1) / trusted.sum(dim=1) / side
    return float(mean.median())


def track_joints(track: Track, body: BodyModel) -> Float[Tensor, "S 12 3"]:
    """Shoulders to ankles of a track in the camera."""
    points, _ = forward_points(
        body, track.betas[None], track.root[None], track.pelvis[None], track.rotations[None]
    )
    return points[0][:, [body.point_names.index(name) for name in BODY_KEYPOINTS]]


def body_keypoints(
    observations: Observations, person: int, frames: Int[Tensor, "S"]
) -> tuple[Float[Tensor, "S 12 2"], Float[Tensor, "S 12"]]:
    """A person's keypoints from shoulders to ankles; confidence 0 for those that are not there."""
    names = observations.keypoint_names
    image = torch.zeros(len(frames), len(BODY_KEYPOINTS), 2, dtype=torch.float64)
    sure = torch.zeros(len(frames), len(BODY_KEYPOINTS), dtype=torch.float64)
    for place, name in enumerate(BODY_KEYPOINTS):
        if name in names:
            image[:, place] = observations.keypoints[person, frames, names.index(name)]
            sure[:, place] = observations.confidence[person, frames, names.index(name)]
    return image, sure


def check_everybody(
    owners: list[int | None], tracks: Sequence[Track], observations: Observations, path: Path
) -> None:
    """Raise InputError if somebody observed has no track; tracks of nobody are logged."""
    left = [t.name for t, owner in zip(tracks, owners, strict=True) if owner is None]
    people = observations.person_id.tolist()
    alone = [name for row, name in enumerate(people) if row not in owners]
    if len(alone) == len(people):
        raise InputError(
            f"'{path}': nobody matched: none of its {len(tracks)} tracks lies on a person of the "
            "observations; it must come from the same video and frames"
        )
    if len(alone) > 0:
        raise InputError(
            f"'{path}': person {', '.join(map(str, alone))} of the observations is on none of its "
            f"{len(tracks)} tracks; leave them out (people in sequence.yaml) or use another init"
        )
    if len(left) > 0:
        LOG.warning("'%s': tracks %s belong to nobody observed", path.name, ", ".join(left))
