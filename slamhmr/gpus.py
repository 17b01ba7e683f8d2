"""CUDA devices, their driver and torch's CUDA build, found out without importing torch."""

import functools
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
ANSWER_S = 60.0  # s that another interpreter or the GPU driver may take to answer
# The CUDA driver is asked in a process of its own: a process that has spoken to it cannot fork.
DRIVER = """
import ctypes, json, sys
names = ["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so.1", "libcuda.so"]
cuda = None
for name in names:
    try:
        cuda = ctypes.CDLL(name)
        break
    except OSError:
        pass
found, version = [], ctypes.c_int()
if cuda is not None:
    cuda.cuDriverGetVersion(ctypes.byref(version))
if cuda is not None and cuda.cuInit(0) == 0:
    count, device = ctypes.c_int(), ctypes.c_int()
    label, size = ctypes.create_string_buffer(128), ctypes.c_size_t()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    for number in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), number)
        cuda.cuDeviceGetName(label, 128, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        found.append([label.value.decode(), size.value])
print(json.dumps([version.value, found]))
"""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    gib: float  # memory in all


def devices() -> tuple[Gpu, ...]:
    """The CUDA devices that the driver shows this process; CUDA_VISIBLE_DEVICES counts."""
    return tuple(Gpu(str(name), int(size) / GIB) for name, size in _driver()[1])


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version that the driver knows, (12, 4); None: there is no driver."""
    version = _driver()[0]
    return (version // 1000, version % 1000 // 10) if version > 0 else None


@functools.cache
def torch_cuda() -> str | None:
    """The CUDA version that the installed torch was built for, "12.6"; None: none, or no torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    for line in source.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.partition(":")[0].strip() == "cuda":
            word = value.strip().strip("'\"")
            return None if word == "None" else word
    return None


def answer(command: list[str]) -> object:
    """The JSON on the last line that a short child process prints; None if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_S, check=False
        )
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None


@functools.cache
def _driver() -> tuple[int, list[tuple[str, int]]]:
    said = answer([sys.executable, "-I", "-S", "-c", DRIVER])
    return (int(said[0]), list(said[1])) if isinstance(said, list) else (0, [])
