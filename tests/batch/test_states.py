import os
import socket
from dataclasses import replace

import pytest
from batches import make_batch, write_program

from slamhmr.batch.commands import _require_no_strangers
from slamhmr.batch.folder import Job, Submission, job_name, write_job, write_submission
from slamhmr.batch.plan import chosen
from slamhmr.batch.states import alive, ask_squeue, current, outcome, started_ticks, strangers
from slamhmr.errors import InputError

HERE = socket.gethostname()
BASE = Job(0, "s", "running", attempt=1, host=HERE, pid=1, started=100.0, slurm_job="7_0")
OLD, NEW = 50.0, 200.0  # submitted before and after the attempt began
SAME = 150.0  # the attempt's own submission, by another clock
CASES = {  # job, submitted at, state in the queue (None: not in it) -> state, startable
    "running": (BASE, OLD, "RUNNING", "running", False),
    "its node died, the queue has it again": (BASE, OLD, "PENDING", "waiting", False),
    "gone": (BASE, OLD, None, "lost", True),
    "requeued": (replace(BASE, state="preempted"), OLD, "PENDING", "waiting", False),
    "on its way": (replace(BASE, state="preempted"), OLD, "COMPLETING", "waiting", False),
    "preempted": (replace(BASE, state="preempted"), OLD, None, "preempted", True),
    "done": (replace(BASE, state="done"), OLD, "COMPLETING", "done", True),
    "failed, and again": (replace(BASE, state="failed"), NEW, "PENDING", "waiting", False),
    "failed, by a node whose clock is behind": (
        replace(BASE, state="failed"),
        SAME,
        None,
        "failed",
        True,
    ),
    "failed, ending": (replace(BASE, state="failed"), OLD, "COMPLETING", "failed", True),
    "never begun": (None, NEW, "PENDING", "waiting", False),
    "never begun, gone": (None, NEW, None, "lost", True),
    "untouched": (None, None, None, "waiting", True),
}


@pytest.mark.parametrize("case", CASES)
def test_files_and_queue_together_tell_the_state(tmp_path, monkeypatch, case):
    job, submitted, word, state, startable = CASES[case]
    batch = make_batch(tmp_path, s="0")
    if job is not None:
        write_job(batch.folder, job)
    if submitted is not None:
        array = "8" if submitted == NEW else "7"
        write_submission(batch.folder, Submission(array, {f"{array}_0": 0}, submitted))
        word = None if word is None else f"{array}_0|{word}"
    write_program(tmp_path / "bin", "squeue", "" if word is None else f"echo '{word}'")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (now,) = current(batch)
    assert (now.state, now.startable) == (state, startable)


@pytest.mark.parametrize("case", ["requeued", "failed, and again", "never begun", "running"])
def test_what_nobody_can_tell_is_not_started_twice(tmp_path, monkeypatch, case):
    job, submitted, *_ = CASES[case]
    batch = make_batch(tmp_path, s="0")
    if job is not None:
        write_job(batch.folder, job)
    array = "8" if submitted == NEW else "7"
    write_submission(batch.folder, Submission(array, {f"{array}_0": 0}, submitted))
    monkeypatch.setenv("PATH", str(tmp_path))
    (now,) = current(batch)
    assert not now.startable
    assert "squeue is not installed here" in now.reason


@pytest.mark.parametrize(
    ("lines", "known", "tasks"),
    [
        ("echo '7_0|RUNNING'; echo '7_1|PENDING'", True, {"7_0": "RUNNING", "7_1": "PENDING"}),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True, {}),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False, {}),
    ],
)
def test_squeue(tmp_path, monkeypatch, lines, known, tasks):
    write_program(tmp_path / "bin", "squeue", f'echo "$@" > {tmp_path}/asked; {lines}')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    queue = ask_squeue(["7", "9"])
    assert (queue.known, queue.tasks) == (known, tasks)
    assert "--jobs=7,9" in (tmp_path / "asked").read_text()
    assert known or "Unable to contact" in queue.why


def test_a_job_of_a_host_that_cannot_be_asked_is_taken_by_who_says_it_is_lost(tmp_path):
    batch = make_batch(tmp_path, s="0")
    write_job(batch.folder, replace(BASE, slurm_job=None, host="elsewhere"))
    (now,) = current(batch)
    assert (now.state, now.startable) == ("running", False)
    assert now.reason == "on elsewhere, which cannot be asked from here (gone? --retry lost)"
    assert chosen(batch, [], None) == chosen(batch, [], "failed") == []
    assert chosen(batch, [], "refused, lost") == [0]


def test_arrays_that_nobody_wrote_down_are_found(tmp_path, monkeypatch, caplog):
    batch = make_batch(tmp_path, s="0", t="0")
    lines = "echo '5_0|5'; echo '6_0|6'; echo '6_1|6'; echo '7_0|7'"
    write_program(tmp_path / "bin", "squeue", f'echo "$@" > {tmp_path}/asked; {lines}')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    write_submission(batch.folder, Submission("7", {"7_0": 0}, OLD))
    write_job(batch.folder, replace(BASE, slurm_job="5_0"))  # requeued: we know what it is
    assert strangers(batch) == ["6"]
    assert f"--name={job_name(batch.folder)}" in (tmp_path / "asked").read_text()
    with pytest.raises(InputError, match="job 6 of this batch waits in Slurm's queue already"):
        _require_no_strangers(batch)
    write_program(tmp_path / "bin", "squeue", "echo 'no controller' >&2; exit 1")
    with caplog.at_level("WARNING"):
        assert strangers(batch) == []
    assert "would not be seen: squeue: no controller" in caplog.text
    monkeypatch.setenv("PATH", str(tmp_path))
    assert strangers(batch) == []


def test_another_process_of_the_same_id_is_not_the_worker():
    mine = replace(BASE, slurm_job=None, pid=os.getpid(), pid_start=started_ticks(os.getpid()))
    assert alive(mine)
    assert not alive(replace(mine, pid_start="1"))
    assert not alive(replace(mine, pid=2**22 + 5))


@pytest.mark.parametrize(
    ("code", "told", "state"),
    [
        (-15, True, "preempted"),
        (-15, False, "failed"),
        (-10, True, "preempted"),
        (-11, True, "failed"),
    ],
)
def test_a_child_that_dies_of_what_we_passed_on_was_preempted(code, told, state):
    assert outcome(code, told=told) == state
