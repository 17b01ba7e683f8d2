"""Start of every person from WHAM: official weights, 2D keypoints, image features where given.

The network's first frame needs a pose; another initialiser gives it from the first second of each
person and shot. WHAM's root is the middle of the COCO hips, ours the pelvis joint: both are rigid
on the root, so positions and velocities are carried over exactly on this body's own hips (WHAM's
regressor has its hips elsewhere by a few centimetres; it comes with the licensed body only).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import roma
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from priors.checkpoints import CheckpointError
from priors.rotation6d import rows_to_matrix
from priors.wham import FPS, Clip, Prediction, Predictor, Start, Wham, load_wham
from priors.wham_body import Body, BodyPoints
from priors.wham_mirror import predict_averaged
from priors.wham_world import Motion, Trajectory
from slamhmr.body import BodyModel
from slamhmr.components import Lack, lacking_file, require
from slamhmr.errors import ConfigError, InputError, MissingAsset
from slamhmr.geometry import nearest_rows, rigid, shot_numbers
from slamhmr.init.wham_start import MIDDLE, Beginning, begin, points_of
from slamhmr.init.wham_tracks import Track, interpolate, interpolate_rotations, tracks
from slamhmr.scene import point_set
from slamhmr.skeleton import COCO_KEYPOINTS, CONTACT_POINTS
from slamhmr.threads import bounded_threads
from slamhmr.types import CameraTrack, Initial, Observations

LOG = logging.getLogger(__name__)
# Of the foot vertices in WHAM's metrics (3216, 3387, 6617, 6787). The contacts' own order is only
# in a regressor that checkpoints may carry, from which `slamhmr convert` reads it.
ASSUMED_ORDER = ("left_big_toe", "left_heel", "right_big_toe", "right_heel")
WIDTH = 1024  # of HMR2's features
UNKNOWN_SPEED = 10.0  # m/s: sigma of what nothing was seen of
WHERE = (  # yohanshin/WHAM@0282502, fetch_demo_data.sh
    "pip install gdown; gdown 19qkI-a6xuwob9_RFNSPWf1yWErwVVlks -O wham_vit_bedlam_w_3dpw.pth.tar; "
    "slamhmr convert wham_vit_bedlam_w_3dpw.pth.tar --out wham.safetensors; then "
    "options.wham.checkpoint=wham.safetensors"
)


@dataclass(frozen=True)
class Options:
    """Settings of WHAM."""

    checkpoint: str = ""  # converted weights, .safetensors
    # npz with `features` (N,T,1024), or (T,1024) of a single person, by HMR2's ViT per frame of the
    # video, zeros where there are none; empty: the network runs without its integrator
    features: str = ""
    flip: bool = False  # average with the mirror image; needs `features_mirrored` beside features
    start: Literal["lift", "geometric"] = "lift"  # initialiser of the first frames
    min_points: int = 6  # COCO keypoints of confidence 0.3 that make a frame usable
    # Points of the four contacts in the network's order; empty: as the card of the weights says
    contact_order: tuple[str, ...] = ()
    velocity_sigma: float = 0.2  # m/s per axis, assumed: the network says none


@dataclass(frozen=True)
class _Found:
    """One track at the video's frames."""

    rotations: Float[Tensor, "T 24 3 3"]  # local, root in the camera first
    pelvis: Float[Tensor, "T 3"]
    contacts: Float[Tensor, "T 4"]
    velocity: Float[Tensor, "T 3"]
    betas: Float[Tensor, "B"]


