import cv2
import numpy as np
import pytest

from slamhmr.slam.intrinsics import known_intrinsics
from slamhmr.video import open_video


def test_video_files_and_other_formats_hold_none(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((24, 36, 3), np.uint8))
    assert known_intrinsics(open_video(tmp_path, fps=30.0)) is None


def test_damaged_exif_is_none(tmp_path):
    pictures(tmp_path, 28)
    data = (tmp_path / "0.jpg").read_bytes()
    at = data.index(b"Exif") + 10
    (tmp_path / "0.jpg").write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
    assert known_intrinsics(open_video(tmp_path, fps=30.0)) is None


def pictures(folder, focal):
    Image = pytest.importorskip("PIL.Image", reason="Pillow writes the EXIF entry")
    exif = Image.Exif()
    if focal is not None:
        exif.get_ifd(0x8769)[0xA405] = focal
    Image.fromarray(np.zeros((24, 36, 3), np.uint8)).save(folder / "0.jpg", exif=exif)
    return open_video(folder, fps=30.0)


def test_35mm_focal_length_becomes_pixels(tmp_path):
    found = known_intrinsics(pictures(tmp_path, 28))
    assert found.tolist() == pytest.approx([28.0, 28.0, 18.0, 12.0])


@pytest.mark.parametrize("focal", [None, 0])
def test_unknown_focal_length_is_none(tmp_path, focal):
    assert known_intrinsics(pictures(tmp_path, focal)) is None
