"""Pieces of a camera's path that lie in worlds of their own, put into one metric world.

Each piece is aligned by itself: gravity, scale, floor. It is then turned about the vertical and
moved to where the piece before it ends: where SLAM began anew the camera itself goes on; after a
gap, or in a new shot, the people do who are seen on both sides and go on moving. Where nothing
goes on, the piece keeps a place of its own and that is said. Ours.
"""

from dataclasses import replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.cameras import segment_starts
from slamhmr.errors import InputError
from slamhmr.geometry import rigid
from slamhmr.init.align import align, level_cameras, observed_frames
from slamhmr.init.ties import Piece, Tie, tie_of
from slamhmr.types import FREE_SCALE_SIGMA, CameraTrack, Initial, Observations, SceneState

UNKNOWN_SCALE = 2.0  # sigma of the log scale of a piece that has that of another
KNOWN_SCALE = 1e-3  # sigma of the log scale of a piece whose track is in metres
STILL = 1e-6  # SLAM units; a piece whose centres differ by less does not travel


def place(
    initial: Initial,
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    *,
    cuts: tuple[int, ...] = (),
) -> SceneState:
    """`align` for tracks of one or several segments; `cuts` are first frames of new shots.

    A segment whose scale cannot be found has that of the others, and the notes say so. Raises
    InputError when nobody is valid anywhere, or no segment of a travelling camera can be scaled.
    """
    starts = segment_starts(cameras)
    if len(starts) == 0:
        trusted = replace(observations, confidence=_trusted(observations, cameras))
        state = align(initial, trusted, cameras, body, cuts=cuts)
        return replace(state, observed=observed_frames(initial, observations))
    frames = len(cameras.world_from_cam)
    bounds = list(zip([0, *starts], [*starts, frames], strict=True))
    pieces = [_align_piece(initial, observations, cameras, body, b, cuts) for b in bounds]
    known = [piece for piece, _ in pieces if piece is not None]
    if len(known) == 0:
        raise InputError("no person is valid in any frame of the start (initial.npz)")
    moving = [piece for piece, scaled in pieces if piece is not None and scaled]
    open_scale = not cameras.scale_known
    if len(moving) == 0 and open_scale and any(_travels(cameras, b) for b in bounds):
        raise InputError(
            "the scale of no piece of the camera path can be found: people are seen in too few "
            "frames of each; set scale_known or moving = false in cameras.npz"
        )
    main = (moving or known)[0]
    joined = [_levelled_piece(main, piece, cameras, b) for (piece, _), b in
              zip(pieces, bounds, strict=True)]  # fmt: skip
    ties: list[Tie] = []
    for index in range(1, len(joined)):
        tie = tie_of(joined[index - 1], joined[index], bounds[index][0], observations, cuts)
        joined[index] = _moved(joined[index], tie)
        ties.append(tie)
    guessed = [
        not scaled and open_scale and _travels(cameras, b)
        for (_, scaled), b in zip(pieces, bounds, strict=True)
    ]
    notes = _notes(joined, ties, guessed)
    state = _join(joined, main, cameras, ties, notes, guessed[1:])
    return replace(state, observed=observed_frames(initial, observations))


def _notes(pieces: list[Piece], ties: list[Tie], guessed: list[bool]) -> list[str]:
    """What aligning each piece told, where it was put, and whose scale is only that of another."""

    def frames(piece: Piece) -> str:
        return f"camera, frames {piece.bounds[0]}-{piece.bounds[1] - 1}"

    notes = [
        f"{frames(piece)}: {note}"
        for piece in pieces
        if piece.people is not None
        for note in piece.people.cameras.notes
    ]
    notes += [f"{frames(piece)}: {tie.reason}" for piece, tie in zip(pieces[1:], ties, strict=True)]
    return notes + [
        f"{frames(piece)}: its scale cannot be found by itself: that of another "
        "piece stands in, which says nothing of it"
        for piece, unknown in zip(pieces, guessed, strict=True)
        if unknown
    ]


def _travels(cameras: CameraTrack, bounds: tuple[int, int]) -> bool:
    centres = cameras.world_from_cam[bounds[0] : bounds[1], :3, 3]
    return cameras.moving and float((centres - centres[0]).abs().max()) > STILL


def _align_piece(
    initial: Initial,
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    bounds: tuple[int, int],
    cuts: tuple[int, ...],
) -> tuple[SceneState | None, bool]:
    """One piece in a world of its own, and whether its scale was found; None without people."""
    first, last = bounds
    span = slice(first, last)
    start = replace(initial, **{
        name: value[:, span] for name, value in vars(initial).items()
        if isinstance(value, Tensor) and name not in ("person_id", "betas")
    })  # fmt: skip
    if not bool(start.valid.any()):
        return None, False
    seen = replace(
        observations,
        keypoints=observations.keypoints[:, span],
        confidence=_trusted(observations, cameras)[:, span],
        boxes=observations.boxes[:, span],
        timestamps=observations.timestamps[span],
    )
    track = _piece_of(cameras, bounds)
    own = tuple(cut - first for cut in cuts if first < cut < last)
    scaled = track.moving and not track.scale_known
    try:
        return align(start, seen, track, body, cuts=own), scaled
    except InputError:
        if not scaled:
            raise
    return align(start, seen, replace(track, moving=False), body, cuts=own), False


