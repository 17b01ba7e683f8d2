"""SMPL motions: import of recordings, and the motion file."""

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.artifacts import read_arrays, write_arrays
from slamhmr.body import BodyModel, load_body, transl_from_pelvis
from slamhmr.errors import InputError
from slamhmr.motions.amass import read_amass
from slamhmr.motions.amc import read_amc
from slamhmr.motions.bvh import read_bvh
from slamhmr.motions.deepmimic import read_deepmimic
from slamhmr.motions.floor import floor_contacts, floor_height, foot_points, softened
from slamhmr.motions.limits import within_limits
from slamhmr.motions.plant import Posed, plant_feet
from slamhmr.motions.retarget import LEG_LENGTH, Retargeted, leg_length, retarget, rig_of
from slamhmr.motions.rigs import Rig
from slamhmr.motions.source import SourceMotion
from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_PARENTS

MOTION_FPS = 30.0
SUFFIXES = (".bvh", ".amc", ".txt", ".json", ".npz")
LOW_PASS = 8.0  # Hz
# The jump out of the T-pose that opens a file: some joint at 50-180 m/s between the first frames,
# then a few frames of settling. Kicks and runs reach 14 m/s.
JUMP_SPEED, SETTLED_SPEED = 30.0, 8.0  # m/s
JUMP_WINDOW, JUMP_MARGIN = 0.06, 0.1  # s
TRAVEL, BOB = 1.0, 0.01  # m; a walk raises the pelvis by 0.03-0.06, CMU's 002_01-03 by < 0.001
# CMU's salsa (subjects 60 and 61) was recorded at 60 fps, as the index of all trials says, but its
# files say 120: at 120 the dancers are twice too fast.
SALSA = re.compile(r"(^|/)salsa/\d+\.bvh$|(^|[/_])6[01]_\d+\.(bvh|amc)$")
SALSA_FPS = 60.0


class LostHeight(InputError):
    """A recording whose exporter dropped the vertical motion of the pelvis."""


@dataclass(frozen=True)
class Motion:
    """One person's SMPL motion in a z-up world, floor at 0; metres, rotation vectors."""

    root_orient: Float[Tensor, "T 3"]  # world_from_root
    pelvis: Float[Tensor, "T 3"]  # pelvis joint in the world
    transl: Float[Tensor, "T 3"]  # SMPL's translation of the default body: pelvis - its rest place
    body_pose: Float[Tensor, "T 21 3"]
    betas: Float[Tensor, "B"]
    fps: float
    tracked: tuple[bool, ...]  # 21 body joints: recorded, not filled in
    contacts: Float[Tensor, "T 4"]  # left heel, left toe, right heel, right toe; 0..1
    source: str


def import_motion(path: Path, *, fps: float | None = None) -> Motion:
    """SMPL motion of a .bvh, .amc (its .asf beside it), DeepMimic or AMASS file, at 30 fps.

    Low-passed at 8 Hz; unclean first frames are dropped, feet and heads turned over put right.
    `fps` overrides the rate of the file. Positions are scaled by leg length to the default body and
    put on a floor at 0.

    Raises:
        InputError: unknown suffix, damaged file, a skeleton that no rig fits, a wrong rate.
        LostHeight: the pelvis travels without ever rising or sinking.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"frame rate {fps} must be positive")
    body = load_body()
    if path.suffix.lower() == ".npz":
        whole, rate = read_amass(path, body)
    else:
        whole, rate = _read_skeleton(path, fps)
    extent = whole.pelvis.amax(dim=0) - whole.pelvis.amin(dim=0)
    if float(extent[:2].norm()) > TRAVEL and float(extent[2]) < BOB:
        raise LostHeight(f"motion '{path}': the file has lost the rise and fall of the pelvis")
    clean = resample(whole, fps if fps is not None else rate, MOTION_FPS)
    parents = list(SMPL_PARENTS[1:BODY_JOINT_COUNT])
    local = clean.rotations[:, parents].transpose(-1, -2) @ clean.rotations[:, 1:]
    local, tracked = within_limits(local, clean.tracked)
    return grounded(
        body, clean.rotations[:, 0], clean.pelvis, local, tracked,
        source=f"{path.parent.name}/{path.name}",
    )  # fmt: skip


def grounded(
    body: BodyModel,
    root: Float[Tensor, "T 3 3"],
    pelvis: Float[Tensor, "T 3"],
    joints: Float[Tensor, "T 21 3 3"],
    tracked: tuple[bool, ...],
    *,
    source: str,
) -> Motion:
    """Motion of the mean shape at 30 fps: floor and contacts from its feet, which then stand."""
    feet = foot_points(body, root, pelvis, joints)
    down = torch.tensor([0.0, 0.0, floor_height(feet, MOTION_FPS)], dtype=pelvis.dtype)
    posed = Posed(root, pelvis - down, joints)
    contacts = floor_contacts(feet - down, posed.pelvis, MOTION_FPS)
    return as_motion(
        body, plant_feet(body, posed, contacts, MOTION_FPS), contacts, tracked, source=source
    )


def as_motion(
    body: BodyModel,
    posed: Posed,
    contacts: Bool[Tensor, "T 4"],
    tracked: tuple[bool, ...],
    *,
    source: str,
) -> Motion:
    """Motion file's arrays of a posed mean shape at 30 fps."""
    betas = torch.zeros(body.shapedirs.shape[-1], dtype=posed.pelvis.dtype)
    return Motion(
        root_orient=roma.rotmat_to_rotvec(posed.root),
        pelvis=posed.pelvis,
        transl=transl_from_pelvis(body, betas[None], posed.pelvis[None])[0],
        body_pose=roma.rotmat_to_rotvec(posed.joints),
        betas=betas,
        fps=MOTION_FPS,
        tracked=tracked,
        contacts=softened(contacts),
        source=source,
    )


