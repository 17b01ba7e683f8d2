"""Weights files: ours round trip; foreign ones are read without running anything, or refused."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from priors.checkpoints import (
    CheckpointError,
    check_shapes,
    load_weights,
    read_torch_checkpoint,
    save_weights,
)

TENSORS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}
SHAPES = {"layer.weight": (2, 3), "layer.bias": (2,)}


class RunsCode:
    """A pickle of this would create the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_weights(path, TENSORS, {"licence": "none", "scores": {"mpjpe_mm": 1.5}})
    return path


def one_line(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    words = str(error.value)
    assert "\n" not in words
    assert "weights_only" not in words  # torch's own advice is to turn the protection off
    assert words[0].islower()
    return words


def test_round_trip(weights: Path):
    tensors, card = load_weights(weights, SHAPES)
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert card["scores"] == {"mpjpe_mm": 1.5}
    assert len(card["sha256"]) == 64
    assert sorted(p.name for p in weights.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_views_are_saved_as_what_they_show(tmp_path: Path):
    base = torch.arange(12.0).reshape(3, 4)
    save_weights(tmp_path / "v.safetensors", {"a": base.T, "b": base[1:]}, {})
    tensors, _ = load_weights(tmp_path / "v.safetensors")
    assert torch.equal(tensors["a"], base.T)
    assert torch.equal(tensors["b"], base[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float):
    path = tmp_path / "net.safetensors"
    save_weights(path, {**TENSORS, "layer.bias": torch.tensor([0.0, value]).half()}, {})
    with pytest.raises(CheckpointError, match="'layer.bias' holds values that are not") as error:
        load_weights(path)
    one_line(error)


def test_no_card_is_allowed(weights: Path):
    weights.with_suffix(".json").unlink()
    assert load_weights(weights)[1] == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("layer.bias"), "'layer.bias' is missing"),
        (lambda d: d.update(extra=torch.zeros(1)), "'extra' is not expected"),
        (lambda d: d.update({"layer.bias": torch.zeros(3)}), r"'layer.bias' has shape \(3,\)"),
        (lambda d: d.clear(), r"'layer.weight' is missing \(and 1 more\)"),
    ],
)
def test_keys_and_shapes_are_strict(tmp_path: Path, change, words: str):
    tensors = dict(TENSORS)
    change(tensors)
    with pytest.raises(CheckpointError, match=words):
        check_shapes(tensors, SHAPES, "weights 'x'")
    if len(tensors) > 0:
        save_weights(tmp_path / "x.safetensors", tensors, {})
        with pytest.raises(CheckpointError, match=words):
            load_weights(tmp_path / "x.safetensors", SHAPES)


def test_other_weights_than_the_card_says(weights: Path):
    save_weights(weights.with_name("other.safetensors"), {"a": torch.ones(2)}, {})
    weights.with_name("other.safetensors").replace(weights)
    with pytest.raises(CheckpointError, match="sha256 differs") as error:
        load_weights(weights)
    one_line(error)


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_safetensors(weights: Path, keep: int):
    weights.write_bytes(weights.read_bytes()[:keep])
    weights.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError) as error:
        load_weights(weights)
    one_line(error)


@pytest.mark.parametrize("card", ["{", "[1]", "\x00"])
def test_damaged_card(weights: Path, card: str):
    weights.with_suffix(".json").write_text(card)
    with pytest.raises(CheckpointError, match="card") as error:
        load_weights(weights)
    one_line(error)


def test_missing_and_foreign_files(tmp_path: Path):
    for read, name in ((load_weights, "a.safetensors"), (read_torch_checkpoint, "a.pth")):
        with pytest.raises(CheckpointError, match="do not exist"):
            read(tmp_path / name)
        (tmp_path / name).write_bytes(b"\n<!DOCTYPE html><html><body>Sign in</body></html>")
        with pytest.raises(CheckpointError, match="web page"):
            read(tmp_path / name)
        (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
        with pytest.raises(CheckpointError, match="git-lfs"):
            read(tmp_path / name)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(CheckpointError, match="empty"):
            read(tmp_path / name)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_torch_checkpoint(tmp_path / "folder.pth")
    with pytest.raises(CheckpointError, match="slamhmr convert"):
        load_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_with_scores_are_read(tmp_path: Path, zipped: bool):
    path = tmp_path / "model.pth.tar"
    content = {"model": TENSORS, "performance": np.float64(51.2), "epoch": 3, "none": None}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_torch_checkpoint(path)
    assert torch.equal(found["model"]["layer.weight"], TENSORS["layer.weight"])
    assert found["epoch"] == 3
    assert not isinstance(found["performance"], np.generic)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_is_not_run(tmp_path: Path, zipped: bool):
    path, proof = tmp_path / "evil.pth", tmp_path / "was_run"
    content = {"model": TENSORS, "optimizer": RunsCode(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="exec'.*refused, nothing of it was run") as error:
        read_torch_checkpoint(path)
    one_line(error)
    assert not proof.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_plain_pickle_is_not_run(tmp_path: Path, protocol: int):
    path, proof = tmp_path / "evil.pkl", tmp_path / "was_run"
    path.write_bytes(pickle.dumps(RunsCode(proof), protocol=protocol))
    with pytest.raises(CheckpointError) as error:
        read_torch_checkpoint(path)
    one_line(error)
    assert not proof.exists()


def test_bookkeeping_is_no_way_in(tmp_path: Path):
    """A stand-in takes any state and arguments, and keeps none of them."""

    class Scalar:
        def __reduce__(self):
            return (np.dtype, ("O", False, True), {"__class__": "os", "__reduce__": "system"})

    torch.save({"model": TENSORS, "performance": Scalar()}, tmp_path / "odd.pth")
    found = read_torch_checkpoint(tmp_path / "odd.pth")["performance"]
    assert type(found).__name__ == "_Ignored"
    assert not hasattr(found, "__dict__") or found.__dict__ == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_files(tmp_path: Path, zipped: bool):
    path = tmp_path / "model.pth"
    torch.save({"model": {"a": torch.zeros(999)}}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError) as error:
            read_torch_checkpoint(path)
        one_line(error)


def test_files_of_other_kinds(tmp_path: Path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    arrays = io.BytesIO()
    np.savez(arrays, a=np.zeros(3))
    for name, content in {
        "a.zip": archive.getvalue(),
        "a.npz": arrays.getvalue(),
        "a.json": json.dumps({"a": 1}).encode(),
        "a.jpg": b"\xff\xd8\xff\xe0" + bytes(range(256)),
        "zeros": bytes(4096),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            read_torch_checkpoint(tmp_path / name)
        one_line(error)
