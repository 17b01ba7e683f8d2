"""A package that looks like DROID-SLAM from outside and knows the answer: it refuses anything else.

Written to a folder as a clone would lie there. It enforces what princeton-vl/DROID-SLAM@2dfd39f
does with what it is given (droid_slam/{droid,motion_filter,trajectory_filler,factor_graph}.py):
names, shapes, dtypes, order, the same stream once more at the end, keyframes that are dropped.
The "weights" are the truth, saved by torch and loaded as DROID-SLAM loads its own.
"""

from pathlib import Path

import numpy as np
import torch

SOURCE = """
import weakref
import numpy as np
import torch

CALLS = []  # weights that the update operator gave, per edge: (slot's true frame, weights)


class Update(torch.nn.Module):
    def forward(self, net, inp, corr, flow=None, ii=None, jj=None):
        batch, num, channels, ht, wd = net.shape
        delta = torch.ones(batch, num, ht, wd, 2)
        weight = torch.full((batch, num, ht, wd, 2), 0.5)
        if ii is None:
            return net, delta, weight
        assert ii.dtype == torch.int64 and ii.shape == (num,)
        return net, delta, weight, torch.ones(batch, num, ht, wd), torch.ones(batch, num, 576)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.update = Update()


class Counter:
    value = 0


class Video:
    def __init__(self, image_size, buffer):
        self.counter = Counter()
        self.ht, self.wd = image_size
        self.buffer = buffer
        self.truth = []  # number of the frame in each slot


class Graph:
    def __init__(self, video, update):
        self.video, self.update = video, update

    def rm_keyframe(self, ix):
        del self.video.truth[ix]

    def edges(self, ii):
        ht, wd = self.video.ht // 8, self.video.wd // 8
        maps = torch.zeros(1, len(ii), 128, ht, wd)
        ii = torch.as_tensor(ii, dtype=torch.int64)
        out = self.update(maps, maps, maps, maps, ii, ii)
        for edge, slot in enumerate(ii.tolist()):
            CALLS.append((self.video.truth[slot], out[2][0, edge].numpy().copy()))
        assert out[1].eq(1).all() and len(out) == 5, "only the weights may be changed"


class Frontend:
    def __init__(self, net, video, args):
        self.video, self.args = video, args
        self.graph = Graph(video, net.update)
        self.is_initialized = False

    def __call__(self):
        count = self.video.counter.value
        if not self.is_initialized:
            self.is_initialized = count == self.args.warmup
        elif self.video.truth[-1] % 5 == 0:  # dropped again: the third last keyframe
            self.graph.edges([count - 3, count - 2, count - 1])
            self.graph.rm_keyframe(count - 3)
            self.video.counter.value -= 1
        if self.is_initialized:
            self.graph.edges(list(range(self.video.counter.value)))


NUMBERS = dict(
    buffer=int, warmup=int, frontend_window=int, frontend_radius=int, frontend_nms=int,
    backend_radius=int, backend_nms=int, filter_thresh=float, keyframe_thresh=float, beta=float,
    frontend_thresh=float, backend_thresh=float, stereo=bool, upsample=bool, disable_vis=bool,
    weights=str, image_size=list,
)


class Droid:
    def __init__(self, args):
        for name, kind in NUMBERS.items():
            assert type(getattr(args, name)) is kind, (name, getattr(args, name))
        assert args.disable_vis and not args.stereo
        print(args.weights)
        loaded = torch.load(args.weights)
        self.truth = {k: np.asarray(v) for k, v in loaded.items()}
        if "raises" in self.truth:
            raise RuntimeError(str(self.truth["raises"]))
        self.net, self.args = Net(), args
        ht, wd = args.image_size
        assert ht % 8 == 0 and wd % 8 == 0
        self.video = Video(args.image_size, args.buffer)
        self.frontend = Frontend(self.net, self.video, args)
        self.seen = []

    def check(self, tstamp, image, intrinsics):
        assert isinstance(image, torch.Tensor) and image.dtype == torch.uint8
        assert image.shape == (1, 3, self.video.ht, self.video.wd), image.shape
        assert intrinsics.dtype == torch.float32 and intrinsics.shape == (4,)
        assert np.allclose(intrinsics.numpy(), self.truth["intrinsics"], atol=1e-3)
        blue, red = image[0, 0].float().mean(), image[0, 2].float().mean()
        assert abs(float(blue) - self.truth["blue"][tstamp]) < 3, "pictures must be BGR, in order"
        assert float(red) < 3

    def track(self, tstamp, image, depth=None, intrinsics=None):
        self.check(tstamp, image, intrinsics)
        assert depth is None
        assert len(self.seen) == 0 or tstamp > self.seen[-1]
        self.seen.append(tstamp)
        count = self.video.counter.value
        assert count < self.video.buffer
        moves = True
        if count > 0:
            maps = torch.zeros(1, 1, 128, self.video.ht // 8, self.video.wd // 8)
            _, delta, _ = self.net.update(maps, maps, maps)
            # a flow of (1, 1) everywhere must stay one in the mean over the picture
            assert abs(float(delta.mean()) - 1) < 1e-5, float(delta.mean())
            moves = self.truth["moves"][tstamp]
        if moves:
            self.video.truth.append(tstamp)
            self.video.counter.value += 1
        self.frontend()

    def terminate(self, stream=None):
        if not self.frontend.is_initialized:
            raise ValueError("not enough values to unpack (expected 2, got 0)")
        graph = weakref.ref(self.frontend.graph)
        del self.frontend
        assert graph() is None, "the graph's memory must be free for the back end"
        again = []
        for tstamp, image, intrinsics in stream:
            self.check(tstamp, image, intrinsics)
            again.append(tstamp)
        assert again == self.seen
        graph, count = Graph(self.video, self.net.update), self.video.counter.value
        graph.edges(list(range(count)))
        self.video.truth += again[:16]  # slots behind the keyframes, as the filler uses them
        assert len(self.video.truth) <= self.video.buffer
        self.video.counter.value += 16
        graph.edges(list(range(count)))
        if "log" in self.truth:
            frames, weights = zip(*CALLS)
            slots = np.array(self.video.truth[:count])
            np.savez(
                str(self.truth["log"]), frames=frames, weights=np.stack(weights), slots=slots
            )
        return self.truth["poses"][again].astype(np.float32)
"""


def write_package(folder: Path) -> Path:
    """A clone of the fake; returns its folder."""
    (folder / "droid_slam").mkdir(parents=True, exist_ok=True)
    (folder / "droid_slam" / "droid.py").write_text(SOURCE)
    return folder


def write_truth(path: Path, **arrays) -> Path:
    """The fake's weights."""
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    torch.save(
        {k: str(v) if v.dtype.kind == "U" else torch.from_numpy(v) for k, v in plain.items()}, path
    )
    return path
