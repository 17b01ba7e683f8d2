import dataclasses
import gc
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sequences import BODY, make_cameras, make_initial, make_observations, make_state

from slamhmr import artifacts
from slamhmr.errors import InputError
from slamhmr.export.result import build_result
from slamhmr.types import CameraTrack, Initial, Observations, Result, SceneState, StageReport


def examples():
    state = make_state(2)
    observations = make_observations(state)
    observations.boxes[0, 1] = torch.nan
    with_notes = dataclasses.replace(
        make_cameras(), covariance=torch.ones(8, 6, 6).double(), notes=("focal guessed", "é")
    )
    result = build_result(
        state, BODY, observations, body_model="default", provenance={"version": "0", "inputs": {}}
    )
    return [observations, make_cameras(), with_notes, make_initial(state), state, result]


def same(left, right):
    for field in dataclasses.fields(left):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype, field.name
            assert torch.equal(a.double().nan_to_num(-7), b.double().nan_to_num(-7)), field.name
        elif dataclasses.is_dataclass(a):
            same(a, b)
        else:
            assert a == b or (a != a and b != b), field.name


@pytest.mark.parametrize("value", examples(), ids=lambda value: type(value).__name__)
def test_every_type_reads_back_as_it_was_written(tmp_path, value):
    artifacts.save(tmp_path / "a.npz", value, stamp={"config": "x"})
    same(value, artifacts.load(tmp_path / "a.npz", type(value)))


CONTRACT = {
    Observations: "person_id keypoints confidence keypoint_names boxes image_size fps timestamps",
    CameraTrack: "world_from_cam intrinsics image_size scale_known moving source",
    Initial: "person_id cam_from_root body_pose betas valid",
    Result: "schema_version person_id valid observed root_orient transl body_pose betas joints "
    "contacts world_from_cam intrinsics image_size fps ground scale scale_std body_model gender "
    "provenance",
}


@pytest.mark.parametrize("kind", CONTRACT)
def test_keys_are_those_of_the_contract(kind):
    value = next(value for value in examples() if isinstance(value, kind))
    assert set(CONTRACT[kind].split()) <= set(artifacts.to_arrays(value))


def test_no_field_of_a_state_hides_one_of_its_cameras(tmp_path):
    state = make_state()
    vertical = torch.tensor([0.0, 0.6, 0.8]).double()
    state = dataclasses.replace(state, cameras=dataclasses.replace(state.cameras, up=vertical))
    artifacts.save(tmp_path / "a.npz", state, stamp={})
    same(state, artifacts.load(tmp_path / "a.npz", SceneState))


def test_keys_of_a_states_cameras_are_its_own():
    own = {field.name for field in dataclasses.fields(SceneState)}
    assert own.isdisjoint(artifacts._CAMERA_KEYS)


def test_plain_numpy_reads_a_result(tmp_path):
    result = examples()[-1]
    artifacts.save(tmp_path / "result.npz", result, stamp={})
    with np.load(tmp_path / "result.npz", allow_pickle=False) as file:
        assert file["joints"].shape == (2, 8, 24, 3)
        assert json.loads(str(file["provenance"]))["version"] == "0"
        assert int(file["schema_version"]) == 1


def test_objects_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="objects"):
        artifacts.write_arrays(tmp_path / "a.npz", {"a": np.array([{}])})


def test_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="pickled"):
        artifacts.read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_line_and_has_no_stamp(tmp_path, share):
    path = tmp_path / "a.npz"
    artifacts.save(path, make_state(), stamp={"config": "x"})
    assert artifacts.read_stamp(path) == {"config": "x"}
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="damaged") as caught:
        artifacts.read_arrays(path)
    assert "\n" not in str(caught.value)
    assert artifacts.read_stamp(path) is None


@pytest.mark.parametrize(
    "read",
    [
        "slamhmr.artifacts:read_arrays",
        "slamhmr.detect.file:read_observations",
        "slamhmr.init.file:read_initial",
        "slamhmr.slam.file:read_cameras",
        "slamhmr.body:load_body",
    ],
)
@pytest.mark.parametrize("harm", ["cut", "garbled"])
def test_no_reader_leaves_a_damaged_file_open_or_raises_anything_else(tmp_path, read, harm):
    path = tmp_path / "a.npz"
    keys = ("person_id", "world_from_cam", "v_template")  # the first that each reader asks for
    np.savez_compressed(path, **{key: np.arange(5000.0) ** 0.5 for key in keys})
    content = bytearray(path.read_bytes())
    for name in keys:
        start = content.index(f"{name}.npy".encode()) + len(name) + 80
        content[start : start + 2000] = bytes(b ^ 0x5A for b in content[start : start + 2000])
    path.write_bytes(path.read_bytes()[:900] if harm == "cut" else bytes(content))
    module, function = read.split(":")
    arguments = {"frame_count": 3} if function == "read_cameras" else {}
    gc.disable()
    try:
        with pytest.raises(InputError, match="damaged") as caught:
            getattr(importlib.import_module(module), function)(path, **arguments)
        assert "\n" not in str(caught.value)
        opened = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    finally:
        gc.enable()
    assert str(path) not in opened


def test_a_flipped_byte_has_no_stamp(tmp_path):
    path = tmp_path / "a.npz"
    artifacts.save(path, make_state(), stamp={"config": "x"})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert artifacts.read_stamp(path) is None


def test_a_lacking_key_is_named(tmp_path):
    arrays = artifacts.to_arrays(make_cameras())
    del arrays["intrinsics"]
    artifacts.write_arrays(tmp_path / "cameras.npz", arrays)
    with pytest.raises(InputError, match="lacks the key 'intrinsics'"):
        artifacts.load(tmp_path / "cameras.npz", CameraTrack)


def test_a_failed_write_leaves_the_old_file_and_no_leftover(tmp_path):
    path = tmp_path / "a.txt"
    artifacts.write_text(path, "old")

    def fail():
        with artifacts.atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_hashes_follow_content_only(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = artifacts.content_hash([tmp_path / "a"])
    (tmp_path / "a").touch()
    assert artifacts.content_hash([tmp_path / "a"]) == first
    (tmp_path / "a").write_bytes(b"2")
    assert artifacts.content_hash([tmp_path / "a"]) != first
    assert artifacts.settings_hash({"a": 1, "b": 2}) == artifacts.settings_hash({"b": 2, "a": 1})
    assert artifacts.settings_hash({"a": 1}) != artifacts.settings_hash({"a": 2})


def test_json_has_no_nan(tmp_path):
    artifacts.write_json(tmp_path / "a.json", {"a": float("nan"), "b": torch.tensor([1.0])})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1.0]}


def test_stage_reports_read_back():
    report = StageReport("root", 3, 1, "converged", {"a": 2.0}, {"a": 1.0}, 0.5)
    text = json.dumps(artifacts.report_to_json(report))
    assert artifacts.report_from_json(json.loads(text)) == report
