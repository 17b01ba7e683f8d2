"""Scenes with known truth on disk, and the demo: solve one from its pixels and score it."""

import logging
from collections.abc import Sequence
from pathlib import Path

from slamhmr.artifacts import TEMPORARY_PREFIX
from slamhmr.body import load_body
from slamhmr.config import build, load_config, parse_overrides
from slamhmr.errors import InputError
from slamhmr.eval.protocols import evaluate, format_table
from slamhmr.pipeline import Outcome, optimize
from slamhmr.synth.scene import SceneSpec, demo_spec, make_scene
from slamhmr.synth.write import SETTINGS, VIDEO, write_scene

LOG = logging.getLogger(__name__)


def run_demo(out: Path, *, progress: bool) -> tuple[Outcome, str]:
    """Render a scene into `out`, solve it from the pixels alone, and score it against the truth.

    The solver is told the lens (`sequence.yaml`), nothing else; `truth.npz` is read by the scores
    only. A scene that is already there is taken again. Returns the outcome and the table of scores.
    """
    if not (out / "truth.npz").exists():
        _require_empty(out, unfinished=(VIDEO, SETTINGS))  # truth.npz is written last
        LOG.info("rendering a synthetic scene into '%s'", out)
        for leftover in out.glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)
        spec, body = demo_spec(), load_body()
        write_scene(out, make_scene(spec, body), body, spec, pixels=True, observations=False)
    outcome = optimize(out, load_config(), progress=progress)
    return outcome, format_table(evaluate(outcome.folder / "result.npz", out / "truth.npz"))


def synthesise(out: Path, fields: Sequence[str]) -> str:
    """Write a scene of `key=value` fields of `SceneSpec` into `out`, pixels and observations both.

    Returns a sentence on what lies where. Raises ConfigError for an unknown field, InputError if
    `out` holds files already.
    """
    _require_empty(out)
    spec = build(SceneSpec, parse_overrides(fields), "synth")
    body = load_body()
    scene = make_scene(spec, body)
    write_scene(out, scene, body, spec, pixels=True, observations=True)
    return f"wrote {spec.frames} frames (people: {spec.people}) and their truth.npz into '{out}'"


def _require_empty(out: Path, unfinished: tuple[str, ...] = ()) -> None:
    """Raise InputError if `out` holds more than what an interrupted run left there."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    left = [name for name in names if name in unfinished or name.startswith(TEMPORARY_PREFIX)]
    if (out.exists() and not out.is_dir()) or len(left) < len(names):
        raise InputError(f"'{out}' is not empty; name a new directory with --out")
