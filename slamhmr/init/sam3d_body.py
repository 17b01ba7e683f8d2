"""Start from SAM 3D Body's outputs (Meta 2025): everybody in every picture, MHR's 70 points.

`process_one_image` gives, per person of a picture, `pred_keypoints_3d` (70,3) in camera axes,
`pred_cam_t` (3,) to be added to them, m, and `focal_length` in px, about the picture's centre. Read
are those three, of one .npz per person and picture in a folder (`NAME_subj00.npz`, as Meta's MHR
repository has them). A number at the end of NAME is the frame; without numbers the names are taken
in order.

MHR's parameters are left out: its skeleton, rest pose and shape are other than SMPL's. Our body's
pose comes from 22 of the points by inverse kinematics (`from_joints`): limbs and trunk are as
there, twists of limbs are not told by points, and the shape is the mean one. People have no
identity across pictures; each goes to the person observed where they are.
Source: facebookresearch/sam-3d-body@2137f4e sam_3d_body_estimator.py, @31ab9f7 metadata/mhr70.py;
facebookresearch/MHR@4debaac tools/mhr_smpl_conversion/data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.components import Lack, require
from slamhmr.errors import InputError
from slamhmr.init.formats import file_frames, numbers
from slamhmr.init.from_joints import pose_from_points, size_ratio
from slamhmr.init.imported import Said, join_tracks
from slamhmr.init.matching import SAME, SURE, Track
from slamhmr.types import CameraTrack, Initial, Observations
from slamhmr.video import natural

FILES = ("sam3d_body",)  # a folder; the name is ours, Meta publishes none
NAME = "SAM 3D Body"
KEYS = ("pred_keypoints_3d", "pred_cam_t", "focal_length")
MHR70 = {
    name: place
    for place, name in enumerate(
        (
            "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder",
            "right_shoulder", "left_elbow", "right_elbow", "left_hip", "right_hip", "left_knee",
            "right_knee", "left_ankle", "right_ankle", "left_big_toe", "left_small_toe",
            "left_heel", "right_big_toe", "right_small_toe", "right_heel",
        )
    )
} | {"right_wrist": 41, "left_wrist": 62}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Settings of init `sam3d_body`."""

    path: str = ""  # folder; unset: sam3d_body/ in the sequence directory
    first: int = 0  # number of the picture that is the first of the observations


@dataclass(frozen=True)
class _Seen:
    """Everybody in every picture, one row each."""

    frames: Int[Tensor, "D"]
    points: Float[Tensor, "D K 3"]  # in the camera, m
    focal: Float[Tensor, "D"]  # px


