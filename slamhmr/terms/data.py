"""Terms that compare the scene with what was measured: keypoints, and the start."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slamhmr.features import PersonFeatures
from slamhmr.geometry import project
from slamhmr.scene import ViewEvidence
from slamhmr.solve.manifolds import logarithm, right_jacobian_inverse, skew
from slamhmr.solve.problem import BorderResidual, Residual
from slamhmr.terms.register import BorderContext, term

NEAREST_DEPTH = 0.1  # m; a seen point closer than this, or behind the camera, has infinite energy


@dataclass(frozen=True)
class ReprojectionSettings:
    """`sigma`: fraction of the person's apparent size; `mu`: Geman-McClure scale in sigma^2."""

    weight: float = 1.0
    sigma: float = 0.015
    mu: float = 16.0


@term("reprojection", ReprojectionSettings)
def reprojection(
    features: PersonFeatures, settings: ReprojectionSettings, derivatives: bool
) -> Residual:
    """Image distance of each keypoint from its point of the body, in sigmas of the person's size.

    r = (project(R_cw Y) - keypoint) / (sigma * size_px), weight = confidence, robust per point. Y
    is the point relative to the camera's centre, so scale and drift do not enter. Seen points
    behind the camera make the energy infinite. Source: SLAHMR's joints2d, there with a fixed 100
    px per coordinate.
    """
    known = features.evidence
    points_cam = features.anchored[:, known.keypoint_points] @ features.cam_from_world.mT
    x, y, z = points_cam.unbind(dim=-1)
    focal, centre = features.intrinsics[:, None, :2], features.intrinsics[:, None, 2:]
    image = focal * points_cam[..., :2] / z[..., None] + centre
    unit = (settings.sigma * known.size_px)[:, None, None]
    value = (image - known.keypoints) / unit
    value = torch.where((z > NEAREST_DEPTH)[..., None], value, torch.full_like(value, torch.inf))
    derivative = border = local = None
    if derivatives:
        fx, fy = (features.intrinsics[:, None, i] / z for i in (0, 1))
        zero = torch.zeros_like(x)
        rows = [fx, zero, -fx * x / z, zero, fy, -fy * y / z]
        of_camera = torch.stack(rows, dim=-1).reshape(*x.shape, 2, 3) / unit[..., None]
        derivative = (of_camera @ features.cam_from_world[:, None])[None]
        if features.layout.focal is not None:
            border = ((image - centre) / unit)[..., None]
        if features.jitter_free:
            local = -of_camera @ skew(points_cam)
    found = Residual(
        "reprojection",
        "anchored",
        known.keypoint_points,
        value,
        settings.weight * known.confidence,
        derivative,
        border_derivative=border,
        border_slice=features.layout.focal,
        local=local,
        kernel=settings.mu,
    )
    if len(known.views) > 0:
        found = _with_views(found, features, settings)
    return found if features.offsets is None else _with_offsets(found, features, settings.sigma)


def _with_offsets(found: Residual, features: PersonFeatures, sigma: float) -> Residual:
    """The same with everybody's keypoints off by their constant offsets."""
    assert features.offsets is not None
    shifted = replace(found, value=found.value + features.offsets / sigma)
    place, before = features.layout.offsets, found.border_slice
    if found.derivative is None or place is None:
        return shifted
    start = place.start if before is None else before.start
    frames, elements, _ = found.value.shape
    derivative = found.value.new_zeros(frames, elements, 2, place.stop - start)
    if before is not None and found.border_derivative is not None:
        derivative[..., : before.stop - before.start] = found.border_derivative
    own = derivative[..., place.start - start :].view(frames, elements, 2, elements, 2)
    own.diagonal(dim1=1, dim2=3).copy_(
        (torch.eye(2, dtype=derivative.dtype, device=derivative.device) / sigma)[..., None].expand(
            frames, 2, 2, elements
        )
    )
    return replace(shifted, border_derivative=derivative, border_slice=slice(start, place.stop))


@dataclass(frozen=True)
class KeypointOffsetSettings:
    """`sigma`: of a keypoint's constant error along each image axis, share of the person's size.

    `scale`: of what they say together, that the person is larger or smaller, relative; 1: free.
    """

    weight: float = 1.0
    sigma: float = 0.012
    scale: float = 1.0


@term("keypoint_offset", KeypointOffsetSettings, on_border=True)
def keypoint_offset(
    context: BorderContext, settings: KeypointOffsetSettings
) -> list[BorderResidual]:
    """Constant offset of every keypoint of everybody against zero.

    Offsets that are a larger or smaller person in the image hardly differ from a person nearer or
    farther away: small biases of other terms would move the person, so these are held tighter.
    """
    offsets, layout = context.scene.offsets, context.layout
    if offsets is None or layout.free.offsets == 0:
        return []
    unit = torch.eye(layout.free.offsets, dtype=offsets.dtype, device=offsets.device)
    unit = unit / settings.sigma
    found = []
    for person, (own, patterns) in enumerate(zip(offsets, context.patterns, strict=True)):
        place, flat = layout.offsets_of(person), patterns.flatten(start_dim=1)
        larger = flat / (flat**2).sum(dim=1, keepdim=True).clamp_min(1e-9) / settings.scale
        for slope in (unit, larger):
            found.append(
                BorderResidual("keypoint_offset", slope @ own.flatten(), settings.weight,
                               context.derivative(len(slope), (place, slope)))
            )  # fmt: skip
    return found


