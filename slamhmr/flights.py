"""Free fall: in which frames nobody and nothing holds a person up, and where its mass is."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.geometry import runs, shot_numbers
from slamhmr.skeleton import IN_CONTACT

SEEN_SHARE = 0.5  # of the frames in the air
GRAVITY = 9.81  # m/s^2
SHORTEST = 0.2  # s, both feet off
EDGE = 0.04  # s, at take-off and landing, when the feet still or already push
PLAUSIBLE = (0.55, 1.7)  # of g: bodies' sizes, hence depths and scale, may be as far off
STEADY = 0.35  # of g, standard error of the fitted acceleration
LANDING = 0.4  # s, within which somebody in the air stood before or stands after
# Shares of the body's mass, percent, means of women and men, and where they are, as shares of
# points: de Leva 1996 (J. Biomech. 29), table 4, rounded. The hands are at the wrists.
MASS: tuple[tuple[float, dict[str, float]], ...] = (
    (6.8, {"head": 1.0}),
    (43.0, {"neck": 0.25, "spine2": 0.5, "left_hip": 0.125, "right_hip": 0.125}),
    *(
        part
        for side in ("left", "right")
        for part in (
            (2.6, {f"{side}_shoulder": 0.42, f"{side}_elbow": 0.58}),
            (1.5, {f"{side}_elbow": 0.54, f"{side}_wrist": 0.46}),
            (0.6, {f"{side}_wrist": 1.0}),
            (14.5, {f"{side}_hip": 0.62, f"{side}_knee": 0.38}),
            (4.6, {f"{side}_knee": 0.56, f"{side}_ankle": 0.44}),
            (1.3, {f"{side}_ankle": 0.5, f"{side}_foot": 0.5}),
        )
    ),
)


def mass_shares(names: tuple[str, ...]) -> Float[Tensor, "P"]:
    """Share of each named point in the body's centre of mass."""
    shares = torch.zeros(len(names), dtype=torch.float64, device="cpu")
    for mass, places in MASS:
        for name, share in places.items():
            shares[names.index(name)] += mass / 100 * share
    return shares


def flights(
    centre: Float[Tensor, "N T 3"],
    contacts: Float[Tensor, "N T 4"],
    up: Float[Tensor, "3"],
    times: Float[Tensor, "T"],
    valid: Bool[Tensor, "N T"],
    seen: Bool[Tensor, "N T"],
    cuts: tuple[int, ...] = (),
) -> Bool[Tensor, "N T"]:
    """Frames in which each person falls freely; `centre` is that of its mass.

    All four points of the feet are off for `SHORTEST` s, the centre falls about as gravity has it
    in the fit of a parabola, and the person stood before or stands after, in the same shot, and is
    seen in half of the frames at least: what fills a gap is no evidence of a fall. The
    first and last `EDGE` s are left out.
    """
    found = torch.zeros_like(seen)
    shot = shot_numbers(len(times), cuts)
    step = float((times[1:] - times[:-1]).median()) if len(times) > 1 else 1.0
    edge = max(1, round(EDGE / step))
    for person in range(len(seen)):
        standing = (contacts[person] > IN_CONTACT).any(dim=-1)
        for first, stop in runs(~standing & valid[person], shot):
            inside = slice(first + edge, stop - edge)
            if (
                float(times[stop - 1] - times[first]) + step < SHORTEST
                or stop - first < 2 * edge + 4
                or float(seen[person, first:stop].double().mean()) < SEEN_SHARE
            ):
                continue
            near = round(LANDING / step)
            around = standing & (shot == shot[first]) & valid[person]
            if not bool(around[max(first - near, 0) : stop + near].any()):
                continue
            heights = (centre[person] @ up)[inside]
            if _falls(heights, times[inside]):
                found[person, inside] = True
    return found


def fall(heights: Float[Tensor, "F"], times: Float[Tensor, "F"]) -> tuple[float, float]:
    """Acceleration downwards of a parabola through heights, m/s^2, and its standard error."""
    time = times - times.mean()
    rows = torch.stack([torch.ones_like(time), time, -0.5 * time**2], dim=1)
    normal = torch.linalg.inv(rows.T @ rows)
    fitted = normal @ rows.T @ heights
    freedom = max(len(heights) - 3, 1)
    noise = float(((rows @ fitted - heights) ** 2).sum()) / freedom
    return float(fitted[2]), math.sqrt(noise * float(normal[2, 2]))


def _falls(heights: Float[Tensor, "F"], times: Float[Tensor, "F"]) -> bool:
    if len(heights) < 4:
        return False
    found, error = fall(heights, times)
    return PLAUSIBLE[0] * GRAVITY < found < PLAUSIBLE[1] * GRAVITY and error < STEADY * GRAVITY
