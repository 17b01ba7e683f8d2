"""A start from any regressor: reads and checks `initial.npz`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slamhmr.artifacts import read_arrays
from slamhmr.body import BodyModel
from slamhmr.errors import InputError
from slamhmr.geometry import nearest_rows, shot_numbers
from slamhmr.types import CameraTrack, Initial, Observations

REQUIRED = ("person_id", "cam_from_root", "body_pose", "betas", "valid")
OPTIONAL = (
    "confidence",
    "contacts",
    "rotation_sigma",
    "up_cam",
    "up_sigma",
    "root_velocity",
    "root_velocity_sigma",
)
PROBABILITIES = ("confidence", "contacts")
SIGMAS = ("rotation_sigma", "up_sigma", "root_velocity_sigma")
NEEDED_WITH = {  # a prediction and what is known of its error: one without the other says nothing
    "up_cam": "up_sigma",
    "up_sigma": "up_cam",
    "root_velocity": "root_velocity_sigma",
    "root_velocity_sigma": "root_velocity",
}


@dataclass(frozen=True)
class Options:
    """Where the start is."""

    path: str = "initial.npz"


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Start read from `options.path`, people in the order of `observations`.

    In frames that are not valid a person keeps the pose of the nearest valid one, of the same shot
    where there is any (`cuts`: first frames of new ones), with confidence 0, so that a gap can be
    solved across. Raises InputError when the file does not fit the
    observations: other people, other frames, other number of betas, somebody never valid.
    """
    path = Path(options.path)
    initial = read_initial(path)
    frames = observations.keypoints.shape[1]
    if initial.valid.shape[1] != frames:
        raise InputError(
            f"'{path}': {initial.valid.shape[1]} frames, the observations have {frames}; "
            "make both from the same frames"
        )
    known = initial.person_id.tolist()
    wanted = observations.person_id.tolist()
    missing = [person for person in wanted if person not in known]
    if len(missing) > 0:
        raise InputError(f"'{path}': person_id {known} lacks {missing} of the observations")
    lost = [person for person in wanted if not bool(initial.valid[known.index(person)].any())]
    if len(lost) > 0:
        raise InputError(f"'{path}': person_id {lost} are valid in no frame; leave them out")
    initial = _held(initial, cuts)
    order = torch.tensor([known.index(person) for person in wanted], dtype=torch.long)
    available = body.shapedirs.shape[-1]
    betas = torch.zeros(len(wanted), available, dtype=torch.float64)
    shared = min(available, initial.betas.shape[1])
    if bool((initial.betas[:, shared:].abs() > 0).any()):
        raise InputError(
            f"'{path}': {initial.betas.shape[1]} betas, body '{body.name}' has {available}; "
            "set the others to 0"
        )
    betas[:, :shared] = initial.betas[order, :shared]
    return Initial(
        person_id=observations.person_id,
        cam_from_root=initial.cam_from_root[order],
        body_pose=initial.body_pose[order],
        betas=betas,
        valid=initial.valid[order],
        **{key: value[order] for key, value in _given(initial).items()},
    )


def _given(initial: Initial) -> dict[str, Tensor]:
    """The optional fields that the initialiser knows."""
    found = {key: getattr(initial, key) for key in OPTIONAL}
    return {key: value for key, value in found.items() if value is not None}


def _held(initial: Initial, cuts: tuple[int, ...]) -> Initial:
    """All of a frame outside `valid` replaced by the nearest valid one, whatever the file holds."""
    times = torch.arange(initial.valid.shape[1])
    shot = shot_numbers(len(times), cuts)
    nearest = times.repeat(len(initial.valid), 1)
    for row, valid in enumerate(initial.valid):
        if bool(valid.any()):
            known = times[valid]
            nearest[row] = known[nearest_rows(known, shot)]
    rows = torch.arange(len(nearest))[:, None]
    framewise = {
        "cam_from_root": initial.cam_from_root,
        "body_pose": initial.body_pose,
        **_given(initial),
    }
    held = {key: value[rows, nearest] for key, value in framewise.items()}
    for key in PROBABILITIES:
        if key in held:
            held[key] = held[key] * initial.valid[..., None]
    return replace(initial, **held)