def _trusted(observations: Observations, cameras: CameraTrack) -> Float[Tensor, "N T K"]:
    """Confidence, 0 where the camera is lost: there nobody can be put into the world."""
    if cameras.lost is None:
        return observations.confidence
    return torch.where(cameras.lost[None, :, None], 0.0, observations.confidence)


def _piece_of(cameras: CameraTrack, bounds: tuple[int, int]) -> CameraTrack:
    span, frames = slice(*bounds), cameras.edge_frames
    own = None if frames is None else (frames >= bounds[0]) & (frames < bounds[1])
    return replace(
        cameras,
        world_from_cam=cameras.world_from_cam[span],
        intrinsics=cameras.intrinsics[span],
        moving=_travels(cameras, bounds),
        covariance=None if cameras.covariance is None else cameras.covariance[span],
        points=None,  # they belong to all pieces, in whichever world each lies
        point_segments=None,
        up=cameras.up if bounds[0] == 0 else None,  # said of the first piece's world
        notes=(),
        edges=None if own is None or cameras.edges is None else cameras.edges[own],
        edge_frames=None if own is None or frames is None else frames[own] - bounds[0],
        segments=None,
        lost=None if cameras.lost is None else cameras.lost[span],
    )


def _levelled_piece(
    main: SceneState, piece: SceneState | None, cameras: CameraTrack, bounds: tuple[int, int]
) -> Piece:
    """A piece's cameras in metres; without people it is levelled by the camera's own y axis.

    Where the track says what is up, by that.
    """
    if piece is None:
        track = _piece_of(cameras, bounds)
        down = track.world_from_cam[:, :3, 1].mean(dim=0)
        up = -down if track.up is None else track.up
        track, scale = level_cameras(track, up), main.log_scale.exp()
    else:
        track, scale = piece.cameras, piece.log_scale.exp()
        if not piece.cameras.moving and _travels(cameras, bounds):
            scale = main.log_scale.exp()
    metric = track.world_from_cam.clone()
    metric[:, :3, 3] *= scale
    lost = torch.zeros(len(metric), dtype=torch.bool) if track.lost is None else track.lost
    return Piece(bounds, metric, lost, piece)


def _moved(piece: Piece, tie: Tie) -> Piece:
    """The piece turned about the vertical and shifted."""
    axis = piece.world_from_cam.new_tensor([0.0, 0.0, tie.yaw])
    turn = roma.rotvec_to_rotmat(axis)
    cameras = rigid(turn, tie.shift) @ piece.world_from_cam
    people = piece.people
    if people is not None:
        root = turn @ roma.rotvec_to_rotmat(people.root_orient)
        people = replace(
            people,
            root_orient=roma.rotmat_to_rotvec(root),
            pelvis=people.pelvis @ turn.T + tie.shift,
            ground=torch.cat([people.ground[:3], people.ground[3:] - tie.shift[2]]),
        )
    return replace(piece, world_from_cam=cameras, people=people)


def _join(
    pieces: list[Piece],
    main: SceneState,
    cameras: CameraTrack,
    ties: list[Tie],
    notes: list[str],
    guessed: list[bool],
) -> SceneState:
    """One state of all pieces; SLAM units are those of the piece that gives the scale.

    `guessed`: whose scale, after the first, is only that of another piece.
    """
    track = torch.cat([piece.world_from_cam for piece in pieces])
    track[:, :3, 3] = (track[:, :3, 3] - track[0, :3, 3]) / main.log_scale.exp()
    origin = pieces[0].world_from_cam[0, :3, 3]
    known = [piece.people for piece in pieces if piece.people is not None]
    like = known[0]

    def whole(name: str) -> Tensor:
        """A field of everybody in all frames; zeros where a piece has no people."""
        parts, nearest = [], like
        for piece in pieces:
            nearest = piece.people or nearest
            value = getattr(nearest, name)
            if piece.people is None:
                value = torch.zeros_like(value[:, :1]).expand(-1, len(piece.lost), *value.shape[2:])
            parts.append(value)
        return torch.cat(parts, dim=1)

    ground = like.ground.clone()
    ground[3] += ground[:3] @ origin
    found = KNOWN_SCALE if cameras.scale_known else FREE_SCALE_SIGMA
    sigma = [
        [*tie.sigma, UNKNOWN_SCALE if unknown else found]
        for tie, unknown in zip(ties, guessed, strict=True)
    ]
    return replace(
        main,
        valid=whole("valid"),
        observed=whole("observed"),
        root_orient=whole("root_orient"),
        pelvis=whole("pelvis") - origin,
        body_pose=whole("body_pose"),
        contacts=whole("contacts"),
        ground=ground,
        jitter=track.new_zeros(len(track), 3),
        cameras=replace(
            cameras,
            world_from_cam=track,
            notes=(*cameras.notes, *notes),
            points=None,
            point_segments=None,
            up=None,
            edges=None,
            edge_frames=None,
        ),  # fmt: skip
        segment_moves=track.new_zeros(len(ties), 7),
        segment_sigma=track.new_tensor(sigma),
        segment_tied=torch.tensor([tie.tied for tie in ties]),
    )
