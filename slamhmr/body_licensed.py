"""Turns the arrays of an SMPL, SMPL-H or SMPL-X file into a body, after checking each of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slamhmr.body import BodyModel
from slamhmr.errors import InputError
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS, SMPL_PARENTS

SEGMENTS: tuple[str, ...] = ("skin", "shirt", "trousers", "shoes", "hair", "eyes")
BETAS = 10
FORMATS: dict[int, str] = {24: "smpl", 52: "smplh", 55: "smplx"}  # joints -> format
REQUIRED = ("v_template", "shapedirs", "weights", "J_regressor", "kintree_table", "f")
OPTIONAL = ("posedirs", "landmark_names", "landmark_vertices")

# Vertices of landmarks on the meshes of SMPL and SMPL-H (6890) and of SMPL-X (10475). Source: the
# tables published with OpenPose's and the smplx package's keypoints; head top: SMPL-Anthropometry.
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
# The joint a landmark is rigid on, by the last word of its name.
CARRIER: dict[str, str] = {
    "nose": "head", "eye": "head", "ear": "head", "mouth": "head", "top": "head",
    "toe": "foot", "heel": "ankle", "tip": "wrist",
}  # fmt: skip
# What a joint's vertices show on a licensed mesh, by the last word of its name; the rest is skin.
CLOTHING: dict[str, str] = {
    "spine1": "shirt", "spine2": "shirt", "spine3": "shirt", "collar": "shirt", "shoulder": "shirt",
    "pelvis": "trousers", "hip": "trousers", "knee": "trousers", "ankle": "shoes", "foot": "shoes",
}  # fmt: skip

Arrays = dict[str, NDArray[Any]]


def licensed_body(path: Path, arrays: Arrays, *, dtype: torch.dtype) -> BodyModel:
    """Body model of a licensed file's arrays (the keys `REQUIRED` and `OPTIONAL`).

    Raises InputError for missing keys, wrong shapes, a foreign joint tree or unknown landmarks.
    """
    parents = _checked_parents(path, arrays)
    v_template = arrays["v_template"]
    shapedirs = arrays["shapedirs"][..., :BETAS]
    landmarks = _landmarks(path, arrays)
    vertices = list(landmarks.values())
    joints = [_carrier(path, name) for name in landmarks]
    return BodyModel(
        name=FORMATS[len(parents)],
        gender=_gender(path),
        v_template=as_tensor(v_template, dtype),
        shapedirs=as_tensor(shapedirs, dtype),
        posedirs=as_tensor(arrays["posedirs"], dtype) if "posedirs" in arrays else None,
        weights=as_tensor(arrays["weights"], dtype),
        faces=as_tensor(arrays["f"], torch.int64),
        parents=parents,
        joint_template=as_tensor(arrays["J_regressor"] @ v_template, dtype),
        joint_shapedirs=as_tensor(
            np.einsum("jv,vdb->jdb", arrays["J_regressor"], shapedirs), dtype
        ),
        landmark_names=tuple(landmarks),
        landmark_joint=torch.tensor(joints, dtype=torch.int64),
        landmark_template=as_tensor(v_template[vertices], dtype),
        landmark_shapedirs=as_tensor(shapedirs[vertices], dtype),
        segment=_clothing(arrays["weights"]),
    )


def _checked_parents(path: Path, arrays: Arrays) -> tuple[int, ...]:
    """Parents of the joints, -1 for the pelvis; InputError unless all arrays fit SMPL's format."""
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise InputError(
            f"body file '{path}' has no {', '.join(missing)}; an SMPL, SMPL-H or SMPL-X file has "
            f"{', '.join(REQUIRED)}"
        )
    vertex_count, joint_count = len(arrays["v_template"]), len(arrays["J_regressor"])
    if joint_count not in FORMATS:
        raise InputError(
            f"body file '{path}' has {joint_count} joints; allowed: 24 (SMPL), 52 (SMPL-H), "
            "55 (SMPL-X)"
        )
    wanted: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertex_count, 3),
        "shapedirs": (vertex_count, 3, None),
        "weights": (vertex_count, joint_count),
        "J_regressor": (joint_count, vertex_count),
        "kintree_table": (2, joint_count),
        "f": (None, 3),
        "posedirs": (vertex_count, 3, 9 * (joint_count - 1)),
    }
    for key, shape in wanted.items():
        if key in arrays:
            _check_array(path, key, arrays[key], shape)
    if arrays["shapedirs"].shape[2] < BETAS:
        raise InputError(
            f"body file '{path}': shapedirs has {arrays['shapedirs'].shape[2]} directions; "
            f"at least {BETAS} are needed"
        )
    if len(arrays["f"]) > 0 and not 0 <= arrays["f"].min() <= arrays["f"].max() < vertex_count:
        raise InputError(f"body file '{path}': f names vertices outside 0..{vertex_count - 1}")
    parents = (-1, *(int(parent) for parent in arrays["kintree_table"][0, 1:]))
    if parents[:BODY_JOINT_COUNT] != SMPL_PARENTS[:BODY_JOINT_COUNT] or any(
        parent >= joint for joint, parent in enumerate(parents)
    ):
        raise InputError(f"body file '{path}': kintree_table is not the tree of SMPL's joints")
    return parents


