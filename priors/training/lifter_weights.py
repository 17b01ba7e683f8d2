"""From a trained lifter to the weights of the package: sigmas made honest, scores, card."""

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from priors.checkpoints import file_sha256, save_weights
from priors.lifter import BODY_JOINTS, WIDTHS, Lifter
from priors.training.clips import (
    ACKNOWLEDGEMENT,
    LICENCE,
    Library,
    clip_names,
    group_name,
    read_library,
)
from priors.training.lifter import Options, train
from priors.training.rig import Rig
from priors.training.scores import format_scores, score

LOG = logging.getLogger(__name__)
# Rows of the log sigmas in the order of `priors.lifter`: root, joints, up, velocity, log depth.
SIGMA_ROWS = {"root": 1, "joints": BODY_JOINTS, "up": 1, "velocity": 3, "depth": 1}
WINDOWS = 240  # that are scored
NOT_IN_COMMAND = ("motions", "out", "resume")
ONLY_IF_CHANGED = ("dilations", "threads", "device", "start")


def run(options: Options, rig: Rig) -> str:
    """Train, calibrate, score, and write weights and card; the table of scores.

    Sigmas are multiplied by factors fitted on motions that were not trained on. The scores of
    the card are crossed: those of each half of the held-out clips with the factors of the other.
    """
    network = train(options, rig).to("cpu").eval()
    held = clip_names(options.motions, held_out=True)
    halves = [read_library(options.motions, held[i::2]) for i in (0, 1)]
    both = read_library(options.motions, held)
    factors = [_factors(network, half, rig) for half in halves]
    crossed = [
        score(_scaled(network, factors[1 - i]), halves[i], rig, windows=WINDOWS) for i in (0, 1)
    ]
    shipped = _scaled(network, _factors(network, both, rig))
    scores = {
        kind: score(shipped, both, rig, windows=WINDOWS, kind=index)
        for index, kind in enumerate(("blazepose", "coco", "vitpose"))
    }
    card = _card(options, both, scores, [half["mean"] for half in crossed])
    tensors = {name: value.half() for name, value in shipped.state_dict().items()}
    save_weights(options.out, tensors, card)
    tables = [f"{kind}\n{format_scores(table)}" for kind, table in scores.items()]
    ratios = "\n".join(_words_of_ratios(half["mean"]) for half in crossed)
    return "\n\n".join([*tables, f"each half with the factors of the other half\n{ratios}"])


def _factors(network: Lifter, library: Library, rig: Rig) -> dict[str, float]:
    """Errors over stated sigmas of motions that were not trained on."""
    mean = score(network, library, rig, windows=WINDOWS)["mean"]
    return {name: mean[f"{name}_ratio"] for name in SIGMA_ROWS}


def _scaled(network: Lifter, factors: dict[str, float]) -> Lifter:
    """The network with its sigmas multiplied."""
    other = Lifter(network.width, network.dilations)
    other.load_state_dict(network.state_dict())
    shift = [torch.full((count,), factors[name]).log() for name, count in SIGMA_ROWS.items()]
    with torch.no_grad():
        other.head.bias[sum(WIDTHS[:-1]) :] += torch.cat(shift)
    return other.eval()


def _words_of_ratios(mean: dict[str, float]) -> str:
    """Real error over stated sigma, of every kind of sigma."""
    return "  ".join(f"{name} {mean[f'{name}_ratio']:.2f}" for name in SIGMA_ROWS)


def _command(options: Options) -> str:
    """The command with every setting that the weights depend on."""
    words = ["slamhmr train lifter --motions DIR", f"--out {options.out.name}"]
    for setting in fields(options):
        value = getattr(options, setting.name)
        unchanged = setting.name in ONLY_IF_CHANGED and value == setting.default
        if setting.name in NOT_IN_COMMAND or unchanged:
            continue
        if isinstance(value, tuple):
            words.append(f"'{setting.name}=[{','.join(map(str, value))}]'")
        else:
            named = value.name if isinstance(value, Path) else value  # not where it lies
            words.append(f"{setting.name}={named}")
    return " ".join(words)


def _card(
    options: Options, library: Library, scores: dict[str, Any], crossed: list[dict[str, float]]
) -> dict[str, Any]:
    started = {} if options.start is None else {"started_from": file_sha256(options.start)}
    return {
        "kind": "lifter",
        "dilations": list(options.dilations),
        "licence": LICENCE,
        "acknowledgement": ACKNOWLEDGEMENT,
        "command": _command(options),
        **started,  # sha256 of the weights that it went on from
        "held_out": {
            name: group_name(int(group))
            for name, group in zip(library.names, library.group, strict=True)
        },
        "trained_on": clip_names(options.motions, held_out=False),
        "scores": scores,
        "ratios_of_each_half_with_the_factors_of_the_other": [
            {name: value for name, value in half.items() if name.endswith("_ratio")}
            for half in crossed
        ],
    }
