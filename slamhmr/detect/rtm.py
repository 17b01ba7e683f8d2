"""Networks of the RTM family through `rtmlib`: what is missing, loading, shapes, batches.

rtmlib (Apache-2.0, github.com/Tau-J/rtmlib, 0.0.16) holds the pre- and postprocessing, onnxruntime
runs the networks, from files on disk only: rtmlib would fetch a path that does not exist, so every
path is checked first.

rtmlib counts pixel centres from 0, this package from 0.5. It hands pictures to the networks in the
order they come in: RTMPose and ViTPose were trained on RGB with its means, YOLOX and RTMO on BGR.
"""

import contextlib
import importlib.metadata
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slamhmr.components import Lack, lacking_file, lacking_gpu, lacking_package, require
from slamhmr.errors import MissingAsset
from slamhmr.skeleton import COCO_KEYPOINTS, FOOT_KEYPOINTS

log = logging.getLogger(__name__)

Array = NDArray[Any]
VERSIONS = ">=0.0.16,<0.1"
# With its dependencies rtmlib brings OpenCV with windows, which takes the place of the headless one
# and cannot be imported where there is no libGL, as on most clusters.
GET = f"pip install --no-deps 'rtmlib{VERSIONS}'"
GPU_GIB = 3.0  # ViTPose-H has 0.64 G parameters, 2.6 GB; with activations, not measured
GET_RUNTIME = "pip install 'onnxruntime>=1.17'"
ONNX_SDK = "https://download.openmmlab.com/mmpose/v1/projects"
YOLOX_URL = f"{ONNX_SDK}/rtmposev1/onnx_sdk/yolox_m_8xb8-300e_humanart-c2c7a14a.zip"
DEVICES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Points of the layouts that networks are published with, by how many there are. Sources: COCO-17,
# Halpe-26 (Fang et al. 2022), COCO-WholeBody (Jin et al. 2020; its hands and face are left out),
# and easy_ViTPose's coco_25 (JunkyByte/easy_ViTPose@009442e).
LAYOUTS: dict[int, dict[str, int]] = {
    17: {name: k for k, name in enumerate(COCO_KEYPOINTS)},
    25: {
        **{name: k for k, name in enumerate(COCO_KEYPOINTS[:5])},
        **{name: k for k, name in enumerate(COCO_KEYPOINTS[5:13], start=6)},
        **{name: k for k, name in enumerate(COCO_KEYPOINTS[13:] + FOOT_KEYPOINTS, start=15)},
    },
    26: {
        **{name: k for k, name in enumerate(COCO_KEYPOINTS)},
        "left_big_toe": 20, "right_big_toe": 21, "left_small_toe": 22, "right_small_toe": 23,
        "left_heel": 24, "right_heel": 25,
    },
    133: {name: k for k, name in enumerate(COCO_KEYPOINTS + FOOT_KEYPOINTS)},
}  # fmt: skip
# Keypoints (D,K,2) px, pixel centres at 0.5, confidence (D,K) and score (D,) of everybody in each
# of several RGB frames.
Detector = Callable[[Sequence[Array]], list[tuple[Array, Array, Array]]]


def lacking_runtime(device: str) -> list[Lack]:
    """What of rtmlib and onnxruntime is missing for a device."""
    lacks = lacking_package("rtmlib", GET, version=VERSIONS)
    runtime = lacking_package("onnxruntime", GET_RUNTIME)
    if device.startswith("cuda") and len(runtime) == 0:
        try:
            importlib.metadata.distribution("onnxruntime-gpu")
        except importlib.metadata.PackageNotFoundError:
            get = "pip uninstall onnxruntime; pip install onnxruntime-gpu"
            runtime = [Lack("package 'onnxruntime' is installed without CUDA", get)]
    gpu = lacking_gpu("device=cuda", GPU_GIB, by_torch=False) if device.startswith("cuda") else []
    return lacks + runtime + gpu


def lacking_network(path: str, name: str, field: str, url: str) -> list[Lack]:
    """Whether the .onnx file of `options.<name>.<field>` is there, and where it is published."""
    what = f"network of options.{name}.{field}"
    inside = " (it holds end2end.onnx)" if url.endswith(".zip") else ""
    get = f"wget {url}{inside} and set options.{name}.{field}=FILE.onnx"
    return lacking_file(path, what, get)


def load_tool(kind: str, path: str, device: str, **settings: Any) -> Any:
    """One of rtmlib's classes (`YOLOX`, `RTMPose`, `RTMO`, `ViTPose`) on a file.

    Raises MissingAsset if the file is no network or the device is not used in fact.
    """
    import rtmlib

    file = Path(path).expanduser()
    require(lacking_file(file, f"network of {kind}", "give the path of a .onnx file"))
    said = io.StringIO()  # rtmlib prints
    try:
        with contextlib.redirect_stdout(said):
            tool = getattr(rtmlib, kind)(
                str(file), backend="onnxruntime", device=device, **settings
            )
    except Exception as e:  # onnxruntime's errors have no common base but this
        line = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise MissingAsset(f"network '{path}' cannot be loaded as {kind}: {line}") from e
    log.debug(said.getvalue().strip())
    used = tool.session.get_providers()
    if DEVICES[device.partition(":")[0]] not in used:
        raise MissingAsset(
            f"network '{path}' runs on {', '.join(used)}, not on {device}: onnxruntime finds no "
            "usable CUDA; check its CUDA and cuDNN versions, or set device=cpu"
        )
    return tool


