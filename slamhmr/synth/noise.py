"""What a detector and SLAM report of a scene: noisy keypoints, cameras without gravity or scale.

Two kinds of keypoint error: `white` (independent Gaussian plus outliers) and `detector` (errors
that last: AR(1), constant bias per keypoint, swapped legs, lost feet, partly wrong confidences),
after the failures seen on real clips. Occlusions come on top of either.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr import geometry
from slamhmr.body import BodyModel
from slamhmr.skeleton import FOOT_KEYPOINTS, KEYPOINT_INDEX, KEYPOINT_JOINT, KEYPOINTS
from slamhmr.synth.cameras import MOVING
from slamhmr.synth.hiding import gaps, hidden_by_others, long_gaps
from slamhmr.synth.scene import Scene, SceneSpec
from slamhmr.synth.shots import in_pieces, scaled_steps
from slamhmr.types import CameraTrack, Observations

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
OUTLIER_BOX = 1.4  # outliers lie anywhere inside the person's box grown by this factor
BOX_MARGIN = 0.05  # share of the box by which a person reaches beyond the keypoints
NEAREST = 0.2  # m; nothing nearer to the camera is seen
DETECTOR_TAU = 0.25  # s, correlation time of a detector's error
LEG_PARTS = ("hip", "knee", "ankle", "big_toe", "small_toe", "heel")


@dataclass
class _Sight:
    """Keypoints while they are being spoilt."""

    keypoints: Array  # (N,T,K,2)
    confidence: Array  # (N,T,K)
    size: Array  # (N,T) height of the box, px
    fps: float


def keypoint_points(body: BodyModel) -> list[int]:
    """Index into `body.point_names` of every canonical keypoint."""
    names = body.point_names
    return [names.index(KEYPOINT_JOINT.get(keypoint, keypoint)) for keypoint in KEYPOINTS]


def project_truth(
    scene: Scene, body: BodyModel
) -> tuple[Float[Tensor, "N T K 2"], Float[Tensor, "N T K"]]:
    """Exact image points, px, and depths, m, of the 23 canonical keypoints."""
    people, frames = scene.valid.shape
    cam_from_world = geometry.invert(scene.world_from_cam).expand(people, frames, 4, 4)
    points_cam = geometry.apply(cam_from_world, scene.points[:, :, keypoint_points(body)])
    depth = points_cam[..., 2]
    ahead = torch.cat([points_cam[..., :2], depth.clamp_min(NEAREST)[..., None]], dim=-1)
    return geometry.project(ahead, scene.intrinsics.expand(people, frames, 4)), depth


def observe(scene: Scene, body: BodyModel, spec: SceneSpec) -> tuple[Observations, CameraTrack]:
    """Noisy observations and cameras of a scene; the noise depends on `spec.seed` only."""
    truth, depth = project_truth(scene, body)
    rng = np.random.default_rng([spec.seed, 29])
    exact, distance = truth.numpy(), depth.numpy()
    box_height = exact[..., 1].max(-1) - exact[..., 1].min(-1)
    size = np.maximum(box_height * (1 + 2 * BOX_MARGIN), 1.0)
    sight = _Sight(exact.copy(), np.ones(exact.shape[:3]), size, spec.fps)
    if spec.noise == "detector":
        _detector_errors(sight, spec, rng)
    else:
        _white_errors(sight, spec, rng)
    _outliers(sight, exact, spec, rng)
    if spec.occlusions:
        sight.confidence[gaps(sight.confidence.shape, spec.fps, rng)] = 0
        sight.confidence[hidden_by_others(scene, body, exact, distance)] = 0
    if spec.hidden_seconds > 0:
        long_rng = np.random.default_rng([spec.seed, 71])
        hidden = long_gaps(len(exact), spec.frames, spec.hidden_seconds * spec.fps, long_rng)
        sight.confidence[hidden] = 0
    sight.confidence[~scene.valid.numpy()] = 0
    width, height = spec.image_size
    inside = (exact >= 0).all(-1) & (exact[..., 0] < width) & (exact[..., 1] < height)
    sight.confidence[~inside | (distance < NEAREST)] = 0
    boxes = _boxes(sight, spec.image_size)
    sight.confidence[np.isnan(boxes).any(-1)] = 0  # a sliver at the border is no detection
    observations = Observations(
        person_id=torch.arange(1, len(exact) + 1),
        keypoints=torch.from_numpy(sight.keypoints),
        confidence=torch.from_numpy(sight.confidence),
        keypoint_names=KEYPOINTS,
        boxes=torch.from_numpy(boxes),
        image_size=spec.image_size,
        fps=spec.fps,
        timestamps=torch.arange(spec.frames, dtype=torch.float64) / spec.fps,
    )
    return observations, slam_track(scene, spec)


def slam_track(scene: Scene, spec: SceneSpec) -> CameraTrack:
    """Cameras as SLAM gives them: first one = identity, unknown scale, rotation noise, drift."""
    rng = np.random.default_rng([spec.seed, 31])
    relative = geometry.invert(scene.world_from_cam[0]) @ scene.world_from_cam
    if spec.slam_scale_drift > 0:
        relative = geometry.rigid(relative[:, :3, :3], scaled_steps(relative[:, :3, 3], spec))
    tracked = relative.numpy().copy()
    moving = spec.camera in MOVING
    if spec.camera != "static":
        vectors = np.deg2rad(spec.slam_rotation_deg) * rng.standard_normal((len(tracked), 3))
        vectors[0] = 0
        tracked[:, :3, :3] = tracked[:, :3, :3] @ _small_rotations(vectors)
        if spec.slam_rotation_drift_deg > 0:
            tracked[:, :3, :3] = _rotation_drift(spec, len(tracked)) @ tracked[:, :3, :3]
    drift = np.cumsum(spec.slam_drift * rng.standard_normal((len(tracked), 3)), axis=0)
    tracked[:, :3, 3] = (tracked[:, :3, 3] + drift - drift[0]) / scene.scale if moving else 0.0
    track = CameraTrack(
        world_from_cam=torch.from_numpy(tracked),
        intrinsics=scene.intrinsics.clone(),
        image_size=spec.image_size,
        scale_known=False,
        moving=moving,
        source="synthetic",
    )
    return in_pieces(track, spec, scene.scale)


def _rotation_drift(spec: SceneSpec, frames: int) -> Array:
    """Random walk of the cameras' rotation (T,3,3) in the first camera's axes; none at first."""
    rng = np.random.default_rng([spec.seed, 37])
    step = np.deg2rad(spec.slam_rotation_drift_deg) / np.sqrt(spec.fps)
    walk = np.cumsum(step * rng.standard_normal((frames, 3)), axis=0)
    return _small_rotations(walk - walk[0])


def flipped_contacts(
    contacts: Float[Tensor, "N T C"], share: float, fps: float, seed: int
) -> Float[Tensor, "N T C"]:
    """Contact probabilities that are plainly wrong, p -> 1 - p, in runs of 0.1 to 0.5 s.

    `share` of all frames of every point, in the mean.
    """
    rng = np.random.default_rng([seed, 41])
    flipped = contacts.clone()
    for person in flipped:
        for point in range(person.shape[-1]):
            for start, end in spans(len(person), share, (0.1, 0.5), fps, rng):
                person[start:end, point] = 1 - person[start:end, point]
    return flipped


def _small_rotations(vectors: Array) -> Array:
    import roma

    return roma.rotvec_to_rotmat(torch.from_numpy(vectors)).numpy()


def _white_errors(sight: _Sight, spec: SceneSpec, rng: np.random.Generator) -> None:
    noise = rng.standard_normal(sight.keypoints.shape)
    sight.keypoints += spec.keypoint_noise * sight.size[..., None, None] * noise
    sight.confidence = rng.uniform(0.7, 1.0, sight.confidence.shape)


def _detector_errors(sight: _Sight, spec: SceneSpec, rng: np.random.Generator) -> None:
    """Lasting errors: AR(1), a little white noise, bias per keypoint, swapped legs, lost feet."""
    people, frames, count, _ = sight.keypoints.shape
    size = sight.size[..., None, None]
    lasting = ar1((people, frames, count, 2), DETECTOR_TAU * spec.fps, rng, axis=1)
    white = rng.standard_normal(sight.keypoints.shape)
    direction = rng.standard_normal((people, 1, count, 2))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    bias = direction * rng.uniform(1.0, 2.0, (people, 1, count, 1))
    error = spec.keypoint_noise * (0.9 * lasting + 0.45 * white + bias)
    sight.keypoints += size * error
    _swap_legs(sight, rng)
    # A confidence knows something of the error, and is sometimes plainly wrong.
    told = 1.05 - 0.12 * np.linalg.norm(error, axis=-1) / max(spec.keypoint_noise, 1e-9)
    confidence = np.clip(told + 0.1 * rng.standard_normal(told.shape), 0.15, 1.0)
    wrong = rng.random(told.shape) < 0.05
    sight.confidence = np.where(wrong, rng.uniform(0.15, 1.0, told.shape), confidence)
    feet = [KEYPOINT_INDEX[name] for name in FOOT_KEYPOINTS]
    for person in range(people):
        for start, end in spans(frames, 0.08, (0.3, 1.0), spec.fps, rng):
            sight.confidence[person, start:end, rng.permutation(feet)[:3]] = 0


def _swap_legs(sight: _Sight, rng: np.random.Generator) -> None:
    """Left and right leg exchanged for spans of 0.1 to 0.4 s, 3 % of the time."""
    left = [KEYPOINT_INDEX[f"left_{part}"] for part in LEG_PARTS]
    right = [KEYPOINT_INDEX[f"right_{part}"] for part in LEG_PARTS]
    for person in range(len(sight.keypoints)):
        for start, end in spans(sight.keypoints.shape[1], 0.03, (0.1, 0.4), sight.fps, rng):
            legs = sight.keypoints[person, start:end]
            legs[:, left + right] = legs[:, right + left]


def _outliers(sight: _Sight, exact: Array, spec: SceneSpec, rng: np.random.Generator) -> None:
    """Throw a share of the keypoints anywhere into the grown box, as confident as most others."""
    shape = sight.confidence.shape
    chosen = rng.random(shape) < spec.outliers
    low, high = exact.min(2), exact.max(2)
    middle, half = (low + high) / 2, OUTLIER_BOX * (high - low) / 2
    anywhere = middle[:, :, None] + half[:, :, None] * rng.uniform(-1, 1, (*shape, 2))
    sight.keypoints[chosen] = anywhere[chosen]
    sight.confidence[chosen] = rng.uniform(0.3, 1.0, shape)[chosen]


def _boxes(sight: _Sight, image_size: tuple[int, int]) -> Array:
    """Boxes (N,T,4) around the seen keypoints plus margin, cut at the border; NaN where unseen."""
    seen = sight.confidence > 0
    low = np.where(seen[..., None], sight.keypoints, np.inf).min(2)
    high = np.where(seen[..., None], sight.keypoints, -np.inf).max(2)
    margin = BOX_MARGIN * sight.size[..., None]
    limit = np.array(image_size, dtype=np.float64)
    boxes = np.concatenate(
        [np.clip(low - margin, 0, limit), np.clip(high + margin, 0, limit)], axis=-1
    )
    boxes[~seen.any(-1) | (boxes[..., 2:] <= boxes[..., :2]).any(-1)] = np.nan
    return boxes


def ar1(shape: tuple[int, ...], tau: float, rng: np.random.Generator, *, axis: int) -> Array:
    """Stationary first-order noise of variance 1, correlation time `tau` samples along `axis`."""
    white = np.moveaxis(rng.standard_normal(shape), axis, 0)
    keep = np.exp(-1 / max(tau, 1e-6))
    values = np.empty_like(white)
    values[0] = white[0]
    for i in range(1, len(white)):
        values[i] = keep * values[i - 1] + np.sqrt(1 - keep**2) * white[i]
    return np.moveaxis(values, 0, axis)


def spans(
    frames: int,
    share: float,
    seconds: tuple[float, float],
    fps: float,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """Random [start, end) spans that cover about `share` of the clip."""
    mean = fps * (seconds[0] + seconds[1]) / 2
    found = []
    for _ in range(rng.poisson(share * frames / mean)):
        length = max(1, round(fps * rng.uniform(*seconds)))
        start = int(rng.integers(0, max(1, frames - length + 1)))
        found.append((start, min(frames, start + length)))
    return found
