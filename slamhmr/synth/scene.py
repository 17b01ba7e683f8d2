"""A synthetic scene: SMPL truth of every person, metric cameras, seats, all from one seed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points, rest_points
from slamhmr.errors import ConfigError
from slamhmr.synth import cameras, motions, planned, traffic
from slamhmr.synth.motions import Motion, SeatBox, Skeleton
from slamhmr.synth.placing import Placed, place_people

LEAST_SIDE = 32  # px
LARGEST = {"outliers": 1.0}
NOISE_MODES = ("white", "detector")
STATURES = (1.0, 2.1)  # m; beyond 3.6 standard deviations of the shape, 1.0 is 6 below the mean


@dataclass(frozen=True)
class SceneSpec:
    """Everything that makes a synthetic scene; the same values give the same scene."""

    seed: int = 0
    frames: int = 150
    fps: float = 30.0
    people: int = 1
    motion: str = "mixed"  # of `motions.KINDS`, or the path of an npz with SMPL motion
    camera: str = "follow"  # of `cameras.KINDS`
    image_size: tuple[int, int] = (640, 360)
    noise: str = "white"  # or "detector": errors as correlated as those of a real detector
    keypoint_noise: float = 0.01  # standard deviation, share of the box height
    outliers: float = 0.05  # share of the keypoints that lie anywhere near the person
    occlusions: bool = False  # limbs and people hidden for a while, and by each other
    slam_scale: float | None = None  # metres per SLAM unit; None draws one from 0.2 .. 5
    slam_rotation_deg: float = 0.1  # white, every frame
    slam_drift: float = 0.0005  # m per frame, random walk
    slam_rotation_drift_deg: float = 0.0  # per square root of a second, random walk about each axis
    gravity_tilt_deg: float = 3.0  # standard deviation of the horizon's roll
    camera_distance: float | None = None  # m from the middle of the people; None draws 4.2 .. 5.5
    traffic: str = "apart"  # of `traffic.KINDS`: everybody apart, "cross", "exit"
    shots: int = 1  # with more than one the clip is cut to another camera, evenly
    stature: tuple[float, float] | None = None  # m, least and largest; None: the shape prior's
    hidden_seconds: float = 0.0  # everybody is hidden once for so long
    slam_scale_drift: float = 0.0  # of the log scale, per square root of a second, random walk
    slam_restarts: int = 0  # times that SLAM begins anew, in another world and scale
    slam_lost_seconds: float = 0.0  # without a pose before every restart, and once in the middle
    focal_error: float = 0.0  # share by which the focal length that SLAM is given is too long

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        if not 1 <= self.people <= 8:
            raise ConfigError(f"people {self.people} is not one of 1 .. 8")
        if self.frames < 2 or self.fps <= 0:
            raise ConfigError(f"a scene of {self.frames} frames at {self.fps} fps has no motion")
        if self.camera not in cameras.KINDS:
            known = ", ".join(cameras.KINDS)
            raise ConfigError(f"camera '{self.camera}' is unknown; available: {known}")
        kinds = (*motions.KINDS, *planned.KINDS)
        if self.motion not in kinds and not self.motion.endswith(".npz"):
            known = ", ".join(kinds)
            raise ConfigError(
                f"motion '{self.motion}' is unknown; available: {known}, or the path of an npz"
            )
        if self.noise not in NOISE_MODES:
            raise ConfigError(
                f"noise '{self.noise}' is unknown; available: {', '.join(NOISE_MODES)}"
            )
        if min(self.image_size) < LEAST_SIDE or any(side % 2 == 1 for side in self.image_size):
            raise ConfigError(
                f"image_size {list(self.image_size)}: width and height must be even (as the video "
                f"codec needs) and at least {LEAST_SIDE} px"
            )
        for name in (
            "keypoint_noise", "outliers", "slam_rotation_deg", "slam_drift",
            "slam_rotation_drift_deg", "slam_scale_drift", "slam_restarts", "slam_lost_seconds",
            "hidden_seconds",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= LARGEST.get(name, np.inf):
                raise ConfigError(f"{name} {getattr(self, name)} is out of range")
        for name in ("slam_scale", "camera_distance"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)} is not positive")
        if self.traffic not in traffic.KINDS:
            known = ", ".join(traffic.KINDS)
            raise ConfigError(f"traffic '{self.traffic}' is unknown; available: {known}")
        if not 1 <= self.shots <= self.frames // 2:
            raise ConfigError(f"shots {self.shots} is not one of 1 .. {self.frames // 2}")
        low, high = self.stature or STATURES
        if not STATURES[0] <= low <= high <= STATURES[1]:
            raise ConfigError(f"stature {self.stature} is not within {STATURES} m")
        if not -0.5 < self.focal_error < 1.0:
            raise ConfigError(f"focal_error {self.focal_error} is not within -0.5 .. 1")


@dataclass(frozen=True)
class Scene:
    """Exact truth. World: z up, floor z = 0, origin at the first camera's footprint; float64."""

    spec: SceneSpec
    betas: Float[Tensor, "N B"]
    root: Float[Tensor, "N T 3 3"]  # world_from_root
    pelvis: Float[Tensor, "N T 3"]
    body_rotations: Float[Tensor, "N T 21 3 3"]
    valid: Bool[Tensor, "N T"]
    contacts: Float[Tensor, "N T 4"]  # left heel, left toe, right heel, right toe
    points: Float[Tensor, "N T P 3"]  # body.point_names in the world
    world_from_cam: Float[Tensor, "T 4 4"]  # metric
    intrinsics: Float[Tensor, "T 4"]
    boxes: tuple[SeatBox, ...]
    flights: tuple[tuple[tuple[int, int], ...], ...]  # per person: frames of free fall
    scale: float  # metres per SLAM unit
    support: Float[Tensor, "N T 4"] | None = None  # height under each contact; None: the floor, 0


