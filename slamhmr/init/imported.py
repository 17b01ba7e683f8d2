"""Starts from what other regressors wrote: tracks of theirs become people of ours.

A file's people are matched to the observed ones by where their joints lie in the picture, placed
for the camera's own focal length, and joined to one start. Angles, frames and models of each format
are its reader's business (`wham_output`, `gvhmr`, `prompthmr`, `sam3d_body`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import roma
import torch
from jaxtyping import Int
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.errors import InputError
from slamhmr.geometry import nearest_rows, rigid, shot_numbers
from slamhmr.init.matching import (
    Track,
    body_keypoints,
    check_everybody,
    match,
    track_joints,
)
from slamhmr.init.placing import on_picture, through_lens
from slamhmr.scene import point_set
from slamhmr.types import CameraTrack, Initial, Observations

LOG = logging.getLogger(__name__)

NEAREST = 0.1  # m: a pelvis joint closer to the camera's plane cannot be seen
UNKNOWN_SPEED = 10.0  # m/s: sigma of what nothing was said of
UNKNOWN_UP = 10.0  # rad


@dataclass(frozen=True)
class Said:
    """How sure the file is of what it says beside the poses, as the options state it."""

    velocity: float = UNKNOWN_SPEED  # m/s per axis
    up: float = UNKNOWN_UP  # rad


def join_tracks(
    tracks: Sequence[Track],
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    said: Said,
    *,
    path: Path,
    same_body: bool,
    cuts: tuple[int, ...],
) -> Initial:
    """Camera-space start of everybody who is observed.

    A track goes to the person whose keypoints its joints lie on; a person may have several, one
    after the other. `same_body`: the file's model is ours, so that its places stand as they are;
    else each track is moved onto the keypoints (`placing.on_picture`). In frames without a track
    the nearest one is held, of the same shot where there is any, with confidence 0. Raises
    InputError if the frames of cameras and observations differ or somebody has no track.
    """
    frames = observations.confidence.shape[1]
    if len(cameras.intrinsics) != frames:
        raise InputError(
            f"observations have {frames} frames, cameras {len(cameras.intrinsics)}; "
            "both must come from the same frames (cameras.npz)"
        )
    placed = [_through_our_lens(_in_front(track, path), cameras) for track in tracks]
    owners = match(placed, observations, cameras, body)
    check_everybody(owners, placed, observations, path)
    if not same_body:
        placed = [
            track if person is None else _moved(track, person, observations, cameras, body)
            for track, person in zip(placed, owners, strict=True)
        ]
    shot = shot_numbers(frames, cuts)
    people = []
    for person in range(len(observations.person_id)):
        mine = [t for t, owner in zip(placed, owners, strict=True) if owner == person]
        people.append(_person(mine, shot, body, said))
    return _initial(people, observations)


def _in_front(track: Track, path: Path) -> Track:
    """The track without frames in which the file has the person at or behind the camera."""
    seen = track.pelvis[:, 2] > NEAREST
    if bool(seen.all()):
        return track
    LOG.warning(
        "'%s': track %s is behind the camera in %d frames, which are left out",
        path.name, track.name, int((~seen).sum()),
    )  # fmt: skip
    framewise = ("frames", "root", "pelvis", "rotations", "contacts", "velocity", "up")
    given = {name: getattr(track, name) for name in framewise}
    return replace(track, **{name: v[seen] for name, v in given.items() if v is not None})


def _through_our_lens(track: Track, cameras: CameraTrack) -> Track:
    if track.intrinsics is None:
        return track
    ours = cameras.intrinsics[track.frames]
    return replace(track, pelvis=through_lens(track.pelvis, track.intrinsics, ours))


def _moved(
    track: Track, person: int, observations: Observations, cameras: CameraTrack, body: BodyModel
) -> Track:
    image, sure = body_keypoints(observations, person, track.frames)
    around = track_joints(track, body) - track.pelvis[:, None]
    ours = cameras.intrinsics[track.frames]
    return replace(track, pelvis=on_picture(track.pelvis, around, image, sure, ours))


def _person(
    tracks: Sequence[Track], shot: Int[Tensor, "T"], body: BodyModel, said: Said
) -> dict[str, Tensor]:
    """Fields of one person of `Initial`, from its tracks."""
    rows = torch.cat([track.frames for track in tracks])
    nearest = nearest_rows(rows, shot)
    times = torch.arange(len(shot))
    covered = torch.isin(times, rows)
    lengths = torch.tensor([len(track.frames) for track in tracks], dtype=torch.float64)
    betas = torch.stack([track.betas for track in tracks])
    betas = (betas * lengths[:, None]).sum(dim=0) / lengths.sum()
    placed = torch.cat([rigid(track.root, track.pelvis) for track in tracks])[nearest]
    turns = torch.cat([roma.rotmat_to_rotvec(track.rotations) for track in tracks])[nearest]
    fields = {
        "cam_from_root": placed,
        "body_pose": turns,
        "betas": betas,
        "valid": (times >= rows.min()) & (times <= rows.max()),
        "confidence": covered[:, None].double().expand(-1, 22).clone(),
    }
    contacts = [track.contacts for track in tracks if track.contacts is not None]
    if len(contacts) == len(tracks):
        fields["contacts"] = torch.cat(contacts)[nearest] * covered[:, None]
    velocities = [track.velocity for track in tracks if track.velocity is not None]
    if len(velocities) == len(tracks):
        velocity = torch.cat(velocities)[nearest] / point_set(body).size(betas)
        known = covered[:, None] & velocity.isfinite()
        sigma = torch.full_like(velocity, said.velocity)
        fields["root_velocity"] = velocity.nan_to_num(0.0)
        fields["root_velocity_sigma"] = torch.where(known, sigma, UNKNOWN_SPEED)
    ups = [track.up for track in tracks if track.up is not None]
    if len(ups) == len(tracks):
        fields["up_cam"] = torch.nn.functional.normalize(torch.cat(ups)[nearest], dim=-1)
        sigma = torch.full((len(shot),), said.up, dtype=torch.float64)
        fields["up_sigma"] = torch.where(covered, sigma, UNKNOWN_UP)
    return fields


def _initial(people: Sequence[dict[str, Tensor]], observations: Observations) -> Initial:
    shared = set.intersection(*(set(person) for person in people))
    fields = {name: torch.stack([person[name] for person in people]) for name in shared}
    return Initial(person_id=observations.person_id, **fields)
