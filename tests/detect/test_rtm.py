"""Detectors of the RTM family against a rtmlib that checks how it is called."""

import importlib.metadata
import inspect
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rtm_fake
import torch
from rtm_pictures import Pictures, draw

from slamhmr.detect import rtm, rtm_people, rtmo, rtmpose, vitpose
from slamhmr.errors import BackendError, ConfigError, MissingAsset
from slamhmr.registry import backend
from slamhmr.skeleton import COCO_KEYPOINTS, KEYPOINTS
from slamhmr.types import Video
from slamhmr.video import open_video


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return draw(tmp_path_factory.mktemp("dots"), 3)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file that stands for every network, with the checking rtmlib installed."""
    module = ModuleType("rtmlib")
    for name in ("YOLOX", "RTMPose", "RTMO"):
        setattr(module, name, getattr(rtm_fake, name))
    monkeypatch.setitem(sys.modules, "rtmlib", module)
    monkeypatch.setattr(rtm, "lacking_package", lambda *_, **__: [])
    file = tmp_path / "network.onnx"
    file.write_bytes(b"anything")
    return str(file)


def check(found, truth: Pictures) -> None:
    assert found.confidence.shape == (2, 3, 17)
    middle = found.keypoints[:, 0, :, 0].mean(dim=-1)
    order = [int(middle.argmin()), int(middle.argmax())]
    shown = torch.from_numpy(truth.shown)
    error = found.keypoints[order] - torch.from_numpy(truth.points)
    assert float(error[shown].mean(dim=0).abs().max()) < 0.12
    assert float(error[shown].abs().max()) < 0.75
    assert bool((found.confidence[order] > 0.9)[shown].all())
    assert bool((found.confidence[order] < 0.1)[~shown].all())


def test_boxes_then_points(pictures: Pictures, network: str, capsys: pytest.CaptureFixture):
    options = rtmpose.Options(detector=network, pose=network, batch=2)
    check(rtmpose.detect(open_video(pictures.folder), options, progress=False), pictures)
    assert capsys.readouterr().out == ""


def test_everybody_at_once(pictures: Pictures, network: str):
    options = rtmo.Options(pose=network, batch=2)
    check(rtmo.detect(open_video(pictures.folder), options, progress=False), pictures)


def test_the_tracker_is_told_of_cuts(
    pictures: Pictures, network: str, monkeypatch: pytest.MonkeyPatch
):
    told = []

    def track(looks, fps, gap, cuts):
        told.append((len(looks), fps, gap, cuts))
        return []

    monkeypatch.setattr(rtm_people, "track_people", track)
    video, options = open_video(pictures.folder), rtmo.Options(pose=network)
    with pytest.raises(BackendError, match="nobody found in 3 frames.*none of 6 looks lasts"):
        rtmo.detect(video, options, cuts=(1,), progress=False)
    assert told == [(3, video.fps, 2.0, (1,))]


def test_a_score_may_count_as_certain(pictures: Pictures, network: str):
    half = rtmo.Options(pose=network, certain=2.0)
    found = rtmo.detect(open_video(pictures.folder), half, progress=False)
    assert float(found.confidence.max()) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["rtmpose", "vitpose", "rtmo"])
def test_all_that_is_missing_is_said_with_its_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("slamhmr.components.installed", lambda *_: None)
    module = backend("detect", name)
    lacks = module.lacking(module.Options())
    words = [f"{lack.what}; {lack.get}" for lack in lacks]
    assert "package 'rtmlib' is not installed; pip install --no-deps 'rtmlib>=0.0.16,<0.1'" in words
    assert "package 'onnxruntime' is not installed; pip install 'onnxruntime>=1.17'" in words
    assert f"network of options.{name}.pose: no file is given" in words[-1]
    assert ".onnx" in words[-1]
    assert "https://" in words[-1]
    video = Video(tmp_path, (320, 240), 30.0, torch.zeros(1).double(), 0, 0)
    with pytest.raises(MissingAsset, match=r"\d things are missing"):
        module.detect(video, module.Options(), progress=False)


def test_a_runtime_without_cuda_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rtm, "lacking_package", lambda *_, **__: [])

    def absent(name: str) -> None:
        assert name == "onnxruntime-gpu"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(rtm.importlib.metadata, "distribution", absent)
    monkeypatch.setattr("slamhmr.components.devices", lambda: ())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lacks = rtm.lacking_runtime("cuda")
    assert [lack.what for lack in lacks] == [
        "package 'onnxruntime' is installed without CUDA",
        "device=cuda needs a GPU, no CUDA device was found",
    ]
    assert "onnxruntime-gpu" in lacks[0].get


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "options.vitpose.device 'tpu' is unknown; available: cpu, cuda"),
        ({"device": "cuda:one"}, "'cuda:one' is unknown; available: cpu, cuda, cuda:N"),
        ({"batch": 0}, "options.vitpose.batch is 0; must be above 0"),
        ({"certain": -1.0}, "options.vitpose.certain is -1.0"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict, message: str):
    video = Video(tmp_path, (320, 240), 30.0, torch.zeros(1).double(), 0, 0)
    with pytest.raises(ConfigError, match=message):
        vitpose.detect(video, vitpose.Options(**settings), progress=False)


def test_layouts_are_canonical_and_their_columns_differ():
    for count, columns in rtm.LAYOUTS.items():
        assert set(columns) <= set(KEYPOINTS)
        assert len(set(columns.values())) == len(columns)
        assert max(columns.values()) < count
    assert rtm.LAYOUTS[25]["right_heel"] == 24
    assert rtm.LAYOUTS[25]["left_shoulder"] == 6
    assert rtm.LAYOUTS[26]["right_heel"] == 25
    assert rtm.LAYOUTS[133]["right_heel"] == 22


def test_landmarks_of_the_tracker_without_a_keypoint_have_a_stand_in():
    names = rtm_people._stand_ins(COCO_KEYPOINTS)
    assert len(names) == 33
    assert names[:3] == ["nose", "left_eye", "left_eye"]
    assert names[9] == "nose"
    assert names[17] == "left_wrist"
    assert names[-2:] == ["left_ankle", "right_ankle"]


def test_udp_moves_points_towards_the_middle_of_the_crop():
    centre, scale = np.array([100.0, 200.0]), np.array([192.0, 256.0])  # a crop of its own size
    ends = np.array([[[0.0, 0.0], [1.0, 1.0]]]) * scale + centre - scale / 2
    moved = vitpose.by_udp(ends, centre, scale, (192, 256))
    corner = centre - scale / 2
    assert np.allclose(moved[0, 0], corner)  # first pixel's centre, counted from 0
    assert np.allclose(moved[0, 1], corner + scale - 1)  # last pixel's


@pytest.mark.parametrize("name", ["YOLOX", "RTMPose", "RTMO"])
@pytest.mark.parametrize("method", ["__init__", "__call__", "preprocess", "postprocess"])
def test_the_checking_rtmlib_has_the_signatures_of_the_real_one(name: str, method: str):
    real = pytest.importorskip("rtmlib", reason="package rtmlib is not installed")
    ours = vars(getattr(rtm_fake, name)).get(method)
    if ours is None:
        return  # never called
    theirs = inspect.signature(getattr(getattr(real, name), method)).parameters
    mine = inspect.signature(ours).parameters
    assert [(p.name, p.kind, p.default) for p in mine.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]
