"""The quality gates: limits below which a finished result is not to be trusted."""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.config import GatesConfig
from slamhmr.quality import Quality, natural_jitter
from slamhmr.reprojection import EXACT_PERCENT
from slamhmr.types import CameraTrack, Result

Facts = dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """One limit, and a sentence on whether it holds; NaN and passed where nothing is to measure."""

    name: str
    value: float
    limit: float
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Judged:
    """What the gates look at."""

    result: Result  # without the frames that failed
    everybody: Bool[Tensor, "N T"]  # valid before any frame failed
    quality: Quality
    cameras: CameraTrack
    scores: dict[str, Facts]  # of `reprojection.score`; the start first
    prior_share: dict[str, float]
    degraded: int = 0  # steps that went on with less
    apart: int = 0  # pieces of the camera's path that nobody ties to what was before


def open_gates(judged: Judged, limits: GatesConfig) -> list[Gate]:
    """Every gate that is not switched off (null), in the order of the configuration."""
    gates = [
        _pixels(judged, limits.reprojection_percent),
        _worse_than_start(judged, limits.worse_than_start_percent),
        _people(judged, limits.people),
        _feet(judged, limits.foot_sliding_mm),
        _floating(judged, limits.floating_cm),
        _penetration(judged, limits.penetration_cm),
        _overlap(judged, limits.overlap_cm),
        _jitter(judged, limits.jitter),
        _acceleration(judged, limits.acceleration_m_per_s2),
        _scale(judged, limits.scale_percent, limits.scale_prior_share),
        _lost(judged, limits.lost_share),
        _apart(judged, limits.pieces_apart),
        _degraded(judged, limits.degraded_steps),
    ]
    return [gate for gate in gates if gate is not None]


def _pixels(judged: Judged, limit: float | None) -> Gate | None:
    """Median over frames in which somebody is seen; nothing seen fails."""
    if limit is None:
        return None
    percent = float(judged.quality.pixel_percent[judged.result.valid].nanmedian())
    sentence = f"median reprojection error is {percent:.2f} % of the box height"
    if math.isnan(percent):
        sentence = "no keypoint of anybody who did not fail is well seen"
    return _gate("reprojection_percent", percent, limit, sentence, unknown_passes=False)


def _worse_than_start(judged: Judged, limit: float | None) -> Gate | None:
    if limit is None:
        return None
    names = list(judged.scores)
    worse = worse_percent(judged.scores[names[0]], judged.scores[names[-1]])
    word = "worse" if worse > 0 else "better"
    sentence = f"the result reprojects {abs(worse):.1f} % {word} than the start (mean, % of box)"
    return _gate("worse_than_start", worse, limit, sentence, unknown_passes=False)


def _people(judged: Judged, limit: float | None) -> Gate | None:
    if limit is None:
        return None
    before = int(judged.everybody.sum())
    share = 1 - int(judged.result.valid.sum()) / max(before, 1)
    sentence = f"{100 * share:.0f} % of everybody's frames failed alone"
    return _gate("people", share, limit, sentence)


def _feet(judged: Judged, limit: float | None) -> Gate | None:
    if limit is None:
        return None
    known = _known(judged.quality.sliding_mm, judged.result.valid)
    middle, mean = _quantile(known, 0.5), float(known.mean())
    sentence = f"feet in contact slide {middle:.1f} mm/frame of 1/30 s (median; mean {mean:.1f})"
    return _gate("foot_sliding_mm", middle, limit, sentence, "no foot is in contact: sliding")


def _floating(judged: Judged, limit: float | None) -> Gate | None:
    if limit is None:
        return None
    high = _quantile(_known(judged.quality.floating_cm, judged.result.valid), 0.9)
    sentence = f"feet in contact float up to {high:.1f} cm (90 % of them)"
    return _gate("floating_cm", high, limit, sentence, "no foot is in contact: floating")


def _penetration(judged: Judged, limit: float | None) -> Gate | None:
    if limit is None:
        return None
    deep = _quantile(_known(judged.quality.depth_cm, judged.result.valid), 0.95)
    sentence = f"bodies are up to {deep:.1f} cm under the ground (95 % of the frames)"
    return _gate("penetration_cm", deep, limit, sentence, "nobody is left: penetration")


