"""Names and indices: SMPL joints, canonical keypoints, foreign keypoint layouts, contacts."""

SMPL_JOINTS: tuple[str, ...] = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar",
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
SMPL_PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
)  # fmt: skip
BODY_JOINT_COUNT = 22  # root + the 21 rotations the solver knows; hands (22, 23) follow the wrists

COCO_KEYPOINTS: tuple[str, ...] = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
FOOT_KEYPOINTS: tuple[str, ...] = (
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip
KEYPOINTS: tuple[str, ...] = (
    COCO_KEYPOINTS + FOOT_KEYPOINTS
)  # the 23 canonical names, canonical order
KEYPOINT_INDEX: dict[str, int] = {name: index for index, name in enumerate(KEYPOINTS)}

# OpenPose's slots (Cao et al. 2019), which PHALP and SLAHMR use.
BODY_25: tuple[str, ...] = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee",
    "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe",
    "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip

# Foreign spellings onto canonical names. OpenPose BODY_25 (Cao et al. 2019), Halpe-26,
# COCO-WholeBody feet and BlazePose-33 differ only in spelling for the points that exist here.
KEYPOINT_ALIASES: dict[str, str] = {
    "left_foot_index": "left_big_toe",
    "right_foot_index": "right_big_toe",
    **{f"{short}{part}".lower(): f"{side}_{name}"
       for short, side in (("l", "left"), ("r", "right"))
       for part, name in (
           ("Eye", "eye"), ("Ear", "ear"), ("Shoulder", "shoulder"), ("Elbow", "elbow"),
           ("Wrist", "wrist"), ("Hip", "hip"), ("Knee", "knee"), ("Ankle", "ankle"),
           ("BigToe", "big_toe"), ("SmallToe", "small_toe"), ("Heel", "heel"))},
}  # fmt: skip
# Known to other layouts, without a counterpart on the canonical list: accepted and left out.
IGNORED_KEYPOINTS: frozenset[str] = frozenset(
    {"neck", "midhip", "mid_hip", "hip", "head", "head_top", "background"}
    | {f"{side}_{part}" for side in ("left", "right")
       for part in ("eye_inner", "eye_outer", "mouth", "pinky", "index", "thumb")}
    | {"mouth_left", "mouth_right"}
)  # fmt: skip

# The point of the body model that each keypoint is: a joint where one exists, else a landmark.
KEYPOINT_JOINT: dict[str, str] = {
    name: name for name in KEYPOINTS if name in SMPL_JOINTS
}  # shoulders .. ankles; nose, eyes, ears, toes and heels are landmarks of the body file
CONTACT_POINTS: tuple[str, ...] = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
IN_CONTACT = 0.5  # probability from which one of them is said to stand


def canonical_keypoint(name: str) -> str | None:
    """Canonical name of a keypoint of any supported layout; None for a known but unused one.

    Raises KeyError for an unknown name; the caller makes it an InputError that lists `KEYPOINTS`.
    """
    lowered = name.strip().lower().replace(" ", "_").replace("-", "_")
    if lowered in KEYPOINT_INDEX:
        return lowered
    if lowered in KEYPOINT_ALIASES:
        return KEYPOINT_ALIASES[lowered]
    if lowered in IGNORED_KEYPOINTS:
        return None
    raise KeyError(name)
