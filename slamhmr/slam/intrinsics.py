"""Focal length that a camera wrote into its pictures."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.types import Video
from slamhmr.video import image_files

EXIF_BLOCK = 0x8769
FOCAL_35MM = 0xA405
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
    """The EXIF entry FocalLengthIn35mmFilm, mm; 0 means unknown in the standard."""
    from PIL import Image

    with Image.open(path) as image:
        focal = image.getexif().get_ifd(EXIF_BLOCK).get(FOCAL_35MM)
    return float(focal) if focal is not None and float(focal) > 0 else None
