"""Start of every person from our own lifter: one pass of a network over the 2D keypoints.

The network gives rotations, contacts, the vertical and the root's velocity, each with a sigma
(`priors.lifter`); where the pelvis is follows from the picture, held by the network's depth.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.checkpoints import CheckpointError
from priors.lifter import FPS, Lifted, Lifter, crop, load_lifter
from priors.lifting import lift
from slamhmr.body import BodyModel, forward_points
from slamhmr.components import Lack, lacking_file, require
from slamhmr.errors import InputError, MissingAsset
from slamhmr.geometry import bearings as to_bearings
from slamhmr.geometry import between, nearest_rows, rigid, shot_numbers
from slamhmr.scene import point_set
from slamhmr.skeleton import KEYPOINT_INDEX, KEYPOINT_JOINT, KEYPOINTS
from slamhmr.types import CameraTrack, Initial, Observations

POINT_SIGMA = 0.1  # of the keypoints' spread (a third of the person's height): 3 % of the height
ASIDE_SIGMA = 0.5  # of the spread, of the network's own place in the picture
DEPTH_SIGMA = 0.02  # least, of the log depth: the network's neighbours in time agree
NEAREST = 0.1  # m, of what is in front of the camera
UNKNOWN_TURN, UNKNOWN_SPEED = 1.5, 10.0  # rad, m/s: sigmas of what nothing was seen of
KERNEL = 9.0  # Geman-McClure, in squared sigmas
STEPS = 6


@dataclass(frozen=True)
class Options:
    """Settings of the lifter."""

    weights: str = ""  # safetensors file; empty: the one that comes with the package
    min_points: int = 6  # keypoints that make a frame usable
    min_confidence: float = 0.1  # keypoints below are not used
    device: str = "cpu"


@dataclass(frozen=True)
class _Track:
    """One person in one shot, at the network's rate."""

    rows: Int[Tensor, "T"]  # frames of the video that it covers
    at: Float[Tensor, "S"]  # where the network's frames lie among them
    bearings: Float[Tensor, "S K 2"]
    confidence: Float[Tensor, "S K"]
    world_from_cam: Float[Tensor, "S 3 3"]


