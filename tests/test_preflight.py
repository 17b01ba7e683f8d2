"""A run says everything that it lacks, with the command that gets it, before it does anything."""

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest
from sequences import make_observations, make_state, write_sequence, write_video

from slamhmr import cli, components
from slamhmr.artifacts import to_arrays, write_arrays
from slamhmr.components import Gpu, Installed
from slamhmr.config import load_config
from slamhmr.errors import ConfigError, InputError, MissingAsset
from slamhmr.preflight import checked_clip
from slamhmr.registry import TABLES, backend

# Backends that need nothing which is not part of the package or of the sequence directory.
OWN = {"detect=file", "slam=file", "init=file", "slam=static", "slam=rotation", "init=geometric"}
SHIPPED = {"init=lift", "detect=blazepose", "slam=auto", "slam=sfm"}  # complete as installed
FOREIGN = sorted(
    (kind, name)
    for kind, table in TABLES.items()
    for name in table
    if f"{kind}={name}" not in OWN | SHIPPED
)
COMMAND = re.compile(
    r"pip install|git clone|slamhmr convert|python -m venv|options\.\w+\.\w+|npm pack|curl|wget"
)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with Python and nothing else."""
    monkeypatch.setenv("SLAMHMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(components, "installed", lambda *_: None)
    monkeypatch.setattr(components, "devices", lambda: ())
    monkeypatch.setattr(components, "torch_cuda", lambda: None)


@pytest.mark.parametrize("kind", TABLES)
def test_every_backend_with_foreign_needs_tells_them(kind):
    for name in TABLES[kind]:
        if f"{kind}={name}" not in OWN:
            assert hasattr(backend(kind, name), "lacking"), name


@pytest.mark.parametrize(("kind", "name"), FOREIGN)
def test_on_a_bare_machine_every_lack_is_one_line_with_a_command(bare, kind, name):
    module = backend(kind, name)
    lacks = module.lacking(module.Options())
    assert len(lacks) > 0
    for lack in lacks:
        assert lack.what.strip()
        assert "\n" not in lack.what + lack.get
    assert any(COMMAND.search(lack.get) for lack in lacks), lacks


@pytest.mark.parametrize(("kind", "name"), [("detect", "blazepose"), ("slam", "auto")])
def test_our_own_backends_name_the_package_they_run_on(bare, kind, name):
    module = backend(kind, name)
    (lack,) = module.lacking(module.Options())
    assert "is not installed" in lack.what
    assert lack.get.startswith("pip install")


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("slam", "sfm", "package 'pycolmap' is installed as 0.0.1, needed: >=4.0,<5"),
        ("detect", "blazepose", "package 'ai-edge-litert' is installed as 0.0.1, needed: >=2.0"),
        ("detect", "rtmpose", "package 'rtmlib' is installed as 0.0.1, needed: >=0.0.16,<0.1"),
        ("detect", "vitpose", "package 'rtmlib' is installed as 0.0.1, needed: >=0.0.16,<0.1"),
        ("detect", "rtmo", "package 'rtmlib' is installed as 0.0.1, needed: >=0.0.16,<0.1"),
    ],
)
def test_a_wrong_version_is_told_by_the_backend(monkeypatch, kind, name, said):
    monkeypatch.setattr(components, "installed", lambda *_: Installed("0.0.1", None))
    module = backend(kind, name)
    assert said in [lack.what for lack in module.lacking(module.Options())]


@pytest.mark.parametrize(("kind", "name"), FOREIGN)
def test_too_little_gpu_memory_is_told_by_what_needs_a_gpu(bare, monkeypatch, kind, name):
    module = backend(kind, name)
    known = {field.name for field in dataclasses.fields(module.Options)}
    device = {"device": "cuda"} if "device" in known and kind == "detect" else {}
    options = dataclasses.replace(module.Options(), **device)
    needs = any("GPU" in lack.what for lack in module.lacking(options))
    assert needs or device == {}
    monkeypatch.setattr(components, "devices", lambda: (Gpu("toy", 0.25),))
    monkeypatch.setattr(components, "torch_cuda", lambda: "12.6")
    monkeypatch.setattr(components, "driver_cuda", lambda: (12, 6))
    said = [lack.what for lack in module.lacking(options) if "toy has 0.2 GiB" in lack.what]
    assert len(said) == int(needs)


def test_all_that_is_missing_is_said_before_anything_is_made(tmp_path, bare, capsys):
    write_video(tmp_path / "video.mp4")
    words = ["init=tcmr", "body.model=smpl.npz", "stages.motion.terms.humor.weights=h.safetensors"]
    assert cli.main(["optimize", "--seq", str(tmp_path), *words]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == (
        "slamhmr: error: 6 things are missing, nothing was started "
        "(package 'ai-edge-litert' is not installed, ...):"
    )
    for line, number, said in zip(
        lines,
        range(1, 7),
        (
            "package 'ai-edge-litert' is not installed; pip install",
            "package 'pycolmap' is not installed; pip install",
            "weights of init 'tcmr': no file is given; pip install gdown",
            "image features of init 'tcmr': no file is given; set options.tcmr.features=",
            "body model 'smpl.npz' is neither a file nor",
            "weights of term 'humor', stage 'motion': 'h.safetensors' does not exist; run `slamhmr",
        ),
        strict=True,
    ):
        assert line.startswith(f"  {number}. {said}")
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_the_official_chain_names_every_part(tmp_path, bare, capsys):
    write_video(tmp_path / "video.mp4")
    words = ["slam=droid", "detect=vitpose", "init=hmr2"]
    assert cli.main(["optimize", "--seq", str(tmp_path), *words]) == 2
    told = capsys.readouterr().err
    for said in (
        "'rtmlib' is not installed; pip", "options.vitpose.pose: no file is given; wget",
        "code of slam 'droid'", "'lietorch' is not installed; pip", "gdown",
        "slam 'droid' needs a GPU", "init 'hmr2' has no file",
    ):  # fmt: skip
        assert said in told
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_init_is_refused_alike(tmp_path, bare, capsys):
    write_video(tmp_path / "video.mp4")
    assert cli.main(["init", "--seq", str(tmp_path)]) == 2
    assert "2 things are missing" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_directory_that_is_not_there_is_listed_with_the_rest(tmp_path, capsys):
    absent = tmp_path / "none"
    assert cli.main(["optimize", "--seq", str(absent), "init=wham"]) == 2
    errors = capsys.readouterr().err
    assert "2 things are missing" in errors
    assert f"1. sequence directory '{absent}' does not exist" in errors
    with pytest.raises(InputError, match="does not exist"):
        checked(absent)


def test_files_that_are_given_ask_for_nothing(tmp_path, bare):
    write_sequence(tmp_path)
    assert checked(tmp_path).observations is not None


def test_pixels_and_files_that_backends_read_are_listed(tmp_path):
    write_sequence(tmp_path, initial=False)
    with pytest.raises(MissingAsset, match="holds no video, which detect=blazepose and slam=sfm"):
        checked(tmp_path, "detect=blazepose", "slam=sfm")
    with pytest.raises(
        MissingAsset, match=r"'initial.npz' is not in .*, but init=file asks for it"
    ):
        checked(tmp_path, "init=file")


def test_a_step_that_has_left_its_file_is_not_asked(tmp_path, bare):
    write_video(tmp_path / "video.mp4")
    run = tmp_path / "slamhmr"
    run.mkdir()
    write_arrays(run / "1_observations.npz", to_arrays(make_observations(make_state())))
    with pytest.raises(MissingAsset, match="^package 'pycolmap'"):
        checked(tmp_path)
    with pytest.raises(MissingAsset, match="2 things are missing"):
        checked(tmp_path, overwrite=True)


def test_a_camera_that_stands_still_needs_no_reconstruction(tmp_path, bare):
    write_video(tmp_path / "video.mp4")
    (tmp_path / "sequence.yaml").write_text("camera: static\n")
    with pytest.raises(MissingAsset, match="^package 'ai-edge-litert'"):
        checked(tmp_path)


def test_every_view_is_asked(tmp_path, bare):
    write_sequence(tmp_path / "views" / "a")
    write_sequence(tmp_path / "views" / "b")
    assert len(checked(tmp_path).views) == 1
    write_video(tmp_path / "views" / "b" / "video.mp4")
    (tmp_path / "views" / "b" / "observations.npz").unlink()
    with pytest.raises(MissingAsset, match="^package 'ai-edge-litert'"):
        checked(tmp_path)


def checked(folder: Path, *overrides: str, overwrite: bool = False):
    config = load_config(overrides=overrides)
    return checked_clip(folder, config, folder / "slamhmr", overwrite=overwrite)


def test_a_pinned_file_must_be_the_one_that_was_pinned(tmp_path):
    weights = tmp_path / "lifter.safetensors"
    weights.write_bytes(b"abc")
    write_sequence(tmp_path / "clip", initial=False)
    digest = hashlib.sha256(b"abc").hexdigest()
    words = [f"options.lift.weights={weights}", f"sha256.lift.weights={digest}"]
    checked(tmp_path / "clip", *words)
    weights.write_bytes(b"abd")
    with pytest.raises(MissingAsset, match=f"options.lift.weights: .* expected {digest}; get the"):
        checked(tmp_path / "clip", *words)
    with pytest.raises(ConfigError, match="sha256.lift.min_points: options.lift names no such"):
        checked(tmp_path / "clip", f"sha256.lift.min_points={digest}")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sha256.lifd.weights=" + 64 * "a", "sha256.lifd: no such backend; did you mean 'lift'"),
        ("sha256.lift.weights=abc", "sha256.lift.weights=abc: must be 64 hexadecimal digits"),
    ],
)
def test_a_wrong_pin_is_refused(word, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[word])


def test_a_gpu_that_is_asked_for_and_not_there_is_said_with_the_rest(tmp_path, bare):
    write_video(tmp_path / "video.mp4")
    with pytest.raises(MissingAsset, match="3 things are missing") as caught:
        checked(tmp_path, "device=cuda")
    assert "device=cuda needs a GPU, but torch is installed without CUDA; pip" in str(caught.value)
