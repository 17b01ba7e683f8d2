"""Structure from motion on keyframes: followed points handed to COLMAP's incremental mapper."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from slamhmr.slam.bearings import fit_rotation
from slamhmr.slam.colmap import load_pycolmap
from slamhmr.slam.focal import Focal, refine_bundle
from slamhmr.slam.tracks import Tracks

OVERLAP = 6  # keyframes matched with their next ones, then 12, 24, 48 ... ahead
LEAST_SHARED = 20  # points of a pair
# px at 640 px width. Followed points are within 0.3 px; COLMAP's own limits (4 px) let a camera
# that moves forward with 1 deg of parallax settle on a wrong, sideways path
EPIPOLAR_ERROR = 1.0
MAP_ERROR = 2.0
POSE_ERROR = 3.0
LEAST_PARALLAX = 0.4  # px; rendered turns keep 0.3, a sway of 20 cm 0.55, walks 7-30
LEAST_ANGLE = 0.25  # degrees of triangulation; COLMAP asks 1.5 and 16 for the first pair


@dataclass(frozen=True)
class Model:
    """What the mapper found, in its own world and scale."""

    frames: Int[np.ndarray, "M"]  # registered keyframes, ascending
    world_from_cam: Float[np.ndarray, "M 4 4"]
    asked: int  # keyframes from the first to the last registered one
    point_ids: Int[np.ndarray, "P"]  # identities of the tracks that became points, ascending
    points: Float[np.ndarray, "P 3"]
    angle: float  # median over points of the widest triangulation angle, degrees
    points_per_frame: float  # median over registered keyframes
    error: float  # mean reprojection error, px of the full picture
    focal: Focal | None = None  # as the bundle tells it, where that was asked for and it does


def map_keyframes(
    tracks: Tracks,
    keys: list[int],
    intrinsics: Float[np.ndarray, "4"],
    *,
    refine_focal: bool = False,
) -> Model | None:
    """Poses of the keyframes and points of the background.

    The focal length is held while mapping; with `refine_focal` it is adjusted afterwards if the
    scene tells it. Deterministic: one thread, fixed seeds. None when no two keyframes show
    parallax or the mapper finds no model.
    """
    pycolmap = load_pycolmap()

    first = _first_pair(tracks, keys, intrinsics)
    if first is None:
        return None
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 3  # "no model" is told by our own checks
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "images").mkdir()
            _write_database(folder / "database.db", tracks, keys, intrinsics, first)
            models = pycolmap.incremental_mapping(
                folder / "database.db",
                folder / "images",
                folder,
                _mapper_options(tracks.unit, first),
            )
        if len(models) == 0:
            return None
        largest = max(models.values(), key=lambda m: m.num_reg_images())
        focal = None
        if refine_focal:
            largest, focal = refine_bundle(largest, tracks.unit)
    finally:
        pycolmap.logging.minloglevel = level
    return replace(_read_model(largest, tracks, keys), focal=focal)


def _first_pair(tracks: Tracks, keys: list[int], intrinsics: np.ndarray) -> tuple[int, int] | None:
    """Numbers of the two keyframes with the most parallax beyond a rotation among enough points.

    None when no pair has LEAST_PARALLAX.
    """
    best, pair = LEAST_PARALLAX * tracks.unit, None
    stride = max(1, len(keys) // 40)
    for a in range(0, len(keys), stride):
        for b in range(a + 2, len(keys), 2 * stride):
            ids, before, after = tracks.shared(keys[a], keys[b])
            if len(ids) < max(LEAST_SHARED, 0.4 * len(tracks.ids[keys[a]])):
                break
            error = fit_rotation(before, after, intrinsics, 1.5 * tracks.unit)[1]
            score = float(np.median(error)) * min(1.0, len(ids) / 300)
            if score > best:
                best, pair = score, (a, b)
    return pair


def _pairs(count: int, first: tuple[int, int]) -> list[tuple[int, int]]:
    """Keyframe numbers to match: neighbours, then doubling distances, and the first pair."""
    pairs = {first}
    for a in range(count):
        pairs.update((a, b) for b in range(a + 1, min(count, a + 1 + OVERLAP)))
        distance = 2 * OVERLAP
        while a + distance < count:
            pairs.add((a, a + distance))
            distance *= 2
    return sorted(pairs)


def _write_database(
    path: Path, tracks: Tracks, keys: list[int], intrinsics: np.ndarray, first: tuple[int, int]
) -> None:
    """COLMAP database with one camera, the keyframes' points and verified pairs."""
    pycolmap = load_pycolmap()

    width, height = tracks.image_size
    camera = pycolmap.Camera(
        model="PINHOLE", width=width, height=height, params=intrinsics, camera_id=1
    )
    if intrinsics[0] == intrinsics[1]:
        camera = pycolmap.Camera(
            model="SIMPLE_PINHOLE", width=width, height=height, params=intrinsics[1:], camera_id=1
        )
    camera.has_prior_focal_length = True
    database = pycolmap.Database.open(path)
    database.write_camera(camera, use_camera_id=True)
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 1))
    database.write_rig(rig, use_rig_id=True)
    for number, key in enumerate(keys, start=1):
        image = pycolmap.Image(name=f"{key:06d}", camera_id=1, image_id=number)
        frame = pycolmap.Frame(frame_id=number, rig_id=1)
        frame.add_data_id(image.data_id)
        database.write_image(image, use_image_id=True)
        database.write_frame(frame, use_frame_id=True)
        database.write_keypoints(number, tracks.points[key].astype(np.float32))
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    options.ransac.max_error = EPIPOLAR_ERROR * tracks.unit
    options.max_H_inlier_ratio = 1.0  # rotation was ruled out before; near-planar is not degenerate
    options.detect_watermark = False
    for a, b in _pairs(len(keys), first):
        _write_pair(database, camera, tracks, (keys[a], keys[b]), (a + 1, b + 1), options)
    database.close()


