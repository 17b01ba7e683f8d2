"""Start from PromptHMR's `results.pkl` (Wang et al. 2025): everybody, in the camera.

`people` by track: `frames` (S,), `smplx_cam` with `rotmat` (S,55,3,3), `shape` (S,10), `trans`
(S,3), SMPL-X in the camera, and `static_conf_logits` (S,6). `camera`: `img_focal`, `img_center`,
`pred_cam_R` (T,3,3). `camera_world`: `Rcw` (T,3,3), a world with y up where SPEC's pitch and roll
were used. Pictures higher than 896 px were made smaller, and of videos above 60 frames a second
every second or further frame is left out, which this reader refuses. The world's motion is the
camera's of a SLAM system, so no velocities are taken from it.
Source: yufu-wang/PromptHMR@d8f4031 pipeline/pipeline.py, phmr_vid.py, world.py, utils.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.components import Lack, require
from slamhmr.errors import InputError
from slamhmr.init.formats import (
    as_rotations,
    contacts_of_static,
    lacking_output,
    numbers,
    own_betas,
    rest_pelvis,
    to_our_picture,
    whole_clip,
)
from slamhmr.init.imported import Said, join_tracks
from slamhmr.init.matching import Track
from slamhmr.types import CameraTrack, Initial, Observations

FILES = ("results.pkl",)  # looked for in the sequence directory
MODEL = "smplx"
NAME = "PromptHMR"


@dataclass(frozen=True)
class Options:
    """Settings of init `prompthmr`; the sigma is assumed, the file states none."""

    path: str = ""  # unset: results.pkl in the sequence directory
    first: int = 0  # frame of the file that is the first of the observations
    up_sigma: float = 0.15  # rad, of a single picture's pitch and roll


@dataclass(frozen=True)
class _Shot:
    """What the file says of the camera."""

    count: int  # frames
    intrinsics: Float[Tensor, "4"]  # in px of our pictures
    up: Float[Tensor, "T 3"] | None  # against gravity, in the camera


def lacking(options: Options) -> list[Lack]:
    """The file, if it is not there."""
    made_by = "PromptHMR's scripts/demo_video.py"
    return lacking_output("prompthmr", options.path, FILES[0], made_by)


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of everybody with contacts and the direction against gravity.

    Raises MissingAsset without the file, InputError if it does not fit.
    """
    from slamhmr.safe_pickle import read_pickle

    require(lacking(options))
    path = Path(options.path).expanduser()
    content = read_pickle(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("people"), Mapping):
        raise InputError(f"'{path}' has no 'people': no output of {NAME}")
    if len(content["people"]) == 0:
        raise InputError(f"'{path}' holds nobody")
    shot = _shot(content, observations, path)
    whole_clip(shot.count, options.first, observations, path=path, option="options.prompthmr")
    tracks = [
        _track(str(name), track, shot, observations, body, options, path)
        for name, track in content["people"].items()
    ]
    kept = [track for track in tracks if track is not None]
    said = Said(up=options.up_sigma)
    same = body.name == MODEL
    return join_tracks(
        kept, observations, cameras, body, said, path=path, same_body=same, cuts=cuts
    )


def _shot(content: Mapping[str, object], observations: Observations, path: Path) -> _Shot:
    camera = content.get("camera")
    turns = numbers(camera, "pred_cam_R", (None, 3, 3), path=path, of=NAME)
    focal = float(numbers(camera, "img_focal", (), path=path, of=NAME))
    centre = numbers(camera, "img_center", (2,), path=path, of=NAME)
    size = (2 * float(centre[0]), 2 * float(centre[1]))
    masks = content.get("masks")
    if isinstance(masks, np.ndarray) and masks.ndim >= 3:
        size = (float(masks.shape[-1]), float(masks.shape[-2]))
    lens = torch.tensor([focal, focal, *centre.tolist()], dtype=torch.float64)
    up = None
    if "spec_calib" in content and "camera_world" in content:
        world = content["camera_world"]
        cam_from_world = numbers(world, "Rcw", (len(turns), 3, 3), path=path, of=NAME)
        up = as_rotations(cam_from_world[:, None], 1, path=path, key="Rcw")[:, 0, :, 1]
    lens = to_our_picture(lens, size, observations.image_size, path)
    return _Shot(len(turns), lens, up)


def _track(
    name: str,
    content: object,
    shot: _Shot,
    observations: Observations,
    body: BodyModel,
    options: Options,
    path: Path,
) -> Track | None:
    """A track at the observations' frames; None if it has none of them."""
    ids = torch.from_numpy(numbers(content, "frames", (None,), path=path, of=NAME)).long()
    found = content.get("smplx_cam") if isinstance(content, Mapping) else None
    count = len(ids)
    turns = numbers(found, "rotmat", (count, None, 3, 3), path=path, of=NAME)
    shape = torch.from_numpy(numbers(found, "shape", (count, 10), path=path, of=NAME))
    transl = torch.from_numpy(numbers(found, "trans", (count, 3), path=path, of=NAME))
    rotations = as_rotations(turns, 22, path=path, key="rotmat")
    frames = ids - options.first
    inside = (frames >= 0) & (frames < observations.confidence.shape[1])
    if not bool(inside.any()):
        return None
    contacts = None
    if isinstance(found, Mapping) and "static_conf_logits" in found:
        logits = numbers(found, "static_conf_logits", (count, 6), path=path, of=NAME)
        contacts = contacts_of_static(logits, inside)
    return Track(
        name=name,
        frames=frames[inside],
        root=rotations[inside, 0],
        pelvis=(transl + rest_pelvis(shape, body, MODEL))[inside],
        rotations=rotations[inside, 1:],
        betas=own_betas(shape, body, MODEL),
        intrinsics=shot.intrinsics,
        contacts=contacts,
        up=shot.up[ids[inside]] if shot.up is not None else None,
    )
