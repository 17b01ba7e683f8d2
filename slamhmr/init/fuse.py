"""One start from the starts of several calibrated views: poses averaged, pelves triangulated.

Rotations: the one that most views agree with, averaged with those near it. Places: where the views'
rays meet, each as sure as one view can be (`identity.covariance`). Sizes: as far as people turn out
to be nearer or farther than a single view took them. Ours.
"""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.geometry import nearest_rows, rigid
from slamhmr.init.identity import Rows, covariance
from slamhmr.scene import point_set
from slamhmr.types import Initial

NEAR = 0.6  # rad; readings of a joint farther from the one that most agree with are left out
PLAIN_SIGMA = 0.3  # rad, of a start that gives none
VELOCITY_SIGMA, UP_SIGMA = 0.4, 0.1  # m/s, rad: the same
UNKNOWN_TURN, UNKNOWN_SPEED = 1.5, 10.0  # rad, m/s: where no view says anything
STATURES = (0.6, 2.3)  # m, of what is believed
ROUNDS = 5


@dataclass(frozen=True)
class ViewStart:
    """The start of one view, its camera, and the frames of each person that rest on evidence."""

    initial: Initial
    main_from_cam: Float[Tensor, "T 4 4"]  # metres
    seen: Bool[Tensor, "N T"]


@dataclass(frozen=True)
class _Readings:
    """What M views say of one person, in the main camera's axes."""

    placed: Float[Tensor, "M T 4 4"]
    joints: Float[Tensor, "M T 21 3 3"]
    centres: Float[Tensor, "M T 3"]  # of the cameras
    seen: Bool[Tensor, "M T"]
    sigma: Float[Tensor, "M T 22"]
    parts: list[tuple[ViewStart, int]]  # view and row of each


def fuse(views: list[ViewStart], people: list[Rows], ids: list[int], body: BodyModel) -> Initial:
    """The start of everybody in the main camera; nothing rests on frames that no view sees.

    Every person is seen in some frame of some view.
    """
    return _stack([_person(views, rows, body) for rows in people], ids)


def _stack(found: list[Initial], ids: list[int]) -> Initial:
    fields = {
        name: torch.cat([getattr(one, name) for one in found])
        for name in vars(found[0])
        if name != "person_id"
    }
    return Initial(person_id=torch.tensor(ids), **fields)


def _person(views: list[ViewStart], rows: Rows, body: BodyModel) -> Initial:
    told = _readings(views, rows)
    frames = torch.nonzero(told.seen.any(dim=0))[:, 0]
    nearest = nearest_rows(frames, torch.zeros(told.seen.shape[1], dtype=torch.long))
    held = frames[nearest]
    weight = told.seen[..., None] / told.sigma**2
    root = _average(told.placed[..., None, :3, :3], weight[..., :1])
    joints = _average(told.joints, weight[..., 1:])
    pelvis = _meet(told)
    inside = torch.arange(len(held))
    valid = (inside >= frames[0]) & (inside <= frames[-1])
    return Initial(
        person_id=told.parts[0][0].initial.person_id[:1],
        cam_from_root=rigid(root[held, 0], pelvis[held])[None],
        body_pose=roma.rotmat_to_rotvec(joints[held])[None],
        betas=_betas(told, pelvis, body)[None],
        valid=valid[None],
        **_predictions(told, held),
    )


def _readings(views: list[ViewStart], rows: Rows) -> _Readings:
    parts = [(view, row) for view, own in zip(views, rows, strict=True) for row in own]
    placed = [view.main_from_cam @ view.initial.cam_from_root[row] for view, row in parts]
    joints = [roma.rotvec_to_rotmat(view.initial.body_pose[row]) for view, row in parts]
    sigma = []
    for view, row in parts:
        stated = view.initial.rotation_sigma
        plain = torch.full((len(view.main_from_cam), 22), PLAIN_SIGMA, dtype=torch.float64)
        sigma.append(plain if stated is None else stated[row])
    return _Readings(
        torch.stack(placed),
        torch.stack(joints),
        torch.stack([view.main_from_cam[:, :3, 3] for view, _ in parts]),
        torch.stack([view.seen[row] for view, row in parts]),
        torch.stack(sigma),
        parts,
    )


