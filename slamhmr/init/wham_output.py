"""Start from WHAM's `wham_output.pkl` (Shin et al. 2024): everybody, camera and world motion.

A dictionary, by track, of `pose` (S,72) axis-angle with the root in the camera, `trans` (S,3),
`pose_world`, `trans_world`, `betas` (S,10), `verts` and `frame_ids` (S,). `trans` is SMPL's
translation in the camera; `trans_world` is none: it is the middle of the COCO hips, in a world of
the track's own, y up only if the first camera is level, so that nothing is said of gravity. The
focal length is not in the file: sqrt(w^2 + h^2), the principal point the picture's centre, also
with --calib. The network takes every video for one of 30 frames a second. The middle of the hips is
taken from this body; WHAM's regressor has it elsewhere by a few centimetres.
Source: yohanshin/WHAM@2b54f77 demo.py, lib/models/wham.py, lib/models/smpl.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel, rest_points
from slamhmr.components import Lack, require
from slamhmr.errors import InputError
from slamhmr.geometry import default_intrinsics
from slamhmr.init.formats import (
    as_rotations,
    file_frames,
    lacking_output,
    numbers,
    own_betas,
    rate_doubt,
    rest_pelvis,
    root_velocity,
)
from slamhmr.init.imported import Said, join_tracks
from slamhmr.init.matching import Track
from slamhmr.types import CameraTrack, Initial, Observations

FILES = ("wham_output.pkl",)  # looked for in the sequence directory
MODEL = "smpl"


@dataclass(frozen=True)
class Options:
    """Settings of init `wham_output`; the sigma is assumed, the file states none."""

    path: str = ""  # unset: wham_output.pkl in the sequence directory
    first: int = 0  # frame of the file's video that is the first of the observations
    velocity_sigma: float = 0.2  # m/s per axis


def lacking(options: Options) -> list[Lack]:
    """The file, if it is not there."""
    made_by = "WHAM's demo.py with --save_pkl"
    return lacking_output("wham_output", options.path, FILES[0], made_by)


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of everybody with root velocities.

    Raises MissingAsset without the file, InputError if it does not fit.
    """
    from slamhmr.safe_pickle import read_pickle

    require(lacking(options))
    path = Path(options.path).expanduser()
    content = read_pickle(path)
    if not isinstance(content, Mapping) or len(content) == 0:
        raise InputError(f"'{path}' holds no tracks: no output of WHAM")
    tracks = [
        _track(str(name), track, observations, body, options, path)
        for name, track in content.items()
    ]
    kept = [track for track in tracks if track is not None]
    said = Said(options.velocity_sigma * rate_doubt(observations.fps))
    same = body.name == MODEL
    return join_tracks(
        kept, observations, cameras, body, said, path=path, same_body=same, cuts=cuts
    )


def _track(
    name: str,
    content: object,
    observations: Observations,
    body: BodyModel,
    options: Options,
    path: Path,
) -> Track | None:
    """A track at the observations' frames; None if it has none of them."""
    ids = torch.from_numpy(numbers(content, "frame_ids", (None,), path=path, of="WHAM")).long()
    count = len(ids)
    read = {
        key: numbers(content, key, (count, width), path=path, of="WHAM")
        for key, width in (
            ("pose", 72),
            ("trans", 3),
            ("pose_world", 72),
            ("trans_world", 3),
            ("betas", 10),
        )
    }
    if bool((torch.diff(ids) <= 0).any()):
        raise InputError(f"'{path}': frame_ids of track {name} do not ascend")
    frames, inside = file_frames(
        ids, options.first, observations, path=path, option="options.wham_output"
    )
    if not bool(inside.any()):
        return None
    betas = torch.from_numpy(read["betas"])
    turns = as_rotations(read["pose"], 22, path=path, key="pose")
    world = as_rotations(read["pose_world"], 1, path=path, key="pose_world")[:, 0]
    shapes = own_betas(betas, body, MODEL)
    middle = torch.from_numpy(read["trans_world"])
    walked = middle - (world @ _hips(shapes, body)[:, None])[..., 0]
    pelvis = torch.from_numpy(read["trans"]) + rest_pelvis(betas, body, MODEL)
    return Track(
        name=name,
        frames=frames[inside],
        root=turns[inside, 0],
        pelvis=pelvis[inside],
        rotations=turns[inside, 1:],
        betas=shapes,
        intrinsics=default_intrinsics(observations.image_size),
        velocity=root_velocity(
            world[inside], walked[inside], frames[inside], observations.timestamps
        ),
    )


def _hips(betas: Float[Tensor, "B"], body: BodyModel) -> Float[Tensor, "3"]:
    """Middle of the hip joints from the pelvis joint, in the root's axes."""
    rest = rest_points(body, betas[None])[0]
    left, right = (rest[body.point_names.index(f"{side}_hip")] for side in ("left", "right"))
    return (left + right) / 2 - rest[0]
