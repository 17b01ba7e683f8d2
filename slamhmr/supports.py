"""What feet stand on: the floor, or levels above it (steps, kerbs, walls), found from stances.

Heights of one person's stances share an error: a body that is taken for too large is too far away,
and stands too low (or, above the camera, too high) by as large a share of the camera's height over
it. So heights count against each person's own offset and against a slight tilt of the floor, both
with priors; only what these do not explain is a level.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.geometry import ramps, runs, shot_numbers
from slamhmr.skeleton import IN_CONTACT

SHORTEST = 0.1  # s, of a stance
SLOW = 0.5  # m/s, median speed of a point in a stance
BODY_ERROR = 0.06  # sigma of a person's size, hence of its offset, share of the camera's height
MEASURED_ERROR = 0.015  # of one whose stature is given, or who is seen by several cameras
OFFSET = 0.03  # m, sigma of a person's offset beside that
STANCE = (0.02, 0.025)  # sigma of one stance's height: m, and share of the camera's height over it
FLOOR_LIMIT = 3.0  # of that sigma, within which a stance is on the floor
LEAST_LIMIT = 0.10  # m
TOLERANCE = 0.06  # m, half width of a level, for sigmas of stances up to half of it
CLAIM = 1.75  # of that, within which a level takes stances with it
STEEPEST = 3.0  # of its sigma, a tilt of the ground; a steeper slope of stances is stairs
# m per square root of a second, drift of heights in a SLAM system's world: of people 5 m from a
# camera whose pitch drifts by 0.2 degrees in the first second; and the seconds of linear drift.
SLAM_DRIFT, DRIFT_SPACING = 0.02, 10.0
RISE_SIGMA = SLAM_DRIFT * math.sqrt(DRIFT_SPACING)  # m, of the drift in one spacing
LASTING = 0.3  # s, of all stances on a level together
LASTING_BELOW = 0.5  # s, of those on a level that becomes the floor
BIAS_STEPS = 61
OF_FOOT, OTHER = 1, 3  # frames by which stances of the same foot, of the other foot, count later


@dataclass(frozen=True)
class Stances:
    """Runs of frames in which one heel or toe is in contact and slow."""

    person: list[int]
    point: list[int]
    span: list[tuple[int, int]]  # first and last-plus-one frame
    place: Float[Tensor, "E 2"]  # on the floor, m
    height: Float[Tensor, "E"]  # above the ground plane, m
    seconds: Float[Tensor, "E"]
    sigma: Float[Tensor, "E"]  # m, of each height by itself
    shared: Float[Tensor, "E"]  # m, of the person's offset
    when: Float[Tensor, "E"]  # s from the first frame, the middle


@dataclass(frozen=True)
class Supports:
    """Heights of what is below each point, above a ground that lies `lowered` m deeper."""

    support: Float[Tensor, "N T 4"]
    lowered: float


def supports(
    feet: Float[Tensor, "N T 4 3"],
    contacts: Float[Tensor, "N T 4"],
    times: Float[Tensor, "T"],
    camera_height: Float[Tensor, "T"],
    *,
    tilt_sigma: float,
    cuts: tuple[int, ...] = (),
    drifting: bool = False,
    measured: Bool[Tensor, "N"] | None = None,
) -> Supports:
    """Height of the support of every point in every frame.

    `feet` are places along the ground (two) and heights of the soles above it. Between stances a
    point belongs to the nearest one in time, its own or another of the same person.
    `tilt_sigma`, rad: of the ground as it is now; `drifting`: cameras are a SLAM system's,
    whose heights drift in long clips; `measured`: whose size is not only guessed.
    """
    found = stances(feet, contacts, times, camera_height, cuts, measured)
    support = torch.zeros_like(contacts)
    if len(found.person) == 0:
        return Supports(support, 0.0)
    duration = float(times[-1] - times[0])
    heights = found.height - _explained(found, tilt_sigma, duration if drifting else 0.0)
    level = _levels(heights, found)
    below = [x for x in torch.unique(level).tolist() if x < 0]  # the lowest first
    lasting = [x for x in below if float(found.seconds[level == x].sum()) >= LASTING_BELOW]
    floor = lasting[0] if len(lasting) > 0 else 0.0
    _spread(support, found, (level - floor).clamp_min(0), cuts)
    return Supports(support, -floor)


def stances(
    feet: Float[Tensor, "N T 4 3"],
    contacts: Float[Tensor, "N T 4"],
    times: Float[Tensor, "T"],
    camera_height: Float[Tensor, "T"],
    cuts: tuple[int, ...],
    measured: Bool[Tensor, "N"] | None = None,
) -> Stances:
    """Every stance of every heel and toe."""
    shot = shot_numbers(len(times), cuts)
    step = float((times[1:] - times[:-1]).median()) if len(times) > 1 else 1.0
    people, points, spans, rows = [], [], [], []
    for person in range(len(contacts)):
        known = measured is not None and bool(measured[person])
        error = MEASURED_ERROR if known else BODY_ERROR
        for point in range(contacts.shape[2]):
            for first, stop in runs(contacts[person, :, point] > IN_CONTACT, shot):
                path = feet[person, first:stop, point]
                seconds = (stop - first) * step
                speed = (path[1:] - path[:-1]).norm(dim=-1) / step
                if seconds < SHORTEST or (len(speed) > 0 and float(speed.median()) > SLOW):
                    continue
                place, height = path[:, :2].mean(dim=0), path[:, 2].median()
                arm = (camera_height[first:stop].mean() - height).abs()
                people.append(person)
                points.append(point)
                spans.append((first, stop))
                sigma = torch.hypot(height.new_tensor(STANCE[0]), STANCE[1] * arm)
                shared = torch.hypot(height.new_tensor(OFFSET), error * arm)
                lasts = height.new_tensor(seconds)
                when = times[first:stop].mean() - times[0]
                rows.append(torch.stack([*place, height, lasts, sigma, shared, when]))
    table = torch.stack(rows) if len(rows) > 0 else feet.new_zeros(0, 7)
    return Stances(people, points, spans, table[:, :2], *table[:, 2:].unbind(dim=1))


def _limit(found: Stances) -> Float[Tensor, "E"]:
    """Height within which each stance may be on the floor, m."""
    return (FLOOR_LIMIT * found.sigma).clamp_min(LEAST_LIMIT)


def _explained(found: Stances, tilt_sigma: float, drifting_s: float) -> Float[Tensor, "E"]:
    """Heights that people's offsets, tilt and drift of the ground explain: the better of two fits.

    One begins level, with every person's offset where most of its stances agree; one from a wide
    fit of everything, for a ground that still leans; not by more than it can, for feet in the
    middle of every step of a staircase lie in one plane, too.
    """
    people = sorted(set(found.person))
    owner = torch.tensor([people.index(person) for person in found.person])
    rows = torch.nn.functional.one_hot(owner, len(people)).to(found.height)
    place = found.place - found.place.mean(dim=0)
    rise = ramps(found.when, drifting_s, DRIFT_SPACING)
    rows = torch.cat([place, rise, rows], dim=1)
    shared = torch.stack([found.shared[owner == k].mean() for k in range(len(people))])
    steps = shared.new_full((rise.shape[1],), RISE_SIGMA)
    prior = torch.cat([shared.new_full((2,), tilt_sigma), steps, shared])
    level = torch.zeros_like(prior)
    for k in range(len(people)):
        level[2 + len(steps) + k] = _offset(found, owner == k, float(shared[k]))
    limit = _limit(found)
    wide = _refined(torch.zeros_like(prior), rows, found, prior, 6 * limit)
    fits = [_refined(start, rows, found, prior, limit / 2) for start in (level, wide)]
    costs = [_cost(fit, rows, found, prior, limit / 2) for fit in fits]
    steep = float(fits[1][:2].norm()) > STEEPEST * tilt_sigma
    return rows @ fits[int(costs[1] < costs[0] and not steep)]


def _offset(found: Stances, own: Tensor, sigma: float) -> float:
    """Offset of one person with most of its stances near it, small ones preferred."""
    grid = torch.linspace(-3, 3, BIAS_STEPS, dtype=found.height.dtype) * sigma
    off = (found.height[own] - grid[:, None]) / (_limit(found)[own] / 2)
    votes = (found.seconds[own] * torch.exp(-0.5 * off**2)).sum(dim=1)
    return float(grid[int((votes * torch.exp(-0.5 * (grid / sigma) ** 2)).argmax())])


def _refined(
    start: Float[Tensor, "U"],
    rows: Float[Tensor, "E U"],
    found: Stances,
    prior: Float[Tensor, "U"],
    width: Float[Tensor, "E"],
) -> Float[Tensor, "U"]:
    """Re-weighted least squares (Geman-McClure of that width)."""
    fit, hold = start, torch.diag(prior**-2)
    for _ in range(15):
        off = (found.height - rows @ fit) / width
        weight = 1 / (1 + off**2) ** 2 / found.sigma**2
        scaled = rows * weight[:, None]
        fit = torch.linalg.solve(scaled.T @ rows + hold, scaled.T @ found.height)
    return fit


def _cost(
    fit: Float[Tensor, "U"],
    rows: Float[Tensor, "E U"],
    found: Stances,
    prior: Float[Tensor, "U"],
    width: Float[Tensor, "E"],
) -> float:
    off = ((found.height - rows @ fit) / width) ** 2
    bound = (width / found.sigma) ** 2
    return float((bound * off / (1 + off)).sum() + ((fit / prior) ** 2).sum())


def _levels(heights: Float[Tensor, "E"], found: Stances) -> Float[Tensor, "E"]:
    """Level of each stance: 0 on the floor; else that of the densest group it belongs to.

    The nearest level for who belongs to none: too brief, or too far from the others.
    """
    level = torch.zeros_like(heights)
    left = heights.abs() > _limit(found)
    alone, levels = torch.zeros_like(left), [0.0]
    reach = (2 * found.sigma).clamp_min(TOLERANCE)
    while bool(left.any()):
        near = (heights[:, None] - heights[None]).abs() < reach[:, None]
        votes = ((near & left[None]) * found.seconds).sum(dim=1) * left
        group = near[int(votes.argmax())] & left
        if float(found.seconds[group].sum()) >= LASTING:
            middle = _weighted_median(heights[group], found.seconds[group])
            group = ((heights - middle).abs() < CLAIM * reach) & left
            level[group] = middle
            levels.append(middle)
        else:
            alone = alone | group
        left = left & ~group
    known = heights.new_tensor(levels)
    nearest = known[(heights[:, None] - known).abs().argmin(dim=1)]
    return torch.where(alone, nearest, level)


def _weighted_median(values: Float[Tensor, "V"], weight: Float[Tensor, "V"]) -> float:
    order = values.argsort()
    share = weight[order].cumsum(dim=0)
    return float(values[order][int(torch.searchsorted(share, share[-1] / 2))])


def _spread(
    support: Float[Tensor, "N T 4"],
    found: Stances,
    level: Float[Tensor, "E"],
    cuts: tuple[int, ...],
) -> None:
    """Write every stance's level into its frames and those nearer to it than to others.

    Stances of a point's own count first; of two others as near, those of its own foot.
    """
    frames = support.shape[1]
    shot = shot_numbers(frames, cuts)
    now = torch.arange(frames)
    nearest = torch.full(support.shape, torch.inf, dtype=support.dtype)
    owners = zip(found.person, found.point, found.span, level, strict=True)
    for person, point, (first, stop), height in owners:
        gap = torch.maximum(first - now, now - (stop - 1)).clamp_min(0).to(support)
        gap = torch.where(shot == shot[first], gap, torch.inf)
        for other in range(support.shape[2]):
            further = gap + (
                0 if other == point else OF_FOOT if other // 2 == point // 2 else OTHER
            )
            closer = further < nearest[person, :, other]
            support[person, closer, other] = height
            nearest[person, closer, other] = further[closer]


def support_facts(
    support: Float[Tensor, "N T 4"] | None, contacts: Float[Tensor, "N T 4"], seconds: float
) -> list[dict[str, float]]:
    """Levels besides the floor, lowest first: height (m), time on it (s, all people), people.

    `seconds` is the time between frames.
    """
    if support is None:
        return []
    stands = contacts > IN_CONTACT
    found = []
    for height in torch.unique(support[(support != 0) & stands]).tolist():
        here = (stands & (support == height)).any(dim=-1)
        found.append(
            {
                "height_m": float(height),
                "seconds": seconds * float(here.sum()),
                "people": float(here.any(dim=1).sum()),
            }
        )
    return found


def support_notes(facts: list[dict[str, float]]) -> list[str]:
    """A sentence on the levels for the report; none where everybody stands on the floor."""
    if len(facts) == 0:
        return []
    heights = ", ".join(f"{fact['height_m']:+.2f} m" for fact in facts)
    return [f"{len(facts)} support level{'s' * (len(facts) > 1)} besides the floor: {heights}"]
