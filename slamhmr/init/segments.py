"""Pieces of a camera's path that lie in worlds of their own, put into one metric world.

Each piece is aligned by itself: gravity, scale, floor. It is then turned about the vertical and
moved to where the piece before it ends: where SLAM began anew the camera itself goes on; after a
gap, or in a new shot, the people do who are seen on both sides and go on moving. Where nothing
goes on, the piece keeps a place of its own and that is said. Ours.
"""

import math
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.cameras import segment_starts
from slamhmr.errors import InputError
from slamhmr.geometry import rigid
from slamhmr.init.align import align, level_cameras, observed_frames
from slamhmr.types import FREE_SCALE_SIGMA, CameraTrack, Initial, Observations, SceneState

NEAR = 10  # frames before and after an end from which people's and cameras' motion is taken
LEAST_NEAR = 3
BRIDGED = 0.15  # s; over a longer gap the camera's own motion says too little
SAME_POSE = math.radians(25.0)  # median joint angle up to which two poses may be one moment's
TOGETHER = 0.6  # m that people, moved as one, may be off after a cut if time goes on
# Tilt, yaw (rad), offset (m) of a piece: its camera goes on; somebody goes on; nobody does.
GOES_ON, CARRIED, ALONE = (0.03, 0.03, 0.08), (0.05, 0.25, 0.3), (0.05, 3.0, 10.0)
KNOWN_SCALE = 1e-3  # sigma of the log scale of a piece whose track is in metres
STILL = 1e-6  # SLAM units; a piece whose centres differ by less does not travel


@dataclass(frozen=True)
class _Tie:
    """Turn about z (rad) and shift (m) of a piece, how sure they are, and why."""

    yaw: float
    shift: Float[Tensor, "3"]
    sigma: tuple[float, float, float]
    tied: bool
    reason: str


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
    ties: list[_Tie] = []
    for index in range(1, len(joined)):
        tie = _tie(joined[index - 1], joined[index], bounds[index][0], observations, cuts)
        joined[index] = _moved(joined[index], tie)
        ties.append(tie)
    notes = [
        f"camera, frames {first}-{last - 1}: {tie.reason}"
        for tie, (first, last) in zip(ties, bounds[1:], strict=True)
    ]
    notes += [
        f"camera, frames {first}-{last - 1}: its scale cannot be found by itself, that of the "
        "other pieces is used"
        for (piece, scaled), (first, last) in zip(pieces, bounds, strict=True)
        if piece is not None and not scaled and open_scale and _travels(cameras, (first, last))
    ]
    state = _join(joined, main, cameras, ties, notes)
    return replace(state, observed=observed_frames(initial, observations))


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
    span = slice(*bounds)
    return replace(
        cameras,
        world_from_cam=cameras.world_from_cam[span],
        intrinsics=cameras.intrinsics[span],
        moving=_travels(cameras, bounds),
        covariance=None if cameras.covariance is None else cameras.covariance[span],
        points=None,  # they belong to all pieces, in whichever world each lies
        point_segments=None,
        up=cameras.up if bounds[0] == 0 else None,  # said of the first piece's world
        segments=None,
        lost=None if cameras.lost is None else cameras.lost[span],
    )


@dataclass(frozen=True)
class _Piece:
    """A piece in metres, levelled: cameras, and its people where it has any."""

    bounds: tuple[int, int]
    world_from_cam: Float[Tensor, "t 4 4"]  # m
    lost: Bool[Tensor, "t"]
    people: SceneState | None


def _levelled_piece(
    main: SceneState, piece: SceneState | None, cameras: CameraTrack, bounds: tuple[int, int]
) -> _Piece:
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
    return _Piece(bounds, metric, lost, piece)


def _moved(piece: _Piece, tie: _Tie) -> _Piece:
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


