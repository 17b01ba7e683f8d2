"""Train the pose prior on motion files.

    python -m priors.training.pose --motions DIR --out priors/weights/pose.safetensors

DIR holds motion files (npz: body_pose (T,21,3), fps, tracked (21,), source). Frames are thinned to
distinct poses, groups of motions get fixed shares of the weight, left and right are mirrored, and
hand-set poses fill what the recordings lack. One clip in six is held out to score; the prior that
is written was fitted on all.
"""

import argparse
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.pose import DIMENSION, PosePrior, save_pose_prior
from priors.training.mixture import Mixture, Shrinkage, fit_mixture
from priors.training.procedural import JOINTS, mirror_poses, procedural_poses

log = logging.getLogger(__name__)

# Share of each group of motions, by the name of its file; the first match counts. Walking and
# everyday motion are what videos show; dance and idling make up most of the recorded minutes.
GROUPS: tuple[tuple[str, str, float], ...] = (
    ("walk and run", r"cmu_bvh_(007|002_0[123])|humanoid3d_(walk|run)", 0.27),
    ("everyday", r"cmu_bvh_(001|002)", 0.15),
    ("sport", r"cmu_bvh_006|martial|humanoid3d_(kick|punch|spinkick|jump)", 0.12),
    ("floor and acrobatics", r"humanoid3d_(crawl|getup|roll|cartwheel|backflip)", 0.06),
    ("idle", r"reactidle", 0.08),
    ("dance", r"cmu_bvh_005|salsa|indian|humanoid3d_(dance|spin)", 0.17),
)
PROCEDURAL_SHARE, PROCEDURAL_COUNT = 0.15, 3000
SAMPLE_FPS = 15.0
DISTINCT = 0.25  # rad over all 63 coordinates: closer frames of one clip are the same pose
CLIP_CAP = 400
HELD_OUT_EVERY = 6
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
ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217. "
    "Idle motions: ReActIdle (MIT, RSAIT 2025). Short clips: DeepMimic data in bullet3 (zlib)."
)


@dataclass(frozen=True)
class Clip:
    """Distinct poses of one motion file."""

    name: str
    group: str
    rotations: Float[Tensor, "S 21 3 3"]
    tracked: Bool[Tensor, "21"]


def read_clips(directory: Path) -> list[Clip]:
    """Distinct poses of every motion file, sorted by name.

    Raises ValueError for a file whose name is in no group.
    """
    clips = []
    for path in sorted(directory.glob("*.npz")):
        group = next((name for name, pattern, _ in GROUPS if re.search(pattern, path.stem)), None)
        if group is None:
            raise ValueError(
                f"motion '{path.name}' belongs to no group of {[g[0] for g in GROUPS]}"
            )
        with np.load(path, allow_pickle=False) as arrays:
            pose = torch.from_numpy(arrays["body_pose"]).double()
            tracked = torch.from_numpy(arrays["tracked"])
            step = max(round(float(arrays["fps"]) / SAMPLE_FPS), 1)
        pose = pose[::step]
        rotations = _distinct(roma.rotvec_to_rotmat(pose[_credible(pose)]))
        clips.append(Clip(name=path.stem, group=group, rotations=rotations, tracked=tracked))
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


def fill_untracked(clips: list[Clip], generator: torch.Generator) -> list[Clip]:
    """Clips whose unrecorded joints take that joint's rotation in random frames of the others."""
    filled = []
    for clip in clips:
        rotations = clip.rotations.clone()
        for joint in torch.nonzero(~clip.tracked)[:, 0].tolist():
            pool = torch.cat([other.rotations[:, joint] for other in clips if other.tracked[joint]])
            picks = torch.randint(len(pool), (len(rotations),), generator=generator)
            rotations[:, joint] = pool[picks]
        filled.append(Clip(clip.name, clip.group, rotations, clip.tracked))
    return filled


