"""SMPL motions: import of recordings, and the motion file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.errors import InputError
from slamhmr.motions.amc import read_amc
from slamhmr.motions.bvh import read_bvh
from slamhmr.motions.deepmimic import read_deepmimic
from slamhmr.motions.retarget import LEG_LENGTH, Retargeted, leg_length, retarget, rig_of
from slamhmr.motions.rigs import Rig
from slamhmr.motions.source import SourceMotion
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_PARENTS

MOTION_FPS = 30.0
LOW_PASS = 8.0  # Hz
UNCLEAN_SPEED = (
    8.0  # m/s: joints faster than this in the first second are the jump out of the T-pose
)
UNCLEAN_WINDOW, UNCLEAN_MARGIN = 1.0, 0.1  # s


@dataclass(frozen=True)
class Motion:
    """One person's SMPL motion in a z-up world; metres, rotation vectors."""

    root_orient: Float[Tensor, "T 3"]  # world_from_root
    pelvis: Float[Tensor, "T 3"]  # pelvis joint in the world
    body_pose: Float[Tensor, "T 21 3"]
    betas: Float[Tensor, "B"]
    fps: float
    tracked: tuple[bool, ...]  # 21 body joints: recorded, not filled in
    source: str


def import_motion(path: Path, *, fps: float | None = None) -> Motion:
    """SMPL motion of a .bvh, .amc (its .asf beside it) or DeepMimic .txt file, at 30 fps.

    Low-passed at 8 Hz; unclean first frames are dropped. `fps` overrides the rate of the file
    (CMU's salsa says 120 and is 60). Positions are scaled by leg length to the default body; their
    floor is that of the recording.

    Raises:
        InputError: unknown suffix, damaged file, or a skeleton that no rig fits.
    """
    readers = {".bvh": read_bvh, ".amc": read_amc, ".txt": read_deepmimic, ".json": read_deepmimic}
    if path.suffix.lower() not in readers:
        raise InputError(
            f"motion '{path}': unknown suffix '{path.suffix}'; known: {', '.join(readers)}"
        )
    source = readers[path.suffix.lower()](path)
    rig = rig_of(source)
    rate = fps if fps is not None else source.fps
    whole = retarget(source, rig)
    first = _first_clean_frame(source, rig, rate)
    body = resample(
        Retargeted(whole.rotations[first:], whole.pelvis[first:], whole.tracked), rate, MOTION_FPS
    )
    parents = list(SMPL_PARENTS[1:BODY_JOINT_COUNT])
    local = body.rotations[:, parents].transpose(-1, -2) @ body.rotations[:, 1:]
    return Motion(
        root_orient=roma.rotmat_to_rotvec(body.rotations[:, 0]),
        pelvis=body.pelvis,
        body_pose=roma.rotmat_to_rotvec(local),
        betas=torch.zeros(10, dtype=torch.float64),
        fps=MOTION_FPS,
        tracked=body.tracked,
        source=f"{path.parent.name}/{path.name}",
    )


def resample(body: Retargeted, fps: float, target_fps: float) -> Retargeted:
    """Low-pass (zero phase, 8 Hz) and linear interpolation at another rate.

    Rotations are filtered and interpolated as matrices, then projected onto SO(3). A source too
    slow to hold 8 Hz is only interpolated.
    """
    from scipy.signal import butter, sosfiltfilt

    flat = torch.cat([body.rotations.flatten(start_dim=1), body.pelvis], dim=1)
    count = len(flat)
    if fps > 2.2 * LOW_PASS and count > 30:
        sections = butter(2, LOW_PASS, fs=fps, output="sos")
        flat = torch.from_numpy(np.ascontiguousarray(sosfiltfilt(sections, flat.numpy(), axis=0)))
    times = torch.arange(0, (count - 1) / fps + 1e-9, 1 / target_fps, dtype=flat.dtype) * fps
    left = times.floor().long().clamp(0, max(count - 2, 0))
    share = (times - left)[:, None]
    mixed = flat[left] * (1 - share) + flat[(left + 1).clamp_max(count - 1)] * share
    rotations = roma.special_procrustes(mixed[:, :-3].reshape(-1, BODY_JOINT_COUNT, 3, 3))
    return Retargeted(rotations=rotations, pelvis=mixed[:, -3:], tracked=body.tracked)


def save_motion(path: Path, motion: Motion) -> None:
    """Write a motion file: npz of plain arrays."""
    np.savez_compressed(
        path,
        root_orient=motion.root_orient.numpy().astype(np.float32),
        pelvis=motion.pelvis.numpy().astype(np.float32),
        body_pose=motion.body_pose.numpy().astype(np.float32),
        betas=motion.betas.numpy().astype(np.float32),
        fps=np.float64(motion.fps),
        tracked=np.array(motion.tracked),
        source=np.array(motion.source),
    )


def load_motion(path: Path) -> Motion:
    """Read a motion file. Raises InputError if it is missing, damaged or of the wrong shapes."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        pose = torch.from_numpy(values["body_pose"]).double()
        motion = Motion(
            root_orient=torch.from_numpy(values["root_orient"]).double(),
            pelvis=torch.from_numpy(values["pelvis"]).double(),
            body_pose=pose,
            betas=torch.from_numpy(values["betas"]).double(),
            fps=float(values["fps"]),
            tracked=tuple(bool(flag) for flag in values["tracked"]),
            source=str(values["source"]),
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"motion '{path}': not a motion file ({error})") from error
    count = len(pose)
    shapes = (motion.root_orient.shape, motion.pelvis.shape, pose.shape)
    if shapes != ((count, 3), (count, 3), (count, 21, 3)) or len(motion.tracked) != 21:
        raise InputError(f"motion '{path}': arrays of shapes {shapes}, expected T x 3, 3, 21 x 3")
    return motion


def _first_clean_frame(source: SourceMotion, rig: Rig, fps: float) -> int:
    """First frame after the jump from a T-pose into the motion; 0 for a clean start."""
    scale = LEG_LENGTH / leg_length(source, rig)
    head = source.positions[: int(UNCLEAN_WINDOW * fps) + 1] * scale
    speed = (head[1:] - head[:-1]).norm(dim=-1).amax(dim=-1) * fps
    fast = torch.nonzero(speed > UNCLEAN_SPEED)[:, 0]
    if len(fast) == 0:
        return 0
    return min(int(fast[-1]) + 1 + int(UNCLEAN_MARGIN * fps), len(source.positions) - 1)
