"""Reading and writing pixels: frame times, rotation metadata and image folders included."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slamhmr.errors import InputError
from slamhmr.types import Video

LOG = logging.getLogger(__name__)
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}


def open_video(
    path: Path, *, fps: float | None = None, frames: tuple[int, int] | None = None
) -> Video:
    """Look at a video file or image folder: size, rate, time of every frame.

    `fps` overrides the rate of the file (image folders have none: 30 unless given); `frames` keeps
    first..last, both inclusive. Every frame is demuxed, none is decoded except the first.
    Raises InputError if there is no frame, the file cannot be read, or `frames` leaves nothing.
    """
    if not path.exists():
        raise InputError(f"video '{path}' does not exist")
    if path.is_dir():
        size, times, rotation = _probe_images(path, fps)
    else:
        size, times, rotation = _probe_file(path)
    if fps is not None:
        times = np.arange(len(times)) / fps
    first, last = frames if frames is not None else (0, len(times) - 1)
    if not 0 <= first <= last:
        raise InputError(f"frames [{first}, {last}] of '{path.name}' are not a range")
    if first >= len(times):
        raise InputError(f"frames [{first}, {last}] lie beyond the {len(times)} of '{path.name}'")
    if frames is not None and last >= len(times):
        logging.getLogger(__name__).warning(
            "frames [%d, %d] go beyond the %d of '%s': it ends with its last one",
            first, last, len(times), path.name,
        )  # fmt: skip
    times = times[first : last + 1]
    rate = 1.0 / float(np.median(np.diff(times))) if len(times) > 1 else (fps or 30.0)
    rate = round(rate, 6)  # sums of time stamps leave 60.000000000000014
    return Video(path, size, rate, torch.from_numpy(times - times[0]), first, rotation)


def read_frames(
    video: Video, *, stride: int = 1, longest: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, RGB uint8 image (H,W,3)) of every `stride`-th kept frame, turned upright.

    `longest` shrinks the frames so that their longer side has so many px, 2 to 4 times faster.
    Raises InputError if decoding ends before the frames that `open_video` counted.
    """
    shrink = min(1.0, longest / max(video.image_size)) if longest is not None else 1.0
    read = _image_frames if video.path.is_dir() else _file_frames
    count = 0
    for index, frame in read(video, shrink, stride):
        if index >= video.frame_count:
            return
        count = index + 1
        if frame is not None:
            yield index, np.ascontiguousarray(np.rot90(frame, video.rotation // 90))
    if count < video.frame_count:
        raise InputError(
            f"video '{video.path.name}' breaks off at frame {count} of {video.frame_count}"
        )


class VideoWriter:
    """H.264 file of RGB frames of even or odd size; use as a context manager."""

    def __init__(self, path: Path, fps: float, image_size: tuple[int, int]) -> None:
        import av

        self._size = (image_size[0] // 2 * 2, image_size[1] // 2 * 2)  # yuv420p needs even sides
        self._container = av.open(str(path), "w")
        rate = round(fps * 1000)
        from fractions import Fraction

        self._stream: Any = self._container.add_stream("libx264", rate=Fraction(rate, 1000))
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, image: np.ndarray) -> None:
        """Append one RGB uint8 image (H,W,3)."""
        import av

        width, height = self._size
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image[:height, :width]), format="rgb24"
        )
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Flush and close the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _probe_file(path: Path) -> tuple[tuple[int, int], np.ndarray, int]:
    import av

    try:
        with av.open(str(path)) as container:
            if len(container.streams.video) == 0:
                raise InputError(f"'{path}' holds no video stream")
            stream = container.streams.video[0]
            base = float(stream.time_base or 0)
            stamps = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
            container.seek(0)
            frame = next(container.decode(stream), None)
            nominal = float(stream.average_rate or stream.guessed_rate or 30)
    except (av.error.FFmpegError, OSError) as e:
        raise InputError(f"video '{path}' cannot be read: {e}") from e
    if frame is None or len(stamps) == 0:
        raise InputError(f"video '{path}' holds no frame")
    rotation = int(round(frame.rotation / 90) * 90) % 360
    size = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
    times = np.asarray(stamps, dtype=np.float64) * base
    if base == 0 or np.any(np.diff(times) <= 0):
        LOG.warning("'%s' has no usable time stamps; %.3g frames per second assumed", path, nominal)
        times = np.arange(len(stamps)) / nominal
    return size, times, rotation


def _probe_images(path: Path, fps: float | None) -> tuple[tuple[int, int], np.ndarray, int]:
    import cv2

    files = image_files(path)
    if len(files) == 0:
        raise InputError(f"image folder '{path}' holds no .jpg or .png")
    image = cv2.imread(str(files[0]))
    if image is None:
        raise InputError(f"image '{files[0]}' cannot be read")
    return (image.shape[1], image.shape[0]), np.arange(len(files)) / (fps or 30.0), 0


def image_files(path: Path) -> list[Path]:
    """Images of a folder, sorted by name, numbers in it by their value."""
    found = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=lambda p: natural(p.name))


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which image 10 follows image 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _file_frames(
    video: Video, shrink: float, stride: int
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Every kept frame; those between the strides are decoded, but not converted: None."""
    import av

    try:
        with av.open(str(video.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                index = number - video.first
                if index < 0:
                    continue
                width, height = round(frame.width * shrink), round(frame.height * shrink)
                image = None
                if index % stride == 0:
                    image = frame.to_ndarray(format="rgb24", width=width, height=height)
                yield index, image
    except av.error.FFmpegError as e:
        raise InputError(f"video '{video.path}' cannot be decoded: {e}") from e


def _image_frames(
    video: Video, shrink: float, stride: int
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Every kept image; those between the strides are not read: None."""
    import cv2

    for index, file in enumerate(image_files(video.path)[video.first :]):
        if index % stride != 0:
            yield index, None
            continue
        image = cv2.imread(str(file))  # honours EXIF orientation
        if image is None or image.shape[1::-1] != video.image_size:
            raise InputError(f"image '{file}' cannot be read or differs in size from the first")
        if shrink < 1:
            image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        yield index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
