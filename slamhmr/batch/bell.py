"""Wakes the main thread when a signal arrives or a child ends, without polling.

A blocking call that waits for a child or a queue is not always interrupted by a signal: it may come
just before the call, or to another thread (a BLAS library's), and Python's handler then runs only
when the call returns. The byte that the signal itself puts into a pipe is never lost.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType


class Bell:
    """Handler of some signals while it is open; use as a context manager in the main thread."""

    def __init__(
        self, numbers: Sequence[signal.Signals], receive: Callable[[int, FrameType | None], None]
    ) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, receive) for number in numbers}

    def __enter__(self) -> "Bell":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def rings_at_the_end_of(self, child: "subprocess.Popen[bytes]") -> None:
        """Also wake for the end of a child, whose `returncode` is set then."""
        threading.Thread(target=self._wait_for, args=(child,), daemon=True).start()

    def wait(self) -> None:
        """Return after the next signal or end of a child; handlers have run by then."""
        os.read(self._reading, 4096)

    def _wait_for(self, child: "subprocess.Popen[bytes]") -> None:
        child.wait()
        with contextlib.suppress(OSError):  # closed: nobody waits any more
            os.write(self._writing, b"\0")
