"""How much memory a run needs, before it runs: of the processor and of the GPU.

Constants are measured: peak resident set of whole runs of `optimize` (2 threads, posterior on) on
synthetic scenes of one travelling camera: 0.65 GB for 200 frames and one person, 1.28 for 1000,
1.53 for 3000 and for 1000 frames of three people. On a GPU the blocks of all frames stand side by
side: that path was measured too, on the processor, 0.9 GB per 1000 frames of a person to solve and
1.3 for the posterior. How much more CUDA's own libraries take is a guess.
"""

import os
from dataclasses import dataclass

from slamhmr.errors import BackendError

GB = 1e9
BASE = 0.48 * GB  # interpreter, torch, body, networks of the start
PIXELS = 24  # bytes per pixel of the frame for each of the frames in flight, RGB and float
FRAMES_IN_FLIGHT = 8
START_PER_FRAME = 5e4  # bytes per frame and person: keypoints, start, results, covariances
WINDOW_PER_FRAME = 1.5e6  # bytes per frame that is linearised, of one thread
FACTOR_PER_FRAME = 1.25e5  # bytes per frame whose factor is kept
WINDOW, KEPT = 200, 10_000  # frames; as in `solve.sweep.Resources`
BLOCKS_PER_FRAME = 1.4e6  # bytes per frame and person of the batch and its covariances
CUDA_CONTEXT = 0.8 * GB  # CUDA's own, cuSOLVER's and cuBLAS's workspaces; not measured
LEAST_WINDOW, MOST_WINDOW = 100, 16_384  # frames that are linearised at once on a GPU
SHARE = 0.8  # of the GPU's memory that blocks and windows may fill
CLEARLY = 1.3  # a run is refused where it needs so many times what there is


@dataclass(frozen=True)
class Need:
    """Bytes at the peak of a run."""

    host: int
    gpu: int = 0  # 0: none is used
    window: int = WINDOW  # frames that are linearised at once

    def sentence(self, there: "There") -> str:
        """What is needed of what there is, for a person."""
        words = f"needs about {self.host / GB:.1f} GB of {there.host / GB:.0f} GB"
        if self.gpu == 0:
            return words
        return f"{words}, and {self.gpu / GB:.1f} GB of {there.gpu / GB:.0f} GB on the GPU"


@dataclass(frozen=True)
class There:
    """Bytes that a machine has, or may use."""

    host: int
    gpu: int = 0


def estimate(
    frames: int,
    people: int,
    image_size: tuple[int, int] = (0, 0),
    *,
    threads: int = 2,
    gpu: int = 0,
) -> Need:
    """Memory at the peak of a run over `frames` with so many `people` in all of them.

    `gpu`: bytes that the GPU has, 0 where none is used. `image_size` 0: no pixels are read.
    """
    total = frames * people
    pixels = image_size[0] * image_size[1] * PIXELS * FRAMES_IN_FLIGHT
    host = BASE + pixels + START_PER_FRAME * total
    if gpu > 0:
        held, window = gpu_need(frames, people, gpu)
        return Need(int(host + CUDA_CONTEXT), held, window)
    lanes = 2 * people  # halves of everybody's time
    at_once = min(threads, lanes) * min(WINDOW, -(-frames // 2))
    return Need(int(host + WINDOW_PER_FRAME * at_once + FACTOR_PER_FRAME * min(total, KEPT)))


def gpu_need(frames: int, people: int, gpu: int) -> tuple[int, int]:
    """Bytes of the GPU, and the frames that are linearised at once: as many as fit."""
    solved = CUDA_CONTEXT + BLOCKS_PER_FRAME * frames * people
    room = max(SHARE * gpu - solved, 0.0)
    window = int(min(max(room / WINDOW_PER_FRAME, LEAST_WINDOW), MOST_WINDOW))
    return int(solved + WINDOW_PER_FRAME * min(window, frames)), window


def machine(gpu: int = 0) -> There:
    """Memory of this machine, or what its control group allows, in bytes."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return There(min([whole, *_limits()]), gpu)


def _limits() -> list[int]:
    """What control groups (Slurm, containers) allow this process, bytes."""
    found = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) > 0:
            found.append(int(text))
    return found


def require_fits(need: Need, there: There) -> None:
    """Raise BackendError where a run clearly needs more memory than there is."""
    advice = "shorter clips (two of half the length) or fewer people (constraints.yaml) need less"
    for name, needed, have in (
        ("memory", need.host, there.host), ("GPU memory", need.gpu, there.gpu)
    ):  # fmt: skip
        if needed > CLEARLY * have:
            instead = "device=cpu, " if name == "GPU memory" else ""
            raise BackendError(
                f"the run needs about {needed / GB:.1f} GB of {name}, there are {have / GB:.1f}; "
                f"{instead}{advice}"
            )
