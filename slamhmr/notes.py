"""Sentences for the report: what was guessed, degraded, left out or done to the clip."""

from typing import Any

import torch

from priors.transition import TRAINED_STEPS, holes
from slamhmr.config import Config
from slamhmr.gates import worse_percent
from slamhmr.sequence import Sequence
from slamhmr.types import (
    DEGRADED,
    FREE_SCALE_SIGMA,
    GUESSED,
    LOST,
    CameraTrack,
    Observations,
    SceneState,
    StageReport,
)

Facts = dict[str, Any]
# The start follows the cameras' jitter frame by frame (0.1 deg is 0.8 % of a small person), which
# stages with fixed cameras cannot: a little more pixel error is no news there.
FAR_WORSE_PERCENT = 40.0
RATE_MARGIN = 1.02  # 23.976 and 59.94 frames per second are as good as 24 and 60


def degraded_steps(
    cameras: CameraTrack, stages: list[StageReport], *, posterior: bool
) -> list[str]:
    """Steps that went on with less than they should have, one sentence each."""
    told = [note for note in cameras.notes if note.startswith((GUESSED, DEGRADED, LOST))]
    if not posterior:
        told.append("no posterior was computed: how sure the scale and all else is, is not known")
    return [*told, *_left_out(stages)]


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


def notes_on_cuts(
    sequence: Sequence, observations: Observations, cameras: CameraTrack, config: Config
) -> list[str]:
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
    told = [
        f"{where} at {frames} {', '.join(map(str, cuts))}: nothing is tracked, smoothed or solved "
        f"across them; {identity}"
    ]
    if not set(cuts) <= set(cameras.starts):
        told.append(
            "camera, gravity, scale and floor are those of the clip as a whole, as if one camera "
            "had taken all shots: where it stands elsewhere after a cut, they are wrong"
        )
    return told


def notes_on_stages(stages: list[StageReport]) -> list[str]:
    """Stages whose keypoints had to weigh more, to follow them like the start; terms left out."""
    return _left_out(stages) + [
        f"stage '{stage.name}' was solved with {stage.keypoint_sigma:.2f} times the keypoints' "
        "sigma, to reproject no worse than the start"
        for stage in stages
        if stage.keypoint_sigma < 1
    ]


def _left_out(stages: list[StageReport]) -> list[str]:
    missing = dict.fromkeys(term for stage in stages for term in stage.idle)
    return [
        f"term '{term}' was left out: the start does not predict what it needs (init=lift does)"
        for term in missing
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
        worse = worse_percent(scores[names[0]], scores[name])
        if worse > FAR_WORSE_PERCENT:
            notes.append(f"stage '{name}' reprojects {worse:.1f} % worse than the start")
    if scores[names[0]]["keypoints"] == 0:
        notes.append("no keypoint is well seen: pixel errors mean nothing")
    return notes
