"""How big sequences are before they run, and how much a machine has for them. No torch."""

import dataclasses
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from slamhmr.batch.folder import Entry
from slamhmr.batch.sequences import VIDEO_SUFFIXES
from slamhmr.memory import estimate, machine

UNKNOWN_FRAMES = 3000  # assumed where nothing tells
UNKNOWN_PEOPLE = 2
PIXELS = (1920, 1080)  # px, assumed of videos
SHARE = 0.9  # of the memory that is free, for our workers
GIB = 2**30
KIB = 1024


@dataclass(frozen=True)
class Machine:
    """What local workers may use together."""

    cores: int
    memory: int  # bytes
    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them


def measured(entry: Entry) -> Entry:
    """An entry with its frames and people, as far as the files tell without computing; else 0."""
    folder = Path(entry.path)
    counted = _of_observations(folder / "observations.npz") or (_of_pixels(folder), 0)
    return dataclasses.replace(entry, frames=counted[0], people=counted[1])


def need(entry: Entry, threads: int) -> int:
    """Bytes at the peak of a sequence's run."""
    frames, people = entry.frames or UNKNOWN_FRAMES, entry.people or UNKNOWN_PEOPLE
    pixels = (0, 0) if entry.people > 0 else PIXELS
    return estimate(frames, people, pixels, threads=threads).host


def work(entry: Entry) -> int:
    """What orders sequences by how long they take: frames times people."""
    return (entry.frames or UNKNOWN_FRAMES) * (entry.people or UNKNOWN_PEOPLE)


def this_machine() -> Machine:
    """Cores, free memory and GPUs that this process may use."""
    return Machine(_cores(), int(SHARE * min(machine().host, _free())), _gpus())


def _cores() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:  # a container's share of the processors: "200000 100000" or "max 100000"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        share = int(quota) // int(period)
    except (OSError, ValueError):
        share = allowed or 1
    return max(1, min(allowed or 1, share))


def _free() -> int:
    """Bytes that can be used without swapping; what the machine has where nothing tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return machine().host
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * KIB if len(found) > 0 else machine().host


def _gpus() -> tuple[str, ...]:
    """Those of CUDA_VISIBLE_DEVICES, else all that the driver shows."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(
            name for name in (n.strip() for n in named.split(",")) if name not in ("", "-1")
        )
    devices = Path("/proc/driver/nvidia/gpus")
    return tuple(str(i) for i in range(len(list(devices.iterdir())))) if devices.is_dir() else ()


def _of_observations(path: Path) -> tuple[int, int] | None:
    """Frames and people by the header of `confidence` (N, T, K); None if it cannot be read."""
    from numpy.lib import format as npy

    try:
        with zipfile.ZipFile(path) as archive, archive.open("confidence.npy") as file:
            read = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}
            shape = read[npy.read_magic(file)[0]](file)[0]
        return int(shape[1]), int(shape[0])
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile):
        return None  # its run will say what is wrong


def _of_pixels(folder: Path) -> int:
    images = folder / "images"
    if images.is_dir():
        return sum(1 for _ in images.iterdir())
    videos = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES]
    return max((_frames(video) for video in videos), default=0)


def _frames(video: Path) -> int:
    """Frames as the container states them, or by its length; 0 if it tells nothing."""
    import av

    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            seconds = (container.duration or 0) / av.time_base
            return stream.frames or round(seconds * float(stream.average_rate or 0))
    except (OSError, ValueError, IndexError, av.FFmpegError):
        return 0  # its run will say what is wrong
