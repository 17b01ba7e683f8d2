"""Directories of made-up motion files for the tests of training: small, random, smooth."""

from pathlib import Path

import numpy as np

from priors.training.rig import Rig
from slamhmr.body import load_body
from slamhmr.training import training_rig

BODY = load_body()


def rig() -> Rig:
    """The body that training sees."""
    return training_rig(BODY)


def write_recording(path: Path, frames: int, seed: int, **other: object) -> None:
    """Somebody upright who walks straight on and swings every joint; `other` replaces arrays."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / 30.0
    wave = np.sin(2 * np.pi * time * rng.uniform(0.3, 1.2, 63) + rng.uniform(0, 6, 63))
    pose = 0.25 * rng.standard_normal(63) * wave
    upright = np.array([[np.pi / 2, 0.0, 0.0]])
    arrays = {
        "root_orient": np.repeat(upright, frames, 0) + 0.05 * wave[:, :3],
        "pelvis": time * rng.uniform(-1, 1, 3) * [1, 1, 0] + [0, 0, 0.95],
        "body_pose": pose.reshape(frames, 21, 3),
        "betas": np.zeros(10),
        "fps": 30.0,
        "tracked": np.ones(21, dtype=bool),
        "contacts": (wave[:, :4] > 0).astype(float),
        "source": "made up",
    }
    kept = {key: value for key, value in (arrays | other).items() if value is not None}
    np.savez(path, **kept)


def write_recordings(folder: Path) -> None:
    """Two or three clips each of walking, idling and of procedural motion, some held out."""
    names = ("cmu_bvh_007_01", "cmu_bvh_002_03", "reactidle_001", "proc_walk_0003",
             "proc_walk_0004", "proc_seated_0011", "proc_seated_0012")  # fmt: skip
    for seed, name in enumerate(names):
        write_recording(folder / f"{name}.npz", 60 + 25 * seed, seed)
