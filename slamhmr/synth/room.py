"""The room around a scene: floor, ceiling, walls, seats and crates, one ray cast per pixel.

The room is convex and the camera is inside, so the nearest of six planes is what a pixel sees;
boxes stand in front.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slamhmr.synth import texture
from slamhmr.synth.footsteps import axis_rotation
from slamhmr.synth.motions import SeatBox

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Pixels = NDArray[np.float32]
PIXELS_PER_METRE = 120.0
MARGIN = 2.4  # m between people or camera and the nearest wall
CRATE_SPACE = 0.9  # m along the wall kept for crates
HEIGHT = 3.4
LEVELS = 4  # of the texture pyramid
FACE_LIGHT = (0.72, 0.92, 0.8, 0.66, 1.05)  # -x, +x, -y, +y, top of a box
FACE_PIXELS = 96
ATLAS_LIMIT = 8192  # px; larger rooms get coarser textures
PLANES, FLOOR = 6, 4  # number of the room's surfaces; the row of the floor among them
FAR = np.float32(1e6)  # m, where there is no floor


@dataclass(frozen=True)
class Room:
    """Walls at `low` and `high`, boxes, and one texture atlas with a patch per surface."""

    low: Array  # (3,)
    high: Array  # (3,)
    boxes: tuple[SeatBox, ...]
    pyramid: tuple[Image, ...]
    scale: float  # texture px per metre
    patches: NDArray[np.int64]  # (6 + 5 boxes, 2) x, y of every patch in the atlas


@dataclass(frozen=True)
class Background:
    """What one camera sees of the room."""

    image: Image  # (H,W,3)
    depth: Pixels  # (H,W) z in the camera, m
    floor: Pixels  # (2,H,W) world x, y where the floor is seen, far away elsewhere


@dataclass(frozen=True)
class _Hits:
    """What every ray meets; arrays (H,W), filled by the room and overwritten by boxes in front."""

    depth: Pixels
    patch: NDArray[np.int64]  # row of `Room.patches`
    across: Pixels  # px inside the patch
    along: Pixels
    facing: Pixels  # cosine of incidence


def build_room(
    people: Array, cameras: Array, seats: tuple[SeatBox, ...], rng: np.random.Generator
) -> Room:
    """A room that holds pelves (M,3), camera centres (T,3) and seats, with crates along its walls.

    Crates stand outside the box around people and cameras, so they never hide anybody.
    """
    places = np.concatenate([people, cameras, *[[[*s.centre, 0.0]] for s in seats]])
    low = np.array([*places.min(0)[:2] - MARGIN, 0.0])
    high = np.array([*places.max(0)[:2] + MARGIN, max(HEIGHT, float(places[:, 2].max()) + 0.8)])
    boxes = seats + tuple(_crate(low, high, rng) for _ in range(6))
    widest = float((high - low)[:2].max())
    scale = min(PIXELS_PER_METRE, ATLAS_LIMIT / max(3.4 * widest, 1.0))
    atlas, patches = _paint(high - low, len(boxes), scale, rng)
    return Room(low, high, boxes, _pyramid(atlas), scale, patches)


def _crate(low: Array, high: Array, rng: np.random.Generator) -> SeatBox:
    axis, top = int(rng.integers(2)), bool(rng.integers(2))
    size = np.array([*rng.uniform(0.35, 0.75, 2), rng.uniform(0.4, 1.3)])
    centre = rng.uniform(low[:2] + CRATE_SPACE, high[:2] - CRATE_SPACE)
    centre[axis] = high[axis] - 0.6 if top else low[axis] + 0.6
    return SeatBox(centre, float(rng.uniform(-np.pi, np.pi)), size)


def _paint(
    extent: Array, boxes: int, scale: float, rng: np.random.Generator
) -> tuple[Image, NDArray[np.int64]]:
    """Atlas of patches: walls (x low, x high, y low, y high), floor, ceiling, boxes."""
    wide, deep, tall = (int(np.ceil(e * scale)) for e in extent)
    images = [texture.wall_texture((tall, n), scale, rng) for n in (deep, deep, wide, wide)]
    light = rng.permutation([0.74, 0.86, 0.95, 1.04])
    images = [
        np.clip(image * share, 0, 255).astype(np.uint8)
        for image, share in zip(images, light, strict=True)
    ]
    images.append(texture.floor_texture((deep, wide), scale, rng))
    plain = 205 + 5 * texture.speckle((deep, wide), rng, 6)
    images.append(np.repeat(np.clip(plain, 0, 255).astype(np.uint8)[..., None], 3, axis=-1))
    strips = [
        [
            texture.crate_texture((FACE_PIXELS, FACE_PIXELS), rng, brightness)
            for brightness in FACE_LIGHT
        ]
        for _ in range(boxes)
    ]
    width = max(wide, deep, FACE_PIXELS * len(FACE_LIGHT))
    height = sum(len(image) for image in images) + FACE_PIXELS * boxes
    atlas = np.zeros((height, width, 3), dtype=np.uint8)
    patches, top = [], 0
    for image in images:
        atlas[top : top + len(image), : image.shape[1]] = image
        patches.append((0, top))
        top += len(image)
    for strip in strips:
        for k, image in enumerate(strip):
            atlas[top : top + FACE_PIXELS, k * FACE_PIXELS : (k + 1) * FACE_PIXELS] = image
            patches.append((k * FACE_PIXELS, top))
        top += FACE_PIXELS
    return atlas, np.array(patches)


def _pyramid(atlas: Image) -> tuple[Image, ...]:
    import cv2

    levels = [atlas]
    for _ in range(LEVELS - 1):
        levels.append(cv2.pyrDown(levels[-1]))
    return tuple(levels)


def see_room(
    room: Room, world_from_cam: Array, intrinsics: Array, image_size: tuple[int, int]
) -> Background:
    """Picture, depth and floor coordinates of the empty room."""
    width, height = image_size
    u = (np.arange(width, dtype=np.float32) + 0.5 - intrinsics[2]) / intrinsics[0]
    v = (np.arange(height, dtype=np.float32) + 0.5 - intrinsics[3]) / intrinsics[1]
    turn = world_from_cam[:3, :3]
    # z = 1 in the camera, so that lengths along a ray are depths.
    ray = np.stack([u[None] * r[0] + v[:, None] * r[1] + r[2] for r in turn]).astype(np.float32)
    ray[np.abs(ray) < 1e-9] = 1e-9
    squared = np.asarray(u[None] ** 2 + v[:, None] ** 2 + 1, dtype=np.float32)
    centre = world_from_cam[:3, 3].astype(np.float32)
    hits = _cast_room(room, centre, ray, squared)
    for index, box in enumerate(room.boxes):
        _cast_box(index, box, centre, ray, squared, hits)
    floor = centre[:2, None, None] + hits.depth * ray[:2]
    floor[:, hits.patch != FLOOR] = FAR
    patch = room.patches.astype(np.float32)
    footprint = hits.depth * np.float32(room.scale / intrinsics[0])
    lod = np.log2(np.maximum(footprint, 1e-3)) - 0.6 * np.log2(np.maximum(hits.facing, 0.02))
    x, y = patch[:, 0][hits.patch] + hits.across, patch[:, 1][hits.patch] + hits.along
    return Background(_sample(room, x, y, lod), hits.depth, floor)


def _cast_room(room: Room, centre: Pixels, ray: Pixels, squared: Pixels) -> _Hits:
    """The nearest of the six planes along every ray (3,H,W)."""
    low, high = room.low.astype(np.float32), room.high.astype(np.float32)
    reach = [
        np.where(ray[k] > 0, high[k] - centre[k], low[k] - centre[k]) / ray[k] for k in range(3)
    ]
    depth = np.minimum(np.minimum(reach[0], reach[1]), reach[2])
    level, side = reach[2] <= depth, reach[0] <= depth
    component = np.where(level, ray[2], np.where(side, ray[0], ray[1]))
    up = component > 0
    patch = np.where(level, FLOOR + up, np.where(side, 0, 2) + up)
    x, y, z = (centre[k] + depth * ray[k] for k in range(3))
    scale = np.float32(room.scale)
    across = np.where(side & ~level, y - low[1], x - low[0]) * scale
    along = np.where(level, y - low[1], high[2] - z) * scale
    return _Hits(depth, patch, across, along, np.abs(component) / np.sqrt(squared))


def _cast_box(
    index: int, box: SeatBox, centre: Pixels, ray: Pixels, squared: Pixels, hits: _Hits
) -> None:
    """Overwrite the hits where the box is in front."""
    turn = axis_rotation(2, np.asarray(box.yaw)).astype(np.float32)
    start = turn.T @ (centre - np.array([*box.centre, 0.0], dtype=np.float32))
    high = np.array([box.size[0] / 2, box.size[1] / 2, box.size[2]], dtype=np.float32)
    low = np.array([-high[0], -high[1], 0.0], dtype=np.float32)
    middle = turn @ ((low + high) / 2 - start)
    toward = middle[0] * ray[0] + middle[1] * ray[1] + middle[2] * ray[2]
    radius = float(np.linalg.norm(high - low)) / 2
    near_ball = toward * np.abs(toward) > (float(middle @ middle) - radius**2) * squared
    rows, columns = np.nonzero(near_ball)
    local = turn.T @ ray[:, rows, columns]
    local[np.abs(local) < 1e-9] = 1e-9
    first, second = (low - start)[:, None] / local, (high - start)[:, None] / local
    enter, leave = np.minimum(first, second), np.maximum(first, second)
    near, axis = enter.max(0), enter.argmax(0)
    hit = (near < leave.min(0)) & (near > 0) & (near < hits.depth[rows, columns])
    rows, columns, near, axis, local = rows[hit], columns[hit], near[hit], axis[hit], local[:, hit]
    point = (start[:, None] + near * local - low[:, None]) / (high - low)[:, None]  # 0..1
    component = np.take_along_axis(local, axis[None], 0)[0]
    face = np.where(axis == 2, 4, 2 * axis + (component < 0))
    hits.depth[rows, columns] = near
    hits.patch[rows, columns] = PLANES + len(FACE_LIGHT) * index + face
    hits.across[rows, columns] = np.where(axis == 0, point[1], point[0]) * (FACE_PIXELS - 1)
    hits.along[rows, columns] = np.where(axis == 2, point[1], 1 - point[2]) * (FACE_PIXELS - 1)
    hits.facing[rows, columns] = np.abs(component) / np.sqrt(squared[rows, columns])


def _sample(room: Room, x: Pixels, y: Pixels, lod: Pixels) -> Image:
    """Trilinear lookup in the texture pyramid."""
    import cv2

    x, y = x.astype(np.float32), y.astype(np.float32)
    image = cv2.remap(room.pyramid[0], x - 0.5, y - 0.5, cv2.INTER_LINEAR)
    for level in range(1, LEVELS):
        weight = np.clip(lod - (level - 1), 0, 1).astype(np.float32)
        if weight.max() <= 0:
            break
        size = np.float32(1 / 2**level)
        coarse = cv2.remap(room.pyramid[level], x * size - 0.5, y * size - 0.5, cv2.INTER_LINEAR)
        image = cv2.blendLinear(image, coarse, 1 - weight, weight)
    return image
