"""Reads the arrays of a licensed body's .pkl without running anything the file says.

Those files are Python 2 pickles of numpy arrays, scipy.sparse matrices and chumpy objects. A pickle
names the callables it wants; here a short list of them is known, everything but numpy's own array
reconstruction is replaced by an inert stand-in, and any other name is refused. Neither scipy nor
chumpy is needed.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from slamhmr.errors import InputError
from slamhmr.safe_pickle import DAMAGE, ArrayUnpickler, fresh, numpy_stand_in

SPARSE_KINDS = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")


def read_pickle(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Those of `keys` that the pickled dictionary has, as dense arrays.

    Raises InputError for a file that is damaged, is no dictionary, names a class or function
    outside the allow-list, or holds something else than an array under a wanted key.
    """
    with path.open("rb") as file:
        try:
            content = _BodyUnpickler(file, path).load()
        except DAMAGE as error:
            raise InputError(f"body file '{path}' is damaged or no pickle: {error}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"body file '{path}' holds a {type(content).__name__}; a dictionary of arrays is needed"
        )
    return {key: _dense(content[key], key, path) for key in keys if key in content}


class _Sparse:
    """Stand-in for a scipy.sparse matrix: keeps its state, does nothing."""

    kind = "coo"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def dense(self) -> NDArray[Any]:
        """The matrix as a dense array; duplicate entries add up, as in scipy."""
        matrix = np.zeros(self.state["_shape"])
        if self.kind == "coo":
            rows, columns = self.state.get("coords") or (self.state["row"], self.state["col"])
        else:
            inner, starts = self.state["indices"], self.state["indptr"]
            outer = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            rows, columns = (inner, outer) if self.kind == "csc" else (outer, inner)
        np.add.at(matrix, (rows, columns), self.state["data"])
        return matrix


class _Compressed(_Sparse):
    kind = "csc"


class _CompressedRows(_Sparse):
    kind = "csr"


class _Chumpy:
    """Stand-in for a chumpy object: keeps its state, computes nothing."""

    name = "chumpy.ch.Ch"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def dense(self) -> NDArray[Any]:
        """The value: of a plain Ch its `x`; of a Select the entries it picks from another."""
        if "x" in self.state:
            return _value(self.state["x"])
        chosen = _value(self.state["a"]).ravel()[_value(self.state["idxs"]).astype(int)]
        shape = self.state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(shape)


class _BodyUnpickler(ArrayUnpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a known global; fresh, so that no file can alter the next one's."""
        known = numpy_stand_in(module, name)
        if known is not None:
            return known
        if module.startswith("scipy.sparse") and name in SPARSE_KINDS:
            kinds = {"csc": _Compressed, "csr": _CompressedRows, "coo": _Sparse}
            return kinds[name[:3]]
        if module.split(".")[0] == "chumpy" and name.isidentifier():
            return type(name, (_Chumpy,), {"name": f"{module}.{name}"})
        if (module, name) in (("__builtin__", "object"), ("builtins", "object")):
            return object
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return fresh(_new_stand_in)
        raise InputError(
            f"body file '{self._path}' asks for '{module}.{name}', which no body model needs; "
            "refused, nothing of it was run; get the file from its official site"
        )


def _new_stand_in(kind: type, base: type, state: Any) -> Any:
    if base is not object or not issubclass(kind, (_Sparse, _Chumpy)):
        raise TypeError(f"{kind} cannot be rebuilt")
    return kind.__new__(kind)


def _value(value: Any) -> NDArray[Any]:
    if isinstance(value, (_Sparse, _Chumpy)):
        return value.dense()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value
    if isinstance(value, (int, float, list, tuple)):
        return np.asarray(value, dtype=float)
    raise TypeError(f"a {type(value).__name__} is no array")


def _dense(value: Any, key: str, path: Path) -> NDArray[Any]:
    try:
        return _value(value)
    except DAMAGE as error:
        kind = getattr(value, "name", type(value).__name__)
        raise InputError(
            f"body file '{path}': '{key}' is a {kind} that cannot be read as an array: {error}"
        ) from error