def _read_skeleton(path: Path, fps: float | None) -> tuple[Retargeted, float]:
    """Retargeted motion without its unclean first frames, and its frame rate."""
    readers = {".bvh": read_bvh, ".amc": read_amc, ".txt": read_deepmimic, ".json": read_deepmimic}
    if path.suffix.lower() not in readers:
        raise InputError(
            f"motion '{path}': unknown suffix '{path.suffix}'; known: {', '.join(SUFFIXES)}"
        )
    source = readers[path.suffix.lower()](path)
    rig = rig_of(source)
    rate = fps if fps is not None else source.fps
    if fps is None and SALSA.search(path.resolve().as_posix()):
        rate = SALSA_FPS
    whole = retarget(source, rig)
    first = _first_clean_frame(source, rig, rate)
    return Retargeted(whole.rotations[first:], whole.pelvis[first:], whole.tracked), rate


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
    """Write a motion file: npz of plain arrays, whole or not at all."""
    floats = {f.name: getattr(motion, f.name) for f in fields(Motion)}
    arrays = {
        name: v.numpy().astype(np.float32) for name, v in floats.items() if torch.is_tensor(v)
    }
    arrays["fps"] = np.array(motion.fps)
    arrays["tracked"] = np.array(motion.tracked)
    arrays["source"] = np.array(motion.source)
    write_arrays(path, arrays)


def load_motion(path: Path) -> Motion:
    """Read a motion file. Raises InputError if it is missing, damaged or of the wrong shapes."""
    names = [f.name for f in fields(Motion)]
    values = read_arrays(path)
    lacking = [name for name in names if name not in values]
    if lacking:
        raise InputError(
            f"motion '{path}': lacks {', '.join(lacking)}; make it again with slamhmr import-motion"
        )
    count = len(values["body_pose"])
    shapes = {
        "root_orient": (3,),
        "pelvis": (3,),
        "transl": (3,),
        "body_pose": (21, 3),
        "contacts": (4,),
    }
    wrong = [name for name, shape in shapes.items() if values[name].shape != (count, *shape)]
    if wrong or values["tracked"].shape != (21,) or values["betas"].ndim != 1:
        raise InputError(
            f"motion '{path}': {', '.join(wrong) or 'tracked or betas'} of a wrong shape"
        )
    tensors = {name: torch.from_numpy(values[name]).double() for name in (*shapes, "betas")}
    return Motion(
        **tensors,
        fps=float(values["fps"]),
        tracked=tuple(bool(flag) for flag in values["tracked"]),
        source=str(values["source"]),
    )


def _first_clean_frame(source: SourceMotion, rig: Rig, fps: float) -> int:
    """First frame after the jump from a T-pose into the motion; 0 for a clean start."""
    scale = LEG_LENGTH / leg_length(source, rig)
    head = source.positions[: round(2 * JUMP_WINDOW * fps) + 2] * scale
    speed = (head[1:] - head[:-1]).norm(dim=-1).amax(dim=-1) * fps
    if not bool((speed[: round(JUMP_WINDOW * fps) + 1] > JUMP_SPEED).any()):
        return 0
    fast = torch.nonzero(speed > SETTLED_SPEED)[:, 0]
    return min(int(fast[-1]) + 1 + round(JUMP_MARGIN * fps), len(source.positions) - 1)
