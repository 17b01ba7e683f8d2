"""Every test runs with one torch thread; jaxtyping and beartype check our signatures."""

from jaxtyping import install_import_hook

# Before anything of ours is imported, so that signatures and dataclass fields are checked in tests.
install_import_hook(["slamhmr", "priors"], "typechecker.check")

import os  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

# Left out unless asked for by -m: what measures time and memory, and what needs a Slurm.
ON_REQUEST = ("benchmark", "slurm")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker per core for whole folders of tests; none for files, for -s, and for what measures.

    Every test has one thread, so that two cores would be half idle.
    """
    alone = config.getoption("capture") == "no" or config.getoption("markexpr") != ""
    if alone or any(".py" in word for word in config.args):
        return 0
    return min(len(os.sched_getaffinity(0)), 4)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of markers that nobody has asked for."""
    quiet = [name for name in ON_REQUEST if name not in config.getoption("markexpr")]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in quiet)]
    if len(left_out) > 0:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
