"""How everybody stands in a state: contacts, what is below them, free fall; between two solves."""

from dataclasses import replace

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points
from slamhmr.cameras import metric_cameras, segment_starts
from slamhmr.contacts import reweighted
from slamhmr.flights import flights, mass_shares
from slamhmr.scene import plane_axes, point_set
from slamhmr.supports import supports
from slamhmr.types import SceneState

LEANING = 0.05  # rad, sigma of the ground's tilt before it was solved for
LEVELLED = 0.01  # and after, or where gravity is given


def stand(
    state: SceneState,
    body: BodyModel,
    times: Float[Tensor, "T"],
    cuts: tuple[int, ...],
    predicted: Float[Tensor, "N T 4"],
    *,
    solved: bool,
    measured: Bool[Tensor, "N"] | None = None,
) -> SceneState:
    """The state with supports and free fall anew and, where its floor is `solved`, contacts.

    `predicted` are contacts from before any solve. The ground is lowered to the lowest level.
    `measured`: whose size is known, by a given stature or several cameras.
    """
    chosen = point_set(body)
    world, _ = forward_points(
        body, state.betas, roma.rotvec_to_rotmat(state.root_orient), state.pelvis,
        roma.rotvec_to_rotmat(state.body_pose),
    )  # fmt: skip
    world = world[:, :, chosen.places]
    feet, normal = world[:, :, chosen.contact], state.ground[:3]
    height = feet @ normal + state.ground[3] - chosen.clearance[chosen.contact]
    starts, fps = segment_starts(state.cameras, cuts), _rate(times)
    moved = reweighted(predicted, feet, torch.zeros_like(height), fps, state.valid, starts)
    on_floor = torch.cat([feet @ plane_axes(normal).T, height[..., None]], dim=-1)
    cameras = metric_cameras(state)[:, :3, 3] @ normal + state.ground[3]
    level = solved or state.cameras.up is not None
    found = supports(
        on_floor, moved * state.observed[..., None], times, cameras,
        tilt_sigma=LEVELLED if level else LEANING, cuts=starts, measured=measured,
        drifting=state.cameras.moving and state.cameras.up is None,
    )  # fmt: skip
    contacts = predicted
    if solved:
        above = height + found.lowered - found.support
        contacts = reweighted(predicted, feet, above, fps, state.valid, starts)
    centre = torch.einsum("p,ntpi->nti", mass_shares(chosen.names), world)
    return replace(
        state,
        contacts=contacts,
        support=found.support,
        flight=flights(centre, contacts, state.up, times, state.valid, state.observed, starts),
        ground=state.ground + state.ground.new_tensor([0.0, 0.0, 0.0, found.lowered]),
    )


def _rate(times: Float[Tensor, "T"]) -> float:
    return 1 / float((times[1:] - times[:-1]).median()) if len(times) > 1 else 1.0
