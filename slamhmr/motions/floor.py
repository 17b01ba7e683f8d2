"""The floor of a motion, and which heels and toes stand on it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points, rest_points
from slamhmr.skeleton import CONTACT_POINTS

SPEED_WINDOW = 0.034  # s, half width of the velocity estimate: one frame at 30 fps
# A clip's floor: lowest group of slow foot points, as HuMoR's `process_amass_data.py` (DBSCAN of
# toe heights, lowest cluster); here the lowest window of FLOOR_SPAN that holds enough of them.
SLOW_SPEED = 0.35  # m/s
FLOOR_SPAN = 0.03  # m
FLOOR_SHARE = 0.12  # of all slow points
# A run hardly rests its feet: where fewer frames have a slow point, the floor is no higher than
# this quantile of the lowest point.
RESTING_SHARE, LOW_QUANTILE = 0.5, 0.15
# Hysteresis of a contact: begins below the first, ends above the second. Retargeted feet skate by
# 0.1-0.2 m/s and float by 2-3 cm; HuMoR's own labels use 0.6 m/s at 120 fps and 4 cm for toes.
SPEED_LIMITS = (0.25, 0.40)  # m/s
RISE_LIMIT = 0.12  # m/s upwards or downwards: more is a heel that peels off, however low it is
SPEED_SHARE, RISE_SHARE = 0.18, 0.10  # of the pelvis' speed, on top: leg lengths err with it
HEIGHT_LIMITS = (0.045, 0.07)  # m above where the point is when the foot is flat
SHORTEST = 0.1  # s, of a contact and of a gap in one


def foot_points(
    body: BodyModel,
    root: Float[Tensor, "T 3 3"],
    pelvis: Float[Tensor, "T 3"],
    joints: Float[Tensor, "T 21 3 3"],
) -> Float[Tensor, "T 4 3"]:
    """Heels and big toes (`CONTACT_POINTS`) of the mean shape, metres, in the world of `root`.

    Their heights are reduced by those they have above the sole of a flat foot, so that all are 0
    where the foot stands flat on a floor at 0.
    """
    betas = torch.zeros(1, body.shapedirs.shape[-1], dtype=pelvis.dtype)
    points, _ = forward_points(body, betas, root[None], pelvis[None], joints[None])
    index = [body.point_names.index(name) for name in CONTACT_POINTS]
    above = rest_points(body, betas)[0, index, 1] - body.v_template[:, 1].min()
    feet = points[0][:, index].clone()
    feet[..., 2] -= above
    return feet


def floor_height(feet: Float[Tensor, "T 4 3"], fps: float) -> float:
    """Height of the floor under `feet`, metres: median of the lowest cluster of slow points.

    A motion without slow foot points (all in the air) gets the lowest point that it reaches.
    """
    slow = point_speed(feet, fps) < SLOW_SPEED
    lowest = feet[..., 2].min(dim=1).values.quantile(LOW_QUANTILE)
    heights = feet[..., 2][slow].sort().values
    if len(heights) < 5:
        return float(lowest)
    inside = torch.searchsorted(heights, heights + FLOOR_SPAN) - torch.arange(len(heights))
    enough = torch.nonzero(inside >= max(FLOOR_SHARE * len(heights), 5))[:, 0]
    first = int(enough[0]) if len(enough) > 0 else int(inside.argmax())
    # the window may begin in the tail below the cluster: go on to where it is fullest
    first += int(inside[first : first + int(inside[first])].argmax())
    cluster = heights[first : first + int(inside[first])].median()
    hardly = slow.any(dim=1).double().mean() < RESTING_SHARE
    return float(torch.minimum(cluster, lowest) if hardly else cluster)


def floor_contacts(
    feet: Float[Tensor, "T 4 3"], pelvis: Float[Tensor, "T 3"], fps: float
) -> Bool[Tensor, "T 4"]:
    """Whether each point stands on a floor at 0.

    Hysteresis in speed and height, then contacts and gaps of less than 0.1 s dropped.
    """
    speed, height = point_speed(feet, fps), feet[..., 2].abs()
    travel = point_speed(pelvis[:, None], fps)
    speed = speed - SPEED_SHARE * travel
    level = point_speed(feet[..., 2:], fps) < RISE_LIMIT + RISE_SHARE * travel
    sure = (speed < SPEED_LIMITS[0]) & (height < HEIGHT_LIMITS[0])
    possible = (speed < SPEED_LIMITS[1]) & (height < HEIGHT_LIMITS[1]) & level
    frames = max(1, round(SHORTEST * fps))
    columns = []
    for column in range(feet.shape[1]):
        down = _hysteresis((sure & level)[:, column], possible[:, column])
        down = ~_drop_short(~down, frames)
        columns.append(_drop_short(down, frames))
    return torch.stack(columns, dim=1)


def softened(contacts: Bool[Tensor, "T 4"]) -> Float[Tensor, "T 4"]:
    """Contacts in 0..1 that rise and fall over two frames."""
    down = contacts.double()
    padded = torch.cat([down[:1], down, down[-1:]])
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]


def point_speed(points: Float[Tensor, "T C D"], fps: float) -> Float[Tensor, "T C"]:
    """Speed, m/s: central differences over `SPEED_WINDOW` to both sides, one-sided at the ends."""
    now = torch.arange(len(points))
    half = max(1, round(SPEED_WINDOW * fps))
    last, first = (now + half).clamp_max(len(points) - 1), (now - half).clamp_min(0)
    span = ((last - first) / fps).clamp_min(1e-9).to(points)
    return (points[last] - points[first]).norm(dim=-1) / span[:, None]


def stretches(flags: Bool[Tensor, "T"]) -> list[tuple[int, int]]:
    """First frame and end of every stretch of true frames."""
    edge = torch.zeros(1, dtype=torch.int8)
    change = torch.diff(torch.cat([edge, flags.to(torch.int8), edge]))
    starts, ends = torch.nonzero(change == 1)[:, 0], torch.nonzero(change == -1)[:, 0]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _hysteresis(sure: Bool[Tensor, "T"], possible: Bool[Tensor, "T"]) -> Bool[Tensor, "T"]:
    """Stretches of `possible` that hold a `sure` frame."""
    kept = torch.zeros_like(sure)
    for start, end in stretches(possible | sure):
        kept[start:end] = bool(sure[start:end].any())
    return kept


def _drop_short(flags: Bool[Tensor, "T"], frames: int) -> Bool[Tensor, "T"]:
    """Without stretches shorter than `frames`; those cut off by the clip stay."""
    kept = flags.clone()
    for start, end in stretches(flags):
        cut = start == 0 or end == len(flags)
        if end - start < frames and not cut:
            kept[start:end] = False
    return kept
