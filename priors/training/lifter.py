"""Train the lifter on motion files: random bodies, cameras and detector errors, without end.

Called by `slamhmr train lifter`. One thread trains, one process beside it makes batches. The
learning rate follows the clock, so a run ends in `minutes`; it can be interrupted and resumed.
For the same reason a seed repeats the batches, but not the weights bit for bit: how many steps fit
into the time depends on the machine and what else it does.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from priors.checkpoints import CheckpointError, read_torch_checkpoint
from priors.lifter import Crop, Lifter, crop, load_lifter
from priors.training.clips import Library, clip_names, read_library, sample_windows
from priors.training.detecting import detect
from priors.training.filming import Footage, film
from priors.training.losses import WEIGHTS, losses
from priors.training.muon import Optimisers
from priors.training.rig import Rig

LOG = logging.getLogger(__name__)
WARM_UP = 300  # steps
AVERAGE = 0.998  # of the weights that are kept, per step
SAVE_EVERY = 120.0  # s
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Options:
    """Settings of a training run."""

    motions: Path
    out: Path
    minutes: float = 55.0
    seed: int = 0
    batch: int = 40
    frames: int = 81
    width: int = 384
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)
    rate: float = 1e-3
    decay: float = 0.02
    threads: int = 1
    device: str = "cpu"
    resume: bool = True
    start: Path | None = None  # weights to go on from, with a learning rate of its own


@dataclass(frozen=True)
class Batch:
    """Footage, what a detector made of it, and the network's view."""

    footage: Footage
    view: Crop


class _Batches(IterableDataset[Batch]):
    """Endless random batches, made in a process of its own."""

    def __init__(self, library: Library, rig: Rig, options: Options, first: int) -> None:
        self.library, self.rig, self.options, self.first = library, rig, options, first

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        step = self.first
        while True:
            generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + step)
            yield make_batch(
                self.library, self.rig, self.options.batch, self.options.frames, generator
            )
            step += 1


def make_batch(
    library: Library,
    rig: Rig,
    count: int,
    frames: int,
    generator: torch.Generator,
    *,
    vary: bool = True,
    kind: int | None = None,
) -> Batch:
    """Random windows, filmed and detected; `kind` of detector, None for all kinds."""
    footage = film(sample_windows(library, count, frames, generator, vary=vary), rig, generator)
    bearings, confidence = detect(footage, generator, kind)
    return Batch(footage, crop(bearings, confidence, footage.world_from_cam))


def train(options: Options, rig: Rig) -> Lifter:
    """The trained network (average of the last weights); a checkpoint lies beside `out`.

    Raises ValueError for a directory without motions, a checkpoint that is damaged or of another
    network, a negative seed (kept for scores), or no time.
    """
    if options.seed < 0:
        raise ValueError(f"seed={options.seed} must be 0 or more")
    if options.minutes <= 0:
        raise ValueError(f"minutes={options.minutes:g} must be more than 0")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    library = read_library(options.motions, clip_names(options.motions, held_out=False))
    run = _Run(options)
    LOG.info("%d clips, %.1f minutes", len(library.names), len(library.pelvis) / 1800)
    loader = DataLoader(
        _Batches(library, rig, options, run.step), batch_size=None, num_workers=1,
        prefetch_factor=4,
    )  # fmt: skip
    device_rig = to_device(rig, options.device)
    for batch in loader:
        run.learn(batch, device_rig)
        if run.elapsed >= 60 * options.minutes:
            break
    run.save()
    trained: Lifter = run.average.module  # type: ignore[assignment]
    return trained


