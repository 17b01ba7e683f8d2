"""Every sort of lack is one line that names the thing and what gets it; nothing is imported."""

import ast
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slamhmr import components
from slamhmr.components import (
    COMPONENTS,
    Gpu,
    Installed,
    Lack,
    file_sha256,
    in_range,
    lacking_file,
    lacking_gpu,
    lacking_package,
    require,
    watching,
)
from slamhmr.errors import MissingAsset
from slamhmr.export import rasterise
from slamhmr.gpus import DRIVER, torch_cuda

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLAMHMR_CACHE", str(tmp_path / "cache"))


def gpus(monkeypatch, *found, build="12.6"):
    monkeypatch.setattr(components, "devices", lambda: found)
    monkeypatch.setattr(components, "torch_cuda", lambda: build)
    monkeypatch.setattr(components, "driver_cuda", lambda: (12, 4))


def test_an_absent_package_is_named_with_its_command():
    lacks = lacking_package("no_such_module", "pip install x", distribution="no-such")
    assert lacks == [Lack("package 'no-such' is not installed", "pip install x")]


def test_a_package_of_a_wrong_version_says_both(monkeypatch):
    monkeypatch.setattr(components, "installed", lambda *_: Installed("0.3.1", None))
    (lack,) = lacking_package("rtmlib", "get", version=">=0.4,<1")
    assert lack.what == "package 'rtmlib' is installed as 0.3.1, needed: >=0.4,<1"
    assert lacking_package("rtmlib", "get", version=">=0.3,<1") == []


def test_a_package_without_metadata_lacks_its_version_where_one_is_needed(monkeypatch):
    monkeypatch.setattr(components, "installed", lambda *_: Installed(None, None))
    assert lacking_package("x", "get") == []
    (lack,) = lacking_package("x", "get", version=">=1")
    assert "does not tell its version, needed: >=1" in lack.what


def test_the_package_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "explosive.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert lacking_package("explosive", "get") == []
    assert "explosive" not in sys.modules


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.13.0+cpu", ">=2.6,<2.14", True),
        ("2.14.0", ">=2.6,<2.14", False),
        ("0.10.0", ">=0.9", True),
        ("1.0rc1", "<1.1", True),
        ("not a version", ">=1", False),
    ],
)
def test_ranges_are_those_of_pip(version, wanted, fits):
    assert in_range(version, wanted) is fits


def test_another_environment_is_asked_through_its_interpreter(monkeypatch):
    assert lacking_package("numpy", "get", python=sys.executable) == []
    (lack,) = lacking_package("numpy", "get", python=sys.executable, version="<1")
    assert re.search(r"'numpy' is installed in the environment of '.*' as \d", lack.what)
    (lack,) = lacking_package("no_such_module", "get", python=sys.executable)
    assert "'no_such_module' is not installed in the environment of" in lack.what
    (lack,) = lacking_package("numpy", "get", python="/no/python")
    assert lack.what == "the environment of 'numpy': interpreter '/no/python' does not exist"


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "lietorch").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for python in (None, sys.executable):
        (lack,) = lacking_package("lietorch", "get", python=python)
        assert "package 'lietorch' is not installed" in lack.what


def test_an_interpreter_that_cannot_be_run_is_said(tmp_path):
    (tmp_path / "python").write_text("#!/bin/false")
    (lack,) = lacking_package("numpy", "get", python=tmp_path / "python")
    assert "cannot be run" in lack.what


def test_files(tmp_path):
    path = tmp_path / "weights.onnx"
    assert lacking_file("", "weights", "get")[0].what == "weights: no file is given"
    assert "does not exist" in lacking_file(path, "weights", "get")[0].what
    assert "is a folder" in lacking_file(tmp_path, "weights", "get")[0].what
    path.write_bytes(b"abc")
    assert lacking_file(path, "weights", "get") == []
    digest = hashlib.sha256(b"abc").hexdigest()
    assert lacking_file(path, "weights", "get", sha256=digest.upper()) == []
    (lack,) = lacking_file(path, "weights", "get", sha256="0" * 64)
    assert lack.what == f"weights: '{path}' has sha256 {digest}, expected {'0' * 64}"


