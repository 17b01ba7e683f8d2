"""Batches for tests whose child is a small script: a sequence's file `do` says how its run ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from slamhmr.batch.folder import Batch, Entry, write_batch

ROOT = Path(__file__).parents[1]
CHILD = """
import os, signal, sys, time
from pathlib import Path
seq, out = Path(sys.argv[2]), Path(sys.argv[4])
out.mkdir(parents=True, exist_ok=True)
told = []
def stop(number, frame):
    told.append(number)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, stop)
with (out / "runs.txt").open("a") as file:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    own = [os.environ.get(name, "-") for name in names]
    print(os.getpid(), time.time(), *own, *sys.argv[5:], file=file)
code, _, words = (seq / "do").read_text().partition(" ")
if code == "sleep":
    (out / "ready").write_text(str(os.getpid()))
    end = time.monotonic() + float(words)
    while time.monotonic() < end and not told:
        time.sleep(0.005)
    (out / "told.txt").write_text(" ".join(map(str, told)))
    sys.exit(75 if told else 0)
if words:
    print(words, file=sys.stderr)
if code == "kill":
    os.kill(os.getpid(), 9)
sys.exit(int(code))
"""


def child(folder: Path) -> list[str]:
    """Command of the script that stands for `slamhmr optimize`."""
    script = folder / "child.py"
    script.write_text(CHILD)
    return [sys.executable, "-S", "-E", str(script)]


def make_sequences(folder: Path, **does: str) -> list[Path]:
    """Sequence directories by name, with what their run is to do."""
    for name, words in does.items():
        (folder / name / "images").mkdir(parents=True)
        (folder / name / "do").write_text(words)
    return [folder / name for name in does]


def make_batch(folder: Path, **does: str) -> Batch:
    """A batch folder as `slamhmr batch` writes it."""
    entries = [
        Entry(path.name, str(path), str(path / "slamhmr"))
        for path in make_sequences(folder / "seqs", **does)
    ]
    (folder / "batch").mkdir()
    batch = Batch(folder / "batch", child(folder), [], str(folder), 1, entries)
    write_batch(batch)
    return batch


def start_worker(batch: Batch, index: int, *flags: str, **variables: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "slamhmr.batch.worker", str(batch.folder), str(index), *flags]
    return subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **variables})


def wait_until(there, seconds: float = 20.0):
    """The first true value of `there()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = there()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def ready(batch: Batch, index: int) -> int:
    """Wait until the child of a job is at work; its process id."""
    path = Path(batch.sequences[index].run) / "ready"
    return int(wait_until(lambda: path.exists() and path.read_text()))


def runs(entry: Entry) -> list[list[str]]:
    """pid, time, GPU, threads and settings of every time a sequence was run."""
    path = Path(entry.run) / "runs.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def raw_job(batch: Batch, index: int) -> dict:
    return json.loads((batch.folder / "jobs" / f"{index:05d}.json").read_text())


def write_program(folder: Path, name: str, lines: str) -> Path:
    """An executable shell script, for a PATH that begins with `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{lines}\n")
    path.chmod(0o755)
    return path


def start_batch(folder: Path, *words: str, **variables: str) -> subprocess.Popen:
    """`slamhmr batch` as a process of its own, with the script as the command of the batch."""
    code = (
        "import sys; from slamhmr.batch import plan; from slamhmr.cli import main; "
        f"plan.COMMAND = {child(folder)!r}; sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "batch", "--out", str(folder / "batch"), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, cwd=ROOT, env={**os.environ, **variables}, stdout=pipe, stderr=pipe, text=True
    )
