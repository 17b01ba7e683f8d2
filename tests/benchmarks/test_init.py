"""Frames per second of the feed-forward path: lifter, alignment, paths."""

import time

import pytest
import torch

from slamhmr.bench.scenes import FPS, bench_scene
from slamhmr.body import load_body
from slamhmr.init import lift
from slamhmr.init.align import align
from slamhmr.init.trajectory import refine_paths

pytestmark = pytest.mark.benchmark
FRAMES = 1000
LEAST = 100.0  # frames per second, of one person


@pytest.mark.parametrize("people", [1, 4])
def test_the_feed_forward_path_keeps_up(people: int, capsys):
    torch.set_num_threads(1)
    body = load_body()
    scene = bench_scene(FRAMES, people, 0, body)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        start = lift.initialise(scene.observations, scene.cameras, body, lift.Options())
        lifted = time.perf_counter()
        state = align(start, scene.observations, scene.cameras, body)
        refine_paths(state, start, body, FPS)
        seconds.append((time.perf_counter() - began, lifted - began))
    whole, network = (FRAMES * people / min(column) for column in zip(*seconds, strict=True))
    with capsys.disabled():
        print(f"\n{people} people: {whole:.0f} person-frames/s, the network {network:.0f}")
    assert whole >= LEAST