def test_a_hash_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"abc")
    first = file_sha256(path)
    real, read = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: read.append(1) or real(*a))
    assert file_sha256(path) == first
    assert read == []
    path.write_bytes(b"abcd")
    assert file_sha256(path) == hashlib.sha256(b"abcd").hexdigest()
    assert read == [1]
    (tmp_path / "cache" / "sha256.json").write_text("{damaged")
    assert file_sha256(path) == hashlib.sha256(b"abcd").hexdigest()


def test_no_gpu(monkeypatch):
    gpus(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (lack,) = lacking_gpu("slam 'droid'", 11)
    assert lack.what == (
        "slam 'droid' needs a GPU, no CUDA device was found (CUDA_VISIBLE_DEVICES='')"
    )
    assert "11 GiB" in lack.get


def test_a_torch_without_cuda_is_another_matter_than_no_gpu(monkeypatch):
    gpus(monkeypatch, Gpu("toy", 24.0), build=None)
    (lack,) = lacking_gpu("detect 'vitpose'", 4)
    assert "torch is installed without CUDA" in lack.what
    assert lack.get.startswith("pip install --force-reinstall 'torch>=2.6,<2.14'")
    monkeypatch.setattr(components, "installed", lambda *_: Installed("2.4.1+cu121", None))
    assert lacking_gpu("slam 'droid'", 4, python="/envs/droid/python") == []
    monkeypatch.setattr(components, "installed", lambda *_: Installed("2.4.1+cpu", None))
    (lack,) = lacking_gpu("slam 'droid'", 4, python="/envs/droid/python")
    assert lack.what.endswith("without CUDA in the environment of '/envs/droid/python'")
    assert lack.get.startswith("/envs/droid/python -m pip install --force-reinstall")
    assert lacking_gpu("detect 'rtmo'", 4, by_torch=False) == []


def test_too_little_gpu_memory(monkeypatch):
    gpus(monkeypatch, Gpu("small", 3.9), Gpu("larger", 7.8))
    assert lacking_gpu("slam 'droid'", 7.5) == []
    (lack,) = lacking_gpu("slam 'droid'", 11)
    assert lack.what == "slam 'droid' needs 11 GiB of GPU memory, larger has 7.8 GiB"


def test_a_driver_that_is_too_old(monkeypatch):
    gpus(monkeypatch, Gpu("toy", 24.0), build="13.0")
    (lack,) = lacking_gpu("slam 'droid'", 4)
    assert "torch is built for CUDA 13.0, the driver knows up to 12.4" in lack.what
    gpus(monkeypatch, Gpu("toy", 24.0), build="12.9")
    assert lacking_gpu("slam 'droid'", 4) == []


def test_everything_is_said_at_once():
    require([])
    one, two = Lack("a is not there", "get a"), Lack("b is not there", "get b")
    with pytest.raises(MissingAsset, match="^a is not there; get a$"):
        require([one, one])
    with pytest.raises(MissingAsset) as caught:
        require([one, two, one])
    assert str(caught.value).splitlines() == [
        "2 things are missing, nothing was started (a is not there, ...):",
        "  1. a is not there; get a",
        "  2. b is not there; get b",
    ]


def test_what_is_found_can_be_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(components, "installed", lambda *_: Installed("1.2", "f" * 40))
    path = tmp_path / "w.onnx"
    path.write_bytes(b"abc")
    with watching() as found:
        lacking_package("x", "get")
        lacking_file(path, "weights", "get")
        lacking_file(tmp_path / "none", "weights", "get")
    assert [(one.what, one.version, one.path) for one in found] == [
        ("package 'x'", f"1.2 (commit {'f' * 12})", None),
        ("weights", "", path),
    ]
    lacking_package("x", "get")
    assert len(found) == 2


def test_torch_says_its_build_without_being_imported():
    import torch

    assert torch_cuda() == torch.version.cuda


def test_the_driver_is_asked_in_a_process_that_answers_without_one():
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", DRIVER], capture_output=True, text=True
    )
    version, found = json.loads(done.stdout)
    assert version >= 0
    assert isinstance(found, list)


def test_the_ranges_are_those_of_setup():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    ranged = {f"{one.package}{one.version}" for one in COMPONENTS if one.version != ""}
    assert len(ranged) > 5
    assert ranged - words == {f"pytorch3d{rasterise.VERSIONS}"}  # a tag of its repository there
