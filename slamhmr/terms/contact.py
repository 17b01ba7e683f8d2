"""Terms on feet and floor: contacts neither slide nor float, nothing is under the floor."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.features import PersonFeatures
from slamhmr.scene import plane_axes
from slamhmr.skeleton import IN_CONTACT
from slamhmr.solve.manifolds import skew
from slamhmr.solve.problem import BorderResidual, Residual
from slamhmr.terms.register import BorderContext, term


@dataclass(frozen=True)
class ContactVelocitySettings:
    """`sigma` m/s (contacts of real mocap slide 0.13-0.15); `mu`: Geman-McClure, sigma^2."""

    weight: float = 1.0
    sigma: float = 0.15
    mu: float = 9.0


@term("contact_velocity", ContactVelocitySettings)
def contact_velocity(
    features: PersonFeatures, settings: ContactVelocitySettings, derivatives: bool
) -> Residual:
    """World velocity of heels and toes while in contact, over sigma, divided by body size.

    r_t = (x_(t+1) - x_t) / (h sigma), weight = p_t p_(t+1). With a moving camera this makes the
    scale observable. Source: SLAHMR's contact_vel, there without size and kernel.
    """
    places, known = features.points.contact, features.evidence
    feet = features.world[:, places]
    value, weight = torch.zeros_like(feet), torch.zeros_like(known.contacts)
    steps = torch.ones_like(known.times)
    steps[:-1] = known.times[1:] - known.times[:-1]
    unit = (settings.sigma * steps)[:, None, None]
    value[:-1] = (feet[1:] - feet[:-1]) / unit[:-1]
    weight[:-1] = known.contacts[1:] * known.contacts[:-1] * known.linked[:-1, None]
    isotropic = None
    if derivatives:
        ahead = 1.0 / (unit[..., 0] * features.points.size(features.betas))
        ahead = ahead.expand(len(feet), feet.shape[1])
        isotropic = torch.stack([-ahead, ahead])
    value, border = features.size_border(value)
    return Residual(
        "contact_velocity", "points", places, value, settings.weight * weight,
        isotropic=isotropic, border_derivative=border, border_slice=features.layout.betas,
        kernel=settings.mu,
    )  # fmt: skip


@dataclass(frozen=True)
class ContactHeightSettings:
    """`sigma` m; `mu`: Geman-McClure, sigma^2."""

    weight: float = 1.0
    sigma: float = 0.03
    mu: float = 9.0


@term("contact_height", ContactHeightSettings)
def contact_height(
    features: PersonFeatures, settings: ContactHeightSettings, derivatives: bool
) -> Residual:
    """Height of heels and toes over the ground while in contact, over sigma and body size.

    r = ((n.x + d - h) / size - s) / sigma, h the point's height above a flat sole, s that of what
    it stands on above the ground, in sizes of the body: steps grow with whom the pixels show on
    them; weight = p. Source: SLAHMR's contact_height, there in metres, L1
    beyond 8 cm.
    """
    places = features.points.contact
    height, derivative, border = _height(features, places, settings.sigma, derivatives)
    value, derivative, border, columns = _over_size(features, height, derivative, border)
    if features.evidence.support is not None:
        value = value - features.evidence.support[..., None] / settings.sigma
    weight = settings.weight * features.evidence.contacts
    return Residual(
        "contact_height", "points", places, value, weight, derivative,
        border_derivative=border, border_slice=columns, kernel=settings.mu,
    )  # fmt: skip


@dataclass(frozen=True)
class PenetrationSettings:
    """`sigma` m."""

    weight: float = 0.3
    sigma: float = 0.03


@term("penetration", PenetrationSettings)
def penetration(
    features: PersonFeatures, settings: PenetrationSettings, derivatives: bool
) -> Residual:
    """Depth of any point under the ground, over sigma and body size; one-sided, zero above.

    A foot in contact must not be under what it stands on.
    """
    known = features.evidence
    places = torch.arange(len(features.points.names), device=known.contacts.device)
    height, derivative, border = _height(features, places, settings.sigma, derivatives)
    height, derivative, border, columns = _over_size(features, height, derivative, border)
    if known.support is not None:
        below = torch.where(known.contacts > IN_CONTACT, known.support, 0.0)
        height[:, features.points.contact, 0] -= below / settings.sigma
    under = height < 0
    value = torch.where(under, height, torch.zeros_like(height))
    if derivative is not None:
        derivative = derivative * under[None, ..., None]
    if border is not None:
        border = border * under[..., None]
    weight = torch.full_like(height[..., 0], settings.weight)
    return Residual(
        "penetration", "points", places, value, weight, derivative,
        border_derivative=border, border_slice=columns,
    )  # fmt: skip


def _height(
    features: PersonFeatures, places: Tensor, sigma: float, derivatives: bool
) -> tuple[Float[Tensor, "T E 1"], Tensor | None, Tensor | None]:
    """Signed height of the sole under each point over sigma; derivatives for all it depends on."""
    normal, offset = features.ground[:3], features.ground[3]
    points = features.world[:, places]
    height = points @ normal + offset - features.points.clearance[places]
    value = (height / sigma)[..., None]
    if not derivatives:
        return value, None, None
    derivative = (normal / sigma).expand(1, *points.shape[:2], 1, 3)
    border = None
    if features.layout.ground is not None:
        tilts = points @ plane_axes(normal).T / sigma
        offsets = torch.full_like(tilts[..., :1], 1.0 / sigma)
        border = torch.cat([tilts, offsets], dim=-1)[..., None, :]
    return value, derivative, border


def _over_size(
    features: PersonFeatures,
    value: Float[Tensor, "T E 1"],
    derivative: Tensor | None,
    ground: Tensor | None,
) -> tuple[Float[Tensor, "T E 1"], Tensor | None, Tensor | None, slice | None]:
    """Heights, their derivatives by points and ground, over the body's size; the border's columns.

    Heights err in proportion to the body, as poses and pixels do: in metres a smaller world would
    have less of them (measured: 2 to 3 % too small).
    """
    scaled, betas = features.size_border(value)
    if derivative is None:
        return scaled, None, None, None
    size = features.points.size(features.betas)
    here, own = features.layout.ground, features.layout.betas
    if here is None or ground is None:
        return scaled, derivative / size, betas, own
    if own is None or betas is None:
        return scaled, derivative / size, ground / size, here
    between = ground.new_zeros(*ground.shape[:-1], own.start - here.stop)
    border = torch.cat([ground / size, between, betas], dim=-1)
    return scaled, derivative / size, border, slice(here.start, own.stop)


@dataclass(frozen=True)
class GroundPriorSettings:
    """`sigma_deg` of each tilt from the horizontal, `sigma` m of the offset."""

    weight: float = 1.0
    sigma_deg: float = 2.0
    sigma: float = 1.0


@term("ground_prior", GroundPriorSettings, on_border=True)
def ground_prior(context: BorderContext, settings: GroundPriorSettings) -> list[BorderResidual]:
    """Tilt of the ground against gravity, and its shift since the stage began: floors are level."""
    normal, offset = context.scene.ground[:3], context.scene.ground[3:]
    layout, up = context.layout, context.scene.up
    angle = settings.sigma_deg * torch.pi / 180.0
    across = torch.linalg.cross(up, normal) / angle
    value = torch.cat([across, (offset - context.start.ground[3:]) / settings.sigma])
    of_ground, of_gravity = value.new_zeros(4, 3), value.new_zeros(4, 2)
    of_ground[:3, :2] = (skew(up) @ plane_axes(normal).T) / angle
    of_ground[3, 2] = 1.0 / settings.sigma
    of_gravity[:3] = -(skew(normal) @ plane_axes(up).T) / angle
    blocks = ((layout.ground, of_ground), (layout.gravity, of_gravity))
    derivative = context.derivative(4, *blocks)
    return [BorderResidual("ground_prior", value, settings.weight, derivative)]
