"""Scenes of the world benchmark: what can go wrong with worlds, cameras and people, by family.

Every scene has the errors of a detector, half of them hidden limbs, and SLAM that drifts by as
much as in `bench/nuisances.py`. Families vary one thing at a time on top of that.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slamhmr.errors import ConfigError
from slamhmr.synth.scene import SceneSpec

MOST_SCENES = 100  # of one family
# SLAM and keypoint noise in turn: levels between those on which the posterior was fitted.
LEVELS: tuple[dict[str, float], ...] = (
    {"keypoint_noise": 0.010, "outliers": 0.05, "slam_rotation_drift_deg": 0.20,
     "slam_drift": 0.0015, "slam_rotation_deg": 0.10},
    {"keypoint_noise": 0.012, "outliers": 0.04, "slam_rotation_drift_deg": 0.12,
     "slam_drift": 0.0022, "slam_rotation_deg": 0.08},
    {"keypoint_noise": 0.009, "outliers": 0.06, "slam_rotation_drift_deg": 0.25,
     "slam_drift": 0.0010, "slam_rotation_deg": 0.12},
)  # fmt: skip
# Family -> what its scenes have, in turn.
FAMILIES: dict[str, tuple[Mapping[str, Any], ...]] = {
    "follow": (
        {"camera": "handheld", "motion": "stroll"},
        {"camera": "follow", "motion": "walk"},
        {"camera": "follow", "motion": "mixed", "people": 2},
    ),
    "orbit": (
        {"camera": "orbit", "motion": "stroll"},
        {"camera": "orbit", "motion": "mixed"},
        {"camera": "orbit", "motion": "turn", "people": 2},
    ),
    "static": (
        {"camera": "static", "motion": "stroll"},
        {"camera": "static", "motion": "turn", "people": 2},
        {"camera": "static", "motion": "mixed"},
    ),
    "rotation": (
        {"camera": "rotation", "motion": "walk"},
        {"camera": "rotation", "motion": "stroll", "people": 2},
        {"camera": "rotation", "motion": "mixed"},
    ),
    "sway": (
        {"camera": "sway", "motion": "stroll"},
        {"camera": "sway", "motion": "turn", "people": 2},
        {"camera": "sway", "motion": "walk"},
    ),
    "drive": (
        {"camera": "drive", "motion": "straight", "frames": 150},
        {"camera": "drive", "motion": "run", "frames": 150},
        {"camera": "drive", "motion": "walk", "frames": 160, "people": 2},
    ),
    "occlusion": (
        {"camera": "follow", "motion": "stroll", "occlusions": True, "hidden_seconds": 1.5},
        {"camera": "orbit", "motion": "walk", "occlusions": True, "hidden_seconds": 2.5},
        {"camera": "static", "motion": "mixed", "occlusions": True, "hidden_seconds": 2.0},
    ),
    "exit": (
        {"camera": "static", "motion": "wave", "traffic": "exit", "people": 2, "frames": 330,
         "camera_distance": 4.2},
        {"camera": "handheld", "motion": "wave", "traffic": "exit", "people": 2, "frames": 330,
         "camera_distance": 4.2},
        {"camera": "orbit", "motion": "stand", "traffic": "exit", "people": 2, "frames": 330,
         "camera_distance": 4.2},
    ),
    "stairs": (
        {"camera": "follow", "motion": "stairs"},
        {"camera": "static", "motion": "drop", "camera_distance": 7.0},
        {"camera": "handheld", "motion": "kerb"},
        {"camera": "orbit", "motion": "drop", "camera_distance": 6.0},
        {"camera": "handheld", "motion": "jump"},
    ),
    "four": (
        {"camera": "orbit", "motion": "stroll", "people": 4, "occlusions": True, "frames": 200},
        {"camera": "follow", "motion": "walk", "people": 4, "occlusions": True, "frames": 200},
        {"camera": "static", "motion": "stroll", "people": 4, "occlusions": True, "frames": 200},
    ),
    "crossing": (
        {"camera": "static", "motion": "straight", "traffic": "cross", "people": 2,
         "occlusions": True},
        {"camera": "follow", "motion": "straight", "traffic": "cross", "people": 2,
         "occlusions": True},
        {"camera": "handheld", "motion": "straight", "traffic": "cross", "people": 3,
         "occlusions": True},
    ),
    "focal": (
        {"camera": "orbit", "motion": "stroll", "focal_error": 0.1},
        {"camera": "follow", "motion": "walk", "focal_error": -0.1},
        {"camera": "handheld", "motion": "mixed", "people": 2, "focal_error": 0.1},
    ),
    "drift": (
        {"camera": "follow", "motion": "walk", "slam_rotation_drift_deg": 0.5, "slam_drift": 0.004,
         "slam_scale_drift": 0.02},
        {"camera": "orbit", "motion": "stroll", "slam_restarts": 1, "slam_lost_seconds": 0.4},
        {"camera": "handheld", "motion": "mixed", "people": 2, "slam_scale_drift": 0.03,
         "slam_lost_seconds": 0.5},
    ),
    "cut": (
        {"camera": "follow", "motion": "stroll", "shots": 2, "people": 2},
        {"camera": "orbit", "motion": "walk", "shots": 2},
        {"camera": "static", "motion": "stroll", "shots": 2, "people": 2},
    ),
    "long": (
        {"camera": "follow", "motion": "stroll", "frames": 3000},
        {"camera": "handheld", "motion": "stroll", "frames": 3000},
    ),
    "statures": (
        {"camera": "follow", "motion": "straight", "stature": (1.0, 1.4), "people": 2},
        {"camera": "static", "motion": "walk", "stature": (1.9, 2.1), "people": 1},
        {"camera": "orbit", "motion": "walk", "stature": (1.1, 2.0), "people": 2},
    ),
}  # fmt: skip


def world_scene(family: str, number: int, seed: int) -> SceneSpec:
    """Scene `number` of a family: the same numbers give the same scene.

    Raises ConfigError for an unknown family or a number out of range.
    """
    if family not in FAMILIES or not 0 <= number < MOST_SCENES:
        known = ", ".join(FAMILIES)
        raise ConfigError(f"bench world: scene {number} of '{family}' is unknown; known: {known}")
    kinds, place = FAMILIES[family], list(FAMILIES).index(family)
    plain = SceneSpec(
        seed=seed + MOST_SCENES * place + number,
        frames=240 + 20 * ((place + number) % 3),
        noise="detector",
        occlusions=(place + number) % 2 == 1,
        **LEVELS[(place + number) % len(LEVELS)],  # type: ignore[arg-type]
    )
    return replace(plain, **kinds[number % len(kinds)])