def _tie(
    before: _Piece,
    after: _Piece,
    start: int,
    observations: Observations,
    cuts: tuple[int, ...],
) -> _Tie:
    """Where a piece goes, by what goes on across its beginning."""
    times = observations.timestamps
    cut = start in cuts
    kept = [int(torch.nonzero(~p.lost)[i, 0]) for p, i in ((before, -1), (after, 0))]
    gap = float(times[start + kept[1]] - times[before.bounds[0] + kept[0]])
    usual = float(times.diff().median()) if len(times) > 1 else 0.0
    if not cut and gap - usual < BRIDGED:
        return _by_camera(before, after, times)
    by_people = _by_people(before, after, times, cut)
    if by_people is not None:
        return by_people
    shift = before.world_from_cam[kept[0], :3, 3] - after.world_from_cam[kept[1], :3, 3]
    if before.people is not None and after.people is not None:
        shift[2] = after.people.ground[3] - before.people.ground[3]
    kind = "a new shot" if cut else "SLAM began anew after a gap"
    words = f"{kind}, and nobody is seen to go on moving from before: it lies in a world of its own"
    return _Tie(0.0, shift, ALONE, False, f"{words}, of which only gravity, scale and floor agree")


def _by_camera(before: _Piece, after: _Piece, times: Float[Tensor, "T"]) -> _Tie:
    """The camera goes on at its speed, straight and evenly turning, to the piece's first frame."""
    old, new = ~before.lost, ~after.lost
    now = times[after.bounds[0] : after.bounds[1]][new][0]
    earlier = times[before.bounds[0] : before.bounds[1]][old][-NEAR:]
    known, first = before.world_from_cam[old][-NEAR:], after.world_from_cam[new][0]
    centre = _extrapolated(known[:, :3, 3], earlier, now)
    ahead, behind = known[-1, :3, :3], first[:3, :3]
    if len(known) > 1:
        rate = roma.rotmat_to_rotvec(known[0, :3, :3].T @ ahead) / (earlier[-1] - earlier[0])
        ahead = ahead @ roma.rotvec_to_rotmat(rate * (now - earlier[-1]))
    yaw = _yaw(ahead @ behind.T)
    turned = roma.rotvec_to_rotmat(centre.new_tensor([0.0, 0.0, yaw])) @ first[:3, 3]
    words = "SLAM began anew; it is placed where the camera goes on, its scale is its own"
    return _Tie(yaw, centre - turned, GOES_ON, True, words)


def _by_people(before: _Piece, after: _Piece, times: Float[Tensor, "T"], cut: bool) -> _Tie | None:
    """Whoever is seen on both sides goes on; None where nobody does, or not in the same poses."""
    if before.people is None or after.people is None:
        return None
    old, new = before.people, after.people
    ends = [old.observed & ~before.lost, new.observed & ~after.lost]
    rows, turns, places = [], [], []
    for row in range(len(old.person_id)):
        last = torch.nonzero(ends[0][row, -2 * NEAR :])[:, 0] + max(len(before.lost) - 2 * NEAR, 0)
        first = torch.nonzero(ends[1][row, : 2 * NEAR])[:, 0]
        if min(len(last), len(first)) < LEAST_NEAR:
            continue
        last, first = last[-NEAR:], first[:NEAR]
        if cut and _poses_apart(old, new, row, int(last[-1]), int(first[0])) > SAME_POSE:
            continue
        own_times = times[before.bounds[0] + last], times[after.bounds[0] + first]
        middle = (own_times[0][-1] + own_times[1][0]) / 2
        places.append([
            _extrapolated(state.pelvis[row, frames], seconds, middle)
            for state, frames, seconds in ((old, last, own_times[0]), (new, first, own_times[1]))
        ])  # fmt: skip
        roots = [
            roma.rotvec_to_rotmat(state.root_orient[row, frames])
            for state, frames in ((old, last), (new, first))
        ]
        ahead = _turned(roots[0], roots[0][-1], own_times[0], middle)
        behind = _turned(roots[1], roots[1][0], own_times[1], middle)
        turns.append(_yaw(roots[0][-1] @ roots[1][0].T) + ahead - behind)
        rows.append(row)
    if len(rows) == 0:
        return None
    return _common(rows, turns, places, before, after, cut)


