"""The tracks that PHALP and 4D-Humans write: `results/demo_<video>.pkl`, a pickle by joblib.

A dictionary by frame; of each frame `time` (its number), `shot` (1: a new one begins), and lists
with an entry per track: `tid`, `bbox` (x, y, w, h px), `center` and `scale` (2,) of the crop that
HMR2 was given (a square of side max(scale)), `size` [height, width], `conf`, `smpl` of matrices
(`global_orient` 1x3x3, `body_pose` 23x3x3, `betas` 10), `camera_bbox` (s, tx, ty) of the crop,
`2d_joints` (90,) and `extra_data`: in SLAHMR's pipeline (25,3), OpenPose slots by ViTPose, else
None or a number.
`tracked_ids` are those of `tid` that were seen in the frame; the others repeat an older look.
Source: brjathu/PHALP@b41f606 phalp/trackers/PHALP.py; vye16/slahmr@2c6ee82
slahmr/preproc/{track,export_phalp}.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slamhmr.components import Lack, lacking_file
from slamhmr.errors import InputError
from slamhmr.safe_pickle import read_pickle
from slamhmr.video import natural

# Looked for in the sequence directory.
FILES = ("demo_*.pkl", "results/demo_*.pkl", "phalp/demo_*.pkl")
GET = (
    "git clone https://github.com/shubham-goel/4D-Humans (in an environment of its own, with its "
    "README), run `python track.py video.source=VIDEO` there and set options.{name}.path="
    "outputs/results/demo_VIDEO.pkl"
)


@dataclass(frozen=True)
class Look:
    """One track in one frame; what it saw is read when it is asked for."""

    frame: int
    track: int
    row: int  # in the lists of the frame
    content: Mapping[str, Any]  # of the frame
    path: Path

    def has(self, key: str) -> bool:
        """Whether the frame has a list `key` with an entry for every track."""
        values = self.content.get(key)
        return isinstance(values, Sequence) and len(values) == len(self.content["tid"])

    def numbers(self, key: str, shape: tuple[int, ...], part: str = "") -> NDArray[np.float64]:
        """Entry of the track in list `key` (of it, `part`) as float64 of `shape`.

        Raises InputError if it is not there, has another number of values or is not finite.
        """
        name = f"{key}.{part}" if part else key
        if not self.has(key):
            raise InputError(f"'{self.path}': frame {self.frame} has no '{key}' for every track")
        value = self.content[key][self.row]
        if part:
            value = value.get(part) if isinstance(value, Mapping) else None
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" or array.size != int(np.prod(shape)):
            raise InputError(
                f"'{self.path}': '{name}' of track {self.track} in frame {self.frame} has shape "
                f"{array.shape} of {array.dtype}, expected numbers {shape}: no output of PHALP"
            )
        if not np.isfinite(array).all():
            raise InputError(
                f"'{self.path}': '{name}' of track {self.track} in frame {self.frame} is not finite"
            )
        return array.astype(np.float64).reshape(shape)

    @property
    def measured(self) -> bool:
        """Whether a detector's keypoints are there; PHALP alone puts None or a number there."""
        return self.has("extra_data") and np.size(self.content["extra_data"][self.row]) > 1

    @property
    def crop(self) -> tuple[NDArray[np.float64], float]:
        """Centre (2,) and side, px, of the square that the network saw."""
        sides = self.numbers("scale", (2,)) if self.has("scale") else self.numbers("bbox", (4,))[2:]
        return self.numbers("center", (2,)), float(sides.max())


@dataclass(frozen=True)
class Tracks:
    """Everybody in every frame of a file."""

    path: Path
    frame_count: int
    image_size: tuple[int, int]  # width, height
    looks: tuple[Look, ...]  # in order of frames
    cuts: tuple[int, ...]  # first frames of new shots


def lacking_tracks(kind: str, name: str, path: str) -> list[Lack]:
    """Whether the file of backend `name` ("detect", "phalp") is there."""
    get = GET.format(name=name)
    if path == "":
        what = f"{kind} '{name}' has no file: there is no '{FILES[0]}' in the sequence directory"
        return [Lack(what, get)]
    return lacking_file(path, f"track file of {kind} '{name}'", get)


def read_tracks(path: Path) -> Tracks:
    """The looks of a track file. Raises InputError if it is none, or asks for code to be run."""
    content = read_pickle(path)
    frames = _in_order(content, path)
    looks: list[Look] = []
    sizes: set[tuple[int, int]] = set()
    for number, frame in frames:
        seen = {_whole(track, "tracked_ids", path) for track in frame["tracked_ids"]}
        done: set[int] = set()
        for row, value in enumerate(frame["tid"]):
            track = _whole(value, "tid", path)
            if track in seen and track not in done:
                done.add(track)
                looks.append(Look(number, track, row, frame, path))
                height, width = looks[-1].numbers("size", (2,)).astype(int).tolist()
                sizes.add((width, height))
    if len(looks) == 0:
        raise InputError(f"'{path}' holds nobody: PHALP tracked no one in {len(frames)} frames")
    if len(sizes) > 1:
        raise InputError(f"'{path}': pictures of different sizes: {sorted(sizes)} px")
    cuts = tuple(
        n for n, frame in frames if n > 0 and _whole(frame.get("shot", 0), "shot", path) == 1
    )
    return Tracks(path, frames[-1][0] + 1, sizes.pop(), tuple(looks), cuts)


def _in_order(content: object, path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Number and content of every frame: by `time`, else by the name's order."""
    if not isinstance(content, Mapping) or len(content) == 0:
        raise InputError(f"'{path}' holds no dictionary of frames: no track file of PHALP")
    for name, frame in content.items():
        given = isinstance(frame, Mapping) and all(
            isinstance(frame.get(key), Sequence) for key in ("tid", "tracked_ids")
        )
        if not given:
            raise InputError(
                f"'{path}': '{name}' lacks the lists 'tid' and 'tracked_ids': no track file of "
                "PHALP (results/demo_*.pkl)"
            )
    if all("time" in frame for frame in content.values()):
        timed = ((_whole(f["time"], "time", path), f) for f in content.values())
        found = sorted(timed, key=lambda pair: pair[0])
        if len({number for number, _ in found}) < len(found):
            raise InputError(f"'{path}': several frames have the same 'time'")
        return found
    names = sorted(content, key=lambda name: natural(str(name)))
    return [(number, content[name]) for number, name in enumerate(names)]


def _whole(value: Any, key: str, path: Path) -> int:
    """The whole number. Raises InputError if it is none."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub" or array.item() != array.item() // 1:
        raise InputError(f"'{path}': '{key}' holds {value!r:.40}, expected a whole number")
    return int(array.item())
