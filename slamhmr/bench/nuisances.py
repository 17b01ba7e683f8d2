"""Scenes with all nuisances at once, on which the posterior is fitted and, others, checked.

Outliers; keypoint errors that last, with a bias and confidences that are partly wrong; SLAM that
drifts, jitters and knows neither scale nor gravity; contacts that are wrong beyond the start's own
errors; limbs hidden, legs swapped; bodies of random shape. The sets share no seed, and the levels
of noise of the checking set differ from those that were fitted.
"""

from dataclasses import dataclass, replace

import torch

from slamhmr.body import BodyModel
from slamhmr.config import Config
from slamhmr.errors import ConfigError
from slamhmr.init import lift
from slamhmr.init.align import align
from slamhmr.scene_problem import Known
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage
from slamhmr.synth.noise import flipped_contacts, observe
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import SceneState

MOTIONS = ("walk", "turn", "mixed", "run", "sit", "stroll", "wave", "stand")
CAMERAS = ("follow", "orbit", "handheld", "forward", "sway", "static", "follow", "rotation")
MOST_SCENES = 1000  # of one set


@dataclass(frozen=True)
class Nuisances:
    """How bad the observations of a scene are; units of `SceneSpec`."""

    keypoint_noise: float
    outliers: float
    slam_rotation_drift_deg: float
    slam_drift: float
    slam_rotation_deg: float
    flipped: float  # share of frames in which a contact is plainly wrong


@dataclass(frozen=True)
class SceneSet:
    """Seeds from `seed` on; levels of noise in turn."""

    seed: int
    turn: int  # other cameras to the same motions
    levels: tuple[Nuisances, ...]


# "fit2" and "fit3" were checking sets once; what they showed went into weights and temperatures.
SETS = {
    "fit": SceneSet(5000, 0, (Nuisances(0.010, 0.05, 0.2, 0.0015, 0.10, 0.10),)),
    "fit2": SceneSet(7000, 2, (
        Nuisances(0.008, 0.03, 0.1, 0.0030, 0.05, 0.05),
        Nuisances(0.012, 0.05, 0.2, 0.0015, 0.15, 0.10),
        Nuisances(0.010, 0.08, 0.3, 0.0008, 0.10, 0.15),
    )),
    "fit3": SceneSet(9000, 4, (
        Nuisances(0.009, 0.06, 0.15, 0.0020, 0.08, 0.08),
        Nuisances(0.013, 0.04, 0.10, 0.0010, 0.12, 0.10),
        Nuisances(0.011, 0.07, 0.25, 0.0025, 0.06, 0.12),
    )),
    "check": SceneSet(11000, 6, (
        Nuisances(0.012, 0.05, 0.25, 0.0012, 0.07, 0.12),
        Nuisances(0.009, 0.07, 0.12, 0.0022, 0.12, 0.08),
        Nuisances(0.011, 0.04, 0.18, 0.0017, 0.09, 0.10),
    )),
}  # fmt: skip


@dataclass(frozen=True)
class Solved:
    """A scene's truth, and what the schedule made of its observations."""

    truth: Scene
    known: Known
    state: SceneState


def nuisance_spec(name: str, index: int) -> tuple[SceneSpec, float]:
    """The scene of a set by its number, and its share of flipped contacts.

    Raises ConfigError for an unknown set or too large a number.
    """
    if name not in SETS or not 0 <= index < MOST_SCENES:
        raise ConfigError(
            f"scene {index} of set '{name}' is unknown; sets: {', '.join(SETS)}; "
            f"scenes: 0 .. {MOST_SCENES - 1}"
        )
    chosen = SETS[name]
    level = chosen.levels[index % len(chosen.levels)]
    spec = SceneSpec(
        seed=chosen.seed + index,
        frames=200 if name == "fit" else 180 + 20 * (index % 4),
        people=2 if index % 6 == 5 else 1,
        motion=MOTIONS[index % 8],
        camera=CAMERAS[(index + 3 * (index // 8) + chosen.turn) % 8],
        noise="detector",
        keypoint_noise=level.keypoint_noise,
        outliers=level.outliers,
        occlusions=index % 2 == 1,
        slam_rotation_deg=level.slam_rotation_deg,
        slam_drift=level.slam_drift,
        slam_rotation_drift_deg=level.slam_rotation_drift_deg,
    )
    return spec, level.flipped


def solve_scene(spec: SceneSpec, flipped: float, config: Config, body: BodyModel) -> Solved:
    """Lifted start, alignment, contacts spoilt, and every stage of the schedule."""
    truth = make_scene(spec, body)
    observations, cameras = observe(truth, body, spec)
    initial = lift.initialise(observations, cameras, body, lift.Options())
    state = align(initial, observations, cameras, body)
    contacts = flipped_contacts(state.contacts, flipped, spec.fps, spec.seed)
    state = replace(state, contacts=contacts)
    heights = torch.full((spec.people,), torch.nan, dtype=torch.float64)
    known = Known(observations, initial, body, heights)
    resources = Resources(threads=config.threads)
    for name in config.schedule:
        state, _ = run_stage(state, known, name, config.stages[name], resources=resources)
    return Solved(truth, known, state)
