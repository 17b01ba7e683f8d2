"""Train the transition prior on motion files.

    python -m priors.training.transition --motions DIR --out priors/weights/transition.safetensors

DIR holds motion files (`slamhmr import-motion`). Both networks learn by the likelihood of
Student's t over whole triples of frames, so that idling and acrobatics, whose residuals differ by
a factor of ten, both count; the scale matrix is refitted as training goes on. Motions named in
`held_out.txt` only score. Stopped and started again with `--resume`, it goes on where it was.
"""

import argparse
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from priors.training.clips import GROUPS, clip_names, read_library
from priors.training.scoring import baselines, regular, score
from priors.training.triples import Sample, Splines, draw, splines
from priors.transition import (
    RATES,
    STATE,
    Network,
    TransitionPrior,
    save_transition_prior,
)

log = logging.getLogger(__name__)

FREEDOM = {"change": 4.0, "gait": 3.0}  # of Student's t
MEMORY = 0.99  # of the running second moments, per batch
RIDGE = 1e-3  # of the regression that training begins at
REFIT = 50  # batches between refits of the scale matrices
# Least standard deviations: of accelerations of the pelvis (m/s^2) and of joints (rad/s^2), and of
# the pelvis' velocity (m/s). Recorded skeletons have hinges and split spines, people do not.
FLOOR = {"change": (0.3, 3.0), "gait": (0.03, 0.03)}
SAVE_SECONDS = 120.0
ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217. "
    "Idle motions: ReActIdle (MIT, RSAIT 2025). Short clips: DeepMimic data in bullet3 (zlib)."
)


@dataclass(frozen=True)
class Options:
    """What `slamhmr train transition` is asked for; `minutes` of training, `batch` triples each."""

    motions: Path
    out: Path
    seed: int = 0
    minutes: float = 12.0
    resume: bool = False
    width: int = 128
    gait_width: int = 128
    batch: int = 2048
    rate: float = 2e-3
    decay: float = 0.3


