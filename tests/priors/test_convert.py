"""Official layouts are recognised and converted; anything else is refused with the entry's name."""

import hashlib
import io
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filler import fill_module
from torch import Tensor

from priors import convert as conversion
from priors import humor, tcmr, vposer, wham
from priors.checkpoints import CheckpointError, load_weights
from priors.convert import convert, default_path
from slamhmr import cli

LICENSED = {
    "shapedirs": torch.zeros(96, 3, 10),
    "J_regressor_wham": torch.zeros(31, 96),
    "faces_tensor": torch.zeros(5, 3, dtype=torch.int64),
}
SCORE = np.float64(39.3)  # official files hold numpy scalars


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return OrderedDict((prefix + name, value) for name, value in state.items())


LAYOUTS: dict[str, Any] = {  # how each official file wraps its state dict, and its body model
    "wham": lambda s: {
        "epoch": 3,
        "model": {**s, **prefixed("smpl.", LICENSED)},
        "performance": SCORE,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
    },
    "tcmr": lambda s: {
        "gen_state_dict": {**s, **prefixed("regressor.smpl.", LICENSED)},
        "performance": SCORE,
        "disc_motion_state_dict": {},
    },
    "humor": lambda s: {
        "model": prefixed("module.", {**s, **prefixed("male_bm.", LICENSED)}),
        "optim": {},
        "epoch": 199,
        "min_val_loss": SCORE,
        "min_train_loss": 0.5,
    },
    "vposer_v1": lambda s: s,
    "vposer_v2": lambda s: {
        "epoch": 5,
        "state_dict": {**prefixed("vp_model.", s), **prefixed("bm_train.", LICENSED)},
        "pytorch-lightning_version": "1.1.5",
    },
}
NETWORKS: dict[str, Any] = {
    "wham": wham.Wham,
    "tcmr": tcmr.TCMR,
    "humor": humor.HuMoR,
    "vposer_v1": vposer.VPoserV1,
    "vposer_v2": vposer.VPoserV2,
}
SMALL = ("humor", "vposer_v1", "vposer_v2")
MEMORY: dict[str, dict[str, Tensor]] = {}


def state_of(kind: str) -> dict[str, Tensor]:
    if kind not in MEMORY:
        MEMORY[kind] = dict(fill_module(NETWORKS[kind]()).state_dict())
    return dict(MEMORY[kind])


def written(path: Path, kind: str, state: dict[str, Any], *, zipped: bool = True) -> Path:
    torch.save(LAYOUTS[kind](state), path, _use_new_zipfile_serialization=zipped)
    return path


def check_conversion(folder: Path, kind: str, *, zipped: bool) -> None:
    source = written(folder / "model.pth.tar", kind, state_of(kind), zipped=zipped)
    done = convert(source)
    assert (done.kind, done.path) == (kind, folder / "model.safetensors")
    tensors, card = load_weights(done.path, {k: tuple(v.shape) for k, v in state_of(kind).items()})
    assert all(torch.equal(tensors[name], value) for name, value in state_of(kind).items())
    assert card["kind"] == kind
    assert card["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert len(card["left_out"]["licensed body model"]) == (0 if kind == "vposer_v1" else 3)
    assert len(done.left_out) == (0 if kind == "vposer_v1" else 3)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", SMALL)
def test_official_layouts(tmp_path: Path, kind: str, zipped: bool):
    check_conversion(tmp_path, kind, zipped=zipped)


@pytest.mark.slow  # files of 170 and 330 MB
@pytest.mark.parametrize("kind", ["wham", "tcmr"])
def test_official_layouts_of_the_large_networks(tmp_path: Path, kind: str):
    check_conversion(tmp_path, kind, zipped=True)


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_every_kind_knows_its_entries(kind: str):
    with torch.device("meta"):
        state = NETWORKS[kind]().state_dict()
    known = next(entry for entry in conversion.KINDS if entry.name == kind)
    assert known.shapes() == {name: tuple(value.shape) for name, value in state.items()}
    assert any(name.startswith(known.mark) for name in state)
    others = [entry for entry in conversion.KINDS if entry.name != kind]
    assert not any(name.startswith(entry.mark) for name in state for entry in others)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, name: s.pop(name), "is missing"),
        (lambda s, name: s.update(extra_layer=torch.zeros(2)), "'extra_layer' is not expected"),
        (lambda s, name: s.update({name: s[name][..., :-1]}), "has shape"),
        (lambda s, name: s.update({name: s[name] * torch.nan}), "not finite"),
        (lambda s, name: s.update({name: s[name].to_sparse()}), "no plain tensor"),
        (lambda s, name: s.update({name: "text"}), "is a str, not a tensor"),
    ],
)
def test_strict(tmp_path: Path, kind: str, change, words: str):
    state = state_of(kind)
    name = [name for name in state if name.endswith(".weight")][-1]
    change(state, name)
    path = written(tmp_path / "wrong.pt", kind, state)
    with pytest.raises(CheckpointError, match=words) as error:
        convert(path)
    assert "extra_layer" in words or name in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wrong.pt"]


