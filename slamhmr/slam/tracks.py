"""Background points followed through the clip: the raw material of every camera decision."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from slamhmr.masks import person_mask
from slamhmr.types import Observations, Video
from slamhmr.video import read_frames

log = logging.getLogger(__name__)

UNIT_WIDTH = 640  # thresholds in "units": px of the picture scaled to this longest side
ROUND_TRIP = 0.5  # working px, forward-backward error above which a point counts as lost
SPACING = 7  # working px between new points
REFRESH = 0.75  # new points are sought once fewer than this share of the wanted number live


@dataclass(frozen=True)
class Tracks:
    """Points with an identity, per frame; px of the full picture, first pixel centre (0.5, 0.5)."""

    ids: tuple[Int[np.ndarray, "_"], ...]  # ascending in every frame
    points: tuple[Float[np.ndarray, "_ 2"], ...]
    image_size: tuple[int, int]

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
    return within ROUND_TRIP, when a person covers it or when it leaves the picture.
    """
    from tqdm import tqdm

    follower = _Follower(video.image_size, longest_side, count)
    frames = tqdm(
        read_frames(video), total=video.frame_count, desc="camera: tracks", disable=not progress
    )
    for frame, image in frames:
        people = person_mask(observations, frame, follower.size)
        follower.step(image, ~people)
    return Tracks(tuple(follower.ids), tuple(follower.points), video.image_size)


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

    def step(self, image: np.ndarray, free: Bool[np.ndarray, "h w"]) -> None:
        """Take the next RGB frame; `free` is true on the background."""
        import cv2

        small = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        if self._grey is not None and len(self._live) > 0:
            moved, kept = _flow(self._grey, grey, self._live)
            cells = np.clip(np.round(moved).astype(int), 0, np.array(self.size) - 1)
            kept &= free[cells[:, 1], cells[:, 0]]
            self._live, self._live_ids = moved[kept], self._live_ids[kept]
        if len(self._live) < REFRESH * self.count:
            self._add(grey, free)
        self._grey = grey
        self.ids.append(self._live_ids.copy())
        self.points.append((self._live.astype(np.float64) + 0.5) * self.full)

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
    before: np.ndarray, after: np.ndarray, points: Float[np.ndarray, "P 2"]
) -> tuple[Float[np.ndarray, "P 2"], Bool[np.ndarray, "P"]]:
    """Positions of `points` in the next picture, and which came back when tracked in reverse."""
    import cv2

    settings: dict[str, Any] = {
        "winSize": (17, 17),
        "maxLevel": 4,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01),
    }
    column = np.ascontiguousarray(points[:, None])
    moved, there, _ = cv2.calcOpticalFlowPyrLK(before, after, column, None, **settings)
    back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, None, **settings)
    moved, back = moved[:, 0], back[:, 0]
    height, width = after.shape
    inside = (moved > 2).all(axis=1) & (moved < np.array([width - 3, height - 3])).all(axis=1)
    returned = np.linalg.norm(back - points, axis=1) < ROUND_TRIP
    return moved, inside & returned & (there[:, 0] == 1) & (again[:, 0] == 1)