class Head(nn.Module):
    """A `Network` in the making: normalised inputs, and the scale matrix of its residuals."""

    mean: Tensor
    spread: Tensor
    floor: Tensor
    moment: Tensor  # of the residuals, weighted
    count: Tensor  # share of the samples that know both columns
    whitening: Tensor

    def __init__(self, sizes: tuple[int, ...], name: str) -> None:
        super().__init__()
        inputs, outputs = sizes[0], sizes[-1]
        self.skip = nn.Linear(inputs, outputs, bias=False)
        self.layers = nn.ModuleList(
            [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=False)]
        )
        self.freedom = FREEDOM[name]
        pelvis, joints = FLOOR[name]
        floor = torch.full((outputs,), joints)
        floor[:3] = pelvis
        for key, value in (
            ("floor", floor),
            ("mean", torch.zeros(inputs)), ("spread", torch.ones(inputs)),
            ("moment", torch.zeros(outputs, outputs)), ("count", torch.zeros(outputs, outputs)),
            ("whitening", torch.eye(outputs)),
        ):  # fmt: skip
            self.register_buffer(key, value)
        nn.init.zeros_(self.skip.weight)
        nn.init.zeros_(self.linear[-1].weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's value."""
        z = (inputs - self.mean) / self.spread
        at = z
        for layer in self.linear[:-1]:
            at = torch.tanh(layer(at))
        value: Tensor = self.skip(z) + self.linear[-1](at)
        return value

    @property
    def linear(self) -> list[nn.Linear]:
        """All layers but the skip, first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def loss(self, error: Float[Tensor, "N R"], known: Bool[Tensor, "N R"]) -> Tensor:
        """Mean -log likelihood less its constant; remembers the residuals' second moments."""
        error = torch.where(known, error, 0.0)
        squared = ((error @ self.whitening.T) ** 2).sum(dim=-1)
        size = known.sum(dim=-1)
        weight = ((self.freedom + size) / (self.freedom + squared)).detach()
        with torch.no_grad():
            flat, present = weight[:, None] * error, known.float()
            self.moment.mul_(MEMORY).add_((flat.T @ error) / len(error), alpha=1 - MEMORY)
            self.count.mul_(MEMORY).add_((present.T @ present) / len(error), alpha=1 - MEMORY)
        return (0.5 * (self.freedom + size) * torch.log1p(squared / self.freedom)).mean()

    @torch.no_grad()
    def refit(self) -> None:
        """The whitening of the remembered residuals."""
        covariance = self.moment / self.count.clamp_min(1e-6) + torch.diag(self.floor**2)
        factor = torch.linalg.cholesky(regular(covariance))
        eye = torch.eye(len(factor), dtype=factor.dtype)
        self.whitening.copy_(torch.linalg.solve_triangular(factor, eye, upper=False))

    @torch.no_grad()
    def regress(
        self, inputs: Float[Tensor, "N I"], target: Float[Tensor, "N R"], known: Bool[Tensor, "N R"]
    ) -> None:
        """One round of ridge regression under Student's t: sets skip, last bias, whitening."""
        self.mean.copy_(inputs.mean(dim=0))
        self.spread.copy_(inputs.std(dim=0).clamp_min(1e-2))
        error = torch.where(known, target - self(inputs), 0.0)
        squared = ((error @ self.whitening.T) ** 2).sum(dim=-1)
        weight = (self.freedom + known.sum(dim=-1)) / (self.freedom + squared)
        scaled = torch.cat([(inputs - self.mean) / self.spread, torch.ones(len(inputs), 1)], dim=1)
        weighted = (scaled * weight[:, None]).double()
        gram = weighted.T @ scaled.double()
        gram += RIDGE * weight.sum() * torch.eye(len(gram))
        solved = torch.linalg.solve(gram, weighted.T @ torch.where(known, target, 0.0).double())
        self.skip.weight.copy_(solved[:-1].T)
        self.linear[-1].bias.copy_(solved[-1])
        self.moment.zero_()
        self.count.zero_()
        self.loss(target - self(inputs), known)
        self.refit()

    @torch.no_grad()
    def network(self) -> Network:
        """The same function of inputs as they are."""
        first = self.linear[0].weight / self.spread
        skip = self.skip.weight / self.spread
        weights = (first, *(layer.weight for layer in self.linear[1:]))
        shift = self.linear[0].bias - first @ self.mean
        last = self.linear[-1].bias - skip @ self.mean
        biases = (shift, *(layer.bias for layer in self.linear[1:-1]), last)
        return Network(
            skip.double(), tuple(w.double() for w in weights), tuple(b.double() for b in biases)
        )


class Trainee(nn.Module):
    """Both heads."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        wide = options.gait_width
        self.change = Head((STATE + RATES, options.width, RATES), "change")
        self.gait = Head((STATE + 2 * (RATES - 3), wide, wide, 3), "gait")

    def losses(self, sample: Sample) -> dict[str, Tensor]:
        """The loss of each head."""
        triple = sample.triple
        change = triple.acceleration - self.change(triple.change_inputs)
        gait = sample.velocity - self.gait(triple.gait_inputs)
        return {
            "change": self.change.loss(change, sample.known),
            "gait": self.gait.loss(gait, torch.ones_like(gait, dtype=torch.bool)),
        }

    def prior(self) -> TransitionPrior:
        """What the solver uses."""
        return TransitionPrior(
            self.change.network(), self.gait.network(),
            self.change.whitening.double(), self.gait.whitening.double(),
        )  # fmt: skip

    @torch.no_grad()
    def look_at(self, sample: Sample) -> None:
        """Begin at the linear regression of a large sample, and at its scale matrices."""
        triple = sample.triple
        for _ in range(8):
            self.change.regress(triple.change_inputs, triple.acceleration, sample.known)
            everything = torch.ones_like(sample.velocity, dtype=torch.bool)
            self.gait.regress(triple.gait_inputs, sample.velocity, everything)


def train(options: Options) -> TransitionPrior:
    """Train, score on the held-out motions, write weights and card.

    Raises ValueError if the directory holds no motion file, or only held-out ones.
    """
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    seen, unseen = _data(options.motions)
    trainee = Trainee(options)
    trainee.look_at(draw(seen, 20000, generator))
    optimiser = torch.optim.AdamW(
        trainee.parameters(), lr=options.rate, weight_decay=options.decay, betas=(0.9, 0.99)
    )
    spent = _restore(options, trainee, optimiser, generator) if options.resume else 0.0
    _optimise(options, seen, trainee, optimiser, generator, spent)
    prior = trainee.prior()
    save_transition_prior(options.out, prior, _card(options, prior, seen, unseen))
    return prior


def _data(motions: Path) -> tuple[Splines, Splines]:
    """Motions to learn from, and those to score on."""
    seen = clip_names(motions, held_out=False)
    unseen = clip_names(motions, held_out=True)
    return splines(read_library(motions, seen)), splines(read_library(motions, unseen))


def _optimise(
    options: Options,
    seen: Splines,
    trainee: Trainee,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    spent: float,
) -> None:
    total, began, saved, batches = 60.0 * options.minutes, time.monotonic() - spent, spent, 0
    while spent < total:
        cosine = 0.5 * (1.0 + math.cos(math.pi * spent / total))
        for group in optimiser.param_groups:
            group["lr"] = options.rate * (0.01 + 0.99 * cosine)
        losses = trainee.losses(draw(seen, options.batch, generator))
        optimiser.zero_grad()
        torch.autograd.backward(torch.stack([*losses.values()]).sum())
        nn.utils.clip_grad_norm_(trainee.parameters(), 100.0)
        optimiser.step()
        batches += 1
        if batches % REFIT == 0:
            trainee.change.refit()
            trainee.gait.refit()
        spent = time.monotonic() - began
        if spent - saved > SAVE_SECONDS:
            _save(options, trainee, optimiser, generator, spent)
            saved = spent
            values = ", ".join(f"{name} {value.item():.2f}" for name, value in losses.items())
            log.info("%.1f min, batch %d: %s", spent / 60.0, batches, values)
    trainee.change.refit()
    trainee.gait.refit()
    _save(options, trainee, optimiser, generator, spent)


def _state_path(options: Options) -> Path:
    return options.out.with_suffix(".training.pt")


def _save(
    options: Options,
    trainee: Trainee,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    spent: float,
) -> None:
    path = _state_path(options)
    state = {
        "trainee": trainee.state_dict(), "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(), "spent": spent,
    }  # fmt: skip
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _restore(
    options: Options,
    trainee: Trainee,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    path = _state_path(options)
    if not path.exists():
        raise ValueError(f"nothing to resume: '{path}' does not exist; train without --resume")
    state = torch.load(path, weights_only=True)
    trainee.load_state_dict(state["trainee"])
    optimiser.load_state_dict(state["optimiser"])
    generator.set_state(state["generator"])
    return float(state["spent"])


def _card(
    options: Options, prior: TransitionPrior, seen: Splines, unseen: Splines
) -> dict[str, object]:
    """How the weights were made, from what, and how good they are."""
    settings = {
        key: value
        for key, value in asdict(options).items()
        if key not in ("motions", "out", "resume")
    }
    scores = score(prior, unseen, FREEDOM)
    floor = Head((1, RATES), "change").floor.double()
    scores["baselines"] = baselines(seen, unseen, FREEDOM["change"], floor)
    for name, value in scores.items():
        log.info("%s: %s", name, value)
    return {
        "command": "slamhmr train transition --motions DIR "
        + " ".join(f"--{key} {value}" for key, value in settings.items()),
        "licence": "MIT for the weights; the recordings are not included and may not be resold",
        "acknowledgement": ACKNOWLEDGEMENT,
        "held_out": scores,
        "seen_clips": dict(zip(seen.names, seen.length.tolist(), strict=True)),
        "unseen_clips": list(unseen.names),
        "shares": {name: share for name, _, share in GROUPS},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(prog="slamhmr train transition", description=__doc__)
    parser.add_argument("--motions", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--resume", action="store_true")
    for name, kind in (
        ("seed", int), ("minutes", float), ("width", int), ("gait_width", int), ("batch", int),
        ("rate", float), ("decay", float),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=getattr(Options, name))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(Options(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
