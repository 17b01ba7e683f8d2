"""The run folder: a lock, steps that are skipped while their stamp is valid, leftovers cleaned."""

import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from slamhmr import __version__
from slamhmr.artifacts import (
    TEMPORARY_PREFIX,
    Value,
    atomic,
    content_hash,
    load,
    read_stamp,
    save,
    settings_hash,
    write_json,
)
from slamhmr.codehash import code_hash
from slamhmr.errors import InputError
from slamhmr.lock import Lock, acquire

LOG = logging.getLogger(__name__)
LOCK = ".lock"
NUMBERED = re.compile(r"\d+_\w+\.npz|0_(undistorted\.mp4|cuts\.txt)(\.json)?")
CHECKPOINT = re.compile(r"\.\d+_\w+\.checkpoint\.npz")  # of a stage under way
MARKS = (LOCK, "config.yaml", "log.txt")  # one of them is in every run folder
PRODUCTS = ("result.npz", "report.json", "report.html", "overlay.mp4", "topview.png")


class RunFolder:
    """`SEQ/slamhmr/` while one process works in it; use as a context manager.

    Raises InputError on entering if another process holds the lock, unless it is to `wait`.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False, wait: bool = False) -> None:
        self.folder = folder
        self._wait = wait
        self.seconds: dict[str, float] = {}  # of every step, taken over from its stamp when skipped
        self.notes: dict[str, dict[str, Any]] = {}  # of every step, taken over like the seconds
        self.skipped: list[str] = []
        self.making: dict[str, str] = {}  # stamp of the step that is computed now
        self.overwrite = overwrite
        self._stale = False  # a step was computed anew, so every later one is too
        self._lock: Lock | None = None

    def __enter__(self) -> "RunFolder":
        self._refuse_foreign()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = acquire(self.folder / LOCK, wait=self._wait)
        for leftover in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
            LOG.info("removing '%s', left by an interrupted run", leftover.name)
            leftover.unlink(missing_ok=True)
        if self.overwrite:
            self._remove([p for p in self.folder.iterdir() if NUMBERED.fullmatch(p.name)])
            self._remove([p for p in self.folder.iterdir() if CHECKPOINT.fullmatch(p.name)])
            self._remove([self.folder / name for name in PRODUCTS])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _refuse_foreign(self) -> None:
        """Raise InputError for a folder with files in it, none of which a run has written."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"'{self.folder}' is a file; name a directory with --out")
        names = [p.name for p in self.folder.iterdir()] if self.folder.exists() else []
        ours = [
            n in MARKS
            or n.startswith(TEMPORARY_PREFIX)
            or NUMBERED.fullmatch(n)
            or CHECKPOINT.fullmatch(n)
            for n in names
        ]
        if len(names) > 0 and not any(ours):
            raise InputError(
                f"'{self.folder}' holds other files than a run's; name a new directory with --out"
            )

    def path(self, name: str) -> Path:
        """Path of a file of this run."""
        return self.folder / name

    def checkpoint(self, name: str) -> Path:
        """Where a stage that is interrupted leaves how far it has come."""
        return self.folder / f".{name}.checkpoint.npz"

    def step(
        self,
        name: str,
        kind: type[Value],
        compute: Callable[[], Value],
        *,
        settings: object,
        inputs: Sequence[Path],
        code: tuple[str, ...],
        note: Callable[[], dict[str, object]] | None = None,
    ) -> tuple[Value, dict[str, Any]]:
        """The value of `name`.npz and its note: read if its stamp is valid, else computed.

        The stamp binds the settings, the content of the inputs and of the files that the settings
        name (`named_files`: weights, features, a body), and the source code of the step;
        `note` is asked after computing and its answer kept in the stamp. Once a step is computed
        anew, all later ones are.
        """
        path = self.folder / f"{name}.npz"
        wanted = self._wanted(settings, inputs, code)
        old = read_stamp(path)
        if old is not None and not self._stale and all(old.get(k) == wanted[k] for k in wanted):
            LOG.info("%s: up to date", name)
            self.skipped.append(name)
            self.seconds[name] = float(old.get("seconds", 0.0))
            self.notes[name] = dict(old.get("note", {}))
            return load(path, kind), self.notes[name]
        self._stale = True
        self.making = wanted
        started = time.perf_counter()
        value = compute()
        self.seconds[name] = time.perf_counter() - started
        self._discard_products()  # not before: a step that fails destroys nothing
        kept: dict[str, Any] = note() if note is not None else {}
        self.notes[name] = kept
        stamp = {**wanted, "version": __version__, "seconds": self.seconds[name], "note": kept}
        save(path, value, stamp=stamp)
        self.checkpoint(name).unlink(missing_ok=True)
        LOG.info("%s: done in %.1f s", name, self.seconds[name])
        return value, kept

    def file(
        self,
        name: str,
        make: Callable[[Path], None],
        *,
        settings: object,
        inputs: Sequence[Path],
        code: tuple[str, ...],
    ) -> Path:
        """Path of a file that is no npz, made anew unless the stamp beside it (.json) is valid."""
        path, stamp = self.folder / name, self.folder / f"{name}.json"
        wanted = self._wanted(settings, inputs, code)
        if path.exists() and stamp.exists() and json.loads(stamp.read_text()) == wanted:
            LOG.info("%s: up to date", name)
            return path
        self._stale = True
        with atomic(path) as temporary:
            make(temporary)
            stamp.unlink(missing_ok=True)
        self._discard_products()
        write_json(stamp, wanted)
        LOG.info("%s: done", name)
        return path

    def _discard_products(self) -> None:
        """Remove what an earlier run concluded from files that have just been made anew."""
        self._remove([self.folder / name for name in PRODUCTS])

    def keep_only(self, names: Sequence[str]) -> None:
        """Remove numbered files of another schedule: nothing reads them any more."""
        files = [p for p in self.folder.iterdir() if NUMBERED.fullmatch(p.name)]
        self._remove([p for p in files if p.suffix == ".npz" and p.stem not in names])
        left = [p for p in self.folder.iterdir() if CHECKPOINT.fullmatch(p.name)]
        self._remove([p for p in left if p not in map(self.checkpoint, names)])

    def _wanted(
        self, settings: object, inputs: Sequence[Path], code: tuple[str, ...]
    ) -> dict[str, str]:
        """The stamp of a file made now."""
        return {
            "config": settings_hash(settings),
            "inputs": content_hash([*inputs, *named_files(settings)]),
            "code": code_hash(*code),
        }

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


def named_files(settings: object) -> list[Path]:
    """Files that strings among the settings name, and the card (.json) beside each of weights.

    Looks into mappings, sequences and dataclasses; words that name no file are passed over.
    """
    if isinstance(settings, str):
        path = Path(os.path.expanduser(settings))
        named = [path, *([path.with_suffix(".json")] if path.suffix == ".safetensors" else [])]
        return [file for file in named if os.path.isfile(file)]  # False for names beyond the limits
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        settings = [getattr(settings, field.name) for field in dataclasses.fields(settings)]
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        return [file for value in settings for file in named_files(value)]
    return []
