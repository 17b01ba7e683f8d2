"""Local workers: as many at once as cores, memory and GPUs allow, the longest sequence first."""

import logging
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from slamhmr.batch.bell import Bell
from slamhmr.batch.folder import (
    Batch,
    Job,
    environment,
    job_path,
    locked,
    read_job,
    worker_command,
    write_job,
)
from slamhmr.batch.sizes import Machine, need, work

LOG = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
WORKER_BYTES = 20 * 2**20  # of our own worker, beside its child


@dataclass(frozen=True)
class Running:
    """A worker process and what it holds."""

    index: int
    process: subprocess.Popen[bytes]
    memory: int  # bytes
    gpu: str | None


@dataclass
class Pool:
    """Workers of one batch on this machine."""

    batch: Batch
    machine: Machine
    workers: int  # at most
    gpu_each: bool  # whether a worker without a GPU of its own has to wait
    running: dict[int, Running] = field(default_factory=dict)
    received: list[int] = field(default_factory=list)

    def run(self, indices: Sequence[int]) -> int | None:
        """Run the jobs `indices`; the first signal that ended it early, or None.

        A signal is passed on to the workers, whose children keep what they have; a second one kills
        them.
        """
        waiting = sorted(indices, key=lambda index: -work(self.batch.sequences[index]))
        total, ended = len(waiting), 0
        with Bell(SIGNALS, self._receive) as bell:
            while len(waiting) > 0 or len(self.running) > 0:
                if len(self.received) > 0:
                    waiting = []
                while (index := self._next(waiting)) is not None:
                    waiting.remove(index)
                    bell.rings_at_the_end_of(self._start(index))
                if len(self.running) > 0:
                    bell.wait()
                for one in list(self.running.values()):
                    if one.process.returncode is not None:
                        ended += 1
                        self._tell(one, ended, total)
        return self.received[0] if len(self.received) > 0 else None

    def _next(self, waiting: Sequence[int]) -> int | None:
        """The longest sequence that may start now; one that is too big for all runs alone."""
        if len(self.running) >= self.workers or (self.gpu_each and self._free_gpu() is None):
            return None
        left = self.machine.memory - sum(one.memory for one in self.running.values())
        for index in waiting:
            if len(self.running) == 0 or self._memory(index) <= left:
                return index
        return None

    def _memory(self, index: int) -> int:
        return need(self.batch.sequences[index], self.batch.threads) + WORKER_BYTES

    def _free_gpu(self) -> str | None:
        used = {one.gpu for one in self.running.values()}
        return next((gpu for gpu in self.machine.gpus if gpu not in used), None)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        gpus = self.machine.gpus
        gpu = self._free_gpu() or (gpus[index % len(gpus)] if len(gpus) > 0 else None)
        own = {"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {}
        process = subprocess.Popen(
            [*worker_command(self.batch.folder), str(index)],
            stdin=subprocess.DEVNULL,
            env=environment(**own),
            start_new_session=True,  # Ctrl-C reaches it through us alone, once
        )
        self.running[index] = Running(index, process, self._memory(index), gpu)
        if len(self.received) > 0:  # it came while this one was being started
            process.send_signal(signal.SIGTERM)
        return process

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received.append(number)
        first = len(self.received) == 1
        for one in list(self.running.values()):
            one.process.send_signal(signal.SIGTERM if first else signal.SIGKILL)

    def _tell(self, one: Running, number: int, total: int) -> None:
        """Forget an ended worker and say how its job went."""
        index = one.index
        del self.running[index]
        job = read_job(self.batch.folder, index)
        code = one.process.returncode
        if code != 0 and len(self.received) == 0 and (job is None or job.pid != one.process.pid):
            attempt = 1 if job is None else job.attempt + 1
            words = f"its worker ended with code {code} before it began"
            name = self.batch.sequences[index].name
            job = Job(index, name, "failed", attempt=attempt, reason=words)
            with locked(job_path(self.batch.folder, index, ".lock")) as mine:
                if mine:
                    write_job(self.batch.folder, job)
        if job is None or job.state == "running":
            name = self.batch.sequences[index].name
            LOG.info("[%d/%d] %s: its worker ended without a word", number, total, name)
            return
        spent = "" if job.seconds is None else f" in {job.seconds:.1f} s"
        words = f": {job.reason}" if job.reason != "" else ""
        LOG.info("[%d/%d] %s: %s%s%s", number, total, job.name, job.state, spent, words)
