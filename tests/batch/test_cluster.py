import dataclasses
import os
import subprocess

import pytest
from batches import ROOT, make_batch, runs, write_program

from slamhmr.batch.cluster import (
    ClusterConfig,
    array_script,
    at_once,
    load_cluster,
    sbatch_options,
    submit,
)
from slamhmr.batch.folder import read_submissions
from slamhmr.batch.plan import chosen
from slamhmr.batch.states import current
from slamhmr.config import config_folder
from slamhmr.errors import BackendError, ConfigError, MissingAsset

NAMES = sorted(path.stem for path in (config_folder() / "cluster").glob("*.yaml"))
# Stands for sbatch: runs every task of the script at once, as Slurm would set it up.
SBATCH = """
script="${@: -1}"
cp "$script" SCRIPT
range=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
echo "Submitted batch job 41"
for task in $(seq 0 $range); do
  SLURM_JOB_ID=$((50 + task)) SLURM_ARRAY_JOB_ID=41 SLURM_ARRAY_TASK_ID=$task \
    bash SCRIPT >> SCRIPT.log 2>&1 &
done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Programs of Slurm on the PATH; returns where sbatch keeps the script."""
    for name in ("srun", "scontrol", "squeue"):
        write_program(tmp_path / "bin", name, "")
    script = tmp_path / "sent.sh"
    write_program(tmp_path / "bin", "sbatch", SBATCH.replace("SCRIPT", str(script)))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    return script


def flags(script: str) -> dict[str, str]:
    """The last word on every option of an sbatch script."""
    lines = [line[10:] for line in script.splitlines() if line.startswith("#SBATCH --")]
    pairs = [line.partition("=") for line in lines]
    return {name: value.strip("'") for name, _, value in pairs}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_clusters(name):
    assert load_cluster(name, []) == load_cluster(
        str(config_folder() / "cluster" / f"{name}.yaml"), []
    )


@pytest.mark.parametrize(
    ("name", "overrides", "error"),
    [
        ("gpus", [], "did you mean 'gpu'"),
        ("cpu", ["cluster.partitoin=x"], "did you mean 'partition'"),
        ("cpu", ["cluster.parallel=many"], "parallel"),
        ("cpu", ["cluster.time_min=0"], "at least 1"),
        ("cpu", ["cluster.signal_s=20"], "at least 30"),
    ],
)
def test_wrong_clusters(name, overrides, error):
    with pytest.raises(ConfigError, match=error):
        load_cluster(name, overrides)


def test_a_file_is_told_of_its_own_mistakes(tmp_path):
    (tmp_path / "mine.yaml").write_text("partition: long\ngpu: 2\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: unknown key 'gpu'; did you mean 'gpus'"):
        load_cluster(str(tmp_path / "mine.yaml"), [])


def test_options_of_sbatch(tmp_path):
    batch = make_batch(tmp_path, a="0", b="0")
    cluster = ClusterConfig(partition="p", gpus=2, time_min=30, signal_s=60, extra={"nice": "5"})
    options = sbatch_options(batch, [0, 1], cluster)
    wanted = {
        "partition": "p", "gres": "gpu:2", "time": 30, "signal": "B:USR1@60", "requeue": True,
        "open-mode": "append", "cpus-per-task": 1, "nice": "5",
    }  # fmt: skip
    assert options.items() >= wanted.items()
    assert "account" not in options
    assert int(options["mem"].removesuffix("M")) > 512
    off = sbatch_options(batch, [0], dataclasses.replace(cluster, requeue=False, memory_gib=0.5))
    assert ("requeue" in off, off["no-requeue"], off["mem"]) == (False, True, "512M")


