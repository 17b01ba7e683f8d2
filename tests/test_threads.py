import os

import numpy  # noqa: F401 - its BLAS is what is bounded
import torch
from threadpoolctl import threadpool_info

from slamhmr.threads import bounded_threads


def blas() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_threads_are_bounded_inside_and_as_before_outside():
    before = torch.get_num_threads(), blas()
    assert len(before[1]) > 0
    with bounded_threads(3):
        assert torch.get_num_threads() == min(3, os.cpu_count() or 1)
        assert set(blas()) == {1}
    assert (torch.get_num_threads(), blas()) == before
