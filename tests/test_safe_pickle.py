"""Files of arrays are read; files that ask for anything else are refused before it happens."""

import builtins
import bz2
import collections
import importlib
import lzma
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slamhmr import safe_pickle
from slamhmr.errors import InputError
from slamhmr.safe_pickle import read_pickle

CONTENT = collections.defaultdict(
    dict,
    {
        0: {
            "pose": np.arange(12, dtype=np.float32).reshape(3, 4),
            "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "part": np.arange(10)[::2],
            "seen": np.array([True, False]),
            "empty": np.zeros((0, 3)),
            "focal": np.float64(700.0),
            "size": (640, 480),
            "names": ["nose", None, 1.5, b"raw"],
        },
        "ids": {4, 5},
        "order": collections.OrderedDict(a=1),
    },
)


def check(found: object) -> None:
    assert isinstance(found, dict)
    assert found["ids"] == {4, 5}
    assert found["order"] == {"a": 1}
    one, expected = found[0], CONTENT[0]
    assert list(one) == list(expected)
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert one[key].dtype == value.dtype
            assert np.array_equal(one[key], value)
        else:
            assert one[key] == value
    one["pose"][0, 0] = 7  # arrays can be written to
    assert one["pose"][0, 0] == 7


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles(tmp_path: Path, protocol: int):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    check(read_pickle(path))


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), "lzma"])
def test_joblib_files(tmp_path: Path, compress: object):
    joblib = pytest.importorskip("joblib", reason="package joblib is not installed")
    path = tmp_path / "a.pkl"
    joblib.dump(CONTENT, path, compress=(compress, 3) if compress == "lzma" else compress)
    check(read_pickle(path))


@pytest.mark.parametrize("module", ["gzip", "bz2", "lzma"])
def test_files_of_several_members_are_read_to_their_end(tmp_path: Path, module: str):
    compress = importlib.import_module(module).compress
    whole = pickle.dumps(CONTENT)
    members = compress(whole[:100]) + compress(whole[100:])
    path = tmp_path / "a.pkl"
    path.write_bytes(members)
    check(read_pickle(path))
    path.write_bytes(members[:-5])
    with pytest.raises(InputError, match="damaged or no pickle: it ends too early"):
        read_pickle(path)


def test_a_file_of_countless_members_is_refused(tmp_path: Path):
    path = tmp_path / "a.pkl"
    path.write_bytes(bz2.compress(b"") * 2000)
    with pytest.raises(InputError, match="more than 1000 members"):
        read_pickle(path)


class Asks:
    """A pickle that calls something when it is loaded."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_payload_does_not_run(tmp_path: Path, protocol: int):
    ran = tmp_path / "ran"
    for number, asks in enumerate(
        (
            Asks(Path.touch, ran),
            Asks(os.system, f"touch '{ran}'"),
            Asks(builtins.eval, f"open({str(ran)!r}, 'w')"),
            Asks(getattr, "text", "upper"),
        )
    ):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps({0: {"pose": asks}}, protocol=protocol))
        pickled = path.read_bytes()
        with pytest.raises(InputError, match="asks for '.*refused, nothing of it was run"):
            read_pickle(path)
        assert not ran.exists()
    (tmp_path / "proof.pkl").write_bytes(pickle.dumps(Asks(Path.touch, ran), protocol=protocol))
    pickle.loads((tmp_path / "proof.pkl").read_bytes())
    assert ran.exists(), "the payload is none"
    assert len(pickled) > 0


def test_an_array_of_objects_hides_no_pickle(tmp_path: Path):
    joblib = pytest.importorskip("joblib", reason="package joblib is not installed")
    ran = tmp_path / "ran"
    path = tmp_path / "a.pkl"
    joblib.dump({"a": np.array([Asks(Path.touch, ran)], dtype=object)}, path)
    with pytest.raises(InputError, match="damaged or no pickle: an array of objects"):
        read_pickle(path)
    assert not ran.exists()


def test_damage_is_one_line(tmp_path: Path):
    path = tmp_path / "a.pkl"
    whole = pickle.dumps(CONTENT)
    for raw in (b"", b"nothing at all", whole[: len(whole) // 2], b"\x78\x9c broken"):
        path.write_bytes(raw)
        with pytest.raises(InputError, match="a.pkl' is damaged or no pickle"):
            read_pickle(path)
    with pytest.raises(InputError, match="nowhere.pkl"):
        read_pickle(tmp_path / "nowhere.pkl")


ADDRESS = struct.pack("<Q", 0x4141414141414141)  # where nothing is: to look there ends the process
FROM_BYTES = np.arange(1.0).__reduce_ex__(5)[0]  # what pickles of arrays call
SCALAR = np.float64(0).__reduce__()[0]


def of_type(code: str, *state: object) -> Asks:
    """A type of numpy's that is said to be made of `state`."""
    asks = Asks(np.dtype, code, False, True)
    asks._call = (*asks._call, state)
    return asks