def _overlap(judged: Judged, limit: float | None) -> Gate | None:
    """Only where somebody is not alone."""
    known = _known(judged.quality.overlap_cm, judged.result.valid)
    if limit is None or len(known) == 0:
        return None
    deep = _quantile(known, 0.9)
    sentence = f"people are up to {deep:.0f} cm inside each other (90 % of the frames)"
    return _gate("overlap_cm", deep, limit, sentence)


def _jitter(judged: Judged, limit: float | None) -> Gate | None:
    """Mean over joints and frames, as a multiple of what real motion has at this frame rate."""
    if limit is None:
        return None
    natural = natural_jitter(judged.result.fps)
    mean = float(_known(judged.quality.jitter, judged.result.valid).mean())
    sentence = (
        f"jitter is {mean:.1f} x 10 m/s^3, {mean / natural:.2f} times what 95 % of real recordings "
        f"stay below ({natural:.0f})"
    )
    return _gate("jitter", mean / natural, limit, sentence, "too few frames: jitter")


def _acceleration(judged: Judged, limit: float | None) -> Gate | None:
    if limit is None:
        return None
    high = _quantile(_known(judged.quality.acceleration, judged.result.valid), 0.99)
    sentence = f"joints accelerate by up to {high:.0f} m/s^2 (99 % of them)"
    return _gate("acceleration_m_per_s2", high, limit, sentence, "too few frames: acceleration")


def _scale(judged: Judged, limit: float | None, share_limit: float | None) -> Gate | None:
    """Only where a camera travels: elsewhere scale is the size of the people."""
    if limit is None or not judged.cameras.moving or judged.cameras.scale_known:
        return None
    sigma = 100 * judged.result.scale_std / judged.result.scale
    share = max(judged.prior_share.get(name, 0.0) for name in ("scale", "segment_scale"))
    if share_limit is not None and share > share_limit:
        return Gate(
            "scale", sigma, limit, False,
            f"scale is not observable: {100 * share:.0f} % of its prior's variance is left, "
            f"sigma {sigma:.0f} %; limit {100 * share_limit:g} % of the prior's variance",
        )  # fmt: skip
    sentence = f"scale is known to {sigma:.1f} % (one standard deviation)"
    return _gate("scale", sigma, limit, sentence, "no posterior was computed: the scale's sigma")


def _lost(judged: Judged, limit: float | None) -> Gate | None:
    if limit is None or judged.cameras.lost is None:
        return None
    share = float(judged.cameras.lost.double().mean())
    return _gate("lost_share", share, limit, f"the camera is lost in {100 * share:.0f} % of frames")


def _apart(judged: Judged, limit: int | None) -> Gate | None:
    """Only where there are several pieces."""
    if limit is None or len(judged.cameras.starts) == 0:
        return None
    sentence = f"{judged.apart} piece(s) of the clip lie in a world of their own"
    return _gate("pieces_apart", judged.apart, limit, sentence)


def _degraded(judged: Judged, limit: int | None) -> Gate | None:
    if limit is None:
        return None
    sentence = f"{judged.degraded} steps went on with less than they should have"
    return _gate("degraded_steps", judged.degraded, limit, sentence)


def worse_percent(start: Facts, later: Facts) -> float:
    """Growth of the pixel error since the start, %; both taken as at least `EXACT_PERCENT`."""
    before, after = (max(_number(facts["mean_percent"]), EXACT_PERCENT) for facts in (start, later))
    return 100 * (after - before) / before


def _gate(
    name: str,
    value: float,
    limit: float,
    sentence: str,
    unknown: str = "it",
    *,
    unknown_passes: bool = True,
) -> Gate:
    if math.isnan(value) and unknown_passes:
        return Gate(name, value, limit, True, f"{unknown} is not known")
    passed = value <= limit
    return Gate(name, value, limit, passed, sentence + ("" if passed else f"; limit {limit:g}"))


def _number(value: object) -> float:
    return float("nan") if value is None else float(str(value))


def _known(values: Tensor, valid: Bool[Tensor, "N T"]) -> Float[Tensor, "S"]:
    """What was measured in valid frames."""
    chosen = values[valid].flatten()
    return chosen[~chosen.isnan()]


def _quantile(values: Float[Tensor, "S"], level: float) -> float:
    """Quantile of what is known; NaN where that is nothing. Sorted: `quantile` has a size limit."""
    if len(values) == 0:
        return math.nan
    return float(values.sort().values[min(int(level * len(values)), len(values) - 1)])
