"""Start of every person from 2D keypoints: look-up, path through the readings, smooth fit."""

import logging
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.checkpoints import CheckpointError
from priors.pose import PosePrior, load_pose_prior
from slamhmr.body import BodyModel
from slamhmr.errors import InputError, MissingAsset
from slamhmr.geometry import bearings as to_bearings
from slamhmr.geometry import fill_gaps, rigid, shot_numbers
from slamhmr.init.fit import Evidence, FitWeights, Mixture, fit_frames, fit_sequence
from slamhmr.init.gravity import robust_up
from slamhmr.init.kinematics import Pose, Rig, body_pose, build_rig, forward
from slamhmr.init.library import ViewLibrary, build_views, everyday_poses
from slamhmr.init.lookup import look_up
from slamhmr.init.path import PathWeights, best_path
from slamhmr.types import CameraTrack, Initial, Observations

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Settings of the geometric initialiser."""

    candidates: int = 8  # 3D readings kept per key frame
    candidate_iterations: int = 6
    key_rate: float = 15.0  # key frames per second that are looked up
    samples: int = 60  # random poses of the prior beside the everyday ones in the library
    yaws: int = 24
    pitches_deg: tuple[float, ...] = (-15.0, 5.0, 25.0, 45.0)
    min_points: int = 6  # keypoints that make a frame usable
    min_confidence: float = 0.2  # keypoints below are not used
    point_sigma: float = 0.025  # m, keypoint against body model
    prior_weight: float = 0.25  # of the pose prior, against keypoints
    path_prior: float = 0.5  # the same while readings are compared
    turn_sigma: float = 0.1  # rad per frame^2, second differences of rotations
    depth_sigma: float = 0.005  # per frame^2, second differences of log depth
    iterations: int = 12
    final_iterations: int = 4


@dataclass(frozen=True)
class _Person:
    """Evidence of one person in usable frames."""

    frames: Int[Tensor, "F"]
    bearings: Float[Tensor, "F K 2"]
    weight: Float[Tensor, "F K"]
    world_from_cam: Float[Tensor, "F 3 3"]
    seconds: Float[Tensor, "F"]
    shot: Int[Tensor, "F"]


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of every person, with the mean shape.

    Monocular size is unobservable here, so betas are 0. Frames without enough keypoints inside a
    person's span are interpolated, or held where a cut is among them (`cuts`: first frames of new
    shots), and get confidence 0. Raises InputError when a person has no
    usable frame or the frame counts of observations and cameras differ.
    """
    frame_count = observations.keypoints.shape[1]
    if len(cameras.world_from_cam) != frame_count:
        raise InputError(
            f"observations have {frame_count} frames, cameras {len(cameras.world_from_cam)}; "
            "both must come from the same frames (cameras.npz)"
        )
    betas = torch.zeros(body.shapedirs.shape[-1], dtype=torch.float64)
    prior, mixture = pose_mixture()
    rig = build_rig(body, betas, observations.keypoint_names, prior.mean_rotations)
    poses = library_poses(prior, options.samples)
    library = build_views(rig, poses, options.yaws, options.pitches_deg)
    parts = [
        _lift_person(observations, cameras, index, rig, mixture, library, options, cuts=cuts)
        for index in range(len(observations.person_id))
    ]
    return Initial(
        person_id=observations.person_id,
        cam_from_root=torch.stack([rigid(part[0].root, part[0].pelvis) for part in parts]),
        body_pose=torch.stack([body_pose(rig, part[0]) for part in parts]),
        betas=betas.expand(len(parts), -1).clone(),
        valid=torch.stack([part[1] for part in parts]),
        confidence=torch.stack([part[2] for part in parts]),
        contacts=None,
    )


