"""Where a video cuts from one shot to the next: hard cuts only, found on small grey frames.

Neighbouring frames are registered by dense optical flow after local contrast normalisation, which
takes out how people and camera move. What stays unexplained is compared, place by place, with the
frames around: fast motion goes on for a while, a cut is over at once. What stands out is looked at
again: new exposure or a jolt of the camera may explain it, or it was a flash. Ours.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from slamhmr.types import Video
from slamhmr.video import read_frames

LONGEST = 192  # px, longer side of the frames that are compared
LEAST_SIDE = 64  # px, to which a shorter side is stretched: OpenCV 5's flow crashes below 32
BLUR = 3  # px; finer is what compression takes away and key frames give back
CONTRAST_WINDOW = 25  # px over which contrast is normalised
CONTRAST_FLOOR = 18.0  # grey levels; what is fainter may be noise or a coarse quantiser
FLOW_GAIN = 42.0  # grey levels per unit of contrast in the image that the flow is found on
CELL = 7  # px, side of the places that are compared
REACH = 5  # frames before and after that tell what motion leaves unexplained; the shortest shot
LEAST_REACH = 2  # of them that must be there: cuts nearer to the ends are not found

# Limits: set on 21 real clips of 8-60 frames per second, thinned, compressed anew, panned, flashed.
USUAL = 1.5  # times the largest change near by, in place and time, is still motion ...
NOISE = 0.1  # ... and so much more, in units of contrast, still noise
SUDDEN = 0.006  # mean change beyond that, over the image, that makes a cut
OUTSTANDING = 1.3  # times the mean change of any frame around: somebody passing comes in steps
LASTING = 0.6  # share of `SUDDEN` that frames further apart must show as well
FLASH = 3  # frames; after a flash of this length there is again what was there before
LARGEST_GAIN = 2.5  # of contrast between two exposures: more would flatten one image to the other
LEAST_OVERLAP = 0.4  # of the image that a jolt of the camera leaves in view
LARGEST_ZOOM = 1.5
LEAST_MATCHES = (8, 0.25)  # corners, and share of those matched, that must agree on a jolt

Grey = UInt8[np.ndarray, "H W"]
Map = Float32[np.ndarray, "H W"]
Affine = Float64[np.ndarray, "2 3"]


@dataclass(frozen=True)
class Look:
    """A small frame; its local contrast, and the same as an image for the optical flow."""

    grey: Grey
    contrast: Map
    flow_image: Grey


def detect_cuts(video: Video, *, progress: bool) -> tuple[int, ...]:
    """First frames of new shots, counted from 0 among the kept frames; dissolves are not found.

    Shots shorter than `REACH` frames go unnoticed, and so does a jump in time in which only people
    who are small in the picture move. Raises InputError if the video breaks off.
    """
    from tqdm import tqdm

    frames = read_frames(video, longest=LONGEST)
    watched = tqdm(frames, "cuts", video.frame_count, disable=not progress)
    return tuple(cuts_among(image for _, image in watched))


def cuts_among(images: Iterable[UInt8[np.ndarray, "H W 3"]]) -> Iterator[int]:
    """First frames of new shots among small RGB images of one size; holds few of them at a time."""
    looks: deque[Look | None] = deque([None] * (2 * REACH + 2), maxlen=2 * REACH + 2)
    changes: deque[Map | None] = deque([None] * (2 * REACH + 1), maxlen=2 * REACH + 1)
    for number, image in enumerate(chain(images, repeat(None, REACH))):
        looks.append(None if image is None else look_at(grey_of(image)))
        before, now = looks[-2], looks[-1]
        changes.append(None if before is None or now is None else change(before, now))
        if is_cut(list(looks), list(changes)):
            yield number - REACH


def grey_of(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "_ _"]:
    """Grey levels of an RGB image, no side of it shorter than `LEAST_SIDE`."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    return cv2.resize(grey, (max(width, LEAST_SIDE), max(height, LEAST_SIDE)))


def look_at(grey: Grey) -> Look:
    """Grey image less its local mean, over its local deviation."""
    import cv2

    smooth = cv2.blur(grey, (BLUR, BLUR)).astype(np.float32)
    window = (CONTRAST_WINDOW, CONTRAST_WINDOW)
    mean = cv2.blur(smooth, window)
    variance = np.maximum(cv2.blur(smooth * smooth, window) - mean * mean, 0.0)
    contrast = (smooth - mean) / np.sqrt(variance + CONTRAST_FLOOR**2)
    return Look(grey, contrast, np.clip(128 + FLOW_GAIN * contrast, 0, 255).astype(np.uint8))