def test_the_script_runs_the_right_sequences(tmp_path):
    batch = make_batch(tmp_path, a="0", b="0", c="0", d="0")
    script = array_script(batch, [1, 3, 0], ClusterConfig(parallel=4, array_size=2, setup=["true"]))
    assert flags(script)["array"] == "0-1%2"
    assert "#   sbatch --array=0-0%2 THIS_FILE 2" in script
    file = tmp_path / "run.sh"
    file.write_text(script)
    for task, first in (("1", []), ("0", ["2"])):
        variables = {**os.environ, "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": task}
        subprocess.run(["bash", str(file), *first], env=variables, check=True)
    assert [len(runs(entry)) for entry in batch.sequences] == [1, 0, 0, 1]
    assert current(batch)[3].job.slurm_job == "9_1"


def test_all_arrays_together_keep_to_what_may_run_at_once():
    assert at_once(10_000, ClusterConfig(parallel=100)) == 10
    assert at_once(10_000, ClusterConfig(parallel=16)) == 1
    assert at_once(1000, ClusterConfig(parallel=16)) == 16
    with pytest.raises(ConfigError, match="10000 sequences are 10 arrays"):
        at_once(10_000, ClusterConfig(parallel=9))


def test_a_setup_that_fails_runs_nothing_and_odd_paths_are_kept(tmp_path):
    batch = make_batch(tmp_path / "a%j b", a="0")
    script = array_script(batch, [0], ClusterConfig(setup=["false", "true"]))
    assert flags(script)["output"].endswith("a%%j b/batch/logs/slurm-%A_%a.txt")
    variables = {**os.environ, "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash", "-c", script], env=variables)
    assert done.returncode == 1
    assert current(batch)[0].state == "waiting"
    assert "export SLAMHMR_GRACE_S=120" in script


@pytest.mark.usefixtures("slurm")
def test_submission_without_slurm_is_one_line(tmp_path, monkeypatch):
    batch = make_batch(tmp_path, a="0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingAsset, match="no Slurm here"):
        submit(batch, [0], ClusterConfig())


def test_a_refused_submission_is_one_line(tmp_path, slurm):
    del slurm
    batch = make_batch(tmp_path, a="0", b="0")
    write_program(tmp_path / "bin", "sbatch", "echo 'invalid partition' >&2; exit 1")
    with pytest.raises(BackendError, match="invalid partition"):
        submit(batch, [0, 1], ClusterConfig(partition="nowhere"))
    assert read_submissions(batch.folder) == []


def test_what_a_cluster_does_not_take_at_once_is_submitted_by_the_next_command(
    tmp_path, monkeypatch
):
    """MaxSubmitJobs: the second array is refused."""
    batch = make_batch(tmp_path, a="0", b="0", c="0")
    taken = iter([["51_0", "51_1"]])

    def hand_over(batch, indices, cluster, share):
        tasks = next(taken, None)
        if tasks is None:
            raise BackendError("slurm refuses the jobs: job submit limit")
        return tasks

    monkeypatch.setattr("slamhmr.batch.cluster._submit_array", hand_over)
    with pytest.raises(BackendError, match="submit limit"):
        submit(batch, [0, 1, 2], ClusterConfig(array_size=2))
    write_program(tmp_path / "bin", "squeue", "echo '51_0|PENDING'; echo '51_1|PENDING'")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert chosen(batch, [], None) == [2]


def test_submitit_runs_our_worker_and_asks_what_our_script_asks(tmp_path, slurm):
    from batches import wait_until

    batch = make_batch(tmp_path, a="0", b="3 slamhmr: below the gates: feet slide", c="0")
    cluster = ClusterConfig(partition="main", time_min=7)
    assert submit(batch, [2, 1], cluster) == ["41"]
    (sent,) = read_submissions(batch.folder)
    assert sent.tasks == {"41_0": 2, "41_1": 1}
    wait_until(lambda: [now.state for now in current(batch)] == ["waiting", "below", "done"])
    assert current(batch)[2].job.slurm_job == "41_0"
    submitted, ours = flags(slurm.read_text()), flags(array_script(batch, [2, 1], cluster))
    differ = {"output", "array"}
    assert {key: submitted[key] for key in ours.keys() - differ} == {
        key: ours[key] for key in ours.keys() - differ
    }
    assert "wckey" not in submitted
