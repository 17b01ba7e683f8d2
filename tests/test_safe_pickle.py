"""Files of arrays are read; files that ask for anything else are refused before it happens."""

import builtins
import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

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
