"""Where a step takes its input from: a file that is given, or the pixels."""

import dataclasses
from pathlib import Path
from typing import Any

from slamhmr.errors import InputError
from slamhmr.sequence import Sequence
from slamhmr.types import Video


def choose(asked: str, given: Path | None, otherwise: str) -> str:
    """Name of the backend: the one asked for, else "file" where there is one, else `otherwise`."""
    if asked != "auto":
        return asked
    return "file" if given is not None else otherwise


def required(path: Path | None, name: str) -> Path:
    """The path. Raises InputError if the sequence directory has no such file."""
    if path is None:
        raise InputError(f"'{name}' is not in the sequence directory, but the config asks for it")
    return path


def with_file(options: Any, module: Any, folder: Path) -> Any:
    """Options of a backend that reads somebody's file, with the `path` of the one in `folder`.

    For modules with `FILES`, the published names that are looked for ("*": anything); a path that
    is set stays. Raises InputError if a name with "*" fits several files.
    """
    if not hasattr(module, "FILES") or options.path != "":
        return options
    for name in module.FILES:
        found = sorted(folder.glob(name))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(f"'{folder}' holds several '{name}' ({names}); set the path option")
        if len(found) == 1:
            return dataclasses.replace(options, path=str(found[0]))
    return options


def read_files(options: Any, module: Any) -> list[Path]:
    """The files that a backend (a module) of `with_file`, or one that is named "file", reads."""
    if not hasattr(module, "FILES") and not module.__name__.endswith(".file"):
        return []
    path = Path(options.path).expanduser()
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    return [path] if path.is_file() else []


def pixels(sequence: Sequence, wanted_by: str) -> Video:
    """The video. Raises InputError naming what needs it if there is none."""
    if sequence.video is None:
        raise InputError(f"'{sequence.folder}' holds no video, which {wanted_by} needs")
    return sequence.video


def input_files(sequence: Sequence, given: Path | None, *made: Path) -> list[Path]:
    """The files a step reads: the given file where there is one, the pixels otherwise."""
    if given is not None:
        return [given, *made]
    return [*([sequence.video.path] if sequence.video is not None else []), *made]


def shooting(sequence: Sequence) -> list[object]:
    """What sequence.yaml says of the pixels: the rest of it leaves the first steps alone."""
    settings = sequence.settings
    return [settings.fps, settings.frames, settings.intrinsics, settings.distortion]
