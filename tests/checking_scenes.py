"""Errors of checking scenes of `slamhmr bench posterior`, two scenes at a time."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from scenes import BODY

from slamhmr.bench.nuisances import nuisance_spec, solve_scene
from slamhmr.bench.posterior import Errors, calibration_of, errors, stated
from slamhmr.config import load_config


def solved_errors(index: int) -> dict[str, Errors]:
    """Errors of every kind of one scene, by the default configuration."""
    torch.set_num_threads(1)
    config = load_config()
    spec, flipped = nuisance_spec("check", index)
    solved = solve_scene(spec, flipped, config, BODY)
    return errors(solved, stated(solved, config, calibration_of(config)), BODY)


def errors_of(indices: Sequence[int]) -> list[dict[str, Errors]]:
    """The same of several scenes, in two processes of one thread each."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return list(pool.map(solved_errors, indices))
