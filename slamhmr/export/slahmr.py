"""A result in SLAHMR's layout, for its viewers and evaluation.

OUT/motion_chunks/NAME_000000_world_results.npz, OUT/cameras.json, OUT/track_info.json. Its world is
the first camera's, y down; this one has its origin there and y down too, but is level, with z where
the first camera looks. Float32, as its tools expect.
Source: vye16/slahmr@58518fe slahmr/optim/{output,base_scene,moving_scene}.py, data/dataset.py.
"""

import json
import logging
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.artifacts import write_arrays, write_text
from slamhmr.body import BodyModel
from slamhmr.errors import InputError
from slamhmr.types import Result

LOG = logging.getLogger(__name__)
BETAS = 16  # of its SMPL-H
BODIES = ("smpl", "smplh")  # whose betas and rest pose are those of its body
# Rest position of SMPL's pelvis joint at mean shape, m, as in `init.tcmr`.
SMPL_PELVIS = (-0.0018, -0.2233, 0.0282)
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))  # of its camera files


def write_slahmr(result: Result, body: BodyModel, out: Path, name: str) -> Path:
    """Write the layout below `out`, of the sequence `name`; returns the path of the world's npz.

    For a `body` that is not SMPL or SMPL-H, SLAHMR's body of mean shape stands with its pelvis in
    our people's, which the log says. Raises InputError for a ground through the first camera, which
    its floor (normal times offset) cannot express.
    """
    if name == "" or "/" in name:
        raise InputError(f"name '{name}' of the sequence must be a file name")
    theirs = their_world(result)
    origin = result.world_from_cam[0, :3, 3]
    camera = theirs @ result.world_from_cam[:, :3, :3]  # their world from the camera
    centre = (result.world_from_cam[:, :3, 3] - origin) @ theirs.T
    arrays = _people(result, body, theirs, origin)
    people = len(result.person_id)
    arrays |= {
        "floor_plane": _numbers(_floor(result, theirs, origin)[None]),
        "floor_idcs": np.zeros(people, dtype=np.int64),
        "world_scale": np.full((1, 1), result.scale, dtype=np.float32),
        "cam_R": _numbers(camera.mT.expand(people, -1, -1, -1)),
        "cam_t": _numbers(-(camera.mT @ centre[..., None])[..., 0].expand(people, -1, -1)),
        "intrins": _numbers(result.intrinsics[0]),
        "track_mask": result.valid.numpy(),
    }
    path = out / "motion_chunks" / f"{name}_000000_world_results.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, arrays)
    cameras = {
        "rotation": (FLIP @ camera).flatten(1).tolist(),
        "translation": (centre @ FLIP).tolist(),
        "intrinsics": result.intrinsics.tolist(),
    }
    write_text(out / "cameras.json", json.dumps(cameras, indent=1))
    write_text(out / "track_info.json", json.dumps(_tracks(result)))
    return path


def their_world(result: Result) -> Float[Tensor, "3 3"]:
    """Rotation from our world to one with y down and z where the first camera looks, level."""
    forward = result.world_from_cam[0, :3, 2].clone()
    if float(forward[:2].norm()) < 1e-3:  # it looks straight down or up: where its top points
        forward = -result.world_from_cam[0, :3, 1].clone()
    forward[2] = 0
    ahead = torch.nn.functional.normalize(forward, dim=0)
    down = torch.tensor([0.0, 0.0, -1.0], dtype=ahead.dtype)
    return torch.stack([torch.linalg.cross(down, ahead), down, ahead])


def _people(
    result: Result, body: BodyModel, theirs: Tensor, origin: Tensor
) -> dict[str, NDArray[np.float32]]:
    pelvis = (result.joints[:, :, 0] - origin) @ theirs.T
    rest = result.joints[:, :, 0] - result.transl
    betas = torch.zeros(len(result.person_id), BETAS, dtype=torch.float64)
    if body.name in BODIES:
        count = min(BETAS, result.betas.shape[1])
        betas[:, :count] = result.betas[:, :count]
    else:
        LOG.warning(
            "the result's body '%s' is not SMPL: SLAHMR's body stands in its place with the mean "
            "shape; solve with --body-model SMPL_NEUTRAL.npz for its own", body.name,
        )  # fmt: skip
        rest = torch.tensor(SMPL_PELVIS, dtype=torch.float64)
    root = theirs @ roma.rotvec_to_rotmat(result.root_orient)
    return {
        "trans": _numbers(pelvis - rest),
        "root_orient": _numbers(roma.rotmat_to_rotvec(root)),
        "pose_body": _numbers(result.body_pose),
        "betas": _numbers(betas),
    }


def _floor(result: Result, theirs: Tensor, origin: Tensor) -> Float[Tensor, "3"]:
    """Its floor: unit normal n times offset d, with n.x = d; ours has n.x + d = 0."""
    normal, offset = result.ground[:3], -(result.ground[3] + result.ground[:3] @ origin)
    if abs(float(offset)) < 1e-6:
        raise InputError("the ground goes through the first camera, which SLAHMR cannot express")
    return (theirs @ normal) * offset


def _tracks(result: Result) -> dict[str, object]:
    frames = result.valid.shape[1]
    tracks = {
        str(person): {"index": row, "vis_mask": result.observed[row].tolist()}
        for row, person in enumerate(result.person_id.tolist())
    }
    meta = {"seq_interval": [0, frames], "data_interval": [0, frames]}
    return {"tracks": tracks, "meta": meta}


def _numbers(values: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(values.numpy().astype(np.float32))