def pose_mixture() -> tuple[PosePrior, Mixture]:
    """Trained pose prior and the same as the fit's max-mixture.

    Raises MissingAsset when the weights are not installed.
    """
    try:
        prior = load_pose_prior()
    except CheckpointError as error:
        raise MissingAsset(f"{error}; reinstall the package") from error
    precision = prior.whitening.transpose(-1, -2) @ prior.whitening
    return prior, Mixture(prior.component_means, precision, prior.costs)


def library_poses(prior: PosePrior, samples: int) -> Float[Tensor, "P 21 3"]:
    """Everyday poses, the components' means and random poses of the prior."""
    poses = [everyday_poses(), prior.component_poses()]
    if samples > 0:
        drawn = prior.sample(torch.Generator().manual_seed(0), samples)
        poses.append(roma.rotmat_to_rotvec(drawn))
    return torch.cat(poses)


def _lift_person(
    observations: Observations,
    cameras: CameraTrack,
    index: int,
    rig: Rig,
    mixture: Mixture,
    library: ViewLibrary,
    options: Options,
    *,
    cuts: tuple[int, ...],
) -> tuple[Pose, Bool[Tensor, "T"], Float[Tensor, "T 22"]]:
    person = _gather(observations, cameras, index, options, cuts)
    stride = max(1, round(observations.fps / options.key_rate))
    keys = _key_rows(person.shot, stride)
    pose, sigma, doubt = _choose_readings(rig, person, keys, mixture, library, options)
    axes = (person.world_from_cam[keys] @ pose.root)[..., 1]
    up = robust_up(axes, torch.ones_like(axes[:, 0]), person.world_from_cam)
    up_cam = (person.world_from_cam.transpose(-1, -2) @ up[:, None])[..., 0]
    depth_scale = fill_gaps(_spread(sigma[:, None], keys, len(person.frames)), _known(keys, person))
    evidence = Evidence(
        person.bearings, person.weight, depth_scale.expand_as(person.weight), up_cam
    )
    weights = FitWeights(
        prior=options.prior_weight,
        turn_sigma=options.turn_sigma * stride**2,
        depth_sigma=options.depth_sigma * stride**2,
    )
    pose = fit_sequence(
        rig,
        evidence[keys],
        mixture,
        weights,
        pose,
        world_from_cam=person.world_from_cam[keys],
        linked=_linked(person.frames[keys], person.shot[keys]),
        iterations=options.iterations,
    )
    if stride > 1:
        pose = _interpolate(pose, keys, person.shot, person.world_from_cam)
        weights = FitWeights(
            prior=options.prior_weight,
            turn_sigma=options.turn_sigma,
            depth_sigma=options.depth_sigma,
        )
        pose = fit_sequence(
            rig,
            evidence,
            mixture,
            weights,
            pose,
            world_from_cam=person.world_from_cam,
            linked=_linked(person.frames, person.shot),
            iterations=options.final_iterations,
        )
    return _whole_clip(pose, person, cameras, doubt, keys, rig, cuts=cuts)


def _key_rows(shot: Int[Tensor, "F"], stride: int) -> Int[Tensor, "G"]:
    """Every `stride`-th row, and the first and last row of every shot."""
    change = torch.nonzero(shot[1:] != shot[:-1])[:, 0]
    every = torch.arange(0, len(shot), stride)
    return torch.unique(torch.cat([every, change, change + 1, torch.tensor([len(shot) - 1])]))


def _gather(
    observations: Observations,
    cameras: CameraTrack,
    index: int,
    options: Options,
    cuts: tuple[int, ...],
) -> _Person:
    """Usable frames of one person: enough points, gross jumps of single points taken out."""
    confidence = observations.confidence[index]
    weight = torch.where(confidence >= options.min_confidence, confidence, 0.0)
    shot = shot_numbers(len(weight), cuts)
    weight = weight * _steady(observations.keypoints[index], weight, shot)
    usable = (weight > 0).sum(dim=-1) >= options.min_points
    if not bool(usable.any()):
        raise InputError(
            f"person {int(observations.person_id[index])} has no frame with {options.min_points} "
            f"or more keypoints of confidence >= {options.min_confidence} (observations.npz); "
            "leave the person out"
        )
    frames = torch.nonzero(usable)[:, 0]
    rays = to_bearings(observations.keypoints[index], cameras.intrinsics)[..., :2]
    return _Person(
        frames,
        rays[frames],
        weight[frames],
        cameras.world_from_cam[frames, :3, :3],
        observations.timestamps[frames],
        shot[frames],
    )


