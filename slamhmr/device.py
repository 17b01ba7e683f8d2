"""Where the solver and the networks run: `device: auto|cpu|cuda|cuda:N`, and how data gets there.

Files, alignment, supports and pictures stay on the processor; a stage's problem and state travel
to the device as a whole and the solved state comes back. Numbers are float64 everywhere.
"""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from slamhmr import memory
from slamhmr.components import Lack, lacking_gpu, runs_elsewhere
from slamhmr.errors import BackendError, MissingAsset
from slamhmr.exhaustion import exhausted
from slamhmr.solve.sweep import Resources

Value = TypeVar("Value")
CPU = torch.device("cpu")
LEAST_GIB = 1.0  # of a GPU that the solve is to run on: CUDA's own context and a short clip
CUDA_NAME = re.compile(r"cuda(:(\d+))?")


@dataclass(frozen=True)
class Chosen:
    """The device of a run, and the sentence that says so."""

    device: torch.device
    sentence: str

    @property
    def on_gpu(self) -> bool:
        """True where it is a CUDA device."""
        return self.device.type == "cuda"


def choose(name: str) -> Chosen:
    """The device that `device: name` means on this machine; "auto": a GPU where there is one.

    Raises MissingAsset where a GPU is asked for that torch cannot use.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        why = "" if name == "cpu" else " (device=auto: torch sees no CUDA device)"
        return Chosen(torch.device("cpu"), f"cpu{why}")
    index = 0 if name == "auto" else _index(name)
    if index >= _count():
        raise MissingAsset(
            f"{_not_there(name)}; device=cpu runs everywhere, `slamhmr doctor` says what is there"
        )
    what = f"cuda:{index} ({torch.cuda.get_device_name(index)})"
    return Chosen(torch.device("cuda", index), what + (" by device=auto" if name == "auto" else ""))


def _index(name: str) -> int:
    found = CUDA_NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"no device '{name}'")
    return int(found.group(2) or 0)


def _count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _not_there(name: str) -> str:
    return f"device={name}: torch sees {_count()} CUDA devices"


def lacking(name: str) -> list[Lack]:
    """What `device: name` lacks on this machine; torch is asked where a driver shows GPUs."""
    if not name.startswith("cuda") or runs_elsewhere():
        return []
    lacks = lacking_gpu(f"device={name}", LEAST_GIB)
    if len(lacks) == 0 and _index(name) >= _count():
        return [Lack(_not_there(name), "name another device, or device=cpu")]
    return lacks


def resources(name: str, threads: int, frames: int, people: int) -> Resources:
    """How a solve of that size uses the device `name`: on a GPU one batch, as long as fits.

    Raises MissingAsset as `choose`, BackendError where it clearly does not fit.
    """
    chosen = choose(name)
    if not chosen.on_gpu:
        return Resources(threads)
    there = torch.cuda.get_device_properties(chosen.device).total_memory
    need = memory.estimate(frames, people, gpu=there)
    memory.require_fits(need, memory.machine(there))
    return Resources(1, need.window, together=True, device=str(chosen.device))


def required_memory(
    name: str, threads: int, frames: int, people: int, image_size: tuple[int, int]
) -> str:
    """What a run on the device `name` needs of what this machine has, as a sentence.

    Raises BackendError where it clearly does not fit, MissingAsset as `choose`.
    """
    chosen, gpu = choose(name), 0
    if chosen.on_gpu:
        gpu = torch.cuda.get_device_properties(chosen.device).total_memory
    need = memory.estimate(frames, people, image_size, threads=threads, gpu=gpu)
    there = memory.machine(gpu)
    memory.require_fits(need, there)
    size = f"people: {people}, frames: {frames}"
    return f"{size}, on {chosen.sentence}: {need.sentence(there)}"


def on(value: Value, device: torch.device | str) -> Value:
    """The same with every tensor in it on `device`; in dataclasses, networks, tuples, lists, dicts.

    What dataclasses have cached of themselves is left behind, and so made anew on the device.
    """
    return _moved(value, torch.device(device))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, torch.nn.Module):
        here = next(iter(value.parameters())).device == device
        return value if here else copy.deepcopy(value).to(device)
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        moved = {name: _moved(part, device) for name, part in own.items()}
        changed = {name: part for name, part in moved.items() if part is not own[name]}
        return replace(value, **changed) if len(changed) > 0 else value
    if isinstance(value, tuple) and type(value) is tuple:
        parts = tuple(_moved(part, device) for part in value)
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    if isinstance(value, list):
        return [_moved(part, device) for part in value]
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return value


@contextmanager
def memory_guarded(what: str, device: str, frames: int, people: int) -> Iterator[None]:
    """Turns "out of memory" on `device` into one BackendError that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if exhausted(e) is None:
            raise
        instead = "" if device == "cpu" else "device=cpu needs less, as do "
        raise BackendError(
            f"{what}: out of memory on {device} (people: {people}, frames: {frames}); {instead}"
            "fewer people (constraints.yaml) and fewer frames (frames: [first, last] in "
            "sequence.yaml)" + (" need less" if device == "cpu" else "")
        ) from e
