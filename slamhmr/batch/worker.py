"""Runs one job of a batch: python -m slamhmr.batch.worker BATCH_DIR INDEX [--slurm].

The one way a job is run: local processes, submitit and plain sbatch arrays all call it. It runs the
batch's command as a child, passes signals on to it, writes the job's state, and returns the child's
exit code. With --slurm, and only after SIGUSR1 (which we ask Slurm to send before the time is over,
or before preempting), it requeues itself. After SIGTERM it does not: whoever preempts requeues, and
whoever cancels does not want it back.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from slamhmr.batch.bell import Bell
from slamhmr.batch.folder import (
    Batch,
    Job,
    environment,
    job_path,
    locked,
    log_path,
    read_batch,
    read_job,
    write_job,
)
from slamhmr.batch.states import outcome, started_ticks
from slamhmr.errors import REQUEUE, InputError, SlamhmrError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MOST_RESTARTS = 50  # requeues of one Slurm job: one that never gets anywhere must end
REASON_LENGTH = 300
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NOT_BEGUN = 127  # as a shell says that there is no such program
ERROR = "slamhmr: error: "
GATE = "slamhmr: below the gates: "
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)


def main(arguments: list[str] | None = None) -> int:
    """Run one job and return its child's exit code; 0 if it was done before or runs elsewhere."""
    parser = argparse.ArgumentParser(prog="slamhmr.batch.worker")
    parser.add_argument("batch", type=Path, metavar="BATCH_DIR")
    parser.add_argument("index", type=int, metavar="INDEX")
    parser.add_argument("--slurm", action="store_true", help="this is a job of Slurm's")
    options = parser.parse_args(arguments)
    try:
        return run_job(options.batch.resolve(), options.index, slurm=options.slurm)
    except SlamhmrError as e:
        print(f"{ERROR}{e}", file=sys.stderr)
        return e.exit_code


class Signals:
    """Notes the signals that ask us to stop, and passes them on to the child."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.child: subprocess.Popen[bytes] | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handler of the signals."""
        del frame
        self.received.append(number)
        if self.child is not None:
            self.child.send_signal(_passed_on(number))

    def watch(self, child: subprocess.Popen[bytes]) -> None:
        """Pass signals on to `child`, those received before it began too."""
        self.child = child
        for number in self.received:
            child.send_signal(_passed_on(number))


def _passed_on(number: int) -> int:
    """What the child gets: Ctrl-C stops it like a preemption, with everything kept."""
    return signal.SIGTERM if number == signal.SIGINT else number


def run_job(folder: Path, index: int, *, slurm: bool) -> int:
    """Run job `index` of a batch unless it is done or somebody else runs it.

    Raises InputError if the batch or the index does not exist.
    """
    signals = Signals()
    with Bell(SIGNALS, signals.receive) as bell:  # nothing of us is killed half way any more
        return _run_job(folder, index, signals, bell, slurm=slurm)


def _run_job(folder: Path, index: int, signals: Signals, bell: Bell, *, slurm: bool) -> int:
    batch = read_batch(folder)
    if not 0 <= index < len(batch.sequences):
        raise InputError(f"index {index}: '{folder}' has {len(batch.sequences)} sequences")
    own = slurm_job() if slurm else None
    with locked(job_path(folder, index, ".lock")) as mine:
        before = read_job(folder, index)
        if not mine and not _was_us(before, own):
            print(f"job {index} is run by another worker", file=sys.stderr)
            return 0
        if before is not None and before.state == "done":
            return 0
        job = _begin(batch, index, before, own)
        return _attempt(batch, job, signals, bell)


def _was_us(before: Job | None, own: str | None) -> bool:
    """Whether the job's lock is held for a former run of our own Slurm job.

    Slurm runs a job once at a time: it has died with its node, whose lease on the lock still runs.
    """
    same = before is not None and own is not None and before.slurm_job == own
    return same and before is not None and before.host != socket.gethostname()