def read_initial(path: str | Path) -> Initial:
    """Check `initial.npz` against the file contract (schema version 1).

    Raises InputError for a missing or damaged file, missing keys, wrong shapes, non-finite numbers,
    cam_from_root that is not rigid or lies behind the camera, probabilities outside 0..1, sigmas
    that are not above 0, and an `up_cam` that is no unit vector; the last three count in valid
    frames only.
    """
    path = Path(path)
    arrays = _load(path)
    people = len(arrays["person_id"])
    shape = arrays["valid"].shape
    if len(shape) != 2 or shape[0] != people:
        raise InputError(f"'{path}': valid has shape {shape}; expected ({people}, T)")
    frames = shape[1]
    expected: dict[str, tuple[int | None, ...]] = {
        "person_id": (people,),
        "cam_from_root": (people, frames, 4, 4),
        "body_pose": (people, frames, 21, 3),
        "betas": (people, None),
        "confidence": (people, frames, 22),
        "contacts": (people, frames, 4),
        "rotation_sigma": (people, frames, 22),
        "up_cam": (people, frames, 3),
        "up_sigma": (people, frames),
        "root_velocity": (people, frames, 3),
        "root_velocity_sigma": (people, frames, 3),
    }
    for key, sizes in expected.items():
        if key in arrays:
            _check_shape(path, key, arrays[key], sizes)
    tensors = {key: _numbers(path, key, arrays[key]) for key in arrays if key in expected}
    valid = torch.from_numpy(arrays["valid"].astype(bool))
    _check_rigid(path, tensors["cam_from_root"], valid)
    _check_predictions(path, tensors, valid)
    if len(set(tensors["person_id"].long().tolist())) != people:
        raise InputError(f"'{path}': person_id {tensors['person_id'].long().tolist()} repeats")
    return Initial(
        person_id=tensors["person_id"].long(),
        cam_from_root=tensors["cam_from_root"],
        body_pose=tensors["body_pose"],
        betas=tensors["betas"],
        valid=valid,
        **{key: tensors[key] for key in OPTIONAL if key in tensors},
    )


def _check_predictions(path: Path, tensors: dict[str, Tensor], valid: Tensor) -> None:
    for key, other in NEEDED_WITH.items():
        if key in tensors and other not in tensors:
            raise InputError(f"'{path}': holds {key} but not {other}; give both or neither")
    for key in PROBABILITIES:
        if key in tensors and not bool(((tensors[key] >= 0) & (tensors[key] <= 1))[valid].all()):
            raise InputError(f"'{path}': {key} must lie in 0..1")
    for key in SIGMAS:
        if key in tensors and not bool((tensors[key] > 0)[valid].all()):
            raise InputError(f"'{path}': {key} must be above 0 where valid")
    if "up_cam" in tensors:
        off = (tensors["up_cam"].norm(dim=-1) - 1).abs()[valid]
        if bool((off > 1e-3).any()):
            raise InputError(f"'{path}': up_cam must be a unit vector where valid")


def _load(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, REQUIRED + OPTIONAL)
    missing = [key for key in REQUIRED if key not in arrays]
    if len(missing) > 0:
        raise InputError(
            f"'{path}': lacks {', '.join(missing)}; needed: {', '.join(REQUIRED)}; "
            f"optional: {', '.join(OPTIONAL)}"
        )
    return arrays


def _check_shape(path: Path, key: str, array: np.ndarray, sizes: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(sizes) and all(
        size is None or size == actual for size, actual in zip(sizes, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise InputError(f"'{path}': {key} has shape {array.shape}; expected ({wanted})")


def _numbers(path: Path, key: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise InputError(f"'{path}': {key} has type {array.dtype}; expected numbers")
    numbers = torch.from_numpy(array.astype(np.float64))
    if not bool(torch.isfinite(numbers).all()):
        raise InputError(f"'{path}': {key} holds NaN or infinity; unseen frames need finite values")
    return numbers


def _check_rigid(path: Path, transform: Tensor, valid: Tensor) -> None:
    rotation = transform[..., :3, :3]
    identity = torch.eye(3, dtype=transform.dtype)
    off = (rotation.transpose(-1, -2) @ rotation - identity).abs().amax(dim=(-1, -2))
    mirrored = torch.linalg.det(rotation) < 0
    last_row = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=transform.dtype)
    bad = (off > 1e-3) | mirrored | ((transform[..., 3, :] - last_row).abs() > 1e-6).any(dim=-1)
    if bool((bad & valid).any()):
        person, frame = (int(index) for index in (bad & valid).nonzero()[0])
        raise InputError(
            f"'{path}': cam_from_root of person index {person}, frame {frame} "
            "is not a rigid 4x4 transform"
        )
    behind = (transform[..., 2, 3] <= 0) & valid
    if bool(behind.any()):
        person, frame = (int(index) for index in behind.nonzero()[0])
        raise InputError(
            f"'{path}': person index {person} is behind the camera in frame {frame}; "
            "the camera looks along +z"
        )