def _steady(
    keypoints: Float[Tensor, "T K 2"], weight: Float[Tensor, "T K"], shot: Int[Tensor, "T"]
) -> Tensor:
    """1 where a point lies near its median over neighbouring frames, to 0 for gross jumps."""
    frames = len(keypoints)
    if frames < 5:
        return torch.ones_like(weight)
    known = weight > 0
    holed = torch.where(known[..., None], keypoints, torch.nan)
    near = (torch.arange(frames) + torch.arange(-2, 3)[:, None]).clamp(0, frames - 1)
    windows = torch.where((shot[near] == shot)[..., None, None], holed[near], torch.nan)
    median = windows.nanmedian(dim=0).values
    low = torch.where(known[..., None], keypoints, torch.inf).amin(dim=1)
    high = torch.where(known[..., None], keypoints, -torch.inf).amax(dim=1)
    size = (high - low).amax(dim=-1).clamp_min(1.0)[:, None]
    jump = (keypoints - median).norm(dim=-1) / size
    return torch.where(known, 1 / (1 + (jump / 0.12) ** 4), 0.0).nan_to_num(0.0)


def _choose_readings(
    rig: Rig,
    person: _Person,
    keys: Int[Tensor, "G"],
    mixture: Mixture,
    library: ViewLibrary,
    options: Options,
) -> tuple[Pose, Float[Tensor, "G"], Float[Tensor, "G 22"]]:
    """Best path through fitted candidates; `point_sigma` in the picture; joint doubt, m."""
    count = options.candidates
    found = look_up(library, person.bearings[keys], person.weight[keys], count)
    depth = found.pose.pelvis[:, 2].reshape(-1, count).median(dim=1).values
    sigma = options.point_sigma / depth
    rows = keys.repeat_interleave(count)
    evidence = Evidence(
        person.bearings[rows],
        person.weight[rows],
        sigma.repeat_interleave(count)[:, None].expand(-1, person.weight.shape[1]),
        torch.zeros(len(rows), 3, dtype=torch.float64),
    )
    single = torch.float32  # half the time; these fits are only compared and refined
    pose, energy = fit_frames(
        rig.to(single),
        evidence.to(single),
        mixture.to(single),
        FitWeights(prior=options.path_prior),
        found.pose.to(single),
        options.candidate_iterations,
    )
    pose, energy = pose.to(torch.float64), energy.double()
    _, joints, _ = forward(rig, pose)
    relative = (joints - joints[:, :1]) @ person.world_from_cam[rows].transpose(-1, -2)
    relative = relative.reshape(len(keys), count, -1, 3)
    chosen, marginal = best_path(
        energy.reshape(-1, count),
        relative,
        pose.pelvis[:, 2].reshape(-1, count).clamp_min(0.1),
        person.seconds[keys],
        PathWeights(),
        person.shot[keys][1:] == person.shot[keys][:-1],
    )
    picked = torch.arange(len(keys)) * count + chosen
    share = torch.softmax(-marginal, dim=1)
    ahead = (relative - relative[torch.arange(len(keys)), chosen][:, None]).norm(dim=-1)
    return pose[picked], sigma, (share[..., None] * ahead).sum(dim=1)


