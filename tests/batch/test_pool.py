import dataclasses
import os
import signal
import sys

import pytest
from batches import make_batch, make_sequences, raw_job, ready, runs, start_batch, wait_until

from slamhmr.batch.folder import Entry, read_batch
from slamhmr.batch.pool import Pool
from slamhmr.batch.sizes import Machine, _gpus, measured, need, this_machine, work
from slamhmr.batch.states import current

BIG = 2**40


def sized(batch, **frames):
    """The same batch with so many frames in each sequence, of one person."""
    entries = [dataclasses.replace(e, frames=frames[e.name], people=1) for e in batch.sequences]
    return dataclasses.replace(batch, sequences=entries)


def started(batch):
    """Names in the order in which their runs began."""
    return sorted((e.name for e in batch.sequences), key=lambda n: begun(batch)[n])


def begun(batch):
    return {entry.name: float(runs(entry)[0][1]) for entry in batch.sequences}


def test_longest_first(tmp_path):
    batch = sized(make_batch(tmp_path, a="0", b="1", c="0"), a=100, b=300, c=200)
    assert Pool(batch, Machine(1, BIG, ()), 1, gpu_each=False).run([0, 1, 2]) is None
    assert started(batch) == ["b", "c", "a"]
    assert [now.state for now in current(batch)] == ["done", "failed", "done"]


def test_memory_bounds_how_many_run_at_once(tmp_path):
    batch = sized(make_batch(tmp_path, a="sleep 0.4", b="sleep 0.1", c="0"), a=9000, b=8000, c=10)
    room = need(batch.sequences[0], 1) + need(batch.sequences[2], 1) + 2**26
    Pool(batch, Machine(3, room, ()), 3, gpu_each=False).run([0, 1, 2])
    assert begun(batch)["b"] > begun(batch)["a"] + 0.4  # it waits until a has ended
    assert begun(batch)["c"] < begun(batch)["b"]  # it fits beside a


def test_a_worker_that_cannot_begin_is_told(tmp_path, monkeypatch):
    batch = make_batch(tmp_path, a="0")
    broken = lambda folder: [sys.executable, "-c", "raise SystemExit(9)"]  # noqa: E731
    monkeypatch.setattr("slamhmr.batch.pool.worker_command", broken)
    Pool(batch, Machine(1, BIG, ()), 1, gpu_each=False).run([0])
    (now,) = current(batch)
    assert (now.state, now.reason) == ("failed", "its worker ended with code 9 before it began")


def test_what_is_too_big_for_the_machine_runs_alone(tmp_path):
    batch = make_batch(tmp_path, a="0", b="0")
    Pool(batch, Machine(2, 1, ()), 2, gpu_each=False).run([0, 1])
    assert [now.state for now in current(batch)] == ["done", "done"]


def test_every_worker_has_a_gpu_of_its_own(tmp_path):
    batch = make_batch(tmp_path, a="sleep 0.3", b="sleep 0.3", c="0")
    Pool(batch, Machine(8, BIG, ("4", "6")), 8, gpu_each=True).run([0, 1, 2])
    first, second, third = (runs(entry)[0][2] for entry in batch.sequences)
    assert {first, second} == {"4", "6"}
    assert third in ("4", "6")
    last = begun(batch)["c"]
    assert last > begun(batch)["a"] + 0.3 or last > begun(batch)["b"] + 0.3


def test_one_thread_each(tmp_path):
    batch = make_batch(tmp_path, a="0")
    Pool(batch, Machine(2, BIG, ()), 2, gpu_each=False).run([0])
    assert runs(batch.sequences[0])[0][2:4] == ["-", "1"]


def test_gpus_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-ab")
    assert _gpus() == ("2", "GPU-ab")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert _gpus() == ()


def test_this_machine():
    machine = this_machine()
    assert 1 <= machine.cores <= os.cpu_count()
    assert 2**28 < machine.memory < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_sizes_are_read_without_computing(tmp_path):
    from sequences import write_sequence, write_video

    write_sequence(tmp_path / "points", people=2)
    write_video(tmp_path / "film" / "video.mp4", frames=7)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "observations.npz").write_bytes(b"no")
    points, film, broken = (
        measured(Entry(name, str(tmp_path / name), "")) for name in ("points", "film", "broken")
    )
    assert (points.frames, points.people) == (8, 2)
    assert (film.frames, film.people, broken.frames) == (7, 0, 0)
    assert need(broken, 1) > need(film, 1) > need(points, 1)
    assert work(points) == 16


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_a_stopped_batch_keeps_what_it_has_and_goes_on(tmp_path, sent, code):
    paths = make_sequences(tmp_path / "seqs", quick="0", long="sleep 20", last="sleep 20")
    words = [str(tmp_path / "seqs"), "--workers", "1"]
    first = start_batch(tmp_path, *words)
    wait_until(lambda: (tmp_path / "batch" / "batch.json").exists())
    batch = read_batch(tmp_path / "batch")
    names = [entry.name for entry in batch.sequences]
    assert names == ["last", "long", "quick"]
    ready(batch, 0)
    first.send_signal(getattr(signal, sent))
    out, err = first.communicate(timeout=20)
    assert first.returncode == code, err
    assert [now.state for now in current(batch)] == ["preempted", "waiting", "waiting"]
    for path in paths:
        (path / "do").write_text("0")
    second = start_batch(tmp_path, *words)
    out, err = second.communicate(timeout=20)
    assert (second.returncode, out.split(";")[0]) == (0, "3 sequences: 3 done"), err
    assert [raw_job(batch, index)["attempt"] for index in range(3)] == [2, 1, 1]


def test_a_second_signal_ends_it_at_once(tmp_path):
    make_sequences(tmp_path / "seqs", a="sleep 20")
    process = start_batch(tmp_path, str(tmp_path / "seqs"))
    wait_until(lambda: (tmp_path / "batch" / "batch.json").exists())
    batch = read_batch(tmp_path / "batch")
    pid = ready(batch, 0)
    os.kill(pid, signal.SIGSTOP)  # it hears nothing
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # two of a kind would be one while both wait
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert current(batch)[0].state == "lost"
