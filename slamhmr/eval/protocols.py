"""Scores of a result against a truth, both files in the layout of `result.npz`.

Every person of the truth is matched with one of the result and scored on the frames that are valid
in both; what is missing shows in `coverage`, not in the errors, so an error without its coverage
can be bought by leaving hard frames out. Pieces of the result's world that nobody ties to each
other (`Result.apart`) are aligned and scored each by itself, and the scores say so. Overall numbers
are means over all frames of all people.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr import artifacts
from slamhmr.body import BodyModel, load_body
from slamhmr.errors import InputError
from slamhmr.eval import metrics
from slamhmr.eval.matching import match_people
from slamhmr.eval.person import Side, Values, score_person
from slamhmr.types import Result

CAMERA_EXTENT = 0.05  # m rms: a camera that moves less does not show the scale

# Name, digits, what it is: the order of the table.
COLUMNS: tuple[tuple[str, int, str], ...] = (
    ("pa_mpjpe_mm", 1, "pose, size and heading of every frame forgiven"),
    ("mpjpe_mm", 1, "pose and heading in the camera, hips at one place"),
    ("pve_mm", 1, "surface in the camera, hips at one place"),
    ("accel_m_per_s2", 2, "acceleration error in the camera; a frozen body does well"),
    ("w_mpjpe100_mm", 1, "world, 100 frames aligned on the first two, scale forgiven"),
    ("wa_mpjpe100_mm", 1, "world, 100 frames aligned as a whole, scale forgiven"),
    ("rte_percent", 2, "path, aligned rigidly, of its length"),
    ("roe_deg", 2, "heading and tilt after one rotation"),
    ("erve_mm_per_frame", 2, "velocity in the person's own frame"),
    ("jitter_10m_per_s3", 2, "no truth needed; a frozen body has none"),
    ("truth_jitter_10m_per_s3", 2, "the truth's own"),
    ("foot_sliding_mm", 2, "per frame while the true foot stands; a frozen body has none"),
)


def evaluate(result_path: Path, truth_path: Path, body: BodyModel | None = None) -> dict[str, Any]:
    """Scores of a result, ready for JSON.

    `overall` and each of `people`: the metrics of COLUMNS (None where undefined), `frames`,
    `coverage` = scored frames / valid frames of the truth. On top: `scale_error` and how it was
    measured (`_scale_error`), `gravity_error_deg`, `missed` and `extra` person ids, `apart`: first
    frames of the pieces that were scored by themselves.

    Args:
        result_path: a `result.npz`.
        truth_path: the truth, same layout, same frames.
        body: the body of both files; None loads what each of them names.

    Raises:
        InputError: a file is damaged, inconsistent, or of other frames than the other; nobody of
            the truth is found in the result.
        MissingAsset: a body model that a file names is not there.
    """
    result, truth = _read(result_path), _read(truth_path)
    _check_comparable(result, truth, result_path, truth_path)
    bodies = (body or _body(result.body_model), body or _body(truth.body_model))
    pairs = match_people(result, truth)
    if len(pairs) == 0:
        raise InputError(
            f"'{result_path}': nobody of '{truth_path}' is found in it; "
            "are these the same clip, with the same cameras?"
        )
    values = [
        score_person(Side(result, column, bodies[0]), Side(truth, row, bodies[1]))
        for row, column in pairs
    ]
    everyone = {name: torch.cat([v[name] for v in values]) for name in values[0]}
    found = {row: index for index, (row, _) in enumerate(pairs)}
    people = [
        {
            "truth_id": int(truth.person_id[row]),
            "result_id": int(result.person_id[column]),
            **_summary(values[found[row]], int(truth.valid[row].sum())),
        }
        for row, column in pairs
    ]
    scale, source = _scale_error(result, truth, pairs)
    return {
        "overall": _summary(everyone, int(truth.valid.sum())),
        "people": people,
        "scale_error": scale,
        "scale_measured_on": source,
        "gravity_error_deg": _gravity_error_deg(result, truth),
        "apart": list(result.apart),
        "missed": [
            int(i) for row, i in enumerate(truth.person_id) if row not in {r for r, _ in pairs}
        ],
        "extra": [
            int(i) for col, i in enumerate(result.person_id) if col not in {c for _, c in pairs}
        ],
    }


def format_table(scores: dict[str, Any]) -> str:
    """The scores as text: one column for all people together, then one for each."""
    columns = [scores["overall"], *scores["people"]]
    titles = ["all", *(f"{p['truth_id']} as {p['result_id']}" for p in scores["people"])]
    width = max(10, *(len(title) + 2 for title in titles))
    lines = [" " * 26 + "".join(title.rjust(width) for title in titles)]
    for name, digits, meaning in (
        ("frames", 0, "scored"),
        ("coverage", 3, "scored frames / valid frames of the truth"),
        *COLUMNS,
    ):
        cells = "".join(_cell(column[name], digits).rjust(width) for column in columns)
        lines.append(f"{name:26s}{cells}   {meaning}")
    source = scores["scale_measured_on"]
    lines.append(f"{'scale_error':26s}{_cell(scores['scale_error'], 4).rjust(width)}   {source}")
    gravity = _cell(scores["gravity_error_deg"], 2).rjust(width)
    lines.append(f"{'gravity_error_deg':26s}{gravity}   up in the camera, mean over frames")
    lines += [f"{key}: person {i}" for key in ("missed", "extra") for i in scores[key]]
    if len(scores["apart"]) > 0:
        starts = ", ".join(map(str, scores["apart"]))
        lines.append(
            f"nobody ties the pieces from frame {starts} on to what was before: each piece of the "
            "world was aligned and scored by itself, and how they lie to each other was not"
        )
    return "\n".join(lines)


def _cell(value: float | int | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _read(path: Path) -> Result:
    """A result whose shapes agree and whose valid frames are finite. Raises InputError."""
    arrays = artifacts.read_arrays(path)
    valid = arrays.get("valid")
    if valid is None or valid.dtype != bool or valid.ndim != 2 or valid.size == 0:
        raise InputError(f"'{path}': key 'valid' must be there, bool of shape (N, T)")
    people, frames = valid.shape
    shapes: dict[str, tuple[int, ...]] = {
        "person_id": (people,), "observed": (people, frames), "root_orient": (people, frames, 3),
        "transl": (people, frames, 3), "body_pose": (people, frames, 63),
        "joints": (people, frames, 24, 3), "contacts": (people, frames, 4),
        "world_from_cam": (frames, 4, 4), "intrinsics": (frames, 4), "ground": (4,),
    }  # fmt: skip
    for key, shape in shapes.items():
        array = arrays.get(key)
        if array is None:
            raise InputError(f"'{path}' lacks the key '{key}'")
        if array.shape != shape:
            raise InputError(f"'{path}': key '{key}' has shape {array.shape}, expected {shape}")
        used = array[valid] if len(shape) > 1 and shape[:2] == valid.shape else array
        if not np.isfinite(used).all():
            raise InputError(f"'{path}': key '{key}' is not finite in a valid frame")
    _check_pieces(arrays, frames, path)
    result = artifacts.from_arrays(arrays, Result, str(path))
    if result.betas.ndim != 2 or len(result.betas) != people:
        raise InputError(f"'{path}': key 'betas' has shape {tuple(result.betas.shape)}, not (N, B)")
    return result


def _check_pieces(arrays: artifacts.Arrays, frames: int, path: Path) -> None:
    """Raise InputError if what the file says of pieces of its world makes no sense."""
    starts, tied = arrays.get("segments"), arrays.get("segment_tied")
    if starts is not None:
        ends = [0, *starts.flatten().tolist(), frames]
        if starts.ndim != 1 or any(here >= after for here, after in itertools.pairwise(ends)):
            raise InputError(f"'{path}': key 'segments' must hold frames above 0, in order")
    if tied is not None and (starts is None or tied.shape != starts.shape):
        raise InputError(f"'{path}': key 'segment_tied' must have one entry for each of 'segments'")


def _body(name: str) -> BodyModel:
    """The body that a file names: ours by either of its names, or the path of a licensed file."""
    ours = load_body()
    return ours if name in (ours.name, "default") else load_body(name)


def _check_comparable(result: Result, truth: Result, here: Path, there: Path) -> None:
    counts = result.valid.shape[1], truth.valid.shape[1]
    if counts[0] != counts[1]:
        raise InputError(f"'{here}' has {counts[0]} frames, '{there}' has {counts[1]}: other clips")
    if abs(result.fps / truth.fps - 1) > 0.01:
        raise InputError(f"'{here}' runs at {result.fps:g} fps, '{there}' at {truth.fps:g}")


def _summary(values: Values, truth_frames: int) -> dict[str, float | int | None]:
    frames = len(values["frames"])
    means = {
        name: float(values[name].mean()) if len(values[name]) > 0 else None
        for name, _, _ in COLUMNS
    }
    return {"frames": frames, "coverage": frames / truth_frames, **means}


def _scale_error(
    result: Result, truth: Result, pairs: list[tuple[int, int]]
) -> tuple[float | None, str]:
    """|s / s_true - 1|, mean over pieces of the world by their frames, and what it was measured on.

    Both worlds are metric, so s / s_true is the relative size of two paths under the similarity
    that aligns them: of the camera, if it moves (then it equals the ratio of metres per SLAM unit
    whenever both files scale the same SLAM path); else of the matched people, all together.
    """
    ends = [0, *result.apart, result.valid.shape[1]]
    total, frames, sources = 0.0, 0, []
    for first, stop in itertools.pairwise(ends):
        ratio, source = _relative_size(result, truth, pairs, slice(first, stop))
        if ratio is not None:
            total += (stop - first) * metrics.scale_error(ratio, 1.0)
            frames += stop - first
            sources.append(source)
    if frames == 0:
        return None, "nothing moves"
    return total / frames, " and ".join(sorted(set(sources)))


def _relative_size(
    result: Result, truth: Result, pairs: list[tuple[int, int]], piece: slice
) -> tuple[float | None, str]:
    """Size relative to the truth in one piece of the world, None where nothing moves; of what."""
    cameras = [side.world_from_cam[piece, :3, 3][:, None] for side in (result, truth)]
    if _extent(cameras[1]) > CAMERA_EXTENT and (ratio := metrics.relative_scale(*cameras)):
        return ratio, "camera path"
    both = [truth.valid[row, piece] & result.valid[column, piece] for row, column in pairs]
    mine = [result.joints[c, piece, 0][both[i]] for i, (_, c) in enumerate(pairs)]
    theirs = [truth.joints[r, piece, 0][both[i]] for i, (r, _) in enumerate(pairs)]
    joined = torch.cat(mine)[:, None], torch.cat(theirs)[:, None]
    if len(joined[0]) == 0:
        return None, "nobody"
    return metrics.relative_scale(*joined), "people's paths"


def _extent(points: Float[Tensor, "T 1 3"]) -> float:
    return float((points - points.mean(dim=0)).square().sum(dim=-1).mean().sqrt())


def _gravity_error_deg(result: Result, truth: Result) -> float:
    """Angle between the two worlds' up directions, both seen from the camera, mean over frames."""
    up = [side.world_from_cam[:, 2, :3] for side in (result, truth)]
    sine = torch.linalg.cross(up[0], up[1]).norm(dim=-1)
    return float(torch.rad2deg(torch.atan2(sine, (up[0] * up[1]).sum(dim=-1))).mean())
