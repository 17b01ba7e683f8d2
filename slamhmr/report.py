"""What a run did and whether it can be trusted: `report.json` and the facts of `report.html`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from priors.transition import TRAINED_STEPS, holes
from slamhmr import __version__
from slamhmr.artifacts import content_hash, report_to_json, settings_hash
from slamhmr.config import Config, GatesConfig
from slamhmr.observability import uncertainty, unobservable
from slamhmr.reprojection import EXACT_PERCENT
from slamhmr.sequence import Sequence
from slamhmr.types import FREE_SCALE_SIGMA, Observations, Result, SceneState, StageReport

Facts = dict[str, Any]
# The start follows the cameras' jitter frame by frame (0.1 deg is 0.8 % of a small person), which
# stages with fixed cameras cannot: a little more pixel error is no news there.
FAR_WORSE_PERCENT = 40.0
RATE_MARGIN = 1.02  # 23.976 and 59.94 frames per second are as good as 24 and 60


@dataclass(frozen=True)
class Gate:
    """One limit, and a sentence on whether it holds."""

    name: str
    value: float
    limit: float
    passed: bool
    sentence: str


def assemble_report(
    *,
    config: Config,
    sequence: Sequence,
    observations: Observations,
    aligned: SceneState,
    result: Result,
    scores: dict[str, Facts],
    stages: list[StageReport],
    posterior: Facts,
    seconds: dict[str, float],
) -> Facts:
    """All facts of a run for report.json; `scores` begin with 'start', then come the stages.

    `posterior`: what the posterior's step noted; empty where it is switched off.
    """
    coverage, cameras = coverage_of(result), aligned.cameras
    gates = judge(scores, coverage, config.gates)
    frames = observations.keypoints.shape[1]
    height_known = len(sequence.settings.height_m) + len(sequence.constraints.height_m) > 0
    hidden = unobservable(cameras, posterior.get("prior_share", {}), height_known=height_known)
    return {
        "schema_version": 1,
        "sequence": sequence.folder.resolve().name,
        "frames": frames,
        "fps": observations.fps,
        "image_size": list(observations.image_size),
        "people": coverage,
        "cuts": {"frames": list(sequence.cuts), "found": sequence.found_cuts is not None},
        "camera": {
            "source": cameras.source,
            "moving": cameras.moving,
            "scale_known": cameras.scale_known,
            "focal_px": [float(f) for f in result.intrinsics[0, :2]],
            "metres_per_slam_unit": result.scale if cameras.moving else None,
        },
        "scores": scores,
        "stages": stage_facts(stages, scores),
        "uncertainty": uncertainty(result, posterior),
        "unobservable": hidden,
        "seconds": {**seconds, "total": sum(seconds.values())},
        "notes": [
            *hidden,
            *notes_on_stages(stages),
            *notes_on_frame_times(observations, stages),
            *notes_on_scene(aligned),
            *notes_on_cuts(sequence, observations, config),
            *notes_on_scores(scores),
        ],
        "gates": [vars(gate) for gate in gates],
        "passed": all(gate.passed for gate in gates),
        "provenance": result.provenance,
    }


def stage_facts(stages: list[StageReport], scores: dict[str, Facts]) -> list[Facts]:
    """What each stage did, with the pixel error (median, px) before and after it."""
    names, facts = list(scores), []
    for before, stage in zip(names, stages, strict=False):
        pixels = {
            "pixels_before": scores[before]["median_px"],
            "pixels_after": scores[stage.name]["median_px"],
        }
        facts.append({**report_to_json(stage), **pixels})
    return facts


def coverage_of(result: Result) -> dict[str, Facts]:
    """Per person: frames in the clip, share of them in which it is seen, longest gap in frames."""
    facts: dict[str, Facts] = {}
    for row, person in enumerate(result.person_id.tolist()):
        valid, observed = result.valid[row], result.observed[row]
        count = int(valid.sum())
        facts[str(person)] = {
            "frames": count,
            "seen_share": float(observed.sum()) / max(count, 1),
            "longest_gap": _longest_run((valid & ~observed).tolist()),
        }
    return facts


def judge(scores: dict[str, Facts], coverage: dict[str, Facts], limits: GatesConfig) -> list[Gate]:
    """The gates: final pixel error, also against the start, and everybody seen often enough."""
    names = list(scores)
    start, final = scores[names[0]], scores[names[-1]]
    percent = _number(final["median_percent"])
    gates = [
        _gate(
            "reprojection_percent",
            percent,
            limits.reprojection_percent,
            f"median reprojection error is {percent:.2f} % of the box height",
        )
    ]
    worse = _worse_percent(start, final)
    word = "worse" if worse > 0 else "better"
    sentence = f"the result reprojects {abs(worse):.1f} % {word} than the start (mean, % of box)"
    gates.append(_gate("worse_than_start", worse, limits.worse_than_start_percent, sentence))
    for person, facts in coverage.items():
        unseen = 1 - facts["seen_share"]
        sentence = f"person {person} is seen in {100 * facts['seen_share']:.0f} % of its frames"
        gates.append(_gate(f"unseen_share:{person}", unseen, 1 - limits.coverage, sentence))
    return gates


def notes_on_scene(aligned: SceneState) -> list[str]:
    """What was guessed, degraded or cannot be observed, one sentence each."""
    cameras, sigma = aligned.cameras, float(aligned.scale_prior[1])
    notes = list(cameras.notes)
    travels = cameras.moving and not cameras.scale_known
    if travels and cameras.points is not None and sigma < FREE_SCALE_SIGMA:
        notes.append(
            "the scale comes from the size of the people against the floor's points, "
            f"{100 * sigma:.0f} % uncertain before the solve, and from standing feet"
        )
    elif travels:
        notes.append("the scale comes from standing feet alone: no floor was seen under people")
    return notes


def notes_on_cuts(sequence: Sequence, observations: Observations, config: Config) -> list[str]:
    """Where the cuts are, who was seen in several shots, and what still crosses them."""
    cuts = sequence.cuts
    if len(cuts) == 0:
        return []
    where = "cuts found" if sequence.settings.cuts is None else "cuts, by sequence.yaml,"
    frames = "frame" if len(cuts) == 1 else "frames"
    shots = torch.tensor_split(observations.seen, cuts, dim=1)
    count = sum(shot.any(dim=1).long() for shot in shots)
    several = [str(person) for person in observations.person_id[count > 1].tolist()]
    if config.detect == "file" or (config.detect == "auto" and sequence.observations is not None):
        identity = "who is who across them is taken from the file of observations"
    elif len(several) > 0:
        identity = (
            f"known again by the clothes: person {', '.join(several)}; everybody else is a new "
            "person in each shot"
        )
    else:
        identity = "nobody was known again by the clothes: everybody is a new person in each shot"
    return [
        f"{where} at {frames} {', '.join(map(str, cuts))}: nothing is tracked, smoothed or solved "
        f"across them; {identity}",
        "camera, gravity, scale and floor are still those of the clip as a whole, as if one camera "
        "had taken all shots: where it stands elsewhere after a cut, they are wrong",
    ]


def notes_on_stages(stages: list[StageReport]) -> list[str]:
    """Stages whose keypoints had to weigh more, to follow them like the start; terms left out."""
    missing = list(dict.fromkeys(term for stage in stages for term in stage.idle))
    left_out = [
        f"term '{term}' was left out: the start does not predict what it needs (init=lift does)"
        for term in missing
    ]
    return left_out + [
        f"stage '{stage.name}' was solved with {stage.keypoint_sigma:.2f} times the keypoints' "
        "sigma, to reproject no worse than the start"
        for stage in stages
        if stage.keypoint_sigma < 1
    ]


def notes_on_frame_times(observations: Observations, stages: list[StageReport]) -> list[str]:
    """Frame rates that the transition prior has not seen, and holes that it does not bridge."""
    used = {term for stage in stages for term in stage.energy_after} & {"transition", "gait"}
    steps = observations.timestamps.diff()
    if len(used) == 0 or len(steps) == 0:
        return []
    notes, (shortest, longest), usual = [], TRAINED_STEPS, float(steps.median())
    if not shortest / RATE_MARGIN <= usual <= longest * RATE_MARGIN:
        notes.append(
            f"the clip has {1 / usual:.4g} frames per second, the transition prior was trained on "
            f"{1 / longest:.0f} to {1 / shortest:.0f}: {_quoted(used)} extrapolate"
        )
    missing = steps[holes(steps)]
    if len(missing) > 0:
        notes.append(
            f"{len(missing)} hole(s) in the frame times, the longest {float(missing.max()):.2f} s: "
            f"{_quoted(used)} do not reach across"
        )
    return notes


def _quoted(names: set[str]) -> str:
    return " and ".join(f"'{name}'" for name in sorted(names, reverse=True))


def notes_on_scores(scores: dict[str, Facts]) -> list[str]:
    """Stages that reproject far worse than the start, and whether there was anything to compare."""
    notes, names = [], list(scores)
    for name in names[1:]:
        worse = _worse_percent(scores[names[0]], scores[name])
        if worse > FAR_WORSE_PERCENT:
            notes.append(f"stage '{name}' reprojects {worse:.1f} % worse than the start")
    if scores[names[0]]["keypoints"] == 0:
        notes.append("no keypoint is well seen: pixel errors mean nothing")
    return notes


def provenance(config: Config, sequence: Sequence) -> Facts:
    """Version, commit, hash of the configuration and of every input file."""
    inputs = [sequence.observations, sequence.cameras, sequence.initial, *sequence.texts]
    if sequence.video is not None:
        inputs.append(sequence.video.path)
    return {
        "version": __version__,
        "commit": _commit(),
        "config": settings_hash(config),
        "inputs": {path.name: content_hash([path]) for path in inputs if path is not None},
    }


def _gate(name: str, value: float, limit: float, sentence: str) -> Gate:
    passed = value <= limit
    return Gate(name, value, limit, passed, sentence + ("" if passed else f"; limit {limit:g}"))


def _worse_percent(start: Facts, later: Facts) -> float:
    """Growth of the pixel error since the start, %; both taken as at least `EXACT_PERCENT`."""
    before, after = (max(_number(facts["mean_percent"]), EXACT_PERCENT) for facts in (start, later))
    return 100 * (after - before) / before


def _number(value: object) -> float:
    return float("nan") if value is None else float(str(value))


def _longest_run(flags: list[bool]) -> int:
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest


def _commit() -> str | None:
    """Commit of the checkout this runs from; None for an installed package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None