def lacking(options: Options) -> list[Lack]:
    """Weights that are not there, and features that are asked for and not there."""
    lacks = lacking_file(options.checkpoint, "weights of init 'wham'", WHERE)
    if options.features != "":
        get = "give an npz of them or leave options.wham.features unset"
        lacks += lacking_file(options.features, "features of init 'wham'", get)
    return lacks


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of every person with contacts and root velocities.

    Keypoints are resampled to 30 fps and gaps are filled and masked; every shot is a clip of its
    own. All people and shots run as one batch. Raises InputError for people without a usable
    frame, frame counts that differ and unusable feature files, ConfigError for contacts that are
    not the four, MissingAsset without weights.
    """
    people, frames = observations.confidence.shape[:2]
    if len(cameras.world_from_cam) != frames:
        raise InputError(
            f"observations have {frames} frames, cameras {len(cameras.world_from_cam)}; "
            "both must come from the same frames (cameras.npz)"
        )
    require(lacking(options))
    network, order = _network(options)
    features = _features(options, people, frames)
    found = tracks(observations, cameras, options.min_points, features, cuts)
    for person, name in enumerate(observations.person_id.tolist()):
        if all(track.person != person for track in found):
            raise InputError(
                f"person {name} has no frame with {options.min_points} or more COCO keypoints of "
                "confidence above 0.3 (observations.npz); leave the person out"
            )
    begun = [begin(track, observations, cameras, body, options.start) for track in found]
    found = [track for track, _ in begun]
    starts = [start for _, start in begun]
    results = _run(network, found, starts, observations.image_size, body, order, flip=options.flip)
    return _joined(found, results, observations, options, cuts)


def _network(options: Options) -> tuple[Wham, tuple[str, ...]]:
    """Weights and the order of their contacts."""
    try:
        network, card = load_wham(Path(options.checkpoint).expanduser())
    except CheckpointError as error:
        raise MissingAsset(f"{error}; {WHERE}") from error
    order = options.contact_order
    if len(order) == 0:
        order = tuple(card.get("contact_order", ()))
    if len(order) == 0:
        LOG.warning("order of WHAM's contacts assumed: %s", ", ".join(ASSUMED_ORDER))
        order = ASSUMED_ORDER
    if sorted(order) != sorted(CONTACT_POINTS):
        raise ConfigError(
            f"options.wham.contact_order is {list(order)}; it must be an order of "
            f"{list(CONTACT_POINTS)}"
        )
    return network, order


def _features(options: Options, people: int, frames: int) -> Float[Tensor, "N T M 1024"] | None:
    """Features of the video and, for `flip`, of its mirror image."""
    if options.features == "":
        LOG.warning("WHAM runs without image features: its integrator is left out")
        return None
    path = Path(options.features).expanduser()
    names = ("features", "features_mirrored") if options.flip else ("features",)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [np.asarray(file[name], dtype=np.float32) for name in names]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"features '{path}' are no npz file with {' and '.join(names)} (options.wham.features)"
        ) from error
    shapes = [(people, frames, WIDTH), *([(frames, WIDTH)] if people == 1 else [])]
    for values in arrays:
        if values.shape not in shapes:
            raise InputError(
                f"features '{path}' have shape {values.shape}; {' or '.join(map(str, shapes))} is "
                "needed (options.wham.features)"
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"features '{path}' have values that are not finite; give zeros in frames without"
            )
    whole = [torch.from_numpy(values).reshape(people, frames, WIDTH) for values in arrays]
    return torch.stack(whole, dim=2)


def _run(
    network: Wham,
    found: list[Track],
    starts: list[Beginning],
    image_size: tuple[int, int],
    body: BodyModel,
    order: tuple[str, ...],
    *,
    flip: bool,
) -> list[_Found]:
    """All tracks as people of one batch, padded at their ends, which changes nothing before."""
    predictor, trajectory = Predictor(network), Trajectory(network, _posing(body, order))
    longest = max(len(track.at) for track in found)
    view = _view(found, starts, image_size, longest, mirrored=False)
    with bounded_threads(1):
        if flip:
            other = _view(found, starts, image_size, longest, mirrored=True)
            prediction = predict_averaged(predictor, (view, other))
        else:
            prediction = predictor.predict(*view)
        sides = torch.stack([_padded(track.boxes, longest) for track in found])
        lens = torch.stack([_padded(_matrices(track.intrinsics), longest) for track in found])
        motion, _ = trajectory.step(
            trajectory.init_state(len(found)), prediction, sides.float(), lens.float()
        )
    return [_read(track, row, prediction, motion, body, order) for row, track in enumerate(found)]


def _view(
    found: list[Track],
    starts: list[Beginning],
    image_size: tuple[int, int],
    longest: int,
    *,
    mirrored: bool,
) -> tuple[Start, Clip]:
    """Starts and padded clips of all tracks."""
    clips = [track.clip(image_size, mirrored=mirrored) for track in found]
    firsts = [
        start.for_network(clip.keypoints[:, 0], mirrored=mirrored)
        for start, clip in zip(starts, clips, strict=True)
    ]
    start = Start(*(torch.cat(list(parts)) for parts in zip(*map(_fields, firsts), strict=True)))
    values: list[Any] = [
        None if parts[0] is None else torch.stack([_padded(part[0], longest) for part in parts])
        for parts in zip(*map(_fields, clips), strict=True)
    ]
    return start, Clip(*values)


def _fields(item: Start | Clip) -> list[Any]:
    return list(vars(item).values())


def _padded(values: Shaped[Tensor, "S *rest"], longest: int) -> Shaped[Tensor, "L *rest"]:
    """The last row repeated to the length of the longest track."""
    return torch.cat([values, values[-1:].expand(longest - len(values), *values.shape[1:])])


def _matrices(intrinsics: Float[Tensor, "S 4"]) -> Float[Tensor, "S 3 3"]:
    matrix = torch.zeros(len(intrinsics), 3, 3, dtype=intrinsics.dtype)
    matrix[:, [0, 1], [0, 1]] = intrinsics[:, :2]
    matrix[:, :2, 2] = intrinsics[:, 2:]
    matrix[:, 2, 2] = 1
    return matrix


def _posing(body: BodyModel, order: tuple[str, ...]) -> Body:
    """This body as WHAM's: joints and feet from the middle of the hips, the pelvis at 0."""
    names = (*COCO_KEYPOINTS, *order)

    def pose(rotations: Tensor, betas: Tensor) -> BodyPoints:
        points = points_of(body, rotations.double(), _shapes(betas.double(), body), names).float()
        middle = points[:, MIDDLE].mean(dim=1)
        points = points - middle[:, None]
        return BodyPoints(
            points[:, : len(COCO_KEYPOINTS)], points[:, len(COCO_KEYPOINTS) :], middle
        )

    return pose


