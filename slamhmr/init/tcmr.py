"""Start of every person from TCMR with an official, converted checkpoint and features from a file.

The features' npz: `person_id` (N,), `features` (N,T,2048) of SPIN's ResNet-50, NaN where a person
is not seen, `crops` (N,T,3): centre x, centre y and side in px of the square that was scaled to
224 x 224 for them (TCMR: 1.2 times the box). T are the frames of the observations.

TCMR sees every crop as if the camera looked straight at it. Its orientation is therefore turned by
the rotation that takes the optical axis to the ray through the crop's centre, and its translation,
depth 2 f / (s side), is laid off along that ray. (The official demo leaves the orientation as it
is: wrong by the angle of the ray, up to half the field of view.)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.checkpoints import CheckpointError
from priors.tcmr import FEATURES, TCMR, Ends, Estimate, load_tcmr
from slamhmr.artifacts import read_arrays
from slamhmr.body import BodyModel, rest_points
from slamhmr.components import Lack, lacking_file, require
from slamhmr.errors import InputError, MissingAsset
from slamhmr.geometry import bearings, nearest_rows, rigid, rotation_between, runs, shot_numbers
from slamhmr.types import CameraTrack, Initial, Observations

WHERE = (  # hongsukchoi/TCMR_RELEASE@128ea06, README.md
    "pip install gdown; gdown --folder 1NxzmKw5QTGtOKgSQetkq66ZO-dbBSzrd; slamhmr convert "
    "TCMR.pth.tar --out tcmr.safetensors; then options.tcmr.checkpoint=tcmr.safetensors"
)
KEYS = ("person_id", "features", "crops")
FPS = 30.0  # of the training data, or 25
LEAST_SCALE = 0.05  # of the weak-perspective camera: a person fills at least a fifteenth of a crop
# Rest position of the pelvis joint of neutral SMPL at mean shape, m: TCMR's translation is SMPL's.
SMPL_PELVIS = (-0.0018, -0.2233, 0.0282)


@dataclass(frozen=True)
class Options:
    """Settings of the TCMR initialiser."""

    checkpoint: str = ""  # safetensors made by `slamhmr convert`
    features: str = ""  # npz, see the module
    ends: Ends = "held"  # "demo": the official windows, single frames at the ends of a track
    device: str = "cpu"


def lacking(options: Options) -> list[Lack]:
    """Weights or features that are not there."""
    return [
        *lacking_file(options.checkpoint, "weights of init 'tcmr'", WHERE),
        *lacking_file(
            options.features,
            "image features of init 'tcmr'",
            f"set options.tcmr.features=FILE.npz with person_id (N,), features (N,T,{FEATURES}) "
            "and crops (N,T,3)",
        ),
    ]


@dataclass(frozen=True)
class _Evidence:
    features: Float[Tensor, "N T 2048"]
    crops: Float[Tensor, "N T 3"]
    seen: Bool[Tensor, "N T"]


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of every person; betas only on SMPL's own body, else the mean shape.

    Every unbroken run of frames within a shot (`cuts`: first frames of new ones) is a clip of its
    own. In frames without features a person keeps the nearest one's pose, of the same shot where
    there is any, with confidence 0. Raises MissingAsset without a usable checkpoint or
    without features, InputError for a features file that is damaged or does not fit the
    observations.
    """
    require(lacking(options))
    evidence = _read(options.features, observations)
    network = _network(options)
    shot = shot_numbers(evidence.seen.shape[1], cuts)
    stride = max(1, round(observations.fps / FPS))
    parts = []
    for features, crops, seen in zip(evidence.features, evidence.crops, evidence.seen, strict=True):
        estimate = _estimate(network, features, runs(seen, shot), options, stride)
        rows = torch.nonzero(seen)[:, 0]
        nearest = nearest_rows(rows, shot)
        betas = _betas(estimate, body)
        pelvis = _pelvis_of(betas, body)
        placed = _place(estimate, crops[rows], cameras.intrinsics[rows], pelvis)
        turns = roma.rotmat_to_rotvec(estimate.rotations[:, 1:22])
        parts.append((placed[nearest], turns[nearest], betas, _span(rows, len(seen))))
    placed, turns, betas, valid = (torch.stack(part) for part in zip(*parts, strict=True))
    return Initial(
        person_id=observations.person_id,
        cam_from_root=placed,
        body_pose=turns,
        betas=betas,
        valid=valid,
        confidence=evidence.seen[..., None].double().expand(-1, -1, 22).clone(),
    )


def _network(options: Options) -> TCMR:
    try:
        return load_tcmr(Path(options.checkpoint).expanduser()).to(options.device)
    except CheckpointError as error:
        raise MissingAsset(f"init 'tcmr': {error}") from error


