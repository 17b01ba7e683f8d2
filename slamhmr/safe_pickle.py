"""Pickles of arrays that strangers wrote, plain or joblib's, read without running what they ask.

A pickle names the callables it wants. Here a short list is known: numpy's arrays and numbers, plain
containers, and joblib's wrapper, after which an array's bytes stand in the stream; each is a
function or stand-in of ours or a container. Any other name is refused before it is looked up.
numpy believes whatever a file says of a type's layout and of an array's memory, so neither class is
given to files: types are numbers or text, made by name, and bytes are copied into arrays.
Format: joblib 1.x, numpy_pickle.py; files from before joblib 0.10 are not read.
"""

import bz2
import collections
import io
import lzma
import math
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from slamhmr.errors import InputError

NUMPY_CORE = ("numpy.core", "numpy._core")
DAMAGE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError,
    ValueError, OverflowError, MemoryError, RuntimeError, zlib.error, lzma.LZMAError, OSError,
    struct.error, AssertionError, NameError, SystemError,
)  # fmt: skip  # what a truncated or nonsensical file raises
MOST_MEMBERS = 1000  # of a compressed file; joblib writes one
LARGEST = 2**31  # bytes that a compressed file may hold: of a bomb, a megabyte holds gigabytes
COMPRESSED: dict[bytes, Callable[[], Any]] = {
    b"\x78": zlib.decompressobj,
    b"\x1f\x8b": partial(zlib.decompressobj, zlib.MAX_WBITS | 16),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ": partial(lzma.LZMADecompressor, memlimit=2**28),
    b"\x5d\x00": partial(lzma.LZMADecompressor, memlimit=2**28),
}
TYPE = re.compile(r"[<>|=]?(\?|[biufc]\d{1,2}|[SU]\d{1,6}|O8?)")  # numbers, text, objects in a list
ARRAY = "numpy.ndarray"  # in the place of the class, which files only name
CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    **{
        (module, name): kind
        for module in ("builtins", "__builtin__")
        for name, kind in (("dict", dict), ("list", list), ("set", set))
    },
}


def read_pickle(path: Path) -> Any:
    """What a pickle or joblib file holds: containers, text, numbers, numpy arrays.

    Raises InputError for a file that is damaged, no pickle, or asks for anything else.
    """
    try:
        return _Reader(io.BytesIO(_decompressed(path.read_bytes())), path).load()
    except DAMAGE as error:
        raise InputError(f"'{path}' is damaged or no pickle: {error}") from error


def _decompressed(raw: bytes) -> bytes:
    """The content of all members of a compressed file; any other as it is."""
    for start, decompressor in COMPRESSED.items():
        if raw.startswith(start):
            members: list[bytes] = []
            left = LARGEST
            while raw.startswith(start):
                one = decompressor()
                members.append(one.decompress(raw, left + 1))
                left -= len(members[-1])
                if left < 0:
                    raise ValueError(f"it decompresses to more than {LARGEST / 2**30:g} GiB")
                if len(members) > MOST_MEMBERS:
                    raise ValueError(f"it has more than {MOST_MEMBERS} members")
                if not one.eof:
                    raise EOFError("it ends too early")
                raw = one.unused_data
            return b"".join(members)
    return raw


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
        count = math.prod(shape)
        if min(shape, default=0) < 0 or count * dtype.itemsize > len(stream.getbuffer()):
            raise ValueError(f"an array of shape {shape}, larger than the file")
        raw = stream.read(count * dtype.itemsize)
        array = np.frombuffer(raw, dtype=dtype, count=count).copy()
        if self.state.get("order") == "F":
            return array.reshape(shape[::-1]).T
        return array.reshape(shape)


# The interpreter's unpickler in C cannot be told to look at a state before it is set, nor to read
# an array from the middle of its stream.
class ArrayUnpickler(pickle._Unpickler):
    """Unpickler that lets a file say of numpy's types only what numpy itself says of them."""

    stack: list[Any]  # of the base class

    def load_build(self) -> None:
        """As the unpickler's own. Raises TypeError for a type's state that is not its own."""
        if isinstance(self.stack[-2], np.dtype):
            _check_state(self.stack[-2], self.stack[-1])
        super().load_build()  # type: ignore[misc]  # the stubs leave it out

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


class _Reader(ArrayUnpickler):
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
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack.append(self.stack.pop().read(self._stream))

    dispatch: ClassVar[dict[int, Any]] = {**ArrayUnpickler.dispatch, pickle.BUILD[0]: load_build}


def numpy_stand_in(module: str, name: str) -> Any:
    """What rebuilds numpy's arrays, scalars and types for these names; None for any other name.

    Fresh functions, so that no file can alter what the next one is given.
    """
    if (module, name) == ("numpy", "ndarray"):
        return ARRAY
    if (module, name) == ("numpy", "dtype"):
        return fresh(_new_type)
    if module in (f"{core}.multiarray" for core in NUMPY_CORE):
        if name == "_reconstruct":
            return fresh(_new_array)
        if name == "scalar":
            return fresh(_new_scalar)
    if (module, name) in ((f"{core}.numeric", "_frombuffer") for core in NUMPY_CORE):
        return fresh(_array_of_buffer)
    if (module, name) == ("_codecs", "encode"):
        return fresh(_latin1)
    if name == "bytes" and module in ("builtins", "__builtin__"):
        return fresh(_no_bytes)
    return None


def fresh(function: Callable[..., Any]) -> Callable[..., Any]:
    """A callable of its own that calls `function`."""
    return lambda *arguments: function(*arguments)


def _check_state(dtype: np.dtype[Any], state: Any) -> None:
    """Of (version, byte order, what it is made of ...), only the first two may differ."""
    own = dtype.__reduce__()[2]
    if not isinstance(state, tuple) or state[2:] != own[2:] or state[1] not in ("<", ">", "|", "="):
        raise TypeError(f"state {state!r} is not that of type '{dtype.str}'")


def _new_type(code: Any, *flags: Any) -> np.dtype[Any]:
    """A type of its own, not the one that numpy shares."""
    if not isinstance(code, str) or TYPE.fullmatch(code) is None:
        raise TypeError(f"type {code!r}, neither numbers nor text")
    return np.dtype(code, copy=True)


def _new_array(kind: Any, shape: tuple[int, ...], code: Any) -> NDArray[Any]:
    if kind != ARRAY:
        raise TypeError(f"{kind} is no array")
    return np.ndarray.__new__(np.ndarray, (0,), "b")  # its state follows, as numpy writes it


def _new_scalar(dtype: Any, data: Any) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return _array_of_buffer(raw, dtype, (1,), "C")[0]


def _array_of_buffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    if not isinstance(buffer, (bytes, bytearray)) or not isinstance(dtype, np.dtype):
        raise TypeError("an array of something else than bytes")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order).copy(order="K")


def _no_bytes() -> bytes:
    """What Python 3 writes for no bytes in the protocols of Python 2."""
    return b""


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding}")
    return text.encode("latin1")