def _linked(frames: Int[Tensor, "F"], shot: Int[Tensor, "F"]) -> Float[Tensor, "S"]:
    """1 where three frames in a row are evenly spaced, near and of one shot."""
    gap = frames[1:] - frames[:-1]
    step = gap.min() if len(gap) > 0 else 1
    near = (gap == step) & (shot[1:] == shot[:-1])
    return (near[1:] & near[:-1]).double()


def _known(keys: Int[Tensor, "G"], person: _Person) -> Bool[Tensor, "F"]:
    known = torch.zeros(len(person.frames), dtype=torch.bool)
    known[keys] = True
    return known


def _spread(values: Float[Tensor, "G D"], keys: Int[Tensor, "G"], length: int) -> Tensor:
    out = torch.zeros(length, values.shape[-1], dtype=values.dtype)
    out[keys] = values
    return out


def _interpolate(
    pose: Pose,
    keys: Int[Tensor, "G"],
    shot: Int[Tensor, "L"],
    world_from_cam: Float[Tensor, "L 3 3"],
) -> Pose:
    """Poses at 0..L-1 from those at `keys`: slerp and linear, in unturned axes, held at cuts."""
    times = torch.arange(len(shot), dtype=torch.float64)
    anchors = keys.double()
    right = (
        torch.searchsorted(anchors, times).clamp(1, max(len(keys) - 1, 1)).clamp_max(len(keys) - 1)
    )
    left = (right - 1).clamp_min(0)
    share = ((times - anchors[left]) / (anchors[right] - anchors[left]).clamp_min(1)).clamp(0, 1)
    ahead = (shot != shot[keys][left]).double()
    share = torch.where(shot[keys][left] == shot[keys][right], share, ahead)
    back = world_from_cam.transpose(-1, -2)
    turned = world_from_cam[keys]
    root = back @ _slerp((turned @ pose.root)[left], (turned @ pose.root)[right], share)
    pelvis = (turned @ pose.pelvis[..., None])[..., 0]
    pelvis = torch.lerp(pelvis[left], pelvis[right], share[:, None])
    local = roma.rotvec_to_rotmat(pose.rotations.reshape(-1, 21, 3))
    between = _slerp(local[left], local[right], share[:, None])
    rotations = roma.rotmat_to_rotvec(between).flatten(1)
    same = (share == 0) | (share == 1)
    nearest = torch.where(share < 0.5, left, right)
    rotations = torch.where(same[:, None], pose.rotations[nearest], rotations)
    return Pose(root, (back @ pelvis[..., None])[..., 0], rotations)


def _slerp(
    first: Float[Tensor, "*batch 3 3"], second: Float[Tensor, "*batch 3 3"], share: Tensor
) -> Float[Tensor, "*batch 3 3"]:
    turn = roma.rotmat_to_rotvec(first.transpose(-1, -2) @ second)
    return first @ roma.rotvec_to_rotmat(share[..., None] * turn)


def _whole_clip(
    pose: Pose,
    person: _Person,
    cameras: CameraTrack,
    doubt: Float[Tensor, "G 22"],
    keys: Int[Tensor, "G"],
    rig: Rig,
    *,
    cuts: tuple[int, ...],
) -> tuple[Pose, Bool[Tensor, "T"], Float[Tensor, "T 22"]]:
    """Fill the gaps, hold the ends, and turn keypoint weight and doubt into confidence."""
    length = len(cameras.world_from_cam)
    shot = shot_numbers(length, cuts)
    whole = _interpolate(pose, person.frames, shot, cameras.world_from_cam[:, :3, :3])
    valid = torch.zeros(length, dtype=torch.bool)
    valid[int(person.frames[0]) : int(person.frames[-1]) + 1] = True
    spread = fill_gaps(_spread(doubt, keys, len(person.frames)), _known(keys, person))
    support = person.weight @ rig.moves.double()
    sure = (support / (1 + support)) / (1 + (spread / 0.15) ** 2)
    confidence = torch.zeros(length, 22, dtype=torch.float64)
    confidence[person.frames] = sure
    return whole, valid, confidence
