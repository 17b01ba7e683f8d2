"""Lifter: 2D keypoints of one person over time to SMPL in the camera, contacts and velocity.

A WHAM-style network (Shin et al. 2024) without image features and without feedback: residual
temporal convolutions over 2D keypoints in a virtual camera that looks at the person. Every output
comes with a standard deviation. Ours; trained by `priors.training.lifter`. 30 frames per second.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.checkpoints import CheckpointError, check_shapes, load_weights
from priors.rotation6d import rows_to_matrix

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "lifter.safetensors"
FPS = 30.0
KEYPOINT_COUNT = 23  # COCO-17, then big toe, small toe, heel of the left and of the right foot
BODY_JOINTS, CONTACTS, BETAS = 21, 4, 10
# What a frame's output row holds, in order.
ROTATIONS, UP, VELOCITY, PLACE = 6 * (1 + BODY_JOINTS), 3, 3, 3
SIGMA_WIDTHS = (1, BODY_JOINTS, 1, 3, 1)  # logs: root, joints, up, velocity, log depth
WIDTHS = (ROTATIONS, UP, VELOCITY, PLACE, CONTACTS, BETAS, sum(SIGMA_WIDTHS))
FEATURES = 3 * KEYPOINT_COUNT + 7
CONFIDENCE = slice(2 * KEYPOINT_COUNT, 3 * KEYPOINT_COUNT)  # of the features
FARTHEST_TAP = 64  # frames, of a layer: a card that says more is no lifter's
SMOOTHING = 3.0  # frames, of the virtual camera's direction and of the person's size
LEAST_SIZE = 0.004  # rad
SIGMA_RANGE = (-5.0, 1.5)  # of log sigmas


@dataclass(frozen=True)
class Crop:
    """Virtual cameras that look at a person, and what they see."""

    cam_from_crop: Float[Tensor, "N T 3 3"]
    size: Float[Tensor, "N T"]  # spread of the keypoints, tangent of an angle
    features: Float[Tensor, "N T F"]


@dataclass(frozen=True)
class Lifted:
    """What the network says of N people in T frames. Sigmas are per axis."""

    rotations: Float[Tensor, "N T 22 3 3"]  # cam_from_root, then local
    rotation_sigma: Float[Tensor, "N T 22"]  # rad
    up_cam: Float[Tensor, "N T 3"]  # against gravity, unit
    up_sigma: Float[Tensor, "N T"]  # rad
    root_velocity: Float[Tensor, "N T 3"]  # m/s, pelvis axes, of a body of mean size
    root_velocity_sigma: Float[Tensor, "N T 3"]
    pelvis_cam: Float[Tensor, "N T 3"]  # m, of a body of mean size
    log_depth_sigma: Float[Tensor, "N T"]
    contacts: Float[Tensor, "N T 4"]  # probabilities: left heel, left toe, right heel, right toe
    betas: Float[Tensor, "N B"]


def crop(
    bearings: Float[Tensor, "N T K 2"],
    confidence: Float[Tensor, "N T K"],
    world_from_cam: Float[Tensor, "N T 3 3"],
) -> Crop:
    """Network inputs: keypoints in the virtual camera, its turning, the person's size and place.

    Bearings are x/z, y/z; confidence 0 = not seen; cameras' rotations in any world.
    """
    seen = (confidence > 0).to(bearings)
    weight = confidence.sum(dim=2)
    total = weight.clamp_min(1e-6)
    middle = (confidence[..., None] * bearings).sum(dim=2) / total[..., None]
    away = ((bearings - middle[:, :, None]) ** 2).sum(dim=-1)
    spread = ((confidence * away).sum(dim=2) / total).clamp_min(LEAST_SIZE**2).sqrt()
    known = torch.cat([middle, spread.log()[..., None]], dim=-1)
    smooth = _smooth(known, weight * (seen.sum(dim=2) > 3))
    ray = torch.nn.functional.pad(smooth[..., :2], (0, 1), value=1.0)
    cam_from_crop = _turn_to(ray)
    size = smooth[..., 2].exp()
    points = torch.nn.functional.pad(bearings, (0, 1), value=1.0)
    local = points @ cam_from_crop  # = crop_from_cam applied to each
    flat = local[..., :2] / local[..., 2:].clamp_min(0.1)
    scaled = (flat / size[..., None, None]).clamp(-6, 6) * seen[..., None] / 2
    turning = _turning(world_from_cam @ cam_from_crop)
    rest = [smooth[..., :2], 0.5 * smooth[..., 2:] + 1.0, turning, (weight > 0)[..., None].float()]
    features = [scaled.flatten(start_dim=2), confidence, *[part.to(bearings) for part in rest]]
    return Crop(cam_from_crop, size, torch.cat(features, dim=-1))


def _smooth(values: Float[Tensor, "N T D"], weight: Float[Tensor, "N T"]) -> Tensor:
    """Weighted Gaussian means over time; where nothing is near, wider ones."""
    frames = values.shape[1]
    apart = (torch.arange(frames)[:, None] - torch.arange(frames)).to(values).abs()
    if frames > 600:
        return torch.cat(
            [
                _smooth_span(values, weight, at, min(at + 300, frames))
                for at in range(0, frames, 300)
            ],
            dim=1,
        )
    return _mean(values, weight, apart)


def _smooth_span(values: Tensor, weight: Tensor, start: int, stop: int) -> Tensor:
    """The same for frames [start, stop) of a long clip, from 150 frames on either side.

    From the whole clip where none of these sees the person.
    """
    low, high = max(start - 150, 0), min(stop + 150, values.shape[1])
    if not bool((weight[:, low:high] > 0).any(dim=1).all()):
        low, high = 0, values.shape[1]
    apart = (torch.arange(start, stop)[:, None] - torch.arange(low, high)).to(values).abs()
    return _mean(values[:, low:high], weight[:, low:high], apart)


def _mean(values: Tensor, weight: Tensor, apart: Float[Tensor, "S T"]) -> Tensor:
    near = torch.exp(-0.5 * (apart / SMOOTHING) ** 2)
    kernel = near + 1e-3 * torch.exp(-apart / 20.0) + 1e-6
    share = kernel * (weight[:, None] + 1e-9)
    return (share @ values) / share.sum(dim=-1, keepdim=True)


def _turn_to(ray: Float[Tensor, "N T 3"]) -> Float[Tensor, "N T 3 3"]:
    """Smallest rotation that takes the optical axis to a ray (in front of the camera)."""
    ray = torch.nn.functional.normalize(ray, dim=-1)
    x, y, z = ray.unbind(dim=-1)
    a = 1 / (1 + z)
    b = -x * y * a
    rows = [1 - x * x * a, b, x, b, 1 - y * y * a, y, -x, -y, z]
    return torch.stack(rows, dim=-1).reshape(*ray.shape[:-1], 3, 3)


def _turning(world_from_crop: Float[Tensor, "N T 3 3"]) -> Float[Tensor, "N T 3"]:
    """Angular velocity of the virtual camera in its own axes, rad/s; the last one repeated."""
    if world_from_crop.shape[1] < 2:
        return torch.zeros_like(world_from_crop[..., 0])
    step = world_from_crop[:, :-1].mT @ world_from_crop[:, 1:]
    rate = FPS * roma.rotmat_to_rotvec(step)
    return torch.cat([rate, rate[:, -1:]], dim=1).clamp(-5, 5)


class _Mix(nn.Module):
    """Residual block: three taps in time, then a wide layer on each frame."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm_time, self.norm_frame = nn.LayerNorm(width), nn.LayerNorm(width)
        self.taps = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        near = self.taps(self.norm_time(x).mT).mT
        x = x + nn.functional.gelu(near)
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm_frame(x))))


