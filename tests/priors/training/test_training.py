"""`slamhmr train lifter` on a handful of tiny motions: weights, card, checkpoint, resuming."""

import json
from dataclasses import replace

import pytest
import torch
from recordings import rig, write_recordings

from priors.lifter import load_lifter
from priors.training import lifter as training
from priors.training import lifter_weights
from priors.training.lifter import Options, train
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
    words = ["minutes=0.0001", "batch=2", "frames=10", "width=8", "dilations=[1,2]"]
    table = train_kind("lifter", folder, out, words)
    assert all(kind in table for kind in ("blazepose", "coco", "vitpose"))
    network, card = load_lifter(out)
    assert (network.width, network.dilations) == (8, (1, 2))
    text = json.dumps(card)
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