class _Run:
    """Network, optimiser and clock of a training run."""

    def __init__(self, options: Options) -> None:
        self.options, self.step, self.elapsed = options, 0, 0.0
        self.network = Lifter(options.width, options.dilations).to(options.device)
        if options.start is None:
            initialise(self.network)
        else:
            self.network.load_state_dict(_weights_to_start(options))
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE),  # type: ignore[no-untyped-call]
        )
        self.optimiser = Optimisers(
            self.network, hidden_weights(self.network), options.rate, options.decay
        )
        self.checkpoint = options.out.with_suffix(".checkpoint.pt")
        self.sums: dict[str, float] = {}
        self.saved = self.noted = time.monotonic()
        if options.resume and self.checkpoint.exists():
            self.load()
        self.clock = time.monotonic() - self.elapsed

    def learn(self, batch: Batch, rig: Rig) -> None:
        """One step of the optimiser."""
        share = min(self.elapsed / (60 * self.options.minutes), 1.0)
        rate = self.options.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(share * math.pi)))
        self.optimiser.rate(rate * min(1.0, (self.step + 1) / WARM_UP))
        batch = to_device(batch, self.options.device)
        with torch.autocast(torch.device(self.options.device).type, torch.bfloat16):
            raw = self.network(batch.view.features)
        parts = losses(raw, batch.footage, batch.view, rig)
        total = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        if bool(torch.isfinite(total) & torch.isfinite(norm)):
            self.optimiser.step()
            self.average.update_parameters(self.network)
        self.step += 1
        self.elapsed = time.monotonic() - self.clock
        self._note({"total": total, **parts})

    def _note(self, parts: dict[str, Tensor]) -> None:
        for name, value in parts.items():
            now_at = float(value.detach())
            if not math.isfinite(now_at):
                continue
            self.sums[name] = 0.98 * self.sums.get(name, now_at) + 0.02 * now_at
        now = time.monotonic()
        if now - self.noted > 20:
            words = "  ".join(f"{name} {value:.3f}" for name, value in self.sums.items())
            LOG.info("%5.1f min, step %5d: %s", self.elapsed / 60, self.step, words)
            self.noted = now
        if now - self.saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        content: dict[str, Any] = {
            "step": self.step, "elapsed": self.elapsed, "network": self.network.state_dict(),
            "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict(),
            "options": {key: str(value) for key, value in asdict(self.options).items()},
        }  # fmt: skip
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(content, partial)
        partial.replace(self.checkpoint)
        self.saved = time.monotonic()

    def load(self) -> None:
        """Go on where the checkpoint stopped.

        Raises ValueError if it is damaged, or was begun with other settings.
        """
        try:
            content = read_torch_checkpoint(self.checkpoint)
        except CheckpointError as error:
            raise ValueError(f"{error}; delete it to begin anew") from error
        parts = {"step", "elapsed", "network", "average", "optimiser", "options"}
        if not isinstance(content, dict) or not parts <= set(content):
            raise ValueError(f"'{self.checkpoint}' is no checkpoint of a lifter; delete it")
        for name in ("seed", "batch", "frames", "width", "dilations", "start"):
            asked = str(getattr(self.options, name))
            kept = content["options"].get(name, "None")
            if asked != kept:
                raise ValueError(
                    f"checkpoint '{self.checkpoint}' was begun with {name}={kept}, not {asked}; "
                    "delete it or ask for the same"
                )
        self.step, self.elapsed = content["step"], content["elapsed"]
        self.network.load_state_dict(content["network"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        LOG.info("resumed at step %d, %.1f minutes", self.step, self.elapsed / 60)


T = TypeVar("T")


def to_device(value: T, device: str) -> T:
    """A tensor, or a dataclass of tensors, on another device."""
    if isinstance(value, Tensor):
        return value.to(device)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: to_device(getattr(value, f.name), device) for f in fields(value)}
        return type(value)(**moved)
    return value


def _weights_to_start(options: Options) -> dict[str, Tensor]:
    """Weights of another run, of the same network.

    Raises ValueError if there are none, or those of another network.
    """
    try:
        network, _ = load_lifter(options.start)
    except (FileNotFoundError, CheckpointError) as error:
        raise ValueError(str(error)) from error
    if (network.width, network.dilations) != (options.width, options.dilations):
        raise ValueError(
            f"start={options.start} has width={network.width} dilations={network.dilations}, "
            f"not {options.width} and {options.dilations}"
        )
    return network.state_dict()


def hidden_weights(network: Lifter) -> set[str]:
    """Names of the matrices between features, which neither read inputs nor write outputs."""
    return {
        name
        for name, weight in network.named_parameters()
        if weight.ndim > 1 and (name.startswith("blocks.") or name == "embed.2.weight")
    }


def initialise(network: Lifter) -> None:
    """Begin with somebody who stands upright and faces the camera, arms hanging."""
    with torch.no_grad():
        network.head.weight.mul_(0.1)
        network.head.bias.zero_()
        rotations = torch.eye(3).repeat(22, 1, 1)
        rotations[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        for joint, sign in ((16, -1.0), (17, 1.0)):
            angle = torch.tensor(sign * 1.1)
            c, s = torch.cos(angle), torch.sin(angle)
            rotations[joint, :2, :2] = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
        network.head.bias[: 22 * 6] = rotations[:, :2].flatten().to(network.head.bias)
        network.head.bias[22 * 6 + 1] = -1.0  # up: y points down in the camera
        network.head.bias[-27:] = -1.5  # log sigmas
