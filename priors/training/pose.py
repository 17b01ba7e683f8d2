"""Train the pose prior on motion files: `slamhmr train pose`.

Frames are thinned to distinct poses, groups of motions get fixed shares of the weight, left and
right are mirrored, and hand-set poses fill what the recordings lack. The motions that
`clips.is_held_out` names only score.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.pose import DIMENSION, PosePrior, save_pose_prior
from priors.training.clips import (
    ACKNOWLEDGEMENT,
    GROUPS,
    LICENCE,
    OTHER_SHARE,
    Library,
    group_name,
    read_split,
)
from priors.training.mixture import Mixture, Shrinkage, fit_mixture
from priors.training.procedural import JOINTS, mirror_poses, procedural_poses
from priors.training.rig import Rig

LOG = logging.getLogger(__name__)

HAND_SET_SHARE = 0.12  # of the weight; the rest is shared as GROUPS says
HAND_SET_HELD_OUT = 6  # one hand-set pose to score for so many to train on
THIN = 2  # every other frame: poses at 15 fps
DISTINCT = 0.25  # rad over all 63 coordinates: closer frames of one clip are the same pose
CLIP_CAP = 400
# Largest credible turn of a joint from the zero pose, degrees: beyond it the solve of the
# recording went wrong (one salsa trial wears its head backwards, several of subject 005's feet
# too) or coordinates come near pi.
LIMITS_DEG = {
    "ankle": 80,
    "foot": 80,
    "head": 80,
    "neck": 80,
    "wrist": 110,
    "elbow": 165,
    "knee": 165,
}
OTHER_LIMIT_DEG = 165
# Spread within one component, degrees: hinges must not reach from bent to bent backwards.
CAP_DEG = {"knee": 14.0, "elbow": 16.0}
OTHER_CAP_DEG = 25.0
FLOOR_DEG = 4.0
POOLED_SAMPLES = 30.0


@dataclass(frozen=True)
class Options:
    """Settings of a training run: Gaussians of the mixture, rounds of EM, hand-set poses."""

    motions: Path
    out: Path
    seed: int = 0
    components: int = 64
    iterations: int = 12
    hand_set: int = 3000


@dataclass(frozen=True)
class Clip:
    """Distinct poses of one motion file; `group` as in `clips.GROUPS`."""

    name: str
    group: int
    rotations: Float[Tensor, "S 21 3 3"]
    tracked: Bool[Tensor, "21"]


def run(options: Options, _: Rig) -> str:
    """Fit on the motions to train on, score on the others; write weights and card, tell the scores.

    Raises ValueError for a directory without motions of both kinds, or settings that make no prior.
    """
    for name in ("components", "iterations", "hand_set"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)} must be at least 1")
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    seen, unseen = (distinct_poses(library) for library in read_split(options.motions))
    filled = fill_untracked([*seen, *unseen], seen, generator)
    seen, unseen = filled[: len(seen)], filled[len(seen) :]
    poses = procedural_poses(options.hand_set, generator)
    test_poses = procedural_poses(max(options.hand_set // HAND_SET_HELD_OUT, 1), generator)
    scores = {}
    for count in (1, options.components):
        prior = fit(seen, poses, count=count, iterations=options.iterations, seed=options.seed)
        scores[count] = held_out_nll(prior, unseen, test_poses)
        LOG.info("%d components: held-out NLL %.2f nats per pose", count, scores[count])
    save_pose_prior(options.out, prior, _card(options, seen, unseen, scores))
    rows = [f"{count:10d} {score:9.2f}" for count, score in scores.items()]
    return "\n".join(["components  held-out NLL, nats per pose", *rows])


def distinct_poses(library: Library) -> list[Clip]:
    """Distinct credible poses of every motion; motions without any are left out."""
    clips = []
    for index, name in enumerate(library.names):
        first = int(library.start[index])
        frames = slice(first, first + int(library.length[index]), THIN)
        rotations = library.rotations[frames, 1:].double()
        rotations = _distinct(rotations[_credible(roma.rotmat_to_rotvec(rotations))])
        if len(rotations) > 0:
            clips.append(
                Clip(name, int(library.group[index]), rotations, library.tracked[index, 1:])
            )
    return clips


def _credible(pose: Float[Tensor, "S 21 3"]) -> Bool[Tensor, "S"]:
    """Frames in which every joint is within its limit."""
    parts = [name.split("_")[-1] for name in JOINTS]
    limits = torch.tensor([LIMITS_DEG.get(part, OTHER_LIMIT_DEG) for part in parts])
    return (torch.rad2deg(pose.norm(dim=-1)) < limits).all(dim=1)


def _distinct(rotations: Float[Tensor, "S 21 3 3"]) -> Float[Tensor, "S 21 3 3"]:
    """Frames that differ from every kept one, in order of time; at most CLIP_CAP, evenly spaced."""
    kept: list[int] = []
    flat = rotations.flatten(start_dim=1)  # |A - B|_F = sqrt 2 * angle for small angles
    for index in range(len(flat)):
        if not kept or float((flat[kept] - flat[index]).norm(dim=1).min()) > DISTINCT * 2**0.5:
            kept.append(index)
    if len(kept) > CLIP_CAP:
        kept = [kept[round(i)] for i in np.linspace(0, len(kept) - 1, CLIP_CAP)]
    return rotations[kept]


def fill_untracked(clips: list[Clip], donors: list[Clip], generator: torch.Generator) -> list[Clip]:
    """Clips whose unrecorded joints take that joint's rotation in random frames of `donors`.

    Raises ValueError for a joint that no donor recorded.
    """
    filled = []
    for clip in clips:
        rotations = clip.rotations.clone()
        for joint in torch.nonzero(~clip.tracked)[:, 0].tolist():
            found = [other.rotations[:, joint] for other in donors if other.tracked[joint]]
            if len(found) == 0:
                raise ValueError(f"no motion to train on has recorded '{JOINTS[joint]}'")
            pool = torch.cat(found)
            picks = torch.randint(len(pool), (len(rotations),), generator=generator)
            rotations[:, joint] = pool[picks]
        filled.append(Clip(clip.name, clip.group, rotations, clip.tracked))
    return filled


def training_set(
    clips: list[Clip], hand_set: Float[Tensor, "S 21 3 3"]
) -> tuple[Float[Tensor, "P 21 3 3"], Float[Tensor, "P"]]:
    """All poses with their mirror images, and weights with the shares of GROUPS; mean weight 1."""
    shares = _shares()
    poses = [hand_set]
    weights = [torch.full((len(hand_set),), HAND_SET_SHARE / len(hand_set))]
    for clip in clips:
        total = sum(len(other.rotations) for other in clips if other.group == clip.group)
        poses.append(clip.rotations)
        share = shares[group_name(clip.group)] / total
        weights.append(torch.full((len(clip.rotations),), share))
    together, weight = torch.cat(poses), torch.cat(weights).double()
    weight = torch.cat([weight, weight])
    return torch.cat([together, mirror_poses(together)]), weight / weight.mean()


def _shares() -> dict[str, float]:
    """Share of the weight of every group of motions and of the hand-set poses."""
    recorded = {name: (1 - HAND_SET_SHARE) * share for name, _, share in GROUPS}
    other = (1 - HAND_SET_SHARE) * OTHER_SHARE
    return {**recorded, group_name(len(GROUPS)): other, "hand-set": HAND_SET_SHARE}


def mean_pose(
    rotations: Float[Tensor, "S 21 3 3"], weights: Float[Tensor, "S"]
) -> Float[Tensor, "21 3 3"]:
    """Weighted chordal mean of every joint."""
    return roma.special_procrustes(torch.einsum("s,sjab->jab", weights / weights.sum(), rotations))


def fit(
    clips: list[Clip],
    hand_set: Float[Tensor, "S 21 3 3"],
    *,
    count: int,
    iterations: int,
    seed: int,
) -> PosePrior:
    """Pose prior with `count` components."""
    rotations, weights = training_set(clips, hand_set)
    mean = mean_pose(rotations, weights)
    x = _coordinates(mean, rotations)
    generator = torch.Generator().manual_seed(seed)
    mixture: Mixture = fit_mixture(
        x,
        weights,
        count,
        shrinkage=_shrinkage(capped=count > 1),
        iterations=iterations,
        generator=generator,
    )
    return PosePrior(mean, mixture.means, mixture.scale_tril, mixture.log_weights)


def _shrinkage(*, capped: bool) -> Shrinkage:
    """Limits of one component; a single Gaussian must span everything and is not capped."""
    caps = [CAP_DEG.get(name.split("_")[-1], OTHER_CAP_DEG) for name in JOINTS]
    cap = torch.deg2rad(torch.tensor(caps, dtype=torch.float64)).repeat_interleave(3)
    cap = cap if capped else torch.full_like(cap, torch.inf)
    return Shrinkage(floor=float(np.deg2rad(FLOOR_DEG)), pooled=POOLED_SAMPLES, cap=cap)


def _coordinates(
    mean: Float[Tensor, "21 3 3"], rotations: Float[Tensor, "S 21 3 3"]
) -> Float[Tensor, "S 63"]:
    return roma.rotmat_to_rotvec(mean.transpose(-1, -2) @ rotations).reshape(-1, DIMENSION)


def held_out_nll(prior: PosePrior, clips: list[Clip], hand_set: Float[Tensor, "S 21 3 3"]) -> float:
    """Mean -log p of held-out poses, nats, with the training shares of the groups."""
    rotations, weights = training_set(clips, hand_set)
    nll = -prior.log_prob(prior.coordinates(rotations))
    return float((nll * weights).sum() / weights.sum())


def _card(
    options: Options, seen: list[Clip], unseen: list[Clip], scores: dict[int, float]
) -> dict[str, object]:
    """The json beside the weights: how they were made, from what, and how good they are."""
    return {
        "kind": "pose",
        "command": f"slamhmr train pose --motions DIR --out {options.out.name} "
        f"seed={options.seed} components={options.components} iterations={options.iterations} "
        f"hand_set={options.hand_set}",
        "licence": LICENCE,
        "acknowledgement": ACKNOWLEDGEMENT,
        "scores": {
            "held_out_nll_nats_per_pose": {
                f"{count} component(s)": round(score, 3) for count, score in scores.items()
            },
        },
        "held_out": {clip.name: group_name(clip.group) for clip in unseen},
        "trained_on": {clip.name: [group_name(clip.group), len(clip.rotations)] for clip in seen},
        "shares": {name: round(share, 4) for name, share in _shares().items()},
    }