def training_set(
    clips: list[Clip], procedural: Float[Tensor, "S 21 3 3"]
) -> tuple[Float[Tensor, "S 21 3 3"], Float[Tensor, "S"]]:
    """All poses with their mirror images, and weights with the shares of GROUPS; mean weight 1."""
    poses, weights = [procedural], [torch.full((len(procedural),), PROCEDURAL_SHARE)]
    weights[0] /= len(procedural)
    shares = {name: share for name, _, share in GROUPS}
    for clip in clips:
        total = sum(len(other.rotations) for other in clips if other.group == clip.group)
        poses.append(clip.rotations)
        weights.append(torch.full((len(clip.rotations),), shares[clip.group] / total))
    together, weight = torch.cat(poses), torch.cat(weights).double()
    weight = torch.cat([weight, weight])
    return torch.cat([together, mirror_poses(together)]), weight / weight.mean()


def mean_pose(
    rotations: Float[Tensor, "S 21 3 3"], weights: Float[Tensor, "S"]
) -> Float[Tensor, "21 3 3"]:
    """Weighted chordal mean of every joint."""
    return roma.special_procrustes(torch.einsum("s,sjab->jab", weights / weights.sum(), rotations))


def fit(
    clips: list[Clip],
    procedural: Float[Tensor, "S 21 3 3"],
    *,
    count: int,
    iterations: int,
    seed: int,
) -> PosePrior:
    """Pose prior with `count` components."""
    rotations, weights = training_set(clips, procedural)
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


def held_out_nll(
    prior: PosePrior, clips: list[Clip], procedural: Float[Tensor, "S 21 3 3"]
) -> float:
    """Mean -log p of held-out poses, nats, with the training shares of the groups."""
    rotations, weights = training_set(clips, procedural)
    nll = -prior.log_prob(prior.coordinates(rotations))
    return float((nll * weights).sum() / weights.sum())


def main() -> None:
    """Score on held-out clips, fit on all of them, write the weights and the json beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--motions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    clips = fill_untracked(read_clips(arguments.motions), generator)
    poses = procedural_poses(PROCEDURAL_COUNT, generator)
    test_poses = procedural_poses(PROCEDURAL_COUNT // HELD_OUT_EVERY, generator)
    train = [clip for index, clip in enumerate(clips) if index % HELD_OUT_EVERY != 2]
    test = [clip for index, clip in enumerate(clips) if index % HELD_OUT_EVERY == 2]
    scores = {}
    for count in (1, arguments.components):
        prior = fit(train, poses, count=count, iterations=arguments.iterations, seed=arguments.seed)
        scores[count] = held_out_nll(prior, test, test_poses)
        log.info("%d components: held-out NLL %.2f nats per pose", count, scores[count])
    prior = fit(
        clips,
        poses,
        count=arguments.components,
        iterations=arguments.iterations,
        seed=arguments.seed,
    )
    save_pose_prior(arguments.out, prior, _card(arguments, clips, test, scores))


def _card(
    arguments: argparse.Namespace, clips: list[Clip], test: list[Clip], scores: dict[int, float]
) -> dict[str, object]:
    """The json beside the weights: how they were made, from what, and how good they are."""
    return {
        "command": f"python -m priors.training.pose --motions DIR --out {arguments.out.name} "
        f"--components {arguments.components} --iterations {arguments.iterations} "
        f"--seed {arguments.seed}",
        "licence": "MIT for the weights; the recordings are not included and may not be resold",
        "acknowledgement": ACKNOWLEDGEMENT,
        "held_out_nll_nats_per_pose": {
            f"{count} component(s)": round(score, 3) for count, score in scores.items()
        },
        "held_out_clips": [clip.name for clip in test],
        "clips": {clip.name: [clip.group, len(clip.rotations)] for clip in clips},
        "procedural_poses": PROCEDURAL_COUNT,
        "shares": {**{name: share for name, _, share in GROUPS}, "procedural": PROCEDURAL_SHARE},
    }


if __name__ == "__main__":
    main()
