"""Which heels and toes stand still on the ground, from how the points move."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.geometry import shot_numbers

# Likelihoods of a point that stands and of one that swings. Ours; mocap "contacts" slide 0.13-0.15
# m/s, a swinging foot of a walk moves at 1.5-3 m/s.
STANDING_SPEED = 0.2  # m/s, Rayleigh scale, noise of a start included
SWINGING_SPEED = 1.3  # m/s
STANDING_HEIGHT = 0.04  # m, standard deviation above the ground
SWINGING_HEIGHT = (0.10, 0.15)  # m, mean and standard deviation
DEPTH_TRUST = 1 / 3  # of the velocity along the line of sight that counts, where that is given
SPEED_ODDS = 5.0  # most that one frame's speed may say, log odds
HEIGHT_ODDS = 2.5
MEAN_STAY = 0.3  # s, mean duration of a contact and of a swing
SPEED_WINDOW = 0.07  # s, half width of the velocity estimate
# Of `reweighted`: shares of what was predicted, of the speed and of the height, and a constant.
SHARES = (0.55, 0.27, 1.3, 0.1)
SUREST = 0.005  # a prediction is not taken to be surer than this
LIFTED, MOST_LIFTED = 0.03, 2.0  # m; most that a height may count, for people may float
FAR, NEVER = 0.4, -3.0  # m, above which nobody floats; log odds there


def contacts_from_kinematics(
    points_world: Float[Tensor, "N T C 3"],
    fps: float,
    ground: Float[Tensor, "4"] | None,
    valid: Bool[Tensor, "N T"] | None = None,
    sight: Float[Tensor, "N T C 3"] | None = None,
    cuts: tuple[int, ...] = (),
) -> Float[Tensor, "N T C"]:
    """Probability that each point stands on the ground in each frame, 0 where `valid` is false.

    `sight` are vectors from the camera to the points: depth is noisy, so its changes count less.
    Two states (standing, swinging) per point, observed through speed and height above `ground` (n,
    d; None: speed only), smoothed over time by the forward-backward recursion, within one shot
    (`cuts`: first frames of new ones). Ours; no learned part.
    """
    if valid is None:
        valid = torch.ones(points_world.shape[:2], dtype=torch.bool)
    velocity, known = point_velocity(points_world, fps, valid, cuts)
    if sight is not None:
        ray = torch.nn.functional.normalize(sight, dim=-1)
        along = (velocity * ray).sum(dim=-1, keepdim=True) * ray
        velocity = velocity - (1 - DEPTH_TRUST) * along
    speed = velocity.norm(dim=-1)
    odds = _speed_odds(speed) * known[..., None]
    if ground is not None:
        height = points_world @ ground[:3] + ground[3]
        odds = odds + _height_odds(height) * valid[..., None]
    stay = math.exp(-1 / (MEAN_STAY * fps))
    return _smooth(odds, stay, cuts) * valid[..., None]


def point_velocity(
    points: Float[Tensor, "N T C 3"],
    fps: float,
    valid: Bool[Tensor, "N T"],
    cuts: tuple[int, ...] = (),
) -> tuple[Float[Tensor, "N T C 3"], Bool[Tensor, "N T"]]:
    """Velocity (m/s), central difference (one-sided at ends and cuts), and where it is known."""
    frames = points.shape[1]
    half = max(1, round(SPEED_WINDOW * fps))
    now = torch.arange(frames)
    shot = shot_numbers(frames, cuts)
    last = torch.minimum(now + half, torch.searchsorted(shot, shot, right=True) - 1)
    first = torch.maximum(now - half, torch.searchsorted(shot, shot))
    span = ((last - first) / fps).clamp_min(0.5 / fps).to(points)
    velocity = (points[:, last] - points[:, first]) / span[:, None, None]
    known = valid[:, last] & valid[:, first] & valid & (last > first)
    return velocity * known[..., None, None], known


def _speed_odds(speed: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
    sharp = 1 / STANDING_SPEED**2 - 1 / SWINGING_SPEED**2
    odds = 2 * math.log(SWINGING_SPEED / STANDING_SPEED) - 0.5 * speed**2 * sharp
    return odds.clamp(-SPEED_ODDS, SPEED_ODDS)


def _height_odds(height: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
    mean, spread = SWINGING_HEIGHT
    standing = -0.5 * (height / STANDING_HEIGHT) ** 2 - math.log(STANDING_HEIGHT)
    swinging = -0.5 * ((height - mean) / spread) ** 2 - math.log(spread)
    return (standing - swinging).clamp(-HEIGHT_ODDS, HEIGHT_ODDS)


def _smooth(
    odds: Float[Tensor, "N T C"], stay: float, cuts: tuple[int, ...]
) -> Float[Tensor, "N T C"]:
    """Forward-backward posterior of the standing state from per-frame log odds."""
    forward, backward = torch.zeros_like(odds), torch.zeros_like(odds)
    frames = odds.shape[1]
    for frame in range(1, frames):
        if frame not in cuts:
            forward[:, frame] = _step(forward[:, frame - 1] + odds[:, frame - 1], stay)
        late = frames - frame
        if late not in cuts:
            backward[:, late - 1] = _step(backward[:, late] + odds[:, late], stay)
    return torch.sigmoid(forward + odds + backward)


def _step(odds: Tensor, stay: float) -> Tensor:
    """Log odds one frame further on, when a state is kept with probability `stay`."""
    share = torch.sigmoid(odds)
    kept = share * stay + (1 - share) * (1 - stay)
    return torch.logit(kept)


def reweighted(
    predicted: Float[Tensor, "N T C"],
    feet: Float[Tensor, "N T C 3"],
    height: Float[Tensor, "N T C"],
    fps: float,
    valid: Bool[Tensor, "N T"],
    cuts: tuple[int, ...] = (),
) -> Float[Tensor, "N T C"]:
    """Contacts predicted before a solve, with what the solved feet say: speed and height.

    `feet` are in the world, `height` is that above what each stands on. Log odds add up with shares
    that were fitted to solved synthetic scenes with detector-like errors, for their errors repeat
    from frame to frame. Probabilities of exactly 0 and 1 are somebody's word and stay.
    """
    velocity, known = point_velocity(feet, fps, valid, cuts)
    said = torch.logit(predicted.clamp(SUREST, 1 - SUREST))
    fast = _speed_odds(velocity.norm(dim=-1)) * known[..., None]
    high = ((height.clamp_min(0) / LIFTED) ** 2).clamp_max(MOST_LIFTED)
    odds = SHARES[0] * said + SHARES[1] * fast - SHARES[2] * high + SHARES[3]
    odds = torch.where(height > FAR, odds.clamp_max(NEVER), odds)
    settled = (predicted == 0) | (predicted == 1)
    return torch.where(settled, predicted, torch.sigmoid(odds)) * valid[..., None]
