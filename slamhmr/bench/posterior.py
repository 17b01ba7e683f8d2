"""`slamhmr bench posterior`: do the stated uncertainties hold the truth as often as they say?

Scenes with exact truth and all nuisances (`bench/nuisances.py`) are solved by the default
schedule; of each kind of quantity the share of true values inside the regions of 50 % and 90 % is
printed, and the factor on the covariances that would make either right.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.bench.nuisances import SETS, Solved, nuisance_spec, solve_scene
from slamhmr.bench.table import Row, format_rows, write_csv
from slamhmr.bench.words import settings
from slamhmr.body import BodyModel, load_body
from slamhmr.config import Config, load_config
from slamhmr.errors import ConfigError
from slamhmr.eval.calibration import LEVELS, coverage, temperature
from slamhmr.export.result import build_result
from slamhmr.geometry import rotation_between
from slamhmr.posterior import Calibration, posterior
from slamhmr.scene import plane_axes
from slamhmr.solve.sweep import Resources
from slamhmr.synth.scene import Scene
from slamhmr.threads import bounded_threads
from slamhmr.types import Posterior, SceneState

LOG = logging.getLogger(__name__)
CSV = "posterior.csv"
LIMITS = ((0.40, 0.60), (0.85, 0.95))  # of the share inside the regions of LEVELS
RELATIVE, ABSOLUTE = "joints, root-relative", "joints, absolute"
SCALE, HEIGHT, TILT, GRAVITY = "log scale", "floor, height", "floor, tilt", "gravity"
JUDGED = (RELATIVE, ABSOLUTE, SCALE, HEIGHT, TILT)  # kinds that must be within the limits


@dataclass(frozen=True)
class Errors:
    """Estimate minus truth of one kind of quantity, and the covariances stated for it."""

    error: Float[Tensor, "n D"]
    covariance: Float[Tensor, "n D D"]


@dataclass(frozen=True)
class PosteriorSpec:
    """Which scenes: `scenes=144 set=check first=0`.

    Errors of a scene go together, so shares move by 3 to 7 points from one 48 scenes to another.
    """

    scenes: int = 144
    first: int = 0  # number of the first scene in its set
    set: str = "check"  # or "fit", "fit2", "fit3": weights and temperatures were fitted on these
    threads: int = 1

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        if self.set not in SETS:
            raise ConfigError(f"bench posterior: set={self.set} is not one of {', '.join(SETS)}")
        if self.scenes < 1 or self.threads < 1:
            raise ConfigError(
                f"bench posterior: scenes={self.scenes}, threads={self.threads} must be 1 or more"
            )


def run(words: Sequence[str], out: Path) -> str:
    """Solve the scenes, judge their posteriors; write the table into `out` and return it as text.

    Raises ConfigError for unknown words.
    """
    spec = settings(PosteriorSpec, words, "bench posterior")
    spec.check()
    config, body = load_config((), [f"threads={spec.threads}"]), load_body()
    found: list[dict[str, Errors]] = []
    with bounded_threads(1):
        for index in range(spec.first, spec.first + spec.scenes):
            scene, flipped = nuisance_spec(spec.set, index)
            LOG.info("scene %d: %s, camera %s", scene.seed, scene.motion, scene.camera)
            solved = solve_scene(scene, flipped, config, body)
            found.append(errors(solved, stated(solved, config, calibration_of(config)), body))
    rows = coverage_rows(found)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / CSV, rows)
    return "\n\n".join([format_rows(rows), *outside(rows), f"table: {out / CSV}"])


def calibration_of(config: Config) -> Calibration:
    """The numbers of the configuration."""
    return Calibration(**{f.name: getattr(config.posterior, f.name) for f in fields(Calibration)})


def stated(solved: Solved, config: Config, calibration: Calibration) -> Posterior:
    """The posterior of the last scheduled stage at a solved state."""
    name = config.schedule[-1]
    return posterior(
        solved.state, solved.known, name, config.stages[name], calibration,
        resources=Resources(threads=config.threads),
    )  # fmt: skip


def errors(solved: Solved, found: Posterior, body: BodyModel) -> dict[str, Errors]:
    """Errors of a solved scene of every kind that has a posterior."""
    truth, state = solved.truth, solved.state
    result = build_result(
        state, body, solved.known.observations, body_model="default", provenance={}
    )
    off = result.joints - true_joints(truth, state)
    inside = torch.isfinite(found.joints_cov).flatten(start_dim=2).all(dim=-1)  # (N, T)
    relative = (off - off[:, :, :1])[inside][:, 1:]
    judged = {
        RELATIVE: Errors(relative.flatten(end_dim=1),
                         found.joints_cov_root[inside][:, 1:].flatten(end_dim=1)),
        ABSOLUTE: Errors(off[inside].flatten(end_dim=1),
                         found.joints_cov[inside].flatten(end_dim=1)),
    }  # fmt: skip
    if found.log_scale_var is not None:
        wrong = state.log_scale - math.log(truth.scale)
        judged[SCALE] = Errors(wrong.reshape(1, 1), found.log_scale_var[None])
    up = true_up(truth, state)
    if found.ground_cov is not None:
        tilts = plane_axes(state.ground[:3]) @ (state.ground[:3] - up)
        height = state.ground[3] - truth.world_from_cam[0, 2, 3]
        judged[HEIGHT] = Errors(height.reshape(1, 1), found.ground_cov[None, 2:, 2:])
        judged[TILT] = Errors(tilts[None], found.ground_cov[None, :2, :2])
    if found.gravity_cov is not None:
        tilts = plane_axes(state.up) @ (state.up - up)
        judged[GRAVITY] = Errors(tilts[None], found.gravity_cov[None])
    return judged


def true_up(truth: Scene, state: SceneState) -> Float[Tensor, "3"]:
    """Against gravity in the solver's world, which the first camera carries."""
    return state.cameras.world_from_cam[0, :3, :3] @ truth.world_from_cam[0, 2, :3]


