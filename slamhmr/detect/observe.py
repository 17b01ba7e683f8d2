"""Tracks of people written as observations: canonical keypoints, confidence, boxes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from slamhmr.detect.detector import sigmoid
from slamhmr.detect.landmarks import LANDMARKS, Candidate
from slamhmr.detect.repair import steadiness, unswap
from slamhmr.detect.similarity import person_size
from slamhmr.detect.track import Track
from slamhmr.skeleton import KEYPOINT_INDEX, canonical_keypoint
from slamhmr.types import Observations, Video

PEAK_OF_CERTAINTY = (
    0.6  # heat map peak of well-seen points: median over the limbs of people in view
)
FACE = slice(0, 7)  # nose and eyes among the landmarks
FACE_HIDDEN = -0.09  # trunk lengths from right to left ear: half way from profile to full back view
FACE_SOFTNESS = 0.025  # trunk lengths; spread of that distance for a head at rest, measured
BOX_MARGIN = 0.06  # of the box's longer side: hair, shoes, width of the limbs
BOX_LEAST = 0.15  # confidence above which a point stretches the box


def observe(tracks: Sequence[Track], video: Video, cuts: Sequence[int] = ()) -> Observations:
    """Observations of the people that BlazePose saw, see `observe_with`."""
    columns = {name: _names()[name] for name in sorted(_names(), key=KEYPOINT_INDEX.__getitem__)}
    return observe_with(tracks, video, cuts, columns, lambda part: evidence(part, video))


def observe_with(
    tracks: Sequence[Track],
    video: Video,
    cuts: Sequence[int],
    columns: dict[str, int],
    evidence: Callable[[Track], tuple[np.ndarray, np.ndarray]],
) -> Observations:
    """Observations of the tracked people, ids 1.. in order of total confidence.

    `evidence` gives points (T,P,2) px and confidence (T,P) of a track in one shot (`cuts`: first
    frames of new ones), `columns` which of them are which keypoint; the boxes enclose all. Between
    two looks the box is interpolated and every confidence is 0; before and after, the box is NaN.
    """
    index = list(columns.values())
    shape = (len(tracks), video.frame_count)
    keypoints, confidence = np.zeros((*shape, len(index), 2)), np.zeros((*shape, len(index)))
    boxes = np.full((*shape, 4), np.nan)
    parts = [(n, part) for n, track in enumerate(tracks) for part in track.parts(cuts)]
    for n, part in parts:
        frames = np.array([look.frame for look in part.looks])
        points, sure = evidence(part)
        keypoints[n, frames], confidence[n, frames] = points[:, index], sure[:, index]
        span = np.arange(part.first, part.last + 1)
        seen = keypoint_boxes(torch.from_numpy(points), torch.from_numpy(sure)).numpy()
        boxes[n, span] = _between(span, frames, seen)
    order = np.argsort(-confidence.sum(axis=(1, 2)), kind="stable")
    return Observations(
        person_id=torch.arange(1, len(tracks) + 1),
        keypoints=torch.from_numpy(keypoints[order]),
        confidence=torch.from_numpy(confidence[order]),
        keypoint_names=tuple(columns),
        boxes=torch.from_numpy(boxes[order]),
        image_size=video.image_size,
        fps=video.fps,
        timestamps=video.timestamps,
    )


def _names() -> dict[str, int]:
    """Canonical keypoint names of the landmarks that have one, with their landmark index."""
    named = {canonical_keypoint(name): k for k, name in enumerate(LANDMARKS)}
    return {name: k for name, k in named.items() if name is not None}


def keypoint_landmarks() -> np.ndarray:
    """Landmark index (K,) of each canonical keypoint the network has, canonical order."""
    named = _names()
    return np.array([named[name] for name in sorted(named, key=KEYPOINT_INDEX.__getitem__)])


def evidence(track: Track, video: Video) -> tuple[np.ndarray, np.ndarray]:
    """Points (T,33,2) of a track with left and right in order, and their confidence (T,33)."""
    points = np.array([look.points for look in track.looks])
    sure = np.array([point_confidence(look, video.image_size) for look in track.looks])
    sizes = np.array([person_size(look.points) for look in track.looks])
    frames = np.array([look.frame for look in track.looks])
    points, sure = unswap(points, sure, sizes, video.timestamps.numpy()[frames])
    return points, sure * steadiness(points, sizes, frames)


def point_confidence(look: Candidate, image_size: tuple[int, int]) -> np.ndarray:
    """Confidence (33,) 0..1 of one look's points; 0 outside the image.

    Visibility x presence x segmentation support x heat map peak over `PEAK_OF_CERTAINTY` (at
    most 1) x score: a hidden limb has low visibility and a low peak, a guessed one beyond the
    crop has low presence and support.
    """
    inside = ((look.points >= 0) & (look.points <= np.array(image_size))).all(axis=-1)
    peak = np.minimum(look.peak / PEAK_OF_CERTAINTY, 1.0)
    sure = inside * look.visibility * look.presence * look.support * peak * look.score
    sure[FACE] *= face_turned_here(look.points)
    return sure


def face_turned_here(points: np.ndarray) -> float:
    """Factor 0..1 for eyes and nose: about 1 from in front and in profile, 0 from behind.

    The network calls a face visible through the back of the head. Seen from behind, the left
    ear is on the left: the distance from right to left ear across the trunk is then negative,
    in trunk lengths.
    """
    up = points[[11, 12]].mean(axis=0) - points[[23, 24]].mean(axis=0)
    across = np.array([-up[1], up[0]])
    facing = float((points[7] - points[8]) @ across) / max(float(up @ up), 1e-9)
    return float(sigmoid(np.array([(facing - FACE_HIDDEN) / FACE_SOFTNESS]))[0])


def keypoint_boxes(
    keypoints: Float[torch.Tensor, "*batch K 2"], confidence: Float[torch.Tensor, "*batch K"]
) -> Float[torch.Tensor, "*batch 4"]:
    """Boxes x0 y0 x1 y1 around the surely seen keypoints, widened by `BOX_MARGIN`.

    Where fewer than two points exceed `BOX_LEAST`, every point with any confidence counts; NaN
    where none has.
    """
    sure = confidence > BOX_LEAST
    few = sure.sum(dim=-1, keepdim=True) < 2
    used = torch.where(few, confidence > 0, sure)[..., None]
    low = torch.where(used, keypoints, torch.inf).amin(dim=-2)
    high = torch.where(used, keypoints, -torch.inf).amax(dim=-2)
    margin = BOX_MARGIN * (high - low).amax(dim=-1, keepdim=True)
    boxes = torch.cat([low - margin, high + margin], dim=-1)
    return torch.where(used.any(dim=-2), boxes, torch.nan)


def _between(span: np.ndarray, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (S,4) of all frames of a span, linear between the known ones (T,4)."""
    known = np.isfinite(boxes).all(axis=1)
    if not known.any():
        return np.full((len(span), 4), np.nan)
    columns = [np.interp(span, frames[known], boxes[known, k]) for k in range(4)]
    return np.stack(columns, axis=1)