def slurm_job() -> str | None:
    """Id of the Slurm job that we are, of an array's task "123_4"."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _begin(batch: Batch, index: int, before: Job | None, slurm: str | None) -> Job:
    job = Job(
        index=index,
        name=batch.sequences[index].name,
        state="running",
        attempt=1 if before is None else before.attempt + 1,
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_start=started_ticks(os.getpid()),
        slurm_job=slurm,
        started=time.time(),
    )
    write_job(batch.folder, job)
    return job


def _attempt(batch: Batch, job: Job, signals: Signals, bell: Bell) -> int:
    """Run the child, write how it ended, requeue where that is ours to do."""
    log = log_path(batch.folder, job.index)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        where = f"{job.host} {job.slurm_job or ''}".strip()
        stream.write(f"--- attempt {job.attempt} on {where}\n".encode())
        stream.flush()
        begin = stream.tell()
        if len(signals.received) > 0:
            code = REQUEUE  # asked to stop before anything began
        else:
            try:
                code = _run_child(batch, job.index, stream.fileno(), signals, bell)
            except OSError as e:
                stream.write(f"cannot begin: {e}\n".encode())
                code = NOT_BEGUN
    state = outcome(code, told=len(signals.received) > 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = time.time()
    job = dataclasses.replace(
        job,
        state=state,
        ended=ended,
        seconds=round(ended - (job.started or ended), 3),
        cpu_seconds=round(used.ru_utime + used.ru_stime, 3),
        peak_mib=round(used.ru_maxrss / 1024, 1),
        exit_code=code,
        reason=reason(code, state, log, begin),
        facts=read_facts(Path(batch.sequences[job.index].run)) if code in (0, 3) else {},
    )
    again = state == "preempted" and signal.SIGUSR1 in signals.received
    if again and job.slurm_job is not None:
        job = dataclasses.replace(job, reason=f"requeued as {job.slurm_job}")
    write_job(batch.folder, job)
    if again and job.slurm_job is not None:
        trouble = requeue(job.slurm_job)
        if trouble is not None:
            write_job(batch.folder, dataclasses.replace(job, reason=trouble))
    return code


def _run_child(batch: Batch, index: int, log: int, signals: Signals, bell: Bell) -> int:
    entry = batch.sequences[index]
    argv = [*batch.command, "--seq", entry.path, "--out", entry.run, *batch.arguments]
    threads = {name: str(batch.threads) for name in THREAD_VARIABLES}
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def die_with_worker() -> None:
        libc.prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(REQUEUE)

    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=batch.cwd,
        env=environment(**threads),
        start_new_session=True,  # a terminal's Ctrl-C reaches it through us alone
        preexec_fn=die_with_worker if sys.platform == "linux" else None,
    )
    signals.watch(child)
    bell.rings_at_the_end_of(child)
    while child.returncode is None:
        bell.wait()
    return int(child.returncode)


def reason(code: int, state: str, log: Path, begin: int) -> str:
    """One line on why a job is not done, from what its child said since byte `begin` of the log."""
    if state == "done":
        return ""
    with log.open("rb") as stream:
        stream.seek(begin)
        text = stream.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() != ""]
    if state == "below":
        gates = [line.removeprefix(GATE) for line in lines if line.startswith(GATE)]
        return gates[0][:REASON_LENGTH] if len(gates) > 0 else "below a quality gate"
    if state == "preempted":
        return "stopped by a signal; goes on where it was"
    errors = [row for row, line in enumerate(lines) if line.startswith(ERROR)]
    if len(errors) > 0:
        said = lines[errors[-1]].removeprefix(ERROR)
        if said.endswith(":") and errors[-1] + 1 < len(lines):  # a list follows
            said = f"{said} {lines[errors[-1] + 1]}"
        return said[:REASON_LENGTH]
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return lines[-1][:REASON_LENGTH] if len(lines) > 0 else f"exit code {code}, without a word"


def read_facts(run: Path) -> dict[str, Any]:
    """What the manifest tells of a finished run, from its report.json and gates."""
    try:
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    uncertainty = report.get("uncertainty") or {}
    return {
        "frames": report.get("frames"),
        "people": len(report.get("people", {})),
        "scale": report.get("camera", {}).get("metres_per_slam_unit"),
        "scale_std_percent": uncertainty.get("scale_std_percent"),
        "gates": {gate["name"]: gate["value"] for gate in report.get("gates", [])},
        "version": report.get("provenance", {}).get("version"),
    }


def requeue(job: str) -> str | None:
    """Ask Slurm to run a job again; None, or one line on why it will not."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= MOST_RESTARTS:
        return f"not requeued: {job} was {MOST_RESTARTS} times; run the batch again to go on"
    try:
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except FileNotFoundError:
        return "not requeued: scontrol is not installed on the node; run the batch again to go on"
    if asked.returncode != 0:
        return f"not requeued: {' '.join(asked.stderr.split())}; run the batch again to go on"
    return None


if __name__ == "__main__":
    sys.exit(main())
