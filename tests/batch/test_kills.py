"""Fifty kills at random moments over a batch: every sequence ends right."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scenes import ENVIRONMENT, write_synthetic

from slamhmr.synth.scene import SceneSpec

SEQUENCES, KILLS = 6, 50
STEP_S = (0.3, 4.0)  # between two kills; a run of one sequence takes some ten seconds


def command(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "slamhmr.cli", *map(str, words)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def running(batch: Path) -> list[int]:
    """Pids of the workers and of their children."""
    found = []
    for path in (batch / "jobs").glob("*.json"):
        job = json.loads(path.read_text())
        if job["state"] == "running" and Path(f"/proc/{job['pid']}").exists():
            children = Path(f"/proc/{job['pid']}/task/{job['pid']}/children").read_text()
            found += [job["pid"], *map(int, children.split())]
    return found


def numbers(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "result.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key not in ("stamp", "provenance")}


@pytest.mark.benchmark
def test_fifty_kills_leave_every_sequence_right(tmp_path):
    rng = random.Random(5)
    for number in range(SEQUENCES):
        spec = SceneSpec(seed=360 + number, frames=80, motion="walk", camera="follow")
        write_synthetic(tmp_path / "seqs" / str(number), spec)
    results = {name: tmp_path / name for name in ("once", "killed")}
    batches = {name: folder / "batch" for name, folder in results.items()}
    given = (tmp_path / "seqs", "--results")
    once = command("batch", *given, results["once"], "--out", batches["once"])
    told = once.communicate(timeout=300)
    assert once.returncode in (0, 3), told

    hit = {signal.SIGKILL: 0, signal.SIGTERM: 0}
    starts = 0
    process = command("batch", *given, results["killed"], "--out", batches["killed"])
    while sum(hit.values()) < KILLS:
        time.sleep(rng.uniform(*STEP_S))
        if process.poll() is not None:
            process.communicate()
            starts += 1
            files = sorted((batches["killed"] / "jobs").glob("*.json"))
            states = [json.loads(file.read_text())["state"] for file in files]
            if states == ["done"] * SEQUENCES:
                index = rng.randrange(SEQUENCES)  # nothing left to kill: one of them anew
                files[index].unlink()
                shutil.rmtree(results["killed"] / str(index))
            retry = ("--retry", "failed") if "failed" in states and starts % 2 == 0 else ()
            process = command("batch", "--out", batches["killed"], *retry)
            continue
        there = [process.pid, *running(batches["killed"])]
        how = rng.choice(list(hit))
        try:
            os.kill(rng.choice(there), how)
            hit[how] += 1
        except ProcessLookupError:
            continue
    process.wait()
    for words in ((), ("--retry", "failed"), ()):
        last = command("batch", "--out", batches["killed"], *words)
        said = last.communicate(timeout=300)
    assert last.returncode in (0, 3), said
    print(f"{hit[signal.SIGKILL]} SIGKILL, {hit[signal.SIGTERM]} SIGTERM, {starts} restarts")
    for number in range(SEQUENCES):
        ours, theirs = (numbers(results[name] / str(number)) for name in ("killed", "once"))
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            np.testing.assert_array_equal(ours[key], value, err_msg=f"{number}: {key}")
        assert (results["killed"] / str(number) / "report.json").exists()
        assert list((results["killed"] / str(number)).glob(".*")) == []  # no lock, no checkpoint
