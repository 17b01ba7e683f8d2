"""Which sequences a command names: directories, globs, folders of directories, text files."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

from slamhmr.batch.folder import Entry
from slamhmr.errors import InputError

LOG = logging.getLogger(__name__)
WILD = "*?["
# One of these makes a directory a sequence; as `sequence.py` and `viewfolders.py` read them, which
# are not imported for they bring torch.
CONTENT = ("sequence.yaml", "observations.npz", "images", "views")
VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
RUN = "slamhmr"  # run folder inside a sequence directory
NAMED = 5  # names in an error message


def find_sequences(words: Sequence[str]) -> list[Path]:
    """Absolute paths of the sequence directories that `words` name, in their order.

    Raises InputError for what does not exist, for a glob or folder without sequences, and for a
    sequence that is named twice.
    """
    found: list[Path] = []
    for word in words:
        found += _named_by(word)
    seen: set[Path] = set()
    for path in found:
        if path in seen:
            raise InputError(f"sequence '{path}' is named twice")
        seen.add(path)
    return found


def make_entries(
    paths: Sequence[Path], results: Path | None, known: Sequence[Entry]
) -> list[Entry]:
    """Entries of the sequences that `known` does not have yet.

    Run folders are SEQ/slamhmr, or with `results` a folder of the sequence's name in it. Raises
    InputError if two sequences would share one, or a known one would get another.
    """
    by_path = {entry.path: entry for entry in known}
    by_run = {entry.run: entry for entry in known}
    entries: list[Entry] = []
    for path in paths:
        run = path / RUN if results is None else results.absolute() / path.name
        old = by_path.get(str(path))
        if old is not None:
            if old.run != str(run):
                raise InputError(f"'{path}' has its run folder '{old.run}' in this batch already")
            continue
        other = by_run.get(str(run))
        if other is not None:
            raise InputError(
                f"sequences '{other.path}' and '{path}' would share the run folder '{run}'; "
                "put them into batches with different --results"
            )
        entry = Entry(path.name, str(path), str(run))
        by_run[entry.run] = entry
        entries.append(entry)
    return entries


def is_sequence(path: Path) -> bool:
    """Whether a directory holds anything that a run could start from."""
    if any((path / name).exists() for name in CONTENT):
        return True
    return any(p.suffix.lower() in VIDEO_SUFFIXES for p in path.iterdir())


def _named_by(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.is_dir():
        if is_sequence(path):
            return [path.resolve()]
        inside = _sequences_among(sorted(path.iterdir()), f"'{path}'")
        if not any(path.iterdir()):
            raise InputError(f"'{path}' is empty: no sequence, and none inside")
        return inside if len(inside) > 0 else [path.resolve()]  # its run will say what it lacks
    if path.is_file():
        return _listed(path)
    if any(mark in word for mark in WILD):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        inside = _sequences_among(matches, f"'{word}'")
        if len(inside) == 0:
            raise InputError(f"'{word}' matches no sequence directory")
        return inside
    raise InputError(
        f"'{word}' does not exist; name sequence directories, a folder of them, a quoted glob or a "
        "text file with one path per line (settings are key=value)"
    )


def _sequences_among(paths: Sequence[Path], where: str) -> list[Path]:
    folders = [path for path in paths if path.is_dir() and not path.name.startswith(".")]
    found = [path.resolve() for path in folders if is_sequence(path)]
    left = [path.name for path in folders if not is_sequence(path)]
    if len(left) > 0 and len(found) > 0:
        more = ", ..." if len(left) > NAMED else ""
        LOG.info("left out of %s, no sequences: %s%s", where, ", ".join(left[:NAMED]), more)
    return found


def _listed(path: Path) -> list[Path]:
    """Sequences of a text file, one path per line, relative to the file; # begins a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as e:
        raise InputError(f"'{path}' is no text file with one sequence per line") from e
    names = [name for name in (line.partition("#")[0].strip() for line in lines) if name != ""]
    found = [(path.parent / Path(name).expanduser()).resolve() for name in names]
    missing = [str(folder) for folder in found if not folder.is_dir()]
    if len(missing) > 0:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        named = ", ".join(f"'{name}'" for name in missing[:NAMED])
        raise InputError(f"'{path}' names what is no directory: {named}{more}")
    if len(found) == 0:
        raise InputError(f"'{path}' names no sequence")
    return found
