"""What became of a job: words, exit codes, who is still alive."""

import dataclasses
import logging
import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from slamhmr.batch.folder import Batch, Job, job_name, read_job, read_submissions
from slamhmr.errors import REQUEUE

LOG = logging.getLogger(__name__)
INTERRUPTED = 130
# Words of `state`, in the order of the table. `lost` is never written: it is what `running` means
# once nobody runs it.
WORDS = {
    "done": "finished, every gate holds",
    "below": "finished, below a quality gate",
    "running": "a worker runs it",
    "waiting": "not begun, or in the cluster's queue",
    "preempted": "stopped by a signal, goes on where it was",
    "lost": "its worker is gone without a word (kill -9, a node that died)",
    "refused": "a step refused to guess",
    "input": "wrong input or configuration",
    "failed": "an error that is none of these",
}
FAILED = ("lost", "refused", "input", "failed")
UNFINISHED = ("running", "waiting", "preempted")
BY_CODE = {0: "done", 2: "input", 3: "below", 4: "refused", REQUEUE: "preempted"}
CLOCKS_S = 2.0  # by which the clocks of a worker and of a file system may differ
UNSEEN = "jobs of this batch that a printed script has queued would not be seen"
QUEUE_SECONDS = 60  # that squeue may take to answer


@dataclass(frozen=True)
class Now:
    """A job as it is now: `state` and `reason` outweigh those of its file."""

    job: Job
    state: str
    reason: str = ""
    queued: bool = False  # in a cluster's queue, or nobody could tell that it is not
    unasked: bool = False  # said to run on a host that cannot be asked from here

    @property
    def startable(self) -> bool:
        """Nobody runs it and nobody is going to."""
        return self.state != "running" and not self.queued


@dataclass(frozen=True)
class Queue:
    """States of the tasks in a cluster's queue; `known` is False where nobody could tell."""

    tasks: dict[str, str]
    known: bool
    why: str = ""


def outcome(code: int, *, told: bool) -> str:
    """State of a job whose child ended with `code`; `told`: we had passed a signal on to it."""
    if code in BY_CODE:
        return BY_CODE[code]
    unhandled = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGUSR1)  # it had hardly begun
    return "preempted" if code == INTERRUPTED or (told and code in unhandled) else "failed"


def current(batch: Batch) -> list[Now]:
    """Every job of a batch as it is now, in the order of batch.json.

    The queue is asked before the files are read: a job that ends in between has said so in its
    file by then.
    """
    sent: dict[int, tuple[str, float]] = {}
    for submission in read_submissions(batch.folder):
        for task, index in submission.tasks.items():
            sent[index] = (task, submission.submitted)
    arrays = {task.split("_")[0] for task, _ in sent.values()}
    for job in read_jobs(batch):
        if job.slurm_job is not None and job.state in UNFINISHED:
            arrays.add(job.slurm_job.split("_")[0])
    queue = ask_squeue(sorted(arrays)) if len(arrays) > 0 else Queue({}, known=True)
    jobs = [_now(job, sent.get(job.index), queue) for job in read_jobs(batch)]
    return [_told(now, Path(batch.sequences[now.job.index].run)) for now in jobs]


def _told(now: Now, run: Path) -> Now:
    """The same, with a word where another run has written the result since."""
    if now.state not in ("done", "below") or now.job.ended is None:
        return now
    try:
        written = (run / "result.npz").stat().st_mtime
    except OSError:
        return dataclasses.replace(now, reason="its result.npz is gone")
    if written <= now.job.ended + CLOCKS_S:
        return now
    return dataclasses.replace(now, reason="its result.npz is newer: another run has written it")


def read_jobs(batch: Batch) -> list[Job]:
    """The state of every job that was written last; `waiting` where none was."""
    return [
        read_job(batch.folder, index) or Job(index, entry.name, "waiting")
        for index, entry in enumerate(batch.sequences)
    ]