def demo_spec() -> SceneSpec:
    """Specification of the demo: somebody walks, turns and waves; the camera goes around."""
    return SceneSpec(seed=10, frames=144, motion="mixed", camera="orbit", camera_distance=4.2)


def make_scene(spec: SceneSpec, body: BodyModel) -> Scene:
    """Draw bodies, motions, places and a camera. The same spec and body give the same scene.

    Raises ConfigError for impossible settings and InputError for a bad motion file.
    """
    spec.check()
    rng = np.random.default_rng([spec.seed, spec.people, 17])
    betas = _random_betas(spec.people, body, rng)
    if spec.stature is not None:
        betas = of_stature(betas, body, np.random.default_rng([spec.seed, 53]), spec.stature)
    placed = _placed(spec, body, betas, rng)
    root, pelvis, rotations, contacts = _stacked(placed)
    support = _support(placed)
    if support is not None:  # the lowest that anybody stands on is the floor
        pelvis = pelvis - np.array([0.0, 0.0, support.min()])
        support = support - support.min()
    intrinsics = _intrinsics(spec, rng)
    distance = spec.camera_distance if spec.camera_distance is not None else rng.uniform(4.2, 5.5)
    wish = cameras.CameraWish(
        spec.camera, spec.fps, intrinsics, spec.image_size, distance,
        tilt=float(np.deg2rad(spec.gravity_tilt_deg) * rng.standard_normal()),
        angle=None if spec.traffic == "apart" else traffic.VIEW_ANGLE,
    )  # fmt: skip
    world_from_cam = _film(spec, wish, traffic.followed(spec.traffic, pelvis), support, rng)
    origin = np.array([*world_from_cam[0, :2, 3], 0.0])
    world_from_cam[:, :3, 3] -= origin
    pelvis = pelvis - origin
    boxes = tuple(
        SeatBox(box.centre - origin[:2], box.yaw, box.size) for p in placed for box in p.boxes
    )
    scale = spec.slam_scale if spec.slam_scale is not None else float(
        np.exp(rng.uniform(np.log(0.2), np.log(5.0)))
    )  # fmt: skip
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in (root, pelvis, rotations)]
    points, _ = forward_points(body, betas, *tensors)
    valid = np.ones((spec.people, spec.frames), dtype=bool)
    if spec.traffic != "apart" or spec.camera == "drive":
        valid = traffic.in_picture(
            points.numpy(), world_from_cam, intrinsics, spec.image_size, spec.fps
        )
    return Scene(
        spec=spec,
        betas=betas,
        root=tensors[0],
        pelvis=tensors[1],
        body_rotations=tensors[2],
        valid=torch.from_numpy(valid),
        contacts=torch.from_numpy(contacts.astype(np.float64)),
        points=points,
        world_from_cam=torch.from_numpy(world_from_cam),
        intrinsics=torch.from_numpy(intrinsics).expand(spec.frames, 4).contiguous(),
        boxes=boxes,
        flights=tuple(p.motion.flights for p in placed),
        scale=scale,
        support=None if support is None else torch.from_numpy(support),
    )  # fmt: skip


def cut_frames(spec: SceneSpec) -> tuple[int, ...]:
    """First frames of the shots after the first."""
    return tuple(round(spec.frames * k / spec.shots) for k in range(1, spec.shots))


