"""WHAM on a video and its mirror image: two views of one motion, averaged.

Source: github.com/yohanshin/WHAM at 2b54f77, as described in prose (the demo's flip evaluation).
"""

from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from priors.rotation6d import matrix_to_rows, rows_to_matrix
from priors.wham import Clip, Compat, Prediction, Predictor, Start

# Left and right of the COCO keypoints, of SMPL's joints and of the four contact points exchanged.
MIRROR_KEYPOINTS = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
MIRROR_JOINTS = (
    0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22,
)  # fmt: skip
MIRROR_CONTACTS = (2, 3, 0, 1)
Rows = TypeVar("Rows", Start, Clip)


def predict_averaged(
    predictor: Predictor,
    clips: tuple[tuple[Start, Clip], tuple[Start, Clip]],
    compat: Compat = "corrected",
) -> Prediction:
    """Average of a clip's prediction and its mirror image's, run as people of one batch.

    The mirror image comes second: keypoints and boxes by `mirror_points` and `mirror_boxes` before
    they are normalised, features and start from the mirrored image.
    """
    (start, clip), (start_mirrored, clip_mirrored) = clips
    people = len(start.root)
    both = predictor.predict(_joined(start, start_mirrored), _joined(clip, clip_mirrored), compat)
    halves = [
        Prediction(*(value[rows] for value in vars(both).values()))
        for rows in (slice(0, people), slice(people, None))
    ]
    return average_mirrored(*halves)


def average_mirrored(first: Prediction, mirrored: Prediction) -> Prediction:
    """`first` with pose, betas and contacts averaged with those of the mirrored video.

    Camera, trajectory and context stay those of `first`.
    """
    shape = (*first.pose.shape[:-1], 24, 6)
    other = mirror_pose(mirrored.pose.reshape(shape))
    pose = mean_pose(first.pose.reshape(shape), other).flatten(-2)
    return replace(
        first,
        pose=pose,
        betas=(first.betas + mirrored.betas) / 2,
        contact=(first.contact + mirrored.contact[..., MIRROR_CONTACTS]) / 2,
    )


def mirror_points(points: Float[Tensor, "*batch 17 2"], width: float) -> Tensor:
    """Keypoints of the image mirrored left to right: x' = width - x, sides exchanged."""
    x = width - points[..., 0]
    return torch.stack([x, points[..., 1]], dim=-1)[..., MIRROR_KEYPOINTS, :]


def mirror_boxes(boxes: Float[Tensor, "*batch 3"], width: float) -> Tensor:
    """Boxes of the mirrored image."""
    return torch.cat([width - boxes[..., :1], boxes[..., 1:]], dim=-1)


def mirror_pose(pose: Float[Tensor, "*batch 24 6"]) -> Float[Tensor, "*batch 24 6"]:
    """SMPL pose seen in a mirror: sides exchanged, rotations turned about x kept, y and z back."""
    sign = pose.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
    return pose[..., MIRROR_JOINTS, :] * sign


def mean_pose(
    first: Float[Tensor, "*batch 24 6"], second: Float[Tensor, "*batch 24 6"]
) -> Float[Tensor, "*batch 24 6"]:
    """Rotations nearest to the mean matrix of two: U V' of its singular value decomposition.

    The determinant is not looked at, as in the official code: it is positive unless the two are
    about half a turn apart.
    """
    mean = (rows_to_matrix(first) + rows_to_matrix(second)) / 2
    u, _, vh = torch.linalg.svd(mean)
    return matrix_to_rows(u @ vh)


def _joined(first: Rows, second: Rows) -> Rows:
    values: dict[str, Any] = {
        name: None if value is None else torch.cat([value, getattr(second, name)])
        for name, value in vars(first).items()
    }
    return type(first)(**values)
