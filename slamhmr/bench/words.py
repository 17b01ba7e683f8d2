"""Settings of a benchmark from `key=value` words; lists are written `frames=1000,2000`."""

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

from slamhmr.config import build, parse_overrides

Spec = TypeVar("Spec")


def settings(schema: type[Spec], words: Sequence[str], source: str) -> Spec:
    """An object of the dataclass `schema` with what the words say.

    Raises ConfigError naming `source` for an unknown key or a value of a wrong type.
    """
    lists = {f.name for f in fields(schema) if str(f.type).startswith("list")}  # type: ignore[arg-type]
    spelt = []
    for word in words:
        key, equals, value = word.partition("=")
        listed = key in lists and not value.startswith("[")
        spelt.append(f"{key}=[{value}]" if listed and equals else word)
    return build(schema, parse_overrides(spelt), source)
