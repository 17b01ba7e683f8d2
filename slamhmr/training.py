"""`slamhmr train`: the body and the words of the command line for the scripts in `priors`."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from priors.training.rig import Rig
from slamhmr.body import BodyModel, load_body
from slamhmr.config import build, parse_overrides
from slamhmr.errors import ConfigError, InputError
from slamhmr.skeleton import BODY_JOINT_COUNT, KEYPOINT_JOINT, KEYPOINTS, SMPL_JOINTS

# What can be trained: a module with `Options` (all settings) and `run(options, rig)`, which writes
# weights and card and returns a table of scores.
TRAINERS: dict[str, str] = {
    "lifter": "priors.training.lifter_weights",
    "pose": "priors.training.pose",
    "transition": "priors.training.transition",
}


def train(kind: str, motions: Path, out: Path, words: Sequence[str]) -> str:
    """Train `kind` on a directory of motion files; the table of its scores.

    Raises ConfigError for an unknown kind or setting, InputError for motions that cannot be used.
    """
    if kind not in TRAINERS:
        raise ConfigError(f"train '{kind}' is unknown; available: {', '.join(TRAINERS)}")
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must be a .safetensors file")
    if not motions.is_dir():
        raise InputError(f"motions '{motions}' is no directory; make one: slamhmr import-motion")
    trainer = import_module(TRAINERS[kind])
    given = {"motions": str(motions), "out": str(out), **parse_overrides(words)}
    options = build(trainer.Options, given, f"train {kind}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        scores: str = trainer.run(options, training_rig(load_body()))
    except ValueError as error:
        raise InputError(f"train {kind}: {error}") from error
    return scores


def training_rig(body: BodyModel) -> Rig:
    """The 22 joints and the keypoints of a body model, float32."""
    extra = [name for name in KEYPOINTS if KEYPOINT_JOINT.get(name, name) not in SMPL_JOINTS]
    names = (*SMPL_JOINTS[:BODY_JOINT_COUNT], *extra)
    places = [body.point_names.index(name) for name in names]
    return Rig(
        template=body.point_template[places].float(),
        shapedirs=body.point_shapedirs[places].float(),
        joint=body.point_parent[places],
        keypoints=torch.tensor([names.index(KEYPOINT_JOINT.get(name, name)) for name in KEYPOINTS]),
        names=names,
    )
