"""Reader of AMASS npz files: SMPL-H motion, z up."""

from pathlib import Path

import numpy as np
import roma
import torch

from slamhmr.artifacts import read_arrays
from slamhmr.body import BodyModel, pelvis_from_transl
from slamhmr.errors import InputError
from slamhmr.motions.retarget import Retargeted
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_PARENTS

RATE_KEYS = ("mocap_framerate", "mocap_frame_rate", "fps")


def read_amass(path: Path, body: BodyModel) -> tuple[Retargeted, float]:
    """Motion and frame rate of an AMASS file (`poses`, `trans`, `mocap_framerate`).

    The pose is taken over onto the mean `body`: AMASS' betas belong to a licensed body, so they
    are left out, and its wrong pelvis joint only shifts the motion by a constant. Hands are left
    out. Raises InputError for a file that lacks an array or holds one of a wrong shape.
    """
    arrays = read_arrays(path)
    rate_key = next((key for key in RATE_KEYS if key in arrays), None)
    if rate_key is None or "poses" not in arrays or "trans" not in arrays:
        raise InputError(
            f"motion '{path}': not an AMASS file, holds {', '.join(sorted(arrays)) or 'nothing'}; "
            "needed are poses, trans and mocap_framerate"
        )
    poses, trans = arrays["poses"].astype(np.float64), arrays["trans"].astype(np.float64)
    rate = float(arrays[rate_key])
    if poses.ndim != 2 or poses.shape[1] < 66 or trans.shape != (len(poses), 3) or len(poses) < 2:
        raise InputError(
            f"motion '{path}': poses {poses.shape} and trans {trans.shape}, expected (T >= 2, 66 "
            "or more) and (T, 3)"
        )
    if not (np.isfinite(poses).all() and np.isfinite(trans).all() and rate > 0):
        raise InputError(f"motion '{path}': values that are not finite, or a rate of {rate}")
    vectors = torch.from_numpy(poses[:, :66]).reshape(-1, BODY_JOINT_COUNT, 3)
    local = roma.rotvec_to_rotmat(vectors)
    chain = [local[:, 0]]
    for joint in range(1, BODY_JOINT_COUNT):
        chain.append(chain[SMPL_PARENTS[joint]] @ local[:, joint])
    betas = torch.zeros(1, body.shapedirs.shape[-1], dtype=torch.float64)
    pelvis = pelvis_from_transl(body, betas, torch.from_numpy(trans)[None])[0]
    return Retargeted(torch.stack(chain, dim=1), pelvis, (True,) * 21), rate
