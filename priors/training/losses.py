"""What the lifter is trained on: joints, rotations, vertical, velocity, contacts, shape, sigmas."""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from priors.lifter import BODY_JOINTS, SIGMA_RANGE, SIGMA_WIDTHS, WIDTHS, Crop
from priors.rotation6d import rows_to_matrix
from priors.training.filming import Footage
from priors.training.rig import Rig

WEIGHTS = {
    "joints": 8.0, "motion": 0.15, "rotations": 1.0, "root": 1.5, "up": 2.0, "velocity": 0.6,
    "place": 1.0, "contacts": 0.5, "shape": 0.1, "size": 2.0, "sigmas": 0.02,
}  # fmt: skip
# Joints that evaluations look at and that are seen count more than spine and collars.
JOINT_WEIGHT = torch.ones(1 + BODY_JOINTS)
JOINT_WEIGHT[[10, 11, 20, 21]] = 0.3  # feet and wrists: hardly visible
SPEED_UNIT = 0.5  # m/s


@dataclass(frozen=True)
class Targets:
    """The truth in the frame of the crop."""

    rotations: Float[Tensor, "N T 22 3 3"]
    up: Float[Tensor, "N T 3"]
    place: Float[Tensor, "N T 3"]  # pelvis over size and depth; log of depth times size
    points: Float[Tensor, "N T P 3"]


def targets_of(footage: Footage, view: Crop, rig: Rig) -> Targets:
    """The truth of footage as the crop's camera sees it."""
    crop_from_cam = view.cam_from_crop.mT
    root = crop_from_cam @ footage.rotations_cam[:, :, 0]
    up = (footage.true_world_from_cam @ view.cam_from_crop)[..., 2, :]
    pelvis = (crop_from_cam @ footage.pelvis_cam[..., None])[..., 0]
    size = view.size[..., None]
    depth = pelvis[..., 2:].clamp_min(0.2)
    body = rig.size(footage.betas)[:, None, None]
    place = torch.cat([pelvis[..., :2] / depth / size, (depth * size / body).log()], dim=-1)
    points = (crop_from_cam[:, :, None] @ footage.points_cam[..., None])[..., 0]
    return Targets(
        torch.cat([root[:, :, None], footage.rotations_cam[:, :, 1:]], dim=2), up, place, points
    )


def losses(
    raw: Float[Tensor, "N T D"], footage: Footage, view: Crop, rig: Rig
) -> dict[str, Float[Tensor, ""]]:
    """Every part of the loss, unweighted."""
    truth = targets_of(footage, view, rig)
    six, up, velocity, place, contact, betas, sigma = torch.split(raw.float(), list(WIDTHS), dim=-1)
    present = footage.windows.present.to(raw.dtype).float()
    count = present.sum().clamp_min(1.0)

    def mean(values: Tensor) -> Tensor:
        return (values * present).sum() / count

    rotations = rows_to_matrix(six.reshape(*six.shape[:-1], 1 + BODY_JOINTS, 6))
    shape = (betas * present[..., None]).sum(dim=1) / present.sum(dim=1, keepdim=True).clamp_min(1)
    points, _ = rig.forward(footage.rest, rotations)
    off = points - truth.points
    joint_error = off.norm(dim=-1).mean(dim=-1)
    both = present[:, 1:] * present[:, :-1]
    jumps = (off[:, 1:] - off[:, :-1]).norm(dim=-1).mean(dim=-1) * 30.0
    known = footage.windows.tracked.float()[:, None] * JOINT_WEIGHT.to(raw.device)
    turn = (rotations - truth.rotations).flatten(start_dim=-2).square().sum(dim=-1)
    speed_error = velocity - footage.root_velocity
    rest_error = (rig.rest(shape) - footage.rest)[:, :22].norm(dim=-1).mean()
    up_unit = functional.normalize(up, dim=-1)
    return {
        "joints": mean(joint_error),
        "motion": (jumps * both).sum() / count,
        "rotations": mean((known * turn)[..., 1:].mean(dim=-1)),
        "root": mean((turn[..., 0] + 1e-6).sqrt()),
        "up": mean((up - truth.up).square().sum(dim=-1)),
        "velocity": mean(
            functional.smooth_l1_loss(
                velocity, footage.root_velocity, reduction="none", beta=SPEED_UNIT
            ).sum(dim=-1)
        ),
        "place": mean(
            functional.smooth_l1_loss(place, truth.place, reduction="none", beta=0.1).sum(dim=-1)
        ),
        "contacts": mean(
            functional.binary_cross_entropy_with_logits(
                contact, footage.windows.contacts.clamp(0, 1), reduction="none"
            ).mean(dim=-1)
        ),
        "shape": (shape - footage.betas).square().mean(),
        "size": rest_error,
        "sigmas": mean(_sigma_loss(sigma, rotations, truth, up_unit, speed_error, place, known)),
    }


def _sigma_loss(
    log_sigma: Float[Tensor, "N T S"],
    rotations: Float[Tensor, "N T 22 3 3"],
    truth: Targets,
    up: Float[Tensor, "N T 3"],
    speed_error: Float[Tensor, "N T 3"],
    place: Float[Tensor, "N T 3"],
    known: Float[Tensor, "N _ 22"],
) -> Float[Tensor, "N T"]:
    """Gaussian negative log likelihood of the errors, which are held: only sigmas learn from it."""
    root, joints, up_sigma, speed, depth = torch.split(
        log_sigma.clamp(*SIGMA_RANGE), list(SIGMA_WIDTHS), dim=-1
    )
    with torch.no_grad():
        angle = _angle(rotations, truth.rotations) / 3**0.5  # per axis
        tilt = torch.acos((up * truth.up).sum(dim=-1).clamp(-1, 1)) / 2**0.5
        away = place[..., 2] - truth.place[..., 2]
    turns = known * _nll(torch.cat([root, joints], dim=-1), angle, 3)
    return (
        turns.sum(dim=-1)
        + _nll(up_sigma[..., 0], tilt, 2)
        + _nll(speed, speed_error.detach(), 1).sum(dim=-1)
        + _nll(depth[..., 0], away, 1)
    )


def _nll(log_sigma: Tensor, error: Tensor, axes: int) -> Tensor:
    """Of an error whose mean square over `axes` axes is `error` squared."""
    return axes * (log_sigma + 0.5 * (error * torch.exp(-log_sigma)).square())


def _angle(a: Float[Tensor, "*b 3 3"], b: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    return roma.rotmat_geodesic_distance(a, b)