def input_size(tool: Any, path: str, usual: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the pictures a network takes; `usual` where its file leaves them open.

    Raises MissingAsset for an input that is no batch of colour pictures.
    """
    shape = tool.session.get_inputs()[0].shape
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise MissingAsset(f"network '{path}' takes {shape}, expected pictures (N, 3, H, W)")
    height, width = (
        side if isinstance(side, int) else default
        for side, default in zip(shape[2:], usual, strict=True)
    )
    return int(height), int(width)


def output_shapes(
    tool: Any, path: str, size: tuple[int, int], kind: str, expected: Sequence[Sequence[int | None]]
) -> list[tuple[int, ...]]:
    """Shapes of a network's outputs for a grey picture of `size` (height, width).

    Files often leave them open. Raises MissingAsset where they differ from those of its kind, of
    which None fits any, or where the network does not run.
    """
    grey = np.full((*size, 3), 127.0, dtype=np.float32)
    try:
        shapes = [output.shape for output in in_batches(tool, [grey], 1)[0]]
    except Exception as e:  # onnxruntime's errors have no common base but this
        raise MissingAsset(f"network '{path}' does not run: {str(e).strip()[:200]}") from e
    fits = len(shapes) >= len(expected) and all(
        len(shape) == len(wanted)
        and all(want in (None, side) for side, want in zip(shape, wanted, strict=True))
        for shape, wanted in zip(shapes, expected, strict=False)
    )
    if not fits:
        have = " and ".join("x".join(map(str, shape)) for shape in shapes)
        words = ["x".join("any" if w is None else str(w) for w in want) for want in expected]
        raise MissingAsset(
            f"network '{path}' gives outputs of {have}, expected of {kind}: {' and '.join(words)}"
        )
    return shapes


def layout(count: int, path: str) -> dict[str, int]:
    """Canonical names and columns of a network with so many points; MissingAsset if unknown."""
    if count not in LAYOUTS:
        known = ", ".join(map(str, LAYOUTS))
        raise MissingAsset(
            f"network '{path}' gives {count} points per person; known layouts have {known}"
        )
    return LAYOUTS[count]


def people_boxes(tool: Any, image: Array) -> Array:
    """Boxes (D,4) x0 y0 x1 y1 px of the people in an RGB frame, by rtmlib's YOLOX."""
    found = tool(np.ascontiguousarray(image[..., ::-1]))
    if tool.det_mode == "multiclass":
        boxes, classes = np.asarray(found[0]), np.asarray(found[1])
        boxes = boxes.reshape(-1, 4)[classes.reshape(-1) == 0]  # COCO's class 0: person
    else:
        boxes = np.asarray(found).reshape(-1, 4)
    height, width = image.shape[:2]
    clipped = np.clip(boxes, 0, [width, height, width, height])
    whole = ((clipped[:, 2:] - clipped[:, :2]) > 1).all(axis=1)
    return np.asarray(clipped[whole], dtype=np.float64)


def load_yolox(path: str, device: str, score: float, overlap: float) -> Any:
    """YOLOX on a file, with or without suppression of duplicates inside."""
    settings = {"nms_thr": overlap, "score_thr": score}
    tool = load_tool("YOLOX", path, device, **settings)
    tool.model_input_size = input_size(tool, path, (640, 640))
    shape = output_shapes(tool, path, tool.model_input_size, "YOLOX", [(1, None, None)])[0]
    if shape[-1] not in (5, 6, 85):
        raise MissingAsset(
            f"network '{path}' gives {shape[-1]} numbers per box; YOLOX gives 5 with suppression "
            "inside, else 85 (COCO) or 6 (people only)"
        )
    tool.det_mode = "human" if shape[-1] == 5 else "multiclass"
    return tool


def in_batches(tool: Any, pictures: Sequence[Array], batch: int) -> list[list[Array]]:
    """Outputs of a network for pictures (H,W,3), as many at a time as its file allows.

    One list per picture, each output with the batch axis of 1.
    """
    fixed = tool.session.get_inputs()[0].shape[0]
    step = fixed if isinstance(fixed, int) else batch
    name = tool.session.get_inputs()[0].name
    wanted = [output.name for output in tool.session.get_outputs()]
    results: list[list[Array]] = []
    for start in range(0, len(pictures), step):
        chosen = pictures[start : start + step]
        filled = list(chosen) + [chosen[-1]] * (step - len(chosen) if fixed == step else 0)
        stacked = np.stack([picture.transpose(2, 0, 1) for picture in filled]).astype(np.float32)
        outputs = tool.session.run(wanted, {name: np.ascontiguousarray(stacked)})
        results += [[output[k : k + 1] for output in outputs] for k in range(len(chosen))]
    return results


def top_down(
    yolox: Any,
    pose: Any,
    batch: int,
    decode: Callable[[list[Array], Array, Array], tuple[Any, Any]],
) -> Detector:
    """Detector that looks at every box of `yolox` with `pose`, the boxes of several frames at once.

    `decode(outputs, centre (2,), scale (2,))` gives points (1,K,2) in rtmlib's pixels and scores.
    """

    def detect(images: Sequence[Array]) -> list[tuple[Array, Array, Array]]:
        boxes = [people_boxes(yolox, image) for image in images]
        crops = [
            pose.preprocess(image, box)
            for image, found in zip(images, boxes, strict=True)
            for box in found
        ]
        outputs = in_batches(pose, [crop for crop, _, _ in crops], batch)
        people = [
            decode(output, centre, scale)
            for output, (_, centre, scale) in zip(outputs, crops, strict=True)
        ]
        results = []
        for found in boxes:
            mine, people = people[: len(found)], people[len(found) :]
            if len(mine) == 0:
                results.append((np.zeros((0, 1, 2)), np.zeros((0, 1)), np.zeros(0)))
                continue
            points = np.concatenate([p for p, _ in mine]).astype(np.float64) + 0.5
            results.append((points, np.concatenate([s for _, s in mine]), np.ones(len(mine))))
        return results

    return detect
