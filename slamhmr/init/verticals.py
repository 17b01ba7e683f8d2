"""Up from the straight edges of the picture: what people built, and trees, mostly stands upright.

An edge of something vertical lies in the plane of the camera's centre and the vertical. Which of
the edges do is not known: each does with a probability that is the same for all, else it points
anywhere (a mixture as in Schindler and Dellaert, "Atlanta World", CVPR 2004). People say where
to look, with doubts; the posterior is summed over a grid of directions, so that pictures without
a vertical, or with two, say nothing. Ours.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.geometry import rotation_between
from slamhmr.types import CameraTrack

REACH, STEP = math.radians(13.5), math.radians(0.3)  # of the grid, along either tilt
EDGE_SIGMA = math.radians(0.6)  # things that stand upright do so roughly
PIXEL_SIGMA = 0.0007  # rad, of an edge's end: about one px of 1280
NEAR_UPRIGHT = math.radians(25)  # of an edge from the vertical that people say: others are no news
SAME_LINE = math.radians(0.5)  # between planes of edges that are pieces of one line, or its sides
FLOOR_BELOW, FLOOR_VOTE = math.radians(5), 0.1  # below the horizon an edge may lie on the floor
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)  # of those edges, that are tried as upright
LEAST_SIGMA = 0.015  # rad, of the vertical: lenses, rolling shutters, leaning walls
OPPOSED = math.radians(12)  # away from people: tilted edges, more likely than people who lean so
AGREED = 2.0  # doubts of people; a third of what lies beyond is a doubt of the edges, too


@dataclass(frozen=True)
class _Edges:
    """Edges that may be upright, in the world of the cameras."""

    normal: Float[Tensor, "E 3"]  # of the plane through the edge and the camera's centre
    middle: Float[Tensor, "E 3"]  # ray
    sigma: Float[Tensor, "E"]  # rad
    vote: Float[Tensor, "E"]


def upright(
    cameras: CameraTrack, up: Float[Tensor, "3"], doubt: float
) -> tuple[Float[Tensor, "3"], float, str | None]:
    """Up in the cameras' world, rad of doubt along each tilt, and a sentence for the report.

    `up` (unit) and `doubt` are what people say; both stay, without a sentence, where no edges were
    looked for or these say nothing.
    """
    seen = _near_upright(cameras, up)
    if seen is None:
        return up, doubt, None
    steps = torch.arange(-REACH, REACH + STEP / 2, STEP, dtype=up.dtype)
    tilts = torch.cartesian_prod(steps, steps)
    vertical = up.new_tensor([0.0, 0.0, 1.0])
    flat = torch.nn.functional.pad(tilts, (0, 1), value=1.0)
    ups = torch.nn.functional.normalize(flat, dim=-1) @ rotation_between(vertical, up).T
    doubted = 1.5 * torch.log1p((tilts / doubt).square().sum(dim=-1))  # Cauchy: people err
    posterior = torch.softmax(_likelihood(ups, seen) - doubted, dim=0)
    tilt = posterior @ tilts
    spread = posterior @ (tilts - tilt).square()
    apart = float(tilt.norm())
    sigma = math.hypot(
        float(spread.mean().sqrt()), LEAST_SIGMA, _of_focal(cameras, up),
        max(0.0, apart - AGREED * doubt) / 3,
    )  # fmt: skip
    if sigma >= doubt:
        return up, doubt, None
    if apart > OPPOSED:
        return up, doubt, (
            f"gravity: edges of the picture that would be upright are {math.degrees(apart):.0f} "
            "deg from how people stand: not believed"
        )  # fmt: skip
    found = torch.nn.functional.pad(tilt, (0, 1), value=1.0) @ rotation_between(vertical, up).T
    told = (
        f"gravity: upright edges of the picture correct by {math.degrees(apart):.1f} deg what "
        f"people say of it, {math.degrees(sigma):.1f} deg uncertain"
    )
    return torch.nn.functional.normalize(found, dim=0), sigma, told


def _near_upright(cameras: CameraTrack, up: Float[Tensor, "3"]) -> _Edges | None:
    """Edges within `NEAR_UPRIGHT` of upright; None where there are none.

    A line that is seen in pieces has one vote in its frame, all frames together as many as one.
    Edges wholly below the horizon, and where the camera looks, have less: a line of the floor that
    runs towards the camera stands in the picture as upright ones do.
    """
    if cameras.edges is None or cameras.edge_frames is None or len(cameras.edges) == 0:
        return None
    turn = cameras.world_from_cam[cameras.edge_frames, :3, :3]
    first, second = (cameras.edges @ turn.mT).unbind(dim=1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(first, second), dim=-1)
    middle = torch.nn.functional.normalize(first + second, dim=-1)
    sigma = (EDGE_SIGMA**2 + 2 * (PIXEL_SIGMA / (second - first).norm(dim=-1)) ** 2).sqrt()
    near = _lean(up[None], normal, middle)[0].abs() < math.sin(NEAR_UPRIGHT)
    if not bool(near.any()):
        return None
    normal, frame = normal[near], cameras.edge_frames[near]
    highest = (torch.stack([first, second])[:, near] @ up).amax(dim=0)
    looks = cameras.world_from_cam[frame, :3, 2] @ up
    low = highest < looks.clamp_max(-math.sin(FLOOR_BELOW))
    vote = torch.where(low, FLOOR_VOTE, torch.ones_like(highest))
    for number in set(frame.tolist()):
        own = frame == number
        alike = (normal[own] @ normal[own].T).abs() > math.cos(SAME_LINE)
        vote[own] /= alike.sum(dim=1)
    vote = vote / len(set(cameras.edge_frames.tolist()))
    return _Edges(normal, middle[near], sigma[near], vote)


def _lean(
    ups: Float[Tensor, "G 3"], normal: Float[Tensor, "E 3"], middle: Float[Tensor, "E 3"]
) -> Float[Tensor, "G E"]:
    """Sine of the angle, at an edge's middle, between the edge and each direction."""
    across = (1 - (ups @ middle.T).square()).clamp_min(1e-6).sqrt()
    return (ups @ normal.T) / across


def _likelihood(ups: Float[Tensor, "G 3"], seen: _Edges) -> Float[Tensor, "G"]:
    """Log likelihood of the directions, over that of edges that point anywhere."""
    shares, found = torch.tensor(SHARES, dtype=ups.dtype), []
    for part in torch.split(ups, 512):
        off = _lean(part, seen.normal, seen.middle) / seen.sigma
        density = torch.exp(-0.5 * off.square()) / (seen.sigma * math.sqrt(2 * math.pi))
        gain = density * (2 * NEAR_UPRIGHT) - 1
        found.append(torch.stack([torch.log1p(share * gain) @ seen.vote for share in shares]))
    return torch.logsumexp(torch.cat(found, dim=1), dim=0) - math.log(len(SHARES))


def _of_focal(cameras: CameraTrack, up: Float[Tensor, "3"]) -> float:
    """What a wrong focal length turns the vertical by, rad: a share of the camera's pitch."""
    if cameras.focal_sigma is None:
        return 0.0
    pitch = torch.arcsin((cameras.world_from_cam[:, :3, 2] @ up).clamp(-1, 1))
    return float(cameras.focal_sigma * (2 * pitch).sin().abs().mean() / 2)
