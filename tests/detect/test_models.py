"""Where the networks come from: cache, folder, checks; no network is used here."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from slamhmr.detect import models
from slamhmr.errors import MissingAsset


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLAMHMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "blazepose"


def trust(monkeypatch: pytest.MonkeyPatch, **content: bytes) -> None:
    """Take the sha256 of made-up files for the published ones."""
    import hashlib

    digests = {f"{name}.tflite": hashlib.sha256(data).hexdigest() for name, data in content.items()}
    monkeypatch.setattr(models, "SHA256", models.SHA256 | digests)


def fake_pip(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], code: int = 0) -> list:
    """Replace pip by a function that writes a wheel; returns the list of its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command)
        if code == 0:
            wheel = Path(command[command.index("--dest") + 1]) / "m.whl"
            with zipfile.ZipFile(wheel, "w") as archive:
                for name, data in members.items():
                    archive.writestr(f"mediapipe/modules/{name}", data)
        return subprocess.CompletedProcess(command, code, "", "noise\nERROR: no connection")

    monkeypatch.setattr(models.subprocess, "run", run)
    return calls


def test_models_are_fetched_once_and_only_the_two_files_stay(cache, monkeypatch):
    trust(monkeypatch, pose_detection=b"one", pose_landmark_full=b"two")
    wheel = {"a/pose_detection.tflite": b"one", "b/pose_landmark_full.tflite": b"two", "c.py": b""}
    calls = fake_pip(monkeypatch, wheel)
    detector, landmarks = models.find_models("full", None)
    assert (detector.read_bytes(), landmarks.read_bytes()) == (b"one", b"two")
    models.find_models("full", None)
    assert len(calls) == 1
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in calls[0]
    assert sorted(p.name for p in cache.iterdir()) == [detector.name, landmarks.name]


def test_no_connection_is_one_line_that_says_what_to_do(cache, monkeypatch):
    fake_pip(monkeypatch, {}, code=1)
    with pytest.raises(
        MissingAsset, match=r"ERROR: no connection.*options.blazepose.models"
    ) as caught:
        models.find_models("full", None)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_wheel_with_other_bytes_never_reaches_the_cache(cache, monkeypatch):
    names = ("pose_detection.tflite", "pose_landmark_full.tflite")
    fake_pip(monkeypatch, dict.fromkeys(names, b"evil"))
    with pytest.raises(MissingAsset, match="sha256"):
        models.find_models("full", None)
    assert list(cache.iterdir()) == []


def test_a_wheel_without_the_files_is_refused(cache, monkeypatch):
    fake_pip(monkeypatch, {"readme": b""})
    with pytest.raises(MissingAsset, match="holds no 'pose_detection.tflite'"):
        models.find_models("full", None)


def test_a_given_folder_is_the_only_place_looked_at(cache, tmp_path, monkeypatch):
    calls = fake_pip(monkeypatch, {})
    with pytest.raises(MissingAsset, match=r"does not exist; .*pip download"):
        models.find_models("full", tmp_path)
    (tmp_path / "pose_detection.tflite").write_bytes(b"old")
    with pytest.raises(MissingAsset, match=r"sha256.*expected 9ba9dd3d"):
        models.find_models("full", tmp_path)
    assert calls == []


def test_heavy_model_names_its_source(cache, tmp_path, monkeypatch):
    trust(monkeypatch, pose_detection=b"one", pose_landmark_heavy=b"three")
    (tmp_path / "pose_detection.tflite").write_bytes(b"one")
    with pytest.raises(MissingAsset, match="npm pack @mediapipe/pose"):
        models.find_models("heavy", tmp_path)
    (tmp_path / "pose_landmark_heavy.tflite").write_bytes(b"three")
    assert models.find_models("heavy", tmp_path)[1].name == "pose_landmark_heavy.tflite"
