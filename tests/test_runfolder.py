import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from sequences import make_cameras

from slamhmr import lock
from slamhmr.config import BodyConfig
from slamhmr.errors import InputError
from slamhmr.runfolder import LOCK, RunFolder, named_files
from slamhmr.types import CameraTrack


class Counted:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return make_cameras()


def run_once(folder: Path, source: Path, *, settings=1, compute=None, overwrite=False):
    """Two steps, the second made of the first; returns which were computed."""
    first, second = compute or Counted(), Counted()
    with RunFolder(folder, overwrite=overwrite) as run:
        run.step("1_a", CameraTrack, first, settings=settings, inputs=[source], code=())
        run.step("2_b", CameraTrack, second, settings=0, inputs=[run.path("1_a.npz")], code=())
    return first.count, second.count


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "input.bin"
    path.write_bytes(b"content")
    return path


def test_valid_stamps_skip(tmp_path, source):
    assert run_once(tmp_path / "run", source) == (1, 1)
    assert run_once(tmp_path / "run", source) == (0, 0)


def test_another_input_or_setting_computes_all_from_there(tmp_path, source):
    run_once(tmp_path / "run", source)
    source.write_bytes(b"other")
    assert run_once(tmp_path / "run", source) == (1, 1)
    assert run_once(tmp_path / "run", source, settings=2) == (1, 1)
    assert run_once(tmp_path / "run", source, settings=2) == (0, 0)


def test_another_file_under_the_same_name_computes_anew(tmp_path, source):
    """Of weights also their card, which says how they are meant."""
    weights, card = tmp_path / "w.safetensors", tmp_path / "w.json"
    settings = ["wham", {"terms": ({"weights": str(weights)}, 0.1)}, BodyConfig("none.npz")]
    weights.write_bytes(b"one")
    assert run_once(tmp_path / "run", source, settings=settings) == (1, 1)
    assert run_once(tmp_path / "run", source, settings=settings) == (0, 0)
    for path, content in ((weights, b"two"), (card, b"{}"), (card, b"[]")):
        path.write_bytes(content)
        assert run_once(tmp_path / "run", source, settings=settings) == (1, 1)
        assert run_once(tmp_path / "run", source, settings=settings) == (0, 0)


def test_files_are_found_wherever_settings_name_them(tmp_path, monkeypatch):
    body, weights = tmp_path / "body.npz", tmp_path / "w.bin"
    body.touch()
    weights.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert named_files(BodyConfig(str(body))) == [body]
    assert named_files({"a": ["~/w.bin", 3, None], "b": {"c": str(body)}}) == [weights, body]
    assert named_files(["", ".", str(tmp_path), "x" * 5000, "a\0b", {str(body): 1}]) == []


def test_other_code_computes_anew(tmp_path, source, monkeypatch):
    run_once(tmp_path / "run", source)
    monkeypatch.setattr("slamhmr.runfolder.code_hash", lambda *modules: "another version")
    assert run_once(tmp_path / "run", source) == (1, 1)


@pytest.mark.parametrize(("damaged", "expected"), [("1_a.npz", (1, 1)), ("2_b.npz", (0, 1))])
def test_a_damaged_step_and_all_later_ones_are_computed_anew(tmp_path, source, damaged, expected):
    run_once(tmp_path / "run", source)
    path = tmp_path / "run" / damaged
    path.write_bytes(path.read_bytes()[:-100])
    assert run_once(tmp_path / "run", source) == expected


def test_overwrite_computes_all_and_keeps_what_is_not_ours(tmp_path, source):
    run_once(tmp_path / "run", source)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert run_once(tmp_path / "run", source, overwrite=True) == (1, 1)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_products_of_an_older_run_go_when_a_step_is_computed_anew(tmp_path, source):
    run_once(tmp_path / "run", source)
    (tmp_path / "run" / "report.json").write_text("{}")
    run_once(tmp_path / "run", source)
    assert (tmp_path / "run" / "report.json").exists()
    run_once(tmp_path / "run", source, settings=2)
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_step_that_fails_leaves_the_earlier_result(tmp_path, source):
    def fail():
        raise InputError("damaged")

    run_once(tmp_path / "run", source)
    (tmp_path / "run" / "result.npz").write_text("precious")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(InputError, match="damaged"):
        run_once(tmp_path / "run", source, settings=2, compute=fail)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_folder_of_somebody_elses_files_is_refused(tmp_path, source):
    with pytest.raises(InputError, match="holds other files than a run's; name a new directory"):
        run_once(tmp_path, source)
    assert [path.name for path in tmp_path.iterdir()] == ["input.bin"]
    with pytest.raises(InputError, match="is a file"):
        run_once(source, source)


def test_a_skipped_step_gives_its_value_note_and_seconds(tmp_path, source):
    def once():
        with RunFolder(tmp_path / "run") as run:
            value, note = run.step(
                "1_a", CameraTrack, make_cameras, settings=0, inputs=[source], code=(),
                note=lambda: {"energy": 1.5},
            )  # fmt: skip
            return value, note, run.seconds["1_a"]

    first, second = once(), once()
    assert torch.equal(first[0].world_from_cam, second[0].world_from_cam)
    assert first[1:] == second[1:]


