"""Background points followed through the clip: the raw material of every camera decision."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from slamhmr.masks import person_mask
from slamhmr.types import Observations, Video
from slamhmr.video import read_frames

log = logging.getLogger(__name__)

UNIT_WIDTH = 640  # thresholds in "units": px of the picture scaled to this longest side
ROUND_TRIP = 0.5  # working px, forward-backward error above which a point counts as lost
SPACING = 7  # working px between new points
RECOVER = 24  # points; with fewer left, those of the last frame with more are sought again ...
# Share of the points that must go on; after a hard change 3 % seem to come back by chance.
TIED = 0.08
PATIENCE = 60  # ... for so many frames
REFRESH = 0.75  # new points are sought once fewer than this share of the wanted number live


@dataclass(frozen=True)
class Tracks:
    """Points with an identity, per frame; px of the full picture, first pixel centre (0.5, 0.5)."""

    ids: tuple[Int[np.ndarray, "_"], ...]  # ascending in every frame
    points: tuple[Float[np.ndarray, "_ 2"], ...]
    image_size: tuple[int, int]
    # Frames after a loss in which points of an earlier frame were found again: (earlier, later).
    links: tuple[tuple[int, int], ...] = ()
    numbers: tuple[int, ...] | None = None  # of the frames in the clip; None: all of them

    def number(self, frame: int) -> int:
        """Number in the clip of a frame of these tracks."""
        return frame if self.numbers is None else self.numbers[frame]

    def only(self, frames: Sequence[int]) -> "Tracks":
        """The tracks in some of the frames."""
        return Tracks(
            tuple(self.ids[frame] for frame in frames),
            tuple(self.points[frame] for frame in frames),
            self.image_size,
            numbers=tuple(self.number(frame) for frame in frames),
        )

    @property
    def unit(self) -> float:
        """Full-size px per px of a picture whose longest side is UNIT_WIDTH."""
        return max(self.image_size) / UNIT_WIDTH

    def shared(
        self, first: int, second: int
    ) -> tuple[Int[np.ndarray, "P"], Float[np.ndarray, "P 2"], Float[np.ndarray, "P 2"]]:
        """Identities seen in both frames and their image points in each."""
        ids, a, b = np.intersect1d(
            self.ids[first], self.ids[second], assume_unique=True, return_indices=True
        )
        return ids, self.points[first][a], self.points[second][b]


def follow_background(
    video: Video, observations: Observations, *, longest_side: int, count: int, progress: bool
) -> Tracks:
    """Follow up to `count` corners that lie on nobody, by pyramidal Lucas-Kanade, frame to frame.

    Works on the grey picture reduced to `longest_side`; a point ends when tracking back does not
    return within ROUND_TRIP, when a person covers it or when it leaves the picture. After a loss
    (a flash, a hand before the lens) the points of the last good frame are sought for a while.
    """
    from tqdm import tqdm

    follower = _Follower(video.image_size, longest_side, count)
    frames = tqdm(
        read_frames(video), total=video.frame_count, desc="camera: tracks", disable=not progress
    )
    for frame, image in frames:
        people = person_mask(observations, frame, follower.size)
        follower.step(image, ~people)
    links = tuple(follower.links)
    return Tracks(tuple(follower.ids), tuple(follower.points), video.image_size, links)


@dataclass(frozen=True)
class _Sight:
    """What was followed in one frame, working px."""

    frame: int
    grey: UInt8[np.ndarray, "h w"]
    points: Float32[np.ndarray, "P 2"]
    ids: Int[np.ndarray, "P"]


class _Follower:
    """State of the tracker between two frames; points are working px, first pixel centre at 0."""

    def __init__(self, image_size: tuple[int, int], longest_side: int, count: int) -> None:
        self.scale = min(1.0, longest_side / max(image_size))
        self.size = (round(image_size[0] * self.scale), round(image_size[1] * self.scale))
        self.full = np.array(image_size) / np.array(self.size)  # full px per working px
        self.count = count
        self.ids: list[np.ndarray] = []
        self.points: list[np.ndarray] = []
        self._next = 0
        self._grey: np.ndarray | None = None
        self._live = np.zeros((0, 2), np.float32)
        self._live_ids = np.zeros(0, np.int64)
        self._good: _Sight | None = None  # the last frame before a loss
        self._waited = 0  # frames since then
        self.links: list[tuple[int, int]] = []

    def step(self, image: np.ndarray, free: Bool[np.ndarray, "h w"]) -> None:
        """Take the next RGB frame; `free` is true on the background."""
        import cv2

        small = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        enough = max(RECOVER, TIED * len(self._live))
        if self._grey is not None and len(self._live) > 0:
            moved, kept = _flow(self._grey, grey, self._live)
            kept &= self._on_background(moved, free)
            self._live, self._live_ids = moved[kept], self._live_ids[kept]
        if self._waited > 0 or len(self._live) < enough:
            self._find_again(grey, free)
        if len(self._live) < REFRESH * self.count:
            self._add(grey, free)
        self._grey = grey
        self.ids.append(self._live_ids.copy())
        self.points.append((self._live.astype(np.float64) + 0.5) * self.full)
        if self._waited == 0 and len(self._live) >= RECOVER:
            self._good = _Sight(len(self.ids) - 1, grey, self._live, self._live_ids)

    def _on_background(self, points: np.ndarray, free: np.ndarray) -> Bool[np.ndarray, "P"]:
        cells = np.clip(np.round(points).astype(int), 0, np.array(self.size) - 1)
        return np.asarray(free[cells[:, 1], cells[:, 0]])

    def _find_again(self, grey: np.ndarray, free: np.ndarray) -> None:
        """After a loss, add the points of the last good frame that are found in this one."""
        if self._good is None:
            return
        self._waited += 1
        moved, kept = _flow(self._good.grey, grey, self._good.points, aligned=True)
        kept &= self._on_background(moved, free) & ~np.isin(self._good.ids, self._live_ids)
        found = kept.sum() >= max(RECOVER, TIED * len(kept))
        if found:
            self.links.append((self._good.frame, len(self.ids)))
            self._live = np.concatenate([moved[kept], self._live])
            self._live_ids = np.concatenate([self._good.ids[kept], self._live_ids])
            order = np.argsort(self._live_ids)
            self._live, self._live_ids = self._live[order], self._live_ids[order]
        if found or self._waited > PATIENCE:
            self._waited = 0

    def _add(self, grey: np.ndarray, free: np.ndarray) -> None:
        """Seek new corners away from the living ones."""
        import cv2

        allowed = free.astype(np.uint8)
        allowed = cv2.erode(allowed, np.ones((5, 5), np.uint8))
        for x, y in self._live:
            cv2.circle(allowed, (int(x), int(y)), SPACING, 0, -1)
        wanted = self.count - len(self._live)
        found = cv2.goodFeaturesToTrack(grey, wanted, 0.003, SPACING, mask=allowed, blockSize=5)
        if found is None:
            return
        new = found.reshape(-1, 2)
        self._live = np.concatenate([self._live, new])
        self._live_ids = np.concatenate([self._live_ids, self._next + np.arange(len(new))])
        self._next += len(new)


def _flow(
    before: np.ndarray,
    after: np.ndarray,
    points: Float[np.ndarray, "P 2"],
    *,
    aligned: bool = False,
) -> tuple[Float[np.ndarray, "P 2"], Bool[np.ndarray, "P"]]:
    """Positions of `points` in the next picture, and which came back when tracked in reverse.

    `aligned` begins where the shift of the whole picture takes them, for pictures far apart.
    """
    import cv2

    settings: dict[str, Any] = {
        "winSize": (17, 17),
        "maxLevel": 4,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01),
    }
    column = np.ascontiguousarray(points[:, None])
    shift: Float32[np.ndarray, "2"] = np.zeros(2, np.float32)
    if aligned:
        window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
        pair = [np.float32(image) for image in (before, after)]
        shift = np.array(cv2.phaseCorrelate(pair[0], pair[1], window)[0], np.float32)
    settings["flags"] = cv2.OPTFLOW_USE_INITIAL_FLOW
    moved, there, _ = cv2.calcOpticalFlowPyrLK(before, after, column, column + shift, **settings)
    back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, moved - shift, **settings)
    moved, back = moved[:, 0], back[:, 0]
    height, width = after.shape
    inside = (moved > 2).all(axis=1) & (moved < np.array([width - 3, height - 3])).all(axis=1)
    returned = np.linalg.norm(back - points, axis=1) < ROUND_TRIP
    return moved, inside & returned & (there[:, 0] == 1) & (again[:, 0] == 1)
