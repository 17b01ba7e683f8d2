"""Synthetic sequence directories without pixels, and real processes, for the acceptance tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from slamhmr.body import load_body
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.synth.write import write_scene

ROOT = Path(__file__).parents[1]
BODY = load_body()
COMMAND = "import sys; from slamhmr.cli import main; sys.exit(main())"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def write_synthetic(folder: Path, spec: SceneSpec) -> Scene:
    """Observations, cameras and truth of a scene; no pixels."""
    scene = make_scene(spec, BODY)
    write_scene(folder, scene, BODY, spec, pixels=False, observations=True)
    return scene


def run_python(code: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """Another Python process, to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False,
    )  # fmt: skip


def start_python(code: str, *words: object) -> "subprocess.Popen[str]":
    """Another Python process, running; Ctrl-C reaches it even where this one ignores it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and what it holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