def test_leftovers_of_interrupted_writes_are_removed(tmp_path):
    (tmp_path / ".partial-5_smooth-xyz.npz").write_bytes(b"half")
    (tmp_path / "own.npz").write_bytes(b"not ours")
    with RunFolder(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir()) == [LOCK, "own.npz"]
    assert [p.name for p in tmp_path.iterdir()] == ["own.npz"]


def test_numbered_files_of_another_schedule_go(tmp_path, source):
    run_once(tmp_path / "run", source)
    with RunFolder(tmp_path / "run") as run:
        run.keep_only(["1_a"])
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["1_a.npz"]


HOLD = """
import sys
import threading
import time
from pathlib import Path
from slamhmr.runfolder import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process_holding(folder):
    """A process that holds the lock of `folder` until it is killed or the block ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "holding\n"
        yield other
    finally:
        other.communicate(timeout=20)


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path):
    with another_process_holding(tmp_path) as other:
        words = f"in use by process {other.pid} on {socket.gethostname()}"
        with pytest.raises(InputError, match=words), RunFolder(tmp_path):
            pass
    with RunFolder(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with another_process_holding(tmp_path) as other:
        other.kill()
        other.wait(20)
    assert (tmp_path / LOCK).exists()
    with RunFolder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_waiting_takes_the_lock_once_it_is_free(tmp_path, caplog):
    with another_process_holding(tmp_path) as other:
        threading.Timer(0.5, other.stdin.close).start()
        with caplog.at_level("INFO"), RunFolder(tmp_path, wait=True):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        other.stdin = None
        assert f"in use by process {other.pid}" in caplog.text


@pytest.mark.parametrize("lives", [True, False])
def test_the_lock_of_another_host_is_respected_while_it_beats(tmp_path, monkeypatch, lives):
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    path = tmp_path / LOCK

    def write(beat):
        path.write_text(json.dumps({"pid": 7, "host": "elsewhere", "beat": beat}))

    write(0)
    if lives:
        threading.Timer(0.2, write, [1]).start()
        with pytest.raises(InputError, match="process 7 on elsewhere; --wait waits"):
            RunFolder(tmp_path).__enter__()
        assert path.exists()
    else:
        with RunFolder(tmp_path):
            first = json.loads(path.read_text())
            assert first["pid"] == os.getpid()
            time.sleep(0.3)
            assert json.loads(path.read_text())["beat"] > first["beat"]
        assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_without_flock_the_beats_tell(tmp_path, monkeypatch, number):
    """Lustre without -o flock, NFS without its lock daemon."""
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock.fcntl, "flock", refusing(number))
    path = tmp_path / LOCK
    with RunFolder(tmp_path):
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
            RunFolder(tmp_path).__enter__()
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()
    path.write_text(json.dumps({"pid": 7, "host": socket.gethostname(), "beat": 3}))
    with RunFolder(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_of_two_at_once_without_flock_one_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock.fcntl, "flock", refusing(errno.ENOLCK))
    held, refused, both = [], [], threading.Barrier(2)

    def run():
        both.wait()
        try:
            held.append(lock.acquire(tmp_path / LOCK))
        except InputError as e:
            refused.append(e)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == len(refused) == 1
    held[0].release()


def test_a_lock_that_the_server_keeps_for_a_dead_host_is_taken_over(tmp_path, monkeypatch):
    """NFS: the lease of a node that died holds on while its job is requeued elsewhere."""
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    path = tmp_path / LOCK
    path.write_text(json.dumps({"pid": 7, "host": "elsewhere", "beat": 3, "token": "x"}))
    former = path.stat().st_ino
    flock = fcntl.flock

    def kept(handle, operation):
        if os.fstat(handle).st_ino == former:
            raise BlockingIOError(errno.EWOULDBLOCK, "held")
        return flock(handle, operation)

    monkeypatch.setattr(lock.fcntl, "flock", kept)
    with (
        path.open(),
        RunFolder(tmp_path),
    ):  # open: so that the number of its inode is not used again
        assert json.loads(path.read_text())["pid"] == os.getpid()


def refusing(number):
    def flock(handle, operation):
        raise OSError(number, os.strerror(number))

    return flock


def test_who_was_taken_for_dead_stops_and_leaves_the_lock(tmp_path, monkeypatch):
    """A process that stood still (SIGSTOP, a suspended job) finds another host in its lock."""
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    killed = []
    monkeypatch.setattr(lock.os, "kill", lambda pid, number: killed.append((pid, number)))
    path = tmp_path / LOCK
    with RunFolder(tmp_path):
        path.write_text(json.dumps({"pid": 7, "host": "elsewhere", "beat": 1, "token": "x"}))
        time.sleep(0.4)
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert json.loads(path.read_text())["host"] == "elsewhere"
