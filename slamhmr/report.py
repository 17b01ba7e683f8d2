"""What a run did and whether it can be trusted: `report.json` and the facts of `report.html`."""

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slamhmr import __version__, observability
from slamhmr.artifacts import content_hash, report_to_json, settings_hash
from slamhmr.body import BodyModel
from slamhmr.cadence import notes_on_cadence
from slamhmr.cameras import segment_starts
from slamhmr.config import Config
from slamhmr.device import choose
from slamhmr.gates import Judged, open_gates
from slamhmr.geometry import runs
from slamhmr.judgement import Failure, judge_result
from slamhmr.notes import (
    degraded_steps,
    notes_on_cuts,
    notes_on_frame_times,
    notes_on_scene,
    notes_on_scores,
    notes_on_stages,
)
from slamhmr.sequence import Sequence, known_heights
from slamhmr.supports import support_facts, support_notes
from slamhmr.types import Observations, Result, SceneState, StageReport

Facts = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run has made, from which the report is assembled."""

    config: Config
    sequence: Sequence
    observations: Observations
    aligned: SceneState
    state: SceneState  # of which the result was made
    result: Result
    body: BodyModel
    scores: dict[str, Facts]  # begin with 'start', then come the stages
    stages: list[StageReport]
    posterior: Facts  # what the posterior's step noted; empty where it is switched off
    seconds: dict[str, float]
    people: tuple[str, ...] = ()  # who was left out or repaired before the solve, in sentences
    several_views: bool = False  # calibrated cameras see how far away and how tall people are

    @property
    def cuts(self) -> tuple[int, ...]:
        """First frames of pieces of the clip that no motion connects."""
        return segment_starts(self.state.cameras, self.sequence.cuts)


def assemble_report(run: Run) -> Facts:
    """All facts of a run for report.json."""
    config, sequence, observations = run.config, run.sequence, run.observations
    cameras, share = run.state.cameras, run.posterior.get("prior_share", {})
    result, quality, failures = judge_result(
        run.result, run.state, observations, run.body, config.gates, run.cuts,
        measured=~known_heights(sequence, observations).isnan() | run.several_views,
    )  # fmt: skip
    hidden = hidden_from(run, share)
    degraded = degraded_steps(run.aligned.cameras, run.stages, posterior=_has_posterior(result))
    apart = len(observability.untied_segments(run.state))
    judged = Judged(
        result, run.state.valid, quality, cameras, run.scores, share, len(degraded), apart
    )
    gates = open_gates(judged, config.gates)
    levels = support_facts(run.state.support, run.state.contacts, 1.0 / observations.fps)
    return {
        "schema_version": 1,
        "sequence": sequence.folder.resolve().name,
        "frames": observations.keypoints.shape[1],
        "fps": observations.fps,
        "image_size": list(observations.image_size),
        "people": people_facts(run, result, failures),
        "failures": [{**vars(failure), "sentence": failure.sentence} for failure in failures],
        "cuts": {"frames": list(sequence.cuts), "found": sequence.found_cuts is not None},
        "camera": camera_facts(run),
        "support_levels": levels,
        "scores": run.scores,
        "stages": stage_facts(run.stages, run.scores),
        "uncertainty": observability.uncertainty(result, run.posterior),
        "unobservable": hidden,
        "gauge": observability.GAUGE,
        "degraded": degraded,
        "seconds": {**run.seconds, "total": sum(run.seconds.values())},
        "notes": list(
            dict.fromkeys(
                [
                    *hidden,
                    *degraded,
                    *run.people,
                    *(failure.sentence for failure in failures),
                    *notes_on_stages(run.stages),
                    *notes_on_frame_times(observations, run.stages),
                    *notes_on_cadence(result),
                    *notes_on_scene(run.aligned),
                    *support_notes(levels),
                    *notes_on_cuts(sequence, observations, run.aligned.cameras, config),
                    *notes_on_scores(run.scores),
                ]
            )
        ),
        "gates": [{**vars(gate), "value": _finite(gate.value)} for gate in gates],
        "passed": all(gate.passed for gate in gates),
        "provenance": result.provenance,
    }


def hidden_from(run: Run, prior_share: dict[str, float]) -> list[str]:
    """What the clip cannot tell, one sentence each."""
    known = known_heights(run.sequence, run.observations)
    heights, sigma = observability.statures(run.result, run.body)
    feet = observability.feet_seen(run.observations) | run.several_views
    return [
        *observability.unobservable(
            run.aligned.cameras,
            prior_share,
            height_known=run.several_views or not bool(known.isnan().all()),
            size=float((sigma / heights).median()),
            up_sigma=math.nan if run.aligned.up_sigma is None else float(run.aligned.up_sigma),
        ),
        *observability.without_contact(run.result, prior_share, feet),
        *observability.untied_segments(run.state),
        *observability.unseen_parts(run.observations),
        *observability.unknown_statures(run.result, run.body, known),
    ]


def camera_facts(run: Run) -> Facts:
    """Where the camera's path is from, its scale and what of it was found."""
    cameras, result = run.aligned.cameras, run.result
    return {
        "source": cameras.source,
        "moving": cameras.moving,
        "scale_known": cameras.scale_known,
        "focal_px": [float(f) for f in result.intrinsics[0, :2]],
        "metres_per_slam_unit": result.scale if cameras.moving else None,
        "lost_frames": 0 if cameras.lost is None else int(cameras.lost.sum()),
        "segments": list(cameras.starts),
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


def people_facts(run: Run, judged: Result, failures: list[Failure]) -> dict[str, Facts]:
    """Per person: frames in the clip, how many hold, share seen, longest gap, stature, failures."""
    heights, sigma = observability.statures(run.result, run.body)
    facts: dict[str, Facts] = {}
    for row, person in enumerate(judged.person_id.tolist()):
        there = run.state.valid[row]
        seen, count = run.state.observed[row] & there, int(there.sum())
        facts[str(person)] = {
            "frames": count,
            "valid_frames": int(judged.valid[row].sum()),
            "seen_share": float(seen.sum()) / max(count, 1),
            "longest_gap": max((b - a for a, b in runs(there & ~seen)), default=0),
            "stature_m": float(heights[row]),
            "stature_std_m": _finite(float(sigma[row])),
            "failures": [failure.sentence for failure in failures if failure.person == person],
        }
    return facts


def provenance(config: Config, sequence: Sequence) -> Facts:
    """Version, commit, hash of the configuration and of every input file."""
    inputs = {path.name: content_hash([path]) for path in _inputs(sequence)}
    for view in sequence.views:
        name = view.folder.name
        inputs |= {f"{name}/{path.name}": content_hash([path]) for path in _inputs(view)}
    return {
        "version": __version__,
        "commit": _commit(),
        "config": settings_hash(config),
        "device": choose(config.device).sentence,
        "inputs": inputs,
    }


def _inputs(sequence: Sequence) -> list[Path]:
    """Files of one view that a run reads."""
    inputs = [sequence.observations, sequence.cameras, sequence.initial, *sequence.texts]
    if sequence.video is not None:
        inputs.append(sequence.video.path)
    return [path for path in inputs if path is not None]


def _has_posterior(result: Result) -> bool:
    return result.joints_cov is not None


def _finite(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


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
