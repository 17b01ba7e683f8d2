"""Rows of measurements as aligned text and as csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from slamhmr.artifacts import write_text

Row = Mapping[str, float | int | str]


def format_rows(rows: Sequence[Row]) -> str:
    """Text with one line per row under the names of all columns; '-' where a row lacks one."""
    names = columns(rows)
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """The rows at full precision, one column per name."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def columns(rows: Sequence[Row]) -> list[str]:
    """Names of all columns, in the order in which rows bring them."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
