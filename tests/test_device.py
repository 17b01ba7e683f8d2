"""Which device a run takes, how data gets there, and what is said when memory is out."""

from dataclasses import dataclass
from functools import cached_property

import pytest
import torch

from slamhmr import device
from slamhmr.errors import BackendError, ConfigError, MissingAsset


@dataclass(frozen=True)
class Leaf:
    value: torch.Tensor
    name: str

    @cached_property
    def doubled(self):
        return 2 * self.value


@dataclass(frozen=True)
class Tree:
    leaf: Leaf
    parts: tuple
    rows: list
    named: dict
    nothing: None = None


def test_everything_inside_moves_and_the_rest_stays():
    leaf = Leaf(torch.ones(2), "a")
    assert leaf.doubled.device.type == "cpu"
    tree = Tree(leaf, (torch.ones(1), 3), [leaf], {"x": torch.zeros(1)})
    moved = device.on(tree, "meta")
    found = [moved.leaf.value, moved.leaf.doubled, moved.parts[0], moved.rows[0].value]
    assert {t.device.type for t in [*found, moved.named["x"]]} == {"meta"}
    assert moved.parts[1] == 3
    assert moved.leaf.name == "a"
    assert device.on(leaf, "cpu") is leaf


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose("auto").sentence == "cpu (device=auto: torch sees no CUDA device)"
    assert device.choose("cpu").sentence == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert device.choose("auto").device == torch.device("cuda", 0)
    assert device.choose("auto").sentence == "cuda:0 (GPU 0) by device=auto"
    assert device.choose("cuda:1").sentence == "cuda:1 (GPU 1)"
    with pytest.raises(MissingAsset, match="cuda:2: torch sees 2 CUDA devices"):
        device.choose("cuda:2")


def test_a_gpu_that_is_not_there_is_missing_before_any_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingAsset, match="device=cuda: torch sees 0 CUDA devices"):
        device.choose("cuda")
    if not torch.cuda.is_available():
        assert "device=cuda" in device.lacking("cuda")[0].what
    assert device.lacking("auto") == device.lacking("cpu") == []


class Properties:
    total_memory = 24 * 10**9


def test_a_gpu_solves_in_one_batch_as_large_as_fits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    found = device.resources("cuda", 2, frames=1000, people=2)
    assert (found.together, found.device, found.threads) == (True, "cuda:0", 1)
    assert found.window >= 1000
    with pytest.raises(BackendError, match="GPU memory.*device=cpu"):
        device.resources("cuda", 2, frames=100_000, people=5)
    on_cpu = device.resources("cpu", 2, frames=100_000, people=5)
    assert (on_cpu.together, on_cpu.device, on_cpu.threads) == (False, "cpu", 2)


def test_memory_is_said_and_a_clear_lack_refused():
    said = device.required_memory("cpu", 2, 1000, 1, (1920, 1080))
    assert said.startswith("people: 1, frames: 1000, on cpu: needs about 1.7 GB of ")
    with pytest.raises(BackendError, match="GB of memory.*shorter clips"):
        device.required_memory("cpu", 2, 10**9, 1, (1920, 1080))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_out_of_memory_is_one_line_with_what_to_lower(error):
    words = "stage 'motion': out of memory on cuda:0.*device=cpu"
    guard = device.memory_guarded("stage 'motion'", "cuda:0", 100, 2)
    with pytest.raises(BackendError, match=words), guard:
        raise error


def test_other_errors_pass():
    guard = device.memory_guarded("x", "cuda:0", 100, 2)
    with pytest.raises(RuntimeError, match="something else"), guard:
        raise RuntimeError("something else")


def test_configuration_names_devices_that_exist():
    from slamhmr.config import load_config

    for name in ("auto", "cpu", "cuda", "cuda:1"):
        assert load_config([], [f"device={name}"]).device == name
    with pytest.raises(ConfigError, match="device=gpu"):
        load_config([], ["device=gpu"])
