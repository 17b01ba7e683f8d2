"""People from an `observations.npz` that any other detector wrote."""

from pathlib import Path

import numpy as np
import torch

from slamhmr.artifacts import read_arrays
from slamhmr.detect.observe import keypoint_boxes
from slamhmr.errors import InputError
from slamhmr.skeleton import KEYPOINTS, canonical_keypoint
from slamhmr.types import Observations

REQUIRED = ("person_id", "keypoints", "confidence", "keypoint_names", "image_size", "fps")
OPTIONAL = ("boxes", "timestamps")
Arrays = dict[str, np.ndarray]


def read_observations(path: Path) -> Observations:
    """Observations of an npz file, every rule of the contract checked, names made canonical.

    Missing `timestamps` are frame / fps; missing `boxes` (all, or of single
    frames) surround the seen keypoints. Raises
    InputError naming the file and what is wrong with it.
    """
    arrays = _load(path)
    _check_shapes(path, arrays)
    fps = _fps(path, arrays)
    names, kept = _canonical_names(path, arrays["keypoint_names"])
    confidence = torch.from_numpy(arrays["confidence"].astype(np.float64))[..., kept]
    keypoints = torch.from_numpy(arrays["keypoints"].astype(np.float64))[..., kept, :]
    _check_values(path, arrays, keypoints.numpy(), confidence.numpy(), names)
    keypoints = torch.where((confidence > 0)[..., None], keypoints, 0.0)
    boxes = keypoint_boxes(keypoints, confidence)
    if "boxes" in arrays:
        given = torch.from_numpy(arrays["boxes"].astype(np.float64))
        boxes = torch.where(given.isnan(), boxes, given)
    width, height = (int(v) for v in arrays["image_size"])
    return Observations(
        person_id=torch.from_numpy(arrays["person_id"].astype(np.int64)),
        keypoints=keypoints,
        confidence=confidence,
        keypoint_names=names,
        boxes=boxes,
        image_size=(width, height),
        fps=fps,
        timestamps=_timestamps(path, arrays, fps),
    )


def _load(path: Path) -> Arrays:
    """Arrays of an npz, no pickles, all required keys there."""
    arrays = read_arrays(path, REQUIRED + OPTIONAL)
    missing = [key for key in REQUIRED if key not in arrays]
    if len(missing) > 0:
        raise InputError(f"'{path}' lacks {', '.join(missing)}; required: {', '.join(REQUIRED)}")
    return arrays


def _check_shapes(path: Path, arrays: Arrays) -> None:
    """Every array has the contract's shape and the lengths agree."""
    keypoints = arrays["keypoints"]
    if keypoints.ndim != 4 or keypoints.shape[-1] != 2:
        raise InputError(f"'{path}': keypoints have shape {keypoints.shape}, must be (N,T,K,2)")
    people, frames, count, _ = keypoints.shape
    if people == 0 or frames == 0 or count == 0:
        raise InputError(f"'{path}': keypoints have shape {keypoints.shape}: nobody or no frame")
    wanted: dict[str, tuple[int, ...]] = {
        "person_id": (people,),
        "confidence": (people, frames, count),
        "keypoint_names": (count,),
        "boxes": (people, frames, 4),
        "image_size": (2,),
        "fps": (),
        "timestamps": (frames,),
    }
    for key, shape in wanted.items():
        if key in arrays and arrays[key].shape != shape:
            raise InputError(
                f"'{path}': {key} has shape {arrays[key].shape}, must be {shape} "
                f"as keypoints have {keypoints.shape}"
            )
        kinds = "US" if key == "keypoint_names" else "iu" if key == "person_id" else "iuf"
        if key in arrays and arrays[key].dtype.kind not in kinds:
            raise InputError(
                f"'{path}': {key} has type {arrays[key].dtype}, {_KINDS[kinds]} needed"
            )
    if keypoints.dtype.kind not in "iuf":
        raise InputError(f"'{path}': keypoints have type {keypoints.dtype}, numbers needed")


