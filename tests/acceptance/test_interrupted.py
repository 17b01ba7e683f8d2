"""A run stopped in the middle of a stage, by Ctrl-C or killed, and the run that goes on from it.

The real solver, stopped in processes of their own; tests/test_cli.py does the same with stand-ins.
"""

import signal
from pathlib import Path

import numpy as np
import pytest
from scenes import start_python, write_synthetic

from slamhmr.cli import main
from slamhmr.synth.scene import SceneSpec

SPEC = SceneSpec(seed=311, frames=20, motion="walk", camera="follow")
FINISHED = ("1_observations", "2_cameras", "3_initial", "4_root")
# Stops inside the second stage, after its second iteration, and waits there.
PAUSED = """
import sys, time
from slamhmr import steps
from slamhmr.cli import main
from slamhmr.preemption import WATCH
solve = steps.run_stage
def run_stage(*given, on_iteration, **named):
    def pause(reached):
        on_iteration(reached)
        if given[2] == "smooth" and reached.progress.iteration == 2:
            print("in the middle", flush=True)
            for _ in range(600):
                if WATCH.asked == "":
                    time.sleep(0.1)
    return solve(*given, on_iteration=pause, **named)
steps.run_stage = run_stage
sys.exit(main())
"""


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def numbers(path: Path) -> dict[str, np.ndarray]:
    """What was solved; not when, how long it took and by which commit."""
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key not in ("stamp", "provenance")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_synthetic(folder, SPEC)
    assert main(["optimize", "--seq", str(folder), "threads=1"]) == 0
    return folder / "slamhmr"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)],
)
def test_the_second_run_goes_on_and_ends_the_same(tmp_path, undisturbed, capsys, how, code):
    write_synthetic(tmp_path, SPEC)
    process = start_python(PAUSED, "optimize", "--seq", tmp_path, "threads=1")
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(how)
    _, errors = process.communicate(timeout=30)
    assert line == "in the middle\n", errors
    assert process.returncode == code
    assert "Traceback" not in errors
    run = tmp_path / "slamhmr"
    assert sorted(p.stem for p in run.glob("*.npz") if p.name[0] != ".") == sorted(FINISHED)
    assert (run / ".5_smooth.checkpoint.npz").exists() == (code == 75)
    before = {name: identity(run / f"{name}.npz") for name in FINISHED}

    assert main(["optimize", "--seq", str(tmp_path), "threads=1"]) == 0
    told = capsys.readouterr().err
    assert {name: identity(run / f"{name}.npz") for name in FINISHED} == before
    assert [f"{name}: up to date" in told for name in FINISHED] == [True] * 4
    assert ("going on from '.5_smooth.checkpoint.npz', after 3 iterations" in told) == (code == 75)
    assert not (run / ".lock").exists()
    assert not list(run.glob(".*checkpoint*"))
    assert not list(run.glob(".partial-*"))
    for name in ("5_smooth.npz", "6_motion.npz", "result.npz"):
        again, once = numbers(run / name), numbers(undisturbed / name)
        assert set(again) == set(once)
        for key, value in once.items():
            np.testing.assert_array_equal(again[key], value, err_msg=f"{name}: {key}")