def _write_pair(
    database: Any,
    camera: Any,
    tracks: Tracks,
    frames: tuple[int, int],
    numbers: tuple[int, int],
    options: Any,
) -> None:
    """Matches by identity and the essential matrix that verifies them."""
    pycolmap = load_pycolmap()

    ids_a, ids_b = tracks.ids[frames[0]], tracks.ids[frames[1]]
    _, a, b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
    if len(a) < LEAST_SHARED:
        return
    matches = np.stack([a, b], axis=1).astype(np.uint32)
    points = tracks.points[frames[0]], tracks.points[frames[1]]
    geometry = pycolmap.estimate_calibrated_two_view_geometry(
        camera, points[0], camera, points[1], matches, options
    )
    database.write_matches(*numbers, matches)
    database.write_two_view_geometry(*numbers, geometry)


def _mapper_options(unit: float, first: tuple[int, int]) -> Any:
    """Incremental mapping for small parallax and precise points; focal length and centre fixed."""
    pycolmap = load_pycolmap()

    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.num_threads = 0, 1
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    options.multiple_models = options.extract_colors = False
    options.min_model_size = 3
    options.init_image_id1, options.init_image_id2 = first[0] + 1, first[1] + 1
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.2
    options.ba_global_max_refinements, options.ba_local_max_refinements = 2, 1
    options.triangulation.min_angle = LEAST_ANGLE
    mapper = options.mapper
    mapper.random_seed, mapper.num_threads = 0, 1
    mapper.abs_pose_refine_focal_length = mapper.abs_pose_refine_extra_params = False
    mapper.init_max_forward_motion = 1.0
    mapper.init_min_tri_angle = mapper.filter_min_tri_angle = LEAST_ANGLE
    mapper.ba_local_min_tri_angle = 1.0
    mapper.init_max_error = EPIPOLAR_ERROR * unit
    mapper.filter_max_reproj_error = MAP_ERROR * unit
    mapper.abs_pose_max_error = POSE_ERROR * unit
    return options


def _read_model(reconstruction: Any, tracks: Tracks, keys: list[int]) -> Model:
    """Registered poses, and the points under the identities of their tracks."""
    numbers = sorted(reconstruction.reg_image_ids())
    poses = np.tile(np.eye(4), (len(numbers), 1, 1))
    seen = []
    for row, number in enumerate(numbers):
        image = reconstruction.image(number)
        poses[row, :3] = image.cam_from_world().inverse().matrix()
        seen.append(image.num_points3D)
    centres = {number: poses[row, :3, 3] for row, number in enumerate(numbers)}
    found: dict[int, np.ndarray] = {}
    angles = []
    for point in reconstruction.points3D.values():
        elements = point.track.elements
        ids = [tracks.ids[keys[e.image_id - 1]][e.point2D_idx] for e in elements]
        identity = int(np.bincount(ids).argmax())
        found[identity] = point.xyz
        angles.append(_widest_angle(point.xyz, np.stack([centres[e.image_id] for e in elements])))
    order = sorted(found)
    return Model(
        frames=np.array([keys[number - 1] for number in numbers]),
        world_from_cam=poses,
        asked=_between(keys, keys[numbers[0] - 1], keys[numbers[-1] - 1]),
        point_ids=np.array(order, dtype=np.int64),
        points=np.array([found[i] for i in order]).reshape(-1, 3),
        angle=float(np.median(angles)) if len(angles) > 0 else 0.0,
        points_per_frame=float(np.median(seen)),
        error=float(reconstruction.compute_mean_reprojection_error()),
    )


def _between(keys: list[int], first: int, last: int) -> int:
    """Keyframes from one to another, both counted."""
    return sum(first <= key <= last for key in keys)


def _widest_angle(point: np.ndarray, centres: Float[np.ndarray, "C 3"]) -> float:
    """Largest angle, degrees, between the ray of the first view and those of the others."""
    rays = point - centres
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return float(np.degrees(np.arccos(np.clip(rays @ rays[0], -1, 1)).max()))
