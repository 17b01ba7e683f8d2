"""Camera paths that keep people in view: follow, orbit, static, sway, drive and others.

OpenCV axes (x right, y down, z forward); world z up, metres. Shake is smooth noise of two
centimetres and about one degree.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slamhmr.synth.footsteps import axis_rotation
from slamhmr.synth.motions import smooth_noise

Array = NDArray[np.float64]
KINDS = ("follow", "orbit", "static", "rotation", "forward", "sway", "handheld", "drive")
MOVING = ("follow", "orbit", "forward", "sway", "handheld", "drive")  # the camera's centre moves
SHAKE_METRES, SHAKE_RADIANS = 0.02, 0.012
NEAREST_PERSON = 3.0  # m from a camera that stays in place: a person fills the picture
AIM_HEIGHT = 0.92  # m, the picture's centre looks at people's hips
DRIVE = (2.0, 8.0)  # m/s, a camera that drives
DRIVE_NEAR, DRIVE_FAR, DRIVE_ASIDE = 3.8, 24.0, 1.2  # m to the people: at the end, at most; beside


@dataclass(frozen=True)
class CameraWish:
    """What the camera shall do."""

    kind: str
    fps: float
    intrinsics: Array  # (4,)
    image_size: tuple[int, int]
    distance: float  # m, from the middle of the people
    tilt: float  # rad, roll of the horizon
    angle: float | None = None  # rad, direction from the people to the camera; None: any


def make_cameras(
    wish: CameraWish, people: Array, rng: np.random.Generator, floor: Array | None = None
) -> Array:
    """World-from-camera transforms (T,4,4) for people whose pelves are at (N,T,3).

    `floor` (T,): height of the floor under the people where it is not level; the camera looks up.
    Raises ValueError for an unknown kind.
    """
    if wish.kind not in KINDS:
        raise ValueError(f"camera '{wish.kind}' is unknown; available: {', '.join(KINDS)}")
    times = np.arange(people.shape[1]) / wish.fps
    target = np.concatenate([people[..., :2].mean(0), np.full((len(times), 1), AIM_HEIGHT)], 1)
    centre, aim = _place(wish, people, target, times, rng)
    if floor is not None:
        centre, aim = _raised(wish, centre, aim, _smooth(floor[:, None], 0.9 * wish.fps)[:, 0])
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
    angle = angle if wish.angle is None else wish.angle
    if wish.kind == "drive":
        return _driven(people, target, times, height, rng)
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


def _driven(
    people: Array, target: Array, times: Array, height: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A drive straight on towards people, at 2 to 8 m/s as far as they stay in view, past them."""
    way = target[-1, :2] - target[0, :2]
    length, seconds = float(np.linalg.norm(way)), max(float(times[-1]), 1e-6)
    along = way / length if length > 1.0 else _circle(rng.uniform(-np.pi, np.pi, 1))[0, :2]
    along = along * rng.choice([-1.0, 1.0])
    aside = np.array([-along[1], along[0]]) * rng.choice([-1.0, 1.0])
    last = float((people[:, -1, :2] @ along).min()) - DRIVE_NEAR
    first = float((people[:, 0, :2] @ along).min())
    slowest = max((last - first + DRIVE_NEAR) / seconds, 0.5)
    fastest = max((last - first + DRIVE_FAR) / seconds, slowest)
    speed = float(np.clip(rng.uniform(*DRIVE), slowest, fastest))
    offset = float(target[-1, :2] @ aside) + DRIVE_ASIDE
    forward = last - speed * (times[-1] - times)
    centre = forward[:, None] * along + offset * aside
    ahead = np.concatenate([centre + 12.0 * along, np.full((len(times), 1), AIM_HEIGHT)], 1)
    aim = 0.6 * _smooth(target, 15.0) + 0.4 * ahead
    return np.concatenate([centre, np.full((len(times), 1), height)], 1), aim


def _raised(wish: CameraWish, centre: Array, aim: Array, floor: Array) -> tuple[Array, Array]:
    """Centre and aim over a floor that rises: who follows on foot climbs too, others look up."""
    centre, aim = centre.copy(), aim.copy()
    fixed = wish.kind == "static"
    aim[:, 2] += 0.5 * (floor.min() + floor.max()) if fixed else floor
    if wish.kind in ("follow", "handheld"):
        centre[:, 2] += 0.6 * (floor - floor[0])
    return centre, aim


def _best_side(ground: Array, wish: CameraWish, rng: np.random.Generator) -> tuple[Array, float]:
    """Direction and distance from the middle at which everybody stays in view and not too near."""
    options = []
    closest = NEAREST_PERSON * (1.45 if wish.kind == "forward" else 1.0)
    angles = rng.uniform(-np.pi, np.pi, 12)
    for angle in angles if wish.angle is None else [wish.angle]:
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