class Lifter(nn.Module):
    """Network from features (N,T,76) to raw rows (N,T,182); `decode` gives them their meaning."""

    def __init__(self, width: int = 384, dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)) -> None:
        super().__init__()
        self.width, self.dilations = width, dilations
        self.embed = nn.Sequential(
            nn.Linear(FEATURES, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.blocks = nn.ModuleList(_Mix(width, dilation) for dilation in dilations)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sum(WIDTHS))

    def forward(self, features: Float[Tensor, "N T F"]) -> Float[Tensor, "N T D"]:
        """Raw outputs of every frame; frames beyond the ends count as zeros."""
        x = self.embed(features)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def decode(raw: Float[Tensor, "N T D"], view: Crop) -> Lifted:
    """Rotations, sigmas, velocities ... of raw rows; in the camera, not in the crop."""
    six, up, velocity, place, contact, betas, sigma = torch.split(raw, list(WIDTHS), dim=-1)
    rotations = rows_to_matrix(six.reshape(*six.shape[:-1], 1 + BODY_JOINTS, 6))
    root = view.cam_from_crop @ rotations[:, :, 0]
    up_crop = torch.nn.functional.normalize(up, dim=-1)
    sigma = sigma.clamp(*SIGMA_RANGE).exp()
    root_sigma, joints, up_sigma, speed, depth = torch.split(sigma, list(SIGMA_WIDTHS), dim=-1)
    away = place[..., 2].clamp(-4, 4).exp() / view.size  # depth of a body of mean size, m
    aside = place[..., :2] * view.size[..., None] * away[..., None]
    pelvis = torch.cat([aside, away[..., None]], dim=-1)
    known = view.features[..., -1:]
    return Lifted(
        rotations=torch.cat([root[:, :, None], rotations[:, :, 1:]], dim=2),
        rotation_sigma=torch.cat([root_sigma, joints], dim=-1),
        up_cam=(view.cam_from_crop @ up_crop[..., None])[..., 0],
        up_sigma=up_sigma[..., 0],
        root_velocity=velocity,
        root_velocity_sigma=speed,
        pelvis_cam=(view.cam_from_crop @ pelvis[..., None])[..., 0],
        log_depth_sigma=depth[..., 0],
        contacts=contact.sigmoid(),
        betas=(betas * known).sum(dim=1) / known.sum(dim=1).clamp_min(1.0),
    )


def load_lifter(path: Path | None = None) -> tuple[Lifter, dict[str, Any]]:
    """Trained network, float32, in evaluation mode, and its card.

    Raises FileNotFoundError for a missing file, CheckpointError for any other.
    """
    path = path if path is not None else DEFAULT_WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"lifter weights '{path}' do not exist")
    tensors, card = load_weights(path, None)
    dilations, head = card.get("dilations"), tensors.get("head.weight")
    if card.get("kind") != "lifter" or not isinstance(dilations, list) or head is None:
        raise CheckpointError(f"weights '{path}' are not those of a lifter (kind in their card)")
    if not all(type(step) is int and 1 <= step <= FARTHEST_TAP for step in dilations):
        raise CheckpointError(
            f"card of '{path}': dilations {str(dilations)[:80]} must be whole numbers from 1 to "
            f"{FARTHEST_TAP}"
        )
    network = Lifter(int(head.shape[-1]), tuple(dilations))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    check_shapes(tensors, shapes, f"lifter weights '{path}'")
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return network.eval(), card
