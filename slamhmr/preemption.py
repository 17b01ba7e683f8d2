"""SIGTERM and SIGUSR1: stop soon, keep everything, be run again.

Outside the solver a signal ends the step under way at once: its file is not written, those of
finished steps are. Inside, it waits for the end of the iteration, after which a checkpoint is
written. Where neither happens in `PATIENCE` seconds (a library that does not return to Python), the
process ends itself: files are written whole or not at all, so that nothing is lost but the step.
After SIGUSR1 it may take what `GRACE` in the environment says: the time a cluster was asked for.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from slamhmr.errors import REQUEUE, Preempted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PATIENCE = 25.0  # s; Slurm and most others send SIGKILL after 30
GRACE = "SLAMHMR_GRACE_S"  # s from SIGUSR1 to the end of a cluster's job
RESERVE = 10.0  # s of them that are left to who watches this process


class Watch:
    """Whether somebody has asked the process to stop."""

    def __init__(self) -> None:
        self.asked: str = ""  # name of the signal; "": nobody has
        self.active = False  # inside of `preemptible`
        self._held = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Signals are only noted in here; whoever runs looks at `asked` at its own pace.

        What was finished in here may still be written: `obey` comes after that.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def obey(self) -> None:
        """Raise Preempted if somebody has asked."""
        if self.asked != "":
            raise Preempted(self.asked)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handler of the signals."""
        del frame
        self.asked = signal.Signals(number).name
        if self._held == 0:
            self.obey()

    def install(self) -> None:
        """Handle the signals again, where a library has put handlers of its own in front.

        Does nothing outside of `preemptible`. pycolmap's import installs glog's, which prints a
        stack trace at SIGTERM and kills the process.
        """
        if self.active:
            for number in SIGNALS:
                signal.signal(number, self.receive)


WATCH = Watch()  # one process, one set of signal handlers


@contextmanager
def preemptible(patience: float = PATIENCE) -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise Preempted in here, at the latest after `patience` s end it all.

    Only the main thread gets signals: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    WATCH.asked, WATCH.active = "", True
    before = {number: signal.getsignal(number) for number in SIGNALS}
    WATCH.install()
    stop = _last_resort(patience)
    try:
        yield
    finally:
        WATCH.asked, WATCH.active = "", False  # what was asked of this run is not asked of the next
        stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _patience(number: int, patience: float) -> float:
    """Seconds that a step may take after a signal."""
    try:
        grace = float(os.environ.get(GRACE, "0"))
    except ValueError:
        grace = 0.0
    return max(patience, grace - RESERVE) if number == signal.SIGUSR1 else patience


def _last_resort(patience: float) -> Callable[[], None]:
    """Ends the process `patience` s after a signal, if it still runs; returns what calls it off.

    Python's handlers wait for the main thread to come back from C code; the byte that the signal
    puts into a pipe does not.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    done = threading.Event()

    def wait() -> None:
        began = until = float("inf")
        while True:
            left = None if until == float("inf") else max(0.0, until - time.monotonic())
            told = len(select.select([reading], [], [], left)[0]) > 0
            heard = os.read(reading, 1) if told else b""
            if done.is_set() or (told and len(heard) == 0):
                os.close(reading)
                return
            now = time.monotonic()
            if not told:
                print(
                    f"slamhmr: preempted: no word from the step under way for {now - began:.1f} s; "
                    "finished steps are kept, run again to go on",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(REQUEUE)
            if heard[0] in SIGNALS:
                began, until = min(began, now), min(until, now + _patience(heard[0], patience))

    watcher = threading.Thread(target=wait, name="preemption", daemon=True)
    watcher.start()

    def call_off() -> None:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(writing)  # the watcher reads its end
        watcher.join(timeout=1.0)

    return call_off
