"""People by RTMO (Lu et al. 2024) through `rtmlib`: boxes and points in one look at the frame.

The whole frame is shrunk into the network's square, so people in small parts of large frames are
better seen by `rtmpose` and `vitpose`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slamhmr.components import Lack, require
from slamhmr.detect.rtm import (
    ONNX_SDK,
    Array,
    Detector,
    input_size,
    lacking_network,
    lacking_runtime,
    layout,
    load_tool,
    output_shapes,
)
from slamhmr.detect.rtm_people import Common, check_common, follow
from slamhmr.types import Observations, Video

POSE_URL = f"{ONNX_SDK}/rtmo/onnx_sdk/rtmo-l_16xb16-600e_body7-640x640-b37118ce_20231211.zip"


@dataclass(frozen=True)
class Options(Common):
    """Settings of detector `rtmo`: RTMO as .onnx in `pose`; the score is a point's visibility."""

    batch: int = 8  # frames read at a time
    score: float = 0.5  # least score of a person
    overlap: float = 0.45  # IoU above which the worse of two boxes is dropped


def lacking(options: Options) -> list[Lack]:
    """Packages and network files that are missing."""
    return [
        *lacking_runtime(options.device),
        *lacking_network(options.pose, "rtmo", "pose", POSE_URL),
    ]


def detect(
    video: Video, options: Options, *, cuts: tuple[int, ...] = (), progress: bool
) -> Observations:
    """Everybody's keypoints in every frame of a video; nobody is followed across `cuts`.

    Raises MissingAsset for missing packages and unfit files, BackendError if nobody is found.
    """
    check_common("rtmo", options)
    require(lacking(options))
    settings = {"nms_thr": options.overlap, "score_thr": options.score}
    tool = load_tool("RTMO", options.pose, options.device, **settings)
    tool.model_input_size = input_size(tool, options.pose, (640, 640))
    expected = [(1, None, 5), (1, None, None, 3)]
    shapes = output_shapes(tool, options.pose, tool.model_input_size, "RTMO", expected)
    names = layout(shapes[1][2], options.pose)
    return follow(video, _detector(tool), names, options, cuts=cuts, progress=progress, name="rtmo")


def _detector(tool: Any) -> Detector:
    def detect(images: Sequence[Array]) -> list[tuple[Array, Array, Array]]:
        found = []
        for image in images:
            points, scores = tool(np.ascontiguousarray(image[..., ::-1]))
            seen = (scores > 0).any(axis=1)  # nobody: rtmlib gives one row of zeros
            placed = in_image(points[seen], image.shape[:2], tool.model_input_size)
            found.append((placed, scores[seen], np.ones(int(seen.sum()))))
        return found

    return detect


def in_image(points: Array, shape: tuple[int, ...], size: tuple[int, int]) -> Array:
    """Points (D,K,2) px of an image, pixel centres at 0.5, from rtmlib's.

    rtmlib divides by the ratio r that the image was to be shrunk by. It was shrunk to whole pixels,
    which cv2.resize lays edge on edge: pixel d shows (d + 1/2) W / floor(W r).
    """
    ratio = min(size[0] / shape[0], size[1] / shape[1])
    if tuple(shape) == tuple(size):
        ratio = 1.0
    extent = np.array([shape[1], shape[0]], dtype=np.float64)
    shrunk = np.array([int(shape[1] * ratio), int(shape[0] * ratio)], dtype=np.float64)
    return np.asarray((points * ratio + 0.5) * extent / shrunk)
