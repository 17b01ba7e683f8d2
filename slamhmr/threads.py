"""How many processor threads the numerics use: many small matrices lose by sharing them out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def bounded_threads(count: int) -> Iterator[None]:
    """At most `count` threads (and processors) for torch, one for BLAS under numpy and scipy.

    BLAS threads that spin while they wait cost blocks of 69 x 69 ten times their time
    (`solve.banded`). What was set before is set again on leaving.
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(min(count, os.cpu_count() or 1))
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