def _check_array(path: Path, key: str, array: NDArray[Any], shape: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(shape) and all(
        size is None or size == actual for size, actual in zip(shape, array.shape, strict=False)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"body file '{path}': {key} has shape {array.shape}; needed: ({wanted})")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(f"body file '{path}': {key} holds values that are not finite numbers")


def _landmarks(path: Path, arrays: Arrays) -> dict[str, int]:
    """Landmark names and vertices: the file's own (`landmark_names`), else the published ones."""
    count = len(arrays["v_template"])
    if "landmark_names" in arrays and "landmark_vertices" in arrays:
        names = [str(name) for name in arrays["landmark_names"]]
        own = dict(zip(names, arrays["landmark_vertices"].astype(int).tolist(), strict=False))
        if len(own) != len(arrays["landmark_vertices"]) or not all(
            0 <= vertex < count for vertex in own.values()
        ):
            raise InputError(
                f"body file '{path}': landmark_vertices must name one vertex below {count} for "
                f"each of the {len(names)} landmark_names"
            )
        return own
    if count not in LANDMARK_VERTICES:
        raise InputError(
            f"body file '{path}' has {count} vertices; landmarks are known for 6890 (SMPL, SMPL-H) "
            "and 10475 (SMPL-X); add landmark_names and landmark_vertices to the file"
        )
    return LANDMARK_VERTICES[count]


def _carrier(path: Path, landmark: str) -> int:
    """Index of the SMPL joint that a landmark is rigid on."""
    side, _, word = landmark.rpartition("_")
    if word not in CARRIER:
        raise InputError(
            f"body file '{path}': landmark '{landmark}' is unknown; its name must end in one of "
            f"{', '.join(CARRIER)}"
        )
    joint = CARRIER[word]
    if joint != "head":
        joint = f"{side.partition('_')[0]}_{joint}"
    if joint not in SMPL_JOINTS:
        raise InputError(f"body file '{path}': landmark '{landmark}' must begin with left or right")
    return SMPL_JOINTS.index(joint)


def _clothing(weights: NDArray[Any]) -> torch.Tensor:
    shown = [
        CLOTHING.get(name.rpartition("_")[2], "skin") for name in SMPL_JOINTS[:BODY_JOINT_COUNT]
    ]
    shown += ["skin"] * (weights.shape[1] - BODY_JOINT_COUNT)
    return torch.tensor([SEGMENTS.index(name) for name in shown])[weights.argmax(axis=1)]


def _gender(path: Path) -> str:
    """What the official names say: SMPL_FEMALE, basicModel_f_..., male/model.npz; or unknown."""
    words = f"{path.parent.name}_{path.stem}".lower().replace("-", "_").split("_")
    for gender in ("female", "male", "neutral"):
        if gender in words or ("basicmodel" in words and gender[0] in words):
            return gender
    return "unknown"


def as_tensor(array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """Tensor of a numpy array of any number type, integers for int64."""
    kind = np.int64 if dtype == torch.int64 else np.float64
    return torch.as_tensor(array.astype(kind)).to(dtype)