def _average(
    rotations: Float[Tensor, "M T J 3 3"], weight: Float[Tensor, "M T J"]
) -> Float[Tensor, "T J 3 3"]:
    """Mean of the readings near the one that most agree with; any where none has weight."""
    relative = rotations[:, None].mT @ rotations[None]
    apart = roma.rotmat_geodesic_distance(
        torch.eye(3, dtype=rotations.dtype).expand_as(relative), relative
    )
    cost = (apart.clamp_max(2 * NEAR) * weight[None]).sum(dim=1)
    best = torch.where(weight > 0, cost, torch.inf).argmin(dim=0)
    chosen = apart.gather(0, best[None, None].expand(1, *apart.shape[1:]))[0]
    near = weight * (chosen <= NEAR)
    total = (near[..., None, None] * rotations).sum(dim=0)
    total = torch.where((near.sum(dim=0) > 0)[..., None, None], total, rotations[0])
    return roma.special_procrustes(total)


def _meet(told: _Readings) -> Float[Tensor, "T 3"]:
    """Where the views' pelves meet, m; Cauchy re-weighted. Any where nobody sees the person."""
    places = told.placed[..., :3, 3]
    information = torch.linalg.inv(covariance(places - told.centres))
    weight = told.seen.to(places)
    idle = 1e-9 * torch.eye(3, dtype=places.dtype)
    place = places[0]
    for _ in range(ROUNDS):
        scaled = weight[..., None, None] * information
        pulled = (scaled @ places[..., None]).sum(dim=0)
        place = torch.linalg.solve(scaled.sum(dim=0) + idle, pulled)[..., 0]
        off = places - place
        squared = (off[..., None, :] @ information @ off[..., None])[..., 0, 0]
        weight = told.seen / (1 + squared / 3)
    return place


def _betas(told: _Readings, pelvis: Float[Tensor, "T 3"], body: BodyModel) -> Float[Tensor, "B"]:
    """Mean shape, as much larger as the person is farther than the single views took it."""
    shapes = torch.stack([view.initial.betas[row] for view, row in told.parts])
    together = told.seen & (told.seen.sum(dim=0) > 1)
    counts = told.seen.sum(dim=1).double()
    betas = (counts[:, None] * shapes).sum(dim=0) / counts.sum()
    if not bool(together.any()):
        return betas
    points = point_set(body)
    taken = (told.placed[..., :3, 3] - told.centres).norm(dim=-1)
    ratio = (pelvis - told.centres).norm(dim=-1) / taken
    heights = torch.stack([points.height(shape) for shape in shapes])
    height = (heights[:, None] * ratio)[together].median().clamp(*STATURES)
    directions = points.height_directions
    return betas + directions * (height - points.height(betas)) / (directions @ directions)


def _predictions(told: _Readings, held: Tensor) -> dict[str, Tensor]:
    """Contacts, sigmas, vertical and velocity: what views say, weighted by how sure they are."""
    seen = told.seen.double()
    count = seen.sum(dim=0)
    blind = (count == 0)[:, None]

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        total = weight.sum(dim=0)
        return ((weight * values).sum(dim=0) / total.clamp_min(1e-12))[held]

    def given(name: str) -> list[Tensor] | None:
        found = [(getattr(view.initial, name), row) for view, row in told.parts]
        return None if any(f is None for f, _ in found) else [f[row] for f, row in found]

    sigma = torch.where(blind, UNKNOWN_TURN, mean(told.sigma, seen[..., None]))
    result = {
        "confidence": (~blind).double().expand(-1, 22)[None],
        "rotation_sigma": sigma[None],
    }
    if (contacts := given("contacts")) is not None:
        agreed = mean(torch.stack(contacts), seen[..., None])
        result["contacts"] = torch.where(blind, 0.0, agreed)[None]
    if (up := given("up_cam")) is not None:
        turned = [(v.main_from_cam[:, :3, :3] @ u[..., None])[..., 0]
                  for (v, _), u in zip(told.parts, up, strict=True)]  # fmt: skip
        stated = given("up_sigma") or [torch.full_like(u[:, 0], UP_SIGMA) for u in up]
        weight = seen / torch.stack(stated) ** 2
        agreed = mean(torch.stack(turned), weight[..., None])
        result["up_cam"] = torch.nn.functional.normalize(agreed, dim=-1)[None]
        spread = mean(torch.stack(stated), seen)
        result["up_sigma"] = torch.where(blind[:, 0], UNKNOWN_TURN, spread)[None]
    if (velocity := given("root_velocity")) is not None:
        plain = [torch.full_like(v, VELOCITY_SIGMA) for v in velocity]
        stated = given("root_velocity_sigma") or plain
        weight = seen[..., None] / torch.stack(stated) ** 2
        result["root_velocity"] = mean(torch.stack(velocity), weight)[None]
        spread = mean(torch.stack(stated), seen[..., None])
        result["root_velocity_sigma"] = torch.where(blind, UNKNOWN_SPEED, spread)[None]
    return result
