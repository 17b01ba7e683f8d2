"""Pickles of arrays that strangers wrote, plain or joblib's, read without running what they ask.

A pickle names the callables it wants. Here a short list is known: numpy's arrays and numbers, plain
containers, and joblib's wrapper, after which an array's bytes stand in the stream; each is a
function or stand-in of ours or a container. Any other name is refused before it is looked up.
Format: joblib 1.x, numpy_pickle.py; files from before joblib 0.10 are not read.
"""

import bz2
import collections
import gzip
import io
import lzma
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from slamhmr.errors import InputError

NUMPY_CORE = ("numpy.core", "numpy._core")
DAMAGE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError,
    ValueError, OverflowError, MemoryError, RecursionError, zlib.error, lzma.LZMAError, OSError,
)  # fmt: skip  # what a truncated or nonsensical file raises
COMPRESSED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x78": zlib.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
}
CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    **{
        (module, name): kind
        for module in ("builtins", "__builtin__")
        for name, kind in (("dict", dict), ("list", list), ("set", set), ("bytes", bytes))
    },
}


def read_pickle(path: Path) -> Any:
    """What a pickle or joblib file holds: containers, text, numbers, numpy arrays.

    Raises InputError for a file that is damaged, no pickle, or asks for anything else.
    """
    try:
        raw = path.read_bytes()
        for start, decompress in COMPRESSED.items():
            if raw.startswith(start):
                raw = decompress(raw)
                break
        return _Reader(io.BytesIO(raw), path).load()
    except DAMAGE as error:
        raise InputError(f"'{path}' is damaged or no pickle: {error}") from error


class _Wrapper:
    """Stand-in for joblib's NumpyArrayWrapper: says which array's bytes follow in the stream."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def read(self, stream: io.BytesIO) -> NDArray[Any]:
        """The array. Raises TypeError for one of objects, ValueError if bytes are missing."""
        dtype, shape = self.state["dtype"], tuple(self.state["shape"])
        if not isinstance(dtype, np.dtype) or dtype.hasobject:
            raise TypeError("an array of objects, not of numbers")
        if self.state.get("numpy_array_alignment_bytes") is not None:
            stream.read(stream.read(1)[0])
        count = int(np.prod(shape, dtype=np.int64))
        raw = stream.read(count * dtype.itemsize)
        array = np.frombuffer(raw, dtype=dtype, count=count).copy()
        if self.state.get("order") == "F":
            return array.reshape(shape[::-1]).T
        return array.reshape(shape)


# The interpreter's unpickler in C cannot be told to read an array from the middle of its stream.
class _Reader(pickle._Unpickler):
    stack: list[Any]  # of the base class

    def __init__(self, stream: io.BytesIO, path: Path) -> None:
        super().__init__(stream, encoding="latin1")
        self._stream, self._path = stream, path

    def find_class(self, module: str, name: str) -> Any:
        """What stands in for a known name; fresh, so that no file can alter the next one's."""
        if (module, name) in CONTAINERS:
            return CONTAINERS[module, name]
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return type("NumpyArrayWrapper", (_Wrapper,), {})
        known = numpy_stand_in(module, name)
        if known is not None:
            return known
        raise InputError(
            f"'{self._path}' asks for '{module}.{name}', which no file of arrays needs; refused, "
            "nothing of it was run"
        )

    def load_build(self) -> None:
        """As the unpickler's own, then the array of a wrapper in the wrapper's place."""
        super().load_build()  # type: ignore[misc]  # the stubs leave it out
        if isinstance(self.stack[-1], _Wrapper):
            self.stack.append(self.stack.pop().read(self._stream))

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def numpy_stand_in(module: str, name: str) -> Any:
    """What rebuilds numpy's arrays, scalars and types for these names; None for any other name.

    Fresh functions, so that no file can alter what the next one is given.
    """
    if module == "numpy" and name in ("ndarray", "dtype"):
        return getattr(np, name)
    if module in (f"{core}.multiarray" for core in NUMPY_CORE):
        if name == "_reconstruct":
            return fresh(_new_array)
        if name == "scalar":
            return fresh(_new_scalar)
    if (module, name) in ((f"{core}.numeric", "_frombuffer") for core in NUMPY_CORE):
        return fresh(_array_of_buffer)
    if (module, name) == ("_codecs", "encode"):
        return fresh(_latin1)
    return None


def fresh(function: Callable[..., Any]) -> Callable[..., Any]:
    """A callable of its own that calls `function`."""
    return lambda *arguments: function(*arguments)


def _new_array(kind: type, shape: tuple[int, ...], code: Any) -> NDArray[Any]:
    if kind is not np.ndarray:
        raise TypeError(f"{kind} is no array")
    return np.ndarray.__new__(np.ndarray, (0,), "b")  # its state follows, as numpy writes it


def _new_scalar(dtype: np.dtype[Any], data: Any) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(raw, dtype=dtype)[0]


def _array_of_buffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding}")
    return text.encode("latin1")
