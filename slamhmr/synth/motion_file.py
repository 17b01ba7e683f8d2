"""Motion of one person read from an npz of SMPL parameters, resampled to the scene's frame rate."""

from pathlib import Path

import numpy as np
import roma
import torch
from numpy.typing import NDArray

from slamhmr import artifacts
from slamhmr.body import BodyModel, forward_points, pelvis_from_transl, rest_points
from slamhmr.errors import InputError
from slamhmr.skeleton import CONTACT_POINTS
from slamhmr.synth.motions import Motion

Array = NDArray[np.float64]
CONTACT_HEIGHT, CONTACT_SPEED = 0.05, 0.3  # m above the lowest foot, m/s: on the floor below both
RATE_KEYS = ("fps", "mocap_framerate", "mocap_frame_rate")
# Names under which the field keeps the same arrays: this project, AMASS, SMPL-X tools.
ORIENT_KEYS, TRANSL_KEYS = ("root_orient", "global_orient"), ("transl", "trans")


def read_motion(
    path: Path, frames: int, fps: float, body: BodyModel, betas: Array, rng: np.random.Generator
) -> Motion:
    """Random piece of `frames` frames at `fps` of a motion file, z up, put on the floor.

    Keys: `root_orient` (T,3) and `body_pose` (T,63) or `poses` (T,66 or more); `transl` or
    `trans` (T,3); `fps` or `mocap_framerate`; `contacts` (T,4), without which they come from height
    and speed of heels and toes, so that they are not exact. `slamhmr import-motion` writes such
    files. Raises InputError for a missing or damaged file, missing keys, wrong shapes, or a motion
    that is shorter than the scene.
    """
    arrays = artifacts.read_arrays(path)
    pose, transl, rate = _read(arrays, path)
    seconds = (len(pose) - 1) / rate
    needed = (frames - 1) / fps
    if seconds + 1e-6 < needed:
        raise InputError(
            f"motion '{path}' lasts {seconds:.1f} s, the scene {needed:.1f} s; ask for fewer frames"
        )
    start = rng.uniform(0, max(seconds - needed, 0))
    at = np.clip((start + np.arange(frames) / fps) * rate, 0, len(pose) - 1)
    rotations = _slerp(pose.reshape(len(pose), 22, 3), at)
    place = np.stack([np.interp(at, np.arange(len(transl)), transl[:, k]) for k in range(3)], -1)
    shape = torch.from_numpy(betas)[None]
    root, joints = rotations[None, :, 0], rotations[None, :, 1:]
    pelvis = pelvis_from_transl(body, shape, torch.from_numpy(place)[None])
    points, _ = forward_points(body, shape, root, pelvis, joints)
    index = [body.point_names.index(name) for name in CONTACT_POINTS]
    feet = points[0][:, index].numpy()
    rest = _sole_below_toes(body, shape)
    floor = float(np.quantile(feet[..., 2].min(1), 0.02)) - rest
    shifted = pelvis[0].numpy() - np.array([0.0, 0.0, floor])
    down = _contacts(arrays, len(pose), at, path) if "contacts" in arrays else _slow(feet, fps)
    seated = np.zeros(frames, dtype=bool)
    return Motion(root[0].numpy(), shifted, joints[0].numpy(), down, (), (), seated)


def _contacts(arrays: artifacts.Arrays, count: int, at: Array, path: Path) -> NDArray[np.bool_]:
    """The file's contacts (n,4) at fractional frames `at`."""
    contacts = _track(_first(arrays, ("contacts",), path))
    if contacts.shape != (count, len(CONTACT_POINTS)):
        raise InputError(f"motion '{path}' holds contacts {contacts.shape}, expected ({count}, 4)")
    down: NDArray[np.bool_] = contacts[np.round(at).astype(int)] > 0.5
    return down


def _slow(feet: Array, fps: float) -> NDArray[np.bool_]:
    """Which of the points (n,4,3) are low and slow."""
    speed = np.linalg.norm(np.gradient(feet, axis=0), axis=-1) * fps
    low: NDArray[np.bool_] = feet[..., 2] - feet[..., 2].min() < CONTACT_HEIGHT
    return low & (speed < CONTACT_SPEED)


def _sole_below_toes(body: BodyModel, shape: torch.Tensor) -> float:
    """Height of the lowest contact point above the sole when standing flat, m."""
    heights = body.v_template[:, 1] + body.shapedirs[:, 1] @ shape[0]
    index = [body.point_names.index(name) for name in CONTACT_POINTS]
    return float(rest_points(body, shape)[0, index, 1].min() - heights.min())


def _read(arrays: artifacts.Arrays, path: Path) -> tuple[Array, Array, float]:
    """Pose (T,66), translation (T,3) and frame rate; of a result with several people the first."""
    transl = _track(_first(arrays, TRANSL_KEYS, path))
    rate = float(_first(arrays, RATE_KEYS, path))
    if "poses" in arrays:
        pose = _track(_first(arrays, ("poses",), path))[:, :66]
    else:
        orient = _track(_first(arrays, ORIENT_KEYS, path))
        joints = _first(arrays, ("body_pose",), path)
        if joints.shape[-1] == 3:
            joints = joints.reshape(*joints.shape[:-2], -1)
        joints = _track(joints)[:, :63]
        pose = np.concatenate([orient, joints], axis=1)
    if pose.shape[1] != 66 or transl.shape != (len(pose), 3) or len(pose) < 2 or rate <= 0:
        raise InputError(
            f"motion '{path}' holds poses {pose.shape} and translations {transl.shape} at "
            f"{rate} fps; (T,66) and (T,3) at a positive rate are needed"
        )
    return pose, transl, rate


def _track(array: Array) -> Array:
    """First person of (N,T,D), or (T,D) as it is."""
    return array[0] if array.ndim == 3 else array


def _first(arrays: artifacts.Arrays, keys: tuple[str, ...], path: Path) -> Array:
    for key in keys:
        if key in arrays:
            return arrays[key].astype(np.float64)
    raise InputError(f"motion '{path}' holds none of {', '.join(keys)}")


def _slerp(pose: Array, at: Array) -> torch.Tensor:
    """Rotation matrices (n,22,3,3) at fractional frames `at`."""
    left = np.minimum(at.astype(int), len(pose) - 2)
    share = torch.from_numpy(at - left)[:, None, None]
    matrices = roma.rotvec_to_rotmat(torch.from_numpy(pose))
    before, after = matrices[left], matrices[left + 1]
    turn = roma.rotmat_to_rotvec(before.transpose(-1, -2) @ after)
    return before @ roma.rotvec_to_rotmat(share * turn)
