"""Parsers of the command line: positional words anywhere, and the fields that words may set."""

import argparse
import ast
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent


class Words(argparse.ArgumentParser):
    """A parser whose positional words may stand before, between and after the options.

    `fields_of` names the dataclass whose fields are its key=value words, as "synth/scene.py:Name":
    --help lists them.
    """

    fields_of = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; words left over join those of `words` or `overrides`."""
        namespace, left = super().parse_known_args(args, namespace)
        for name in ("words", "overrides"):
            if hasattr(namespace, name) and not any(word.startswith("-") for word in left):
                getattr(namespace, name).extend(left)
                return namespace, []
        return namespace, left

    def format_help(self) -> str:
        """As argparse's, and the fields."""
        text = super().format_help()
        if self.fields_of == "":
            return text
        path, _, name = self.fields_of.partition(":")
        lines = field_lines((ROOT / path).read_text(encoding="utf-8"), name)
        return "\n".join([text, "fields, with their defaults:", *lines, ""])


def field_lines(source: str, name: str) -> list[str]:
    """Fields of a dataclass as its source says them, a line each: "key=default  # comment".

    Read, not imported: help is asked for often, and torch is slow to come.
    """
    lines = source.splitlines()
    (found,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    shown = []
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            default = ast.unparse(node.value) if node.value is not None else ""
            if default.startswith("field("):
                default = "[...]"
            comment = lines[(node.end_lineno or 1) - 1].partition("#")[2].strip()
            shown.append((f"{node.target.id}={default}", comment))
    width = max(len(word) for word, _ in shown)
    return [f"  {word:{width}s}  {comment}".rstrip() for word, comment in shown]
