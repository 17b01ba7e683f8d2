"""PHALP's track file written from truth, read as observations."""

import logging
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from foreign_case import SIZE, Truth, make_truth
from phalp_case import phalp_frames, write_phalp

from slamhmr.detect.phalp import Options, detect
from slamhmr.errors import InputError, MissingAsset
from slamhmr.skeleton import KEYPOINTS
from slamhmr.types import Video


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smpl", frames=12)


def video(count: int = 12, first: int = 0) -> Video:
    return Video(Path("v.mp4"), SIZE, 30.0, torch.arange(count) / 30.0, first, 0)


def test_a_round_trip(truth: Truth, tmp_path: Path):
    content = phalp_frames(truth, {2: {3, 4}})
    shuffled = dict(sorted(content.items()))  # 1, 10, 11, 12, 2: not the order of the frames
    path = write_phalp(tmp_path / "demo_v.pkl", shuffled)
    found = detect(video(), Options(path=str(path)), progress=False)
    assert found.person_id.tolist() == [1, 2]
    assert set(found.keypoint_names) == set(KEYPOINTS[:17])
    columns = [KEYPOINTS.index(name) for name in found.keypoint_names]
    seen = torch.ones(2, 12, dtype=torch.bool)
    seen[1, 3:5] = False
    assert torch.equal(found.seen, seen)
    expected = truth.observations.keypoints[:, :, columns]
    assert torch.allclose(found.keypoints[seen], expected[seen])
    assert bool((found.confidence[seen] == 0.8).all())
    assert torch.allclose(found.boxes[seen], truth.observations.boxes[seen])
    assert bool(found.boxes[~seen].isnan().all())


def test_part_of_a_video(truth: Truth, tmp_path: Path):
    path = write_phalp(tmp_path / "demo_v.pkl", phalp_frames(truth))
    found = detect(video(6, first=4), Options(path=str(path), first=1), progress=False)
    columns = [KEYPOINTS.index(name) for name in found.keypoint_names]
    assert torch.allclose(found.keypoints, truth.observations.keypoints[:, 5:11, columns])


def test_without_a_detectors_keypoints_the_log_says_so(
    truth: Truth, tmp_path: Path, caplog, monkeypatch
):
    content = phalp_frames(truth)
    for number, frame in enumerate(content.values()):  # as versions of PHALP leave it
        frame["extra_data"] = [None, 1] if number > 3 else [0, 1]
        if number > 8:
            del frame["extra_data"]
    path = write_phalp(tmp_path / "demo_v.pkl", content)
    with caplog.at_level(logging.WARNING, "slamhmr"):
        monkeypatch.setattr(logging.getLogger("slamhmr"), "propagate", True)
        found = detect(video(), Options(path=str(path)), progress=False)
    assert "no keypoints of a detector" in caplog.text
    assert float(found.confidence.max()) == 0.3
    columns = [found.keypoint_names.index(name) for name in KEYPOINTS[:17]]
    assert torch.allclose(found.keypoints[:, :, columns], truth.observations.keypoints[:, :, :17])


def test_one_line_for_everything_wrong(truth: Truth, tmp_path: Path):
    with pytest.raises(MissingAsset, match=r"no 'demo_\*.pkl' in the sequence.*git clone"):
        detect(video(), Options(), progress=False)
    path = write_phalp(tmp_path / "demo_v.pkl", phalp_frames(truth))
    options = Options(path=str(path))
    with pytest.raises(InputError, match=r"12 frames, 20 are needed.*options.phalp.first"):
        detect(video(20), options, progress=False)
    with pytest.raises(InputError, match=r"pictures of \(640, 480\) px, the video has \(480, 640"):
        detect(replace(video(), image_size=(480, 640)), options, progress=False)
    with pytest.raises(InputError, match="no track is seen in 13 frames"):
        detect(video(), replace(options, least_frames=13), progress=False)
    content = phalp_frames(truth)
    content["img/3.jpg"]["bbox"][0][1] = float("nan")
    write_phalp(path, content)
    with pytest.raises(InputError, match="'bbox' of track 1 in frame 2 is not finite"):
        detect(video(), options, progress=False)
    content["img/3.jpg"]["tid"][0] = np.zeros(3)
    write_phalp(path, content)
    with pytest.raises(InputError, match="'tid' holds array.*expected a whole number"):
        detect(video(), options, progress=False)
    write_phalp(path, {"1": {"smpl": []}})
    with pytest.raises(InputError, match="lacks the lists 'tid' and 'tracked_ids'"):
        detect(video(), options, progress=False)


def test_a_payload_does_not_run(truth: Truth, tmp_path: Path):
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (ran,))

    content = phalp_frames(truth)
    content["img/3.jpg"]["mask"] = Payload()
    path = tmp_path / "demo_v.pkl"
    joblib.dump(content, path)
    with pytest.raises(InputError, match="refused"):
        detect(video(), Options(path=str(path)), progress=False)
    assert not ran.exists()
