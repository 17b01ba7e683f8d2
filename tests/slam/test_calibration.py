"""Calibration files of several cameras, written here: a camera known by hand, read from either."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from slamhmr.artifacts import load, read_arrays
from slamhmr.cli import main
from slamhmr.errors import InputError
from slamhmr.geometry import apply, invert, project
from slamhmr.slam.calibration import read_calibration
from slamhmr.types import CameraTrack

# A camera at (1, 2, 3) m that looks along +y of its world, z up: x right, y down, z ahead.
POSE = torch.tensor(
    [[1.0, 0, 0, 1], [0, 0, 1, 2], [0, -1, 0, 3], [0, 0, 0, 1]], dtype=torch.float64
)
SIZE = (640, 360)
LENS = [500.0, 510.0, 320.5, 181.0]  # px; the centre of the first pixel at (0.5, 0.5)
# Radial 1 and 2, tangential 1 and 2, radial 3.
BENT = (0.1, -0.05, 0.001, 0.002, 0.01)
QUALISYS = """<calibration>
  <cameras>
    <camera serial="left">
      <fov_video left="0" top="0" right="639" bottom="359"/>
      <transform x="1000" y="2000" z="3000" r11="1" r12="0" r13="0" r21="0" r22="0" r23="1"
        r31="0" r32="-1" r33="0"/>
      <intrinsic focalLengthU="32000" focalLengthV="32640" centerPointU="20480"
        centerPointV="11552" radialDistortion1="0.1" radialDistortion2="-0.05"
        radialDistortion3="0.01" tangentalDistortion1="0.001" tangentalDistortion2="0.002"/>
    </camera>
  </cameras>
</calibration>
"""
# x_cam = R x + t, R a quarter turn about x; t = -R (1, 2, 3) = (-1, 3, -2).
TOML = """[cam_1]
name = "left"
size = [640, 360]
matrix = [[500.0, 0.0, 320.0], [0.0, 510.0, 180.5], [0.0, 0.0, 1.0]]
distortions = [0.1, -0.05, 0.001, 0.002, 0.01]
rotation = [1.5707963267948966, 0.0, 0.0]
translation = [-1.0, 3.0, -2.0]
fisheye = false

