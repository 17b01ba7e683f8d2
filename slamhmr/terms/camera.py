"""Terms on what cameras may be wrong in: drift, jitter, focal length, the direction of gravity."""

import math
from dataclasses import dataclass

import torch

from slamhmr.scene import plane_axes
from slamhmr.solve.manifolds import left_jacobian
from slamhmr.solve.problem import BorderResidual
from slamhmr.terms.register import BorderContext, term

DEGREE = math.pi / 180.0


@dataclass(frozen=True)
class CameraSettings:
    """Drift after one second, rotation and centre; jitter of every frame. One sigma per axis."""

    weight: float = 1.0
    drift_deg: float = 0.2
    drift: float = 0.01  # m
    jitter_deg: float = 0.1


@term("camera", CameraSettings, on_border=True)
def camera(context: BorderContext, settings: CameraSettings) -> list[BorderResidual]:
    """Deviation of the cameras from SLAM: modes of a random walk, and white jitter of each frame.

    The jitter was minimised over before (`jitter.settle`): it counts in the energy only.
    """
    scene, place = context.scene, context.layout.drift
    if place is None:
        return []
    freedom = context.layout.free.drift
    walk = math.sqrt(max(context.seconds, 1e-3))
    unit = [settings.drift_deg * DEGREE * walk] * 3 + [settings.drift * walk] * 3
    sigma = scene.drift.new_tensor(unit[:freedom])
    value = (scene.drift[:, :freedom] / sigma).flatten()
    slope = torch.diag(1.0 / sigma.repeat(len(scene.drift)))
    derivative = context.derivative(len(value), (place, slope))
    jitter = (scene.jitter / scene.jitter_sigma(settings.jitter_deg * DEGREE)).flatten()
    return [
        BorderResidual("camera", value, settings.weight, derivative),
        BorderResidual("camera", jitter, settings.weight),
    ]


@dataclass(frozen=True)
class SegmentsSettings:
    """`scale` is the weight of the segments' scales, as that of the term 'scale' is."""

    weight: float = 1.0
    scale: float = 1.0


@term("segments", SegmentsSettings, on_border=True)
def segments(context: BorderContext, settings: SegmentsSettings) -> list[BorderResidual]:
    """Placement of every segment of the cameras after the first against the alignment's.

    Over the standard deviations that the alignment states: tilts, yaw, offset, log of the scale.
    """
    moves, sigma, layout = context.scene.segments, context.scene.segment_sigma, context.layout
    if moves is None or sigma is None or layout.segments is None:
        return []
    count = len(moves)
    unit = sigma[:, [0, 0, 1, 2, 2, 2]]
    slope = moves.new_zeros(count, 6, 6)
    slope[:, :3, :3] = torch.linalg.inv(left_jacobian(moves[:, :3]))
    slope[:, 3:, 3:] = torch.eye(3, dtype=moves.dtype, device=moves.device)
    apart = torch.eye(count, dtype=moves.dtype, device=moves.device)
    placed = torch.einsum("kij,kl->kilj", slope / unit[..., None], apart)
    placed = placed.reshape(6 * count, 6 * count)
    value = (moves[:, :6] / unit).flatten()
    stretch = torch.diag(1.0 / sigma[:, 3])
    return [
        BorderResidual("segments", value, settings.weight,
                       context.derivative(6 * count, (layout.segments, placed))),
        BorderResidual("segments", moves[:, 6] / sigma[:, 3], settings.weight * settings.scale,
                       context.derivative(count, (layout.stretch, stretch))),
    ]  # fmt: skip


@dataclass(frozen=True)
class GravitySettings:
    """`sigma_deg` of each tilt from what the start says, where that gives no sigma itself."""

    weight: float = 1.0
    sigma_deg: float = 3.0


@term("gravity", GravitySettings, on_border=True)
def gravity(context: BorderContext, settings: GravitySettings) -> list[BorderResidual]:
    """Tilt of gravity against the start's, whose vertical is z."""
    up, unit = context.scene.up, settings.sigma_deg * DEGREE
    if context.scene.up_sigma is not None:
        unit = float(context.scene.up_sigma)
    derivative = context.derivative(2, (context.layout.gravity, plane_axes(up)[:, :2].T / unit))
    return [BorderResidual("gravity", up[:2] / unit, settings.weight, derivative)]


@dataclass(frozen=True)
class FocalSettings:
    """`sigma`: relative error of the given focal length."""

    weight: float = 1.0
    sigma: float = 0.1


@term("focal", FocalSettings, on_border=True)
def focal(context: BorderContext, settings: FocalSettings) -> list[BorderResidual]:
    """Log of the focal length against the given one."""
    value = context.scene.log_focal[None] / settings.sigma
    slope = value.new_full((1, 1), 1.0 / settings.sigma)
    derivative = context.derivative(1, (context.layout.focal, slope))
    return [BorderResidual("focal", value, settings.weight, derivative)]
