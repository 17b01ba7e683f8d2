"""Who takes part in a solve: people of whom too little is seen, or whom nothing can place, do not.

One hopeless track must not stop the whole run: it is left out, and that is said.
"""

from dataclasses import fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.errors import BackendError
from slamhmr.init.align import camera_points
from slamhmr.skeleton import KEYPOINT_JOINT
from slamhmr.types import Initial, Observations

LEAST_POINTS, LEAST_CONFIDENCE = 6, 0.1  # of a usable frame; as the starts want it by default
LEAST_SECONDS, LEAST_FRAMES = 0.2, 3  # of usable frames of a person, in a clip that is long enough
NEAREST = 0.05  # m in front of the camera: nothing nearer is seen
PLACED_SHARE = 0.5  # of the frames in which somebody is seen: least that the start can place


def usable_frames(observations: Observations) -> Bool[Tensor, "N T"]:
    """Frames with enough surely seen keypoints to say something about a pose."""
    sure = observations.confidence >= LEAST_CONFIDENCE
    return sure.sum(dim=-1) >= LEAST_POINTS


def leave_out_unseen(observations: Observations) -> tuple[Observations, tuple[str, ...]]:
    """The people who are seen for long enough to be solved for, and who is left out, and why.

    Raises BackendError if nobody is left.
    """
    count = usable_frames(observations).sum(dim=1)
    frames = observations.keypoints.shape[1]
    wanted = max(LEAST_FRAMES, round(LEAST_SECONDS * observations.fps))
    least = min(wanted, (frames + 1) // 2)
    keep = count >= least
    notes = tuple(
        f"person {person} is left out: {LEAST_POINTS} or more keypoints of confidence >= "
        f"{LEAST_CONFIDENCE} are seen in {seen} of {frames} frames, {least} are needed"
        for person, seen, kept in zip(
            observations.person_id.tolist(), count.tolist(), keep.tolist(), strict=True
        )
        if not kept
    )
    _require_somebody(keep, notes)
    return chosen_observations(observations, keep), notes


def leave_out_unplaced(
    initial: Initial, observations: Observations, body: BodyModel
) -> tuple[Initial, Observations, tuple[str, ...]]:
    """The people whom the start puts in front of the camera, and who and what is left out, and why.

    Frames in which it puts a seen keypoint behind the camera are taken as not seen; who has mostly
    such frames, or a start that is not finite, is left out. Raises BackendError if nobody is left.
    """
    seen = observations.seen & initial.valid
    wrong = ~_placed(initial, observations, body) & seen
    share = wrong.sum(dim=1) / seen.sum(dim=1).clamp_min(1)
    keep = initial.valid.any(dim=1) & seen.any(dim=1) & (share <= 1 - PLACED_SHARE)
    notes = []
    for row, person in enumerate(initial.person_id.tolist()):
        count = int(wrong[row].sum())
        if not bool(seen[row].any()):
            notes.append(f"person {person} is left out: the start is valid in no frame of theirs")
        elif not bool(keep[row]):
            notes.append(
                f"person {person} is left out: the start puts seen keypoints behind the camera in "
                f"{count} of {int(seen[row].sum())} frames"
            )
        elif count > 0:
            notes.append(
                f"person {person}: what is seen in {count} frames, the first of them "
                f"{int(wrong[row].nonzero()[0])}, is not used: the start puts it behind the camera"
            )
    _require_somebody(keep, tuple(notes))
    hidden = torch.where(wrong[..., None], 0.0, observations.confidence)
    kept = chosen_observations(replace(observations, confidence=hidden), keep)
    return _chosen_initial(initial, keep), kept, tuple(notes)


def chosen_observations(observations: Observations, keep: Bool[Tensor, "N"]) -> Observations:
    """The rows of the people who stay."""
    if bool(keep.all()):
        return observations
    return replace(
        observations,
        person_id=observations.person_id[keep],
        keypoints=observations.keypoints[keep],
        confidence=observations.confidence[keep],
        boxes=observations.boxes[keep],
    )


def _chosen_initial(initial: Initial, keep: Bool[Tensor, "N"]) -> Initial:
    values = {f.name: getattr(initial, f.name) for f in fields(Initial)}
    chosen = {name: value[keep] for name, value in values.items() if value is not None}
    return replace(initial, **chosen)


def _placed(initial: Initial, observations: Observations, body: BodyModel) -> Bool[Tensor, "N T"]:
    """Frames in which all seen keypoints of the start are finite and in front of the camera."""
    points, names = camera_points(initial, body)
    index = [names.index(KEYPOINT_JOINT.get(name, name)) for name in observations.keypoint_names]
    depth: Float[Tensor, "N T K"] = points[:, :, index, 2]
    fine = torch.isfinite(depth) & (depth > NEAREST)
    return (fine | (observations.confidence == 0)).all(dim=-1)


def _require_somebody(keep: Bool[Tensor, "N"], notes: tuple[str, ...]) -> None:
    if not bool(keep.any()):
        raise BackendError(f"nobody is left who can be solved for: {'; '.join(notes)}")
