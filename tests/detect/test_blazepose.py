"""The backend as the pipeline calls it: settings, errors, and the real networks on real pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slamhmr.detect import blazepose, models
from slamhmr.detect.blazepose import Options, detect
from slamhmr.detect.landmarks import LANDMARKS
from slamhmr.detect.observe import keypoint_landmarks
from slamhmr.errors import BackendError, ConfigError, MissingAsset
from slamhmr.types import Video
from slamhmr.video import open_video

VIDEOS = Path(__file__).resolve().parents[2].parent / "shared" / "videos"


def video(path: Path, frames: int = 10) -> Video:
    return Video(path, (320, 240), 10.0, torch.arange(frames).double() / 10, 0, 0)


def networks() -> None:
    """Skip unless the networks and their runtime are on this machine already."""
    pytest.importorskip("ai_edge_litert", reason="package ai-edge-litert is not installed")
    names = (models.DETECTOR, models.FULL)
    if not all((models.cache_folder() / name).is_file() for name in names):
        pytest.skip(f"BlazePose networks are not in {models.cache_folder()}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"landmarks": "huge"}, "available: full, heavy"),
        ({"smallest_person": 0.0}, "smallest_person is 0.0"),
        ({"max_people": 0}, "max_people is 0"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict, message: str):
    options = Options()
    for name, value in settings.items():
        object.__setattr__(options, name, value)  # as a configuration that skipped the schema
    with pytest.raises(ConfigError, match=message):
        detect(video(tmp_path / "v.mp4"), options, progress=False)


def test_missing_runtime_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("slamhmr.components.installed", lambda *_: None)
    with pytest.raises(MissingAsset, match="'ai-edge-litert' is not installed; pip install"):
        detect(video(tmp_path / "v.mp4"), Options(), progress=False)


def test_nobody_is_an_error_that_says_how_small_was_looked_for(tmp_path: Path, monkeypatch):
    class Empty:
        def run(self, frames: object) -> list[list[object]]:
            return [[] for _ in range(10)]

    monkeypatch.setattr(blazepose, "_search", lambda *_: Empty())
    with pytest.raises(BackendError, match="nobody found in 10 frames of 'v.mp4'.*under 24 px"):
        detect(video(tmp_path / "v.mp4"), Options(), progress=False)


def test_keypoints_are_the_landmarks_of_the_same_name():
    names = [LANDMARKS[k] for k in keypoint_landmarks()]
    assert names[:3] == ["nose", "left_eye", "right_eye"]
    assert names[-4:] == ["left_foot_index", "left_heel", "right_foot_index", "right_heel"]


@pytest.mark.slow
@pytest.mark.weights
def test_grey_pictures_show_nobody(tmp_path: Path):
    networks()
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((240, 320, 3), 127, np.uint8))
    with pytest.raises(BackendError, match="the detector saw none"):
        detect(open_video(tmp_path), Options(threads=1), progress=False)


@pytest.mark.slow
@pytest.mark.weights
def test_real_people_are_found_and_followed():
    networks()
    path = VIDEOS / "basketball_static.mp4"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in a folder 'shared/videos' beside the repository")
    seen = detect(open_video(path, frames=(0, 39)), Options(threads=2), progress=False)
    assert seen.person_id.tolist() == [1, 2]
    assert (seen.seen.double().mean(dim=1) > 0.9).all()
    names = seen.keypoint_names
    nose, ankle = (seen.keypoints[:, :, names.index(n)] for n in ("nose", "left_ankle"))
    assert (ankle[..., 1] - nose[..., 1] > 80).all()  # upright, 720 px image
    assert float((nose[0] - nose[1]).abs()[:, 0].min()) > 400  # two different people
    step = (seen.keypoints[:, 1:] - seen.keypoints[:, :-1]).norm(dim=-1)
    assert float(step.median()) < 5
