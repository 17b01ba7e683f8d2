"""Random cameras that film windows of motion: still, turning, travelling, following, shaking.

Units: metres, world z up; OpenCV cameras; image points as bearings x/z, y/z.
"""

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.training.clips import FPS, Windows
from priors.training.rig import Rig

BETA_SIGMA, BETA_LIMIT = 0.9, 2.5
RARE_SHARE, RARE_SIZES = 0.15, (0.57, 1.2)  # children and very tall people: 1.0 m to 2.1 m
DISTANCE = (1.8, 14.0)  # m, of the camera from the person, log uniform
PITCH_DEG, STEEP_SHARE = (6.0, 12.0), 0.12  # mean and spread below the horizon; steep: up to 60
ROLL_DEG = 3.0
QUARTER_SHARE = 0.03  # of windows, filmed with the camera on its left or right side
SHARE_OF_PICTURE = (0.22, 1.15)  # height of the person over that of the picture, log uniform
ASPECT = (0.56, 1.78)  # width over height of the picture, log uniform
STATURE = 1.75  # m
OFF_CENTRE = (0.25, 0.15)  # of half the picture, standard deviation: aside, up and down
SWAY = 0.12  # of half the picture
FOCAL_ERROR = 0.07  # of the log: what the user says of the focal length is a little wrong
ROTATION_NOISE_DEG = 0.1  # of SLAM, white
NEAREST = 0.4  # m
SHARES = {"still": 0.3, "turning": 0.25, "travelling": 0.45}


@dataclass(frozen=True)
class Footage:
    """What cameras see of windows, and the truth about the people in them."""

    bearings: Float[Tensor, "N T K 2"]  # of the keypoints, as the stated focal length gives them
    inside: Bool[Tensor, "N T K"]  # in the picture and in front of the camera
    world_from_cam: Float[Tensor, "N T 3 3"]  # rotation, as SLAM states it
    true_world_from_cam: Float[Tensor, "N T 3 3"]
    points_cam: Float[Tensor, "N T P 3"]  # relative to the pelvis
    pelvis_cam: Float[Tensor, "N T 3"]
    rotations_cam: Float[Tensor, "N T 22 3 3"]  # cam_from_root, then local
    root_velocity: Float[Tensor, "N T 3"]  # m/s, pelvis axes, over the body's relative size
    betas: Float[Tensor, "N B"]
    rest: Float[Tensor, "N P 3"]
    windows: Windows


def film(windows: Windows, rig: Rig, generator: torch.Generator) -> Footage:
    """Random bodies and cameras for windows of motion."""
    count, frames = windows.pelvis.shape[:2]
    betas = _shapes(count, rig, generator)
    rest, size = rig.rest(betas), rig.size(betas)
    points, _ = rig.forward(rest, windows.rotations)
    pelvis = windows.pelvis * size[:, None, None]
    offset = _offset(count, generator)
    half = _half_picture(offset.norm(dim=-1), generator)
    rotation, centre = _camera_path(pelvis, offset, half, generator)
    cam_from_world = rotation.mT
    points_cam = (cam_from_world[:, :, None] @ points[..., None])[..., 0]
    pelvis_cam = (cam_from_world @ (pelvis - centre)[..., None])[..., 0]
    seen = points_cam[:, :, rig.keypoints] + pelvis_cam[:, :, None]
    depth = seen[..., 2].clamp_min(NEAREST)
    image = seen[..., :2] / depth[..., None]
    inside = (seen[..., 2] > NEAREST) & (image.abs() < half[:, None, None]).all(dim=-1)
    wrong = torch.exp(FOCAL_ERROR * torch.randn(count, 1, 1, 1, generator=generator))
    stated = _turned(rotation, ROTATION_NOISE_DEG, generator)
    root = cam_from_world @ windows.rotations[:, :, 0]
    return Footage(
        bearings=image * wrong,
        inside=inside & windows.present[..., None],
        world_from_cam=stated,
        true_world_from_cam=rotation,
        points_cam=points_cam,
        pelvis_cam=pelvis_cam,
        rotations_cam=torch.cat([root[:, :, None], windows.rotations[:, :, 1:]], dim=2),
        root_velocity=pelvis_velocity(windows),
        betas=betas,
        rest=rest,
        windows=windows,
    )


def _shapes(count: int, rig: Rig, generator: torch.Generator) -> Float[Tensor, "N B"]:
    """Adults, and some of any size."""
    betas = BETA_SIGMA * torch.randn(count, rig.shapedirs.shape[-1], generator=generator)
    betas = betas.clamp(-BETA_LIMIT, BETA_LIMIT)
    low, high = RARE_SIZES
    size = low + (high - low) * torch.rand(count, generator=generator)
    rare = torch.rand(count, generator=generator) < RARE_SHARE
    return torch.where(rare[:, None], rig.resized(betas, size), betas)


def pelvis_velocity(windows: Windows) -> Float[Tensor, "N T 3"]:
    """Velocity of the pelvis to the next frame in the pelvis's own axes, m/s; last one repeated."""
    step = (windows.pelvis[:, 1:] - windows.pelvis[:, :-1]) * FPS
    own = (windows.rotations[:, :-1, 0].mT @ step[..., None])[..., 0]
    return torch.cat([own, own[:, -1:]], dim=1)


