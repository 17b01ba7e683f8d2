"""Slurm: settings of a cluster, the sbatch script of an array, submission through submitit."""

import math
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slamhmr.batch.folder import (
    Batch,
    Submission,
    import_path,
    job_name,
    worker_command,
    write_submission,
)
from slamhmr.batch.sizes import GIB, need
from slamhmr.config import build, config_folder, parse_overrides, read_yaml, suggestion
from slamhmr.errors import BackendError, ConfigError, MissingAsset
from slamhmr.preemption import GRACE, PATIENCE

FOLDER = "cluster"  # in configs/; also what overrides begin with
MARGIN = 1.25  # of the memory asked for over the estimate: a job above it is killed


@dataclass(frozen=True)
class ClusterConfig:
    """What every job of an array asks of Slurm; `configs/cluster/*.yaml`."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 0  # per sequence
    cpus: int | None = None  # per sequence; null: as many as it has threads
    memory_gib: float | None = None  # per sequence; null: estimated from the largest one
    time_min: int = 240  # wall clock of one attempt; what is not done then goes on in the next
    parallel: int = 100  # sequences at once, in all arrays of a submission together
    array_size: int = 1000  # tasks in one array; Slurm's MaxArraySize is 1001 unless set
    signal_s: int = 120  # before the end of the time (and of a grace time) to checkpoint
    requeue: bool = True  # may be run again by Slurm when preempted or when its node dies
    setup: list[str] = field(default_factory=list)  # shell lines before: module load ...
    extra: dict[str, str] = field(default_factory=dict)  # any other option of sbatch


def load_cluster(name: str, overrides: Sequence[str]) -> ClusterConfig:
    """Settings of configs/cluster/NAME.yaml or of a file, overridden by `cluster.key=value`.

    Raises ConfigError for an unknown name, key or a value that does not fit.
    """
    shipped = {path.stem: path for path in sorted((config_folder() / FOLDER).glob("*.yaml"))}
    path = shipped.get(name, Path(name))
    if name not in shipped and not path.is_file():
        raise ConfigError(f"cluster '{name}' is no file; {suggestion(name, list(shipped))}")
    content = read_yaml(path)
    build(ClusterConfig, content, str(path))  # so that an error names the file
    given: dict[str, Any] = parse_overrides(overrides).get(FOLDER, {})
    cluster = build(ClusterConfig, {**content, **given}, FOLDER)
    least = {"time_min": 1, "parallel": 1, "array_size": 1, "signal_s": int(PATIENCE) + 5}
    for key, value in least.items():
        if getattr(cluster, key) < value:
            raise ConfigError(f"{FOLDER}.{key}={getattr(cluster, key)}: at least {value} is needed")
    return cluster


def sbatch_options(batch: Batch, indices: Sequence[int], cluster: ClusterConfig) -> dict[str, Any]:
    """Long options of sbatch by name; True is an option without a value."""
    largest = max(need(batch.sequences[index], batch.threads) for index in indices)
    memory = cluster.memory_gib or math.ceil(MARGIN * largest / GIB)
    options: dict[str, Any] = {
        "job-name": job_name(batch.folder),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "gres": f"gpu:{cluster.gpus}" if cluster.gpus > 0 else None,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": cluster.cpus or batch.threads,
        "mem": f"{round(memory * 1024)}M",
        "time": cluster.time_min,
        "signal": f"B:USR1@{cluster.signal_s}",
        "requeue" if cluster.requeue else "no-requeue": True,
        "open-mode": "append",
        "chdir": batch.cwd,
        **cluster.extra,
    }
    return {key: value for key, value in options.items() if value is not None}


def array_script(batch: Batch, indices: Sequence[int], cluster: ClusterConfig) -> str:
    """A plain sbatch script: an array in which every task execs our worker.

    `exec` makes the worker the batch shell, so that the signals of Slurm (B:) reach it.
    """
    last = min(len(indices), cluster.array_size) - 1
    options = {
        **sbatch_options(batch, indices, cluster),
        "array": f"0-{last}%{at_once(len(indices), cluster)}",
        "output": f"{str(batch.folder).replace('%', '%%')}/logs/slurm-%A_%a.txt",
    }
    flags = [
        f"#SBATCH --{key}" + ("" if value is True else f"={shlex.quote(str(value))}")
        for key, value in options.items()
    ]
    worker = shlex.join(worker_command(batch.folder))
    return "\n".join(
        [
            "#!/bin/bash",
            *flags,
            *_how_to_submit(len(indices), cluster),
            *setup_lines(cluster),
            f"INDICES=({' '.join(str(index) for index in indices)})",
            f'exec {worker} "${{INDICES[SLURM_ARRAY_TASK_ID + ${{1:-0}}]}}" --slurm',
            "",
        ]
    )


def at_once(count: int, cluster: ClusterConfig) -> int:
    """Tasks that each array of `count` sequences may run at once, so that all keep to `parallel`.

    Raises ConfigError where there would be more arrays than that.
    """
    arrays = math.ceil(count / cluster.array_size)
    if arrays > cluster.parallel:
        raise ConfigError(
            f"{FOLDER}.parallel={cluster.parallel}: {count} sequences are {arrays} arrays of "
            f"{FOLDER}.array_size={cluster.array_size}, which run at once; raise one of the two "
            "(scontrol show config tells MaxArraySize), or submit fewer sequences"
        )
    return cluster.parallel // max(arrays, 1)


def _how_to_submit(count: int, cluster: ClusterConfig) -> list[str]:
    """Comments on how an array that is too long is handed over in pieces."""
    size = cluster.array_size
    if count <= size:
        return []
    share = at_once(count, cluster)
    pieces = [
        f"#   sbatch --array=0-{min(size, count - first) - 1}%{share} THIS_FILE {first}"
        for first in range(0, count, size)
    ]
    return [f"# {count} sequences, {size} to an array (cluster.array_size):", *pieces]


def setup_lines(cluster: ClusterConfig) -> list[str]:
    """Shell lines before the worker; a checkout that is not installed is put on the path.

    The first of `setup` that fails ends the job.
    """
    lines = ["set -e", *cluster.setup, f"export {GRACE}={cluster.signal_s}"]
    path = import_path()
    if path is not None:
        lines.append(f"export PYTHONPATH={shlex.quote(path)}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines


def become_worker(folder: str, index: int) -> None:
    """What submitit calls on the node: the process becomes our worker.

    So submitit's own handling of signals and requeueing ends here, and there is one way only.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    argv = [*worker_command(Path(folder)), str(index), "--slurm"]
    os.execv(argv[0], argv)


