"""How good a lifter is on motions that it has not seen, by kind of motion."""

from collections.abc import Iterator
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.lifter import CONFIDENCE, Lifted, Lifter
from priors.lifting import lift
from priors.training.clips import PROCEDURAL, Library, group_name
from priors.training.lifter import Batch, make_batch
from priors.training.rig import Rig

LEAST_SEEN = 6  # keypoints of a frame that is scored
CONTACT = 0.5
FIRST_SEED = -1  # of the scored windows, going down; training has none below 0


@dataclass(frozen=True)
class Scored:
    """Errors of every scored frame, flat."""

    group: Float[Tensor, "S"]
    mpjpe_mm: Float[Tensor, "S"]
    pa_mpjpe_mm: Float[Tensor, "S"]
    root_deg: Float[Tensor, "S"]
    up_deg: Float[Tensor, "S"]
    velocity: Float[Tensor, "S"]  # m/s
    depth: Float[Tensor, "S"]  # of the log
    contacts: Float[Tensor, "S 4"]  # probability
    contact_truth: Float[Tensor, "S 4"]
    whitened: dict[str, Float[Tensor, "S"]]  # squared error over variance, per axis


def score(
    network: Lifter,
    library: Library,
    rig: Rig,
    *,
    windows: int = 200,
    frames: int = 81,
    kind: int | None = 0,
) -> dict[str, dict[str, float]]:
    """Scores over all frames ("mean"), over those of "recordings" (not procedural), by group.

    Rows without a frame are left out. Windows come from `library` by its shares, unvaried; `kind`
    of detector errors as in `detect`.
    """
    parts = list(_scored(network, library, rig, windows, frames, kind))
    names = [name for name in vars(parts[0]) if name != "whitened"]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    white = {key: torch.cat([part.whitened[key] for part in parts]) for key in parts[0].whitened}
    whole = Scored(**joined, whitened=white)
    found = {"mean": _summary(whole, torch.ones_like(whole.group).bool())}
    groups = torch.unique(whole.group).long().tolist()
    recorded = [index for index in groups if group_name(index) != PROCEDURAL]
    if len(recorded) > 0:
        found["recordings"] = _summary(whole, torch.isin(whole.group, torch.tensor(recorded)))
    for index in groups:
        found[group_name(index)] = _summary(whole, whole.group == index)
    return found


def format_scores(scores: dict[str, dict[str, float]]) -> str:
    """A table of scores, one line per group."""
    widths = {name: max(len(name), 9) for name in scores["mean"]}
    lines = ["group".ljust(22) + " ".join(name.rjust(width) for name, width in widths.items())]
    for group, values in scores.items():
        cells = (f"{values[name]:{width}.3f}" for name, width in widths.items())
        lines.append(group.ljust(22) + " ".join(cells))
    return "\n".join(lines)


def _scored(
    network: Lifter, library: Library, rig: Rig, windows: int, frames: int, kind: int | None
) -> Iterator[Scored]:
    for first in range(0, windows, 20):
        generator = torch.Generator().manual_seed(FIRST_SEED - first)
        batch = make_batch(library, rig, 20, frames, generator, vary=False, kind=kind)
        lifted = lift(network, batch.view)
        confidence = batch.view.features[..., CONFIDENCE]
        seen = ((confidence > 0).sum(dim=-1) >= LEAST_SEEN) & batch.footage.windows.present
        yield _errors(batch, lifted, rig, seen)


def _errors(batch: Batch, lifted: Lifted, rig: Rig, seen: Bool[Tensor, "N T"]) -> Scored:
    footage = batch.footage
    points, _ = rig.forward(rig.rest(lifted.betas), lifted.rotations)
    found, truth = points[:, :, :22], footage.points_cam[:, :, :22]
    found, truth = found - found[:, :, :1], truth - truth[:, :, :1]
    turns = roma.rotmat_geodesic_distance(lifted.rotations, footage.rotations_cam)
    up = footage.true_world_from_cam[..., 2, :]
    tilt = torch.acos((lifted.up_cam * up).sum(dim=-1).clamp(-1, 1))
    speed = lifted.root_velocity - footage.root_velocity
    size = rig.size(footage.betas)[:, None]
    depth = (lifted.pelvis_cam[..., 2] * size / footage.pelvis_cam[..., 2]).clamp_min(1e-3).log()
    tracked = footage.windows.tracked[:, None].expand_as(turns)[..., 1:]
    joints = (turns[..., 1:] / lifted.rotation_sigma[..., 1:]).square() / 3
    white = {
        "root": (turns[..., 0] / lifted.rotation_sigma[..., 0]).square() / 3,
        "joints": (joints * tracked).sum(dim=-1) / tracked.sum(dim=-1),
        "up": (tilt / lifted.up_sigma).square() / 2,
        "velocity": (speed / lifted.root_velocity_sigma).square().mean(dim=-1),
        "depth": (depth / lifted.log_depth_sigma).square(),
    }
    return Scored(
        group=footage.windows.group[:, None].expand_as(seen)[seen].float(),
        mpjpe_mm=1000 * (found - truth).norm(dim=-1).mean(dim=-1)[seen],
        pa_mpjpe_mm=1000 * _aligned_error(found[seen], truth[seen]),
        root_deg=torch.rad2deg(turns[..., 0])[seen],
        up_deg=torch.rad2deg(tilt)[seen],
        velocity=speed.norm(dim=-1)[seen],
        depth=depth.abs()[seen],
        contacts=lifted.contacts[seen],
        contact_truth=footage.windows.contacts[seen],
        whitened={name: value[seen] for name, value in white.items()},
    )


def _aligned_error(
    found: Float[Tensor, "S J 3"], truth: Float[Tensor, "S J 3"]
) -> Float[Tensor, "S"]:
    """Mean distance after the best similarity of every frame, m."""
    rotation, shift, scale = roma.rigid_points_registration(found, truth, compute_scaling=True)
    moved = scale[:, None, None] * (found @ rotation.mT) + shift[:, None]
    return (moved - truth).norm(dim=-1).mean(dim=-1)


def _summary(scored: Scored, rows: Bool[Tensor, "S"]) -> dict[str, float]:
    said = scored.contacts[rows] > CONTACT
    true = scored.contact_truth[rows] > CONTACT
    both = float((said & true).sum())
    summary = {
        name: float(getattr(scored, name)[rows].mean())
        for name in ("pa_mpjpe_mm", "mpjpe_mm", "root_deg", "up_deg", "velocity", "depth")
    }
    summary["contact_f1"] = 2 * both / max(float(said.sum() + true.sum()), 1.0)
    for name, values in scored.whitened.items():
        summary[f"{name}_ratio"] = float(values[rows].mean().sqrt())
    return summary
