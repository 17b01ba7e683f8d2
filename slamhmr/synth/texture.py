"""Procedural textures that never repeat: planks, painted walls with pictures, crates. RGB uint8."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Image = NDArray[np.uint8]


def speckle(shape: tuple[int, int], rng: np.random.Generator, octaves: int = 5) -> Array:
    """Noise (H,W) of unit deviation, equally strong from one pixel to 2^octaves pixels."""
    import cv2

    height, width = shape
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        coarse = (max(2, height >> octave), max(2, width >> octave))
        layer = rng.standard_normal(coarse).astype(np.float32)
        total += cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC)
    return total / total.std()


def floor_texture(
    shape: tuple[int, int], pixels_per_metre: float, rng: np.random.Generator
) -> Image:
    """Planks of different lengths and browns, with grain and knots."""
    import cv2

    height, width = shape
    image = np.zeros((height, width, 3), dtype=np.float32)
    plank = max(8, int(0.19 * pixels_per_metre))
    base = np.array([172, 134, 94], dtype=np.float32) * rng.uniform(0.85, 1.1)
    for top in range(0, height, plank):
        left = -int(rng.uniform(0, 1.5) * pixels_per_metre)
        while left < width:
            length = int(rng.uniform(0.6, 1.9) * pixels_per_metre)
            colour = base * rng.uniform(0.72, 1.22) + rng.normal(0, 3, 3).astype(np.float32)
            image[top : top + plank, max(left, 0) : max(left + length, 0)] = colour
            cv2.line(image, (left, top), (left, top + plank), (30, 22, 14), 2)
            left += length
        cv2.line(image, (0, top), (width, top), (38, 28, 18), 1)
    grain = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 6, sigmaY=0.7)
    image += 26 * (grain / grain.std())[..., None] * 0.5 + 9 * speckle(shape, rng)[..., None]
    for _ in range(int(height * width / pixels_per_metre**2 * 5)):
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(2, 7)), int(rng.integers(1, 4)))
        cv2.ellipse(image, spot, axes, rng.uniform(0, 180), 0, 360, (52, 36, 22), -1)
    return np.clip(image, 0, 255).astype(np.uint8)


def wall_texture(
    shape: tuple[int, int], pixels_per_metre: float, rng: np.random.Generator
) -> Image:
    """Plaster with stains, a skirting board and pictures of all sizes."""
    import cv2

    height, width = shape
    paint = np.array([178, 176, 168], dtype=np.float32) + rng.normal(0, 14, 3)
    image = np.empty((height, width, 3), dtype=np.float32)
    image[:] = paint
    image += 11 * speckle(shape, rng, 7)[..., None]
    count = int(height * width / pixels_per_metre**2 * 0.9)
    for _ in range(count):
        size = (rng.uniform(0.25, 0.95, 2) * pixels_per_metre).astype(int)
        x, y = int(rng.integers(-20, width)), int(rng.uniform(0.03, 0.72) * height)
        picture = _picture((int(size[1]), int(size[0])), rng)
        tall, wide = min(len(picture), height - y), min(picture.shape[1], width - max(x, 0))
        if tall > 4 and wide > 4:
            image[y : y + tall, max(x, 0) : max(x, 0) + wide] = picture[:tall, :wide]
    board = int(0.1 * pixels_per_metre)
    image[height - board :] = paint * 0.45 + 6 * speckle((board, width), rng)[..., None]
    cv2.line(image, (0, height - board), (width, height - board), (40, 38, 35), 2)
    return np.clip(image, 0, 255).astype(np.uint8)


def crate_texture(shape: tuple[int, int], rng: np.random.Generator, brightness: float) -> Image:
    """One face of a crate: boards, frame and a label."""
    import cv2

    height, width = shape
    colour = rng.uniform(70, 170, 3).astype(np.float32)
    image = np.empty((height, width, 3), dtype=np.float32)
    image[:] = colour
    image += 14 * speckle(shape, rng, 4)[..., None]
    for x in np.sort(rng.integers(4, width - 4, 4)):
        cv2.line(image, (int(x), 0), (int(x), height), tuple((0.4 * colour).tolist()), 1)
    cv2.rectangle(image, (1, 1), (width - 2, height - 2), tuple((0.55 * colour).tolist()), 4)
    label = _picture((height // 3, width // 2), rng)
    image[height // 4 : height // 4 + len(label), width // 4 : width // 4 + label.shape[1]] = label
    return np.clip(image * brightness, 0, 255).astype(np.uint8)


def _picture(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """A framed picture of random shapes: corners at every size."""
    import cv2

    height, width = max(shape[0], 12), max(shape[1], 12)
    image = np.empty((height, width, 3), dtype=np.float32)
    image[:] = rng.uniform(30, 235, 3)
    for _ in range(rng.integers(8, 26)):
        colour = tuple(rng.uniform(10, 245, 3).tolist())
        a = (int(rng.integers(width)), int(rng.integers(height)))
        kind = rng.integers(3)
        if kind == 0:
            cv2.circle(image, a, int(rng.integers(2, max(3, min(height, width) // 4))), colour, -1)
        elif kind == 1:
            b = (a[0] + int(rng.integers(3, 40)), a[1] + int(rng.integers(3, 40)))
            cv2.rectangle(image, a, b, colour, -1)
        else:
            corners = rng.integers(0, [width, height], (3, 2)).astype(np.int32)
            cv2.fillConvexPoly(image, corners, colour)
    # Half way to a common ink: pictures of one print, not of a paint box.
    image = 0.55 * image + 0.45 * image.mean(-1, keepdims=True)
    image += 7 * speckle((height, width), rng, 3)[..., None]
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), (35, 30, 28), 3)
    return image
