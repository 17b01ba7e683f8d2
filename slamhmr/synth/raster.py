"""Small triangles into a depth buffer, all faces of a size at once, in numpy.

A body's 27,000 faces cover a few pixels each: testing every pixel of a small window around each is
cheap, and the nearest face per pixel is one `minimum.at` over keys that hold depth and face.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pixels = NDArray[np.float32]
WINDOWS = (2, 3, 4, 6, 8, 12, 20, 40, 80)  # px; faces wider than the last are left out
DEPTH_STEPS = 20_000  # per metre
FACE_BITS = 20
EMPTY = np.iinfo(np.int64).max
NEAREST = 0.15  # m


def rasterise(
    buffer: NDArray[np.int64],
    corners: NDArray[np.float64],
    first_face: int,
) -> None:
    """Draw triangles (F,3,3) of x px, y px, depth m into `buffer` (H,W) of keys.

    Faces seen from behind are skipped: those whose corners turn clockwise in the picture.
    """
    height, width = buffer.shape
    xy, depth = corners[..., :2], corners[..., 2]
    edge1, edge2 = xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    low = np.ceil(xy.min(1) - 0.5).astype(np.int64)
    high = np.floor(xy.max(1) - 0.5).astype(np.int64)
    size = (high - low).max(-1) + 1
    drawn = (area < -1e-9) & (size > 0) & (depth.min(1) > NEAREST)
    drawn &= (high >= 0).all(-1) & (low[:, 0] < width) & (low[:, 1] < height)
    flat, smallest = buffer.reshape(-1), 0
    for window in WINDOWS:
        chosen = np.flatnonzero(drawn & (size > smallest) & (size <= window))
        smallest = window
        if chosen.size > 0:
            _draw(flat, (height, width), corners[chosen], low[chosen], chosen + first_face, window)


def _draw(
    flat: NDArray[np.int64],
    shape: tuple[int, int],
    corners: Array,
    low: NDArray[np.int64],
    face: NDArray[np.int64],
    window: int,
) -> None:
    """Test a window x window block of pixel centres against each face."""
    offset = np.arange(window)
    x = low[:, 0, None, None] + offset[None, None, :]
    y = low[:, 1, None, None] + offset[None, :, None]
    base = corners[:, 0, :2]
    a, b = corners[:, 1, :2] - base, corners[:, 2, :2] - base
    inverse = 1 / (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    dx = (x + 0.5 - base[:, 0, None, None]).astype(np.float32)
    dy = (y + 0.5 - base[:, 1, None, None]).astype(np.float32)
    first = _combine(dx, dy, b[:, 1] * inverse, -b[:, 0] * inverse)
    second = _combine(dx, dy, -a[:, 1] * inverse, a[:, 0] * inverse)
    inside = (first >= 0) & (second >= 0) & (first + second <= 1)
    inside &= (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    which, row, column = np.nonzero(inside)
    z = corners[which, 0, 2]
    z = z + first[which, row, column] * (corners[which, 1, 2] - z)
    z = z + second[which, row, column] * (corners[which, 2, 2] - corners[which, 0, 2])
    keys = ((z * DEPTH_STEPS).astype(np.int64) << FACE_BITS) | face[which]
    place = (low[which, 1] + row) * shape[1] + low[which, 0] + column
    np.minimum.at(flat, place, keys)


def _combine(dx: Pixels, dy: Pixels, p: Array, q: Array) -> Pixels:
    return dx * p[:, None, None].astype(np.float32) + dy * q[:, None, None].astype(np.float32)


def decode(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """Face number and depth, m, of keys that are not `EMPTY`."""
    return keys & ((1 << FACE_BITS) - 1), (keys >> FACE_BITS) / DEPTH_STEPS
