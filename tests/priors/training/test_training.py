"""`slamhmr train lifter` on a handful of tiny motions: weights, card, checkpoint, resuming."""

import json
from dataclasses import replace

import pytest
import torch
from recordings import rig, write_recordings

from priors.checkpoints import file_sha256
from priors.lifter import load_lifter
from priors.training import lifter as training
from priors.training import lifter_weights
from priors.training.clips import ACKNOWLEDGEMENT, LICENCE
from priors.training.lifter import Options, train
from priors.training.scores import FIRST_SEED
from slamhmr.cli import main
from slamhmr.errors import InputError
from slamhmr.training import train as train_kind

RIG = rig()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motions")
    write_recordings(folder)
    return folder


def tiny(folder, out) -> Options:
    return Options(
        folder, out / "own.safetensors", minutes=1e-4, batch=2, frames=10, width=8, dilations=(1,)
    )


def test_a_run_goes_on_where_it_stopped(folder, tmp_path):
    options = tiny(folder, tmp_path)
    train(options, RIG)
    first = torch.load(tmp_path / "own.checkpoint.pt", weights_only=True)
    train(options, RIG)
    second = torch.load(tmp_path / "own.checkpoint.pt", weights_only=True)
    assert (first["step"], second["step"]) == (1, 2)
    assert second["elapsed"] > first["elapsed"] > 0
    with pytest.raises(ValueError, match="seed=0, not 1; delete it"):
        train(replace(options, seed=1), RIG)
    train(replace(options, seed=1, resume=False), RIG)
    anew = torch.load(tmp_path / "own.checkpoint.pt", weights_only=True)
    assert anew["step"] == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no checkpoint at all"])
def test_a_damaged_checkpoint_is_a_user_error_of_one_line(folder, tmp_path, content):
    (tmp_path / "own.checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"own.checkpoint.pt' .*delete it") as error:
        train_kind("lifter", folder, tmp_path / "own.safetensors", ["minutes=0.0001"])
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_something_else_is_refused(folder, tmp_path):
    torch.save({"step": 3}, tmp_path / "own.checkpoint.pt")
    with pytest.raises(ValueError, match="is no checkpoint of a lifter; delete it"):
        train(tiny(folder, tmp_path), RIG)


def test_a_run_may_begin_with_the_weights_of_another(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lifter_weights, "WINDOWS", 20)
    first = tiny(folder, tmp_path)
    train_kind("lifter", folder, first.out, ["minutes=0.0001", "width=8", "dilations=[1]"])
    start = replace(tiny(folder, tmp_path / "on"), start=first.out)
    start.out.parent.mkdir()
    run, fresh = training._Run(start), training._Run(tiny(folder, tmp_path / "on"))
    given, _ = load_lifter(first.out)
    for name, value in given.state_dict().items():
        assert torch.equal(run.network.state_dict()[name], value)
        assert torch.equal(run.average.module.state_dict()[name], value)
    assert not torch.equal(run.network.head.weight, fresh.network.head.weight)
    card = lifter_weights._card(start, training.read_library(folder), {}, [])
    assert card["command"].endswith(" start=own.safetensors")
    assert card["started_from"] == file_sha256(first.out)
    with pytest.raises(ValueError, match=r"own.safetensors has width=8 .* not 16"):
        training._Run(replace(start, width=16))
    with pytest.raises(InputError, match="nowhere.safetensors' do not exist"):
        train_kind("lifter", folder, start.out, ["start=nowhere.safetensors", "width=8"])


def test_progress_is_told_on_the_terminal(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lifter_weights, "WINDOWS", 20)
    words = ["minutes=0.0001", "width=8", "dilations=[1]", "batch=2", "frames=10"]
    out = str(tmp_path / "own.safetensors")
    assert main(["train", "lifter", "--motions", str(folder), "--out", out, *words]) == 0
    assert "minutes" in capsys.readouterr().err


def test_negative_seeds_are_kept_for_scores(folder, tmp_path):
    assert FIRST_SEED < 0
    with pytest.raises(ValueError, match="seed=-1 must be 0 or more"):
        train(replace(tiny(folder, tmp_path), seed=-1), RIG)


def test_a_gradient_that_is_no_number_is_not_learned_from(folder, tmp_path):
    run = training._Run(tiny(folder, tmp_path))
    library = training.read_library(folder)
    batch = training.make_batch(library, RIG, 2, 10, torch.Generator().manual_seed(0))
    run.learn(batch, RIG)
    states = (run.network.state_dict(), run.average.state_dict())
    before = [{name: value.clone() for name, value in state.items()} for state in states]
    broken = run.network.head.bias.register_hook(lambda slope: slope * torch.nan)
    run.learn(batch, RIG)
    for kept, state in zip(before, states, strict=True):
        assert all(torch.equal(kept[name], value) for name, value in state.items())
    broken.remove()
    run.learn(batch, RIG)
    assert not torch.equal(before[0]["head.bias"], run.network.head.bias)
    assert all(bool(torch.isfinite(value).all()) for value in run.network.state_dict().values())


def test_the_network_runs_where_its_options_say(folder, tmp_path):
    run = training._Run(replace(tiny(folder, tmp_path), device="meta"))
    assert {value.device.type for value in run.network.state_dict().values()} == {"meta"}


def test_learning_makes_the_loss_fall(folder, tmp_path):
    library = training.read_library(folder)
    run = training._Run(replace(tiny(folder, tmp_path), minutes=1.0, width=32))
    batch = training.make_batch(library, RIG, 4, 20, torch.Generator().manual_seed(0))
    costs = []
    for _ in range(60):
        run.learn(batch, RIG)
        parts = training.losses(run.network(batch.view.features), batch.footage, batch.view, RIG)
        costs.append(float(sum(training.WEIGHTS[k] * v.detach() for k, v in parts.items())))
    assert costs[-1] < 0.8 * costs[0]


def test_the_command_writes_weights_that_load_and_a_card_that_says_it_all(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(lifter_weights, "WINDOWS", 20)
    out = tmp_path / "new" / "own.safetensors"
    words = ["minutes=0.0001", "batch=2", "frames=10", "width=8", "dilations=[1,2]", "rate=0.002"]
    table = train_kind("lifter", folder, out, words)
    assert all(kind in table for kind in ("blazepose", "coco", "vitpose"))
    assert "factors of the other half" in table
    network, card = load_lifter(out)
    assert (network.width, network.dilations) == (8, (1, 2))
    text = json.dumps(card)
    assert card["command"] == (
        "slamhmr train lifter --motions DIR --out own.safetensors minutes=0.0001 seed=0 batch=2 "
        "frames=10 width=8 'dilations=[1,2]' rate=0.002 decay=0.02"
    )
    assert (card["licence"], card["acknowledgement"]) == (LICENCE, ACKNOWLEDGEMENT)
    assert {"kind", "licence", "acknowledgement", "command", "held_out"} <= set(card)
    assert "proc_walk_0003" in card["held_out"]
    assert "proc_walk_0004" not in card["held_out"]
    assert "pa_mpjpe_mm" in text
    assert str(folder) not in text


def test_motions_that_cannot_be_used_are_a_user_error(tmp_path):
    with pytest.raises(InputError, match="no motion file"):
        train_kind("lifter", tmp_path, tmp_path / "own.safetensors", [])
    write_recordings(tmp_path)
    with pytest.raises(InputError, match="minutes=0 must be more than 0"):
        train_kind("lifter", tmp_path, tmp_path / "own.safetensors", ["minutes=0"])
