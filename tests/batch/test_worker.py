import dataclasses
import os
import signal
from pathlib import Path

import pytest
from batches import make_batch, raw_job, ready, runs, start_worker, wait_until, write_program

from slamhmr.batch.folder import Job, job_path, locked, read_batch, write_batch, write_job
from slamhmr.batch.states import current, started_ticks
from slamhmr.batch.worker import main

GATE = "slamhmr: below the gates: feet slide\nslamhmr: below the gates: people float"
ENDS = {  # what the child does -> exit code, state, reason
    "0": (0, "done", ""),
    f"3 {GATE}": (3, "below", "feet slide"),
    "2 note\nslamhmr: error: no video\nmore": (2, "input", "no video"),
    "4 slamhmr: error: camera lost": (4, "refused", "camera lost"),
    "75": (75, "preempted", "stopped by a signal; goes on where it was"),
    "130": (130, "preempted", "stopped by a signal; goes on where it was"),
    "1 Traceback\nValueError: seven": (1, "failed", "ValueError: seven"),
    "1": (1, "failed", "exit code 1, without a word"),
    "kill": (-9, "failed", "killed by SIGKILL (out of memory?)"),
}


def test_every_end_has_its_state_and_its_line(tmp_path):
    batch = make_batch(tmp_path, **{f"s{i}": do for i, do in enumerate(ENDS)})
    codes = [main([str(batch.folder), str(index)]) for index in range(len(ENDS))]
    jobs = [raw_job(batch, index) for index in range(len(ENDS))]
    found = [(code, j["state"], j["reason"]) for code, j in zip(codes, jobs, strict=True)]
    assert found == list(ENDS.values())
    assert all(job["attempt"] == 1 and job["seconds"] > 0 for job in jobs)
    assert "ValueError" in (batch.folder / "logs" / "00006.txt").read_text()


def test_done_is_not_run_again_and_failed_is(tmp_path):
    batch = make_batch(tmp_path, good="0", bad="1")
    for _ in range(2):
        assert [main([str(batch.folder), str(i)]) for i in range(2)] == [0, 1]
    assert [len(runs(entry)) for entry in batch.sequences] == [1, 2]
    assert raw_job(batch, 1)["attempt"] == 2


@pytest.mark.parametrize("index", ["7", "-1"])
def test_an_index_that_is_none_is_an_input_error(tmp_path, capsys, index):
    batch = make_batch(tmp_path, good="0")
    assert main([str(batch.folder), "--", index]) == 2
    assert "has 1 sequences" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGUSR1"), ("SIGINT", "SIGTERM")],
)
def test_signals_reach_the_child(tmp_path, sent, passed_on):
    batch = make_batch(tmp_path, long="sleep 20")
    worker = start_worker(batch, 0)
    ready(batch, 0)
    assert [now.state for now in current(batch)] == ["running"]
    worker.send_signal(getattr(signal, sent))
    assert worker.wait() == 75
    told = (Path(batch.sequences[0].run) / "told.txt").read_text()
    assert told == str(int(getattr(signal, passed_on)))
    assert [now.state for now in current(batch)] == ["preempted"]


def test_a_worker_that_is_killed_takes_its_child_along_and_is_lost(tmp_path):
    batch = make_batch(tmp_path, long="sleep 20")
    worker = start_worker(batch, 0)
    pid = ready(batch, 0)
    worker.kill()
    worker.wait()
    wait_until(lambda: started_ticks(pid) is None)
    (now,) = current(batch)
    assert (raw_job(batch, 0)["state"], now.state, now.startable) == ("running", "lost", True)
    (Path(batch.sequences[0].path) / "do").write_text("0")
    assert start_worker(batch, 0).wait() == 0
    assert (current(batch)[0].state, raw_job(batch, 0)["attempt"]) == ("done", 2)


def test_a_second_worker_leaves_the_job_alone(tmp_path):
    batch = make_batch(tmp_path, long="sleep 20")
    first = start_worker(batch, 0)
    ready(batch, 0)
    assert start_worker(batch, 0).wait() == 0
    assert len(runs(batch.sequences[0])) == 1
    assert raw_job(batch, 0)["pid"] == first.pid
    first.terminate()
    assert first.wait() == 75


@pytest.mark.parametrize("task", ["3", "4"])
def test_a_job_requeued_from_a_dead_node_does_not_wait_for_its_lease(tmp_path, task):
    """NFS holds the lock of a node that died; Slurm runs a job once at a time."""
    batch = make_batch(tmp_path, good="0")
    former = Job(0, "good", "running", attempt=1, host="dead", pid=7, slurm_job="7_3", started=1.0)
    write_job(batch.folder, former)
    slurm = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": task}
    with locked(job_path(batch.folder, 0, ".lock")):
        assert start_worker(batch, 0, "--slurm", **slurm).wait() == 0
    assert raw_job(batch, 0)["state"] == ("done" if task == "3" else "running")


@pytest.mark.parametrize(
    ("sent", "asked", "reason"),
    [
        ("SIGUSR1", "requeue 7_3\n", "requeued as 7_3"),
        ("SIGTERM", "", "stopped by a signal; goes on where it was"),
    ],
)
def test_only_the_warning_requeues(tmp_path, sent, asked, reason):
    batch = make_batch(tmp_path, long="sleep 20")
    write_program(tmp_path / "bin", "scontrol", f'echo "$@" >> {tmp_path}/asked.txt')
    slurm = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "10"}
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    worker = start_worker(batch, 0, "--slurm", PATH=path, **slurm)
    ready(batch, 0)
    worker.send_signal(getattr(signal, sent))
    assert worker.wait() == 75
    log = tmp_path / "asked.txt"
    assert (log.read_text() if log.exists() else "") == asked
    job = raw_job(batch, 0)
    assert (job["state"], job["slurm_job"], job["reason"]) == ("preempted", "7_3", reason)


def test_a_refused_requeue_is_told(tmp_path):
    batch = make_batch(tmp_path, long="sleep 20")
    write_program(tmp_path / "bin", "scontrol", "echo 'not allowed' >&2; exit 1")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    worker = start_worker(batch, 0, "--slurm", PATH=path, SLURM_JOB_ID="10")
    ready(batch, 0)
    worker.send_signal(signal.SIGUSR1)
    assert worker.wait() == 75
    assert raw_job(batch, 0)["reason"].startswith("not requeued: not allowed")


def test_the_local_worker_never_requeues_the_allocation_it_stands_in(tmp_path):
    batch = make_batch(tmp_path, long="sleep 20")
    write_program(tmp_path / "bin", "scontrol", f"touch {tmp_path}/asked")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    worker = start_worker(batch, 0, PATH=path, SLURM_JOB_ID="10")
    ready(batch, 0)
    worker.send_signal(signal.SIGUSR1)
    assert worker.wait() == 75
    assert not (tmp_path / "asked").exists()
    assert raw_job(batch, 0)["slurm_job"] is None


def test_a_command_that_is_not_there_is_told(tmp_path):
    batch = make_batch(tmp_path, a="0")
    write_batch(dataclasses.replace(batch, command=["/no/such/python"]))
    assert main([str(batch.folder), "0"]) == 127
    job = raw_job(batch, 0)
    assert (job["state"], "/no/such/python" in job["reason"]) == ("failed", True)


def test_the_batch_is_read_as_it_was_written(tmp_path):
    batch = make_batch(tmp_path, a="0", b="0")
    assert read_batch(batch.folder) == batch
