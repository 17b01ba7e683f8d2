"""Focal length that a camera wrote into its pictures."""

import struct
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.types import Video
from slamhmr.video import image_files

EXIF_BLOCK = 0x8769
FOCAL_35MM = 0xA405
APP1, SCAN = 0xE1, 0xDA  # JPEG segments
ORDERS = {b"II": "<", b"MM": ">"}
HEAD = 1 << 18  # bytes looked through; a segment holds 64 KiB at most
FULL_FRAME_DIAGONAL = (36.0**2 + 24.0**2) ** 0.5  # mm; CIPA defines the tag by the diagonal


def known_intrinsics(video: Video) -> Float[Tensor, "4"] | None:
    """Intrinsics fx fy cx cy, px, from the 35 mm focal length in an image folder's first picture.

    f = f35 * diagonal / 43.27 mm with the principal point in the middle. None for video files,
    which carry no such entry, and for pictures without it. A cropped picture makes it wrong
    without notice.
    """
    if not video.path.is_dir():
        return None
    focal = _focal_35mm(image_files(video.path)[video.first])
    if focal is None:
        return None
    width, height = video.image_size
    pixels = focal * (width**2 + height**2) ** 0.5 / FULL_FRAME_DIAGONAL
    return torch.tensor([pixels, pixels, width / 2, height / 2], dtype=torch.float64)


def _focal_35mm(path: Path) -> float | None:
    """The EXIF entry FocalLengthIn35mmFilm of a JPEG file, mm; 0 means unknown in the standard."""
    tiff = _exif_block(path.read_bytes()[:HEAD])
    if tiff is None or tiff[:2] not in ORDERS:
        return None
    order = ORDERS[tiff[:2]]
    try:
        (root,) = struct.unpack_from(order + "I", tiff, 4)
        inner = _entry(tiff, order, root, EXIF_BLOCK, "I")
        focal = None if inner is None else _entry(tiff, order, inner, FOCAL_35MM, "H")
    except struct.error:  # entries point beyond a damaged block
        return None
    return float(focal) if focal else None


def _exif_block(data: bytes) -> bytes | None:
    """TIFF structure inside the APP1 segment; None if there is none."""
    position = 2
    while data[:2] == b"\xff\xd8" and data[position : position + 1] == b"\xff":
        marker, length = struct.unpack_from(">BH", data.ljust(position + 4), position + 1)
        if marker == APP1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return data[position + 10 : position + 2 + length]
        if marker == SCAN:
            return None
        position += 2 + length
    return None


def _entry(tiff: bytes, order: str, directory: int, tag: int, form: str) -> int | None:
    """Value of a directory entry that fits into its four bytes; None if it is absent."""
    (count,) = struct.unpack_from(order + "H", tiff, directory)
    for number in range(count):
        at = directory + 2 + 12 * number
        if struct.unpack_from(order + "H", tiff, at)[0] == tag:
            return int(struct.unpack_from(order + form, tiff, at + 8)[0])
    return None
