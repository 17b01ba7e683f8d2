"""Inputs of WHAM from keypoints and cameras.

Everything is sampled at 30 fps without gaps: resample slower and faster videos before, and fill a
person's gaps; frames that are merely put side by side are jumps to the network.
Source: github.com/yohanshin/WHAM at 2b54f77, as described in prose.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors.rotation6d import ROWS_IDENTITY, matrix_to_rows
from priors.wham import FPS, Compat

BOX_CONFIDENCE = 0.3  # keypoints above make the box; those below are masked
BOX_MARGIN = 1.2
BOX_UNIT = 200.0  # px per unit of a box's size


def boxes(keypoints: Float[Tensor, "T 17 2"], confidence: Float[Tensor, "T 17"]) -> Tensor:
    """Square boxes (T,3): centre x, y in px, and side / 200, 1.2 times the keypoints' extent.

    NaN in frames without a keypoint above `BOX_CONFIDENCE`.
    """
    known = (confidence > BOX_CONFIDENCE)[..., None]
    low = torch.where(known, keypoints, torch.inf).amin(dim=-2)
    high = torch.where(known, keypoints, -torch.inf).amax(dim=-2)
    side = (high - low).amax(dim=-1, keepdim=True) * BOX_MARGIN / BOX_UNIT
    found = torch.cat([(low + high) / 2, side], dim=-1)
    return torch.where(known.any(dim=-2), found, torch.nan)


def median_width(fps: float) -> int:
    """Odd width, in frames, of the boxes' median filter: about half a second."""
    return int(int(fps / 2) / 2) * 2 + 1


def filter_boxes(
    boxes: Float[Tensor, "T 3"], width: int, compat: Compat = "corrected"
) -> Float[Tensor, "T 3"]:
    """Running median over `width` (odd) frames of each number.

    At the ends, the first and last box are repeated. The official code pads with zeros instead,
    so that in the first and last frames boxes shrink and move to the corner of the image.
    """
    half = width // 2
    first, last = boxes[:1].expand(half, -1), boxes[-1:].expand(half, -1)
    if compat == "official":
        first, last = torch.zeros_like(first), torch.zeros_like(last)
    padded = torch.cat([first, boxes, last])
    return padded.unfold(0, width, 1).median(dim=-1).values


def normalise(
    keypoints: Float[Tensor, "T 17 2"],
    boxes: Float[Tensor, "T 3"],
    image_size: tuple[float, float],
) -> Float[Tensor, "T 37"]:
    """Keypoints in -1..1 of their box, then the box's centre and side in the image."""
    centre, side = boxes[:, :2], boxes[:, 2:] * BOX_UNIT
    points = (keypoints - centre[:, None]) / (side[:, None] / 2)
    size = centre.new_tensor(image_size)
    where = (2 * centre - size) / size.max()
    return torch.cat([points.flatten(1), where, side / size.max()], dim=-1)


def camera_velocity(
    cam_from_world: Float[Tensor, "T 3 3"],
    frames: Int[Tensor, "F"] | None = None,
    compat: Compat = "corrected",
) -> Float[Tensor, "F 6"]:
    """Camera rotation from each frame to the next, 6D rows less identity, times 30 per second.

    R_t R_{t+1}' of consecutive frames at 30 fps, taken at the `frames` a person is seen in (all
    where None). The last frame repeats the one before. The official code repeats the FIRST
    there, and gives every person the rotations from frame 0, whatever frame they appear in.
    """
    turn = cam_from_world[:-1] @ cam_from_world[1:].transpose(-1, -2)
    velocity = (matrix_to_rows(turn) - turn.new_tensor(ROWS_IDENTITY)) * FPS
    if len(velocity) == 0:
        velocity = cam_from_world.new_zeros(1, 6)
    elif compat == "official":
        velocity = torch.cat([velocity, velocity[:1]])
    else:
        velocity = torch.cat([velocity, velocity[-1:]])
    if frames is None:
        return velocity
    if compat == "official":
        return velocity[: len(frames)]
    return velocity[frames]


def default_intrinsics(image_size: tuple[float, float]) -> Float[Tensor, "3 3"]:
    """Pinhole camera of an image nothing is known of: f = sqrt(w^2 + h^2), CLIFF's guess."""
    width, height = image_size
    f = math.hypot(width, height)
    return torch.tensor([[f, 0.0, width / 2], [0.0, f, height / 2], [0.0, 0.0, 1.0]])


def centred(
    points: Float[Tensor, "*batch P 3"], left: int = 11, right: int = 12
) -> Float[Tensor, "*batch P 3"]:
    """Points from the middle of two of them, the COCO hips."""
    return points - points[..., [left, right], :].mean(dim=-2, keepdim=True)


def soft_contacts(feet: Float[Tensor, "T 4 3"]) -> Float[Tensor, "T 4"]:
    """The label that the contact head was trained on: 1 / (1 + exp(500 (v - 0.01))).

    v is the central difference of the foot point's position, m per frame; the ends are repeated.
    """
    speed = (feet[2:] - feet[:-2]).norm(dim=-1) / 2
    speed = torch.cat([speed[:1], speed, speed[-1:]])
    return torch.sigmoid(-500 * (speed - 0.01))
