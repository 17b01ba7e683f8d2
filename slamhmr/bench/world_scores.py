"""Scores of one solved scene of the world benchmark, against its truth."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr import artifacts
from slamhmr.bench.posterior import true_joints
from slamhmr.bench.table import Row
from slamhmr.body import BodyModel
from slamhmr.eval import metrics
from slamhmr.eval.calibration import rank, squared_mahalanobis
from slamhmr.eval.matching import match_people
from slamhmr.eval.mutual import mutual_position_error_m
from slamhmr.eval.protocols import evaluate
from slamhmr.synth.scene import Scene
from slamhmr.types import Result, SceneState

TRAVELS = 0.2  # m rms about its mean: a camera path from which a scale can be read
SURE, SURE_SIGMAS = 0.9, 1.645  # level of the regions; half width of one in one dimension
SCORES = {  # names of `evaluate`'s -> ours
    "w_mpjpe100_mm": "W", "wa_mpjpe100_mm": "WA", "pa_mpjpe_mm": "PA", "rte_percent": "RTE",
    "foot_sliding_mm": "sliding", "jitter_10m_per_s3": "jitter",
    "truth_jitter_10m_per_s3": "jitter_truth",
}  # fmt: skip


def score_scene(
    folder: Path, scene: Scene, body: BodyModel, *, last: str
) -> dict[str, float | int | str]:
    """Every score of a run folder `folder`/slamhmr; `last`: file of the last stage."""
    result_path, truth_path = folder / "slamhmr" / "result.npz", folder / "truth.npz"
    scores = evaluate(result_path, truth_path, body)
    result = artifacts.load(result_path, Result)
    truth = artifacts.from_arrays(artifacts.read_arrays(truth_path), Result, str(truth_path))
    state = artifacts.load(folder / "slamhmr" / f"{last}.npz", SceneState)
    pairs = match_people(result, truth)
    overall = scores["overall"]
    found: dict[str, float | int | str] = {"scale": _scale_percent(result, truth, pairs)}
    found |= {ours: overall[name] for name, ours in SCORES.items() if overall[name] is not None}
    found["gravity_deg"] = scores["gravity_error_deg"]
    mutual = mutual_position_error_m(result, truth, pairs)
    if len(mutual) > 0:
        found["mutual_cm"] = 100.0 * float(mutual.mean())
    found |= _regions(result, state, scene, pairs)
    if math.isfinite(result.scale_std):
        wrong = math.log(result.scale / scene.scale)
        found["in90_scale"] = float(abs(wrong) <= SURE_SIGMAS * result.scale_std / result.scale)
    found |= {"coverage": overall["coverage"], "missed": len(scores["missed"]),
              "extra": len(scores["extra"])}  # fmt: skip
    return found


def travels(scene: Scene) -> bool:
    """True where the camera's path is long enough to show the scale."""
    return _spread(scene.world_from_cam[:, :3, 3]) > TRAVELS


def _scale_percent(result: Result, truth: Result, pairs: list[tuple[int, int]]) -> float:
    """Error of the size of the camera's path, or of people and camera together where it stays.

    A path in pieces (shots, SLAM that began anew) is measured piece by piece, the mean taken by
    frames: where one lies beside another is no matter of scale and shows in W and RTE. Where the
    camera stays it is the relative size, under a similarity, of everybody's pelvis and the
    camera's centre: the error of people's distances from a camera that does not move.
    """
    centres = [side.world_from_cam[:, :3, 3] for side in (result, truth)]
    if _spread(centres[1]) > TRAVELS or len(pairs) == 0:
        starts = [] if result.segments is None else result.segments.tolist()
        return _path_percent(starts, *centres)
    both = [truth.valid[row] & result.valid[column] for row, column in pairs]
    sides = [centres[0]], [centres[1]]
    for inside, (row, column) in zip(both, pairs, strict=True):
        sides[0].append(result.joints[column, inside, 0])
        sides[1].append(truth.joints[row, inside, 0])
    return _percent(metrics.relative_scale(*(torch.cat(side)[:, None] for side in sides)))


def _path_percent(
    starts: Sequence[int], mine: Float[Tensor, "T 3"], theirs: Float[Tensor, "T 3"]
) -> float:
    """Error of the size of a camera's path, %, over its pieces that travel.

    `starts` are the first frames of all pieces after the first.
    """
    found, frames = 0.0, 0
    for first, stop in itertools.pairwise([0, *starts, len(mine)]):
        if _spread(theirs[first:stop]) > TRAVELS:
            ratio = metrics.relative_scale(mine[first:stop, None], theirs[first:stop, None])
            found += (stop - first) * _percent(ratio)
            frames += stop - first
    return found / frames if frames > 0 else float("nan")


def _percent(ratio: float | None) -> float:
    return float("nan") if ratio is None else 100.0 * metrics.scale_error(ratio, 1.0)


def _spread(centres: Float[Tensor, "T 3"]) -> float:
    return float((centres - centres.mean(dim=0)).square().sum(dim=-1).mean().sqrt())


def _regions(
    result: Result, state: SceneState, scene: Scene, pairs: list[tuple[int, int]]
) -> dict[str, float]:
    """Shares of true joints inside the 90 % regions, absolute and relative to the root."""
    if result.joints_cov is None or result.joints_cov_root is None or len(pairs) == 0:
        return {}
    wanted = true_joints(scene, state)
    absolute, relative = [], []
    for row, column in pairs:
        both = scene.valid[row] & result.valid[column]
        off = (result.joints[column] - wanted[row])[both]
        absolute.append(_inside(off, result.joints_cov[column, both]))
        own = (off - off[:, :1])[:, 1:]
        relative.append(_inside(own, result.joints_cov_root[column, both][:, 1:]))
    return {"in90_abs": float(torch.cat(absolute).mean()),
            "in90_rel": float(torch.cat(relative).mean())}  # fmt: skip


def _inside(
    error: Float[Tensor, "S J 3"], covariance: Float[Tensor, "S J 3 3"]
) -> Float[Tensor, "S*J"]:
    ranks = rank(squared_mahalanobis(error, covariance), 3)
    return (ranks <= SURE).to(error).flatten()


def gate_facts(report: dict[str, Any], failed: list[str]) -> Row:
    """What the run says of itself: passed, the names of gates that do not hold, and how many notes.

    `failed`: the sentences of `Outcome.failed`.
    """
    names = [str(gate["name"]) for gate in report["gates"] if not gate["passed"]]
    return {
        "exit": 3 if len(failed) > 0 else 0,
        "failed": " ".join(names),
        "notes": " | ".join(str(note) for note in report["notes"]),
    }
