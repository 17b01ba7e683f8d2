"""What a `slamhmr batch` command adds to a batch folder, and which of its jobs it is to run."""

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slamhmr.batch.folder import (
    BATCH,
    Batch,
    job_path,
    read_batch,
    read_submissions,
    write_batch,
)
from slamhmr.batch.sequences import find_sequences, make_entries
from slamhmr.batch.sizes import measured
from slamhmr.batch.states import FAILED, current
from slamhmr.batch.table import counts
from slamhmr.config import Config, load_config, suggestion
from slamhmr.errors import ConfigError, InputError

LOG = logging.getLogger(__name__)
LOCK = ".lock"
# A run folder that is in use is waited for: by its former child, which is dying, or by a user.
COMMAND = [sys.executable, "-m", "slamhmr.cli", "optimize", "--wait"]
LOOKED_AT = 50  # sequences that are asked for what all of them lack
AFRESH = ("waiting", "preempted", "lost")  # what is run without --retry
RETRIES = {"failed": FAILED, **{word: (word,) for word in ("lost", "below", "refused", "input")}}


@dataclass(frozen=True)
class Asked:
    """What a command names: sequences, and settings as arguments of the child."""

    paths: list[Path]
    arguments: list[str]
    plain: bool  # no settings: those of the batch, where there is one


def asked(words: Sequence[str], files: Sequence[Path], settings: Sequence[str]) -> Asked:
    """What a command names, checked, before any folder is made.

    Raises ConfigError for settings that do not hold, InputError for sequences that are not there.
    """
    threads = [] if any(s.startswith("threads=") for s in settings) else ["threads=1"]
    options = [word for path in files for word in ("--config", str(path.absolute()))]
    arguments = [*options, *settings, *threads]
    config_of(arguments)
    return Asked(find_sequences(words), arguments, len(files) == 0 and len(settings) == 0)


def config_of(arguments: Sequence[str]) -> Config:
    """The configuration that the arguments of a batch make.

    Raises ConfigError where they make none, or name one GPU for all.
    """
    count = 2 * sum(word == "--config" for word in arguments)
    config = load_config([Path(path) for path in arguments[1:count:2]], arguments[count:])
    if config.device.startswith("cuda:"):
        raise ConfigError(f"device={config.device}: say device=cuda; every worker gets its own GPU")
    return config


def require_components(wanted: Asked, results: Path | None, *, here: bool) -> None:
    """Raise MissingAsset with what every sequence lacks of the components of others, if any.

    Nothing is looked at where the settings name none of them. A GPU is missed only if it would have
    to be `here`. The first `LOOKED_AT` sequences stand for all; what only some lack their runs say.
    """
    config = config_of(wanted.arguments)
    own = [config.detect, config.slam, config.init, config.body.model, config.device]
    if set(own) <= {"auto", "file", "default", "cpu"} and config.overlay.renderer == "auto":
        return
    from slamhmr.components import elsewhere, require
    from slamhmr.preflight import common_lacks

    entries = make_entries(wanted.paths, results, [])[:LOOKED_AT]
    with contextlib.nullcontext() if here else elsewhere():
        require(common_lacks([(Path(e.path), Path(e.run)) for e in entries], config))


def planned(folder: Path, wanted: Asked, results: Path | None) -> Batch:
    """The batch of a folder with the sequences that a command names in it, written.

    Raises InputError if there would be none, or the batch was made with other settings.
    """
    others = [path for path in folder.iterdir() if path.name != LOCK]
    if (folder / BATCH).exists():
        batch = read_batch(folder)
    elif len(others) > 0:
        raise InputError(f"'{folder}' holds other files than a batch's; name another --out")
    else:
        threads = config_of(wanted.arguments).threads
        batch = Batch(folder, COMMAND, wanted.arguments, os.getcwd(), threads, [])
    if not wanted.plain and batch.arguments != wanted.arguments and not _begun(folder):
        threads = config_of(wanted.arguments).threads
        batch = dataclasses.replace(batch, arguments=wanted.arguments, threads=threads)
        write_batch(batch)
    if not wanted.plain and batch.arguments != wanted.arguments:
        raise InputError(
            f"batch '{folder}' was made with the settings {' '.join(batch.arguments)}; leave "
            "settings out to go on with them, or name another --out"
        )
    entries = [measured(e) for e in make_entries(wanted.paths, results, batch.sequences)]
    if len(batch.sequences) + len(entries) == 0:
        raise InputError("no sequences: name directories, a folder of them, a glob or a list")
    there = sum((Path(entry.run) / "result.npz").exists() for entry in entries)
    if there > 0:
        LOG.warning(
            "%d of %d run folders hold a result already, which is made anew where its settings are "
            "others; --results DIR keeps results of other settings apart",
            there, len(entries),
        )  # fmt: skip
    if len(entries) > 0:
        batch = dataclasses.replace(batch, sequences=[*batch.sequences, *entries])
        write_batch(batch)
    return batch


def _begun(folder: Path) -> bool:
    """Whether any job of the batch was ever run or submitted."""
    return any(job_path(folder, 0).parent.glob("*.json")) or len(read_submissions(folder)) > 0


def chosen(batch: Batch, paths: Sequence[Path], retry: str | None) -> list[int]:
    """Indices of the jobs to run: of the sequences `paths` (else all) those that nobody runs.

    Without `retry` those not finished yet; with it only those in its states.
    Raises ConfigError for a state that is none.
    """
    states = AFRESH if retry is None else _states(retry)
    wanted = {str(path) for path in paths}
    mine = [
        now
        for now, entry in zip(current(batch), batch.sequences, strict=True)
        if len(wanted) == 0 or entry.path in wanted
    ]
    # --retry lost: also those of hosts that cannot be asked; locks keep the living ones.
    gone = "lost" in (retry or "").replace(" ", "").split(",")
    indices = [
        now.job.index
        for now in mine
        if (now.startable and now.state in states) or (gone and now.unasked)
    ]
    others = [now for now in mine if now.job.index not in indices]
    if len(others) > 0:
        parts = ", ".join(f"{count} {word}" for word, count in counts(others).items())
        LOG.info("left as they are: %s", parts)
    kinds = {"failed": FAILED, "below": ("below",)} if retry is None else {}
    again = [f"--retry {k}" for k, words in kinds.items() if any(n.state in words for n in others)]
    if len(again) > 0:
        LOG.info("%s: those again", ", ".join(again))
    return indices


def _states(retry: str) -> tuple[str, ...]:
    names = [name.strip() for name in retry.split(",")]
    for name in names:
        if name not in RETRIES:
            raise ConfigError(f"--retry {name}: {suggestion(name, list(RETRIES))}")
    return tuple(state for name in names for state in RETRIES[name])
