"""A result in SLAHMR's layout, read back as its own tools do."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from foreign_case import Truth, make_truth

from slamhmr import cli
from slamhmr.artifacts import save
from slamhmr.body import forward_points, load_body, rest_points
from slamhmr.errors import InputError
from slamhmr.export.slahmr import SMPL_PELVIS, their_world, write_slahmr
from slamhmr.types import Result

HEIGHT = 1.5  # of the first camera above the ground


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smpl")


@pytest.fixture(scope="module")
def result(truth: Truth) -> Result:
    rotations = roma.rotvec_to_rotmat(truth.pose)
    points, _ = forward_points(
        truth.body, truth.betas, truth.world_from_root, truth.pelvis_world, rotations
    )
    cameras = truth.cameras
    valid = torch.ones(truth.pose.shape[:2], dtype=torch.bool)
    valid[1, 7:] = False
    return Result(
        person_id=truth.observations.person_id,
        valid=valid,
        observed=valid,
        root_orient=roma.rotmat_to_rotvec(truth.world_from_root),
        transl=truth.pelvis_world - rest_points(truth.body, truth.betas)[:, None, 0],
        body_pose=truth.pose.flatten(2),
        betas=truth.betas,
        joints=points[:, :, :24],
        contacts=torch.zeros(2, 9, 4, dtype=torch.float64),
        world_from_cam=cameras.world_from_cam,
        intrinsics=cameras.intrinsics,
        image_size=cameras.image_size,
        fps=30.0,
        ground=torch.tensor([0.0, 0.0, 1.0, HEIGHT], dtype=torch.float64),
        scale=2.5,
        scale_std=0.1,
        body_model="default",
        gender=("neutral", "neutral"),
    )


def test_a_round_trip_keeps_the_joints_of_the_world(truth: Truth, result: Result, tmp_path: Path):
    path = write_slahmr(result, truth.body, tmp_path, "park")
    assert path.relative_to(tmp_path).as_posix() == "motion_chunks/park_000000_world_results.npz"
    read = {key: torch.from_numpy(value).double() for key, value in np.load(path).items()}
    shapes = {key: tuple(value.shape) for key, value in read.items()}
    assert shapes == {
        "trans": (2, 9, 3), "root_orient": (2, 9, 3), "pose_body": (2, 9, 63), "betas": (2, 16),
        "floor_plane": (1, 3), "floor_idcs": (2,), "world_scale": (1, 1), "cam_R": (2, 9, 3, 3),
        "cam_t": (2, 9, 3), "intrins": (4,), "track_mask": (2, 9),
    }  # fmt: skip
    # Joints as SLAHMR computes them, in its world; then through its cameras.
    betas = read["betas"][:, :10]
    pelvis = read["trans"] + rest_points(truth.body, betas)[:, None, 0]
    joints, _ = forward_points(
        truth.body, betas, roma.rotvec_to_rotmat(read["root_orient"]), pelvis,
        roma.rotvec_to_rotmat(read["pose_body"].reshape(2, 9, 21, 3)),
    )  # fmt: skip
    joints = joints[:, :, :24]
    back = joints @ their_world(result) + result.world_from_cam[0, :3, 3]
    assert torch.allclose(back, result.joints, atol=1e-5)
    seen = joints @ read["cam_R"].mT + read["cam_t"][:, :, None]
    placed = result.world_from_cam
    ours = (result.joints - placed[:, None, :3, 3]) @ placed[:, :3, :3]
    assert torch.allclose(seen, ours, atol=1e-5)
    assert float(read["world_scale"]) == 2.5
    assert torch.equal(read["track_mask"].bool(), result.valid)
    assert not read["betas"][:, 10:].any()


def test_the_floor_is_where_its_tools_look_for_it(truth: Truth, result: Result, tmp_path: Path):
    read = np.load(write_slahmr(result, truth.body, tmp_path, "park"))
    offset = np.linalg.norm(read["floor_plane"][0])
    normal = read["floor_plane"][0] / offset
    if normal[1] > 0:  # parse_floor_plane of SLAHMR: -y is up
        normal, offset = -normal, -offset
    assert np.allclose(normal, [0, -1, 0], atol=1e-6)
    point = -HEIGHT * normal  # below the first camera
    assert np.isclose(normal @ point, offset, atol=1e-6)
    assert np.isclose(point[1], HEIGHT, atol=1e-6)


def test_the_files_beside_it(truth: Truth, result: Result, tmp_path: Path):
    write_slahmr(result, truth.body, tmp_path, "park")
    info = json.loads((tmp_path / "track_info.json").read_text())
    assert info["tracks"]["2"] == {"index": 1, "vis_mask": [True] * 7 + [False] * 2}
    assert info["meta"] == {"seq_interval": [0, 9], "data_interval": [0, 9]}
    cameras = json.loads((tmp_path / "cameras.json").read_text())
    world = np.load(tmp_path / "motion_chunks" / "park_000000_world_results.npz")
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ np.array(cameras["rotation"]).reshape(9, 3, 3)
    centre = np.array(cameras["translation"]) @ flip
    assert np.allclose(rotation, world["cam_R"][0].transpose(0, 2, 1), atol=1e-6)
    assert np.allclose(np.einsum("tij,tj->ti", world["cam_R"][0], centre), -world["cam_t"][0],
                       atol=1e-5)  # fmt: skip
    assert np.array(cameras["intrinsics"]).shape == (9, 4)


def test_another_body_leaves_its_pelvis_and_mean_shape(
    result: Result, tmp_path: Path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("slamhmr"), "propagate", True)
    with caplog.at_level(logging.WARNING, "slamhmr"):
        read = np.load(write_slahmr(result, load_body(), tmp_path, "park"))
    assert "is not SMPL" in caplog.text
    assert not read["betas"].any()
    pelvis = (result.joints[:, :, 0] - result.world_from_cam[0, :3, 3]) @ their_world(result).T
    assert np.allclose(read["trans"] + np.array(SMPL_PELVIS), pelvis.numpy(), atol=1e-5)


def test_a_camera_that_looks_straight_down(truth: Truth, result: Result):
    down = result.world_from_cam.clone()
    down[:, :3, :3] = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=torch.float64)
    world = their_world(replace(result, world_from_cam=down))
    assert torch.allclose(world @ world.T, torch.eye(3, dtype=torch.float64))
    assert torch.allclose(torch.linalg.det(world), torch.ones((), dtype=torch.float64))
    assert world[2].tolist() == [0, 1, 0]


def test_what_cannot_be_written(truth: Truth, result: Result, tmp_path: Path):
    through = replace(result, ground=torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64))
    with pytest.raises(InputError, match="through the first camera"):
        write_slahmr(through, truth.body, tmp_path, "park")
    with pytest.raises(InputError, match="name 'a/b'"):
        write_slahmr(result, truth.body, tmp_path, "a/b")


def test_the_command(result: Result, tmp_path: Path, capsys):
    save(tmp_path / "result.npz", result, stamp={})
    out = tmp_path / "theirs" / "park"
    assert cli.main(["export", "slahmr", str(tmp_path / "result.npz"), "--out", str(out)]) == 0
    written = out / "motion_chunks" / "park_000000_world_results.npz"
    assert written.is_file()
    assert str(written) in capsys.readouterr().out