def of_stature(
    betas: Float[Tensor, "N B"], body: BodyModel, rng: np.random.Generator,
    stature: tuple[float, float],
) -> Float[Tensor, "N B"]:  # fmt: skip
    """Shapes changed least so that statures are evenly drawn from the range, in m."""
    directions = body.shapedirs[_tip(body, 1), 1] - body.shapedirs[_tip(body, -1), 1]
    wanted = torch.from_numpy(rng.uniform(*stature, len(betas)))
    for _ in range(3):  # the highest and lowest vertex change a little with the shape
        lacking = wanted - _stature(betas, body)
        betas = betas + lacking[:, None] * directions / (directions @ directions)
    return betas


def _tip(body: BodyModel, sign: int) -> int:
    """Vertex at the top (+1) or at the sole (-1) of the mean shape."""
    return int((sign * body.v_template[:, 1]).argmax())


def _stature(betas: Float[Tensor, "N B"], body: BodyModel) -> Float[Tensor, "N"]:
    heights = body.v_template[:, 1] + betas @ body.shapedirs[:, 1].T
    return heights.amax(dim=1) - heights.amin(dim=1)


def skeleton_of(body: BodyModel, betas: Float[Tensor, "B"]) -> Skeleton:
    """Rest geometry of one person for the motion generator; the sole is the lowest vertex."""
    points = rest_points(body, betas[None])[0]
    heights = body.v_template[:, 1] + body.shapedirs[:, 1] @ betas
    return motions.skeleton_from_points(points.numpy(), body.point_names, float(heights.min()))


def _random_betas(people: int, body: BodyModel, rng: np.random.Generator) -> Float[Tensor, "N B"]:
    count = body.shapedirs.shape[-1]
    spread = np.where(np.arange(count) < 4, 1.0, 0.3)
    return torch.from_numpy(np.clip(rng.standard_normal((people, count)), -2, 2) * spread)


def _placed(
    spec: SceneSpec, body: BodyModel, betas: Float[Tensor, "N B"], rng: np.random.Generator
) -> list[Placed]:
    """Everybody's motion at its place."""

    def draw(k: int, own: np.random.Generator) -> Motion:
        leaves = spec.traffic == "exit" and k == 0
        kind = "out_and_back" if leaves else spec.motion
        return _motion(replace(spec, motion=kind), body, betas[k], own)

    if spec.traffic == "cross":
        return traffic.place_crossing(draw, spec.people, rng)
    if spec.traffic == "exit":
        return traffic.place_leaving(draw, spec.people, rng)
    return place_people(draw, spec.people, rng)


def _film(
    spec: SceneSpec,
    wish: cameras.CameraWish,
    pelvis: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    support: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None,
    rng: np.random.Generator,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Cameras (T,4,4) of all shots, each by a camera of its own, in one world."""
    floor = None if support is None else support.mean(axis=(0, 2))
    poses = cameras.make_cameras(wish, pelvis, rng, floor)
    for k, start in enumerate(cut_frames(spec), start=1):
        other = np.random.default_rng([spec.seed, 43, k])
        poses[start:] = cameras.make_cameras(wish, pelvis, other, floor)[start:]
    return poses


def _support(
    placed: list[Placed],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """Height (N,T,4) of what every contact stands on; None where the floor is level."""
    bases = [p.motion.support for p in placed]
    if all(base is None for base in bases):
        return None
    level = np.zeros((len(placed[0].pelvis), 4))
    return np.stack([level if base is None else base for base in bases])


def _motion(
    spec: SceneSpec, body: BodyModel, betas: Float[Tensor, "B"], rng: np.random.Generator
) -> Motion:
    if spec.motion.endswith(".npz"):
        from slamhmr.synth.motion_file import read_motion

        return read_motion(Path(spec.motion), spec.frames, spec.fps, body, betas.numpy(), rng)
    skeleton = skeleton_of(body, betas)
    if spec.stature is None:
        return motions.make_motion(spec.motion, spec.frames, spec.fps, skeleton, rng)
    size = float(_stature(betas[None], body)) / float(_stature(torch.zeros_like(betas[None]), body))
    whole = motions.make_motion(spec.motion, spec.frames, spec.fps, skeleton.scaled(1 / size), rng)
    return whole.scaled(size)


def _stacked(
    placed: list[Placed],
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
]:
    """Roots, pelves, body rotations and contacts with a leading person axis."""
    return (
        np.stack([p.root for p in placed]),
        np.stack([p.pelvis for p in placed]),
        np.stack([p.motion.body for p in placed]),
        np.stack([p.motion.contacts for p in placed]),
    )


def _intrinsics(
    spec: SceneSpec, rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    width, height = spec.image_size
    focal = max(width, height) * rng.uniform(0.82, 1.05)
    return np.array([focal, focal, width / 2, height / 2])
