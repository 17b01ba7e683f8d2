"""Import of many recordings into one directory of motion files."""

import logging
from collections.abc import Sequence
from pathlib import Path

from slamhmr.errors import InputError
from slamhmr.motions.motion import SUFFIXES, LostHeight, import_motion, save_motion

log = logging.getLogger(__name__)
NOT_MOTION = frozenset({"readme", "license", "licence", "index"})  # texts that lie beside data


def import_motions(sources: Sequence[Path], out: Path, *, fps: float | None = None) -> list[Path]:
    """Write one motion file `FOLDER_NAME.npz` per recording; returns the paths written.

    `sources` are files or directories, which are searched. `fps` overrides the rate of every file.
    Recordings without the pelvis' vertical motion are left out with a warning.

    Raises:
        InputError: a source is missing or unreadable, nothing was found, or two recordings would
            get the same name.
    """
    files = find_recordings(sources)
    targets: dict[Path, Path] = {}
    for path in files:
        target = out / f"{path.resolve().parent.name}_{path.stem}.npz"
        if target in targets:
            raise InputError(
                f"motions '{targets[target]}' and '{path}' would both become '{target.name}'; "
                "import them into different directories"
            )
        targets[target] = path
    written = []
    for number, (target, path) in enumerate(targets.items(), start=1):
        try:
            motion = import_motion(path, fps=fps)
        except LostHeight as error:
            log.warning("left out: %s", error)
            continue
        save_motion(target, motion)
        log.info(
            "%d/%d %s: %.1f s, a foot on the floor for %.0f %%",
            number, len(targets), target.name, len(motion.pelvis) / motion.fps,
            100 * float((motion.contacts > 0.5).any(dim=1).double().mean()),
        )  # fmt: skip
        written.append(target)
    return written


def find_recordings(sources: Sequence[Path]) -> list[Path]:
    """Files of the known kinds among `sources` and below them, sorted, texts left out."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = [p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
            files += sorted(p for p in inside if p.stem.lower() not in NOT_MOTION)
        elif source.is_file():
            files.append(source)
        else:
            raise InputError(f"motion '{source}': no such file or directory")
    if len(files) == 0:
        raise InputError(
            f"no recording in {', '.join(str(s) for s in sources)}; known: {', '.join(SUFFIXES)}"
        )
    return list(dict.fromkeys(files))
