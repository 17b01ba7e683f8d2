"""Pixels of a scene: textured room, clothed-looking shaded bodies, soft shadows on the floor."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slamhmr.body import BodyModel, vertices
from slamhmr.body_licensed import SEGMENTS
from slamhmr.synth.raster import EMPTY, decode, rasterise
from slamhmr.synth.room import Background, Room, build_room, see_room
from slamhmr.synth.scene import Scene
from slamhmr.video import VideoWriter

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
CHUNK = 16  # frames skinned at once
FINE = 2  # bodies are drawn this many times finer, then averaged: anti-aliasing
LIGHT = np.array([0.35, -0.45, 0.82])  # direction towards the lamp, world
AMBIENT, DIFFUSE, SKY = 0.42, 0.55, 0.14
SKIN = ((236, 196, 170), (214, 164, 130), (176, 122, 88), (120, 82, 60), (88, 60, 46))
HAIR = ((40, 30, 24), (84, 58, 36), (128, 96, 58), (60, 54, 52))
# Point, width of its shadow when standing, height above the floor when standing (m), darkness.
SHADOWS = (
    ("pelvis", 0.34, 0.9, 0.32),
    *((f"{side}_ankle", 0.12, 0.08, 0.4) for side in ("left", "right")),
    *((f"{side}_foot", 0.1, 0.05, 0.35) for side in ("left", "right")),
)
SHOES = ((40, 40, 46), (205, 205, 208), (110, 70, 44))


def render_video(scene: Scene, body: BodyModel, path: Path, *, progress: bool) -> None:
    """Render every frame of a scene into an H.264 file at `path`."""
    from tqdm import tqdm

    with VideoWriter(path, scene.spec.fps, scene.spec.image_size) as writer:
        frames = render_frames(scene, body)
        for _, image in tqdm(frames, total=scene.spec.frames, desc="render", disable=not progress):
            writer.write(image)


def render_frames(
    scene: Scene, body: BodyModel, frames: range | None = None
) -> Iterator[tuple[int, Image]]:
    """Yield (index, RGB image (H,W,3)) of the wanted frames, all of them by default."""
    rng = np.random.default_rng([scene.spec.seed, 37])
    room = build_room(
        scene.pelvis.reshape(-1, 3).numpy(),
        scene.world_from_cam[:, :3, 3].numpy(),
        scene.boxes,
        rng,
    )
    albedo = np.concatenate([dress(body, rng) for _ in range(len(scene.betas))])
    wanted = frames if frames is not None else range(scene.spec.frames)
    for begin in range(0, len(wanted), CHUNK):
        part = list(wanted[begin : begin + CHUNK])
        meshes = vertices(
            body, scene.betas, scene.root[:, part], scene.pelvis[:, part],
            scene.body_rotations[:, part],
        ).numpy()  # fmt: skip
        for k, frame in enumerate(part):
            yield frame, _frame(scene, body, room, meshes[:, k], albedo, frame)


def dress(body: BodyModel, rng: np.random.Generator) -> Array:
    """Colour (F,3), 0..255, of every face: random woven clothes, skin, hair, shoes."""
    faces = body.faces.numpy()
    middle = body.v_template.numpy()[faces].mean(1)
    colours = {
        "skin": np.array(SKIN[rng.integers(len(SKIN))]),
        "hair": np.array(HAIR[rng.integers(len(HAIR))]),
        "shoes": np.array(SHOES[rng.integers(len(SHOES))]),
        "eyes": np.array([225, 222, 218]),
        "shirt": _cloth(rng, (60, 225)),
        "trousers": _cloth(rng, (35, 120)),
    }
    table = np.array([colours[name] for name in SEGMENTS], dtype=np.float64)
    segment = np.sort(body.segment.numpy()[faces], axis=1)[:, 1]
    albedo = table[segment]
    shirt, trousers = SEGMENTS.index("shirt"), SEGMENTS.index("trousers")
    second = _cloth(rng, (60, 225))
    pattern = rng.integers(3)
    stripe = np.sin(2 * np.pi * middle[:, 1] / rng.uniform(0.07, 0.13)) > 0.2
    if pattern == 1:
        albedo[(segment == shirt) & stripe] = second
    elif pattern == 2:
        check = stripe ^ (np.sin(2 * np.pi * middle[:, 0] / 0.11) > 0.2)
        albedo[(segment == shirt) & check] = 0.5 * albedo[(segment == shirt) & check] + 0.5 * second
    wool = sum(
        np.sin(middle @ rng.normal(0, frequency, 3) + rng.uniform(0, 6))
        for frequency in (20, 45, 90)
    )
    woven = np.where((segment == shirt) | (segment == trousers), 1 + 0.05 * wool, 1.0)
    return albedo * woven[:, None]


def _cloth(rng: np.random.Generator, levels: tuple[int, int]) -> Array:
    return rng.uniform(levels[0], levels[1], 3)


def _frame(
    scene: Scene, body: BodyModel, room: Room, meshes: Array, albedo: Array, frame: int
) -> Image:
    """One picture; meshes (N,V,3) in the world."""
    camera, intrinsics = scene.world_from_cam[frame].numpy(), scene.intrinsics[frame].numpy()
    width, height = scene.spec.image_size
    background = see_room(room, camera, intrinsics, (width, height))
    image = _shadowed(background, scene, body, frame)
    keys = np.full((height * FINE, width * FINE), EMPTY, dtype=np.int64)
    faces = body.faces.numpy()
    for person, mesh in enumerate(meshes):
        points = (mesh - camera[:3, 3]) @ camera[:3, :3]
        depth = np.maximum(points[:, 2:], 1e-6)
        pixels = FINE * (intrinsics[:2] * points[:, :2] / depth + intrinsics[2:])
        rasterise(keys, np.concatenate([pixels, points[:, 2:]], 1)[faces], person * len(faces))
    rows, columns = np.nonzero(keys != EMPTY)
    if rows.size == 0:
        return image
    face, depth_seen = decode(keys[rows, columns])
    seen = depth_seen < background.depth[rows // FINE, columns // FINE]
    rows, columns, face = rows[seen], columns[seen], face[seen]
    return _composed(image, rows, columns, _shade(meshes, faces, albedo)[face])


def _shade(meshes: Array, faces: NDArray[np.int64], albedo: Array) -> Array:
    """Lit colour (N F, 3) of every face: lamp, ambient light, and a little more from above."""
    lamp = LIGHT / np.linalg.norm(LIGHT)
    lit = []
    for mesh in meshes:
        corners = mesh[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        smooth = np.zeros_like(mesh)
        for k in range(3):
            for axis in range(3):
                smooth[:, axis] += np.bincount(faces[:, k], normal[:, axis], len(mesh))
        smooth /= np.linalg.norm(smooth, axis=1, keepdims=True) + 1e-12
        mean = smooth[faces].mean(1)
        lit.append(AMBIENT + DIFFUSE * np.maximum(mean @ lamp, 0) + SKY * (mean[:, 2] + 1) / 2)
    return np.clip(albedo * np.concatenate(lit)[:, None], 0, 255)


def _composed(
    image: Image, rows: NDArray[np.int64], columns: NDArray[np.int64], colour: Array
) -> Image:
    """Average the fine body pixels into the picture."""
    height, width = image.shape[:2]
    cell = (rows // FINE) * width + columns // FINE
    cover = np.bincount(cell, minlength=height * width)
    touched = np.flatnonzero(cover)
    flat = image.reshape(-1, 3)
    share = cover[touched] / FINE**2
    for channel in range(3):
        total = np.bincount(cell, colour[:, channel], height * width)[touched] / FINE**2
        mixed = flat[touched, channel] * (1 - share) + total
        flat[touched, channel] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return image


def _shadowed(background: Background, scene: Scene, body: BodyModel, frame: int) -> Image:
    """The empty room with a soft shadow under every foot and body."""
    image, names = background.image, body.point_names
    index = [names.index(name) for name, _, _, _ in SHADOWS]
    x, y = background.floor
    light = np.ones_like(x)
    for person in scene.points[:, frame, index].numpy().astype(np.float32):
        reach = 1.6
        rows, columns = np.nonzero(
            (np.abs(x - person[0, 0]) < reach) & (np.abs(y - person[0, 1]) < reach)
        )
        near_x, near_y = x[rows, columns], y[rows, columns]
        for point, (_, width, rest, strength) in zip(person, SHADOWS, strict=True):
            lift = max(0.0, float(point[2]) - rest)
            squared = (near_x - point[0]) ** 2 + (near_y - point[1]) ** 2
            fall = np.exp(squared / np.float32(-2 * (width + 0.5 * lift) ** 2))
            light[rows, columns] *= 1 - fall * np.float32(strength / (1 + 6 * lift))
    rows, columns = np.nonzero(light < 0.996)
    shade = light[rows, columns][:, None]
    image[rows, columns] = (image[rows, columns] * shade).astype(np.uint8)
    return image
