"""Files of a run: npz in the contract's keys, written atomically, stamped with what made them."""

import dataclasses
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from slamhmr.atomic import TEMPORARY_PREFIX as TEMPORARY_PREFIX
from slamhmr.atomic import atomic as atomic
from slamhmr.atomic import write_text as write_text
from slamhmr.errors import InputError
from slamhmr.types import (
    CameraTrack,
    Initial,
    Observations,
    Result,
    SceneState,
    StageReport,
    Views,
)

SCHEMA_VERSION = 1
STAMP = "stamp"  # key of every numbered file; JSON

# What a truncated, altered or foreign npz raises when it is read.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, RuntimeError,
)  # fmt: skip

Value = TypeVar("Value", Observations, Views, CameraTrack, Initial, SceneState, Result)
Arrays = dict[str, np.ndarray]
# Keys of the camera track inside a state file -> fields; both have an `up`.
_CAMERA_KEYS = {
    f"camera_{f.name}"
    if f.name in {own.name for own in dataclasses.fields(SceneState)}
    else f.name: f.name
    for f in dataclasses.fields(CameraTrack)
}


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; NaN and infinity become null, which strict readers accept."""
    write_text(path, json.dumps(json_ready(content), indent=1, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write an npz atomically."""
    for key, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"array '{key}' holds objects")
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **cast(dict[str, Any], arrays))


def read_arrays(path: Path, keys: Collection[str] | None = None) -> Arrays:
    """The arrays of an npz, or those of `keys` that it has, never unpickling.

    Raises InputError if the file is missing, damaged, no npz, or holds pickled objects.
    """
    if not path.is_file():
        raise InputError(f"'{path}' does not exist")
    try:
        with path.open("rb") as file:  # numpy itself leaves a damaged file open
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise InputError(f"'{path}' is not an npz file; write it with numpy.savez")
            return {key: content[key] for key in content.files if keys is None or key in keys}
    except DAMAGE as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise InputError(f"'{path}' is damaged or holds pickled objects: {reason}") from e


def save(path: Path, value: Value, *, stamp: dict[str, object]) -> None:
    """Write a value of `types.py` in the contract's keys, with its stamp."""
    write_arrays(path, {**to_arrays(value), STAMP: np.array(json.dumps(stamp))})


def load(path: Path, kind: type[Value]) -> Value:
    """Read what `save` wrote. Raises InputError if it is damaged or a key is missing."""
    return from_arrays(read_arrays(path), kind, str(path))


def to_arrays(
    value: Observations | Views | CameraTrack | Initial | SceneState | Result,
) -> Arrays:
    """The contract's arrays of a value: field names are the keys, a state's cameras among them."""
    arrays: Arrays = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if isinstance(content, CameraTrack):
            own = to_arrays(content)
            arrays |= {key: own[name] for key, name in _CAMERA_KEYS.items() if name in own}
        elif content is not None:
            arrays[field.name] = _to_array(field.name, content)
    if isinstance(value, Result):
        arrays["schema_version"] = np.array(SCHEMA_VERSION)
    return arrays


def from_arrays(arrays: Arrays, kind: type[Value], where: str) -> Value:
    """Inverse of `to_arrays`. Raises InputError naming `where` if a key is missing."""
    values: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        optional = field.default is not dataclasses.MISSING or field.name == "provenance"
        if field.type is CameraTrack:
            camera_arrays = {n: arrays[key] for key, n in _CAMERA_KEYS.items() if key in arrays}
            values[field.name] = from_arrays(camera_arrays, CameraTrack, where)
        elif field.name in arrays:
            values[field.name] = _from_array(field.type, field.name, arrays[field.name])
        elif not optional:
            raise InputError(f"'{where}' lacks the key '{field.name}'")
    return kind(**cast(dict[str, Any], values))


def read_stamp(path: Path) -> dict[str, Any] | None:
    """The stamp of a numbered file; None if there is no such file, it is damaged, or has none.

    Reading every array along the way checks the CRC of each, so a truncated file has no stamp.
    """
    try:
        arrays = read_arrays(path)
        stamp = json.loads(str(arrays[STAMP]))
    except (InputError, KeyError, json.JSONDecodeError):
        return None
    return stamp if isinstance(stamp, dict) else None


def report_to_json(report: StageReport) -> dict[str, object]:
    """A stage's report as JSON-ready mapping."""
    return cast(dict[str, object], json_ready(dataclasses.asdict(report)))


def report_from_json(content: dict[str, Any]) -> StageReport:
    """Inverse of `report_to_json`."""
    return StageReport(**content)


def json_ready(content: object) -> object:
    """Plain lists, mappings, numbers and strings; tensors become lists, NaN and infinity None."""
    if isinstance(content, dict):
        return {str(key): json_ready(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [json_ready(value) for value in content]
    if isinstance(content, torch.Tensor | np.ndarray | np.generic):
        return json_ready(content.tolist())
    if isinstance(content, float) and not np.isfinite(content):
        return None
    if content is None or isinstance(content, str | int | float | bool):
        return content
    return str(content)


def content_hash(paths: list[Path]) -> str:
    """Hash of the bytes of files, and of every file inside folders, in the order given."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            digest.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                while len(block := stream.read(1 << 22)) > 0:
                    digest.update(block)
    return digest.hexdigest()


def settings_hash(settings: object) -> str:
    """Hash of JSON-ready settings or dataclasses of them."""
    plain = json.dumps(json_ready(_plain(settings)), sort_keys=True)
    return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()


def _plain(settings: object) -> object:
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return dataclasses.asdict(settings)
    if isinstance(settings, dict):
        return {key: _plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_plain(value) for value in settings]
    return settings


def _to_array(name: str, content: object) -> np.ndarray:
    if isinstance(content, torch.Tensor):
        return content.detach().cpu().numpy()
    if name == "provenance":
        return np.array(json.dumps(json_ready(content)))
    if isinstance(content, tuple) and all(isinstance(item, str) for item in content):
        return np.array(content, dtype=str) if len(content) > 0 else np.zeros(0, dtype="<U1")
    return np.asarray(content)


def _from_array(annotation: object, name: str, array: np.ndarray) -> object:
    if name == "provenance":
        return json.loads(str(array))
    if name == "image_size":
        return (int(array[0]), int(array[1]))
    if array.dtype.kind in "US":
        return tuple(str(item) for item in array) if array.ndim > 0 else str(array)
    if annotation in (bool, float, int):
        return cast(Callable[[object], object], annotation)(array.item())
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float64))
    return torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)
