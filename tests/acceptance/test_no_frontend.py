"""With observations and cameras given, no package of the front end is needed or even asked for."""

import sys

import pytest
from scenes import COMMAND, run_python, write_synthetic

from slamhmr.synth.scene import SceneSpec

SPEC = SceneSpec(seed=330, frames=40)
FRONT_END = ("ai_edge_litert", "mediapipe", "pycolmap", "av", "anny", "smplx")
# Looks first at every import of this process and of nothing else.
BLOCKED = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FRONT_END}:
            raise ImportError(f"'{{name}}' is not installed")
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.slow
def test_runs_without_detector_and_slam_packages(tmp_path):
    write_synthetic(tmp_path, SPEC)
    done = run_python(BLOCKED + COMMAND, "optimize", "--seq", tmp_path, "threads=1")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "slamhmr"
    assert {"result.npz", "report.json", "report.html", "topview.png"} <= {
        path.name for path in run.iterdir()
    }
    assert not (run / "overlay.mp4").exists()


def test_the_block_blocks():
    done = run_python(BLOCKED + "import pycolmap")
    assert done.returncode == 1
    assert "'pycolmap' is not installed" in done.stderr
    assert not any(type(finder).__name__ == "Missing" for finder in sys.meta_path)
