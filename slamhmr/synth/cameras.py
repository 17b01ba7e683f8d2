"""Camera paths that keep people in view: follow, orbit, static, rotation, forward, sway, handheld.

OpenCV axes (x right, y down, z forward); world z up, metres. Shake is smooth noise of two
centimetres and about one degree.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slamhmr.synth.footsteps import axis_rotation
from slamhmr.synth.motions import smooth_noise

Array = NDArray[np.float64]
KINDS = ("follow", "orbit", "static", "rotation", "forward", "sway", "handheld")
MOVING = ("follow", "orbit", "forward", "sway", "handheld")  # the camera's centre moves
SHAKE_METRES, SHAKE_RADIANS = 0.02, 0.012
NEAREST_PERSON = 3.0  # m from a camera that stays in place: a person fills the picture
AIM_HEIGHT = 0.92  # m, the picture's centre looks at people's hips


@dataclass(frozen=True)
class CameraWish:
    """What the camera shall do."""

    kind: str
    fps: float
    intrinsics: Array  # (4,)
    image_size: tuple[int, int]
    distance: float  # m, from the middle of the people
    tilt: float  # rad, roll of the horizon


def make_cameras(wish: CameraWish, people: Array, rng: np.random.Generator) -> Array:
    """World-from-camera transforms (T,4,4) for people whose pelves are at (N,T,3).

    Raises ValueError for an unknown kind.
    """
    if wish.kind not in KINDS:
        raise ValueError(f"camera '{wish.kind}' is unknown; available: {', '.join(KINDS)}")
    times = np.arange(people.shape[1]) / wish.fps
    target = np.concatenate([people[..., :2].mean(0), np.full((len(times), 1), AIM_HEIGHT)], 1)
    centre, aim = _place(wish, people, target, times, rng)
    if wish.kind in MOVING:
        centre = centre + np.stack(
            [smooth_noise(times, rng, SHAKE_METRES, 1.6) for _ in range(3)], -1
        )
    rotation = _look_at(centre, aim)
    if wish.kind != "static":
        for axis in range(3):
            rotation = rotation @ axis_rotation(axis, smooth_noise(times, rng, SHAKE_RADIANS, 1.4))
    rotation = rotation @ axis_rotation(2, np.asarray(wish.tilt))
    world_from_cam = np.broadcast_to(np.eye(4), (len(times), 4, 4)).copy()
    world_from_cam[:, :3, :3], world_from_cam[:, :3, 3] = rotation, centre
    return world_from_cam


def _place(
    wish: CameraWish, people: Array, target: Array, times: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Centre and aim (T,3) without shake."""
    spread = _half_width(people, target)
    distance = max(wish.distance, spread / _half_view(wish) + 1.2)
    height = rng.uniform(1.35, 1.75)
    smooth = _smooth(target, 0.9 * wish.fps)
    angle = rng.uniform(-np.pi, np.pi)
    if wish.kind in ("follow", "orbit"):
        turn = rng.choice([-1, 1])
        sweep = rng.uniform(0.5, 0.9) if wish.kind == "orbit" else rng.uniform(0.1, 0.25)
        course = angle + turn * sweep * (times - times[-1] / 2) / max(times[-1], 4.0) * 1.6
        course = course + smooth_noise(times, rng, 0.05, 5.0)
        radius = distance * (1 + smooth_noise(times, rng, 0.06, 5.0))
        lagging = _smooth(target, 1.6 * wish.fps)
        centre = lagging + radius[:, None] * _circle(course)
        centre[:, 2] = height + smooth_noise(times, rng, 0.05, 4.0)
        return centre, smooth
    return _stationed(wish, people, smooth, times, height, rng)


def _stationed(
    wish: CameraWish,
    people: Array,
    target: Array,
    times: Array,
    height: float,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Cameras that stay near one place: static, rotation, sway, handheld, forward."""
    ground = people[..., :2].reshape(-1, 2)
    middle = (ground.min(0) + ground.max(0)) / 2
    direction, reach = _best_side(ground - middle, wish, rng)
    away = np.array([*direction, 0.0])
    station = np.array([*middle, 0.0]) + away * reach
    aim = np.array([*middle, AIM_HEIGHT]) + np.zeros_like(target)
    centre = station + np.zeros_like(target)
    centre[:, 2] = height
    if wish.kind == "static":
        centre[:, 2] = rng.uniform(1.5, 2.6)
        return centre, aim
    if wish.kind == "forward":
        length = min(rng.uniform(0.25, 0.45) * float(times[-1]), 0.3 * reach)  # m, a slow walk
        run = length * times / max(float(times[-1]), 1e-6)
        return centre - (run - 0.4 * length)[:, None] * away, aim
    if wish.kind == "sway":
        side = np.array([-direction[1], direction[0], 0.0])
        cycle = rng.uniform(4.0, 7.0)
        swing = 0.1 * np.sin(2 * np.pi * times / cycle + rng.uniform(0, 2 * np.pi))
        centre = centre + swing[:, None] * side
        return centre, 0.5 * (aim + target)
    if wish.kind == "handheld":
        drift = [smooth_noise(times, rng, 0.25, 7.0) for _ in range(2)]
        centre = centre + np.stack([*drift, smooth_noise(times, rng, 0.05, 5.0)], -1)
    return centre, target


def _best_side(ground: Array, wish: CameraWish, rng: np.random.Generator) -> tuple[Array, float]:
    """Direction and distance from the middle at which everybody stays in view and not too near."""
    options = []
    closest = NEAREST_PERSON * (1.45 if wish.kind == "forward" else 1.0)
    for angle in rng.uniform(-np.pi, np.pi, 12):
        direction = np.array([np.cos(angle), np.sin(angle)])
        toward = ground @ direction
        across = np.abs(ground @ np.array([-direction[1], direction[0]])) + 0.5
        panning = wish.kind in ("rotation", "handheld", "sway")
        view = _half_view(wish) * (1.4 if panning else 1.0)
        reach = max(float(np.max(toward + across / view)), float(toward.max()) + closest)
        options.append((max(reach, wish.distance), direction))
    reach, direction = min(options, key=lambda option: option[0])
    return direction, reach


def _half_view(wish: CameraWish) -> float:
    """Tangent of the usable half field of view, across."""
    return 0.85 * wish.image_size[0] / 2 / float(wish.intrinsics[0])


def _half_width(people: Array, target: Array) -> float:
    apart = np.linalg.norm((people - target)[..., :2], axis=-1)
    return float(np.quantile(apart.max(0), 0.9)) + (0.4 if len(people) > 1 else 0.0)


def _circle(angle: Array) -> Array:
    return np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], -1)


def _smooth(values: Array, sigma: float) -> Array:
    """Gaussian low-pass over time, ends held; sigma in frames."""
    half = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, ((half, half), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack(
        [np.convolve(padded[:, k], kernel, mode="valid") for k in range(values.shape[1])], -1
    )


def _look_at(centre: Array, aim: Array) -> Array:
    """World-from-camera rotations (T,3,3) with a level horizon."""
    forward = aim - centre
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, np.array([0.0, 0.0, 1.0]))
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], axis=-1)
