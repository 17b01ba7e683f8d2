"""Sequence directories with several views: views/NAME/ beside, or instead of, their own files."""

import dataclasses
from pathlib import Path

from slamhmr.config import read_yaml
from slamhmr.constraints import read_constraints
from slamhmr.errors import InputError
from slamhmr.sequence import (
    CAMERAS,
    CONSTRAINTS,
    OBSERVATIONS,
    SETTINGS,
    Sequence,
    SequenceSettings,
    find_video,
    open_sequence,
    read_settings,
)

VIEWS = "views"
MAIN = "main"  # name of the main view whose files lie at the top
OF_PEOPLE = ("people", "height_m")  # what only the sequence.yaml at the top may say
SAME_RATE = 1e-3


def open_clip(folder: Path) -> Sequence:
    """The sequence of a directory; with views/NAME/, the main view's, the others in its `views`.

    The main view is that of the files at the top, or where there are none the first by name.
    Raises as `open_sequence`, and InputError if views have different lengths or frame rates or a
    view's files say what belongs to the top.
    """
    inside = folder / VIEWS
    folders = sorted(p for p in inside.iterdir() if p.is_dir()) if inside.is_dir() else []
    if len(folders) == 0:
        return open_sequence(folder)
    views = [_open_view(path, path.name) for path in folders]
    for view in views:
        _refuse_people(view)
    if _has_files(folder):
        main = _open_view(folder, MAIN)
        if any(view.folder.name == MAIN for view in views):
            raise InputError(f"'{inside / MAIN}': that name is the one of the files at the top")
    else:
        main, views = _main_of(folder, views[0]), views[1:]
    for view in views:
        _require_together(main, view)
    return dataclasses.replace(main, views=tuple(views))


def uncalibrated(name: str, why: str = "has no cameras.npz") -> InputError:
    """What to say of a view whose place among the others nobody knows."""
    return InputError(
        f"view '{name}' {why}: several views need the cameras of all in one world, in metres; "
        "'slamhmr calibration FILE --seq DIR' makes them of a Qualisys or TOML calibration"
    )


def _open_view(folder: Path, name: str) -> Sequence:
    """A view's sequence. Raises as `open_sequence`, and where observations lie without cameras."""
    seen = any((folder / file).exists() for file in OBSERVATIONS)
    if seen and not any((folder / file).exists() for file in CAMERAS):
        raise uncalibrated(name)
    return open_sequence(folder)


def _has_files(folder: Path) -> bool:
    """True if the top holds a view of its own."""
    settings = read_yaml(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    named = any((folder / name).exists() for name in (*OBSERVATIONS, *CAMERAS))
    return named or find_video(folder, settings.get("video")) is not None


def _main_of(folder: Path, first: Sequence) -> Sequence:
    """The first view as the main one, with what the top says of people."""
    content = read_yaml(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    for key in content:
        if key not in OF_PEOPLE:
            raise InputError(
                f"'{folder / SETTINGS}': '{key}' belongs into {VIEWS}/NAME/{SETTINGS}; at the top, "
                f"without files of a view, stand {' and '.join(OF_PEOPLE)} alone"
            )
    if (first.folder / CONSTRAINTS).exists():
        raise InputError(f"'{first.folder / CONSTRAINTS}' belongs into '{folder}'")
    said = read_settings(folder / SETTINGS)
    of_people = {name: getattr(said, name) for name in OF_PEOPLE}
    settings = dataclasses.replace(first.settings, **of_people)
    constraints = read_constraints(folder / CONSTRAINTS)
    return dataclasses.replace(
        first, folder=folder, settings=settings, constraints=constraints,
        view_name=first.folder.name,
    )  # fmt: skip


def _refuse_people(view: Sequence) -> None:
    plain = SequenceSettings()
    for name in OF_PEOPLE:
        if getattr(view.settings, name) != getattr(plain, name):
            raise InputError(f"'{view.folder / SETTINGS}': '{name}' belongs to the top directory's")


def _require_together(main: Sequence, view: Sequence) -> None:
    """Raise InputError if two videos cannot be of the same frames."""
    if main.video is None or view.video is None:
        return
    require_same_frames(
        view.folder.name, (view.video.frame_count, view.video.fps),
        (main.video.frame_count, main.video.fps),
    )  # fmt: skip


def require_same_frames(name: str, own: tuple[int, float], main: tuple[int, float]) -> None:
    """Raise InputError if a view's frame count or rate is not the main view's."""
    if abs(own[1] / main[1] - 1) > SAME_RATE:
        raise InputError(
            f"view '{name}' has {own[1]:g} frames per second, the main view {main[1]:g}; views "
            "must be synchronised frame by frame"
        )
    if own[0] != main[0]:
        raise InputError(
            f"view '{name}' has {own[0]} frames, the main view {main[0]}; name the common span of "
            "each as frames: [first, last] in its sequence.yaml"
        )
