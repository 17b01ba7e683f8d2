"""`slamhmr batch` with the real command, on tiny sequences."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batches import ROOT
from sequences import write_sequence

from slamhmr.batch.folder import read_batch
from slamhmr.batch.sizes import this_machine
from slamhmr.batch.states import current

CLI = [sys.executable, "-m", "slamhmr.cli"]
COUNT = 20
WITHIN = 1.15  # of the processor time over the cores


@pytest.mark.slow
def test_two_sequences_one_of_them_bad(tmp_path):
    write_sequence(tmp_path / "seqs" / "good")
    (tmp_path / "seqs" / "bad").mkdir()
    (tmp_path / "seqs" / "bad" / "observations.npz").write_bytes(b"no npz")
    argv = [*CLI, "batch", str(tmp_path / "seqs"), "--out", str(tmp_path / "batch")]
    settings = ["schedule=[root]", "posterior.enabled=false", "gates.reprojection_percent=0"]
    ran = subprocess.run([*argv, *settings], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stderr
    bad, good = current(read_batch(tmp_path / "batch"))
    assert (bad.state, good.state) == ("input", "below"), ran.stderr
    assert "observations.npz" in bad.reason
    assert "median reprojection error" in good.reason
    assert (tmp_path / "seqs" / "good" / "slamhmr" / "result.npz").exists()
    facts = good.job.facts
    assert (facts["frames"], facts["people"]) == (8, 1)
    assert 100 < good.job.peak_mib < 2000
    assert 0.5 < good.job.cpu_seconds < 60


def idle_seconds() -> float:
    """Core-seconds since boot in which nobody ran, proc(5)."""
    ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return (int(ticks[3]) + int(ticks[4])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.benchmark
def test_twenty_sequences_take_little_more_than_their_work_over_the_cores(tmp_path, capsys):
    """Core-seconds that the whole command used or left idle, against those that it used.

    On a quiet machine that is its wall clock over (processor time / cores); what other processes
    took meanwhile is left out. They hide idle cores, so the share of the command's wall clock in
    which every worker was at work is asked for as well.
    """
    for index in range(COUNT):
        write_sequence(tmp_path / "seqs" / f"s{index:02d}", people=1 + index % 3)
    cores = this_machine().cores
    argv = [*CLI, "batch", str(tmp_path / "seqs"), "--out", str(tmp_path / "batch")]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    idle = idle_seconds()
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    idle = idle_seconds() - idle
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    jobs = current(read_batch(tmp_path / "batch"))
    assert {now.state for now in jobs} <= {"done", "below"}, ran.stderr
    children = sum(now.job.cpu_seconds for now in jobs)
    others, ratio = wall * cores - spent - idle, (spent + idle) / spent
    at_work = sum(now.job.seconds for now in jobs) / (cores * wall)
    with capsys.disabled():
        print(
            f"\n{COUNT} sequences on {cores} cores: {wall:.1f} s, {spent:.1f} s of processor time "
            f"({children:.1f} of the solves), {idle:.1f} s idle, {others:.1f} s of others; "
            f"{ratio:.3f} of the ideal; workers were at work {100 * at_work:.1f} % of the time"
        )
    assert ratio <= WITHIN
    assert 1 / at_work <= WITHIN