def lacking(options: Options) -> list[Lack]:
    """Weights of the user's own that are not there; the package's are."""
    if options.weights == "":
        return []
    get = "train them (slamhmr train lifter), or leave options.lift.weights unset for the package's"
    return lacking_file(options.weights, "weights of init 'lift'", get)


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of every person, with sigmas, contacts and velocities.

    Every shot (`cuts`: first frames of new ones) is lifted by itself, at 30 frames per second.
    Raises InputError when a person has no usable frame or the frame counts of observations and
    cameras differ, MissingAsset when the weights are not there.
    """
    frames = observations.keypoints.shape[1]
    if len(cameras.world_from_cam) != frames:
        raise InputError(
            f"observations have {frames} frames, cameras {len(cameras.world_from_cam)}; "
            "both must come from the same frames (cameras.npz)"
        )
    require(lacking(options))
    network = _network(options)
    points, confidence = _all_keypoints(observations, options)
    seen = (confidence > 0).sum(dim=-1) >= options.min_points
    people = []
    for index, usable in enumerate(seen):
        if not bool(usable.any()):
            raise InputError(
                f"person {int(observations.person_id[index])} has no frame with "
                f"{options.min_points} or more keypoints of confidence >= "
                f"{options.min_confidence} (observations.npz); leave the person out"
            )
        rays = to_bearings(points[index], cameras.intrinsics)[..., :2]
        people.append(
            _person(network, rays, confidence[index], usable, observations, cameras, body, cuts)
        )
    merged = {f.name: torch.stack([getattr(p, f.name) for p in people]) for f in fields(_Person)}
    return Initial(person_id=observations.person_id, **merged)


@dataclass(frozen=True)
class _Person:
    """The fields of `Initial` for one person."""

    cam_from_root: Float[Tensor, "T 4 4"]
    body_pose: Float[Tensor, "T 21 3"]
    betas: Float[Tensor, "B"]
    valid: Bool[Tensor, "T"]
    confidence: Float[Tensor, "T 22"]
    contacts: Float[Tensor, "T 4"]
    rotation_sigma: Float[Tensor, "T 22"]
    up_cam: Float[Tensor, "T 3"]
    up_sigma: Float[Tensor, "T"]
    root_velocity: Float[Tensor, "T 3"]
    root_velocity_sigma: Float[Tensor, "T 3"]


def _network(options: Options) -> Lifter:
    try:
        network, _ = load_lifter(Path(options.weights).expanduser() if options.weights else None)
    except (FileNotFoundError, CheckpointError) as error:
        raise MissingAsset(
            f"{error}; reinstall the package, train it (slamhmr train lifter) or ask for "
            "init=geometric"
        ) from error
    return network.to(options.device)


def _all_keypoints(
    observations: Observations, options: Options
) -> tuple[Float[Tensor, "N T 23 2"], Float[Tensor, "N T 23"]]:
    """Keypoints in canonical order; those that the detector does not know have no confidence."""
    people, frames = observations.confidence.shape[:2]
    points = torch.zeros(people, frames, len(KEYPOINTS), 2, dtype=torch.float64)
    confidence = torch.zeros(people, frames, len(KEYPOINTS), dtype=torch.float64)
    places = [KEYPOINT_INDEX[name] for name in observations.keypoint_names]
    points[:, :, places] = observations.keypoints
    trusted = observations.confidence >= options.min_confidence
    confidence[:, :, places] = torch.where(trusted, observations.confidence, 0.0)
    return points, confidence


def _person(
    network: Lifter,
    rays: Float[Tensor, "T K 2"],
    confidence: Float[Tensor, "T K"],
    usable: Bool[Tensor, "T"],
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    cuts: tuple[int, ...],
) -> _Person:
    """Every shot lifted, put together; frames outside hold the nearest one that was lifted.

    Of such frames nothing is said: no contacts, sigmas so large that predictions do not count.
    """
    frames, times = len(usable), observations.timestamps
    turns = cameras.world_from_cam[:, :3, :3]
    parts: list[_Person] = []
    rows: list[Tensor] = []
    for start, stop in zip((0, *cuts), (*cuts, frames), strict=True):
        inside = torch.nonzero(usable[start:stop])[:, 0] + start
        if len(inside) == 0:
            continue
        span = torch.arange(int(inside[0]), int(inside[-1]) + 1)
        track = _resample(rays[span], confidence[span], turns[span], times[span], span)
        parts.append(_lift(network, track, rays[span], confidence[span], usable[span], body))
        rows.append(span)
    covered = torch.cat(rows)
    first, last = int(covered[0]), int(covered[-1])
    nearest = nearest_rows(covered, shot_numbers(frames, cuts))
    joined = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])[nearest]
        for f in fields(_Person)
        if f.name != "betas"
    }
    joined["valid"] = (torch.arange(frames) >= first) & (torch.arange(frames) <= last)
    outside = torch.ones(frames, dtype=torch.bool)
    outside[covered] = False
    for name in ("confidence", "contacts"):
        joined[name] = torch.where(outside[:, None], 0.0, joined[name])
    for name, unknown in (("rotation_sigma", UNKNOWN_TURN), ("root_velocity_sigma", UNKNOWN_SPEED)):
        joined[name] = torch.where(outside[:, None], unknown, joined[name])
    joined["up_sigma"] = torch.where(outside, UNKNOWN_TURN, joined["up_sigma"])
    lengths = torch.tensor([float(len(row)) for row in rows], dtype=torch.float64)
    betas = torch.stack([part.betas for part in parts])
    return _Person(betas=(lengths @ betas) / lengths.sum(), **joined)


def _resample(
    rays: Float[Tensor, "T K 2"],
    confidence: Float[Tensor, "T K"],
    turns: Float[Tensor, "T 3 3"],
    times: Float[Tensor, "T"],
    rows: Int[Tensor, "T"],
) -> _Track:
    """Keypoints and cameras at 30 frames per second, linearly between frames.

    A keypoint that one of its two frames does not see is the other's where that is nearer.
    """
    seconds = times - times[0]
    grid = torch.arange(0, float(seconds[-1]) + 0.5 / FPS, 1 / FPS, dtype=torch.float64)
    left, right, share = between(seconds, grid)
    weight = torch.stack([1 - share, share])[..., None] * torch.stack(
        [(confidence[left] > 0).double(), (confidence[right] > 0).double()]
    )
    total = weight.sum(dim=0)
    held = total > 0.49
    weight = weight / total.clamp_min(1e-9)
    mixed = weight[0, ..., None] * rays[left] + weight[1, ..., None] * rays[right]
    trust = weight[0] * confidence[left] + weight[1] * confidence[right]
    turn = torch.lerp(turns[left], turns[right], share[:, None, None])
    at = left + share
    return _Track(rows, at, mixed, torch.where(held, trust, 0.0), roma.special_procrustes(turn))


def _lift(
    network: Lifter,
    track: _Track,
    rays: Float[Tensor, "T K 2"],
    confidence: Float[Tensor, "T K"],
    usable: Bool[Tensor, "T"],
    body: BodyModel,
) -> _Person:
    """One shot: the network at its own rate, its words at the video's, the pelvis from pixels."""
    view = crop(track.bearings[None], track.confidence[None], track.world_from_cam[None])
    lifted = lift(network, view)
    left, right, share = between(track.at, torch.arange(len(rays), dtype=torch.float64))

    def back(values: Tensor) -> Tensor:
        weight = share.reshape(-1, *[1] * (values.dim() - 2))
        return torch.lerp(values[0, left], values[0, right], weight)

    rotations = roma.special_procrustes(back(lifted.rotations))
    betas = _betas(lifted, body)
    size = point_set(body).size(betas)
    placed = _place(
        body, betas, rotations, back(lifted.pelvis_cam) * size,
        back(lifted.log_depth_sigma[..., None])[:, 0], rays, confidence,
        back(view.size[..., None])[:, 0],
    )  # fmt: skip
    up = torch.nn.functional.normalize(back(lifted.up_cam), dim=-1)
    return _Person(
        cam_from_root=rigid(rotations[:, 0], placed),
        body_pose=roma.rotmat_to_rotvec(rotations[:, 1:]),
        betas=betas,
        valid=torch.ones_like(usable),
        confidence=usable[:, None].expand(-1, 22).double(),
        contacts=back(lifted.contacts),
        rotation_sigma=back(lifted.rotation_sigma),
        up_cam=up,
        up_sigma=back(lifted.up_sigma[..., None])[:, 0],
        root_velocity=back(lifted.root_velocity),
        root_velocity_sigma=back(lifted.root_velocity_sigma),
    )


