"""`slamhmr train pose|transition` on tiny motions: weights, card, checkpoint, refusals."""

import json

import pytest
import torch
from recordings import write_recordings

from priors.checkpoints import load_weights
from priors.pose import load_pose_prior
from priors.training import scoring, transition
from priors.training.clips import is_held_out
from priors.transition import load_transition_prior
from slamhmr.cli import main
from slamhmr.errors import ConfigError, InputError
from slamhmr.training import TRAINERS, train

TINY = {
    "pose": ["components=2", "iterations=1", "hand_set=40"],
    "transition": ["minutes=0.005", "width=4", "gait_width=4", "batch=32"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motions")
    write_recordings(folder)
    return folder


@pytest.fixture(autouse=True)
def few_triples(monkeypatch):
    monkeypatch.setattr(scoring, "COUNT", 300)
    monkeypatch.setattr(transition, "FIRST", 500)


@pytest.mark.parametrize("kind", list(TINY))
def test_the_command_writes_weights_that_load_and_a_card(kind, folder, tmp_path, capsys):
    out = tmp_path / "new" / "own.safetensors"
    command = ["train", kind, "--motions", str(folder), "--out", str(out), *TINY[kind]]
    assert main(command) == 0
    assert "held-out NLL" in capsys.readouterr().out
    load = {"pose": load_pose_prior, "transition": load_transition_prior}[kind]
    load(out)
    _, card = load_weights(out)  # checks the sha256
    assert {"kind", "sha256", "licence", "acknowledgement", "scores"} <= set(card)
    assert card["command"].startswith(f"slamhmr train {kind} --motions DIR --out own.safetensors ")
    settings = dict(word.split("=") for word in card["command"].split() if "=" in word)
    assert settings["seed"] == "0"
    assert all(settings[name] == value for name, value in (w.split("=") for w in TINY[kind]))
    assert set(card["held_out"]) == {"proc_walk_0003", "proc_seated_0011"}
    assert len(card["trained_on"]) == 5
    assert not any(is_held_out(name) for name in card["trained_on"])
    assert str(folder) not in json.dumps(card)


def test_the_transition_prior_goes_on_where_it_stopped(folder, tmp_path):
    out = tmp_path / "own.safetensors"
    tiny = TINY["transition"]
    train("transition", folder, out, tiny)
    checkpoint = tmp_path / "own.checkpoint.pt"
    first = torch.load(checkpoint, weights_only=True)
    train("transition", folder, out, ["minutes=0.006", *tiny[1:]])
    second = torch.load(checkpoint, weights_only=True)
    assert 0.3 <= first["spent"] < 0.36 <= second["spent"]
    key = "change.layers.0.weight"
    moved = (second["trainee"][key] - first["trainee"][key]).abs().max()
    assert 0 < float(moved) < 1
    train("transition", folder, out, ["minutes=0.006", *tiny[1:], "rows=20"])  # nothing to learn
    assert torch.load(checkpoint, weights_only=True)["spent"] == second["spent"]
    assert load_transition_prior(out).change_whitening.shape == (20, 69)
    with pytest.raises(InputError, match="begun with width=4, not 5; delete it"):
        train("transition", folder, out, [*tiny, "width=5"])


@pytest.mark.parametrize("kind", list(TRAINERS))
def test_what_cannot_be_used_is_one_line(kind, folder, tmp_path):
    out, empty = tmp_path / "own.safetensors", tmp_path / "empty"
    empty.mkdir()
    for directory, words, error, expected in (
        (folder, ["widht=3"], ConfigError, "widht"),
        (empty, [], InputError, "no motion file"),
        (tmp_path / "nowhere", [], InputError, "is no directory"),
    ):
        with pytest.raises(error, match=expected) as caught:
            train(kind, directory, out, words)
        assert len(str(caught.value).splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("kind", "word"),
    [("pose", "components=0"), ("transition", "minutes=0"), ("transition", "rows=70")],
)
def test_settings_that_make_no_prior_are_refused(kind, word, folder, tmp_path):
    with pytest.raises(InputError, match=word):
        train(kind, folder, tmp_path / "own.safetensors", [word])


@pytest.mark.parametrize("kind", list(TINY))
def test_motions_of_one_kind_only_are_refused(kind, folder, tmp_path):
    for chosen, expected in (("proc_walk_0003", "only motions that are held"),
                             ("proc_walk_0004", "no motion to score on")):  # fmt: skip
        some = tmp_path / chosen
        some.mkdir()
        (some / f"{chosen}.npz").write_bytes((folder / f"{chosen}.npz").read_bytes())
        with pytest.raises(InputError, match=expected):
            train(kind, some, tmp_path / "own.safetensors", [])


@pytest.mark.parametrize("kind", ["lifter", "transition"])
def test_a_damaged_checkpoint_is_one_line(kind, folder, tmp_path):
    (tmp_path / "own.checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"own.checkpoint.pt' .*delete it to begin anew") as error:
        train(kind, folder, tmp_path / "own.safetensors", ["minutes=0.005"])
    assert "\n" not in str(error.value)
