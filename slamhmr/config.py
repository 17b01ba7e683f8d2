"""Every setting as frozen dataclasses, and how they are read: schema <- files <- key=value."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from slamhmr.errors import ConfigError
from slamhmr.registry import TABLES

Schema = TypeVar("Schema")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
RENDERERS = ("auto", "opencv", "pytorch3d")
DEVICES = re.compile(r"auto|cpu|cuda(:\d{1,2})?")
CONFIG_FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs")


@dataclass(frozen=True)
class BodyConfig:
    """Which body model is fitted."""

    model: str = "default"  # "default" or the path of a SMPL, SMPL-H or SMPL-X file


@dataclass(frozen=True)
class StageConfig:
    """What one stage frees and which terms it minimises; `configs/stages/<name>.yaml`."""

    free: list[str] = MISSING
    terms: dict[str, dict[str, Any]] = MISSING  # name -> weight, sigma, ... of the term
    iterations: int = 30  # most per round; a list among a term's settings makes rounds
    tolerance: float = 2e-3  # the last round ends when the energy falls by less of it, twice


@dataclass(frozen=True)
class OverlayConfig:
    """The video of bodies drawn on the pixels."""

    enabled: bool = True
    max_width: int = 960  # px; wider clips are scaled down
    opacity: float = 0.7  # of the body; a body not seen in the frame gets a third of it
    renderer: str = "auto"  # opencv, pytorch3d, or auto: pytorch3d where it and a GPU are there


@dataclass(frozen=True)
class GatesConfig:
    """Limits below which a finished run still exits with 3; null switches one off.

    The limits of `configs/default.yaml`, which says what they mean.
    """

    # Of the result as a whole, without the frames that fail alone.
    reprojection_percent: float | None = 3.0
    worse_than_start_percent: float | None = 0.0
    people: float | None = 0.25
    foot_sliding_mm: float | None = 15.0
    floating_cm: float | None = 10.0
    penetration_cm: float | None = 8.0
    overlap_cm: float | None = 12.0
    jitter: float | None = 3.0
    acceleration_m_per_s2: float | None = 250.0
    scale_percent: float | None = 30.0
    scale_prior_share: float | None = 0.95
    lost_share: float | None = 0.3
    pieces_apart: int | None = 0
    degraded_steps: int | None = None
    # Of a person, who then fails alone: `valid` is false in all of its frames.
    coverage: float | None = 0.3
    person_percent: float | None = 8.0
    limb_percent: float | None = 12.0
    size_sigma: float | None = 2.5
    # Of spans of a person's frames, which then fail alone.
    gap_s: float | None = 3.0
    lost_s: float | None = 0.5
    frames_percent: float | None = 15.0
    frames_depth_cm: float | None = 20.0
    frames_jitter: float | None = 10.0
    jump_m_per_s: float | None = 15.0


@dataclass(frozen=True)
class PosteriorConfig:
    """Uncertainty of the result; the numbers were fitted by `slamhmr bench posterior`."""

    enabled: bool = True
    # Term -> setting -> value in the posterior, where errors that repeat count once.
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    relative: float = 1.0  # factor on the variance of joints relative to the pelvis
    absolute: float = 1.0  # of joints in the world
    scale: float = 1.0
    ground: float = 1.0  # of its height and tilt, and of gravity


@dataclass(frozen=True)
class Config:
    """The whole configuration of `slamhmr optimize`."""

    detect: str = "auto"  # "auto": observations.npz where there is one, else blazepose
    slam: str = "auto"  # "auto": cameras.npz where there is one, else classified from the pixels
    init: str = "auto"  # "auto": initial.npz where there is one, else lift
    detect_cuts: bool = True  # in the pixels, unless sequence.yaml says where the cuts are
    vertical_edges: bool = True  # of the picture, where there are pixels: they help to find gravity
    options: dict[str, dict[str, Any]] = field(default_factory=dict)  # backend name -> its Options
    # Backend name (or body) -> option that names a file -> the sha256 that the file must have.
    sha256: dict[str, dict[str, str]] = field(default_factory=dict)
    body: BodyConfig = field(default_factory=BodyConfig)
    allow_degraded: bool = False  # go on with less (fixed camera, ...) where a backend would refuse
    seed: int = 0
    device: str = "cpu"  # auto (a GPU where there is one), cpu, cuda, cuda:<number>
    threads: int = 2  # people, or halves of time, that the solver works on side by side
    schedule: list[str] = field(default_factory=list)
    stages: dict[str, StageConfig] = field(default_factory=dict)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    posterior: PosteriorConfig = field(default_factory=PosteriorConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)


def load_config(files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Config:
    """Settings from the shipped defaults, then `files`, then `key=value` overrides, in that order.

    Raises ConfigError naming the source, the unknown key and the nearest known one, or the value
    that does not fit.
    """
    merged = OmegaConf.structured(Config)
    for source, content in _defaults():
        merged = _merge(merged, content, source)
    for path in files:
        merged = _merge(merged, read_yaml(path), str(path))
    for override in overrides:
        merged = _merge(merged, _parse_override(override), f"'{override}'")
    _check_stages(merged)
    _check_backends(merged)
    return _to_object(merged, "configuration")


def backend_options(options_type: type[Schema], name: str, config: Config) -> Schema:
    """The `Options` of backend `name`: its defaults overridden by `config.options[name]`.

    Raises ConfigError for a key or value that the backend does not know.
    """
    return build(options_type, config.options.get(name, {}), f"options.{name}")


def build(schema: type[Schema], content: dict[str, Any], source: str) -> Schema:
    """An object of the dataclass `schema`, its defaults overridden by `content`.

    Raises ConfigError naming `source` for an unknown key, a missing one or a value of a wrong type.
    """
    merged = _merge(OmegaConf.structured(schema), content, source)
    missing = sorted(str(key) for key in OmegaConf.missing_keys(merged))
    if len(missing) > 0:
        raise ConfigError(f"{source}: '{missing[0]}' is missing")
    return _to_object(merged, source)


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML text that `load_config` reads back."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def suggestion(name: str, known: Sequence[str]) -> str:
    """Half a sentence on what `name` may have meant: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if len(near) > 0 else f"known: {', '.join(known) or 'none'}"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping (an empty file is an empty one).

    Raises ConfigError if it is missing, not YAML or not a mapping.
    """
    if not path.is_file():
        raise ConfigError(f"configuration file '{path}' does not exist")
    try:
        content = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as e:
        raise ConfigError(f"'{path}' is not valid YAML: {_one_line(e)}") from e
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' must hold a mapping, not a {type(content).__name__}")
    return content


def config_folder() -> Path:
    """Where default.yaml and stages/ are: in the installed package, or beside it in a checkout."""
    for folder in CONFIG_FOLDERS:
        if (folder / "default.yaml").is_file():
            return folder
    raise ConfigError(f"'default.yaml' is not in '{CONFIG_FOLDERS[0]}'; install slamhmr again")


def _defaults() -> list[tuple[str, dict[str, Any]]]:
    folder = config_folder()
    stages = [
        (f"stages/{path.name}", {"stages": {path.stem: read_yaml(path)}})
        for path in sorted((folder / "stages").glob("*.yaml"))
    ]
    return [*stages, ("default.yaml", read_yaml(folder / "default.yaml"))]


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Nested mapping of `key=value` words. Raises ConfigError for a word of another form."""
    merged = OmegaConf.create()
    for override in overrides:
        merged = _merge(merged, _parse_override(override), f"'{override}'")
    return OmegaConf.to_container(merged)


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, _ = override.partition("=")
    if equals == "" or key.strip() == "":
        raise ConfigError(f"override '{override}' is not of the form key=value")
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    except (OmegaConfBaseException, yaml.YAMLError) as e:
        raise ConfigError(f"override '{override}' cannot be read: {_one_line(e)}") from e
    return parsed