def _betas(lifted: Lifted, body: BodyModel) -> Float[Tensor, "B"]:
    """The network's shape on the body it was trained with; on another body, its mean."""
    count = body.shapedirs.shape[-1]
    if not body.name.startswith("slamhmr-body"):
        return torch.zeros(count, dtype=torch.float64)
    return lifted.betas[0, :count].double()


def _place(
    body: BodyModel,
    betas: Float[Tensor, "B"],
    rotations: Float[Tensor, "T 22 3 3"],
    pelvis: Float[Tensor, "T 3"],
    depth_sigma: Float[Tensor, "T"],
    rays: Float[Tensor, "T K 2"],
    confidence: Float[Tensor, "T K"],
    size: Float[Tensor, "T"],
) -> Float[Tensor, "T 3"]:
    """Pelvis in the camera, m: the body as posed, put where its keypoints are.

    Gauss-Newton with re-weighting on (x/z, y/z, log z) of every frame; the network's own place is
    a prior with its sigma.
    """
    names = body.point_names
    index = [names.index(KEYPOINT_JOINT.get(name, name)) for name in KEYPOINTS]
    origin = torch.zeros_like(pelvis)[None]
    points, _ = forward_points(
        body, betas[None], rotations[None, :, 0], origin, rotations[None, :, 1:]
    )
    offsets = points[0][:, index]
    ahead = pelvis[:, 2:].clamp_min(NEAREST)  # a network may say anything
    prior = torch.cat([pelvis[:, :2] / ahead, ahead.log()], dim=-1)
    aside = ASIDE_SIGMA * size[:, None].expand(-1, 2)
    sigma = torch.cat([aside, depth_sigma.clamp_min(DEPTH_SIGMA)[:, None]], dim=-1)
    unit = (POINT_SIGMA * size)[:, None, None]
    place = prior.clone()
    for _ in range(STEPS):
        depth = place[:, 2].exp()
        centre = torch.cat([place[:, :2], torch.ones_like(depth)[:, None]], dim=-1)
        seen = offsets + depth[:, None, None] * centre[:, None]
        z = seen[..., 2].clamp_min(NEAREST)
        off = (seen[..., :2] / z[..., None] - rays) / unit
        weight = confidence / (1 + (off**2).sum(dim=-1) / KERNEL) ** 2
        near = (depth[:, None] / z)[..., None] / unit  # of the image by the pelvis's own
        by_depth = near * (centre[:, None, :2] - seen[..., :2] / z[..., None])
        jacobian = torch.cat([torch.diag_embed(near.expand(-1, -1, 2)), by_depth[..., None]], -1)
        held = (place - prior) / sigma**2
        gradient = torch.einsum("tk,tkri,tkr->ti", weight, jacobian, off) + held
        hessian = torch.einsum("tk,tkri,tkrj->tij", weight, jacobian, jacobian)
        hessian = hessian + torch.diag_embed(sigma**-2)
        place = place - torch.linalg.solve(hessian, gradient)
    depth = place[:, 2:].exp()
    return torch.cat([place[:, :2] * depth, depth], dim=-1)
