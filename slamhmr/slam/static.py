"""Camera on a tripod: one pose for the whole clip."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.types import CameraTrack, Observations, Video


@dataclass(frozen=True)
class Options:
    """There is nothing to set."""


def track_camera(
    video: Video,
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    *,
    progress: bool,
) -> CameraTrack:
    """Identity in every frame, because the user says that the camera stands still."""
    return stand_still(video, intrinsics, "camera taken as static on the user's word, not measured")


def stand_still(
    video: Video, intrinsics: Float[Tensor, "4"], note: str, *, frames: int | None = None
) -> CameraTrack:
    """Track of a camera that does not move, with the reason as a note; of all frames or a few."""
    count = video.frame_count if frames is None else frames
    return CameraTrack(
        world_from_cam=torch.eye(4, dtype=torch.float64).repeat(count, 1, 1),
        intrinsics=intrinsics.double().repeat(count, 1),
        image_size=video.image_size,
        scale_known=False,
        moving=False,
        source="static",
        notes=(note,),
    )
