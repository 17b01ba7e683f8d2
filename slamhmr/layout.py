"""Which unknowns a stage frees, and where the shared ones stand among the columns of the border."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from slamhmr.cameras import MODES

ROOT_COLUMNS = 6  # pelvis 3, root rotation 3; the 63 body columns follow
POSE_COLUMNS = 63
SEGMENT_COLUMNS = 6  # rotation, offset


@dataclass(frozen=True)
class Free:
    """Which unknowns a stage moves."""

    pose: bool
    betas: bool
    scale: bool
    ground: bool
    gravity: bool = False
    focal: bool = False
    drift: int = 0  # of the cameras: 6 where they travel, 3 where they only turn
    velocity_gain: bool = False  # of everybody's predicted root velocity
    offsets: int = 0  # of everybody's keypoints in the image, in all
    segments: int = 0  # of the cameras after the first: 6 for their placement, 1 for their scale

    @property
    def columns(self) -> int:
        """Unknowns per frame."""
        return ROOT_COLUMNS + POSE_COLUMNS * self.pose


@dataclass(frozen=True)
class BorderLayout:
    """Places of the shared unknowns, in the whole border and in a chain's own.

    Order in the border: log scale, those of the segments, ground, gravity, log focal length, drift
    (mode by mode), placement of the segments (one by one), betas and gain of the predicted velocity
    of every person. A chain sees its own before the drift.
    """

    free: Free
    betas_count: int

    def _place(self, index: int) -> slice | None:
        free = self.free
        sizes = [
            free.scale, free.segments, 3 * free.ground, 2 * free.gravity, free.focal,
            MODES * free.drift, SEGMENT_COLUMNS * free.segments,
        ]  # fmt: skip
        start = sum(sizes[:index])
        return slice(start, start + sizes[index]) if sizes[index] > 0 else None

    @property
    def scale(self) -> slice | None:
        """Column of log scale; the same in the border and in every chain."""
        return self._place(0)

    @property
    def stretch(self) -> slice | None:
        """Columns of the log scales of the segments after the first; the same in every chain."""
        return self._place(1)

    @property
    def ground(self) -> slice | None:
        """Columns of the ground's two tilts and offset."""
        return self._place(2)

    @property
    def gravity(self) -> slice | None:
        """Columns of the two tilts of the direction of gravity."""
        return self._place(3)

    @property
    def focal(self) -> slice | None:
        """Column of the log of the focal length's correction."""
        return self._place(4)

    @property
    def drift(self) -> slice | None:
        """Columns of the cameras' drift in the border: per mode rotation (3), offset (3) if any."""
        return self._place(5)

    @property
    def segments(self) -> slice | None:
        """Columns of the segments' placement in the border: rotation (3), offset (3) of each."""
        return self._place(6)

    @property
    def moving(self) -> int:
        """First of the columns of a chain that move all points of a frame: drift and segments."""
        return self.fixed + self.own

    @property
    def chain_drift(self) -> slice | None:
        """Columns of the drift in a chain: after its own."""
        count = MODES * self.free.drift
        return slice(self.moving, self.moving + count) if count > 0 else None

    @property
    def chain_segments(self) -> slice | None:
        """Columns of the segments' placement in a chain: its last ones."""
        count = SEGMENT_COLUMNS * self.free.segments
        return slice(self.chain_width - count, self.chain_width) if count > 0 else None

    @property
    def fixed(self) -> int:
        """Columns before the drift."""
        free = self.free
        level = 3 * int(free.ground) + 2 * int(free.gravity)
        return int(free.scale) + free.segments + level + int(free.focal)

    @property
    def shared(self) -> int:
        """Columns of the border before the betas."""
        return self.fixed + MODES * self.free.drift + SEGMENT_COLUMNS * self.free.segments

    @property
    def betas(self) -> slice | None:
        """Columns of a person's betas in its own chain."""
        return slice(self.fixed, self.fixed + self.betas_count) if self.free.betas else None

    @property
    def gain(self) -> slice | None:
        """Column of the gain of a person's predicted root velocity in its own chain."""
        start = self.fixed + self.betas_count * self.free.betas
        return slice(start, start + 1) if self.free.velocity_gain else None

    @property
    def offsets(self) -> slice | None:
        """Columns of the constant offsets of a person's keypoints in its own chain."""
        return slice(self.moving - self.free.offsets, self.moving) if self.free.offsets else None

    @property
    def own(self) -> int:
        """Columns that each person adds to the border: betas, gain, offsets of keypoints."""
        return self.betas_count * self.free.betas + self.free.velocity_gain + self.free.offsets

    @property
    def body(self) -> slice | None:
        """Columns of a chain that change where a body's points are seen: focal length, betas."""
        start = self.fixed - int(self.free.focal)
        stop = self.fixed + self.betas_count * int(self.free.betas)
        return slice(start, stop) if stop > start else None

    @property
    def chain_width(self) -> int:
        """Border columns that one chain sees."""
        return self.shared + self.own

    def betas_of(self, person: int) -> slice:
        """Columns of a person's betas in the whole border."""
        start = self.shared + person * self.own
        return slice(start, start + self.betas_count)

    def gains(self, people: int) -> slice | None:
        """Columns of everybody's gain in the whole border."""
        first = self.shared + self.betas_count * self.free.betas
        last = self.shared + people * self.own
        return slice(first, last, self.own) if self.free.velocity_gain else None

    def offsets_of(self, person: int) -> slice:
        """Columns of the offsets of a person's keypoints in the whole border."""
        stop = self.shared + (person + 1) * self.own
        return slice(stop - self.free.offsets, stop)

    def width(self, people: int) -> int:
        """Columns of the whole border."""
        return self.shared + people * self.own

    def columns(self, person: int) -> Int[Tensor, "g"]:
        """The chain's border columns among those of the whole border."""
        first = self.shared + person * self.own
        own, drift = range(first, first + self.own), range(self.fixed, self.shared)
        return torch.tensor([*range(self.fixed), *own, *drift], dtype=torch.int64, device="cpu")