[metadata]
adjusted = true
"""
FILES = {"rig.qca.txt": QUALISYS, "rig.toml": TOML}


@pytest.mark.parametrize(("name", "up"), [("rig.qca.txt", [0.0, 0.0, 1.0]), ("rig.toml", None)])
def test_a_camera_known_by_hand(tmp_path: Path, name: str, up: list[float] | None) -> None:
    (tmp_path / name).write_text(FILES[name])
    (camera,), said = read_calibration(tmp_path / name)
    assert camera.name == "left"
    assert camera.image_size == SIZE
    assert camera.distortion == BENT
    assert said == up
    torch.testing.assert_close(camera.world_from_cam, POSE)
    assert camera.intrinsics.tolist() == pytest.approx(LENS)
    # 4 m ahead, 1 m to the right and 0.5 m up: right of the centre, above it.
    point = apply(invert(camera.world_from_cam), torch.tensor([[2.0, 6.0, 3.5]]).double())
    image = project(point, camera.intrinsics)[0]
    assert image.tolist() == pytest.approx([320.5 + 500 / 4, 181.0 - 510 * 0.5 / 4])


def test_a_cropped_sensor_moves_the_principal_point(tmp_path: Path) -> None:
    text = QUALISYS.replace('left="0" top="0"', 'left="40" top="20"')
    (tmp_path / "rig.qca.txt").write_text(text)
    (camera,), _ = read_calibration(tmp_path / "rig.qca.txt")
    assert camera.image_size == (600, 340)
    assert camera.intrinsics.tolist() == pytest.approx([500, 510, 280.5, 161.0])


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("rig.qca.txt", "</calibration>", "", "is not a Qualisys calibration"),
        ("rig.qca.txt", 'x="1000" ', "", "is not a Qualisys calibration: 'x'"),
        ("rig.qca.txt", 'x="1000"', 'x="far"', "is not a Qualisys calibration: could not convert"),
        ("rig.qca.txt", "<fov_video", "<fov", "camera without 'fov_video'"),
        ("rig.qca.txt", 'serial="left"', "", "is not a Qualisys calibration: 'serial'"),
        ("rig.qca.txt", "<camera ", "<kamera ", "is not a Qualisys calibration"),
        ("rig.qca.txt", 'focalLengthU="32000"', 'focalLengthU="0"', "'left' is impossible"),
        ("rig.toml", "[cam_1]", "[cam_1", "is not a calibration in TOML"),
        ("rig.toml", "rotation = ", "turn = ", "is not a calibration in TOML: 'rotation'"),
        (
            "rig.toml",
            "[1.5707963267948966, 0.0, 0.0]",
            "[1.0]",
            r"not a calibration in TOML: 'rotation' has shape \(1,\), not \(3,\)",
        ),
        ("rig.toml", "size = [640, 360]", "size = [640]", "'size' has shape"),
        ("rig.toml", "translation = [-1.0", "translation = [nan", "'left' is impossible"),
        ("rig.toml", "fisheye = false", "fisheye = true", "camera 'left' is a fisheye"),
        ("rig.toml", "matrix", "K", "holds no camera"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    assert old in FILES[name]
    (tmp_path / name).write_text(FILES[name].replace(old, new))
    with pytest.raises(InputError, match=words):
        read_calibration(tmp_path / name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_calibration(tmp_path / "rig.toml")
    (tmp_path / "rig.json").write_text("{}")
    with pytest.raises(InputError, match=r"'rig.json' is not \*.toml or \*.qca.txt"):
        read_calibration(tmp_path / "rig.json")


def observed(folder: Path, frames: int = 3, size: tuple[int, int] = SIZE) -> Path:
    folder.mkdir(parents=True)
    confidence = np.ones((1, frames, 2))
    np.savez(folder / "observations.npz", image_size=np.array(size), confidence=confidence)
    return folder


def test_views_of_observations_alone_get_their_cameras(tmp_path: Path) -> None:
    view = observed(tmp_path / "views" / "left")
    (view / "sequence.yaml").write_text("fps: 25\n")
    (tmp_path / "rig.qca.txt").write_text(QUALISYS)
    assert main(["calibration", str(tmp_path / "rig.qca.txt"), "--seq", str(tmp_path)]) == 0
    track = load(view / "cameras.npz", CameraTrack)
    torch.testing.assert_close(track.world_from_cam, POSE.expand(3, 4, 4))
    assert track.scale_known
    assert not track.moving
    assert track.up is not None
    assert track.up.tolist() == [0, 0, 1]
    assert read_arrays(view / "cameras.npz")["image_size"].tolist() == list(SIZE)
    said = yaml.safe_load((view / "sequence.yaml").read_text())
    assert said == {"fps": 25, "intrinsics": LENS, "distortion": list(BENT)}


@pytest.mark.parametrize(
    ("view", "size", "words"),
    [
        (None, SIZE, "holds no views/NAME for the cameras left"),
        ("right", SIZE, "view 'right' is not in 'rig.toml', which has left"),
        ("left", (1280, 720), "is 1280 x 720 px, calibrated were 640 x 360"),
        ("left", None, "holds neither a video nor observations.npz"),
    ],
)
def test_views_that_do_not_fit_are_refused(tmp_path: Path, capsys, view, size, words) -> None:
    if view is not None and size is not None:
        observed(tmp_path / "views" / view, size=size)
    elif view is not None:
        (tmp_path / "views" / view).mkdir(parents=True)
    (tmp_path / "rig.toml").write_text(TOML)
    assert main(["calibration", str(tmp_path / "rig.toml"), "--seq", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