def submit(batch: Batch, indices: Sequence[int], cluster: ClusterConfig) -> list[str]:
    """Hand sequences to Slurm through submitit, as few arrays as may be; returns their job ids.

    Raises MissingAsset without submitit or Slurm, BackendError if Slurm refuses.
    """
    submitted = []
    share = at_once(len(indices), cluster)
    for first in range(0, len(indices), cluster.array_size):
        piece = list(indices[first : first + cluster.array_size])
        began = time.time()
        tasks = _submit_array(batch, piece, cluster, share)
        job = tasks[0].split("_")[0]
        write_submission(batch.folder, Submission(job, dict(zip(tasks, piece, strict=True)), began))
        submitted.append(job)
    return submitted


def _submit_array(
    batch: Batch, indices: list[int], cluster: ClusterConfig, share: int
) -> list[str]:
    """Task ids of one array, `share` of which may run at once, in the order of `indices`."""
    try:
        import submitit
    except ImportError as e:
        raise MissingAsset("package 'submitit' is not installed: pip install submitit") from e
    try:
        executor = submitit.SlurmExecutor(
            folder=batch.folder / "submitit", python=f"exec {shlex.quote(sys.executable)}"
        )
    except RuntimeError as e:
        raise MissingAsset(
            f"no Slurm here ({e}); run where sbatch and srun are installed, or with --print-script "
            "and sbatch there, or with --executor local"
        ) from e
    options = sbatch_options(batch, indices, cluster)
    executor.update_parameters(
        time=cluster.time_min,
        array_parallelism=share,
        use_srun=False,  # `exec` makes the process the batch shell, as in our own script
        stderr_to_stdout=True,
        wckey=None,
        setup=setup_lines(cluster),
        additional_parameters={key.replace("-", "_"): value for key, value in options.items()},
    )
    try:
        jobs = executor.map_array(become_worker, [str(batch.folder)] * len(indices), indices)
    except RuntimeError as e:
        raise BackendError(f"slurm refuses the jobs: {' '.join(str(e).split())}") from e
    return [job.job_id for job in jobs]
