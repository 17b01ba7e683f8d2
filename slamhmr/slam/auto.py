"""The default camera step: look at the background first, then use the solver for that motion."""

import logging
import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from slamhmr.components import Lack, require
from slamhmr.errors import BackendError
from slamhmr.slam import rotation, sfm, static
from slamhmr.slam.classify import Motion, classify, telling_pairs
from slamhmr.slam.focal import focal_of_turn
from slamhmr.slam.restarts import solve_pieces
from slamhmr.slam.tracks import Tracks, follow_background
from slamhmr.types import DEGRADED, CameraTrack, Observations, Video

log = logging.getLogger(__name__)

# px at 640 px width left by a rotation; rendered turns leave 0.07, a 20 cm sway 0.24
PARALLAX = 0.2
SWAY = 2.0  # up to which a path that fails its checks may be left out; walks keep 7-30


@dataclass(frozen=True)
class Options:
    """Settings of the default camera step."""

    assume: Literal["auto", "static", "moving", "rotation", "translation"] = "auto"
    allow_degraded: bool = False  # rotation-only with a note where the path cannot be trusted
    longest_side: int = 640  # px at which the background is followed
    features: int = 800  # background points wanted in each frame
    max_keyframes: int = 200  # of a reconstruction; more are thinned out evenly
    refine_focal: bool = False  # it was guessed: take what the background says, where it does


def lacking(options: Options) -> list[Lack]:
    """What a camera that may travel needs and does not have."""
    if options.assume in ("static", "rotation"):
        return []
    otherwise = "or say that it does not travel: options.auto.assume=static|rotation"
    return [Lack(lack.what, f"{lack.get}, {otherwise}") for lack in sfm.lacking(sfm.Options())]


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
    is false; a camera that only sways is then taken to turn, and the notes say so. Raises
    MissingAsset if it may travel and pycolmap is not there.
    """
    require(lacking(options))
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
    return solve_pieces(
        tracks, lambda piece: _solve(video, observations, piece, intrinsics, options)
    )


def _solve(
    video: Video,
    observations: Observations,
    tracks: Tracks,
    intrinsics: Float[Tensor, "4"],
    options: Options,
) -> CameraTrack:
    """Path over frames that can be followed from one to the next."""
    if options.assume in ("auto", "moving"):
        motion = classify(tracks, intrinsics.double().numpy(), moving=options.assume == "moving")
        notes = _notes(motion, intrinsics, guessed=options.refine_focal)
        kind: str = motion.kind
        focal, residual = motion.focal, motion.residual
    else:
        focal, residual = None, math.inf
        kind, notes = options.assume, (f"camera motion taken as {options.assume}, not measured",)
    for note in notes:
        log.info("%s", note)
    if kind == "static":
        return static.stand_still(video, intrinsics, notes[0], frames=len(tracks.ids))
    if kind == "rotation":
        used = focal if options.refine_focal else None
        return rotation.turn(video, observations, tracks, intrinsics, notes, focal=used)
    settings = sfm.Options(
        longest_side=options.longest_side,
        features=options.features,
        max_keyframes=options.max_keyframes,
        allow_degraded=options.allow_degraded,
        refine_focal=options.refine_focal,
    )
    try:
        return sfm.travel(video, observations, tracks, intrinsics, settings, notes)
    except BackendError as e:
        if residual > SWAY:
            raise
        used = None
        if options.refine_focal:
            used = focal_of_turn(tracks, telling_pairs(tracks), intrinsics.double().numpy())
        said = f"{DEGRADED} to rotation-only: the camera sways by {residual:.1f} px of parallax at "
        said += f"640 px width, too little to reconstruct: {str(e).split('; give')[0]}"
        log.warning("%s", said)
        return rotation.turn(video, observations, tracks, intrinsics, (*notes, said), focal=used)


def _notes(motion: Motion, intrinsics: Float[Tensor, "4"], *, guessed: bool) -> tuple[str, ...]:
    """Sentences on the decision and what it leaves open."""
    notes = [motion.note()]
    told = motion.focal_factor == 1.0 or motion.focal is not None  # else the lens is to blame
    if motion.kind == "rotation" and motion.residual > PARALLAX and told:
        notes.append(
            f"the background keeps {motion.residual:.2f} px of parallax at 640 px width beyond the "
            "rotation: the camera may sway by a little, which is not reconstructed"
        )
    focal, used = motion.focal, float(intrinsics[0])
    if focal is not None and focal.differs() and not guessed:
        notes.append(
            f"the rotation fits best at a focal length near {focal.factor * used:.0f} px (+- "
            f"{100 * focal.sigma:.0f} %), not the {used:.0f} px in use; check the intrinsics"
        )
    if motion.kind == "rotation" and focal is None and guessed:
        notes.append("the camera turns too little for the background to tell its focal length")
    return tuple(notes)
