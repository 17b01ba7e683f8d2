"""Body files: the default `assets/body.npz`, and licensed SMPL, SMPL-H and SMPL-X files, .npz or .pkl.

Licensed files are the user's own: nothing of them is shipped, and the `smplx` package is not used (its licence is
non-commercial). A .pkl is read by `slamhmr.body_pickle`, which runs no code of the file.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slamhmr.body import BodyModel
from slamhmr.errors import InputError, MissingAsset
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS, SMPL_PARENTS

SEGMENTS: tuple[str, ...] = ("skin", "shirt", "trousers", "shoes", "hair", "eyes")
DEFAULT_FILE = Path(__file__).with_name("assets") / "body.npz"
SHIPPED = ("default", "default-hands")  # 24 joints of SMPL, 52 joints of SMPL-H; one file
BETAS = 10
FORMATS: dict[int, str] = {24: "smpl", 52: "smplh", 55: "smplx"}  # joints -> format
HAND_MEAN = (0, 1, 3)  # of a hand's five fingers, the knuckles whose mean is SMPL's hand joint

# Published vertex numbers of landmarks, by vertex count. Source: the field's lists for the meshes of SMPL and
# SMPL-H (6890) and of SMPL-X (10475), as in OpenPose's and smplx's vertex tables; head top as in SMPL-Anthropometry.
LANDMARK_VERTICES: dict[int, dict[str, int]] = {
    6890: {
        "nose": 332, "left_eye": 2800, "right_eye": 6260, "left_ear": 583, "right_ear": 4071,
        "left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387,
        "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
        "left_thumb_tip": 2746, "left_index_tip": 2319, "left_pinky_tip": 2673,
        "right_thumb_tip": 6191, "right_index_tip": 5782, "right_pinky_tip": 6133,
        "head_top": 412,
    },
    10475: {
        "nose": 9120, "left_eye": 9448, "right_eye": 9929, "left_ear": 6, "right_ear": 616,
        "left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846,
        "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
        "left_thumb_tip": 5361, "left_index_tip": 4933, "left_pinky_tip": 5286,
        "right_thumb_tip": 8079, "right_index_tip": 7669, "right_pinky_tip": 8022,
        "head_top": 8976,
    },
}  # fmt: skip
# The joint a landmark is rigid on, by the end of its name.
CARRIER: dict[str, str] = {
    "nose": "head", "eye": "head", "ear": "head", "mouth": "head", "top": "head",
    "toe": "foot", "heel": "ankle", "tip": "wrist",
}  # fmt: skip

Arrays = Mapping[str, NDArray[Any]]


def read_body(model: str | Path, *, dtype: torch.dtype) -> BodyModel:
    """Body model of a name (`SHIPPED`) or of a file; see `slamhmr.body.load_body`."""
    if str(model) in SHIPPED:
        return _shipped_body(with_fingers=str(model) == "default-hands", dtype=dtype)
    path = Path(model).expanduser()
    if not path.is_file():
        raise MissingAsset(
            f"body model '{model}' is neither a file nor one of {', '.join(SHIPPED)}; "
            "give the path of an SMPL, SMPL-H or SMPL-X file (.npz or .pkl)"
        )
    return _smpl_body(path, _read_arrays(path), dtype=dtype)


def joint_regressor(path: Path = DEFAULT_FILE) -> NDArray[np.float64]:
    """The default body's regressor (52, V): signed rows that sum to 1; equal to the stored joints for all betas."""
    file = _read_npz(path)
    count, vertex_count = len(file["parents"]), len(file["v_template"])
    regressor = np.zeros((count, vertex_count))
    regressor[file["regressor_joint"], file["regressor_vertex"]] = file["regressor_value"]
    return regressor


def _shipped_body(*, with_fingers: bool, dtype: torch.dtype) -> BodyModel:
    file = _read_npz(DEFAULT_FILE)
    weights = np.zeros((len(file["v_template"]), len(file["parents"])))
    np.put_along_axis(
        weights, file["weight_joint"].astype(int), file["weight_value"].astype(float), axis=1
    )
    joints = {name: file[name] for name in ("joint_template", "joint_shapedirs")}
    parents = tuple(file["parents"].tolist())
    if not with_fingers:
        weights = _without_fingers(weights.T, np.sum).T
        joints = {name: _without_fingers(rows, _knuckle_mean) for name, rows in joints.items()}
        parents = SMPL_PARENTS
    landmarks = file["landmark_vertices"].astype(int)

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(array.astype(np.float64)).to(dtype)

    return BodyModel(
        name=str(file["name"]),
        gender=str(file["gender"]),
        v_template=tensor(file["v_template"]),
        shapedirs=tensor(file["shapedirs"]),
        posedirs=None,
        weights=tensor(weights / weights.sum(axis=1, keepdims=True)),
        faces=torch.as_tensor(file["faces"].astype(np.int64)),
        parents=parents,
        joint_template=tensor(joints["joint_template"]),
        joint_shapedirs=tensor(joints["joint_shapedirs"]),
        landmark_names=tuple(file["landmark_names"].tolist()),
        landmark_joint=torch.as_tensor(file["landmark_joint"].astype(np.int64)),
        landmark_template=tensor(file["v_template"][landmarks]),
        landmark_shapedirs=tensor(file["shapedirs"][landmarks]),
        segment=torch.as_tensor(file["segment"].astype(np.int64)),
    )


def _without_fingers(rows: NDArray[Any], merge: Any) -> NDArray[Any]:
    """52 rows -> the 24 of SMPL: the 15 finger rows of each hand become its hand row."""
    hands = [merge(rows[start : start + 15], axis=0) for start in (22, 37)]
    return np.concatenate([rows[:BODY_JOINT_COUNT], np.stack(hands)])


def _knuckle_mean(fingers: NDArray[Any], *, axis: int) -> NDArray[Any]:
    return fingers[[3 * finger for finger in HAND_MEAN]].mean(axis=axis)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"body file '{path}' cannot be read: {error}") from error


def _read_arrays(path: Path) -> Arrays:
    return _read_npz(path)


def _smpl_body(path: Path, arrays: Arrays, *, dtype: torch.dtype) -> BodyModel:
    raise InputError(f"body file '{path}' is not supported yet")
