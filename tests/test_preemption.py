"""Signals that ask the process to stop: where they end it at once, and where not."""

import os
import signal
import sys
import threading
import time

import pytest
import scenes
from scenes import run_python, start_python

from slamhmr.errors import Preempted
from slamhmr.preemption import WATCH, preemptible

STUCK = """
import hashlib
from slamhmr.preemption import preemptible
with preemptible(patience=0.5):
    print("in a library", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # one call of C that does not come back
"""


def told(number):
    with preemptible():
        os.kill(os.getpid(), number)
        time.sleep(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_what_runs_at_once(number):
    with pytest.raises(Preempted, match=signal.Signals(number).name):
        told(number)
    assert signal.getsignal(number) == signal.SIG_DFL
    WATCH.obey()  # nothing is asked of who solves another clip in this process
    assert signal.set_wakeup_fd(-1) == -1


def test_the_solver_is_told_and_stops_when_it_can():
    with preemptible():
        with WATCH.held():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            assert WATCH.asked == "SIGTERM"
        with pytest.raises(Preempted):
            WATCH.obey()
    with preemptible():
        assert WATCH.asked == ""


def test_nothing_swallows_it():
    def library():
        try:
            told(signal.SIGTERM)
        except Exception:
            pytest.fail("swallowed")

    with pytest.raises(Preempted):
        library()


@pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux")
def test_a_library_that_does_not_come_back_is_left_behind():
    process = start_python(STUCK)
    assert process.stdout.readline() == "in a library\n"
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert time.monotonic() - began < 5
    assert "no word from the step under way for 0.5 s" in errors


@pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux")
def test_a_cluster_that_was_asked_for_time_gives_it_but_not_after_sigterm(monkeypatch):
    monkeypatch.setitem(scenes.ENVIRONMENT, "SLAMHMR_GRACE_S", "30")  # the watcher keeps 10
    process = start_python(STUCK)
    assert process.stdout.readline() == "in a library\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "no word from the step under way for 1." in errors


def test_other_threads_are_left_alone():
    seen = []

    def run():
        with preemptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_a_library_that_takes_the_signals_gives_them_back():
    """glog, in pycolmap, handles SIGTERM by a stack trace and the end of the process."""
    code = """
import os, signal, time
from slamhmr.preemption import preemptible
from slamhmr.slam.colmap import load_pycolmap
from slamhmr.errors import Preempted
try:
    with preemptible():
        load_pycolmap()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
except Preempted as e:
    print("kept", e)
"""
    done = run_python(code)
    assert done.stdout == "kept SIGTERM\n", done.stderr
