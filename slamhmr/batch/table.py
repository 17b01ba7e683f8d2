"""One table of all sequences of a batch, on the terminal and as a manifest."""

import csv
import dataclasses
import io
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slamhmr.atomic import atomic, write_text
from slamhmr.batch.folder import Batch
from slamhmr.batch.states import FAILED, UNFINISHED, WORDS, Now
from slamhmr.errors import REQUEUE

LOG = logging.getLogger(__name__)
MANIFEST = "manifest.csv"
PARQUET = "manifest.parquet"
ALL_PASSED, SOME_FAILED, SOME_BELOW, NOT_FINISHED = 0, 1, 3, REQUEUE
RESULT = "result.npz"
REASON_WIDTH = 110


def counts(jobs: Sequence[Now]) -> dict[str, int]:
    """How many jobs are in each state, in the order of `WORDS`; only states that some are in."""
    found = {word: sum(job.state == word for job in jobs) for word in WORDS}
    return {word: count for word, count in found.items() if count > 0}


def exit_code(jobs: Sequence[Now]) -> int:
    """75 while something is not finished; else 1 where something failed, 3 where gates fail, 0."""
    states = {job.state for job in jobs}
    if not states.isdisjoint(UNFINISHED):
        return NOT_FINISHED
    if not states.isdisjoint(FAILED):
        return SOME_FAILED
    return SOME_BELOW if "below" in states else ALL_PASSED


def totals(jobs: Sequence[Now]) -> str:
    """One line: how many of what."""
    parts = [f"{count} {word}" for word, count in counts(jobs).items()]
    return f"{len(jobs)} sequences: {', '.join(parts)}"


def table(jobs: Sequence[Now]) -> str:
    """The table of `slamhmr status`, its totals at the end."""
    rows = [("#", "sequence", "state", "try", "seconds", "reason")]
    for now in jobs:
        seconds = "" if now.job.seconds is None else f"{now.job.seconds:.0f}"
        short = now.reason if len(now.reason) <= REASON_WIDTH else now.reason[:REASON_WIDTH] + "..."
        attempt = str(now.job.attempt) if now.job.attempt > 0 else ""
        rows.append((str(now.job.index), now.job.name, now.state, attempt, seconds, short))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in (0, 3, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, totals(jobs)])


def as_json(batch: Batch, jobs: Sequence[Now]) -> dict[str, Any]:
    """Everything that `slamhmr status --json` tells."""
    return {
        "batch": str(batch.folder),
        "counts": counts(jobs),
        "exit_code": exit_code(jobs),
        "jobs": [
            {**dataclasses.asdict(now.job), "state": now.state, "reason": now.reason}
            for now in jobs
        ],
    }


def manifest_rows(batch: Batch, jobs: Sequence[Now]) -> list[dict[str, Any]]:
    """One row per sequence; numbers of the report where there is one, else None."""
    gates = sorted({name for now in jobs for name in now.job.facts.get("gates", {})})
    return [_row(batch, now, gates) for now in jobs]


def _row(batch: Batch, now: Now, gates: Sequence[str]) -> dict[str, Any]:
    job, entry, facts = now.job, batch.sequences[now.job.index], now.job.facts
    scale, percent = facts.get("scale"), facts.get("scale_std_percent")
    result = Path(entry.run) / RESULT
    return {
        "index": job.index,
        "name": job.name,
        "path": entry.path,
        "state": now.state,
        "exit_code": job.exit_code,
        "reason": now.reason,
        "frames": facts.get("frames") or entry.frames or None,
        "people": facts.get("people") or entry.people or None,
        "scale": scale,
        "scale_std": None if scale is None or percent is None else scale * percent / 100,
        **{f"gate_{name}": facts.get("gates", {}).get(name) for name in gates},
        "seconds": job.seconds,
        "cpu_seconds": job.cpu_seconds,
        "peak_mib": job.peak_mib,
        "attempts": job.attempt,
        "version": facts.get("version"),
        "result": str(result) if now.state in ("done", "below") else None,
    }


def write_manifest(batch: Batch, jobs: Sequence[Now]) -> list[Path]:
    """Write manifest.csv, and manifest.parquet where pyarrow is installed; returns the paths."""
    rows = manifest_rows(batch, jobs)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(batch.folder / MANIFEST, text.getvalue())
    written = [batch.folder / MANIFEST]
    if find_spec("pyarrow") is None:
        LOG.info("no %s: package 'pyarrow' is not installed (pip install pyarrow)", PARQUET)
        return written
    import pyarrow
    from pyarrow import parquet

    with atomic(batch.folder / PARQUET) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)
    return [*written, batch.folder / PARQUET]
