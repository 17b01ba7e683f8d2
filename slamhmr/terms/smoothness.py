"""Terms on accelerations: motion is smooth, but neither slow nor still."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.features import PersonFeatures
from slamhmr.solve.manifolds import logarithm, right_jacobian_inverse
from slamhmr.solve.problem import Residual
from slamhmr.terms.register import term

# Rms acceleration per point on CMU walks and everyday actions, m/s^2 (solver_probe.md, section 1).
ACCELERATION_RMS = {
    "pelvis": 2.7, "left_foot": 7.0, "right_foot": 7.0, "left_ankle": 6.5, "right_ankle": 6.5,
    "left_wrist": 8.0, "right_wrist": 8.0, "left_elbow": 5.5, "right_elbow": 5.5,
    "left_knee": 5.0, "right_knee": 5.0, "left_big_toe": 11.0, "right_big_toe": 11.0,
    "left_heel": 8.0, "right_heel": 8.0, "left_small_toe": 11.0, "right_small_toe": 11.0,
}  # fmt: skip
TRUNK_RMS = 3.5  # every other point


@dataclass(frozen=True)
class AccelerationSettings:
    """`weight` is far below 1: accelerations of neighbouring points and frames are correlated."""

    weight: float = 0.01


@term("acceleration", AccelerationSettings)
def acceleration(
    features: PersonFeatures, settings: AccelerationSettings, derivatives: bool
) -> Residual:
    """World acceleration of joints and landmarks over its usual size, divided by body size.

    r_t = (x_(t+2) - x_(t+1)) / h1 - (x_(t+1) - x_t) / h0, times 2 / (h0 + h1), over rms. Zero
    across cuts. Source: ours; SLAHMR's `joints3d_smooth` takes first differences, which also
    penalise walking.
    """
    coefficients, present = second_difference(features, features.evidence.linked)
    return _accelerations("acceleration", features, coefficients, settings.weight * present,
                          derivatives)  # fmt: skip


@dataclass(frozen=True)
class SegmentTieSettings:
    """`weight` as that of `acceleration`: points of one body are correlated."""

    weight: float = 0.3


@term("segment_tie", SegmentTieSettings)
def segment_tie(
    features: PersonFeatures, settings: SegmentTieSettings, derivatives: bool
) -> Residual:
    """The same across the ends of segments of the cameras over which a motion goes on.

    Whoever walks on while SLAM begins anew says where the new segment lies. Source: ours.
    """
    known = features.evidence
    tied = torch.zeros_like(known.linked) if known.tied is None else known.tied
    coefficients, present = second_difference(features, known.linked | tied)
    across = tied.clone()
    across[:-1] |= tied[1:]
    weight = settings.weight * present * across
    somewhere = known.tied is not None and bool(across.any())
    return _accelerations("segment_tie", features, coefficients, weight, derivatives, somewhere)


def _accelerations(
    name: str,
    features: PersonFeatures,
    coefficients: Float[Tensor, "3 T"],
    weight: Float[Tensor, "T"],
    derivatives: bool,
    somewhere: bool = True,
) -> Residual:
    """Second differences of all points, whitened; of none where it counts not `somewhere`."""
    names = features.points.names if somewhere else ()
    points = features.world[:, : len(names)]
    rms = points.new_tensor([ACCELERATION_RMS.get(name, TRUNK_RMS) for name in names])
    value = torch.zeros_like(points)
    value[:-2] = sum(
        (coefficients[i, :-2, None, None] * points[i : len(points) - 2 + i] for i in range(3)),
        start=torch.zeros_like(points[:-2]),
    )
    value = value / rms[:, None]
    size = features.points.size(features.betas)
    isotropic = coefficients[:, :, None] / (rms * size) if derivatives else None
    value, border = features.size_border(value)
    elements = torch.arange(len(names), device=points.device)
    return Residual(
        name, "points", elements, value, weight[:, None].expand(len(points), len(names)),
        isotropic=isotropic, border_derivative=border, border_slice=features.layout.betas,
    )  # fmt: skip


def second_difference(
    features: PersonFeatures, linked: Bool[Tensor, "T"]
) -> tuple[Float[Tensor, "3 T"], Float[Tensor, "T"]]:
    """Coefficients of x_t, x_(t+1), x_(t+2) in the acceleration (1/s^2), and where it exists."""
    times = features.evidence.times
    frames = len(times)
    coefficients, present = times.new_zeros(3, frames), times.new_zeros(frames)
    if frames < 3:
        return coefficients, present
    before, after = times[1:-1] - times[:-2], times[2:] - times[1:-1]
    coefficients[0, :-2] = 2.0 / ((before + after) * before)
    coefficients[2, :-2] = 2.0 / ((before + after) * after)
    coefficients[1] = -(coefficients[0] + coefficients[2])
    present[:-2] = (linked[:-2] & linked[1:-1]).to(times)
    return coefficients, present


@dataclass(frozen=True)
class TurningSettings:
    """`sigma`: usual angular acceleration of a joint, rad/s^2; `mu`: Geman-McClure, in sigma^2."""

    weight: float = 0.01
    sigma: float = 25.0
    mu: float | None = None


@term("turning", TurningSettings, needs_pose=True)
def turning(features: PersonFeatures, settings: TurningSettings, derivatives: bool) -> Residual:
    """Angular acceleration of each joint's own rotation, rad/s^2 over sigma.

    r_t = (log(R_(t+1)' R_(t+2)) / h1 - log(R_t' R_(t+1)) / h0) 2 / (h0 + h1): steadies what no
    keypoint sees, the twist of straight limbs, and whoever is still; where limbs are flung about,
    a kernel lets go. The root's is relative to the cameras' drift, which turns too slowly to
    matter. Source: ours.
    """
    local, times = features.local, features.evidence.times
    frames, joints = local.shape[:2]
    value = local.new_zeros(frames, joints, 3)
    derivative = local.new_zeros(3, frames, joints, 3, 3) if derivatives else None
    _, present = second_difference(features, features.evidence.linked)
    if frames >= 3:
        steps = times[1:] - times[:-1]
        turn = logarithm(local[:-1].transpose(-1, -2) @ local[1:])  # (T-1, J, 3)
        rate = turn / steps[:, None, None]
        unit = settings.sigma * 0.5 * (steps[1:] + steps[:-1])[:, None, None]
        value[:-2] = (rate[1:] - rate[:-1]) / unit
        if derivative is not None:
            ahead = right_jacobian_inverse(turn) / steps[:, None, None, None]
            behind = -ahead.transpose(-1, -2)
            wide = unit[..., None]
            derivative[0, :-2] = -behind[:-1] / wide
            derivative[1, :-2] = (behind[1:] - ahead[:-1]) / wide
            derivative[2, :-2] = ahead[1:] / wide
    weight = settings.weight * present[:, None].expand(frames, joints)
    return Residual(
        "turning",
        "rotations",
        torch.arange(joints, device=value.device),
        value,
        weight,
        derivative,
        kernel=settings.mu,
    )
