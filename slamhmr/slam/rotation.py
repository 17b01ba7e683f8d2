"""Camera that only turns: rotations chained over keyframes, drift held by returning views."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from slamhmr.errors import BackendError
from slamhmr.geometry import rigid
from slamhmr.masks import person_mask
from slamhmr.slam.bearings import average_rotations, fit_rotation
from slamhmr.slam.classify import telling_pairs
from slamhmr.slam.focal import Focal, focal_note, focal_of_turn
from slamhmr.slam.restarts import solve_pieces
from slamhmr.slam.tracks import Tracks, follow_background
from slamhmr.types import CameraTrack, Observations, Video
from slamhmr.video import read_frames

INLIER = 1.5  # px at 640 px width
FEWEST = 12  # points that must agree on a rotation
FRESH = 0.5  # a new keyframe once fewer than this share of the last one's points live
SWING = 90.0  # px at 640 px width, or once they moved this far
RETURN_ANGLE = 0.5  # of the horizontal field of view: views closer than this are matched anew
MOST_RETURNS = 60  # pairs of keyframes matched anew, evenly chosen
DESCRIBED = 500  # SIFT features per keyframe for that


@dataclass(frozen=True)
class Options:
    """Settings of the turning camera."""

    longest_side: int = 640  # px at which the background is followed
    features: int = 800  # background points wanted in each frame
    refine_focal: bool = False  # it was guessed: take what the turn says, where it does


def track_camera(
    video: Video,
    observations: Observations,
    intrinsics: Float[Tensor, "4"],
    options: Options,
    *,
    progress: bool,
) -> CameraTrack:
    """Rotations of a camera that the user says does not travel.

    Raises BackendError when the background cannot be followed.
    """
    tracks = follow_background(
        video,
        observations,
        longest_side=options.longest_side,
        count=options.features,
        progress=progress,
    )
    notes = ("rotation-only on the user's word",)

    def solve(piece: Tracks) -> CameraTrack:
        found = None
        if options.refine_focal:
            pairs = telling_pairs(piece)
            found = focal_of_turn(piece, pairs, intrinsics.double().numpy())
        return turn(video, observations, piece, intrinsics, notes, focal=found)

    return solve_pieces(tracks, solve)


def turn(
    video: Video,
    observations: Observations,
    tracks: Tracks,
    intrinsics: Float[Tensor, "4"],
    notes: tuple[str, ...],
    *,
    focal: Focal | None = None,
) -> CameraTrack:
    """Track of a camera that only turns, frame 0 at identity; its centre stays at the origin.

    `focal`: the estimate to use instead of the focal length of `intrinsics`. Raises BackendError
    when a frame shares too few background points with the frames before.
    """
    if focal is not None:
        notes = (*notes, focal_note(focal, float(intrinsics[0])))
        intrinsics = focal.applied_to(intrinsics)
    k = intrinsics.double().numpy()
    keys, reference, from_reference, error = _chain(tracks, k)
    edges = [
        (a, b, *_relative(tracks, keys[a], keys[b], k))
        for a in range(len(keys))
        for b in range(a + 1, min(a + 4, len(keys)))
        if b == a + 1 or len(tracks.shared(keys[a], keys[b])[0]) >= 3 * FEWEST
    ]
    world_from_key = np.eye(3)[None].repeat(len(keys), axis=0)
    for a, b, rotation, _ in edges:
        if b == a + 1:
            world_from_key[b] = world_from_key[a] @ rotation.T
    numbers = [tracks.number(key) for key in keys]
    returns = _returning_views(video, observations, numbers, world_from_key, k, tracks.unit)
    everything = edges + returns
    if len(everything) > 0:
        world_from_key = average_rotations(
            world_from_key,
            np.array([edge[:2] for edge in everything]),
            np.stack([edge[2] for edge in everything]),
            np.array([float(edge[3]) for edge in everything]),
        )
    rotations = torch.from_numpy(world_from_key[reference] @ from_reference.transpose(0, 2, 1))
    text = f"rotation-only: {len(keys)} keyframes, {len(returns)} pairs of returning views, "
    text += f"median residual {error / tracks.unit:.2f} px at 640 px width"
    return CameraTrack(
        world_from_cam=rigid(rotations, torch.zeros(len(rotations), 3, dtype=torch.float64)),
        intrinsics=intrinsics.double().repeat(len(rotations), 1),
        image_size=video.image_size,
        scale_known=False,
        moving=False,
        source="rotation",
        notes=(*notes, text),
        focal_sigma=None if focal is None else torch.tensor(focal.sigma, dtype=torch.float64),
    )


def _chain(
    tracks: Tracks, intrinsics: np.ndarray
) -> tuple[list[int], np.ndarray, np.ndarray, float]:
    """Keyframes; per frame the number of its keyframe, the rotation frame_from_keyframe, and px."""
    count = len(tracks.ids)
    keys, reference = [0], np.zeros(count, dtype=int)
    rotations = np.eye(3)[None].repeat(count, axis=0)
    errors = [0.0]
    for frame in range(1, count):
        ids, before, after = tracks.shared(keys[-1], frame)
        few = len(ids) < max(FEWEST, FRESH * len(tracks.ids[keys[-1]]))
        far = few or np.median(np.linalg.norm(after - before, axis=1)) > SWING * tracks.unit
        if far and frame - 1 > keys[-1]:
            keys.append(frame - 1)
            reference[frame - 1], rotations[frame - 1] = len(keys) - 1, np.eye(3)
        rotations[frame], _ = _relative(tracks, keys[-1], frame, intrinsics)
        reference[frame] = len(keys) - 1
        _, before, after = tracks.shared(keys[-1], frame)
        errors.append(_median_error(rotations[frame], before, after, intrinsics))
    return keys, reference, rotations, float(np.median(errors))


def _median_error(
    rotation: np.ndarray, before: np.ndarray, after: np.ndarray, intrinsics: np.ndarray
) -> float:
    """Median image distance after a rotation, px."""
    rays = np.concatenate(
        [(before - intrinsics[2:]) / intrinsics[:2], np.ones((len(before), 1))], 1
    )
    turned = rays @ rotation.T
    image = intrinsics[:2] * turned[:, :2] / turned[:, 2:] + intrinsics[2:]
    return float(np.median(np.linalg.norm(image - after, axis=1)))


def _relative(
    tracks: Tracks, first: int, second: int, intrinsics: np.ndarray
) -> tuple[np.ndarray, int]:
    """Rotation second_from_first and how many points agree; BackendError if too few do."""
    ids, before, after = tracks.shared(first, second)
    if len(ids) >= FEWEST:
        rotation, error = fit_rotation(before, after, intrinsics, INLIER * tracks.unit)
        agreeing = int((error < INLIER * tracks.unit).sum())
        if agreeing >= FEWEST:
            return rotation, agreeing
    raise BackendError(
        f"camera: frames {tracks.number(first)} and {tracks.number(second)} share too few "
        f"background points for a rotation ({len(ids)}, at least {FEWEST} must agree); at a cut, "
        "solve each take by itself ('frames' in sequence.yaml), otherwise give cameras.npz"
    )


def _returning_views(
    video: Video,
    observations: Observations,
    keys: list[int],
    world_from_key: Float[np.ndarray, "K 3 3"],
    intrinsics: Float[np.ndarray, "4"],
    unit: float,
) -> list[tuple[int, int, np.ndarray, int]]:
    """Rotations between keyframes far apart in time that look the same way, by SIFT matches."""
    axes = world_from_key[:, :, 2]
    angle = np.arccos(np.clip(axes @ axes.T, -1, 1))
    view = 2 * np.arctan(intrinsics[2] / intrinsics[0])
    apart = np.triu(np.ones_like(angle, dtype=bool), 4)
    pairs = np.argwhere((angle < RETURN_ANGLE * view) & apart)
    pairs = pairs[:: max(1, -(-len(pairs) // MOST_RETURNS))]
    if len(pairs) == 0:
        return []
    described = _describe(video, observations, {keys[i] for i in pairs.ravel()})
    found = []
    for first, second in pairs.tolist():
        before, after = _match(described[keys[first]], described[keys[second]])
        if len(before) < 2 * FEWEST:
            continue
        rotation, error = fit_rotation(before, after, intrinsics, INLIER * unit)
        agreeing = int((error < INLIER * unit).sum())
        if agreeing >= 2 * FEWEST and agreeing > 0.5 * len(before):
            found.append((first, second, rotation, agreeing))
    return found


def _describe(
    video: Video, observations: Observations, frames: set[int]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """SIFT points (P,2) px and descriptors (P,128) of the background of some frames."""
    import cv2

    sift = cv2.SIFT.create(DESCRIBED)
    scale = min(1.0, 960 / max(video.image_size))
    size = (round(video.image_size[0] * scale), round(video.image_size[1] * scale))
    described = {}
    for frame, image in read_frames(video):
        if frame not in frames:
            continue
        grey = _grey(image, size)
        free = (~person_mask(observations, frame, size)).astype(np.uint8)
        found, descriptors = sift.detectAndCompute(grey, free)
        points = np.array([p.pt for p in found]).reshape(-1, 2) + 0.5
        empty = np.zeros((0, 128), np.float32)
        described[frame] = (points / scale, descriptors if descriptors is not None else empty)
    return described


def _grey(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Reduced grey picture."""
    import cv2

    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def _match(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Image points of mutual nearest descriptors that pass Lowe's ratio 0.8."""
    import cv2

    if min(len(first[0]), len(second[0])) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    back = {m.queryIdx: m.trainIdx for m in matcher.match(second[1], first[1])}
    good = [
        (a.queryIdx, a.trainIdx)
        for a, b in matcher.knnMatch(first[1], second[1], k=2)
        if a.distance < 0.8 * b.distance and back[a.trainIdx] == a.queryIdx
    ]
    index = np.array(good, dtype=int).reshape(-1, 2)
    return first[0][index[:, 0]], second[0][index[:, 1]]