def _read(name: str, observations: Observations) -> _Evidence:
    path = Path(name).expanduser()
    arrays = read_arrays(path, KEYS)
    missing = [key for key in KEYS if key not in arrays]
    if len(missing) > 0:
        raise InputError(f"'{path}' lacks '{missing[0]}'; needed: {', '.join(KEYS)}")
    known = arrays["person_id"].ravel().tolist()
    frames = observations.keypoints.shape[1]
    for key, width in (("features", FEATURES), ("crops", 3)):
        shape = (len(known), frames, width)
        if arrays[key].shape != shape or arrays[key].dtype.kind != "f":
            raise InputError(
                f"'{path}': '{key}' is {arrays[key].dtype} {arrays[key].shape}, expected "
                f"floats {shape}: people, frames of the observations, {width}"
            )
    wanted = observations.person_id.tolist()
    absent = [person for person in wanted if person not in known]
    if len(absent) > 0:
        raise InputError(f"'{path}': person_id {known} lacks {absent} of the observations")
    order = [known.index(person) for person in wanted]
    features = torch.from_numpy(arrays["features"][order].astype(np.float32))
    crops = torch.from_numpy(arrays["crops"][order].astype(np.float64))
    seen = torch.isfinite(features).all(dim=-1)
    _check_seen(path, wanted, seen, crops)
    return _Evidence(features, crops, seen)


def _check_seen(
    path: Path, people: list[int], seen: Bool[Tensor, "N T"], crops: Float[Tensor, "N T 3"]
) -> None:
    for person, frames, squares in zip(people, seen, crops, strict=True):
        if not bool(frames.any()):
            raise InputError(f"'{path}': person {person} has features in no frame; leave it out")
        bad = frames & ~(torch.isfinite(squares).all(dim=-1) & (squares[:, 2] > 0))
        if bool(bad.any()):
            frame = int(torch.nonzero(bad)[0, 0])
            raise InputError(
                f"'{path}': person {person}, frame {frame} has features but the crop "
                f"{squares[frame].tolist()}; centre x, y and a side above 0 px are needed"
            )


def _estimate(
    network: TCMR,
    features: Float[Tensor, "T 2048"],
    spans: list[tuple[int, int]],
    options: Options,
    stride: int,
) -> Estimate:
    """Estimates of the frames of all runs, in float64."""
    with torch.no_grad():
        found = [
            network.clip(features[first:stop].to(options.device), options.ends, stride)
            for first, stop in spans
        ]
    cameras, rotations, betas = (
        torch.cat([getattr(part, name) for part in found]).cpu().double()
        for name in ("camera", "rotations", "betas")
    )
    return Estimate(cameras, roma.special_procrustes(rotations), betas)


def _betas(estimate: Estimate, body: BodyModel) -> Float[Tensor, "B"]:
    betas = torch.zeros(body.shapedirs.shape[-1], dtype=torch.float64)
    if body.name == "smpl":
        count = min(len(betas), estimate.betas.shape[-1])
        betas[:count] = estimate.betas.mean(dim=0)[:count]
    return betas


def _pelvis_of(betas: Float[Tensor, "B"], body: BodyModel) -> Float[Tensor, "3"]:
    """Rest position of SMPL's pelvis joint."""
    if body.name == "smpl":
        return rest_points(body, betas[None])[0, 0].double()
    return torch.tensor(SMPL_PELVIS, dtype=torch.float64)


def _place(
    estimate: Estimate,
    crops: Float[Tensor, "F 3"],
    intrinsics: Float[Tensor, "F 4"],
    pelvis: Float[Tensor, "3"],
) -> Float[Tensor, "F 4 4"]:
    """Root in the camera, m, from the crop's weak-perspective camera.

    At the angle a off the axis, f / cos a pixels are one radian across the ray.
    """
    ray = bearings(crops[:, None, :2], intrinsics)[:, 0]
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(ray)
    cam_from_crop = rotation_between(axis, ray)
    focal = intrinsics[:, :2].mean(dim=-1) * ray.norm(dim=-1)
    scale = estimate.camera[:, 0].clamp_min(LEAST_SCALE)
    depth = 2 * focal / (scale * crops[:, 2])
    in_crop = torch.cat([estimate.camera[:, 1:], depth[:, None]], dim=-1) + pelvis
    place = (cam_from_crop @ in_crop[..., None])[..., 0]
    return rigid(cam_from_crop @ estimate.rotations[:, 0], place)


def _span(rows: Int[Tensor, "F"], length: int) -> Bool[Tensor, "T"]:
    times = torch.arange(length)
    return (times >= rows[0]) & (times <= rows[-1])