def _camera_path(
    pelvis: Float[Tensor, "N T 3"],
    offset: Float[Tensor, "N 3"],
    half: Float[Tensor, "N 2"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "N T 3 3"], Float[Tensor, "N T 3"]]:
    """world_from_cam rotations and centres."""
    count, frames = pelvis.shape[:2]
    kind = torch.multinomial(
        torch.tensor(list(SHARES.values())), count, replacement=True, generator=generator
    )
    turning, travelling = (kind == 1)[:, None, None], (kind == 2)[:, None, None]
    middle = pelvis.mean(dim=1, keepdim=True)
    smooth = _smoothed(pelvis, 10)
    follow = torch.rand(count, 1, 1, generator=generator) * travelling
    follow = torch.where(torch.rand(count, 1, 1, generator=generator) < 0.5, follow.round(), follow)
    drift = _wander((count, frames, 3), 1.2, generator) * torch.tensor([1.0, 1.0, 0.25])
    centre = middle + offset[:, None] + follow * (smooth - middle)
    centre = centre + travelling * drift
    aim_at = torch.where(turning | travelling, smooth, middle.expand_as(smooth))
    loose = torch.rand(count, 1, 1, generator=generator)
    aim_at = middle + (aim_at - middle) * (0.5 + 0.5 * loose)
    rotation = _look_at(aim_at - centre)
    scale = half[:, None].flip(-1).clamp_max(0.6) * torch.tensor(OFF_CENTRE[::-1])
    scale = torch.nn.functional.pad(scale, (0, 1), value=math.radians(ROLL_DEG))
    off = scale * torch.randn(count, 1, 3, generator=generator)
    moving = (turning | travelling).float()
    wide = half.amin(dim=-1)[:, None, None].clamp_max(0.6)
    sway = moving * wide * _wander((count, frames, 3), SWAY, generator)
    shake = moving * 0.01 * torch.rand(count, 1, 1, generator=generator)
    jerk = shake * torch.randn(count, frames, 3, generator=generator)
    chance = torch.rand(count, generator=generator)
    side = (chance < QUARTER_SHARE / 2).float() - (chance > 1 - QUARTER_SHARE / 2).float()
    quarter = math.pi / 2 * torch.nn.functional.pad(side[:, None, None], (2, 0))
    turn = roma.rotvec_to_rotmat(off + sway + jerk) @ roma.rotvec_to_rotmat(quarter)
    return rotation @ turn, centre


def _offset(count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """From the person to the camera, m."""
    low, high = DISTANCE
    distance = low * (high / low) ** torch.rand(count, generator=generator)
    pitch = PITCH_DEG[0] + PITCH_DEG[1] * torch.randn(count, generator=generator)
    steep = torch.rand(count, generator=generator) < STEEP_SHARE
    pitch = torch.where(steep, 60 * torch.rand(count, generator=generator), pitch).clamp(-30, 70)
    yaw = 2 * math.pi * torch.rand(count, generator=generator)
    pitch = torch.deg2rad(pitch)
    flat = torch.stack([pitch.cos() * yaw.cos(), pitch.cos() * yaw.sin(), pitch.sin()], dim=-1)
    return distance[:, None] * flat


def _look_at(direction: Float[Tensor, "N T 3"]) -> Float[Tensor, "N T 3 3"]:
    """world_from_cam of upright cameras that look along a direction."""
    z = torch.nn.functional.normalize(direction, dim=-1)
    x = torch.linalg.cross(z, torch.tensor([0.0, 0.0, 1.0]).expand_as(z))
    x = torch.nn.functional.normalize(x, dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def _half_picture(distance: Float[Tensor, "N"], generator: torch.Generator) -> Float[Tensor, "N 2"]:
    """Half width and height of the picture, as tangents."""
    low, high = SHARE_OF_PICTURE
    share = low * (high / low) ** torch.rand(len(distance), generator=generator)
    narrow, wide = ASPECT
    aspect = narrow * (wide / narrow) ** torch.rand(len(distance), generator=generator)
    height = STATURE / distance / share / 2
    return torch.stack([aspect * height, height], dim=-1)


def _smoothed(values: Float[Tensor, "N T 3"], half: int) -> Float[Tensor, "N T 3"]:
    padded = torch.nn.functional.pad(values.mT, (half, half), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, 2 * half + 1, stride=1).mT


def _wander(
    shape: tuple[int, int, int], scale: float, generator: torch.Generator
) -> Float[Tensor, "N T 3"]:
    """Smooth random paths that begin at 0: a straight line and two slow waves."""
    count, frames, axes = shape
    time = torch.arange(frames)[None, :, None] / FPS
    path = torch.randn(count, 1, axes, generator=generator) * time
    for _ in range(2):
        rate = 0.5 + 4 * torch.rand(count, 1, axes, generator=generator)
        phase = 2 * math.pi * torch.rand(count, 1, axes, generator=generator)
        swing = torch.randn(count, 1, axes, generator=generator) / rate
        path = path + swing * (torch.sin(rate * time + phase) - torch.sin(phase))
    return scale * torch.rand(count, 1, 1, generator=generator) * path


def _turned(
    rotation: Float[Tensor, "N T 3 3"], deg: float, generator: torch.Generator
) -> Float[Tensor, "N T 3 3"]:
    noise = math.radians(deg) * torch.randn(*rotation.shape[:2], 3, generator=generator)
    return rotation @ roma.rotvec_to_rotmat(noise)