def _with_views(
    main: Residual, features: PersonFeatures, settings: ReprojectionSettings
) -> Residual:
    """The same with the keypoints of the further cameras as more elements.

    Their cameras are rigid with the main one, whose path is taken as calibrated: its focal length,
    drift and jitter are not free (`free_unknowns`).
    """
    assert features.layout.focal is None
    assert main.local is None
    known = features.evidence
    parts = [_seen_by(view, features, settings) for view in known.views]
    elements, values, weights, derivatives = zip(*parts, strict=True)
    derivative = main.derivative
    if derivative is not None:
        derivative = torch.cat([derivative, *(d[None] for d in derivatives)], dim=2)
    return replace(
        main,
        elements=torch.cat([main.elements, *elements]),
        value=torch.cat([main.value, *values], dim=1),
        weight=torch.cat([main.weight, *weights], dim=1),
        derivative=derivative,
    )


def _seen_by(
    view: ViewEvidence, features: PersonFeatures, settings: ReprojectionSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Elements, values, weights and derivatives of one further camera.

    r = (project(R_vm R_mw Y + t_vm) - keypoint) / (sigma * size_px).
    """
    from_world = view.rotation @ features.cam_from_world
    points_cam = features.anchored[:, view.keypoint_points] @ from_world.mT
    points_cam = points_cam + view.translation[:, None]
    x, y, z = points_cam.unbind(dim=-1)
    unit = (settings.sigma * view.size_px)[:, None, None]
    image = project(points_cam, view.intrinsics)
    value = (image - view.keypoints) / unit
    value = torch.where((z > NEAREST_DEPTH)[..., None], value, torch.full_like(value, torch.inf))
    fx, fy = (view.intrinsics[:, None, i] / z for i in (0, 1))
    zero = torch.zeros_like(x)
    rows = [fx, zero, -fx * x / z, zero, fy, -fy * y / z]
    of_camera = torch.stack(rows, dim=-1).reshape(*x.shape, 2, 3) / unit[..., None]
    derivative = of_camera @ from_world[:, None]
    return view.keypoint_points, value, settings.weight * view.confidence, derivative


@dataclass(frozen=True)
class InitialPoseSettings:
    """`tau` frames: correlation time of the initialiser's error.

    Per axis `factor` times the start's own sigma, `sigma_deg` where it gives none.
    """

    weight: float = 1.0
    sigma_deg: float = 15.0
    factor: float = 1.0
    tau: float = 20.0


@term("initial_pose", InitialPoseSettings)
def initial_pose(
    features: PersonFeatures, settings: InitialPoseSettings, derivatives: bool
) -> Residual:
    """Rotation difference to the start, whitened as a first-order autoregressive process.

    e_t = log(R0_t' R_t) / sigma_t; r_t = (e_(t+1) - a e_t) / sqrt(1 - a^2), a = exp(-1 / tau): an
    initialiser that is wrong now is wrong in the same way in the next frame. Weight: the smaller
    of both confidences; 1 where they are above 0 and the start gives its own sigma.
    """
    known, free = features.evidence, features.layout.free
    joints = torch.arange(features.local.shape[1] if free.pose else 1, device=features.local.device)
    start = known.initial_rotations[:, joints]
    error = logarithm(start.transpose(-1, -2) @ features.local[:, joints])
    fade = math.exp(-1.0 / settings.tau)
    confidence = known.initial_confidence[:, joints]
    if known.rotation_sigma is not None:
        unit = settings.factor * known.rotation_sigma[:, joints, None]
        confidence = (confidence > 0).to(confidence)
    else:
        unit = error.new_tensor(settings.sigma_deg * math.pi / 180.0).expand_as(error[..., :1])
    unit = unit * math.sqrt(1.0 - fade**2)
    value, weight = torch.zeros_like(error), torch.zeros_like(confidence)
    value[:-1] = error[1:] / unit[1:] - fade * error[:-1] / unit[:-1]
    weight[:-1] = torch.minimum(confidence[1:], confidence[:-1]) * known.linked[:-1, None]
    derivative = None
    if derivatives:
        slope = right_jacobian_inverse(error) / unit[..., None]
        ahead = torch.zeros_like(slope)
        ahead[:-1] = slope[1:]
        derivative = torch.stack([-fade * slope, ahead])
    return Residual(
        "initial_pose", "rotations", joints, value, settings.weight * weight, derivative
    )
