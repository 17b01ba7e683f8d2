"""The solver's time and memory on a long clip, in a process of its own."""

import json

import pytest
from scenes import run_python, write_synthetic

from slamhmr.synth.scene import SceneSpec

FRAMES, SECONDS, GIGABYTES = 300, 27.0, 1.2  # time grows with frames; 1000: 90 s, 2 GB
MEASURED = """
import json
from slamhmr.cli import main
code = main()
# Not getrusage: that begins with the memory of the process that this one was forked from.
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
peak = float(status["VmHWM"].split()[0]) * 1024 / 1e9
print(json.dumps({"code": code, "peak": peak}))
"""


@pytest.mark.slow
def test_a_long_clip(tmp_path):
    write_synthetic(tmp_path, SceneSpec(seed=340, frames=FRAMES, motion="mixed", camera="follow"))
    done = run_python(MEASURED, "optimize", "--seq", tmp_path, "threads=1")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["code"] in (0, 3), done.stderr
    report = json.loads((tmp_path / "slamhmr" / "report.json").read_text())
    stages = {stage["name"]: stage["seconds"] for stage in report["stages"]}
    total = sum(stages.values())
    line = f"{total:.1f} s in {stages}, start {report['seconds']['3_initial']:.1f} s, "
    line += f"peak {measured['peak']:.2f} GB"
    print(line)
    assert total < SECONDS, line
    assert measured["peak"] < GIGABYTES, line
