"""What WHAM is given of each person and shot: COCO keypoints, cameras and features at 30 fps."""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.wham import FPS, Clip
from priors.wham_mirror import MIRROR_KEYPOINTS, mirror_boxes, mirror_points
from priors.wham_preprocess import (
    BOX_CONFIDENCE,
    boxes,
    camera_velocity,
    filter_boxes,
    median_width,
    normalise,
)
from slamhmr.geometry import between, fill_gaps
from slamhmr.skeleton import COCO_KEYPOINTS
from slamhmr.types import CameraTrack, Observations


@dataclass(frozen=True)
class Track:
    """One person in one shot, from the first frame they are seen in to the last, at 30 fps."""

    person: int  # row of the observations
    rows: Int[Tensor, "T"]  # frames of the video that it covers
    usable: Bool[Tensor, "T"]
    at: Float[Tensor, "S"]  # where the track's frames lie among `rows`
    keypoints: Float[Tensor, "S 17 2"]  # px
    confidence: Float[Tensor, "S 17"]  # 0 where not seen or under WHAM's threshold
    boxes: Float[Tensor, "S 3"]  # centre px, side / 200, filtered
    cam_from_world: Float[Tensor, "S 3 3"]
    intrinsics: Float[Tensor, "S 4"]
    features: Float[Tensor, "S M 1024"] | None  # of the video, and of its mirror image

    def clip(self, image_size: tuple[int, int], *, mirrored: bool = False) -> Clip:
        """The network's inputs; `mirrored`: of the video's mirror image."""
        points, sides, confidence = self.keypoints, self.boxes, self.confidence
        features = None if self.features is None else self.features[None, :, int(mirrored)].float()
        if mirrored:
            width = float(image_size[0])
            points, sides = mirror_points(points, width), mirror_boxes(sides, width)
            confidence = confidence[:, list(MIRROR_KEYPOINTS)]
        size = (float(image_size[0]), float(image_size[1]))
        return Clip(
            normalise(points, sides, size)[None].float(),
            (confidence <= 0)[None],
            camera_velocity(self.cam_from_world)[None].float(),
            features,
        )


def tracks(
    observations: Observations,
    cameras: CameraTrack,
    min_points: int,
    features: Float[Tensor, "N T M 1024"] | None,
    cuts: tuple[int, ...],
) -> list[Track]:
    """Every person in every shot they are seen in; frames between are filled, never left out.

    A frame counts when `min_points` COCO keypoints reach WHAM's confidence of 0.3.
    """
    points, confidence = coco_keypoints(observations)
    usable = (confidence > 0).sum(dim=-1) >= min_points
    found = []
    frames = points.shape[1]
    for person in range(len(points)):
        for start, stop in zip((0, *cuts), (*cuts, frames), strict=True):
            inside = torch.nonzero(usable[person, start:stop])[:, 0] + start
            if len(inside) == 0:
                continue
            rows = torch.arange(int(inside[0]), int(inside[-1]) + 1)
            trusted = torch.where(usable[person, rows, None], confidence[person, rows], 0.0)
            own = None if features is None else features[person, rows]
            found.append(
                _resampled(person, rows, points[person, rows], trusted, own, observations, cameras)
            )
    return found


def coco_keypoints(
    observations: Observations,
) -> tuple[Float[Tensor, "N T 17 2"], Float[Tensor, "N T 17"]]:
    """The 17 COCO keypoints in their order; confidence 0 for those not there or below 0.3."""
    people, frames = observations.confidence.shape[:2]
    points = torch.zeros(people, frames, len(COCO_KEYPOINTS), 2, dtype=torch.float64)
    confidence = torch.zeros(people, frames, len(COCO_KEYPOINTS), dtype=torch.float64)
    for place, name in enumerate(COCO_KEYPOINTS):
        if name in observations.keypoint_names:
            source = observations.keypoint_names.index(name)
            points[:, :, place] = observations.keypoints[:, :, source]
            confidence[:, :, place] = observations.confidence[:, :, source]
    return points, torch.where(confidence > BOX_CONFIDENCE, confidence, 0.0)


def interpolate(
    values: Float[Tensor, "T *rest"], knots: Float[Tensor, "T"], at: Float[Tensor, "S"]
) -> Float[Tensor, "S *rest"]:
    """Linear interpolation in the first axis, held beyond the ends."""
    left, right, share = between(knots, at)
    return torch.lerp(values[left], values[right], share.reshape(-1, *[1] * (values.dim() - 1)))


def interpolate_rotations(
    values: Float[Tensor, "T *rest 3 3"], knots: Float[Tensor, "T"], at: Float[Tensor, "S"]
) -> Float[Tensor, "S *rest 3 3"]:
    """The rotations nearest to the interpolated matrices."""
    return roma.special_procrustes(interpolate(values, knots, at))


def _resampled(
    person: int,
    rows: Int[Tensor, "T"],
    points: Float[Tensor, "T 17 2"],
    confidence: Float[Tensor, "T 17"],
    features: Float[Tensor, "T M 1024"] | None,
    observations: Observations,
    cameras: CameraTrack,
) -> Track:
    """A track at 30 fps: keypoints between frames that both see them, else those of the nearer."""
    seconds = observations.timestamps[rows] - observations.timestamps[rows[0]]
    grid = torch.arange(0, float(seconds[-1]) + 0.5 / FPS, 1 / FPS, dtype=torch.float64)
    left, right, share = between(seconds, grid)
    seen = torch.stack([confidence[left] > 0, confidence[right] > 0]).double()
    weight = torch.stack([1 - share, share])[..., None] * seen
    total = weight.sum(dim=0)
    weight = weight / total.clamp_min(1e-9)
    mixed = weight[0, ..., None] * points[left] + weight[1, ..., None] * points[right]
    trust = weight[0] * confidence[left] + weight[1] * confidence[right]
    trust = torch.where(total > 0.49, trust, 0.0)
    sides = boxes(mixed, trust)
    sides = fill_gaps(sides.nan_to_num(0.0), sides.isfinite().all(dim=-1))
    nearest = torch.where(share < 0.5, left, right)
    turns = interpolate_rotations(cameras.world_from_cam[rows, :3, :3], seconds, grid)
    return Track(
        person=person,
        rows=rows,
        usable=(confidence > 0).any(dim=-1),
        at=left + share,
        keypoints=mixed,
        confidence=trust,
        boxes=filter_boxes(sides, median_width(FPS)),
        cam_from_world=turns.transpose(-1, -2),
        intrinsics=interpolate(cameras.intrinsics[rows], seconds, grid),
        features=None if features is None else features[nearest],
    )
