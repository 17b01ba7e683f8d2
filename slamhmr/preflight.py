"""What a run is going to lack: all of it, before any work is done and any folder is made."""

from collections.abc import Iterable
from pathlib import Path

from slamhmr.body_files import lacking_body
from slamhmr.components import Lack, lacking_file, require
from slamhmr.config import Config, backend_options
from slamhmr.device import lacking as lacking_device
from slamhmr.errors import ConfigError, InputError
from slamhmr.export.rasterise import lacking as lacking_renderer
from slamhmr.registry import backend
from slamhmr.sequence import Sequence
from slamhmr.sources import choose, with_file
from slamhmr.terms.priors import OWN
from slamhmr.viewfolders import VIEWS, open_clip

# What a step leaves in its run folder; where it stands, the step may not have to run.
LEAVES = {"detect": "1_observations.npz", "slam": "2_cameras.npz", "init": "3_initial.npz"}
FILES = {"detect": "observations.npz", "slam": "cameras.npz", "init": "initial.npz"}
DEFAULTS = {"detect": "blazepose", "slam": "auto", "init": "lift"}


def checked_clip(folder: Path, config: Config, run: Path, *, overwrite: bool) -> Sequence:
    """The sequence of a directory, after asking every backend of the run what it lacks.

    Raises MissingAsset with every lack and what gets it, InputError and ConfigError as `open_clip`.
    """
    sequence, lacks = asked_clip(folder, config, run, overwrite=overwrite)
    require(lacks)
    assert sequence is not None
    return sequence


def common_lacks(clips: Iterable[tuple[Path, Path]], config: Config) -> list[Lack]:
    """What all of many sequences lack, given as directory and run folder.

    Directories that cannot be opened count for nothing: their own runs say so.
    """
    common: list[Lack] | None = None
    for folder, run in clips:
        try:
            sequence, lacks = asked_clip(folder, config, run, overwrite=False)
        except InputError:
            continue
        if sequence is not None:
            common = [lack for lack in common if lack in lacks] if common is not None else lacks
        if common == []:
            break
    return common or []


def asked_clip(
    folder: Path, config: Config, run: Path, *, overwrite: bool
) -> tuple[Sequence | None, list[Lack]]:
    """The sequence of a directory, None if it cannot be opened, and all that its run lacks.

    A step that has left its file in the run folder `run` is not asked, unless `overwrite`: what a
    machine with a GPU has made can be worked on without one (the step asks again if it must run).
    Raises InputError if the directory cannot be opened and nothing else is lacking, ConfigError.
    """
    lacks = [*lacking_body(config.body.model), *lacking_pinned("body", config.body, config)]
    lacks += lacking_terms(config)
    lacks += lacking_device(config.device)
    lacks += lacking_renderer(config.overlay.renderer) if config.overlay.enabled else []
    try:
        sequence = open_clip(folder)
    except InputError as e:
        names = [(kind, choose(getattr(config, kind), None, DEFAULTS[kind])) for kind in LEAVES]
        lacks = [*lacking_backends(names, config), *lacks]
        if len(lacks) > 0:
            return None, [Lack(str(e), "give --seq a sequence directory (README)"), *lacks]
        raise
    views = [sequence, *sequence.views]
    folders = [run / VIEWS / view for view in _names(sequence)] if len(views) > 1 else [run]
    chosen: list[tuple[str, str]] = []
    inputs: list[Lack] = []
    for view, own in zip(views, folders, strict=True):
        done = [kind for kind in LEAVES if (own / LEAVES[kind]).exists() and not overwrite]
        if len(views) > 1:
            done.append("slam")  # several views have files of cameras; `multiview` looks at them
        names = [pair for pair in backends(view, config) if pair[0] not in done]
        inputs += _lacking_inputs(view, names)
        chosen += names
    return sequence, [*inputs, *lacking_backends(chosen, config, folder), *lacks]


def backends(view: Sequence, config: Config) -> list[tuple[str, str]]:
    """Kind and name of the backends that make steps 1 to 3 of a view."""
    default = {**DEFAULTS, **({"slam": "static"} if view.settings.camera == "static" else {})}
    given = _given(view)
    return [(kind, choose(getattr(config, kind), given[kind], default[kind])) for kind in LEAVES]


def lacking_backends(
    chosen: list[tuple[str, str]], config: Config, folder: Path | None = None
) -> list[Lack]:
    """What the backends, by kind and name, lack with their options of the configuration.

    `folder`: the sequence directory, where some look for their file.
    """
    lacks: list[Lack] = []
    for kind, name in dict.fromkeys(chosen):
        module = backend(kind, name)
        if name != "file":
            options = backend_options(module.Options, name, config)
            options = options if folder is None else with_file(options, module, folder)
            lacks += module.lacking(options) if hasattr(module, "lacking") else []
            lacks += lacking_pinned(name, options, config)
    return lacks


def lacking_pinned(name: str, options: object, config: Config) -> list[Lack]:
    """Files whose sha256 is not the one that the configuration pins (`sha256.<name>.<option>`)."""
    lacks: list[Lack] = []
    for option, digest in config.sha256.get(name, {}).items():
        path = getattr(options, option, None)
        if not isinstance(path, str | Path):
            raise ConfigError(f"sha256.{name}.{option}: options.{name} names no such file")
        get = f"get the file that was pinned, or correct sha256.{name}.{option}"
        lacks += lacking_file(path, f"options.{name}.{option}", get, sha256=digest)
    return lacks


def lacking_terms(config: Config) -> list[Lack]:
    """Weights files that terms of scheduled stages name and that are not there."""
    lacks: list[Lack] = []
    get = "run `slamhmr convert` on the official checkpoint (docs/official-networks.md)"
    for stage in config.schedule:
        for term, settings in config.stages[stage].terms.items():
            weights = settings.get("weights", "")
            if isinstance(weights, str) and weights not in ("", OWN):
                lacks += lacking_file(weights, f"weights of term '{term}', stage '{stage}'", get)
    return lacks


def _given(view: Sequence) -> dict[str, Path | None]:
    return {"detect": view.observations, "slam": view.cameras, "init": view.initial}


def _names(sequence: Sequence) -> list[str]:
    return [sequence.view_name, *(view.folder.name for view in sequence.views)]


def _lacking_inputs(view: Sequence, chosen: list[tuple[str, str]]) -> list[Lack]:
    """Pixels and files that the backends are to read and the sequence directory does not have."""
    given = _given(view)
    files = [
        Lack(
            f"'{FILES[kind]}' is not in the sequence directory, but {kind}=file asks for it",
            f"put it into '{view.folder}'",
        )
        for kind, name in chosen
        if name == "file" and given[kind] is None
    ]
    wanted = [f"{kind}={name}" for kind, name in chosen if kind != "init" and name != "file"]
    if view.video is not None or len(wanted) == 0:
        return files
    what = f"'{view.folder}' holds no video, which {' and '.join(wanted)} needs"
    return [*files, Lack(what, "put video.mp4 or images/ there")]
