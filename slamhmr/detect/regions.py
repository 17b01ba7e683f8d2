"""Where to look: detector windows over a frame, person regions, and pixels cut out of either.

A region is (4,) cx cy side angle: a square in px of the full image whose axis `up` is turned
clockwise by `angle` radians from the image's up. Continuous pixel coordinates, centre of the top-
left pixel at (0.5, 0.5).
"""

import numpy as np

REGION_MARGIN = 1.25  # side of the region over the diameter of the body circle, as in MediaPipe
WINDOW_LEVELS = 3  # window sizes between the short side and the smallest window
WINDOW_STEP = 0.6  # step between windows over their side: a person of 0.4 sides is whole in one
SMALLEST_PERSON = 0.25  # of a window's side; measured: smaller people are mostly missed


def detector_windows(image_size: tuple[int, int], smallest: float) -> np.ndarray:
    """Square windows (W,3) x0 y0 side, px, that show people taller than `smallest` px large.

    The first is the whole image (its longer side); others have sides from the short side down to
    `smallest / SMALLEST_PERSON` in at most `WINDOW_LEVELS` geometric steps. Windows may reach
    out of the image.
    """
    width, height = image_size
    short = float(min(image_size))
    least = min(short, max(smallest / SMALLEST_PERSON, 32.0))
    levels = 1 + min(WINDOW_LEVELS - 1, int(np.ceil(np.log(short / least) / np.log(2) - 1e-9)))
    sides = np.geomspace(short, least, levels) if levels > 1 else np.array([short])
    longest = float(max(image_size))
    windows = [[(width - longest) / 2, (height - longest) / 2, longest]]
    for side in sides:
        if side > 0.85 * longest:
            continue  # the whole image shows the same
        for top in _starts(float(height), float(side)):
            windows += [[left, top, side] for left in _starts(float(width), float(side))]
    return np.array(windows)


def _starts(length: float, side: float) -> np.ndarray:
    """Evenly spread window starts that cover 0..length."""
    count = 1 + int(np.ceil((length - side) / (WINDOW_STEP * side) - 1e-9)) if length > side else 1
    return np.linspace(0, length - side, count) if count > 1 else np.array([(length - side) / 2])


def region_from_points(centre: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """Region (4,) of a body circle given by its centre (2,), the mid hip, and rim point (2,)."""
    x, y = rim - centre
    side = 2 * REGION_MARGIN * float(np.hypot(x, y))
    return np.array([centre[0], centre[1], side, np.arctan2(x, -y)])


def image_from_region(region: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (...,2) given in a region's unit square (0..1, y down) in px of the full image."""
    cos, sin = np.cos(region[3]), np.sin(region[3])
    turned = (points - 0.5) @ np.array([[cos, sin], [-sin, cos]])
    return region[:2] + region[2] * turned


def cut_region(image: np.ndarray, region: np.ndarray, size: int) -> np.ndarray:
    """Pixels (size,size,3) of a region, black outside the image; large ones are averaged."""
    import cv2

    shrink = int(region[2] / size)
    if shrink >= 2:
        image, region = _shrunk(image, region, shrink)
    corners = image_from_region(region, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    source_from_cut = np.empty((2, 3))
    source_from_cut[:, 0] = (corners[1] - corners[0]) / size
    source_from_cut[:, 1] = (corners[2] - corners[0]) / size
    # pixel (0, 0) of either image has its centre at 0.5, OpenCV counts centres from 0
    source_from_cut[:, 2] = corners[0] + source_from_cut[:, :2].sum(axis=1) / 2 - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, source_from_cut, (size, size), flags=flags)


def _shrunk(image: np.ndarray, region: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Part of an image around a region, averaged over `by` x `by` pixels, and the region in it."""
    import cv2

    reach = region[2] / np.sqrt(2) + 2 * by
    height, width = image.shape[:2]
    low = np.clip(np.floor(region[:2] - reach), 0, [width - by, height - by]).astype(int)
    high = np.clip(np.ceil(region[:2] + reach), low + by, [width, height]).astype(int)
    count = np.maximum((high - low) // by, 1)
    high = low + count * by
    part = image[low[1] : high[1], low[0] : high[0]]
    small = cv2.resize(part, (int(count[0]), int(count[1])), interpolation=cv2.INTER_AREA)
    return small, np.array([*(region[:2] - low) / by, region[2] / by, region[3]])


def cut_window(image: np.ndarray, window: np.ndarray, size: int) -> np.ndarray:
    """Pixels (size,size,3) of an upright square window x0 y0 side, black outside the image."""
    import cv2

    height, width = image.shape[:2]
    low = np.floor(window[:2]).astype(int)
    high = np.ceil(window[:2] + window[2]).astype(int)
    inside_low, inside_high = low.clip(0), np.minimum(high, [width, height])
    out = np.zeros((size, size, 3), dtype=image.dtype)
    if (inside_high <= inside_low).any():
        return out
    scale = size / window[2]
    start = np.round((inside_low - window[:2]) * scale).astype(int).clip(0, size - 1)
    stop = np.round((inside_high - window[:2]) * scale).astype(int).clip(start + 1, size)
    part = image[inside_low[1] : inside_high[1], inside_low[0] : inside_high[0]]
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shape = (int(stop[0] - start[0]), int(stop[1] - start[1]))
    out[start[1] : stop[1], start[0] : stop[0]] = cv2.resize(part, shape, interpolation=mode)
    return out
