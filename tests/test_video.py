from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from slamhmr.errors import InputError
from slamhmr.video import VideoWriter, open_video, read_frames

STEP = 20  # grey levels between two frames


def levels(video):
    return [round(float(image.mean()) / STEP) for _, image in read_frames(video)]


def write_variable(path, stamps_ms):
    """A clip whose frame i is grey level STEP i, shown at the given times."""
    container = av.open(str(path), "w")
    stream = container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    for index, stamp in enumerate(stamps_ms):
        image = np.full((48, 64, 3), STEP * index, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = stamp, Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    container.close()
    return path


def test_variable_frame_rate_is_honoured(tmp_path):
    stamps = [0, 33, 67, 200, 233, 267, 500, 533]
    path = write_variable(tmp_path / "clip.mp4", stamps)
    video = open_video(path)
    assert video.timestamps.tolist() == pytest.approx([s / 1000 for s in stamps], abs=1e-3)
    assert video.fps == pytest.approx(30, abs=1.5)
    assert levels(video) == list(range(8))


def test_kept_frames_start_at_0_and_are_the_right_ones(tmp_path):
    path = write_variable(tmp_path / "clip.mp4", [0, 33, 67, 200, 233, 267])
    video = open_video(path, frames=(3, 4))
    assert video.timestamps.tolist() == pytest.approx([0, 0.033], abs=1e-3)
    assert levels(video) == [3, 4]
    with pytest.raises(InputError, match=r"frames \[6, 9\] lie beyond the 6"):
        open_video(path, frames=(6, 9))


def test_a_range_beyond_the_end_is_said_and_cut(tmp_path, caplog):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        image = np.full((16, 24, 3), 40 * number, np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    assert open_video(folder, frames=(3, 50)).frame_count == 2
    assert "go beyond the 5" in caplog.text


def test_a_stated_rate_outweighs_the_files(tmp_path):
    path = write_variable(tmp_path / "clip.mp4", [0, 33, 67, 200])
    video = open_video(path, fps=10)
    assert video.fps == pytest.approx(10)
    assert video.timestamps.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])


def test_images_follow_their_numbers_with_or_without_zeros(tmp_path):
    for index in range(12):
        image = np.full((41, 61, 3), STEP * index, np.uint8)
        cv2.imwrite(str(tmp_path / f"frame{index}.png"), image)
    video = open_video(tmp_path)
    assert video.image_size == (61, 41)
    assert levels(video) == list(range(12))


def test_a_file_that_breaks_off_is_one_line(tmp_path):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 25.0, (64, 48)) as writer:
        for index in range(40):
            noise = np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            writer.write(noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="clip.mp4") as caught:
        list(read_frames(open_video(path)))
    assert "\n" not in str(caught.value)
