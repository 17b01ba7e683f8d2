"""Which vertices of the default body are landmarks, and which part of the clothing each vertex shows."""

import numpy as np
from numpy.typing import NDArray

from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS

# Vertex numbers of MakeHuman's base mesh (CC0; they survive every change of topology), and the SMPL joint whose
# bone carries the landmark rigidly.
LANDMARKS: dict[str, tuple[int, str]] = {
    "nose": (5054, "head"),
    "left_eye": (14607, "head"), "right_eye": (14679, "head"),
    "left_ear": (12038, "head"), "right_ear": (5439, "head"),
    "left_big_toe": (11551, "left_foot"), "left_small_toe": (13184, "left_foot"),
    "left_heel": (12442, "left_ankle"),
    "right_big_toe": (4933, "right_foot"), "right_small_toe": (6588, "right_foot"),
    "right_heel": (5845, "right_ankle"),
    "left_mouth": (7133, "head"), "right_mouth": (373, "head"),
    "left_thumb_tip": (9348, "left_wrist"), "right_thumb_tip": (2680, "right_wrist"),
    "left_index_tip": (8598, "left_wrist"), "right_index_tip": (1930, "right_wrist"),
    "left_pinky_tip": (9171, "left_wrist"), "right_pinky_tip": (2503, "right_wrist"),
}  # fmt: skip


def landmark_vertices(
    base_ids: NDArray[np.int64], v_template: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Landmark names, their vertices in this topology and the SMPL joint that carries each."""
    vertex_of = {base: vertex for vertex, base in enumerate(base_ids.tolist())}
    vertices = [vertex_of[base] for base, _ in LANDMARKS.values()]
    joints = [SMPL_JOINTS.index(joint) for _, joint in LANDMARKS.values()]
    top = int(v_template[:, 1].argmax())
    return (
        (*LANDMARKS, "head_top"),
        np.array([*vertices, top]),
        np.array([*joints, SMPL_JOINTS.index("head")]),
    )


def segment_ids(v_template: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into `slamhmr.body_files.SEGMENTS` of every vertex: skin, shirt, trousers, shoes, hair, eyes."""
    joint = weights.argmax(axis=1).clip(max=BODY_JOINT_COUNT)
    names = np.array([*SMPL_JOINTS[:BODY_JOINT_COUNT], "finger"])[joint]
    stem = np.array([name.rpartition("_")[2] for name in names])
    segment = np.zeros(len(v_template), dtype=np.int64)
    segment[np.isin(stem, ["spine1", "spine2", "spine3", "collar", "shoulder"])] = 1
    segment[np.isin(stem, ["pelvis", "hip", "knee"])] = 2
    segment[np.isin(stem, ["ankle", "foot"])] = 3
    return segment
