"""Whatever library runs out of memory, the user reads one line that names the backend."""

import pytest
import torch
from sequences import FakeSteps, make_state, write_video

from slamhmr import cli
from slamhmr.errors import BackendError, InputError
from slamhmr.exhaustion import memory_told

EVERY = [
    (MemoryError(), "processor"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "GPU"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "GPU"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "processor"),
    # onnxruntime's own classes, which derive from Exception itself
    (Exception("onnxruntime::BFCArena::AllocateRawInternal Failed to allocate memory"), "GPU"),
    (OSError(12, "Cannot allocate memory"), "processor"),
]


@pytest.mark.parametrize(("error", "whose"), EVERY)
def test_memory_is_one_line(error, whose):
    words = f"^detect=vitpose: out of memory of the {whose};"
    with pytest.raises(BackendError, match=words) as e, memory_told("detect=vitpose"):
        raise error
    assert "\n" not in str(e.value)
    assert e.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes"), InputError("no file"), KeyError()])
def test_everything_else_passes(error):
    with pytest.raises(type(error)) as e, memory_told("detect=vitpose"):
        raise error
    assert e.value is error


@pytest.mark.parametrize("step", ["detect", "slam", "init"])
def test_every_backend_is_guarded(tmp_path, monkeypatch, capsys, step):
    fakes = FakeSteps(make_state()).install(monkeypatch)
    monkeypatch.setattr(fakes, "note", exhausted_at(step))
    write_video(tmp_path / "video.mp4")
    assert cli.main(["optimize", "--seq", str(tmp_path)]) == 4
    assert f"error: {step}=" in capsys.readouterr().err


def exhausted_at(step):
    def note(name):
        if name == step:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return note
