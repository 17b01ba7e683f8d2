"""People by YOLOX and RTMPose (Jiang et al. 2023) through `rtmlib`, from local .onnx files.

Networks with COCO-17, Halpe-26 or COCO-WholeBody points; the number of points tells which. A point
is the peak of two distributions over half pixels of the crop (SimCC), its confidence their mean.
"""

from dataclasses import dataclass

from slamhmr.components import Lack, require
from slamhmr.detect.rtm import (
    ONNX_SDK,
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
    f"{ONNX_SDK}/rtmposev1/onnx_sdk/"
    "rtmpose-m_simcc-body7_pt-body7-halpe26_700e-256x192-4d3e73dd_20230605.zip"
)
SPLIT = 2  # bins of the distributions per pixel of the crop


@dataclass(frozen=True)
class Options(TopDown):
    """Settings of detector `rtmpose`: RTMPose, RTMW or DWPose as .onnx in `pose`."""


def lacking(options: Options) -> list[Lack]:
    """Packages and network files that are missing."""
    return [
        *lacking_runtime(options.device),
        *lacking_network(options.detector, "rtmpose", "detector", YOLOX_URL),
        *lacking_network(options.pose, "rtmpose", "pose", POSE_URL),
    ]


def detect(
    video: Video, options: Options, *, cuts: tuple[int, ...] = (), progress: bool
) -> Observations:
    """Everybody's keypoints in every frame of a video; nobody is followed across `cuts`.

    Raises MissingAsset for missing packages and unfit files, BackendError if nobody is found.
    """
    check_common("rtmpose", options)
    require(lacking(options))
    yolox = load_yolox(
        options.detector, options.device, options.detector_score, options.detector_overlap
    )
    pose = load_tool("RTMPose", options.pose, options.device)
    height, width = input_size(pose, options.pose, (256, 192))
    pose.model_input_size = (width, height)
    expected = [(None, None, SPLIT * width), (None, None, SPLIT * height)]
    shapes = output_shapes(pose, options.pose, (height, width), "RTMPose", expected)
    names = layout(shapes[0][1], options.pose)

    def decode(outputs: list[Array], centre: Array, scale: Array) -> tuple[Array, Array]:
        points, scores = pose.postprocess(outputs[:2], centre, scale)
        return points, scores

    detector = top_down(yolox, pose, options.batch, decode)
    return follow(video, detector, names, options, cuts=cuts, progress=progress, name="rtmpose")
