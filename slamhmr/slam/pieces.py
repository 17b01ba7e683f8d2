"""Parts of a clip that are tracked by themselves, and their paths put one after the other."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from slamhmr.types import CameraTrack, Observations, Video


def part_of_video(video: Video, first: int, stop: int) -> Video:
    """Frames `first` to `stop` - 1 of the kept ones, as a video of their own."""
    times = video.timestamps[first:stop]
    return dataclasses.replace(video, timestamps=times - times[0], first=video.first + first)


def part_of_observations(observations: Observations, first: int, stop: int) -> Observations:
    """The same frames of the observations."""
    span, times = slice(first, stop), observations.timestamps[first:stop]
    return dataclasses.replace(
        observations,
        keypoints=observations.keypoints[:, span],
        confidence=observations.confidence[:, span],
        boxes=observations.boxes[:, span],
        timestamps=times - times[0],
    )


def join(tracks: Sequence[CameraTrack]) -> CameraTrack:
    """Paths one after the other, each in a world and a scale of its own: `segments`.

    The camera moves if any of them does. Notes and sources come in order; scene points keep the
    number of their segment; the focal length is as unsure as the least sure of them.
    """
    if len(tracks) == 1:
        return tracks[0]
    sources = list(dict.fromkeys(track.source for track in tracks))
    sigmas = [track.focal_sigma for track in tracks if track.focal_sigma is not None]
    points, owners = _joined_points(tracks)
    return CameraTrack(
        world_from_cam=torch.cat([track.world_from_cam for track in tracks]),
        intrinsics=torch.cat([track.intrinsics for track in tracks]),
        image_size=tracks[0].image_size,
        scale_known=all(track.scale_known for track in tracks),
        moving=any(track.moving for track in tracks),
        source=", ".join(sources),
        points=points,
        notes=tuple(note for track in tracks for note in track.notes),
        segments=_joined_segments(tracks),
        lost=_joined_lost(tracks),
        point_segments=owners,
        focal_sigma=torch.stack(sigmas).amax() if len(sigmas) > 0 else None,
    )


def _joined_segments(tracks: Sequence[CameraTrack]) -> Int[Tensor, "S"]:
    starts: list[int] = []
    first = 0
    for track in tracks:
        starts += [first + start for start in (0, *track.starts)]
        first += len(track.world_from_cam)
    return torch.tensor(starts[1:], dtype=torch.long)


def _joined_lost(tracks: Sequence[CameraTrack]) -> Tensor | None:
    if all(track.lost is None for track in tracks):
        return None
    parts = [
        track.lost
        if track.lost is not None
        else torch.zeros(len(track.world_from_cam), dtype=torch.bool)
        for track in tracks
    ]
    return torch.cat(parts)


def _joined_points(tracks: Sequence[CameraTrack]) -> tuple[Tensor | None, Tensor | None]:
    """Scene points of all tracks and the segment of each."""
    points, owners, number = [], [], 0
    for track in tracks:
        if track.points is not None:
            own = track.point_segments
            own = torch.zeros(len(track.points), dtype=torch.long) if own is None else own
            points.append(track.points)
            owners.append(own + number)
        number += 1 + len(track.starts)
    if len(points) == 0:
        return None, None
    return torch.cat(points), torch.cat(owners)
