import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sequences import FakeSteps, make_state, write_sequence, write_video

from slamhmr import __version__, cli, components
from slamhmr.errors import BackendError, InputError

ROOT = Path(__file__).parents[1]
NO_SCALE = "gates.scale_percent=null"  # eight frames of the fakes say nothing of it


def run_process(*words, code="from slamhmr.cli import main; import sys; sys.exit(main())"):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment
    )


@pytest.fixture
def fakes(monkeypatch):
    return FakeSteps(make_state()).install(monkeypatch)


def test_help_imports_nothing_heavy():
    code = """
import sys
from slamhmr.cli import main
try:
    main()
except SystemExit as e:
    assert e.code == 0
heavy = {"torch", "numpy", "cv2", "omegaconf", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = run_process("--help", code=code)
    assert done.returncode == 0, done.stderr
    assert all(
        name in done.stdout for name in ("optimize", "demo", "synth", "eval", "bench", "doctor")
    )


def test_the_package_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "slamhmr", "--version"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, f"slamhmr {__version__}\n"), done.stderr


def test_help_is_quick():
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run_process("--help")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("command", ["optimize", "demo", "synth", "eval", "bench", "doctor"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert f"slamhmr {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["synth"], "keypoint_noise=0.01  # "),
        (["bench", "world"], "scenes=2"),
        *((["bench", name], "seed=") for name in ("speed", "convergence", "ablation")),
        (["bench", "posterior"], "scenes="),
    ],
)
def test_help_lists_the_fields_and_their_defaults(words, line, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words, "--help"])
    said = capsys.readouterr().out
    assert "fields, with their defaults:" in said
    assert any(line.rstrip("# ") in row for row in said.splitlines()), said


def test_a_finished_run_says_where_everything_is(tmp_path, fakes, capsys):
    write_video(tmp_path / "video.mp4")
    assert cli.main(["optimize", "--seq", str(tmp_path), NO_SCALE]) == 0
    output = capsys.readouterr()
    assert "result.npz" in output.out
    assert "report.html" in output.out
    log = (tmp_path / "slamhmr" / "log.txt").read_text()
    assert "6_motion: done" in log
    assert output.err.count("6_motion") == 1  # one line per step where there is no terminal


def test_below_the_gates_is_3(tmp_path, fakes, capsys):
    write_video(tmp_path / "video.mp4")
    words = ["optimize", "--seq", str(tmp_path), "gates.reprojection_percent=-1"]
    assert cli.main(words) == 3
    assert "below the gates: median reprojection" in capsys.readouterr().err
    assert (tmp_path / "slamhmr" / "result.npz").exists()


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (BackendError, 4)])
def test_user_errors_are_one_line_and_a_code(tmp_path, monkeypatch, capsys, error, code):
    def fail(*_, **__):
        raise error("camera lost at frame 3")

    monkeypatch.setattr("slamhmr.pipeline.optimize", fail)
    assert cli.main(["optimize", "--seq", str(tmp_path)]) == code
    assert capsys.readouterr().err == "slamhmr: error: camera lost at frame 3\n"


def test_an_interrupt_is_130_and_keeps_the_work(tmp_path, fakes, capsys):
    write_video(tmp_path / "video.mp4")
    fakes.fail_at = "smooth"
    assert cli.main(["optimize", "--seq", str(tmp_path)]) == 130
    assert "run again to go on" in capsys.readouterr().err
    assert "ERROR slamhmr: interrupted" in (tmp_path / "slamhmr" / "log.txt").read_text()
    fakes.fail_at = ""
    fakes.calls.clear()
    assert cli.main(["optimize", "--seq", str(tmp_path), NO_SCALE]) == 0
    assert fakes.calls == ["smooth", "motion"]


def test_the_unexpected_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("slamhmr.pipeline.optimize", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["optimize", "--seq", str(tmp_path)])


BAD = {
    "missing directory": (lambda d: None, ["--seq", "{d}/nowhere"], "does not exist"),
    "empty directory": (lambda d: None, [], "holds no video"),
    "empty video": (lambda d: (d / "video.mp4").write_bytes(b""), [], "video.mp4"),
    "one frame": (lambda d: write_video(d / "video.mp4", 1), [], "1 frame(s)"),
    "unknown key": (write_sequence, ["bodi.model=x"], "did you mean 'body'?"),
    "missing config": (write_sequence, ["--config", "{d}/none.yaml"], "does not exist"),
    "missing body": (write_sequence, ["--body-model", "{d}/smpl.npz"], "smpl.npz"),
    "unknown sequence key": (
        lambda d: (write_sequence(d) / "sequence.yaml").write_text("fsp: 30"),
        [],
        "did you mean 'fps'?",
    ),
    "truncated npz": (
        lambda d: (write_sequence(d) / "observations.npz").write_bytes(b"PK\x03\x04half"),
        [],
        "observations.npz",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_destroys_nothing(tmp_path, capsys, case):
    prepare, words, message = BAD[case]
    folder = tmp_path / "clip"
    folder.mkdir()
    prepare(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    filled = [word.format(d=folder) for word in words]
    asked = filled if "--seq" in filled else ["--seq", str(folder), *filled]
    assert cli.main(["optimize", *asked]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert message in lines[0]
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


SLOW_RUN = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from sequences import FakeSteps, make_state
from slamhmr import camera_step, cli, steps
fakes = FakeSteps(make_state())
steps.backend = camera_step.backend = fakes.backend
def run_stage(state, *rest, **named):
    if rest[1] == "smooth":
        print("waiting", flush=True)
        time.sleep(60)
    return fakes.run_stage(state, *rest, **named)
steps.run_stage = run_stage
sys.exit(cli.main(["optimize", "--seq", sys.argv[1]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_resumed(tmp_path, fakes, how):
    write_video(tmp_path / "video.mp4")
    code = SLOW_RUN.format(tests=str(ROOT / "tests"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        # a shell that runs the tests in the background has them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(how)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert b"Traceback" not in errors
    assert cli.main(["optimize", "--seq", str(tmp_path), NO_SCALE]) == 0
    assert fakes.calls == ["smooth", "motion"]
    assert json.loads((tmp_path / "slamhmr" / "report.json").read_text())["passed"]


def test_doctor_names_what_is_there_and_what_is_missing(monkeypatch, capsys):
    without(monkeypatch, "pycolmap")
    assert cli.main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "pycolmap: gives the path of a travelling camera; pip install" in output
    assert "for pixels: slam=auto, slam=sfm" in output


def test_doctor_without_torch_fails(monkeypatch, capsys):
    without(monkeypatch, "torch")
    assert cli.main(["doctor", "--json"]) == 2
    findings = json.loads(capsys.readouterr().out)
    assert "optimize cannot run" in findings["verdict"]
    assert not findings["complete"]


def without(monkeypatch, package):
    """An environment that lacks one package."""
    real = components.installed
    monkeypatch.setattr(
        components, "installed", lambda m, d, p="": None if d == package else real(m, d, p)
    )
