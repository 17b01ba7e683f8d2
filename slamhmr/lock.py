"""One process works in a run folder: a lock that the kernel frees, and that beats for other hosts.

On one host flock tells who is alive. Across hosts it may not: network file systems let everybody
in, keep out everybody for as long as a dead host's lease runs, or know no flock. So the holder
writes a number that grows; one that stands still for `DEAD_BEATS` is a dead one's, whose folder is
taken over: a job that was killed with its node is requeued elsewhere and must go on. Who was only
taken for dead finds another's token, and stops. Only contents are compared, no clocks.
"""

import errno
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slamhmr.errors import InputError

LOG = logging.getLogger(__name__)
BEAT_S = 10.0
DEAD_BEATS = 5
LOOK_S = 1.0  # between two looks at a lock that is waited for


@dataclass
class Lock:
    """A lock that is held; it beats until it is released."""

    path: Path
    handle: int
    _released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._token = secrets.token_hex(8)
        self._write(0)
        self._beats = threading.Thread(target=self._beat, name="lock", daemon=True)

    def start(self) -> "Lock":
        """Beat from now on."""
        self._beats.start()
        return self

    def release(self) -> None:
        """Let others in."""
        self._released.set()
        if self._beats.is_alive():
            self._beats.join()
        if self.ours():
            self.path.unlink(missing_ok=True)
        os.close(self.handle)

    def ours(self) -> bool:
        """Whether nobody has taken the folder over, as the file says that has the name now."""
        holder = _named(self.path)
        return holder is not None and holder["token"] == self._token

    def _beat(self) -> None:
        number = 0
        while not self._released.wait(BEAT_S):
            holder = _named(self.path)
            if holder is not None and holder["token"] != self._token:
                LOG.error("%s, who took us for dead: stopping", _in_use(self.path, holder))
                os.kill(os.getpid(), signal.SIGTERM)
                return
            number += 1
            self._write(number)

    def _write(self, beat: int) -> None:
        who = {"pid": os.getpid(), "host": socket.gethostname(), "beat": beat}
        who["token"] = self._token
        line = json.dumps(who).encode()
        os.pwrite(self.handle, line, 0)
        os.ftruncate(self.handle, len(line))
        os.fsync(self.handle)


def acquire(path: Path, *, wait: bool = False) -> Lock:
    """Hold `path`, which says who does.

    Raises InputError naming the holder if there is one, unless it is to `wait` for it.
    """
    told = False
    while True:
        lock, holder = _tried(path)
        if lock is not None:
            return lock
        if not wait:
            raise InputError(f"{_in_use(path, holder)}; --wait waits for it")
        if not told:
            LOG.info("waiting: %s", _in_use(path, holder))
            told = True
        time.sleep(LOOK_S)


def _tried(path: Path) -> tuple[Lock | None, dict[str, Any] | None]:
    """The lock, or who has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        free = flocked(handle)
        holder = _holder(handle)
        if not path.exists() or os.fstat(handle).st_ino != path.stat().st_ino:
            os.close(handle)  # the former holder removed it in between
            continue
        here = holder is not None and holder["host"] == socket.gethostname()
        if free is False and (holder is None or here):
            os.close(handle)
            return None, holder
        if holder is not None and (free is not True or not here):
            if _beats(path, holder):
                os.close(handle)
                return None, holder
            if free is False:  # a dead host's, which the file server has not forgotten
                path.unlink(missing_ok=True)
            if free is False or not path.exists():
                os.close(handle)
                continue
        if holder is not None:
            LOG.info("taking over the lock of dead process %s on %s", holder["pid"], holder["host"])
        lock = Lock(path, handle)
        if free is None and not _settled(lock):
            return None, _named(path)
        return lock.start(), None


def flocked(handle: int) -> bool | None:
    """Whether the file could be locked; None where its file system knows no flock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            LOG.debug("this file system knows no flock: %s", e)
            return None
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _settled(lock: Lock) -> bool:
    """Whether a lock without flock is still ours once all who wrote at the same time have."""
    time.sleep(min(LOOK_S, BEAT_S))
    if lock.ours():
        return True
    lock.release()
    return False


def _beats(path: Path, holder: dict[str, Any]) -> bool:
    """Whether the holder on another host still lives: its number grows while we look."""
    LOG.info("%s; looking for %.0f s whether it lives", _in_use(path, holder), DEAD_BEATS * BEAT_S)
    until = time.monotonic() + DEAD_BEATS * BEAT_S
    while time.monotonic() < until:
        time.sleep(min(LOOK_S, BEAT_S))
        if not path.exists():
            return False  # released
        if _named(path) not in (None, holder):
            return True
    return False


def _named(path: Path) -> dict[str, Any] | None:
    """Who stands in the file, opened anew: network file systems look again then."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _holder(handle)
    finally:
        os.close(handle)


def _holder(handle: int) -> dict[str, Any] | None:
    try:
        content = json.loads(os.pread(handle, 4096, 0))
        return {name: content.get(name) for name in ("pid", "host", "beat", "token")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _in_use(path: Path, holder: dict[str, Any] | None) -> str:
    who = "another process" if holder is None else f"process {holder['pid']} on {holder['host']}"
    return f"'{path.parent}' is in use by {who}"
