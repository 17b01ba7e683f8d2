"""Further cameras of a sequence, each as the observations of a camera of its own."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from slamhmr.types import Observations, Views

WORSE = 1.4  # times the median error of the other views, above which a view is named


def view_observations(views: Views, main: Observations) -> list[Observations]:
    """What every further view saw; people, frames and times are those of `main`."""
    return [
        replace(
            main,
            keypoints=views.keypoints[number],
            confidence=views.confidence[number],
            keypoint_names=views.keypoint_names,
            boxes=views.boxes[number],
            image_size=(int(views.image_sizes[number, 0]), int(views.image_sizes[number, 1])),
        )
        for number in range(len(views.names))
    ]


def notes_on_views(score: Mapping[str, Any], views: Views | None, *, moving: bool) -> list[str]:
    """Sentences for the report: the error of every view, and which fits badly.

    `score`: of the result, by `reprojection.score`. `moving`: the main camera travels.
    """
    if views is None:
        return []
    errors = {name: float(found["median_percent"]) for name, found in score["views"].items()}
    told = ", ".join(
        f"{name} {float(found['median_px']):.1f} px ({errors[name]:.2f} % of the box)"
        for name, found in score["views"].items()
    )
    notes = [f"{len(errors)} views, median error of well-seen keypoints: {told}"]
    for name, own in errors.items():
        others = median(value for other, value in errors.items() if other != name)
        if own > WORSE * others:
            notes.append(
                f"view '{name}' fits {own / others:.1f} times worse than the others: its "
                "calibration or synchronisation may be off"
            )
    if moving:
        notes.append(
            "the camera paths of several views are taken as calibrated: their drift, jitter and "
            "focal length are not solved for"
        )
    return notes