def change(first: Look, second: Look) -> Map:
    """Mean difference of contrast per place of `second` that no smooth motion explains."""
    import cv2

    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = method.calc(second.flow_image, first.flow_image, None)
    height, width = second.contrast.shape
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    moved = cv2.remap(
        first.contrast,
        flow[..., 0] + columns,
        flow[..., 1] + rows[:, None],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _places(cv2.blur(np.abs(second.contrast - moved), (CELL, CELL)))


def is_cut(looks: list[Look | None], changes: list[Map | None]) -> bool:
    """Whether the change in the middle is a cut, given the looks and changes around it."""
    now = changes[REACH]
    before = [other for other in changes[:REACH] if other is not None]
    after = [other for other in changes[REACH + 1 :] if other is not None]
    if now is None or min(len(before), len(after)) < LEAST_REACH:
        return False
    limit = usual(before + after)
    most = max(float(other.mean()) for other in before + after)
    if excess(now, limit) < SUDDEN or float(now.mean()) < OUTSTANDING * most:
        return False
    steps = range(1, FLASH + 1)
    for back, on in [(0, 0), *((0, step) for step in steps), *((step, 0) for step in steps)]:
        first, second = looks[REACH - back], looks[REACH + 1 + on]
        if first is None or second is None:
            continue
        least = SUDDEN if back == on else LASTING * SUDDEN
        if explained(first, second, limit, least, jolt=back == on):
            return False
    return True


def usual(changes: list[Map]) -> Map:
    """Change per place that motion and noise may cause, from the changes around."""
    import cv2

    largest = np.maximum.reduce(changes)
    return USUAL * cv2.dilate(largest, np.ones((3, 3), dtype=np.uint8)) + NOISE


def excess(now: Map, limit: Map) -> float:
    """Mean over the image of the change beyond a limit."""
    return float(np.maximum(now - limit, 0.0).mean())


def explained(first: Look, second: Look, limit: Map, least: float, *, jolt: bool) -> bool:
    """Whether exposure and, with `jolt`, any motion of the camera leave an excess below `least`."""
    import cv2

    toned = [
        (look_at(with_tones(first.grey, second.grey)), second),
        (first, look_at(with_tones(second.grey, first.grey))),
    ]
    size = (first.grey.shape[1], first.grey.shape[0])
    for earlier, later in toned:
        for motion in camera_motions(earlier, later) if jolt else [np.eye(2, 3)]:
            moved = cv2.warpAffine(earlier.grey, motion, size, borderMode=cv2.BORDER_REPLICATE)
            seen = _places(cv2.warpAffine(np.ones_like(earlier.grey), motion, size)) > 0
            if seen.mean() < LEAST_OVERLAP:
                continue
            left = np.where(seen, change(look_at(moved), later), np.float32(0.0))
            if excess(left, limit) < least * float(seen.mean()):
                return True
    return False


def with_tones(image: Grey, like: Grey) -> Grey:
    """Image under the rising tone curve that gives it the histogram of another.

    Left as it is where the curve would stretch or flatten more than exposures do.
    """
    gain = float(like.std()) / max(float(image.std()), 1e-6)
    if not 1 / LARGEST_GAIN < gain < LARGEST_GAIN:
        return image
    shares = [np.cumsum(np.bincount(part.ravel(), minlength=256)) for part in (image, like)]
    curve = np.searchsorted(shares[1], shares[0]).clip(0, 255).astype(np.uint8)
    return curve[image]


def camera_motions(first: Look, second: Look) -> list[Affine]:
    """Motions of the whole image that may take `first` to `second`: none, a shift, a zoom or turn.

    The shift is the peak of the phase correlation; the last one agrees with matched corners.
    """
    import cv2

    size = (first.grey.shape[1], first.grey.shape[0])
    window = cv2.createHanningWindow(size, cv2.CV_32F)
    (right, down), _ = cv2.phaseCorrelate(first.contrast * window, second.contrast * window)
    motions: list[Affine] = [np.eye(2, 3), np.array([[1.0, 0.0, right], [0.0, 1.0, down]])]
    corners = cv2.ORB.create(300, fastThreshold=8, edgeThreshold=12, patchSize=24)
    (here, first_signs), (there, second_signs) = (
        corners.detectAndCompute(look.flow_image, None) for look in (first, second)
    )
    if first_signs is None or second_signs is None:
        return motions
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first_signs, second_signs)
    needed = max(LEAST_MATCHES[0], LEAST_MATCHES[1] * len(matches))
    if len(matches) < needed:
        return motions
    source = np.array([here[match.queryIdx].pt for match in matches], dtype=np.float32)
    target = np.array([there[match.trainIdx].pt for match in matches], dtype=np.float32)
    motion, agreeing = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=3.0)
    if motion is not None and agreeing.sum() >= needed:
        zoom = float(np.sqrt(abs(np.linalg.det(motion[:, :2]))))
        if 1 / LARGEST_ZOOM < zoom < LARGEST_ZOOM:
            motions.append(motion)
    return motions


def _places(image: np.ndarray) -> np.ndarray:
    """The pixels in the middle of the places."""
    return image[CELL // 2 :: CELL, CELL // 2 :: CELL]
