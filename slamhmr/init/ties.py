"""Where a piece of a camera's path goes: what goes on across its beginning from the one before."""

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.types import Observations, SceneState

NEAR = 10  # frames before and after an end from which people's and cameras' motion is taken
LEAST_NEAR = 3
BRIDGED = 0.15  # s; over a longer gap the camera's own motion says too little
SAME_POSE = math.radians(25.0)  # median joint angle up to which two poses may be one moment's
TOGETHER = 0.6  # m that people, moved as one, may be off after a cut if time goes on
# Tilt, yaw (rad), offset (m) of a piece: its camera goes on; somebody goes on; nobody does.
GOES_ON, CARRIED, ALONE = (0.03, 0.03, 0.08), (0.05, 0.25, 0.3), (0.05, 3.0, 10.0)


@dataclass(frozen=True)
class Tie:
    """Turn about z (rad) and shift (m) of a piece, how sure they are, and why."""

    yaw: float
    shift: Float[Tensor, "3"]
    sigma: tuple[float, float, float]
    tied: bool
    reason: str


@dataclass(frozen=True)
class Piece:
    """A piece in metres, levelled: cameras, and its people where it has any."""

    bounds: tuple[int, int]
    world_from_cam: Float[Tensor, "t 4 4"]  # m
    lost: Bool[Tensor, "t"]
    people: SceneState | None


def tie_of(
    before: Piece,
    after: Piece,
    start: int,
    observations: Observations,
    cuts: tuple[int, ...],
) -> Tie:
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
    return Tie(0.0, shift, ALONE, False, f"{words}, of which only gravity, scale and floor agree")


def _by_camera(before: Piece, after: Piece, times: Float[Tensor, "T"]) -> Tie:
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
    return Tie(yaw, centre - turned, GOES_ON, True, words)


def _by_people(before: Piece, after: Piece, times: Float[Tensor, "T"], cut: bool) -> Tie | None:
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
    before: Piece,
    after: Piece,
    cut: bool,
) -> Tie | None:
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
    return Tie(yaw, shift, CARRIED, True, words)


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
