"""World paths of the feed-forward start: predicted velocities rolled out, held by camera and feet.

WHAM rolls velocities out from the origin and lets a network refine the drift; everybody lives in a
world of its own. Here one banded least-squares solve per person joins what the camera sees (sure
across its rays, unsure along them), the rolled-out velocity, and feet that stand: no iteration.
"""

from dataclasses import replace

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points
from slamhmr.geometry import shot_numbers
from slamhmr.scene import point_set
from slamhmr.skeleton import CONTACT_POINTS
from slamhmr.types import Initial, SceneState

ACROSS = 0.01  # of the depth: a start's place across the line of sight
ALONG = 0.03  # of the depth, along it
LASTING = 1.0  # s that depth errors last: they count once in so long
VELOCITY_LASTING, FOOT_LASTING = 1 / 3, 2 / 15  # s, the same of predicted velocities, and of feet
FOOT_SIGMA = 0.15  # m/s, of a foot that stands (mocap "contacts" slide 0.13-0.15 m/s)
HEIGHT_SIGMA = 0.04  # m, of a sole that stands above the floor
SPEED_SIGMA = 1.5  # m/s, where neither velocity nor contact is known: people move slowly


def refine_paths(
    state: SceneState,
    initial: Initial,
    body: BodyModel,
    fps: float,
    cuts: tuple[int, ...] = (),
) -> SceneState:
    """The aligned state with every pelvis on the path that all three kinds of evidence agree on.

    Velocities do not reach across `cuts`. Starts without velocities or contacts use what they have.
    """
    points = point_set(body)
    rotations = roma.rotvec_to_rotmat(state.body_pose)
    root = roma.rotvec_to_rotmat(state.root_orient)
    around, _ = forward_points(body, state.betas, root, torch.zeros_like(state.pelvis), rotations)
    index = [body.point_names.index(name) for name in CONTACT_POINTS]
    places = [points.names.index(name) for name in CONTACT_POINTS]
    soles = around[:, :, index]
    soles[..., 2] -= points.clearance[places]
    linked = shot_numbers(state.valid.shape[1], cuts)
    linked = linked[1:] == linked[:-1]
    paths = []
    for person in range(len(state.person_id)):
        velocity, sigma = _velocity(
            state, initial, root, person, float(points.size(state.betas[person]))
        )
        fused, weight = _with_feet(velocity, sigma, soles[person], state.contacts[person], fps)
        joined = linked & state.valid[person, 1:] & state.valid[person, :-1]
        paths.append(_solve(state, person, fused, weight * joined[:, None], soles[person], fps))
    return replace(state, pelvis=torch.stack(paths))


def _velocity(
    state: SceneState, initial: Initial, root: Float[Tensor, "N T 3 3"], person: int, size: float
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T"]]:
    """Predicted velocity in the world, m/s, and its standard deviation."""
    still = torch.zeros_like(state.pelvis[person])
    if initial.root_velocity is None:
        return still, torch.full_like(still[:, 0], SPEED_SIGMA)
    turned = (root[person] @ initial.root_velocity[person][..., None])[..., 0]
    sigma = torch.full_like(still[:, 0], 0.4)
    if initial.root_velocity_sigma is not None:
        sigma = initial.root_velocity_sigma[person].mean(dim=-1)
    return size * turned, sigma


def _with_feet(
    velocity: Float[Tensor, "T 3"],
    sigma: Float[Tensor, "T"],
    soles: Float[Tensor, "T 4 3"],
    contacts: Float[Tensor, "T 4"],
    fps: float,
) -> tuple[Float[Tensor, "S 3"], Float[Tensor, "S 3"]]:
    """Velocity from frame to frame and its information, with feet that stand.

    A standing foot does not move: the pelvis goes as fast as the foot goes backwards against it.
    """
    going = -(soles[1:] - soles[:-1]) * fps
    standing = (
        (contacts[1:] * contacts[:-1])[..., None] / FOOT_SIGMA**2 / max(FOOT_LASTING * fps, 1)
    )
    predicted = sigma[:-1, None] ** -2 / max(VELOCITY_LASTING * fps, 1)
    information = predicted + standing.sum(dim=1)
    mixed = (predicted * velocity[:-1] + (standing * going).sum(dim=1)) / information
    return mixed, information.expand(-1, 3).clone()


def _solve(
    state: SceneState,
    person: int,
    velocity: Float[Tensor, "S 3"],
    information: Float[Tensor, "S 3"],
    soles: Float[Tensor, "T 4 3"],
    fps: float,
) -> Float[Tensor, "T 3"]:
    """Normal equations of a path: block tridiagonal, three unknowns a frame."""
    from scipy.linalg import solveh_banded

    seen = state.observed[person]
    here, pull = _from_camera(state, person, seen, fps)
    height, rise = _from_floor(state, person, soles, fps)
    diagonal = here + torch.diag_embed(torch.nn.functional.pad(height[:, None], (2, 0)))
    right = pull + torch.nn.functional.pad((height * rise)[:, None], (2, 0))
    link = information * fps**2
    diagonal[1:] += torch.diag_embed(link)
    diagonal[:-1] += torch.diag_embed(link)
    step = information * fps * velocity
    right[1:] += step
    right[:-1] -= step
    frames = len(diagonal)
    band = np.zeros((4, 3 * frames))  # lower form: row k holds the k-th diagonal below
    rows = diagonal.numpy()
    for offset in range(3):
        for column in range(3 - offset):
            band[offset, column::3] = rows[:, column + offset, column]
    band[0] += 1e-9
    band[3, : 3 * (frames - 1)] = -link.numpy().reshape(-1)
    found = solveh_banded(band, right.numpy().reshape(-1), lower=True)
    return torch.from_numpy(found.reshape(frames, 3))


def _from_camera(
    state: SceneState, person: int, seen: Bool[Tensor, "T"], fps: float
) -> tuple[Float[Tensor, "T 3 3"], Float[Tensor, "T 3"]]:
    """Information of where the camera sees the pelvis, and information times place.

    The error along the ray lasts: what says little of one frame's change is one measurement in
    `LASTING` seconds of the path. Frames in which nobody is seen have next to none.
    """
    centres = state.log_scale.exp() * state.cameras.world_from_cam[:, :3, 3]
    away = state.pelvis[person] - centres
    depth = away.norm(dim=-1, keepdim=True).clamp_min(0.1)
    ray = away / depth
    along = ray[:, :, None] * ray[:, None]
    across = torch.eye(3, dtype=ray.dtype) - along
    depth = depth[..., None]
    information = across / (ACROSS * depth) ** 2 + along / (ALONG * depth) ** 2 / max(
        LASTING * fps, 1
    )
    information = information * torch.where(seen, 1.0, 1e-4)[:, None, None]
    return information, (information @ state.pelvis[person][..., None])[..., 0]


def _from_floor(
    state: SceneState, person: int, soles: Float[Tensor, "T 4 3"], fps: float
) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
    """Information on the pelvis's height from standing feet, and the height they ask for.

    Only feet that are near the floor as aligned: who stands on a step is left there.
    """
    floor = -state.ground[3]
    wanted = floor - soles[..., 2]
    off = wanted - state.pelvis[person, :, None, 2]
    near = 1 / (1 + (off / 0.15) ** 2) ** 2
    weight = state.contacts[person] * near / HEIGHT_SIGMA**2
    total = weight.sum(dim=-1)
    return total / 4 / max(FOOT_LASTING * fps, 1), (weight * wanted).sum(dim=-1) / total.clamp_min(
        1e-9
    )
