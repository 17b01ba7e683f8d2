"""People by YOLOX and ViTPose (Xu et al. 2022) through `rtmlib`, from local .onnx files.

Files as easy_ViTPose exports them (`vitpose-h-coco_25.onnx`, `vitpose-h-coco.onnx`): a crop of 256
x 192 in, heat maps of 64 x 48 out. A point is the heat map's peak, moved by DARK (Zhang et al.
2020). The networks are trained with UDP (Huang et al. 2020), where cell 0 and the last cell of a
heat map lie on the centres of the crop's first and last pixel; rtmlib 0.0.16 spreads the cells over
the whole crop instead, so that its points are off by up to a pixel of the crop, which is undone.
"""

from dataclasses import dataclass

import numpy as np

from slamhmr.components import Lack, require
from slamhmr.detect.rtm import (
    YOLOX_URL,
    Array,
    input_size,
    lacking_network,
    lacking_runtime,
    layout,
    load_tool,
    load_yolox,
    output_shapes,
    top_down,
)
from slamhmr.detect.rtm_people import TopDown, check_common, follow
from slamhmr.types import Observations, Video

POSE_URL = (
    "https://huggingface.co/JunkyByte/easy_ViTPose/resolve/main/onnx/coco_25/vitpose-h-coco_25.onnx"
)
STRIDE = 4  # pixels of the crop per cell of the heat maps


@dataclass(frozen=True)
class Options(TopDown):
    """Settings of detector `vitpose`: ViTPose as .onnx in `pose`; its score is a peak's height."""


def lacking(options: Options) -> list[Lack]:
    """Packages and network files that are missing."""
    return [
        *lacking_runtime(options.device),
        *lacking_network(options.detector, "vitpose", "detector", YOLOX_URL),
        *lacking_network(options.pose, "vitpose", "pose", POSE_URL),
    ]


def detect(
    video: Video, options: Options, *, cuts: tuple[int, ...] = (), progress: bool
) -> Observations:
    """Everybody's keypoints in every frame of a video; nobody is followed across `cuts`.

    Raises MissingAsset for missing packages and unfit files, BackendError if nobody is found.
    """
    check_common("vitpose", options)
    require(lacking(options))
    yolox = load_yolox(
        options.detector, options.device, options.detector_score, options.detector_overlap
    )
    pose = load_tool("ViTPose", options.pose, options.device)
    height, width = input_size(pose, options.pose, (256, 192))
    pose.model_input_size = (width, height)
    maps = (None, None, height // STRIDE, width // STRIDE)
    shapes = output_shapes(pose, options.pose, (height, width), "ViTPose", [maps])
    names = layout(shapes[0][1], options.pose)

    def decode(outputs: list[Array], centre: Array, scale: Array) -> tuple[Array, Array]:
        points, scores = pose.postprocess([outputs[0].copy()], centre, scale)
        return by_udp(points, centre, scale, (width, height)), scores

    detector = top_down(yolox, pose, options.batch, decode)
    return follow(video, detector, names, options, cuts=cuts, progress=progress, name="vitpose")


def by_udp(points: Array, centre: Array, scale: Array, size: tuple[int, int]) -> Array:
    """Points (1,K,2) as rtmlib decodes heat maps, where a network trained with UDP means them.

    rtmlib: c + (q - 1/2) s, with q = cell / (cells - 1). The crop's pixel is q (w - 1), and pixel d
    of the crop shows c + (d / w - 1/2) s.
    """
    pixels = np.array(size, dtype=np.float64)
    q = (points - centre) / scale + 0.5
    return np.asarray(centre + (q * (pixels - 1) / pixels - 0.5) * scale)
