"""rtmlib 0.0.16 as far as it is called, with its signatures, shapes, dtypes and order enforced.

Facts: Tau-J/rtmlib 0.0.16, rtmlib/tools/base.py, object_detection/yolox.py,
pose_estimation/rtmpose.py and rtmo.py. The networks behind it find the dots of `rtm_pictures`.
"""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from rtm_pictures import dots, plates

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
PROVIDERS = {"cpu": "CPUExecutionProvider"}


class Session:
    """onnxruntime's session: one float32 batch in, named arrays out."""

    def __init__(self, name, shape, outputs, answer):
        self._name, self._shape, self._outputs, self._answer = name, shape, outputs, answer

    def get_inputs(self):
        return [SimpleNamespace(name=self._name, shape=self._shape)]

    def get_outputs(self):
        return [SimpleNamespace(name=name, shape=None) for name in self._outputs]

    def get_providers(self):
        return ["CPUExecutionProvider"]

    def run(self, wanted, feeds):
        (given,) = feeds.values()
        assert list(feeds) == [self._name]
        assert given.dtype == np.float32
        assert given.flags.c_contiguous
        fixed = [s for s in self._shape if isinstance(s, int)]
        assert given.shape[-len(fixed) :] == tuple(fixed)
        assert wanted == list(self._outputs)
        rows = [self._answer(picture.transpose(1, 2, 0)) for picture in given]
        return [np.concatenate(parts).astype(np.float32) for parts in zip(*rows, strict=True)]


class Tool:
    """What the classes have in common; a path that does not exist would be fetched."""

    def _open(self, onnx_model, model_input_size, backend, device, session):
        assert Path(onnx_model).is_file(), "rtmlib would download it"
        assert backend == "onnxruntime"
        print(f"load {onnx_model} with {backend} backend")
        self.session, self.model_input_size = session, model_input_size
        self.device = PROVIDERS[device]

    def inference(self, img):
        batch = np.ascontiguousarray(img.transpose(2, 0, 1), dtype=np.float32)[None]
        names = [output.name for output in self.session.get_outputs()]
        return self.session.run(names, {self.session.get_inputs()[0].name: batch})


def _letterbox(img, size):
    """Picture in the corner of a grey one, and the ratio, as YOLOX and RTMO are given it."""
    assert img.dtype == np.uint8
    ratio = min(size[0] / img.shape[0], size[1] / img.shape[1])
    small = (int(img.shape[1] * ratio), int(img.shape[0] * ratio))
    padded = np.full((*size, 3), 114, np.uint8)
    padded[: small[1], : small[0]] = cv2.resize(img, small)
    return padded, ratio


class YOLOX(Tool):
    """Boxes; with suppression inside, the classes are not known."""

    def __init__(
        self,
        onnx_model,
        model_input_size=(640, 640),
        det_mode=None,
        nms_thr=0.45,
        score_thr=0.7,
        backend="onnxruntime",
        device="cpu",
        *,
        mode=None,
    ):
        assert mode is None, "deprecated"
        session = Session("input", [1, 3, 320, 320], ["dets"], self._answer)
        self._open(onnx_model, model_input_size, backend, device, session)
        self.det_mode = det_mode if det_mode is not None else "human"

    def _answer(self, picture):
        assert picture.max() > 3, "not to be normalised"
        return [np.array([plates(picture)])]

    def __call__(self, image):
        assert self.det_mode == "human", "this file has suppression inside"
        padded, ratio = _letterbox(image, self.model_input_size)
        dets = self.inference(padded)[0][0]
        return dets[dets[:, 4] > 0.3, :4] / ratio


class RTMPose(Tool):
    """Points of each box."""

    def __init__(
        self,
        onnx_model,
        model_input_size=(192, 256),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        to_openpose=False,
        backend="onnxruntime",
        device="cpu",
    ):
        outputs = ["simcc_x", "simcc_y"]
        session = Session("input", ["batch", 3, 256, 192], outputs, self._answer)
        self._open(onnx_model, model_input_size, backend, device, session)

    def _answer(self, picture):
        found = dots(picture * STD + MEAN, 17)
        peaks = []
        for axis, bins in ((0, 384), (1, 512)):
            off = np.arange(bins)[None] / 2 - found[:, axis, None]
            peaks.append(np.exp(-0.05 * off**2)[None] * found[None, :, 2, None])
        return peaks

    def preprocess(self, img, bbox):
        assert img.dtype == np.uint8
        assert np.shape(bbox) == (4,)
        box = np.array(bbox)
        centre, extent = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * 1.25
        w, h = self.model_input_size
        side = max(extent[0] / w, extent[1] / h)
        scale = np.array([w, h]) * side
        matrix = np.array(
            [[1 / side, 0, w / 2 - centre[0] / side], [0, 1 / side, h / 2 - centre[1] / side]]
        )
        crop = cv2.warpAffine(img, matrix, (w, h), flags=cv2.INTER_LINEAR)
        return (crop - MEAN) / STD, centre, scale

    def postprocess(self, outputs, center, scale, simcc_split_ratio=2.0):
        assert len(outputs) == 2
        assert [o.ndim for o in outputs] == [3, 3]
        locations = np.stack([o.argmax(axis=-1) for o in outputs], axis=-1) / simcc_split_ratio
        scores = 0.5 * (outputs[0].max(axis=-1) + outputs[1].max(axis=-1))
        return locations / self.model_input_size * scale + center - scale / 2, scores


class RTMO(Tool):
    """Boxes and points of everybody at once."""

    def __init__(
        self,
        onnx_model,
        model_input_size=(640, 640),
        mean=None,
        std=None,
        nms_thr=0.45,
        score_thr=0.7,
        to_openpose=False,
        backend="onnxruntime",
        device="cpu",
    ):
        session = Session("input", [1, 3, 480, 480], ["dets", "keypoints"], self._answer)
        self._open(onnx_model, model_input_size, backend, device, session)
        self.score_thr = score_thr

    def _answer(self, picture):
        boxes, points = plates(picture), []
        for box in boxes:
            inside = np.zeros(picture.shape[:2])
            x0, y0, x1, y1 = box[:4].astype(int)
            inside[y0:y1, x0:x1] = 1
            points.append(dots(picture[..., ::-1], 17, inside))
        return [np.array([boxes]), np.array([points])]

    def __call__(self, image, nms_thr=None, score_thr=None):
        padded, ratio = _letterbox(image, self.model_input_size)
        dets, points = self.inference(padded)
        kept = dets[0, :, 4] > self.score_thr
        if not kept.any():
            return np.zeros((1, 17, 2)), np.zeros((1, 17))
        return points[0, kept, :, :2] / ratio, points[0, kept, :, 2]
