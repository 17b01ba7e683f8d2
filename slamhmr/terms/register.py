"""The table of terms: each is a small pure function with its own settings dataclass."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from slamhmr.errors import ConfigError
from slamhmr.features import PersonFeatures
from slamhmr.layout import BorderLayout
from slamhmr.scene import PointSet, Scene
from slamhmr.solve.problem import BorderResidual, Residual


@dataclass(frozen=True)
class BorderContext:
    """What a term on the border sees: the state, that at the start of the stage, its columns."""

    scene: Scene
    start: Scene
    layout: BorderLayout
    frames: tuple[int, ...]  # length of every person's span
    heights: tuple[float | None, ...]  # known statures, m
    points: PointSet
    seconds: float  # duration of the clip
    patterns: tuple[Float[Tensor, "C L 2"], ...]  # everybody's `Evidence.patterns`

    def derivative(
        self, rows: int, *blocks: tuple[slice | None, Float[Tensor, "R _"]]
    ) -> Float[Tensor, "R G"]:
        """Jacobian of `rows` residuals on the whole border; None: columns that are not free."""
        whole = self.scene.log_scale.new_zeros(rows, self.layout.width(len(self.frames)))
        for place, block in blocks:
            if place is not None:
                whole[:, place] = block
        return whole


PersonTerm = Callable[[PersonFeatures, Any, bool], Residual]
BorderTerm = Callable[[BorderContext, Any], list[BorderResidual]]


@dataclass(frozen=True)
class Term:
    """A registered term; exactly one of `person` and `border` is its function."""

    name: str
    settings: type
    person: PersonTerm | None
    border: BorderTerm | None
    needs_pose: bool  # makes sense only where the stage frees the pose
    needs: str | None  # field of `Initial` without which the term is idle
    check: Callable[[Any], object] | None  # of settings that name files: raises InputError


TERMS: dict[str, Term] = {}


def term(
    name: str,
    settings: type,
    *,
    on_border: bool = False,
    needs_pose: bool = False,
    needs: str | None = None,
    check: Callable[[Any], object] | None = None,
) -> Callable[[Any], Any]:
    """Register the decorated function as a term of the energy."""

    def register(function: Any) -> Any:
        TERMS[name] = Term(
            name,
            settings,
            person=None if on_border else function,
            border=function if on_border else None,
            needs_pose=needs_pose,
            needs=needs,
            check=check,
        )
        return function

    return register


def _what_is_wrong(key: str, value: object, words: bool) -> str | None:
    if words:
        return None if isinstance(value, str) else "must be words"
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "must be a number"
    if key == "weight":
        return "must not be negative" if value < 0 else None
    return "must be above 0" if value <= 0 else None


def term_settings(stage: str, name: str, values: dict[str, Any], round_index: int) -> Any:
    """The settings of a term for one round; a list gives one value per round, the last is kept.

    Raises ConfigError for unknown terms and settings, and for values that are no numbers or out of
    range: weights may be 0, everything else is a scale and must be above 0, but for what is words
    by default.
    """
    if name not in TERMS:
        raise ConfigError(
            f"stage '{stage}': unknown term '{name}'; available: {', '.join(sorted(TERMS))}"
        )
    known = {f.name: f.default for f in fields(TERMS[name].settings)}
    chosen: dict[str, float | str] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                f"stage '{stage}', term '{name}': unknown setting '{key}'; "
                f"available: {', '.join(sorted(known))}"
            )
        if isinstance(value, list | tuple):
            if len(value) == 0:
                raise ConfigError(f"stage '{stage}', term '{name}': {key} is an empty list")
            value = value[min(round_index, len(value) - 1)]
        words = isinstance(known[key], str)
        wrong = _what_is_wrong(key, value, words)
        if wrong is not None:
            raise ConfigError(f"stage '{stage}', term '{name}': {key} is {value!r}, {wrong}")
        chosen[key] = value if words else float(value)
    return TERMS[name].settings(**chosen)