def lacking(options: Options) -> list[Lack]:
    """The folder, if it is not there."""
    if options.path != "" and Path(options.path).expanduser().is_dir():
        return []
    where = "it is not in the sequence directory"
    if options.path != "":
        where = f"'{options.path}' is no folder"
    get = "save what process_one_image gives, one npz per person and frame, options.sam3d_body.path"
    return [Lack(f"init 'sam3d_body' has no folder '{FILES[0]}': {where}", get)]


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start of everybody, poses and places only.

    Raises MissingAsset without the files, InputError if they do not fit.
    """
    require(lacking(options))
    path = Path(options.path).expanduser()
    found = _read(path)
    frames, inside = file_frames(
        found.frames, options.first, observations, path=path, option="options.sam3d_body"
    )
    found = _Seen(frames[inside], found.points[inside], found.focal[inside])
    tracks = [
        _track(name, rows, found, observations, body)
        for name, rows in _people(found, observations)
        if len(rows) > 0
    ]
    return join_tracks(
        tracks, observations, cameras, body, Said(), path=path, same_body=True, cuts=cuts
    )


def _read(path: Path) -> _Seen:
    """Everybody in the files of a folder."""
    files = sorted(path.glob("*.npz"), key=lambda file: natural(file.name))
    if len(files) == 0:
        raise InputError(f"'{path}' holds no .npz file of {NAME}")
    names = [re.sub(r"_(subj\w*|data)$", "", file.stem) for file in files]
    order = list(dict.fromkeys(names))
    ends = [re.search(r"(\d+)$", name) for name in order]
    numbered = [int(end.group(1)) for end in ends if end is not None]
    if len(numbered) < len(order):
        numbered = list(range(len(order)))
    frame = dict(zip(order, numbered, strict=True))
    people = []
    for file, name in zip(files, names, strict=True):
        try:
            with np.load(file, allow_pickle=False) as arrays:
                chosen = {k: arrays[k] for k in arrays.files if k in KEYS}
        except (OSError, ValueError) as e:
            raise InputError(f"'{file}' cannot be read: {e}") from e
        people.append((frame[name], chosen, file))
    return _seen(people)


def _seen(people: Sequence[tuple[int, Mapping[str, object], Path]]) -> _Seen:
    columns = list(MHR70.values())
    points, focal = [], []
    for _, one, path in people:
        keypoints = numbers(one, KEYS[0], (70, 3), path=path, of=NAME)[columns]
        points.append(keypoints + numbers(one, KEYS[1], (3,), path=path, of=NAME))
        focal.append(float(numbers(one, KEYS[2], (), path=path, of=NAME)))
    if len(points) == 0:
        raise InputError(f"no output of {NAME} shows anybody")
    return _Seen(
        torch.tensor([frame for frame, _, _ in people]),
        torch.from_numpy(np.stack(points)),
        torch.tensor(focal, dtype=torch.float64),
    )


def _people(found: _Seen, observations: Observations) -> list[tuple[str, Int[Tensor, "F"]]]:
    """Rows of each observed person, at most one per frame, by the nearest in the picture."""
    from scipy.optimize import linear_sum_assignment

    cost = _distances(found, observations)
    rows: list[list[int]] = [[] for _ in range(cost.shape[1])]
    for frame in torch.unique(found.frames).tolist():
        here = torch.nonzero(found.frames == frame)[:, 0]
        block = cost[here].numpy()
        for one, person in zip(
            *linear_sum_assignment(np.where(block <= SAME, block, 1e6)), strict=True
        ):
            if block[one, person] <= SAME:
                rows[person].append(int(here[one]))
    names = observations.person_id.tolist()
    return [(str(n), torch.tensor(r, dtype=torch.long)) for n, r in zip(names, rows, strict=True)]


def _distances(found: _Seen, observations: Observations) -> Float[Tensor, "D N"]:
    """Mean distance of points from keypoints over the person's longer side; infinite if unseen."""
    shared = [name for name in observations.keypoint_names if name in MHR70]
    columns = [observations.keypoint_names.index(name) for name in shared]
    places = [list(MHR70).index(name) for name in shared]
    image = observations.keypoints[:, found.frames][:, :, columns]
    sure = observations.confidence[:, found.frames][:, :, columns]
    sure = torch.where(sure >= SURE, sure, 0.0)
    centre = torch.tensor(observations.image_size, dtype=torch.float64) / 2
    points = found.points[:, places]
    seen = found.focal[:, None, None] * points[..., :2] / points[..., 2:].clamp_min(0.1) + centre
    shown = sure[..., None] > 0
    low = torch.where(shown, image, torch.inf).amin(dim=2)
    high = torch.where(shown, image, -torch.inf).amax(dim=2)
    side = (high - low).amax(dim=-1).clamp_min(1.0)
    off = ((seen - image).norm(dim=-1) * sure).sum(dim=-1) / sure.sum(dim=-1).clamp_min(1e-9)
    return torch.where(sure.sum(dim=-1) > 0, off / side, torch.inf).mT


def _track(
    name: str, rows: Int[Tensor, "F"], found: _Seen, observations: Observations, body: BodyModel
) -> Track:
    """One person's pictures as poses of our body, at the size of our body.

    Larger by r and r times as far away shows the same picture; so does f'/f times as far through a
    lens of f'. The latter is left to the joining, of a mean focal length.
    """
    names, points = list(MHR70), found.points[rows]
    betas = torch.zeros(body.shapedirs.shape[-1], dtype=torch.float64)
    focal = found.focal[rows]
    lens = float(focal.median())
    points = points * size_ratio(body, betas, names, points)
    middle = points[:, [names.index("left_hip"), names.index("right_hip")]].mean(dim=1)
    moved = torch.cat([middle[:, :2], middle[:, 2:] * (lens / focal)[:, None]], dim=1)
    points = points + (moved - middle)[:, None]
    root, pelvis, turns = pose_from_points(body, betas, names, points)
    width, height = observations.image_size
    return Track(
        name=name,
        frames=found.frames[rows],
        root=root,
        pelvis=pelvis,
        rotations=roma.rotvec_to_rotmat(turns),
        betas=betas,
        intrinsics=torch.tensor([lens, lens, width / 2, height / 2], dtype=torch.float64),
    )
