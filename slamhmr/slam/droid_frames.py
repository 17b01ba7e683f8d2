"""Pictures, intrinsics and masks as DROID-SLAM takes them, and its poses as we hold them.

DROID-SLAM (princeton-vl/DROID-SLAM@2dfd39f, demo.py) reduces pictures to an area of 384 x 512 px,
cuts the right and lower edge to multiples of 8, and takes BGR. Its pixel coordinates count centres
from 0 (droid_slam/geom/projective_ops.py, coords_grid), ours from 0.5. The cut is at the far edges,
so it moves no coordinate.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.errors import BackendError, InputError
from slamhmr.geometry import invert, rigid
from slamhmr.masks import person_mask
from slamhmr.slam.gaps import bridge
from slamhmr.types import Observations, Video
from slamhmr.video import read_frames

CELL = 8  # px per cell of the network's maps
UNIT = 0.01  # how far from length 1 a quaternion of the network's float32 may be


@dataclass(frozen=True)
class Reduction:
    """From a picture to what DROID-SLAM sees of it."""

    image_size: tuple[int, int]  # width, height of the picture
    resized: tuple[int, int]  # after resizing, before the cut
    size: tuple[int, int]  # after the cut, multiples of CELL

    @classmethod
    def to_area(cls, image_size: tuple[int, int], area: int) -> "Reduction":
        """To about `area` px, as DROID-SLAM's demo does."""
        width, height = image_size
        factor = float(np.sqrt(area / (width * height)))
        resized = int(width * factor), int(height * factor)
        size = resized[0] - resized[0] % CELL, resized[1] - resized[1] % CELL
        if min(size) < CELL:
            raise InputError(f"pictures of {width} x {height} px cannot be reduced to {area} px")
        return cls(image_size, resized, size)

    @property
    def scale(self) -> Float[NDArray[np.float64], "2"]:
        """Px of the reduced picture per px of the picture, along x and y."""
        return np.array(self.resized, dtype=np.float64) / np.array(self.image_size)

    def intrinsics(
        self, intrinsics: Float[NDArray[np.float64], "4"]
    ) -> Float[NDArray[np.float64], "4"]:
        """Fx fy cx cy of the reduced picture, centre of its first pixel at 0."""
        focal, centre = intrinsics[:2] * self.scale, intrinsics[2:] * self.scale - 0.5
        return np.concatenate([focal, centre])

    def full_intrinsics(
        self, intrinsics: Float[NDArray[np.float64], "4"]
    ) -> Float[NDArray[np.float64], "4"]:
        """The inverse: fx fy cx cy of the picture, centre of its first pixel at 0.5."""
        return np.concatenate([intrinsics[:2] / self.scale, (intrinsics[2:] + 0.5) / self.scale])

    def picture(self, image: UInt8[NDArray[np.uint8], "h w 3"]) -> NDArray[np.uint8]:
        """The reduced picture (H,W,3) BGR of an RGB one."""
        import cv2

        shrinks = self.resized[0] <= self.image_size[0]
        small = cv2.resize(
            image, self.resized, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        return np.asarray(small[: self.size[1], : self.size[0], ::-1])

    def people(
        self, observations: Observations, frame: int, grow: int
    ) -> Bool[NDArray[np.bool_], "h w"]:
        """Cells (H/8, W/8) that show somebody, and `grow` cells around them."""
        import cv2

        mask = person_mask(observations, frame, self.resized)[: self.size[1], : self.size[0]]
        height, width = mask.shape
        cells = mask.reshape(height // CELL, CELL, width // CELL, CELL).any(axis=(1, 3))
        if grow == 0:
            return np.asarray(cells)
        kernel = np.ones((2 * grow + 1, 2 * grow + 1), np.uint8)
        return np.asarray(cv2.dilate(cells.astype(np.uint8), kernel) > 0)


def tracked_frames(count: int, stride: int) -> list[int]:
    """Every `stride`-th frame, and the last."""
    frames = list(range(0, count, stride))
    return frames if frames[-1] == count - 1 else [*frames, count - 1]


def write_frames(
    path: Path, video: Video, numbers: list[int], reduction: Reduction, *, progress: bool
) -> None:
    """Write the reduced pictures of some frames as one .npy file, (F,H,W,3) uint8 BGR."""
    from tqdm import tqdm

    shape = (len(numbers), reduction.size[1], reduction.size[0], 3)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    rows = {number: row for row, number in enumerate(numbers)}
    frames = tqdm(
        read_frames(video), total=video.frame_count, desc="droid: frames", disable=not progress
    )
    for number, image in frames:
        if number in rows:
            file[rows[number]] = reduction.picture(image)
    file.flush()


def camera_path(
    poses: Float[NDArray[np.float64], "F 7"], numbers: list[int], count: int
) -> Float[Tensor, "T 4 4"]:
    """World_from_cam of all `count` frames, the first at identity.

    `poses`: camera to world, tx ty tz qx qy qz qw, of the frames `numbers`; between them rotations
    are interpolated by slerp and centres linearly. Raises BackendError for poses that are none.
    """
    if poses.shape != (len(numbers), 7):
        raise BackendError(f"DROID-SLAM gave {poses.shape} for {len(numbers)} poses of 7 numbers")
    bad = np.flatnonzero(~np.isfinite(poses).all(axis=1))
    if len(bad) > 0:
        raise BackendError(
            f"DROID-SLAM's pose of frame {numbers[bad[0]]} is not finite "
            f"({len(bad)} of {len(poses)}); it lost the camera"
        )
    values = torch.from_numpy(poses)
    length = values[:, 3:].norm(dim=1, keepdim=True)
    if bool(((length - 1).abs() > UNIT).any()):
        raise BackendError("DROID-SLAM's quaternions do not have length 1")
    measured = rigid(roma.unitquat_to_rotmat(values[:, 3:] / length), values[:, :3])
    path = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    path[numbers] = invert(measured[0]) @ measured
    known = torch.zeros(count, dtype=torch.bool)
    known[numbers] = True
    return bridge(path, known)
