"""`result.npz` of a real run against the written contract: keys, shapes, types, meaning."""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from scenes import BODY, write_synthetic

from slamhmr.body import forward_points, pelvis_from_transl
from slamhmr.config import load_config
from slamhmr.pipeline import optimize
from slamhmr.synth.scene import SceneSpec

PEOPLE, FRAMES = 2, 70
ENTERS, LEAVES = 20, 55  # the second person is seen from here to before there
GAP = (34, 38)  # and not in between
SPEC = SceneSpec(seed=350, frames=FRAMES, people=PEOPLE, motion="walk", camera="follow")
REAL, FLAG, WHOLE = "f", "b", "i"  # kinds of numpy types
CONTRACT: dict[str, tuple[tuple[int, ...], str]] = {
    "schema_version": ((), WHOLE),
    "person_id": ((PEOPLE,), WHOLE),
    "valid": ((PEOPLE, FRAMES), FLAG),
    "observed": ((PEOPLE, FRAMES), FLAG),
    "root_orient": ((PEOPLE, FRAMES, 3), REAL),
    "transl": ((PEOPLE, FRAMES, 3), REAL),
    "body_pose": ((PEOPLE, FRAMES, 63), REAL),
    "betas": ((PEOPLE, 10), REAL),
    "joints": ((PEOPLE, FRAMES, 24, 3), REAL),
    "contacts": ((PEOPLE, FRAMES, 4), REAL),
    "world_from_cam": ((FRAMES, 4, 4), REAL),
    "intrinsics": ((FRAMES, 4), REAL),
    "image_size": ((2,), WHOLE),
    "fps": ((), REAL),
    "ground": ((4,), REAL),
    "scale": ((), REAL),
    "scale_std": ((), REAL),
    "body_model": ((), "U"),
    "gender": ((PEOPLE,), "U"),
    "provenance": ((), "U"),
    "stamp": ((), "U"),
    "joints_cov": ((PEOPLE, FRAMES, 24, 3, 3), REAL),
    "joints_cov_root": ((PEOPLE, FRAMES, 24, 3, 3), REAL),
    "ground_cov": ((3, 3), REAL),
    "betas_cov": ((PEOPLE, 10, 10), REAL),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("contract")
    write_synthetic(made, SPEC)
    path = made / "observations.npz"
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    hidden = np.ones(FRAMES, dtype=bool)
    hidden[ENTERS:LEAVES] = False
    hidden[slice(*GAP)] = True
    arrays["confidence"][1, hidden] = 0
    arrays["keypoints"][1, hidden] = np.nan  # what is not seen may be anything
    arrays["boxes"][1, hidden] = np.nan
    np.savez(path, **arrays)
    optimize(made, load_config((), ["threads=1"]))
    return made


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "slamhmr" / "result.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def test_keys_shapes_and_types(result):
    assert {key: (a.shape, a.dtype.kind) for key, a in result.items()} == CONTRACT
    numbers = [a for key, a in result.items() if CONTRACT[key][1] == REAL and a.ndim > 0]
    assert {a.dtype for a in numbers} == {np.dtype(np.float64)}
    assert int(result["schema_version"]) == 1


def test_finite_everywhere(result):
    for key, array in result.items():
        if array.dtype.kind == REAL:
            assert np.isfinite(array).all(), key
    assert float(result["scale"]) > 0
    assert 0 <= result["contacts"].min() <= result["contacts"].max() <= 1


def test_parameters_reproduce_the_joints(result):
    tensors = {
        key: torch.from_numpy(result[key]) for key in ("betas", "transl", "root_orient", "joints")
    }
    pose = torch.from_numpy(result["body_pose"]).reshape(PEOPLE, FRAMES, 21, 3)
    points, _ = forward_points(
        BODY,
        tensors["betas"],
        roma.rotvec_to_rotmat(tensors["root_orient"]),
        pelvis_from_transl(BODY, tensors["betas"], tensors["transl"]),
        roma.rotvec_to_rotmat(pose),
    )
    assert (points[:, :, :24] - tensors["joints"]).abs().max() < 1e-6


def test_who_is_there_and_who_is_seen(result):
    there = np.zeros(FRAMES, dtype=bool)
    there[ENTERS:LEAVES] = True
    seen = there.copy()
    seen[slice(*GAP)] = False
    assert result["valid"].tolist() == [[True] * FRAMES, there.tolist()]
    assert result["observed"].tolist() == [[True] * FRAMES, seen.tolist()]


def test_the_world_stands_on_the_ground_below_the_first_camera(result):
    np.testing.assert_allclose(result["world_from_cam"][0, :2, 3], 0, atol=1e-9)
    normal, offset = result["ground"][:3], result["ground"][3]
    assert np.linalg.norm(normal) == pytest.approx(1)
    assert normal[2] > np.cos(np.deg2rad(5))
    assert abs(offset) < 1e-9, "the origin lies on the ground"
    ankles = result["joints"][result["valid"]][:, [7, 8], 2].min(axis=1)
    assert 0 < np.median(ankles) < 0.16, "ankles are 7 to 11 cm above the sole"


def test_cameras_are_rigid_and_in_metres(folder, result):
    rotation = result["world_from_cam"][:, :3, :3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1),
        np.broadcast_to(np.eye(3), (FRAMES, 3, 3)),
        atol=1e-9,
    )
    np.testing.assert_array_equal(result["world_from_cam"][:, 3], [[0, 0, 0, 1]] * FRAMES)
    with np.load(folder / "cameras.npz", allow_pickle=False) as file:
        tracked = np.linalg.norm(np.diff(file["world_from_cam"][:, :3, 3], axis=0), axis=1)
    moved = np.linalg.norm(np.diff(result["world_from_cam"][:, :3, 3], axis=0), axis=1)
    far = tracked > np.median(tracked)  # the camera's drift is corrected, a little
    np.testing.assert_allclose(moved[far], float(result["scale"]) * tracked[far], rtol=0.1)


def test_covariances_are_positive_and_zero_at_the_pelvis_itself(result):
    for key in ("joints_cov", "joints_cov_root"):
        assert np.linalg.eigvalsh(result[key]).min() > -1e-12, key
    assert np.abs(result["joints_cov_root"][:, :, 0]).max() < 1e-12
    assert 0.005 < float(result["scale_std"] / result["scale"]) < 0.5