def _merge(base: DictConfig, content: dict[str, Any], source: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(base, OmegaConf.create(content))
    except OmegaConfBaseException as e:
        raise ConfigError(f"{source}: {_explain(e)}") from e
    return merged


def _to_object(merged: DictConfig, source: str) -> Any:
    try:
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as e:
        raise ConfigError(f"{source}: {_explain(e)}") from e


def _explain(error: OmegaConfBaseException) -> str:
    key = error.full_key or str(error.key)
    known = error.object_type
    if dataclasses.is_dataclass(known) and str(error.key) not in {
        f.name for f in dataclasses.fields(known)
    }:
        names = [f.name for f in dataclasses.fields(known)]
        return f"unknown key '{key}'; {suggestion(str(error.key), names)}"
    return f"'{key}': {_one_line(error)}" if error.key is not None else _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n    full_key")[0].split())


def _check_stages(merged: DictConfig) -> None:
    for name, stage in merged.stages.items():
        lacking = [key for key in ("free", "terms") if OmegaConf.is_missing(stage, key)]
        if len(lacking) > 0:
            others = [other for other in merged.stages if other != name]
            raise ConfigError(
                f"stage '{name}' has no '{lacking[0]}': a stage needs 'free' and 'terms'; "
                f"{suggestion(str(name), others)}"
            )
    if len(merged.schedule) == 0:
        raise ConfigError("'schedule' is empty; name at least one stage")
    for name in merged.schedule:
        if name not in merged.stages:
            known = [str(other) for other in merged.stages]
            raise ConfigError(f"schedule names stage '{name}'; {suggestion(name, known)}")
    if len(set(merged.schedule)) < len(merged.schedule):
        raise ConfigError(f"'schedule' names a stage twice: {', '.join(merged.schedule)}")


def _check_backends(merged: DictConfig) -> None:
    if DEVICES.fullmatch(merged.device) is None:
        raise ConfigError(f"device={merged.device}: must be auto, cpu, cuda or cuda:<number>")
    if merged.overlay.renderer not in RENDERERS:
        hint = suggestion(merged.overlay.renderer, RENDERERS)
        raise ConfigError(f"overlay.renderer={merged.overlay.renderer}: {hint}")
    if merged.threads < 1:
        raise ConfigError(f"threads={merged.threads}: at least 1 is needed")
    for kind, table in TABLES.items():
        name = merged[kind]
        if name != "auto" and name not in table:
            raise ConfigError(f"{kind}={name}: {suggestion(name, ['auto', *sorted(table)])}")
    known = sorted({name for table in TABLES.values() for name in table} - {"file"})
    for name in merged.options:
        if name not in known:
            raise ConfigError(f"options.{name}: no such backend; {suggestion(name, known)}")
    for name, digests in merged.sha256.items():
        if name not in (*known, "body"):
            raise ConfigError(f"sha256.{name}: no such backend; {suggestion(name, known)}")
        for option, digest in digests.items():
            if SHA256.fullmatch(digest) is None:
                raise ConfigError(f"sha256.{name}.{option}={digest}: must be 64 hexadecimal digits")
