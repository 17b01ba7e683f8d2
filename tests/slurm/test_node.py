"""The Slurm that the other tests run on: arrays, and a task that is requeued."""

import time

import pytest

pytestmark = pytest.mark.slurm

SCRIPT = """#!/bin/bash
#SBATCH --array=0-2 --requeue --open-mode=append --output={folder}/%a.txt
echo "restart ${{SLURM_RESTART_COUNT:-0}}"
if [ "$SLURM_ARRAY_TASK_ID" = 1 ] && [ -z "$SLURM_RESTART_COUNT" ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_1"
    sleep 30
fi
"""


def test_an_array_runs_and_a_requeued_task_runs_again(slurm, tmp_path):
    script = tmp_path / "array.sh"
    script.write_text(SCRIPT.format(folder=tmp_path))
    job = slurm.ask("sbatch", "--parsable", str(script))
    until = time.monotonic() + 90
    while slurm.ask("squeue", "--noheader", "--jobs", job, "--states=PD,R,CG,CF") != "":
        assert time.monotonic() < until, slurm.ask("squeue")
        time.sleep(0.5)
    told = [(tmp_path / f"{task}.txt").read_text().split("\n")[:-1] for task in range(3)]
    assert told[0] == told[2] == ["restart 0"]
    assert [line for line in told[1] if line.startswith("restart")] == ["restart 0", "restart 1"]
