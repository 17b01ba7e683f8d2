"""Programs in an environment of their own, with real children: what comes back, how it fails."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slamhmr import foreign
from slamhmr.errors import BackendError, MissingAsset
from slamhmr.foreign import run_foreign, script_path

HEAD = "import json, os, signal, sys, time, zipfile\n"
# Without numpy: a child of the standard library alone starts quickly. It hands IN.npz on.
COPY = "import shutil; shutil.copy(sys.argv[1], sys.argv[2])\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs Python source as if it were a script that is shipped."""
    monkeypatch.setattr(foreign, "ROOTS", (tmp_path,))
    (tmp_path / "fake").mkdir()

    def call(source, *, arrays=None, settings=None, timeout_s=30.0, python=sys.executable):
        (tmp_path / "fake" / "run.py").write_text(HEAD + source)
        return run_foreign(
            Path(python),
            "fake/run.py",
            arrays or {},
            settings or {},
            what="slam=fake",
            timeout_s=timeout_s,
        )

    return call


def test_arrays_and_settings_arrive_and_come_back(run):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    out = run(COPY, arrays={"images": images}, settings={"stride": 2, "path": "a b"})
    assert np.array_equal(out["images"], images)
    assert out["images"].dtype == np.uint8
    assert str(out["settings"]) == '{"stride": 2, "path": "a b"}'


def test_what_it_prints_goes_to_the_log(run, caplog):
    with caplog.at_level(logging.INFO):
        run("print('frame 3 of 9')\n" + COPY)
    assert "slam=fake: frame 3 of 9" in caplog.text


def test_the_other_environment_does_not_see_ours(run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/packages/of/ours")
    run("assert 'PYTHONPATH' not in os.environ\n" + COPY)


FAILURES = {
    "raise ValueError('3 rows, 4 needed')": (
        BackendError,
        "slam=fake: failed with exit code 1: ValueError: 3 rows, 4 needed",
    ),
    "sys.exit(7)": (BackendError, "slam=fake: failed with exit code 7: it printed nothing"),
    "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')": (
        BackendError,
        "slam=fake: out of memory of the GPU",
    ),
    "raise MemoryError('Cannot allocate memory')": (
        BackendError,
        "slam=fake: out of memory of the processor",
    ),
    "os.kill(os.getpid(), signal.SIGKILL)": (
        BackendError,
        "slam=fake: out of memory of the processor (killed by the system)",
    ),
    "print('half way', flush=True); os.kill(os.getpid(), signal.SIGSEGV)": (
        BackendError,
        "slam=fake: ended by signal SIGSEGV; half way",
    ),
    "pass": (BackendError, "slam=fake: the program ended without an error and without a result"),
    "open(sys.argv[2], 'w').write('no zip')": (BackendError, "result cannot be read"),
    "import no_such_module": (
        MissingAsset,
        f"slam=fake: No module named 'no_such_module' in the environment of '{sys.executable}'; "
        "install it there (third_party/README.md)",
    ),
}


@pytest.mark.parametrize(("source", "expected"), FAILURES.items())
def test_every_failure_is_one_line(run, source, expected):
    kind, sentence = expected
    with pytest.raises(kind) as caught:
        run(source)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("python", ["/no/such/python", __file__])
def test_no_interpreter(run, python):
    with pytest.raises(MissingAsset, match="does not exist or cannot be run"):
        run(COPY, python=python)


def test_pickles_in_a_result_are_refused(run):
    source = "import numpy as np; np.savez(sys.argv[2], x=np.array({'a': 1}, dtype=object))"
    with pytest.raises(BackendError, match="cannot be read"):
        run(source)


def alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_too_long_ends_it_and_what_it_started(run, tmp_path):
    left = tmp_path / "pid"
    source = f"""
import subprocess
child = subprocess.Popen(['sleep', '60'])
open({str(left)!r}, 'w').write(str(child.pid))
time.sleep(60)
"""
    start = time.monotonic()
    with pytest.raises(BackendError, match=r"slam=fake: not done after 1 s, ended"):
        run(source, timeout_s=1.0)
    assert time.monotonic() - start < 8
    deadline = time.monotonic() + 3
    while alive(int(left.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(left.read_text()))


def test_interrupting_us_ends_it(run, tmp_path, monkeypatch):
    left = tmp_path / "pid"

    def interrupt(self, timeout=None):
        while not left.exists() or left.read_text() == "":
            time.sleep(0.02)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(f"open({str(left)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    with pytest.raises(ProcessLookupError):
        os.kill(int(left.read_text()), signal.SIG_DFL)


def test_killing_us_ends_it(tmp_path):
    """Nothing of ours runs after kill -9: the child notices that its standard input closed."""
    shipped, left = script_path("droid_slam/run.py"), tmp_path / "pid"
    (tmp_path / "run.py").write_text(f"""
import os, runpy, time
runpy.run_path({str(shipped)!r}, run_name="shipped")["end_with_parent"]()
assert os.environ["SLAMHMR_ATTACHED"] == "1"
open({str(left)!r}, "w").write(str(os.getpid()))
time.sleep(60)
""")
    ours = f"""
from pathlib import Path
from slamhmr import foreign
foreign.ROOTS = (Path({str(tmp_path)!r}),)
foreign.run_foreign(Path({sys.executable!r}), "run.py", {{}}, {{}}, what="x")
"""
    parent = subprocess.Popen([sys.executable, "-c", ours], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 20
    while (not left.exists() or left.read_text() == "") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive(int(left.read_text()))
    parent.kill()
    parent.wait()
    while alive(int(left.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(int(left.read_text()))


def test_a_script_that_is_not_shipped_is_said():
    with pytest.raises(MissingAsset, match=r"'third_party/none/run\.py' is not part of this"):
        script_path("none/run.py")


def test_no_array_may_take_the_name_of_the_settings(run):
    with pytest.raises(ValueError, match="settings"):
        run(COPY, arrays={"settings": np.zeros(1)})