def _now(job: Job, sent: tuple[str, float] | None, queue: Queue) -> Now:
    if job.state == "running":
        return _if_running(job, queue)
    task = sent[0] if sent is not None else None
    # Submitted, not begun since. Clocks of two hosts are compared only where ids say nothing.
    newer = sent is not None and task != job.slurm_job and sent[1] > (job.started or 0.0)
    if newer and not queue.known:
        return Now(job, "waiting", f"submitted as {task}; {queue.why}", queued=True)
    if task is not None and task in queue.tasks and (newer or job.state == "preempted"):
        return Now(job, "waiting", f"{queue.tasks[task].lower()} as {task}", queued=True)
    if newer:
        return Now(job, "lost", f"submitted as {task}, which left the queue without a word")
    if job.state == "preempted" and job.slurm_job is not None:
        if job.slurm_job in queue.tasks:
            return Now(job, "waiting", f"requeued as {job.slurm_job}", queued=True)
        if not queue.known:
            return Now(job, "preempted", f"{job.reason}; {queue.why}", queued=True)
    return Now(job, job.state, job.reason)


def _if_running(job: Job, queue: Queue) -> Now:
    if job.slurm_job is None:
        if job.host != socket.gethostname():
            reason = f"on {job.host}, which cannot be asked from here (gone? --retry lost)"
            return Now(job, "running", reason, unasked=True)
        if alive(job):
            return Now(job, "running")
        return Now(job, "lost", f"worker {job.pid} is gone without a word")
    if not queue.known:
        return Now(job, "running", f"as {job.slurm_job}; {queue.why}")
    word = queue.tasks.get(job.slurm_job)
    if word is None:
        return Now(job, "lost", f"{job.slurm_job} left the queue without a word")
    if word in ("PENDING", "REQUEUED"):
        return Now(job, "waiting", f"requeued as {job.slurm_job}", queued=True)
    return Now(job, "running", f"as {job.slurm_job} on {job.host}")


def alive(job: Job) -> bool:
    """Whether the worker of a job on this host is still there, and not another of the same id."""
    if job.pid is None:
        return False
    try:
        os.kill(job.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    start = started_ticks(job.pid)
    return start is None or job.pid_start is None or start == job.pid_start


def started_ticks(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process, proc(5); None where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks
    return None if fields[0] == "Z" else fields[19]


def strangers(batch: Batch) -> list[str]:
    """Arrays of a batch that wait in Slurm's queue and that no submission of ours tells of.

    Those of a printed script, or of a submission that was cut off before it was written down:
    which sequences their pending tasks are nobody can tell, but of those that have begun before.
    Where squeue does not answer there may be some, which the log says.
    """
    if shutil.which("squeue") is None:
        return []
    ask = ["squeue", "--noheader", "--array", "--me", "--states=PENDING", "--format=%i|%F"]
    ask.append(f"--name={job_name(batch.folder)}")
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=QUEUE_SECONDS)
    except subprocess.TimeoutExpired:
        LOG.warning("%s: squeue does not answer", UNSEEN)
        return []
    if asked.returncode != 0:
        LOG.warning("%s: squeue: %s", UNSEEN, " ".join(asked.stderr.split()))
        return []
    begun = {job.slurm_job for job in read_jobs(batch)}
    known = {submission.job for submission in read_submissions(batch.folder)}
    lines = [line.strip().split("|") for line in asked.stdout.splitlines() if "|" in line]
    return sorted({array for task, array in lines if task not in begun} - known)


def ask_squeue(arrays: list[str]) -> Queue:
    """States of every task of the jobs `arrays` that is in Slurm's queue, by "123_4" or "123"."""
    if shutil.which("squeue") is None:
        return Queue({}, known=False, why="squeue is not installed here")
    wanted = ["squeue", "--noheader", "--array", "--format=%i|%T", f"--jobs={','.join(arrays)}"]
    try:
        asked = subprocess.run(wanted, capture_output=True, text=True, timeout=QUEUE_SECONDS)
    except subprocess.TimeoutExpired:
        return Queue({}, known=False, why="squeue does not answer")
    if asked.returncode != 0 and "Invalid job id" not in asked.stderr:
        return Queue({}, known=False, why=f"squeue: {' '.join(asked.stderr.split())}")
    lines = [line.strip().split("|") for line in asked.stdout.splitlines() if "|" in line]
    return Queue({task: state for task, state in lines}, known=True)
