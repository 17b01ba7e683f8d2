"""`slamhmr batch` and `slamhmr status`: arguments, and the order of what they do."""

import argparse
import json
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slamhmr.errors import REQUEUE, ConfigError, InputError

if TYPE_CHECKING:
    from slamhmr.batch.cluster import ClusterConfig
    from slamhmr.batch.folder import Batch

    Commands = argparse._SubParsersAction["Words"]

LOG = logging.getLogger(__name__)
CLUSTER = "cluster."  # overrides that are the cluster's
DEFAULT_FOLDER = Path("batch")
WAIT_SECONDS = 20.0  # between two looks at the files of jobs on a cluster
INTERRUPTED = 130


def add_batch(commands: "Commands") -> None:
    """`batch` and `status`."""
    batch = commands.add_parser("batch", help="solve many sequences, here or on a cluster")
    batch.add_argument(
        "words", nargs="*", metavar="SEQ | 'GLOB' | FOLDER | list.txt | key=value",
        help="sequences (none: those of the batch), settings as for optimize, cluster.key=value",
    )  # fmt: skip
    batch.add_argument("--out", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="batch/")
    batch.add_argument("--results", type=Path, metavar="DIR", help="run folders DIR/NAME")
    batch.add_argument("--config", type=Path, action="append", default=[], metavar="FILE")
    batch.add_argument("--body-model", metavar="PATH", help="SMPL, SMPL-H or SMPL-X file")
    batch.add_argument("--executor", choices=("local", "slurm"), default="local")
    batch.add_argument("--workers", type=int, metavar="N", help="at most, beside cores and memory")
    batch.add_argument("--cluster", default="cpu", metavar="NAME|FILE", help="cpu, gpu or a file")
    batch.add_argument("--print-script", action="store_true", help="an sbatch script, run nothing")
    batch.add_argument("--retry", metavar="STATE,...", help="failed, lost, below, refused, input")
    batch.add_argument("--wait", action="store_true", help="until the cluster has finished")
    batch.set_defaults(run=run_batch)

    status = commands.add_parser("status", help="how the sequences of a batch went")
    status.add_argument("batch", type=Path, nargs="?", default=DEFAULT_FOLDER, metavar="BATCH")
    status.add_argument("--json", action="store_true", help="print everything as JSON")
    status.set_defaults(run=run_status)


def run_status(options: argparse.Namespace) -> int:
    """Print the table (or JSON), write the manifest; 0, 1, 3 or 75 as `table.exit_code`."""
    from slamhmr.batch.folder import read_batch
    from slamhmr.batch.states import current
    from slamhmr.batch.table import as_json, exit_code, table, write_manifest

    batch = read_batch(options.batch.absolute())
    jobs = current(batch)
    print(json.dumps(as_json(batch, jobs), indent=1) if options.json else table(jobs))
    if os.access(batch.folder, os.W_OK):
        write_manifest(batch, jobs)
    else:
        LOG.info("no manifest: '%s' may not be written to", batch.folder)
    return exit_code(jobs)


def run_batch(options: argparse.Namespace) -> int:
    """Add what is named to the batch, choose what is to be run, run or submit it."""
    from slamhmr.batch.cluster import array_script, load_cluster
    from slamhmr.batch.folder import BATCH, locked, log_path
    from slamhmr.batch.plan import LOCK, asked, chosen, planned, require_components

    named, settings = split_words(options.words)
    cluster = load_cluster(options.cluster, [s for s in settings if s.startswith(CLUSTER)])
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers {options.workers}: at least 1 is needed")
    solving = [setting for setting in settings if not setting.startswith(CLUSTER)]
    if options.body_model is not None:
        solving.append(f"body.model={options.body_model}")
    wanted = asked(named, options.config, solving)
    folder = options.out.absolute()
    if len(wanted.paths) == 0 and not folder.is_dir():
        raise InputError(f"no sequences are named, and there is no batch '{folder}' to go on with")
    if not wanted.plain or not (folder / BATCH).exists():
        require_components(wanted, options.results, here=options.executor == "local")
    with locked(folder / LOCK) as mine:
        if not mine:
            raise InputError(f"batch '{folder}' is in use by another 'slamhmr batch'")
        batch = planned(folder, wanted, options.results)
        indices = chosen(batch, wanted.paths, options.retry)
        _require_no_strangers(batch)
        if options.print_script:
            log_path(folder, 0).parent.mkdir(exist_ok=True)  # Slurm starts no job without it
            print(array_script(batch, indices, cluster) if len(indices) > 0 else "", end="")
            return 0
        if options.executor == "local":
            return _run_here(batch, indices, options.workers)
        _submit(batch, indices, cluster)
    return _wait(batch) if options.wait else 0


def _require_no_strangers(batch: "Batch") -> None:
    """Raise InputError where jobs of the batch are queued of which we do not know what they run."""
    from slamhmr.batch.states import strangers

    found = strangers(batch)
    if len(found) > 0:
        raise InputError(
            f"job {', '.join(found)} of this batch waits in Slurm's queue already (a printed "
            "script's, or of a submission that was cut off): let it begin, or scancel it"
        )


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of sequences, and settings: words with "=" that are no path that exists."""
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    return [word for word in words if word not in settings], settings


def _run_here(batch: "Batch", indices: list[int], workers: int | None) -> int:
    from slamhmr.batch.plan import config_of
    from slamhmr.batch.pool import Pool
    from slamhmr.batch.sizes import this_machine

    machine = this_machine()
    gpu_each = config_of(batch.arguments).device != "cpu" and len(machine.gpus) > 0
    most = max(1, machine.cores // batch.threads)
    most = min([most, *([len(machine.gpus)] if gpu_each else []), *([workers] if workers else [])])
    if len(indices) > 0:
        LOG.info("%d sequences, up to %d at once", len(indices), most)
    pool = Pool(batch, machine, most, gpu_each)
    stopped = pool.run(indices)
    code = _conclude(batch)
    if stopped is None:
        return code
    LOG.info("stopped by a signal; what was done is kept, run again to go on")
    return INTERRUPTED if stopped == signal.SIGINT else REQUEUE


def _submit(batch: "Batch", indices: list[int], cluster: "ClusterConfig") -> None:
    from slamhmr.batch.cluster import submit

    jobs = submit(batch, indices, cluster) if len(indices) > 0 else []
    for job in jobs:
        LOG.info("submitted: %s", job)
    LOG.info("'slamhmr status %s' tells how they go", batch.folder)


def _wait(batch: "Batch") -> int:
    """Wait until nothing is queued or running any more; then as a local batch."""
    from slamhmr.batch.states import current

    while any(not now.startable for now in current(batch)):
        time.sleep(WAIT_SECONDS)
    return _conclude(batch)


def _conclude(batch: "Batch") -> int:
    """Write the manifest, say how it went, and return the exit code of `status`."""
    from slamhmr.batch.states import current
    from slamhmr.batch.table import exit_code, totals, write_manifest

    jobs = current(batch)
    for path in write_manifest(batch, jobs):
        LOG.info("manifest: %s", path)
    print(f"{totals(jobs)}; slamhmr status {batch.folder}")
    return exit_code(jobs)
