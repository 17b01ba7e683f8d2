"""Scenes of the benchmarks: the same every time, made quickly, with a start as bad as stated."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import roma
import torch

from slamhmr import geometry
from slamhmr.bench import scenes
from slamhmr.bench.scenes import bench_scene
from slamhmr.body import load_body

BODY = load_body()
ROOT = Path(__file__).parents[2]


def test_the_same_numbers_give_the_same_scene():
    first, again, other = (bench_scene(20, 2, seed, BODY) for seed in (3, 3, 4))
    assert torch.equal(first.observations.keypoints, again.observations.keypoints)
    assert torch.equal(first.initial.cam_from_root, again.initial.cam_from_root)
    assert not torch.equal(first.truth.points, other.truth.points)
    assert first.cameras.moving
    assert not first.cameras.scale_known


def test_the_start_is_wrong_by_what_is_stated_and_smooth():
    made = bench_scene(600, 4, 1, BODY)
    pose = roma.rotvec_to_rotmat(made.initial.body_pose)
    joints = roma.rotmat_geodesic_distance(pose, made.truth.body_rotations)
    cam_from_world = geometry.invert(made.truth.world_from_cam)
    exact = cam_from_world[:, :3, :3] @ made.truth.root
    root = roma.rotmat_geodesic_distance(made.initial.cam_from_root[..., :3, :3], exact)
    for angles, rms in ((joints, scenes.JOINT_DEG), (root, scenes.ROOT_DEG)):
        degrees = torch.rad2deg(angles)
        assert abs(float(degrees.square().mean().sqrt()) - rms) < 0.15 * rms
        assert float((degrees[:, 1:] - degrees[:, :-1]).abs().mean()) < 0.3 * rms
    pelvis = geometry.apply(cam_from_world, made.truth.pelvis.transpose(0, 1)).transpose(0, 1)
    depth = torch.log(made.initial.cam_from_root[..., 2, 3] / pelvis[..., 2])
    assert 0.03 < float(depth.std()) < 0.2
    assert float((depth[:, 1:] - depth[:, :-1]).std()) < 0.005
    assert torch.equal(made.initial.betas, torch.zeros_like(made.truth.betas))


def test_a_person_nobody_sees_has_no_confidence():
    made = bench_scene(300, 1, 0, BODY)
    unseen = ~made.observations.seen
    assert bool(unseen.any()), "the scene has whole gaps"
    assert float(made.initial.confidence[unseen].max()) == 0.0


@pytest.mark.slow
def test_a_long_scene_costs_little_time_and_memory():
    """In a process of its own, whose time the kernel counts."""
    code = """
from slamhmr.body import load_body
from slamhmr.bench.case import memory_gb
from slamhmr.bench.scenes import bench_scene
bench_scene(8_000, 1, 0, load_body())
assert memory_gb("VmHWM") < 1.0, memory_gb("VmHWM")
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 30
