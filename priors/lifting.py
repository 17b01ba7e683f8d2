"""What the lifter says of people and of their mirror images, averaged.

Both are views of one motion that training knew alike; the network's errors on them are not the
same, so their mean is nearer to the truth. Flip averaging as WHAM's demo and many others do it.
"""

from dataclasses import fields, replace

import roma
import torch
from torch import Tensor

from priors.lifter import KEYPOINT_COUNT, Crop, Lifted, Lifter, decode
from priors.wham_mirror import MIRROR_CONTACTS, MIRROR_JOINTS, MIRROR_KEYPOINTS

KEYPOINTS = (*MIRROR_KEYPOINTS, 20, 21, 22, 17, 18, 19)  # then toes and heels
JOINTS = MIRROR_JOINTS[:22]
# Of the other features: direction x y, size, turning about x y z, whether anything is seen.
REST = (-1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0)
FLIP = (-1.0, 1.0, 1.0)


def lift(network: Lifter, view: Crop) -> Lifted:
    """Mean of both, in the camera, in the dtype of the view; sigmas are geometric means."""
    device, twin = next(network.parameters()).device, mirrored_view(view)
    features = torch.cat([view.features, twin.features]).float().to(device)
    with torch.no_grad():
        raw = network(features).to(view.features)
    own, other = decode(raw[: len(raw) // 2], view), decode(raw[len(raw) // 2 :], twin)
    return mean_of(own, mirrored_back(other))


def mirrored_view(view: Crop) -> Crop:
    """The same people in the plane x = 0 of the camera, left and right exchanged."""
    flip = view.cam_from_crop.new_tensor(FLIP)
    parts = [2 * KEYPOINT_COUNT, KEYPOINT_COUNT, len(REST)]
    points, confidence, rest = torch.split(view.features, parts, dim=-1)
    points = points.reshape(*points.shape[:-1], KEYPOINT_COUNT, 2)[..., KEYPOINTS, :]
    points = points * points.new_tensor(FLIP[:2])
    features = [
        points.flatten(start_dim=-2), confidence[..., KEYPOINTS], rest * rest.new_tensor(REST),
    ]  # fmt: skip
    return replace(
        view,
        cam_from_crop=view.cam_from_crop * flip[:, None] * flip,
        features=torch.cat(features, dim=-1),
    )


def mirrored_back(lifted: Lifted) -> Lifted:
    """What was said of a mirror image, said of the people themselves."""
    flip = lifted.up_cam.new_tensor(FLIP)
    return replace(
        lifted,
        rotations=lifted.rotations[:, :, JOINTS] * flip[:, None] * flip,
        rotation_sigma=lifted.rotation_sigma[..., JOINTS],
        up_cam=lifted.up_cam * flip,
        root_velocity=lifted.root_velocity * flip,
        pelvis_cam=lifted.pelvis_cam * flip,
        contacts=lifted.contacts[..., MIRROR_CONTACTS],
    )


def mean_of(first: Lifted, second: Lifted) -> Lifted:
    """Mean of two answers: rotations by the nearest to their mean matrix."""

    def mean(name: str) -> Tensor:
        own, other = getattr(first, name), getattr(second, name)
        return (own * other).sqrt() if "sigma" in name else (own + other) / 2

    means = {field.name: mean(field.name) for field in fields(Lifted)}
    up = torch.nn.functional.normalize(means.pop("up_cam"), dim=-1)
    return Lifted(rotations=roma.special_procrustes(means.pop("rotations")), up_cam=up, **means)
