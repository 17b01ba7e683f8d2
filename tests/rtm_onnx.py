"""Real .onnx files with the published inputs and outputs that find the dots of `rtm_pictures`."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rtm_pictures import COLOURS, PLATES, SIGMA

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32).reshape(1, 3, 1, 1)
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32).reshape(1, 3, 1, 1)


class Graph:
    """A graph under construction; every method adds a node and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def ints(self, *values: int) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(self, kind: str, *inputs: object, out: str = "", **attributes: object) -> str:
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        name = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def sum_over(self, value: str, axes: list[int], kind: str = "ReduceSum") -> str:
        return self.add(kind, value, self.ints(*axes), keepdims=1)

    def save(
        self,
        path: Path,
        given: tuple[str, list[object]],
        outputs: dict[str, list[object]],
    ) -> Path:
        def info(name: str, shape: list[object]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self.nodes,
            "dots",
            [info(*given)],
            [info(name, shape) for name, shape in outputs.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path


def _near(graph: Graph, pixels: str, colours: np.ndarray) -> str:
    """(N,K,H,W): how near every pixel is to every colour, by |p|^2 - 2 p.c + |c|^2."""
    count = len(colours)
    squared = graph.sum_over(graph.add("Mul", pixels, pixels), [1])
    dot = graph.add("Conv", pixels, colours.reshape(count, 3, 1, 1))
    norm = (colours**2).sum(axis=1).reshape(1, count, 1, 1)
    distance = graph.add("Add", graph.add("Sub", squared, graph.add("Mul", dot, [2.0])), norm)
    return graph.add("Exp", graph.add("Mul", distance, [-1 / (2 * SIGMA**2)]))


def _centres(graph: Graph, near: str, height: int, width: int) -> tuple[str, str, str]:
    """Centre x, y and strength, each (N,K,1,1)."""
    total = graph.sum_over(near, [2, 3])
    least = graph.add("Max", total, [1e-9])
    across = np.arange(width).reshape(1, 1, 1, width)
    down = np.arange(height).reshape(1, 1, height, 1)
    x = graph.add("Div", graph.sum_over(graph.add("Mul", near, across), [2, 3]), least)
    y = graph.add("Div", graph.sum_over(graph.add("Mul", near, down), [2, 3]), least)
    return x, y, graph.add("Min", graph.add("Mul", total, [0.1]), [1.0])


def _plates(graph: Graph, pixels: str, size: int) -> tuple[dict[str, str], str]:
    """Edges x0 y0 x1 y1 and score of both plates, each (1,2,1,1), and which pixels are plate."""
    greys = np.repeat(np.array(PLATES, dtype=float)[:, None], 3, axis=1)
    near = graph.add("Cast", graph.add("Greater", _near(graph, pixels, greys), [0.5]), to=1)
    pooled = graph.add("AveragePool", near, kernel_shape=[5, 5], pads=[2, 2, 2, 2])
    on = graph.add("Cast", graph.add("Greater", pooled, [0.6]), to=1)  # no edge of a dot
    edges = {}
    for axis, name in ((3, "x"), (2, "y")):
        shape = [1, 1, 1, 1]
        shape[axis] = size
        after = np.arange(1, size + 1).reshape(shape)
        edges[f"{name}1"] = graph.sum_over(graph.add("Mul", on, after), [2, 3], "ReduceMax")
        before = graph.add("Mul", on, size + 1 - after)
        back = graph.sum_over(before, [2, 3], "ReduceMax")
        edges[f"{name}0"] = graph.add("Sub", [float(size)], back)
    edges["score"] = graph.sum_over(on, [2, 3], "ReduceMax")
    return edges, on


def _rows(graph: Graph, columns: list[str]) -> str:
    """(1,2,1,1) columns side by side: (1,2,C)."""
    joined = graph.add("Concat", *columns, axis=2)
    return graph.add("Reshape", joined, graph.ints(1, 2, len(columns)))


def rtmpose(path: Path, count: int = 17, *, batch: object = "batch") -> Path:
    """RTMPose as mmdeploy exports it: input (N,3,256,192), simcc_x (N,K,384), simcc_y (N,K,512)."""
    graph = Graph()
    pixels = graph.add("Add", graph.add("Mul", "input", STD), MEAN)
    x, y, sure = _centres(graph, _near(graph, pixels, COLOURS[:count]), 256, 192)
    for name, centre, bins in (("simcc_x", x, 384), ("simcc_y", y, 512)):
        steps = np.arange(bins).reshape(1, 1, bins) / 2
        flat = graph.add("Squeeze", centre, graph.ints(3))
        off = graph.add("Sub", steps, flat)
        peak = graph.add("Exp", graph.add("Mul", graph.add("Mul", off, off), [-0.05]))
        strength = graph.add("Squeeze", sure, graph.ints(3))
        graph.add("Mul", peak, strength, out=name)
    outputs = {"simcc_x": [batch, count, 384], "simcc_y": [batch, count, 512]}
    return graph.save(path, ("input", [batch, 3, 256, 192]), outputs)


def vitpose(path: Path, count: int = 17) -> Path:
    """ViTPose as easy_ViTPose exports it: input_0 (N,3,256,192), output_0 (N,K,64,48), UDP."""
    graph = Graph()
    pixels = graph.add("Add", graph.add("Mul", "input_0", STD), MEAN)
    x, y, sure = _centres(graph, _near(graph, pixels, COLOURS[:count]), 256, 192)
    parts = []
    for centre, cells, side, axis in ((x, 48, 192, 3), (y, 64, 256, 2)):
        shape = [1, 1, 1, 1]
        shape[axis] = cells
        cell = graph.add("Mul", centre, [(cells - 1) / (side - 1)])
        off = graph.add("Sub", np.arange(cells).reshape(shape), cell)
        parts.append(graph.add("Exp", graph.add("Mul", graph.add("Mul", off, off), [-1 / 8])))
    graph.add("Mul", graph.add("Mul", *parts), sure, out="output_0")
    outputs: dict[str, list[object]] = {"output_0": ["batch_size", count, 64, 48]}
    return graph.save(path, ("input_0", ["batch_size", 3, 256, 192]), outputs)


def yolox_with_nms(path: Path, size: int = 640) -> Path:
    """YOLOX as mmdeploy exports it: input (1,3,S,S) BGR, dets (1,N,5), labels left out."""
    graph = Graph()
    edges, _ = _plates(graph, "input", size)
    rows = _rows(graph, [edges[name] for name in ("x0", "y0", "x1", "y1", "score")])
    graph.add("Identity", rows, out="dets")
    return graph.save(path, ("input", [1, 3, size, size]), {"dets": [1, "number", 5]})


def yolox_raw(path: Path, size: int = 416) -> Path:
    """YOLOX as Megvii exports it: images (1,3,S,S) BGR, output (1,A,85), cells to be decoded.

    The first person is in the first cell, the second in the next; the third holds a car.
    """
    anchors = sum((size // stride) ** 2 for stride in (8, 16, 32))
    graph = Graph()
    edges, _ = _plates(graph, "images", size)
    columns = []
    for axis in ("x", "y"):
        middle = graph.add("Add", edges[f"{axis}0"], edges[f"{axis}1"])
        cell = np.array([0.0, 1.0] if axis == "x" else [0.0, 0.0]).reshape(1, 2, 1, 1)
        columns.append(graph.add("Sub", graph.add("Mul", middle, [1 / 16]), cell))
    for axis in ("x", "y"):
        extent = graph.add("Sub", edges[f"{axis}1"], edges[f"{axis}0"])
        columns.append(graph.add("Log", graph.add("Max", graph.add("Mul", extent, [1 / 8]), [1.0])))
    people = _rows(graph, [*columns, edges["score"], graph.constant(np.ones((1, 2, 1, 1)))])
    classes = graph.add("Concat", people, np.zeros((1, 2, 79)), axis=2)
    rest = np.zeros((1, anchors - 2, 85))
    rest[0, 0, [2, 3, 4, 7]] = (3.0, 3.0, 1.0, 1.0)  # class 2: car
    graph.add("Concat", classes, rest, out="output", axis=1)
    outputs: dict[str, list[object]] = {"output": [1, anchors, 85]}
    return graph.save(path, ("images", [1, 3, size, size]), outputs)


def rtmo(path: Path, count: int = 17, size: int = 640) -> Path:
    """RTMO as mmdeploy exports it: input (1,3,S,S) BGR, dets (1,N,5), keypoints (1,N,K,3)."""
    graph = Graph()
    edges, _ = _plates(graph, "input", size)
    near = _near(graph, "input", COLOURS[:count, ::-1])
    people = []
    for person in range(2):
        index = graph.ints(person)
        own = {name: graph.add("Gather", edge, index, axis=1) for name, edge in edges.items()}
        inside = near
        for axis, name in ((3, "x"), (2, "y")):
            shape = [1, 1, 1, 1]
            shape[axis] = size
            at = graph.constant(np.arange(size).reshape(shape))
            for one, other in ((f"{name}1", at), (at, f"{name}0")):
                pair = [own.get(n, n) for n in (one, other)]
                mask = graph.add("Cast", graph.add("GreaterOrEqual", *pair), to=1)
                inside = graph.add("Mul", inside, mask)
        columns = _centres(graph, inside, size, size)
        people.append(graph.add("Concat", *columns, axis=3))  # (1,K,1,3)
    joined = graph.add("Concat", *people, axis=2)
    graph.add("Transpose", joined, out="keypoints", perm=[0, 2, 1, 3])
    rows = _rows(graph, [edges[name] for name in ("x0", "y0", "x1", "y1", "score")])
    graph.add("Identity", rows, out="dets")
    outputs = {"dets": [1, "number", 5], "keypoints": [1, "number", count, 3]}
    return graph.save(path, ("input", [1, 3, size, size]), outputs)