def _shapes(betas: Float[Tensor, "B 10"], body: BodyModel) -> Float[Tensor, "B D"]:
    """SMPL's betas for a body of SMPL's shapes; this package's own body has others: its mean."""
    count = body.shapedirs.shape[-1]
    shapes = torch.zeros(len(betas), count, dtype=betas.dtype)
    if not body.name.startswith("slamhmr-body"):
        shared = min(count, betas.shape[1])
        shapes[:, :shared] = betas[:, :shared]
    return shapes


def _read(
    track: Track,
    row: int,
    prediction: Prediction,
    motion: Motion,
    body: BodyModel,
    order: tuple[str, ...],
) -> _Found:
    """One track of the batch, at the video's frames, for the pelvis joint."""
    count = len(track.at)
    frames = torch.arange(len(track.rows), dtype=torch.float64)
    rotations = motion.rotations[row, :count].double()
    size = motion.rotations.shape[1]
    middle = motion.body.offset.reshape(-1, size, 3)[row, :count].double()
    betas = _shapes(prediction.betas[row, :count].double(), body).mean(dim=0)
    columns = [order.index(name) for name in CONTACT_POINTS]
    contacts = prediction.contact[row, :count][:, columns].double().clamp(0, 1)
    velocity = _pelvis_velocity(motion, row, count, rotations, middle)

    def back(values: Tensor) -> Tensor:
        return interpolate(values, track.at, frames)

    return _Found(
        interpolate_rotations(rotations, track.at, frames),
        back(motion.position_cam[row, :count].double() - middle),
        back(contacts),
        back(velocity) / point_set(body).size(betas),
        betas,
    )


def _pelvis_velocity(
    motion: Motion,
    row: int,
    count: int,
    rotations: Float[Tensor, "S 24 3 3"],
    middle: Float[Tensor, "S 3"],
) -> Float[Tensor, "S 3"]:
    """Velocity of the pelvis joint from each frame to the next in the root's axes, m/s.

    WHAM's entry t + 1 is the step of the middle of the hips from t to t + 1 in the root's axes at
    t. The pelvis lies at -m in these axes from it, so its step is v - (R_t' R_{t+1} - 1) m.
    """
    step = motion.velocity_refined[row, :count].double()
    turn = rows_to_matrix(motion.root_refined[row, : count + 1].double())
    between = turn[:-1].mT @ turn[1:]
    lever = (rotations[:, 0].mT @ middle[..., None])[..., 0]
    swing = ((between - torch.eye(3).to(between)) @ lever[..., None])[..., 0]
    arriving = FPS * (step - swing)
    return torch.cat([arriving[1:], arriving[-1:]])


def _joined(
    found: list[Track],
    results: list[_Found],
    observations: Observations,
    options: Options,
    cuts: tuple[int, ...],
) -> Initial:
    """Every person's tracks put together; frames between shots hold the nearest one.

    Where nobody was seen there are no contacts, and velocities do not count.
    """
    shot = shot_numbers(observations.confidence.shape[1], cuts)
    people = [
        _person([(t, r) for t, r in zip(found, results, strict=True) if t.person == row], shot)
        for row in range(len(observations.person_id))
    ]
    velocity = torch.stack([person["velocity"] for person in people])
    seen = torch.stack([person["confidence"][:, :1] for person in people]) > 0
    stated = torch.full_like(velocity, options.velocity_sigma)
    return Initial(
        person_id=observations.person_id,
        cam_from_root=torch.stack([rigid(p["rotations"][:, 0], p["pelvis"]) for p in people]),
        body_pose=torch.stack([roma.rotmat_to_rotvec(p["rotations"][:, 1:22]) for p in people]),
        betas=torch.stack([person["betas"] for person in people]),
        valid=torch.stack([person["valid"] for person in people]),
        confidence=torch.stack([person["confidence"] for person in people]),
        contacts=torch.stack([person["contacts"] for person in people]) * seen,
        root_velocity=velocity,
        root_velocity_sigma=torch.where(seen, stated, UNKNOWN_SPEED),
    )


def _person(parts: list[tuple[Track, _Found]], shot: Int[Tensor, "T"]) -> dict[str, Tensor]:
    covered = torch.cat([track.rows for track, _ in parts])
    times = torch.arange(len(shot))
    nearest = nearest_rows(covered, shot)
    usable = torch.zeros(len(shot), dtype=torch.float64)
    usable[covered] = torch.cat([track.usable for track, _ in parts]).double()
    names = ("rotations", "pelvis", "contacts", "velocity")
    joined = {
        name: torch.cat([getattr(result, name) for _, result in parts])[nearest] for name in names
    }
    lengths = torch.tensor([len(track.rows) for track, _ in parts], dtype=torch.float64)
    joined["betas"] = lengths @ torch.stack([part.betas for _, part in parts]) / lengths.sum()
    joined["valid"] = (times >= covered[0]) & (times <= covered[-1])
    joined["confidence"] = usable[:, None].expand(-1, 22)
    return joined
