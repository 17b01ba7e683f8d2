"""Pieces of the formats that other regressors write: frames, rotations, shapes, rest poses."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.body import BodyModel, rest_points
from slamhmr.components import Lack, lacking_file
from slamhmr.errors import InputError
from slamhmr.types import Observations

# Rest position of the pelvis joint of the neutral models at mean shape, m, for bodies that are not
# theirs: SMPL's as in `tcmr`; SMPL-X's as in `SMPLX_REST_WORLD` of kimodo's
# web/src/rigs.js ("from J_regressor @ v_template").
# `placing.on_picture` takes off what is wrong with it.
PELVIS = {"smpl": (-0.0018, -0.2233, 0.0282), "smplx": (0.0031, -0.3514, 0.0120)}
TRAINED_FPS = 30.0


def file_frames(
    ids: Int[Tensor, "S"], first: int, observations: Observations, *, path: Path, option: str
) -> tuple[Int[Tensor, "S"], Bool[Tensor, "S"]]:
    """Frames of the observations of the file's frame numbers, and which of them are there.

    The file's frame `first` is the observations' first. With `first` at 0 all must be there; raises
    InputError otherwise. With another one, a track may have none of them.
    """
    total = observations.confidence.shape[1]
    frames = ids - first
    inside = (frames >= 0) & (frames < total)
    if first == 0 and not bool(inside.all()):
        raise InputError(
            f"'{path}': frames {int(ids.min())} to {int(ids.max())}, the observations have "
            f"{total}; make both from the same frames, or say which frame of the file is their "
            f"first ({option}.first)"
        )
    return frames, inside


def whole_clip(
    count: int, first: int, observations: Observations, *, path: Path, option: str
) -> tuple[Int[Tensor, "S"], Bool[Tensor, "S"]]:
    """As `file_frames` for a file that has all frames of its video, `count` of them.

    Raises InputError if it does not cover the observations, or has other frames beside and nobody
    said where theirs begin.
    """
    total = observations.confidence.shape[1]
    if count < first + total or (first == 0 and count != total):
        raise InputError(
            f"'{path}': {count} frames, the observations have {total}; make both from the same "
            f"frames, or say which frame of the file is their first ({option}.first)"
        )
    return file_frames(torch.arange(count), first, observations, path=path, option=option)


def to_our_picture(
    intrinsics: Float[Tensor, "4"], size: tuple[float, float], ours: tuple[int, int], path: Path
) -> Float[Tensor, "4"]:
    """Intrinsics for a picture of `size`, width and height, in px of ours.

    Raises InputError if the two are not the same picture made larger or smaller.
    """
    ratio = (ours[0] / size[0], ours[1] / size[1])
    if abs(ratio[0] / ratio[1] - 1) > 0.05:
        raise InputError(
            f"'{path}': made of pictures of {size[0]:.0f} x {size[1]:.0f} px, the observations "
            f"of {ours[0]} x {ours[1]}; it must come from the same video"
        )
    return intrinsics * torch.tensor([*ratio, *ratio], dtype=torch.float64)


def own_betas(betas: Float[Tensor, "S 10"], body: BodyModel, model: str) -> Float[Tensor, "B"]:
    """Mean of a file's betas for a body of that model; for any other, the mean shape."""
    own = torch.zeros(body.shapedirs.shape[-1], dtype=torch.float64)
    if body.name == model:
        count = min(len(own), betas.shape[1])
        own[:count] = betas.mean(dim=0)[:count]
    return own


def rest_pelvis(betas: Float[Tensor, "S 10"], body: BodyModel, model: str) -> Float[Tensor, "S 3"]:
    """Rest position of the model's pelvis joint in every frame: pelvis = transl + this."""
    if body.name != model:
        return torch.tensor(PELVIS[model], dtype=torch.float64).expand(len(betas), 3)
    count = body.shapedirs.shape[-1]
    shapes = torch.zeros(len(betas), count, dtype=torch.float64)
    shared = min(count, betas.shape[1])
    shapes[:, :shared] = betas[:, :shared]
    return rest_points(body, shapes)[:, 0]


