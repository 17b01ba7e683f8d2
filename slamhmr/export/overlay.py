"""The overlay video: everybody's mesh drawn on the pixels through the solved camera."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import roma
import torch
from tqdm import tqdm

from slamhmr.artifacts import atomic
from slamhmr.body import BodyModel, pelvis_from_transl, vertices
from slamhmr.components import require
from slamhmr.config import OverlayConfig
from slamhmr.device import CPU
from slamhmr.export.colours import person_colour
from slamhmr.export.rasterise import chosen, lacking, nearest_faces
from slamhmr.types import Result, Video
from slamhmr.video import VideoWriter, read_frames

CHUNK = 32  # frames whose meshes are in memory at once
NEAREST = 0.05  # m; triangles closer to the camera's plane are not drawn
UNSEEN_SHARE = 1 / 3  # opacity of a body in a frame in which the person is not seen
SUBPIXEL_BITS = 4  # fixed-point bits of OpenCV's polygon corners
SHADES = 64
LIGHT = np.array([0.35, -0.6, -0.72], dtype=np.float32)  # towards the light, camera axes

Image = np.ndarray  # (H, W, 3) uint8 RGB
Mesh = tuple[np.ndarray, tuple[int, int, int], float]  # points_cam (V,3), colour, opacity


def write_overlay(
    path: Path,
    video: Video,
    result: Result,
    body: BodyModel,
    *,
    options: OverlayConfig,
    progress: bool,
    device: torch.device = CPU,
) -> None:
    """Write the clip with bodies blended over it, at most `options.max_width` px wide.

    A body of a person that is not seen in a frame is fainter. `device`: where pytorch3d draws.
    Raises InputError if the video breaks off, MissingAsset without the renderer that is asked for.
    """
    require(lacking(options.renderer))
    paint = _painter(chosen(options.renderer, device), device)
    width, height = video.image_size
    factor = min(1.0, options.max_width / width)
    size = (round(width * factor) // 2 * 2, round(height * factor) // 2 * 2)
    intrinsics = result.intrinsics.numpy() * np.tile(np.array(size) / (width, height), 2)
    faces = body.faces.numpy()
    meshes = _meshes(result, body, options.opacity)
    frames = tqdm(read_frames(video), "overlay", video.frame_count, disable=not progress)
    with atomic(path) as temporary, VideoWriter(temporary, video.fps, size) as writer:
        for (index, image), people in zip(frames, meshes, strict=False):
            writer.write(
                draw_people(_resized(image, size), people, faces, intrinsics[index], paint)
            )


def draw_people(
    image: Image,
    people: list[tuple[int, Mesh]],
    faces: np.ndarray,
    intrinsics: np.ndarray,
    paint: "Painter | None" = None,
) -> Image:
    """The image with the nearest surfaces blended over it by their opacity; ids above the heads.

    `people` are (person id, mesh) with vertices in the camera, metres; `paint`: how triangles
    become pixels, OpenCV's polygons by default.
    """
    paint = paint or paint_far_to_near
    layer = np.zeros((*image.shape[:2], 4), dtype=np.uint8)
    parts = [_triangles(mesh, faces, intrinsics) for _, mesh in people]
    if len(parts) > 0:
        corners, shades, depths = (np.concatenate(group) for group in zip(*parts, strict=True))
        owners = np.repeat(np.arange(len(parts)), [len(part[2]) for part in parts])
        palette = [colour for _, mesh in people for colour in _palette(mesh)]
        colours = np.array(palette)[owners * SHADES + shades]
        paint(layer, corners, depths, colours)
    share = layer[..., 3:].astype(np.float32) / 255
    blended = (image * (1 - share) + layer[..., :3] * share).astype(np.uint8)
    for person, mesh in people:
        _label(blended, person, mesh, intrinsics)
    return blended


# Puts triangles into a layer (H, W, 4): corners (M, 3, 2) px, depths (M, 3) m, RGBA (M, 4).
Painter = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


def paint_far_to_near(
    layer: np.ndarray, corners: np.ndarray, depths: np.ndarray, colours: np.ndarray
) -> None:
    """OpenCV's polygons, each over those that are farther away."""
    import cv2

    order = np.argsort(-depths.mean(axis=1))
    fixed = np.round((corners[order] - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    for triangle, colour in zip(fixed, colours[order].tolist(), strict=True):
        cv2.fillConvexPoly(layer, triangle, colour, shift=SUBPIXEL_BITS)


def _painter(renderer: str, device: torch.device) -> Painter:
    if renderer == "opencv":
        return paint_far_to_near

    def paint(
        layer: np.ndarray, corners: np.ndarray, depths: np.ndarray, colours: np.ndarray
    ) -> None:
        nearest = nearest_faces(corners, depths, (layer.shape[1], layer.shape[0]), device)
        hit = nearest >= 0
        layer[hit] = np.round(colours[nearest[hit]]).astype(np.uint8)

    return paint


def _meshes(result: Result, body: BodyModel, opacity: float) -> Iterator[list[tuple[int, Mesh]]]:
    """Per frame, the meshes of the people who are in the clip, in that frame's camera."""
    dtype = body.v_template.dtype
    pelvis = pelvis_from_transl(body, result.betas.to(dtype), result.transl.to(dtype))
    body_pose = result.body_pose.reshape(*result.body_pose.shape[:2], 21, 3).to(dtype)
    cameras = result.world_from_cam.numpy()
    for first in range(0, len(cameras), CHUNK):
        span = slice(first, first + CHUNK)
        world = vertices(
            body,
            result.betas.to(dtype),
            roma.rotvec_to_rotmat(result.root_orient[:, span].to(dtype)),
            pelvis[:, span],
            roma.rotvec_to_rotmat(body_pose[:, span]),
        ).numpy()
        for offset, camera in enumerate(cameras[span]):
            yield [
                (
                    int(person),
                    (
                        ((world[row, offset] - camera[:3, 3]) @ camera[:3, :3]).astype(np.float32),
                        person_colour(row),
                        opacity * (1 if result.observed[row, first + offset] else UNSEEN_SHARE),
                    ),
                )
                for row, person in enumerate(result.person_id.tolist())
                if result.valid[row, first + offset]
            ]


def _triangles(
    mesh: Mesh, faces: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Visible front faces: image corners (M,3,2), shades 0..SHADES-1 (M,), depths (M,3)."""
    points, _, _ = mesh
    fx, fy, cx, cy = intrinsics
    depth = np.maximum(points[:, 2], NEAREST / 2)
    image = np.stack([fx * points[:, 0] / depth + cx, fy * points[:, 1] / depth + cy], axis=-1)
    near = points[faces, 2].min(axis=1) > NEAREST
    a, b, c = (image[faces[:, corner]] for corner in range(3))
    doubled_area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (
        c[:, 0] - a[:, 0]
    )
    shown = faces[near & (doubled_area < 0)]  # outward faces turn left-handed: image y is down
    corners = points[shown]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    shades = ((normals @ LIGHT).clip(0, 1) * (SHADES - 1)).astype(np.int64)
    return image[shown], shades, corners[:, :, 2]


def _palette(mesh: Mesh) -> list[tuple[float, ...]]:
    """RGBA of a mesh at every shade, from turned away to facing the light."""
    _, colour, opacity = mesh
    brightness = [0.45 + 0.6 * shade / (SHADES - 1) for shade in range(SHADES)]
    return [(*(min(255.0, c * b) for c in colour), 255 * opacity) for b in brightness]


def _label(image: Image, person: int, mesh: Mesh, intrinsics: np.ndarray) -> None:
    import cv2

    points, colour, _ = mesh
    top = points[points[:, 1].argmin()]
    if top[2] <= NEAREST:
        return
    where = intrinsics[:2] * top[:2] / top[2] + intrinsics[2:]
    place = (int(where[0]) - 6, int(where[1]) - 8)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, max(0.5, image.shape[0] / 700)
    cv2.putText(image, str(person), place, font, size, colour, 4, cv2.LINE_AA)
    cv2.putText(image, str(person), place, font, size, (255, 255, 255), 1, cv2.LINE_AA)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    import cv2

    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
