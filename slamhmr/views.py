"""Further cameras of a sequence, each as the observations of a camera of its own."""

from dataclasses import replace

from slamhmr.types import Observations, Views


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
