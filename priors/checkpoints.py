"""Weights on disk: safetensors with a json card of our own, and other people's torch checkpoints.

Nothing read here can run code: safetensors are numbers by design, and of a torch file only tensors,
numbers, strings and containers are read.
"""

import hashlib
import json
import os
import pickle
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as bytes_of_tensors
from torch import Tensor

# What a damaged or foreign file makes torch raise.
DAMAGE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, ArithmeticError, MemoryError, struct.error, OSError,
)  # fmt: skip
# Bookkeeping beside the weights of the official files: scores as numpy scalars, Lightning's
# callbacks. Each is replaced by a stand-in that keeps nothing and does nothing.
BOOKKEEPING = (
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
)
PAGE = re.compile(rb"\s*(<!doctype|<html|<\?xml|<head)", re.IGNORECASE)


class CheckpointError(ValueError):
    """A weights file is missing, damaged, dangerous or of another kind; one lower-case line."""


def save_weights(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write `tensors` to `path` (.safetensors) and `card` beside it (.json), atomically each.

    The card gets the sha256 of the tensor file. Raises ValueError for any other suffix.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"weights '{path}' must end in .safetensors")
    content = bytes_of_tensors(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    )
    stamped = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, content)
    _replace(path.with_suffix(".json"), (json.dumps(stamped, indent=2) + "\n").encode())


def load_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a safetensors file, and its card ({} where it has none).

    With `shapes` given, names and shapes must be exactly those. Raises CheckpointError where they
    are not, where the file is missing or damaged, holds a number that is not finite, or is not the
    one its card describes.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"weights '{path}' are no .safetensors file; `slamhmr convert` makes one of an "
            "official checkpoint"
        )
    content = _content(path)
    card = _card(path.with_suffix(".json"))
    digest = hashlib.sha256(content).hexdigest()
    if card.get("sha256", digest) != digest:
        raise CheckpointError(
            f"weights '{path}' are not those of their card '{path.with_suffix('.json').name}' "
            "(sha256 differs); get or convert both again"
        )
    try:
        tensors = tensors_of_bytes(content)
    except SafetensorError as error:
        raise CheckpointError(
            f"weights '{path}' are damaged or no safetensors file: {_one_line(error)}"
        ) from error
    broken = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if len(broken) > 0:
        raise CheckpointError(
            f"weights '{path}': '{broken[0]}' holds values that are not finite{_and_more(broken)}; "
            "get, convert or train them again"
        )
    if shapes is not None:
        check_shapes(tensors, shapes, f"weights '{path}'")
    return tensors, card


def check_shapes(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], owner: str
) -> None:
    """Raise CheckpointError naming the first key that is missing, unknown or of another shape."""
    missing = [name for name in shapes if name not in tensors]
    if len(missing) > 0:
        raise CheckpointError(f"{owner}: '{missing[0]}' is missing{_and_more(missing)}")
    unknown = [name for name in tensors if name not in shapes]
    if len(unknown) > 0:
        raise CheckpointError(f"{owner}: '{unknown[0]}' is not expected{_and_more(unknown)}")
    wrong = [name for name in shapes if tuple(tensors[name].shape) != tuple(shapes[name])]
    if len(wrong) > 0:
        name = wrong[0]
        raise CheckpointError(
            f"{owner}: '{name}' has shape {tuple(tensors[name].shape)}, expected "
            f"{tuple(shapes[name])}{_and_more(wrong)}"
        )


def read_torch_checkpoint(path: Path) -> Any:
    """Content of a file that `torch.save` wrote, on the CPU, without running anything it names.

    Only tensors, numbers, strings and containers are read (`torch.load(weights_only=True)`);
    objects of `BOOKKEEPING` become inert stand-ins. Raises CheckpointError for a file that names
    any other function or class, is truncated, or is something else.
    """
    with _opened(path) as file:
        _refuse_foreign(path, file.read(512))
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_Ignored, name) for name in BOOKKEEPING
    ]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle protocol; what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked is not None:
            raise CheckpointError(
                f"checkpoint '{path}' asks for '{asked[1].rstrip('.')}', which no weights need; "
                "refused, nothing of it was run; get the file from its official site"
            ) from error
        raise CheckpointError(
            f"checkpoint '{path}' is truncated, damaged or no torch checkpoint: {_one_line(error)}"
        ) from error


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Ignored:
    def __new__(cls, *_: Any) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise CheckpointError(f"weights '{path}' do not exist") from error
    except OSError as error:
        raise CheckpointError(f"weights '{path}' cannot be read: {error.strerror}") from error


def _content(path: Path) -> bytes:
    with _opened(path) as file:
        content: bytes = file.read()
    _refuse_foreign(path, content[:512])
    return content


def _refuse_foreign(path: Path, head: bytes) -> None:
    if len(head) == 0:
        raise CheckpointError(f"weights '{path}' are an empty file; download them again")
    if PAGE.match(head):
        raise CheckpointError(
            f"weights '{path}' are a web page, not weights: the download asked for a login or "
            "failed; download the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"weights '{path}' are a git-lfs pointer, not weights; fetch the file with git lfs pull"
        )


def _card(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"card '{path}' is no json: {_one_line(error)}") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"card '{path}' holds a {type(card).__name__}, a mapping is needed")
    return card


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _one_line(error: BaseException) -> str:
    """The reason alone: torch wraps it into advice to load the file unsafely."""
    reason = re.search(r"WeightsUnpickler error:\s*(\S.*)", str(error))
    lines = (reason[1] if reason is not None else str(error)).strip().splitlines()
    if len(lines) == 0:
        return type(error).__name__
    return "not in a form that is safe to read" if "weights_only" in lines[0] else lines[0][:160]
