"""Camera paths of MegaSaM: `outputs/NAME_droid.npz` and `outputs_cvd/NAME_sgd_cvd_hr.npz`.

Source: mega-sam/mega-sam@c83e41b, camera_tracking_scripts/test_demo.py and cvd_opt/cvd_opt.py:
`images` (T,H,W,3), `depths` (T,H,W), `intrinsic` (3,3), `cam_c2w` (T,4,4), OpenCV axes. Pictures
and `intrinsic` are reduced as DROID-SLAM's are, pixel centres from 0; at most 1000 frames are
saved. Its depths are scaled by a percentile of the scene: the path's scale is arbitrary.
"""

import zipfile
from pathlib import Path

import numpy as np
import torch

from slamhmr.artifacts import read_arrays
from slamhmr.errors import InputError
from slamhmr.slam.droid_frames import Reduction
from slamhmr.types import CameraTrack

AREA = 384 * 512  # px of its reduced pictures
MOST = 1000  # frames that it saves
MOVED = 1e-6


def is_megasam(path: Path) -> bool:
    """Whether an npz is one of MegaSaM's."""
    try:
        with zipfile.ZipFile(path) as file:
            return "cam_c2w.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_megasam(
    path: Path, *, frame_count: int | None, image_size: tuple[int, int] | None
) -> CameraTrack:
    """The track of a file of MegaSaM for pictures of `image_size`, which it does not hold.

    Raises InputError where keys are missing, have wrong shapes, or fit another clip.
    """
    if image_size is None:
        raise InputError(f"'{path}' (MegaSaM) does not hold the size of the video's pictures")
    arrays = read_arrays(path, ("cam_c2w", "intrinsic"))
    if "intrinsic" not in arrays:
        raise InputError(f"'{path}' (MegaSaM) lacks intrinsic; it holds cam_c2w")
    pose, matrix = arrays["cam_c2w"], arrays["intrinsic"]
    if pose.ndim != 3 or pose.shape[1:] != (4, 4) or matrix.shape != (3, 3):
        raise InputError(
            f"'{path}' (MegaSaM): cam_c2w has shape {pose.shape} and intrinsic {matrix.shape}, not "
            "(T, 4, 4) and (3, 3)"
        )
    if frame_count is not None and len(pose) != frame_count:
        cut = f"; MegaSaM saves {MOST} frames at most" if len(pose) == MOST else ""
        raise InputError(
            f"'{path}' (MegaSaM) holds {len(pose)} poses but the sequence has {frame_count} frames"
            f"{cut}; run it on the pictures of this very clip, or keep its frames ('frames' in "
            "sequence.yaml)"
        )
    reduction = Reduction.to_area(image_size, AREA)
    _require_size(path, reduction)
    reduced = matrix.astype(np.float64)[[0, 1, 0, 1], [0, 1, 2, 2]]
    intrinsics = torch.from_numpy(reduction.full_intrinsics(reduced))
    poses = torch.from_numpy(pose.astype(np.float64))
    return CameraTrack(
        world_from_cam=poses,
        intrinsics=intrinsics.repeat(len(poses), 1),
        image_size=image_size,
        scale_known=False,
        moving=bool((poses[:, :3, 3] - poses[:1, :3, 3]).abs().max() > MOVED),
        source=f"file: {path.name} (MegaSaM)",
        notes=(f"focal length of MegaSaM: {float(intrinsics[0]):.0f} px",),
    )


def _require_size(path: Path, reduction: Reduction) -> None:
    """Raise InputError where the pictures in the file are no reduction of the video's."""
    with zipfile.ZipFile(path) as file:
        if "images.npy" not in file.namelist():
            return
        with file.open("images.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0
            if version > (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape = read(stream)[0]
    given, wanted = "{} x {}".format(*reduction.image_size), "{} x {}".format(*reduction.size)
    if shape[1:3] != reduction.size[::-1]:
        raise InputError(
            f"'{path}' (MegaSaM) was made from other pictures: it holds {shape[2]} x {shape[1]} "
            f"px, the video's {given} px give {wanted}"
        )
