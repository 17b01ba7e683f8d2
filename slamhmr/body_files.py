"""Body files: the default `assets/body.npz`, and the way to licensed SMPL files.

Licensed files are the user's own: nothing of them is shipped, and the `smplx` package is not used
(its licence is non-commercial). A .pkl is read by `body_pickle`, which runs no code of the file.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slamhmr.artifacts import read_arrays
from slamhmr.body import BodyModel
from slamhmr.body_licensed import OPTIONAL, REQUIRED, Arrays, as_tensor, licensed_body
from slamhmr.body_pickle import read_pickle
from slamhmr.components import Lack, require
from slamhmr.errors import InputError
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_PARENTS

DEFAULT_FILE = Path(__file__).with_name("assets") / "body.npz"
SHIPPED = ("default", "default-hands")  # 24 joints of SMPL, 52 joints of SMPL-H; one file
FINGER_JOINTS = 15  # of one hand, three each: index, middle, pinky, ring, thumb
KNUCKLES = (0, 3, 9)  # index, middle and ring, whose mean is SMPL's hand joint


def read_body(model: str | Path, *, dtype: torch.dtype) -> BodyModel:
    """Body model of a name (`SHIPPED`) or of a file; see `slamhmr.body.load_body`."""
    if str(model) in SHIPPED:
        return _shipped_body(with_fingers=str(model) == "default-hands", dtype=dtype)
    require(lacking_body(model))
    path = Path(model).expanduser()
    if path.suffix not in (".npz", ".pkl"):
        raise InputError(f"body file '{path}' ends in '{path.suffix}'; allowed: .npz, .pkl")
    keys = REQUIRED + OPTIONAL
    arrays = read_pickle(path, keys) if path.suffix == ".pkl" else read_arrays(path, keys)
    return licensed_body(path, arrays, dtype=dtype)


def lacking_body(model: str | Path) -> list[Lack]:
    """What is missing for `read_body` of a name or a path: a file that is not there."""
    if str(model) in SHIPPED or Path(model).expanduser().is_file():
        return []
    what = f"body model '{model}' is neither a file nor one of {', '.join(SHIPPED)}"
    return [Lack(what, "give the path of an SMPL, SMPL-H or SMPL-X file (.npz or .pkl)")]


def smpl_arrays(*, with_fingers: bool = False) -> Arrays:
    """The default body under the keys of SMPL's files, for other software: no posedirs.

    `J_regressor` (24 or 52, V) is sparse and signed, its rows sum to 1, and at every shape of the
    model it gives the joints of `load_body`. On other meshes of this topology it is only close.
    """
    file = read_arrays(DEFAULT_FILE)
    parents = np.array(file["parents"] if with_fingers else SMPL_PARENTS, dtype=np.int64)
    regressor = np.zeros((len(file["parents"]), len(file["v_template"])))
    regressor[file["regressor_joint"], file["regressor_vertex"]] = file["regressor_value"]
    table = np.stack([parents, np.arange(len(parents))])
    table[0, 0] = 2**32 - 1  # how SMPL's files write "no parent"
    return {
        "v_template": file["v_template"].astype(np.float64),
        "shapedirs": file["shapedirs"].astype(np.float64),
        "weights": _shipped_weights(file, with_fingers=with_fingers),
        "J_regressor": regressor if with_fingers else _joints_without_fingers(regressor),
        "kintree_table": table.astype(np.uint32),
        "f": file["faces"].astype(np.uint32),
    }


def _shipped_body(*, with_fingers: bool, dtype: torch.dtype) -> BodyModel:
    file = read_arrays(DEFAULT_FILE)
    joints = {name: file[name] for name in ("joint_template", "joint_shapedirs")}
    if not with_fingers:
        joints = {name: _joints_without_fingers(rows) for name, rows in joints.items()}
    landmarks = file["landmark_vertices"].astype(int)
    return BodyModel(
        name=str(file["name"]),
        gender=str(file["gender"]),
        v_template=as_tensor(file["v_template"], dtype),
        shapedirs=as_tensor(file["shapedirs"], dtype),
        posedirs=None,
        weights=as_tensor(_shipped_weights(file, with_fingers=with_fingers), dtype),
        faces=as_tensor(file["faces"], torch.int64),
        parents=tuple(file["parents"].tolist()) if with_fingers else SMPL_PARENTS,
        joint_template=as_tensor(joints["joint_template"], dtype),
        joint_shapedirs=as_tensor(joints["joint_shapedirs"], dtype),
        landmark_names=tuple(file["landmark_names"].tolist()),
        landmark_joint=as_tensor(file["landmark_joint"], torch.int64),
        landmark_template=as_tensor(file["v_template"][landmarks], dtype),
        landmark_shapedirs=as_tensor(file["shapedirs"][landmarks], dtype),
        segment=as_tensor(file["segment"], torch.int64),
    )


def _shipped_weights(file: Arrays, *, with_fingers: bool) -> NDArray[np.float64]:
    weights = np.zeros((len(file["v_template"]), len(file["parents"])))
    joints = file["weight_joint"].astype(int)
    np.put_along_axis(weights, joints, file["weight_value"].astype(np.float64), axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    if with_fingers:
        return weights
    body, fingers = weights[:, :BODY_JOINT_COUNT], weights[:, BODY_JOINT_COUNT:]
    hands = fingers.reshape(len(weights), 2, FINGER_JOINTS).sum(axis=2)
    return np.concatenate([body, hands], axis=1)


def _joints_without_fingers(rows: NDArray[Any]) -> NDArray[Any]:
    """The 24 SMPL rows of a per-joint array of SMPL-H or SMPL-X: a hand is the mean of knuckles."""
    first = len(rows) - 2 * FINGER_JOINTS
    hands = [
        rows[[start + knuckle for knuckle in KNUCKLES]].mean(axis=0)
        for start in (first, first + FINGER_JOINTS)
    ]
    return np.concatenate([rows[:BODY_JOINT_COUNT], np.stack(hands)])
