"""The default camera step: look at the background first, then use the solver for that motion."""

import logging
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from slamhmr.slam import rotation, sfm, static
from slamhmr.slam.classify import Motion, classify
from slamhmr.slam.tracks import follow_background
from slamhmr.types import CameraTrack, Observations, Video

log = logging.getLogger(__name__)

# px at 640 px width left by a rotation; rendered turns leave 0.07, a 20 cm sway 0.24
PARALLAX = 0.2


@dataclass(frozen=True)
class Options:
    """Settings of the default camera step."""

    assume: Literal["auto", "static", "moving", "rotation", "translation"] = "auto"
    allow_degraded: bool = False  # rotation-only with a note where the path cannot be trusted
    longest_side: int = 640  # px at which the background is followed
    features: int = 800  # background points wanted in each frame
    max_keyframes: int = 200  # of a reconstruction; more are thinned out evenly


def track_camera(
    video: Video,
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    *,
    progress: bool,
) -> CameraTrack:
    """Camera of every frame by the solver that fits the motion of the background.

    `assume` states the motion: static skips all measuring, moving only excludes static. The numbers
    of the decision stand in `notes`. Raises BackendError when the background cannot be followed or
    when the path of a travelling camera fails its checks (see `slam.checks`) and `allow_degraded`
    is false.
    """
    if options.assume == "static":
        return static.track_camera(
            video, observations, intrinsics, static.Options(), progress=progress
        )
    tracks = follow_background(
        video,
        observations,
        longest_side=options.longest_side,
        count=options.features,
        progress=progress,
    )
    if options.assume in ("auto", "moving"):
        motion = classify(tracks, intrinsics.double().numpy(), moving=options.assume == "moving")
        notes = _notes(motion, intrinsics)
        kind: str = motion.kind
    else:
        kind, notes = options.assume, (f"camera motion taken as {options.assume}, not measured",)
    for note in notes:
        log.info("%s", note)
    if kind == "static":
        return static.stand_still(video, intrinsics, notes[0])
    if kind == "rotation":
        return rotation.turn(video, observations, tracks, intrinsics, notes)
    settings = sfm.Options(
        longest_side=options.longest_side,
        features=options.features,
        max_keyframes=options.max_keyframes,
        allow_degraded=options.allow_degraded,
    )
    return sfm.travel(video, observations, tracks, intrinsics, settings, notes)


def _notes(motion: Motion, intrinsics: Float[Tensor, "4"]) -> tuple[str, ...]:
    """Sentences on the decision and what it leaves open."""
    notes = [motion.note()]
    swaying = motion.residual > PARALLAX and motion.focal_factor == 1.0
    if motion.kind == "rotation" and swaying:
        notes.append(
            f"the background keeps {motion.residual:.2f} px of parallax at 640 px width beyond the "
            "rotation: the camera may sway by a little, which is not reconstructed"
        )
    if motion.focal_factor != 1.0:
        better = motion.focal_factor * float(intrinsics[0])
        notes.append(
            f"the rotation fits best at a focal length near {better:.0f} px, not the "
            f"{float(intrinsics[0]):.0f} px in use; state the intrinsics in sequence.yaml"
        )
    return tuple(notes)
