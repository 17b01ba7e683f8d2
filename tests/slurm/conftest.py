"""A Slurm for the tests of this folder: skipped without one, unless SLAMHMR_SLURM=required."""

import os
from collections.abc import Iterator

import pytest
from slurm_node import Node, why_not


@pytest.fixture(scope="session")
def slurm() -> Iterator[Node]:
    """A running Slurm of one node."""
    trouble = why_not()
    if trouble != "" and os.environ.get("SLAMHMR_SLURM") == "required":
        pytest.fail(f"no Slurm: {trouble}")
    if trouble != "":
        pytest.skip(f"no Slurm: {trouble}")
    with Node() as node:
        yield node