def test_half_precision_becomes_single(tmp_path: Path):
    state = {k: v.half() if v.is_floating_point() else v for k, v in state_of("vposer_v1").items()}
    done = convert(written(tmp_path / "half.pt", "vposer_v1", state))
    tensors, _ = load_weights(done.path)
    kinds = {value.dtype for value in tensors.values()}
    assert kinds == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"conv1.weight": torch.zeros(3)}},
        {"epoch": 1},
        {},
        [torch.zeros(3)],
        torch.zeros(3),
        "text",
    ],
)
def test_other_contents(tmp_path: Path, content: Any):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"no known network|expected a state dict"):
        convert(tmp_path / "other.pth")


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = written(tmp_path / "V02_05.ckpt", "vposer_v2", state_of("vposer_v2"))
    assert cli.main(["convert", str(source), "--out", str(tmp_path / "new" / "v.safetensors")]) == 0
    words = capsys.readouterr().out
    assert "vposer_v2: 26 tensors" in words
    assert "bm_train.shapedirs" in words
    card = json.loads((tmp_path / "new" / "v.json").read_text())
    assert card["kind"] == "vposer_v2"


def damaged_files(folder: Path) -> dict[str, bytes]:
    evil = io.BytesIO()
    torch.save({"model": state_of("vposer_v1"), "optim": RunsCode(folder / "was_run")}, evil)
    whole = io.BytesIO()
    torch.save(state_of("vposer_v1"), whole)
    return {
        "evil": evil.getvalue(),
        "truncated": whole.getvalue()[:-1000],
        "cut": whole.getvalue()[:1000],
        "page": b"<!DOCTYPE html><html>login</html>",
        "empty": b"",
        "noise": bytes(range(256)) * 9,
    }


@pytest.mark.parametrize("name", ["evil", "truncated", "cut", "page", "empty", "noise", "absent"])
def test_command_refuses(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / f"{name}.pth"
    if name != "absent":
        path.write_bytes(damaged_files(tmp_path)[name])
    assert cli.main(["convert", str(path)]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("slamhmr: error: ")
    assert "\n" not in told
    assert name in told
    assert not (tmp_path / "was_run").exists()
    assert [p.name for p in tmp_path.iterdir() if p != path] == []


def test_outputs(tmp_path: Path):
    assert default_path(Path("a/wham_vit_w_3dpw.pth.tar")) == Path("a/wham_vit_w_3dpw.safetensors")
    assert default_path(Path("a/tcmr.table4.pt")) == Path("a/tcmr.table4.safetensors")
    assert default_path(Path("a/plain")) == Path("a/plain.safetensors")
    path = written(tmp_path / "v.pt", "vposer_v1", state_of("vposer_v1"))
    with pytest.raises(CheckpointError, match="must end in .safetensors"):
        convert(path, tmp_path / "v.npz")
    with pytest.raises(CheckpointError, match="safetensors already"):
        convert(convert(path).path)
