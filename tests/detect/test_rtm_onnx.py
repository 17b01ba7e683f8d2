"""The real rtmlib and onnxruntime on real .onnx files: pixels in, exact keypoints out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rtm_pictures import HEIGHT, PLATE, WIDTH, Pictures, draw

from slamhmr.detect import rtm, rtmo, rtmpose, vitpose
from slamhmr.errors import BackendError, MissingAsset
from slamhmr.skeleton import COCO_KEYPOINTS, KEYPOINTS
from slamhmr.types import Observations
from slamhmr.video import open_video

for package in ("rtmlib", "onnxruntime", "onnx"):
    reason = f"package {package} is not installed (pip install --no-deps rtmlib onnxruntime onnx)"
    pytest.importorskip(package, reason=reason)
import rtm_onnx  # noqa: E402 - needs onnx

RIGHT = 0.5  # px, on both axes
# RTMPose answers in half pixels of the crop, which is 1.25 times the box here and 256 px high.
BIN = 0.5 * 1.25 * PLATE[1] / 256
UNBIASED = 0.1  # px: half a pixel too far to one side would be noticed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return draw(tmp_path_factory.mktemp("dots"))


def check(
    found: Observations,
    truth: Pictures,
    names: tuple[str, ...] = COCO_KEYPOINTS,
    columns: tuple[int, ...] = tuple(range(17)),
    right: float = RIGHT,
) -> None:
    """Same people, names, places and confidence."""
    assert found.keypoint_names == names
    assert found.image_size == (WIDTH, HEIGHT)
    assert found.confidence.shape[0] == 2
    middle = found.keypoints[:, 0, :, 0].mean(dim=-1)
    order = [int(middle.argmin()), int(middle.argmax())]
    shown = torch.from_numpy(truth.shown[:, :, list(columns)])
    error = found.keypoints[order] - torch.from_numpy(truth.points[:, :, list(columns)])
    assert float(error[shown].abs().max()) < right
    assert float(error[shown].mean(dim=0).abs().max()) < UNBIASED
    assert float(found.confidence[order][shown].min()) > 0.9
    assert float(found.confidence[order][~shown].max()) < 0.1
    inside = (found.boxes[..., None, :2] < found.keypoints) & (
        found.keypoints < found.boxes[..., None, 2:]
    )
    assert bool(inside[found.confidence > 0.5].all())


def test_rtmpose_with_suppression_inside(pictures: Pictures, tmp_path: Path):
    options = rtmpose.Options(
        detector=str(rtm_onnx.yolox_with_nms(tmp_path / "yolox.onnx")),
        pose=str(rtm_onnx.rtmpose(tmp_path / "rtmpose.onnx")),
    )
    found = rtmpose.detect(open_video(pictures.folder), options, progress=False)
    check(found, pictures, right=0.2 + BIN / 2)


def test_halpe_points_one_by_one_and_boxes_to_be_decoded(tmp_path: Path):
    pictures = draw(tmp_path / "halpe", 4, 26)
    options = rtmpose.Options(
        detector=str(rtm_onnx.yolox_raw(tmp_path / "yolox.onnx")),
        pose=str(rtm_onnx.rtmpose(tmp_path / "rtmpose.onnx", 26, batch=1)),
        batch=3,
    )
    found = rtmpose.detect(open_video(pictures.folder), options, progress=False)
    columns = (*range(17), 20, 22, 24, 21, 23, 25)
    check(found, pictures, KEYPOINTS, columns, 0.2 + BIN / 2)


def test_vitpose_means_heat_maps_as_udp_does(pictures: Pictures, tmp_path: Path):
    options = vitpose.Options(
        detector=str(rtm_onnx.yolox_with_nms(tmp_path / "yolox.onnx", 416)),
        pose=str(rtm_onnx.vitpose(tmp_path / "vitpose.onnx")),
        batch=4,
    )
    found = vitpose.detect(open_video(pictures.folder), options, progress=False)
    check(found, pictures)


def test_rtmo_finds_people_in_the_shrunk_frame(pictures: Pictures, tmp_path: Path):
    options = rtmo.Options(pose=str(rtm_onnx.rtmo(tmp_path / "rtmo.onnx")))
    found = rtmo.detect(open_video(pictures.folder), options, progress=False)
    check(found, pictures)


def test_an_empty_picture_shows_nobody(tmp_path: Path):
    import cv2

    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((240, 320, 3), 128, np.uint8))
    options = rtmo.Options(pose=str(rtm_onnx.rtmo(tmp_path / "rtmo.onnx", size=320)))
    with pytest.raises(BackendError, match="nobody found in 2 frames.*the detector saw none"):
        rtmo.detect(open_video(tmp_path), options, progress=False)


def test_files_of_another_kind_are_refused(pictures: Pictures, tmp_path: Path):
    yolox = str(rtm_onnx.yolox_with_nms(tmp_path / "yolox.onnx", 320))
    pose = str(rtm_onnx.rtmpose(tmp_path / "rtmpose.onnx"))
    video = open_video(pictures.folder)
    with pytest.raises(MissingAsset, match="outputs of 1x2x5, expected of RTMPose: anyxanyx640"):
        rtmpose.detect(video, rtmpose.Options(pose=yolox, detector=yolox), progress=False)
    with pytest.raises(MissingAsset, match="gives 384 numbers per box; YOLOX"):
        vitpose.detect(video, vitpose.Options(pose=pose, detector=pose), progress=False)
    odd = str(rtm_onnx.rtmpose(tmp_path / "odd.onnx", 19))
    with pytest.raises(MissingAsset, match="gives 19 points per person; known layouts have 17, 25"):
        rtmpose.detect(video, rtmpose.Options(detector=yolox, pose=odd), progress=False)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(MissingAsset, match="broken.onnx' cannot be loaded as YOLOX: .*"):
        rtmpose.detect(video, rtmpose.Options(detector=str(broken), pose=pose), progress=False)


def test_a_cpu_runtime_is_not_taken_for_a_gpu(tmp_path: Path):
    pose = str(rtm_onnx.rtmpose(tmp_path / "rtmpose.onnx"))
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    warned = pytest.warns(UserWarning, match="CUDAExecutionProvider")
    refused = pytest.raises(MissingAsset, match="runs on CPUExecutionProvider, not on cuda")
    with warned, refused:
        rtm.load_tool("RTMPose", pose, "cuda")