def true_joints(truth: Scene, state: SceneState) -> Float[Tensor, "N T 24 3"]:
    """True joints in the world that `build_result` would give if all were estimated exactly.

    The solver's world, turned by the smallest rotation that levels it, its origin on the floor
    below the first camera: free of errors of gravity, floor, scale or people.
    """
    up = true_up(truth, state)
    level = rotation_between(up, up.new_tensor([0.0, 0.0, 1.0]))
    first = truth.world_from_cam[0]
    turn = level @ state.cameras.world_from_cam[0, :3, :3] @ first[:3, :3].T
    joints = (truth.points[:, :, :24] - first[:3, 3]) @ turn.T
    return joints + torch.stack([up.new_zeros(()), up.new_zeros(()), first[2, 3]])


def joined(found: Sequence[dict[str, Errors]], kind: str) -> Errors | None:
    """Errors of one kind of all scenes that have it."""
    own = [scene[kind] for scene in found if kind in scene]
    if len(own) == 0:
        return None
    return Errors(torch.cat([e.error for e in own]), torch.cat([e.covariance for e in own]))


def coverage_rows(found: Sequence[dict[str, Errors]]) -> list[Row]:
    """One line per kind: how often the truth is inside, and the factors that would make it right.

    A scene counts as one observation of all its joints: `se` is the standard error of the share
    over scenes.
    """
    rows: list[Row] = []
    for kind in (*JUDGED, GRAVITY):
        everything = joined(found, kind)
        if everything is None:
            continue
        row: dict[str, float | int | str] = {
            "quantity": kind, "scenes": sum(kind in scene for scene in found)
        }  # fmt: skip
        inside = coverage(everything.error, everything.covariance)
        factors = temperature(everything.error, everything.covariance)
        single = torch.stack(
            [coverage(s[kind].error, s[kind].covariance) for s in found if kind in s]
        )
        spread = single.std(dim=0) / math.sqrt(len(single)) if len(single) > 1 else inside * 0
        for level, share, se, factor in zip(LEVELS, inside, spread, factors, strict=True):
            percent = f"{100 * level:.0f}%"
            row |= {f"in_{percent}": float(share), f"se_{percent}": float(se),
                    f"factor_{percent}": float(factor)}  # fmt: skip
        row["error_rms"] = float((everything.error**2).sum(dim=-1).mean().sqrt())
        spread_of = everything.covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        row["stated_rms"] = float(spread_of.mean().sqrt())
        rows.append(row)
    return rows


def outside(rows: Sequence[Row]) -> list[str]:
    """A sentence for every kind whose regions do not hold what they should."""
    wrong = []
    for row in rows:
        if row["quantity"] not in JUDGED:
            continue
        for level, (low, high) in zip(LEVELS, LIMITS, strict=True):
            share = float(row[f"in_{100 * level:.0f}%"])
            if not low <= share <= high:
                wrong.append(
                    f"{row['quantity']}: the {100 * level:.0f} % region holds {100 * share:.1f} %, "
                    f"not {100 * low:.0f} to {100 * high:.0f} %"
                )
    return wrong
