"""Which vertices of the default body are landmarks, and what each vertex shows in pictures."""

import numpy as np
from numpy.typing import NDArray

from slamhmr.body_licensed import SEGMENTS
from slamhmr.skeleton import SMPL_JOINTS

# Where the clothes end on the template, metres from the pelvis joint; chosen by eye.
HEM, SLEEVE, NECKLINE, SHOE_TOP = 0.02, 0.32, 0.49, -0.875
EAR_HEIGHT, EAR_DEPTH, NAPE = 0.60, 0.05, 0.53  # the hairline rises forwards by 45 degrees
EAR_INSIDE, EAR_TOP, EAR_BACK = 0.069, 0.645, 0.045
EYEBALLS = ((14598, 14669), (14670, 14741))  # base-mesh vertices of helper-l-eye and helper-r-eye

# Vertex numbers of MakeHuman's base mesh (CC0; they survive every change of topology) and the SMPL
# joint that carries the landmark rigidly. Nose, toes, heels and finger tips are extremes of the
# template in their direction, eyes the front of the cornea; ears (the opening of the ear) and mouth
# corners were picked by eye in a rendering.
LANDMARKS: dict[str, tuple[int, str]] = {
    "nose": (5054, "head"),
    "left_eye": (14607, "head"), "right_eye": (14679, "head"),
    "left_ear": (12318, "head"), "right_ear": (5721, "head"),
    "left_big_toe": (11551, "left_foot"), "left_small_toe": (13184, "left_foot"),
    "left_heel": (12442, "left_ankle"),
    "right_big_toe": (4933, "right_foot"), "right_small_toe": (6588, "right_foot"),
    "right_heel": (5845, "right_ankle"),
    "left_mouth": (7167, "head"), "right_mouth": (407, "head"),
    "left_thumb_tip": (9348, "left_wrist"), "right_thumb_tip": (2680, "right_wrist"),
    "left_index_tip": (8598, "left_wrist"), "right_index_tip": (1930, "right_wrist"),
    "left_pinky_tip": (9171, "left_wrist"), "right_pinky_tip": (2503, "right_wrist"),
}  # fmt: skip


def landmark_vertices(
    base_ids: NDArray[np.int64], v_template: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Landmark names, their vertices in this topology and the SMPL joints that carry them."""
    vertex_of = {base: vertex for vertex, base in enumerate(base_ids.tolist())}
    vertices = [vertex_of[base] for base, _ in LANDMARKS.values()]
    joints = [SMPL_JOINTS.index(joint) for _, joint in LANDMARKS.values()]
    top = int(v_template[:, 1].argmax())
    return (
        (*LANDMARKS, "head_top"),
        np.array([*vertices, top]),
        np.array([*joints, SMPL_JOINTS.index("head")]),
    )


def segment_ids(
    base_ids: NDArray[np.int64], v_template: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Index into `slamhmr.body_licensed.SEGMENTS` of every vertex (V,).

    Planes cut the T-posed template (V, 3), metres: a T-shirt, long trousers, shoes, short hair.
    """
    x, y, z = v_template.T
    across = np.abs(x)
    head = weights[:, [SMPL_JOINTS.index("neck"), SMPL_JOINTS.index("head")]].sum(axis=1)
    segment = np.full(len(v_template), SEGMENTS.index("skin"))
    shirt = (y > HEM) & (across < SLEEVE) & ((head < 0.5) | (y < NECKLINE - 0.5 * z))
    segment[shirt] = SEGMENTS.index("shirt")
    segment[y <= HEM] = SEGMENTS.index("trousers")
    segment[y < SHOE_TOP] = SEGMENTS.index("shoes")
    hairline = (y > EAR_HEIGHT + (z - EAR_DEPTH)) & (y > NAPE)
    ear = (across > EAR_INSIDE) & (y < EAR_TOP) & (z > EAR_BACK)
    segment[(head > 0.5) & hairline & ~ear] = SEGMENTS.index("hair")
    for first, last in EYEBALLS:
        segment[(base_ids >= first) & (base_ids <= last)] = SEGMENTS.index("eyes")
    return segment
