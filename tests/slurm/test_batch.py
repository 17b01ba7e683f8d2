"""`slamhmr batch` on a real Slurm: preempted, killed and wrong jobs end in the right state.

Every result is compared, bit by bit, with that of an undisturbed run without Slurm.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scenes import ROOT, write_synthetic
from slurm_node import Node

from slamhmr.synth.scene import SceneSpec

pytestmark = pytest.mark.slurm

SHORT, LONG = 24, 150  # frames
ENOUGH_S = 240.0


@pytest.fixture(scope="module")
def sequences(tmp_path_factory) -> Path:
    """Six sequences; three are long enough to be met in the middle, one is damaged."""
    folder = tmp_path_factory.mktemp("sequences")
    for number, (name, frames) in enumerate(
        {"plain": SHORT, "other": SHORT, "requeued": LONG, "told": LONG, "killed": LONG}.items()
    ):
        spec = SceneSpec(seed=330 + number, frames=frames, motion="walk", camera="follow")
        write_synthetic(folder / name, spec)
    write_synthetic(folder / "wrong", SceneSpec(seed=340, frames=SHORT, motion="walk"))
    damaged = folder / "wrong" / "observations.npz"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def undisturbed(sequences, tmp_path_factory) -> Path:
    """Run folders of a batch on this machine, without Slurm."""
    results = tmp_path_factory.mktemp("undisturbed")
    told = command(None, "batch", sequences, "--out", results / "batch", "--results", results)
    assert told.returncode == 1, told.stderr  # one of them is wrong
    return results


def command(node: Node | None, *words: object) -> "subprocess.CompletedProcess[str]":
    """One of our commands, to its end."""
    environment = {**(os.environ if node is None else node.environment), "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "slamhmr.cli", *map(str, words)],
        env=environment, capture_output=True, text=True, timeout=ENOUGH_S, check=False,
    )  # fmt: skip


def states(node: Node, batch: Path) -> dict[str, str]:
    told = command(node, "status", batch, "--json")
    return {job["name"]: job["state"] for job in json.loads(told.stdout)["jobs"]}


def numbers(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "result.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key not in ("stamp", "provenance")}


def assert_same(results: Path, undisturbed: Path, *names: str) -> None:
    for name in names:
        ours, theirs = numbers(results / name), numbers(undisturbed / name)
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            np.testing.assert_array_equal(ours[key], value, err_msg=f"{name}: {key}")


def until(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + ENOUGH_S
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def job_file(batch: Path, name: str) -> dict:
    for path in (batch / "jobs").glob("*.json"):
        job = json.loads(path.read_text())
        if job["name"] == name:
            return job
    return {}


def disturb(node: Node, batch: Path, results: Path) -> None:
    """Each of three jobs is met inside its second stage, and stopped in a way of its own."""
    ways = {
        "requeued": lambda job: node.ask("scontrol", "requeue", job["slurm_job"]),
        "told": lambda job: node.ask("scancel", "--batch", "--signal=USR1", job["slurm_job"]),
        "killed": lambda job: os.kill(job["pid"], signal.SIGKILL),
    }

    def look() -> bool:
        for name in [name for name in ways if (results / name / "4_root.npz").exists()]:
            ways.pop(name)(job_file(batch, name))
        return len(ways) == 0

    until(look, f"{list(ways)} were not met in the middle")


def idle(node: Node) -> bool:
    return node.ask("squeue", "--noheader", "--states=PD,R,CG,CF,RQ") == ""


def test_an_array_that_is_preempted_killed_and_wrong(slurm, sequences, undisturbed, tmp_path):
    batch, results = tmp_path / "batch", tmp_path / "results"
    told = command(
        slurm, "batch", sequences, "--out", batch, "--results", results, "--executor", "slurm"
    )
    assert told.returncode == 0, told.stderr
    disturb(slurm, batch, results)
    until(lambda: idle(slurm), "jobs do not end")
    found = states(slurm, batch)
    assert found.pop("wrong") == "input"
    assert found.pop("killed") == "lost"
    assert found == dict.fromkeys(("plain", "other", "requeued", "told"), "done")
    assert job_file(batch, "requeued")["attempt"] == job_file(batch, "told")["attempt"] == 2
    assert_same(results, undisturbed, *found)
    logs = {name: log_of(batch, name) for name in ("requeued", "told")}
    assert all(".checkpoint.npz', after" in log for log in logs.values())  # inside a stage

    told = command(slurm, "batch", "--out", batch, "--executor", "slurm", "--retry", "failed")
    assert told.returncode == 0, told.stderr
    until(lambda: idle(slurm), "jobs do not end")
    found = states(slurm, batch)
    assert found["killed"] == "done"
    assert found["wrong"] == "input"
    assert_same(results, undisturbed, "killed")
    manifest = (batch / "manifest.csv").read_text().splitlines()
    assert len(manifest) == 7
    assert sum(",input," in line and "damaged" in line for line in manifest) == 1


def log_of(batch: Path, name: str) -> str:
    return (batch / "logs" / f"{job_file(batch, name)['index']:05d}.txt").read_text()


def test_a_plain_script_does_the_same(slurm, sequences, undisturbed, tmp_path):
    batch, results = tmp_path / "batch", tmp_path / "results"
    names = ("plain", "told", "wrong")
    told = command(
        slurm, "batch", *[sequences / name for name in names], "--out", batch, "--results",
        results, "--print-script",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    script = tmp_path / "array.sh"
    script.write_text(told.stdout)
    slurm.ask("sbatch", str(script))
    until((results / "told" / "4_root.npz").exists, "'told' does not begin")
    job = job_file(batch, "told")
    slurm.ask("scancel", "--batch", "--signal=USR1", job["slurm_job"])
    until(lambda: idle(slurm), "jobs do not end")
    assert states(slurm, batch) == {"plain": "done", "told": "done", "wrong": "input"}
    assert job_file(batch, "told")["attempt"] == 2
    assert_same(results, undisturbed, "plain", "told")