def root_velocity(
    world_from_root: Float[Tensor, "S 3 3"],
    pelvis_world: Float[Tensor, "S 3"],
    frames: Int[Tensor, "S"],
    timestamps: Float[Tensor, "T"],
) -> Float[Tensor, "S 3"]:
    """Velocity of the pelvis joint to the next frame in the root's axes, m/s; NaN before a gap."""
    step = torch.diff(pelvis_world, dim=0)
    seconds = torch.diff(timestamps[frames])[:, None]
    beside = (torch.diff(frames) == 1)[:, None]
    local = (world_from_root[:-1].mT @ step[..., None])[..., 0] / seconds
    velocity = torch.full_like(pelvis_world, torch.nan)
    velocity[:-1] = torch.where(beside, local, torch.nan)
    return velocity


def contacts_of_static(
    logits: NDArray[np.float64], rows: Bool[Tensor, "S"]
) -> Float[Tensor, "F 4"]:
    """Contacts from GVHMR's logits (S,6) that joints stand still.

    Its joints: left ankle, left foot, right ankle, right foot, then wrists (zju3dv/GVHMR@a866a86,
    gvhmr_pipeline.py); a still ankle is taken for a heel that stands.
    """
    given = torch.from_numpy(np.asarray(logits, dtype=np.float64))
    return torch.sigmoid(given.reshape(-1, given.shape[-1])[rows][:, :4])


def as_rotations(
    values: NDArray[np.float64], joints: int, *, path: Path, key: str
) -> Float[Tensor, "S J 3 3"]:
    """The first `joints` rotations of an array of matrices or axis-angles, flat or not.

    Raises InputError for another shape, or matrices that are no rotations.
    """
    given = torch.from_numpy(np.asarray(values, dtype=np.float64))
    if given.dim() == 4 and given.shape[2:] == (3, 3) and given.shape[1] >= joints:
        chosen = given[:, :joints]
        identity = torch.eye(3, dtype=torch.float64)
        if float((chosen @ chosen.mT - identity).abs().max()) > 1e-3:
            raise InputError(f"'{path}': '{key}' holds matrices that are no rotations")
        return roma.special_procrustes(chosen)
    flat = given.flatten(1) if given.dim() == 3 and given.shape[2] == 3 else given
    if flat.dim() != 2 or flat.shape[1] % 3 != 0 or flat.shape[1] < 3 * joints:
        raise InputError(
            f"'{path}': '{key}' has shape {tuple(given.shape)}; needed are {joints} or more "
            "rotations per frame, axis-angle or matrices"
        )
    return roma.rotvec_to_rotmat(flat[:, : 3 * joints].reshape(len(flat), joints, 3))


def lacking_output(name: str, path: str, file: str, made_by: str) -> list[Lack]:
    """Whether the file of init `name` is there; `file`: its published name."""
    get = f"run {made_by} on the video and set options.{name}.path=.../{file}"
    if path == "":
        what = f"init '{name}' has no file: '{file}' is not in the sequence directory"
        return [Lack(what, get)]
    return lacking_file(path, f"file of init '{name}'", get)


def rate_doubt(fps: float) -> float:
    """Factor on the sigma of velocities from networks trained at 30 frames a second.

    They take any video for one of 30; what they say of a step is trusted less the further from it.
    """
    return 1.0 + abs(math.log2(fps / TRAINED_FPS))


def numbers(
    content: object, key: str, shape: tuple[int | None, ...], *, path: Path, of: str
) -> NDArray[np.float64]:
    """Array `key` of a mapping that was read from a file, as float64; None fits any length.

    Axes of length 1 beyond those of `shape` are dropped. Raises InputError if it is not there, has
    another shape or values that are not finite; `of` names what should have written it.
    """
    if not isinstance(content, Mapping) or key not in content:
        known = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no mapping"
        raise InputError(f"'{path}' lacks '{key}' ({known}): no output of {of}")
    array = np.asarray(content[key])
    if array.dtype.kind not in "fiub":
        raise InputError(f"'{path}': '{key}' holds {array.dtype}, expected numbers")
    while array.ndim > len(shape) and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    fits = array.ndim == len(shape) and all(
        want in (None, side) for want, side in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise InputError(f"'{path}': '{key}' has shape {array.shape}, expected ({wanted})")
    if not np.isfinite(array).all():
        raise InputError(f"'{path}': '{key}' holds NaN or infinity")
    return array.astype(np.float64)
