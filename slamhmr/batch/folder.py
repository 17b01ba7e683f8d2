"""The batch folder: batch.json (what is to be done), jobs/*.json (how it went), logs/.

Only the standard library: a worker is small beside the run that it watches.
"""

import dataclasses
import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from slamhmr.atomic import write_text
from slamhmr.errors import InputError
from slamhmr.lock import flocked

BATCH = "batch.json"
SCHEMA_VERSION = 1

ROOT = Path(__file__).parents[2]

Record = TypeVar("Record", "Entry", "Job", "Submission")


@dataclass(frozen=True)
class Entry:
    """One sequence of a batch; its index is its place in the list, which never changes."""

    name: str
    path: str
    run: str  # the run folder
    frames: int = 0  # 0: not known before the run
    people: int = 0


@dataclass(frozen=True)
class Batch:
    """What every job of a batch has in common, and the sequences."""

    folder: Path
    command: list[str]  # argv of the child; "--seq", PATH, "--out", RUN and `arguments` follow
    arguments: list[str]
    cwd: str  # where relative paths among the arguments start
    threads: int
    sequences: list[Entry]


@dataclass(frozen=True)
class Job:
    """How one sequence went so far; `states.py` says what the words of `state` mean."""

    index: int
    name: str
    state: str
    attempt: int = 0
    host: str | None = None
    pid: int | None = None  # of the worker
    pid_start: str | None = None  # clock ticks at its start: ids are used again
    slurm_job: str | None = None  # "123_4" of an array's task
    started: float | None = None  # s since 1970
    ended: float | None = None
    seconds: float | None = None  # of the last attempt, as all that follows
    cpu_seconds: float | None = None
    peak_mib: float | None = None
    exit_code: int | None = None  # negative: minus the signal that killed the child
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # of report.json, for the manifest


@dataclass(frozen=True)
class Submission:
    """An array of jobs handed to a cluster: which task is which sequence."""

    job: str  # "123"
    tasks: dict[str, int]  # "123_4": index of the sequence
    submitted: float  # s since 1970


def read_batch(folder: Path) -> Batch:
    """What `write_batch` wrote. Raises InputError if there is none or it is damaged."""
    path = folder / BATCH
    if not path.is_file():
        raise InputError(f"'{folder}' is no batch folder: it has no {BATCH}")
    content = _read(path)
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"'{path}' has schema version {content['schema_version']}, not 1")
        sequences = [Entry(**entry) for entry in content["sequences"]]
        command, arguments = list(content["command"]), list(content["arguments"])
        cwd, threads = str(content["cwd"]), int(content["threads"])
    except (KeyError, TypeError) as e:
        raise InputError(f"'{path}' is damaged: {e}") from e
    return Batch(folder, command, arguments, cwd, threads, sequences)


def write_batch(batch: Batch) -> None:
    """Write batch.json atomically."""
    content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(batch)}
    del content["folder"]
    write_text(batch.folder / BATCH, json.dumps(content, indent=1) + "\n")


def job_path(folder: Path, index: int, suffix: str = ".json") -> Path:
    """File of a job: its state (.json) or its lock (.lock)."""
    return folder / "jobs" / f"{index:05d}{suffix}"


def log_path(folder: Path, index: int) -> Path:
    """What the child of a job said, all attempts one after the other."""
    return folder / "logs" / f"{index:05d}.txt"


def read_job(folder: Path, index: int) -> Job | None:
    """The state that was written last; None if the job was never begun."""
    path = job_path(folder, index)
    return _record(Job, path) if path.exists() else None


def write_job(folder: Path, job: Job) -> None:
    """Write a job's state atomically."""
    text = json.dumps(dataclasses.asdict(job), indent=1) + "\n"
    write_text(job_path(folder, job.index), text)


def read_submissions(folder: Path) -> list[Submission]:
    """What was handed to a cluster, oldest first."""
    paths = (folder / "submissions").glob("*.json")
    return sorted((_record(Submission, path) for path in paths), key=lambda s: s.submitted)


def write_submission(folder: Path, submission: Submission) -> None:
    """Write down which task of an array is which sequence."""
    text = json.dumps(dataclasses.asdict(submission)) + "\n"
    write_text(folder / "submissions" / f"{submission.job}.json", text)


def worker_command(folder: Path) -> list[str]:
    """The one way a job is run; its index follows."""
    return [sys.executable, "-m", "slamhmr.batch.worker", str(folder)]


def job_name(folder: Path) -> str:
    """Name of a batch's jobs in a cluster's queue, its own among batches of the same name."""
    return f"slamhmr-{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"


def import_path() -> str | None:
    """Where our package lies, for PYTHONPATH, if it is a checkout that may not be installed."""
    return str(ROOT) if (ROOT / "setup.py").is_file() else None


def environment(**variables: str) -> dict[str, str]:
    """This process's environment and `variables`, with our package found from any directory."""
    before = os.environ.get("PYTHONPATH")
    paths = [path for path in (import_path(), before) if path is not None and path != ""]
    own = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))} if len(paths) > 0 else {}
    return {**os.environ, **own, **variables}


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, or yield False if another process holds it.

    The kernel lets go when the process dies. The file stays: removing it would race. Where the file
    system knows no flock everybody gets it; run folders have locks that do without.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if flocked(handle) is False:
            yield False
            return
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        yield True
    finally:
        os.close(handle)


def _record(kind: type[Record], path: Path) -> Record:
    content = _read(path)
    try:
        return kind(**content)
    except TypeError as e:
        raise InputError(f"'{path}' is damaged: {e}") from e


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as e:
        raise InputError(f"'{path}' is damaged: {' '.join(str(e).split())}") from e
    if not isinstance(content, dict):
        raise InputError(f"'{path}' is damaged: it holds no mapping")
    return content
