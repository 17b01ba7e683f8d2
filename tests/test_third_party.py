"""The table of others' systems names files that exist, and everything that can be chosen."""

import re
from pathlib import Path

import pytest

from slamhmr.registry import TABLES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "third_party" / "README.md").read_text(encoding="utf-8")
OURS = {"file", "auto", "static", "rotation", "geometric", "lift"}  # nobody else's


def test_the_files_it_names_exist():
    named = set(re.findall(r"`((?:slamhmr|priors|third_party)/[\w/.]+\.\w+)`", TEXT))
    linked = set(re.findall(r"\]\(\.\./([\w/.-]+)\)", TEXT))
    assert len(named) > 10
    assert len(linked) > 0
    assert [path for path in sorted(named | linked) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("kind", TABLES)
def test_every_backend_of_others_stands_in_it(kind):
    files = {
        name: TABLES[kind][name].replace(".", "/") + ".py" for name in set(TABLES[kind]) - OURS
    }
    named = set(re.findall(r"[\w/]+\.py", TEXT))
    assert [name for name, path in files.items() if path not in named] == []


def test_every_row_of_a_table_has_all_its_cells():
    width = 0
    for line in TEXT.splitlines():
        cells = line.count("|")
        if not line.startswith("|"):
            width = 0
        elif width == 0:
            width = cells
        assert cells in (0, width), line