def _common(
    rows: list[int],
    turns: list[float],
    places: list[list[Tensor]],
    before: _Piece,
    after: _Piece,
    cut: bool,
) -> _Tie | None:
    """One turn and shift for all who go on; None where they do not agree after a cut."""
    assert before.people is not None
    assert after.people is not None
    yaw = math.atan2(sum(map(math.sin, turns)), sum(map(math.cos, turns)))
    source, target = (torch.stack([pair[i] for pair in places]) for i in (1, 0))
    turned = source @ roma.rotvec_to_rotmat(source.new_tensor([0.0, 0.0, yaw])).T
    shift = (target - turned).median(dim=0).values
    off = (turned + shift - target)[:, :2].norm(dim=-1)
    if cut and float(off.max()) > TOGETHER:
        return None
    shift[2] = after.people.ground[3] - before.people.ground[3]  # floor on floor
    ids = ", ".join(str(int(before.people.person_id[row])) for row in rows)
    kind = "a new shot" if cut else "SLAM began anew after a gap"
    words = f"{kind}; it is placed by person {ids}, who is taken to go on moving across it"
    return _Tie(yaw, shift, CARRIED, True, words)


def _poses_apart(old: SceneState, new: SceneState, row: int, last: int, first: int) -> float:
    """Median angle between the joints of two poses, rad."""
    poses = [roma.rotvec_to_rotmat(s.body_pose[row, f]) for s, f in ((old, last), (new, first))]
    return float(roma.rotmat_geodesic_distance(*poses).median())


def _extrapolated(
    values: Float[Tensor, "n 3"], times: Float[Tensor, "n"], now: Float[Tensor, ""]
) -> Float[Tensor, "3"]:
    """The straight line through values over time, at another time."""
    if len(values) < 2:
        return values[-1]
    middle = times.mean()
    slope = ((times - middle)[:, None] * values).sum(dim=0) / (times - middle).square().sum()
    return values.mean(dim=0) + (now - middle) * slope


def _turned(
    roots: Float[Tensor, "n 3 3"],
    since: Float[Tensor, "3 3"],
    times: Float[Tensor, "n"],
    now: Float[Tensor, ""],
) -> float:
    """Turn about z since a frame, at another time, by the straight line through all turns, rad."""
    angles = roots.new_tensor([[_yaw(root @ since.T), 0.0, 0.0] for root in roots])
    return float(_extrapolated(angles, times, now)[0])


def _yaw(rotation: Float[Tensor, "3 3"]) -> float:
    """The turn about z nearest to a rotation, rad."""
    return math.atan2(
        float(rotation[1, 0] - rotation[0, 1]), float(rotation[0, 0] + rotation[1, 1])
    )


def _join(
    pieces: list[_Piece],
    main: SceneState,
    cameras: CameraTrack,
    ties: list[_Tie],
    notes: list[str],
) -> SceneState:
    """One state of all pieces; SLAM units are those of the piece that gives the scale."""
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
    scale_sigma = KNOWN_SCALE if cameras.scale_known else FREE_SCALE_SIGMA
    sigma = [[*tie.sigma, scale_sigma] for tie in ties]
    frames = len(track)
    return replace(
        main,
        valid=whole("valid"),
        observed=whole("observed"),
        root_orient=whole("root_orient"),
        pelvis=whole("pelvis") - origin,
        body_pose=whole("body_pose"),
        contacts=whole("contacts"),
        ground=ground,
        jitter=track.new_zeros(frames, 3),
        cameras=replace(
            cameras,
            world_from_cam=track,
            notes=(*cameras.notes, *notes),
            points=None,
            point_segments=None,
            up=None,
        ),  # fmt: skip
        segment_moves=track.new_zeros(len(ties), 7),
        segment_sigma=track.new_tensor(sigma),
        segment_tied=torch.tensor([tie.tied for tie in ties]),
    )