LAYOUTS = {
    "objects said to be numbers": [
        Asks(FROM_BYTES, ADDRESS, of_type("O8", 3, "|", None, None, None, -1, -1, 0), (1,), "C")
    ],
    "objects in a part that is not told": {
        Asks(SCALAR, of_type("V8", 4, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0),
             ADDRESS): 1
    },
    "a part beyond the whole": {
        Asks(SCALAR, of_type("V8", 4, "|", None, ("a",), {"a": (np.dtype("O"), 2**30)}, 8, 1, 0),
             ADDRESS): 1
    },
    "an array made of objects' addresses": Asks(list, Asks(np.ndarray, (1,), "O", ADDRESS)),
    "an array of memory nobody gave": Asks(np.ndarray, (2**33,), "u1"),
    "bytes nobody gave": Asks(bytes, 2**33),
    "a number of bytes nobody gave": Asks(SCALAR, np.dtype("u1"), 2**33),
    "a view of an array": Asks(FROM_BYTES, np.arange(4.0), np.dtype("f8"), (4,), "C"),
}  # fmt: skip


@pytest.mark.parametrize("what", LAYOUTS)
def test_memory_is_not_the_files_to_lay_out(tmp_path: Path, what: str):
    """In a process of its own: a reader that believes the file dies."""
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(LAYOUTS[what], protocol=2))
    read = (
        "import sys; from pathlib import Path; from slamhmr.safe_pickle import read_pickle;"
        "from slamhmr.errors import InputError\n"
        "try: hash(str(read_pickle(Path(sys.argv[1]))))\n"
        "except InputError as error: print('refused:', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", read, path], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-300:]
    assert done.stdout.startswith("refused:")


@pytest.mark.parametrize("compress", [zlib.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_not_unfolded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes]
):
    monkeypatch.setattr(safe_pickle, "LARGEST", 10**6)
    path = tmp_path / "a.pkl"
    for count, refused in ((900_000, False), (2_000_000, True)):
        path.write_bytes(compress(pickle.dumps(np.zeros(count, dtype=np.uint8), protocol=4)))
        if refused:
            with pytest.raises(InputError, match="decompresses to more than"):
                read_pickle(path)
        else:
            assert read_pickle(path).shape == (count,)


@pytest.mark.parametrize("shape", [(2**40,), (2**32, 2**32), (-1,)])
def test_a_declared_shape_larger_than_the_file(tmp_path: Path, shape: tuple[int, ...]):
    joblib = pytest.importorskip("joblib", reason="package joblib is not installed")
    wrapper = joblib.numpy_pickle.NumpyArrayWrapper(np.ndarray, shape, "C", np.dtype("f8"))
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": wrapper}, protocol=2) + bytes(64))
    with pytest.raises(InputError, match="larger than the file"):
        read_pickle(path)


def test_types_that_files_have(tmp_path: Path):
    path = tmp_path / "a.pkl"
    for code in ("?", "i1", "<u2", ">i4", "<f2", ">f8", "<c16", "S5", "<U3", "O"):
        array = np.array([1, 0, 1]).astype(code)
        path.write_bytes(pickle.dumps([array, array[0]], protocol=2))
        found = read_pickle(path)
        assert found[0].dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(found[0], array)
        assert found[1] == array[0]
