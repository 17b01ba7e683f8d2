"""Train the transition prior on motion files: `slamhmr train transition`.

Both networks learn by the likelihood of Student's t over whole triples of frames, so that idling
and acrobatics, whose residuals differ by a factor of ten, both count; the scale matrix is refitted
as training goes on. The motions that `clips.is_held_out` names only score. An interrupted run goes
on where it was: a checkpoint lies beside the weights.
"""

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from priors.checkpoints import CheckpointError, read_torch_checkpoint
from priors.training.clips import ACKNOWLEDGEMENT, GROUPS, LICENCE, group_name, read_split
from priors.training.rig import Rig
from priors.training.scoring import baselines, regular, score, squared_residuals
from priors.training.triples import Sample, Splines, draw, splines
from priors.transition import (
    RATES,
    STATE,
    Network,
    TransitionPrior,
    save_transition_prior,
)

LOG = logging.getLogger(__name__)

FREEDOM = {"change": 4.0, "gait": 3.0}  # of Student's t
MEMORY = 0.99  # of the running second moments, per batch
RIDGE = 1e-3  # of the regression that training begins at
FIRST = 20000  # triples of that regression
REFIT = 50  # batches between refits of the scale matrices
# Least standard deviations: of accelerations of the pelvis (m/s^2) and of joints (rad/s^2), and of
# the pelvis' velocity (m/s). Recorded skeletons have hinges and split spines, people do not.
FLOOR = {"change": (0.3, 3.0), "gait": (0.03, 0.03)}
SAVE_SECONDS = 120.0


@dataclass(frozen=True)
class Options:
    """Settings of a training run: `minutes` of training, `batch` triples each, `rows` kept."""

    motions: Path
    out: Path
    seed: int = 0
    minutes: float = 10.0
    width: int = 64
    gait_width: int = 128
    rows: int = 44
    batch: int = 2048
    rate: float = 2e-3
    decay: float = 0.3
    resume: bool = True


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


def run(options: Options, _: Rig) -> str:
    """Train, score on the held-out motions, write weights and card; the table of scores.

    Raises ValueError for a directory without motions of both kinds, settings that make no prior,
    or a checkpoint of another run.
    """
    for name in ("minutes", "width", "gait_width", "batch"):
        if getattr(options, name) <= 0:
            raise ValueError(f"{name}={getattr(options, name):g} must be more than 0")
    if not 0 < options.rows <= RATES:
        raise ValueError(f"rows={options.rows} must be 1 to {RATES}")
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    seen, unseen = (splines(library) for library in read_split(options.motions))
    trainee = Trainee(options)
    trainee.look_at(draw(seen, FIRST, generator))
    optimiser = torch.optim.AdamW(
        trainee.parameters(), lr=options.rate, weight_decay=options.decay, betas=(0.9, 0.99)
    )
    spent = 0.0
    if options.resume and _checkpoint(options).exists():
        spent = _restore(options, trainee, optimiser, generator)
    _optimise(options, seen, trainee, optimiser, generator, spent)
    whole = trainee.prior()
    kept, share = whole.leading(options.rows)
    scores = score(whole, unseen, FREEDOM)
    scores["median_squared_residual"] = squared_residuals(kept, unseen)
    floor = Head((1, RATES), "change").floor.double()
    scores["baselines"] = baselines(seen, unseen, FREEDOM["change"], floor)
    card = _card(options, seen, unseen, scores)
    save_transition_prior(options.out, kept, {**card, "share_of_precision_kept": round(share, 4)})
    return _table(scores)


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
            LOG.info("%.1f min, batch %d: %s", spent / 60.0, batches, values)
    trainee.change.refit()
    trainee.gait.refit()
    _save(options, trainee, optimiser, generator, spent)


def _checkpoint(options: Options) -> Path:
    return options.out.with_suffix(".checkpoint.pt")


def _settings(options: Options) -> dict[str, str]:
    """What a checkpoint depends on, and the minutes."""
    left_out = ("motions", "out", "resume")
    return {key: f"{value:g}" for key, value in asdict(options).items() if key not in left_out}


def _save(
    options: Options,
    trainee: Trainee,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    spent: float,
) -> None:
    path = _checkpoint(options)
    state = {
        "settings": _settings(options),
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
    path = _checkpoint(options)
    try:
        state = read_torch_checkpoint(path)
    except CheckpointError as error:
        raise ValueError(f"{error}; delete it to begin anew") from error
    for name in ("seed", "width", "gait_width", "batch"):
        asked, begun = _settings(options)[name], state["settings"][name]
        if asked != begun:
            raise ValueError(
                f"checkpoint '{path}' was begun with {name}={begun}, not {asked}; delete it or ask "
                "for the same"
            )
    trainee.load_state_dict(state["trainee"])
    optimiser.load_state_dict(state["optimiser"])
    generator.set_state(state["generator"])
    return float(state["spent"])


def _card(
    options: Options, seen: Splines, unseen: Splines, scores: dict[str, Any]
) -> dict[str, object]:
    """How the weights were made, from what, and how good they are."""
    words = " ".join(f"{key}={value}" for key, value in _settings(options).items())
    return {
        "kind": "transition",
        "command": f"slamhmr train transition --motions DIR --out {options.out.name} {words}",
        "licence": LICENCE,
        "acknowledgement": ACKNOWLEDGEMENT,
        "scores": scores,
        "held_out": {
            name: group_name(int(group))
            for name, group in zip(unseen.names, unseen.group, strict=True)
        },
        "trained_on": dict(zip(seen.names, seen.length.tolist(), strict=True)),
        "shares": {name: share for name, _, share in GROUPS},
    }


def _table(scores: dict[str, Any]) -> str:
    """Held-out NLL per frame by group: this prior beside simpler predictions, nats."""
    own = scores["change_nll_per_frame"]
    rows = {"this prior": own, **scores["baselines"]}
    lines = [f"{'held-out NLL per frame':30s}" + "".join(f"{name:>22s}" for name in own)]
    for name, values in rows.items():
        lines.append(f"{name:30s}" + "".join(f"{values[group]:22.1f}" for group in own))
    return "\n".join(lines)
