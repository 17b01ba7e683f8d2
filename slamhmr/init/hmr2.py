"""Start from HMR2's bodies in a track file of 4D-Humans or PHALP (`results/demo_*.pkl`).

HMR2 (Goel et al. 2023) gives SMPL rotations, betas and a weak camera (s, tx, ty) of its square
crop of side b and centre c: with focal length f, transl = (tx + z (cx - W/2) / f,
ty + z (cy - H/2) / f, z), z = 2 f / (s b). Its own f is 5000 px for a crop of 256, which is all
but orthographic, so the depth is stated for the camera's own focal length
(`placing.through_lens`). Frames that PHALP only predicted are left out.
Source: brjathu/PHALP@2b77b4d phalp/models/hmar/hmar.py get_3d_parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.components import Lack, require
from slamhmr.errors import InputError
from slamhmr.init.formats import (
    as_rotations,
    file_frames,
    own_betas,
    rest_pelvis,
    to_our_picture,
)
from slamhmr.init.imported import Said, join_tracks
from slamhmr.init.matching import Track
from slamhmr.phalp_tracks import FILES as FILES
from slamhmr.phalp_tracks import Look, Tracks, lacking_tracks, read_tracks
from slamhmr.types import CameraTrack, Initial, Observations

MODEL = "smpl"
FOCAL, CROP = 5000.0, 256.0  # px, of PHALP's picture (a square of CROP px around the image)


@dataclass(frozen=True)
class Options:
    """Settings of init `hmr2`."""

    path: str = ""  # unset: demo_*.pkl in the sequence directory, or in results/ or phalp/ there
    first: int = 0  # frame of the file that is the first of the observations
    least_frames: int = 5  # tracks that are seen in fewer are left out


def lacking(options: Options) -> list[Lack]:
    """The track file, if it is not there."""
    return lacking_tracks("init", "hmr2", options.path)


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of everybody; a person may have several of the file's tracks.

    Raises MissingAsset without the file, InputError if it does not fit.
    """
    require(lacking(options))
    content = read_tracks(Path(options.path).expanduser())
    looks: dict[int, list[Look]] = {}
    for look in content.looks:
        looks.setdefault(look.track, []).append(look)
    found = [
        _track(name, mine, content, observations, body, options)
        for name, mine in looks.items()
        if len(mine) >= options.least_frames
    ]
    tracks = [track for track in found if track is not None]
    if len(tracks) == 0:
        raise InputError(
            f"'{content.path}': no track is seen in {options.least_frames} of the frames "
            "(options.hmr2.least_frames)"
        )
    same = body.name == MODEL
    return join_tracks(
        tracks, observations, cameras, body, Said(), path=content.path, same_body=same, cuts=cuts
    )


def _track(
    name: int,
    looks: Sequence[Look],
    content: Tracks,
    observations: Observations,
    body: BodyModel,
    options: Options,
) -> Track | None:
    """A track at the observations' frames; None if it has none of them."""
    path = content.path
    ids = torch.tensor([look.frame for look in looks])
    frames, inside = file_frames(ids, options.first, observations, path=path, option="options.hmr2")
    if not bool(inside.any()):
        return None

    def stacked(part: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return np.stack([look.numbers("smpl", shape, part) for look in looks])

    betas = torch.from_numpy(stacked("betas", (10,)))
    root = as_rotations(stacked("global_orient", (1, 3, 3)), 1, path=path, key="global_orient")
    turns = as_rotations(stacked("body_pose", (23, 3, 3)), 21, path=path, key="body_pose")
    places = torch.from_numpy(np.stack([transl(look, content.image_size) for look in looks]))
    pelvis = places + rest_pelvis(betas, body, MODEL)
    lens = lens_of(content.image_size)
    return Track(
        name=str(name),
        frames=frames[inside],
        root=root[inside, 0],
        pelvis=pelvis[inside],
        rotations=turns[inside],
        betas=own_betas(betas[inside], body, MODEL),
        intrinsics=to_our_picture(lens, content.image_size, observations.image_size, path),
    )


def lens_of(size: tuple[int, int]) -> Float[Tensor, "4"]:
    """The lens through which PHALP places people in pictures of `size`, px."""
    focal = FOCAL * max(size) / CROP
    return torch.tensor([focal, focal, size[0] / 2, size[1] / 2], dtype=torch.float64)


def transl(look: Look, size: tuple[int, int]) -> NDArray[np.float64]:
    """SMPL's translation (3,) in the camera of `lens_of`, m."""
    if not look.has("camera_bbox"):  # PHALP before 2023
        return look.numbers("camera", (3,))
    scale, x, y = look.numbers("camera_bbox", (3,))
    centre, side = look.crop
    focal = FOCAL * max(size) / CROP
    if scale * side <= 0:
        raise InputError(
            f"'{look.path}': camera_bbox of track {look.track} in frame {look.frame} has scale "
            f"{scale:g}: behind the camera"
        )
    depth = 2 * focal / (scale * side)
    across = (centre - np.array(size) / 2) * depth / focal
    return np.array([x + across[0], y + across[1], depth])