_KINDS = {"US": "strings", "iu": "whole numbers", "iuf": "numbers"}


def _fps(path: Path, arrays: Arrays) -> float:
    fps = float(arrays["fps"])
    if not (np.isfinite(fps) and fps > 0):
        raise InputError(f"'{path}': fps is {fps}, must be above 0")
    return fps


def _timestamps(path: Path, arrays: Arrays, fps: float) -> torch.Tensor:
    """Seconds of every frame; frame / fps if the file has none."""
    frames = arrays["keypoints"].shape[1]
    if "timestamps" not in arrays:
        return torch.arange(frames, dtype=torch.float64) / fps
    times = arrays["timestamps"].astype(np.float64)
    wrong = ~np.isfinite(times)
    wrong[1:] |= np.diff(times) <= 0
    if wrong.any():
        raise InputError(
            f"'{path}': timestamps are not rising at frame {int(np.flatnonzero(wrong)[0])}"
        )
    return torch.from_numpy(times)


def _canonical_names(path: Path, names: np.ndarray) -> tuple[tuple[str, ...], list[int]]:
    """Canonical names of the usable keypoints and their columns in the file."""
    kept: dict[str, int] = {}
    for column, raw in enumerate(names.tolist()):
        name = raw.decode() if isinstance(raw, bytes) else str(raw)
        try:
            canonical = canonical_keypoint(name)
        except KeyError as e:
            raise InputError(
                f"'{path}': keypoint name '{name}' is unknown; known: {', '.join(KEYPOINTS)}"
            ) from e
        if canonical is None:
            continue
        if canonical in kept:
            raise InputError(
                f"'{path}': keypoint names '{names[kept[canonical]]}' and '{name}' both mean "
                f"'{canonical}'; leave one out"
            )
        kept[canonical] = column
    if len(kept) == 0:
        raise InputError(f"'{path}': no usable keypoint name; known: {', '.join(KEYPOINTS)}")
    return tuple(kept), list(kept.values())


def _check_values(
    path: Path,
    arrays: Arrays,
    keypoints: np.ndarray,
    confidence: np.ndarray,
    names: tuple[str, ...],
) -> None:
    """Ids unique, confidence within 0..1, keypoints finite where seen, boxes in order."""
    ids = arrays["person_id"]
    if len(np.unique(ids)) != len(ids):
        raise InputError(f"'{path}': person_id {ids.tolist()} are not unique")
    size = arrays["image_size"].astype(np.float64)
    if not (np.isfinite(size) & (size >= 1)).all():
        raise InputError(f"'{path}': image_size is {size.tolist()}, must be width and height in px")
    _refuse(
        path, "confidence is not within 0..1", ~((confidence >= 0) & (confidence <= 1)), ids, names
    )
    lost = (confidence > 0) & ~np.isfinite(keypoints).all(axis=-1)
    _refuse(path, "keypoint is not finite although its confidence is above 0", lost, ids, names)
    if not (confidence > 0).any():
        raise InputError(f"'{path}': every confidence is 0, nobody is seen")
    if "boxes" in arrays:
        boxes = arrays["boxes"].astype(np.float64)
        known = np.isfinite(boxes).all(axis=-1)
        empty = known & (boxes[..., 2:] <= boxes[..., :2]).any(axis=-1)
        odd = np.asarray(empty | ~known & ~np.isnan(boxes).all(axis=-1))
        _refuse(path, "box is not x0 < x1, y0 < y1 or all NaN", odd, ids, None)


def _refuse(
    path: Path, what: str, wrong: np.ndarray, ids: np.ndarray, names: tuple[str, ...] | None
) -> None:
    """Raise for the first True of `wrong` (N,T) or (N,T,K), naming person, frame and keypoint."""
    if not wrong.any():
        return
    first = np.argwhere(wrong)[0]
    point = f", keypoint '{names[first[2]]}'" if names is not None else ""
    raise InputError(
        f"'{path}': {what}: person {ids[first[0]]}, frame {first[1]}{point} "
        f"({int(wrong.sum())} in all)"
    )
