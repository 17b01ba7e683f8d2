"""Rotations and cameras against the conversions of five published codes, at every magnitude.

SLAHMR 58518fe, WHAM (PyTorch3D) 2b54f77, human_body_prior 78c86ea, HuMoR fc6ef84, TCMR c41fdd7, in
float32. Ours come from roma and `slamhmr.geometry`. At a turn by pi the axis has no sign, so
rotations are compared as matrices. The 6D layouts are in `priors/test_rotation6d.py`.
"""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from slamhmr import geometry

GOLDEN = Path(__file__).parent / "golden" / "kinematics.npz"
EXACT = 6e-7  # what float32 costs
TORCHGEOMETRY = 1.5e-6  # an epsilon in the denominator of human_body_prior's own
WXYZ_TO_XYZW = [1, 2, 3, 0]


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def near(ours: Tensor, theirs: Tensor, tolerance: float = EXACT) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def matrix_of(quat_wxyz: Tensor) -> Tensor:
    return roma.unitquat_to_rotmat(quat_wxyz[..., WXYZ_TO_XYZW])


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("exact_aa2mat_f64", EXACT),
        ("slahmr_aa2mat", EXACT),
        ("slahmr_rodrigues", EXACT),
        ("slahmr_quat2mat", EXACT),
        ("p3d_aa2mat", EXACT),
        ("humor_rodrigues", EXACT),
        ("tcmr_rodrigues", EXACT),
        ("tgm_aa2mat", TORCHGEOMETRY),
    ],
)
def test_rotation_vector_to_matrix(golden, name, tolerance):
    near(roma.rotvec_to_rotmat(golden["in_aa"]), golden[f"out_{name}"], tolerance)


@pytest.mark.parametrize("family", ["slahmr", "humor", "tgm", "p3d"])
def test_matrix_to_rotation_vector(golden, family):
    """Near pi float32 leaves about 1e-6 rad of the vector, in every code."""
    matrix = golden["out_p3d_aa2mat" if family == "p3d" else "out_slahmr_aa2mat"]
    ours = roma.rotvec_to_rotmat(roma.rotmat_to_rotvec(matrix))
    near(ours, matrix, 2e-6)
    near(ours, roma.rotvec_to_rotmat(golden[f"out_{family}_mat2aa"]), 2e-6)


@pytest.mark.parametrize("family", ["slahmr", "p3d"])
def test_quaternions(golden, family):
    matrix = golden[f"out_{family}_aa2mat"]
    near(matrix_of(golden[f"out_{family}_aa2quat"]), roma.rotvec_to_rotmat(golden["in_aa"]), 1e-6)
    near(matrix_of(golden[f"out_{family}_mat2quat"]), matrix, 2e-6)
    ours = roma.rotmat_to_unitquat(matrix)
    theirs = golden[f"out_{family}_mat2quat"][:, WXYZ_TO_XYZW]
    near((ours * theirs).sum(dim=-1).abs(), torch.ones(len(ours)), 1e-6)  # the same up to sign
    vectors, quaternions = golden[f"out_{family}_quat2aa"], golden[f"out_{family}_aa2quat"]
    # The last, a turn by 2 pi, comes out of PyTorch3D as 3.6 rad: its series for small sines.
    known = slice(None, -1) if family == "p3d" else slice(None)
    near(roma.rotvec_to_rotmat(vectors[known]), matrix_of(quaternions[known]), 2e-6)
    ours = roma.rotvec_to_rotmat(roma.unitquat_to_rotvec(quaternions[:, WXYZ_TO_XYZW]))
    near(ours, matrix_of(quaternions), 2e-6)


def test_quaternion_algebra(golden):
    first, second = (golden[name][:, WXYZ_TO_XYZW] for name in ("in_q0", "in_q1"))
    near(roma.quat_product(first, second), golden["out_slahmr_quatmul"][:, WXYZ_TO_XYZW], 1e-6)
    inverse = golden["out_slahmr_quatinv"][:, WXYZ_TO_XYZW]
    near(roma.quat_inverse(first), inverse, 1e-6)


def test_slerp_of_equal_and_opposite_quaternions_too(golden):
    """The published one gives NaN where both quaternions are the same rotation; ours may not."""
    first, second = (golden[name][:, WXYZ_TO_XYZW] for name in ("in_q0", "in_q1"))
    theirs = golden["out_slahmr_slerp"][:, WXYZ_TO_XYZW]
    undefined = theirs.isnan().any(dim=-1)
    ours = torch.stack(
        [
            roma.unitquat_slerp(a, b, t, shortest_arc=True)[0]
            for a, b, t in zip(first, second, golden["in_slerp_t"], strict=True)
        ]
    )
    assert int(undefined.sum()) == 2
    assert bool(torch.isfinite(ours).all())
    same = (ours * theirs).sum(dim=-1).abs()[~undefined]
    near(same, torch.ones_like(same), 1e-5)
    start = (ours * first).sum(dim=-1).abs()[undefined]
    near(start, torch.ones_like(start), 1e-5)


def test_mean_of_two_rotations(golden):
    """WHAM takes U V^T of the mean without a determinant check; where that is proper, as ours."""
    mean = (golden["in_avg_a"] + golden["in_avg_b"]) / 2
    theirs = golden["out_wham_avg_rot"]
    proper = torch.linalg.det(theirs) > 0
    assert int(proper.sum()) > 10
    near(roma.special_procrustes(mean)[proper], theirs[proper], 2e-5)


class TestCameras:
    @pytest.fixture
    def cam_from_world(self, golden) -> Tensor:
        """Two tracks of five cameras."""
        return geometry.rigid(golden["in_cam_R"], golden["in_cam_t"])

    def test_projection(self, golden, cam_from_world):
        intrinsics = torch.cat([golden["in_cam_f"], golden["in_cam_center"]], dim=-1)
        points_cam = geometry.apply(cam_from_world, golden["in_points"])
        tracks = intrinsics.expand(2, 5, 4)
        near(geometry.project(points_cam, tracks), golden["out_cam_reproject"], 2e-4)
        near(geometry.project(points_cam[0], intrinsics), golden["out_cam_persp"], 2e-4)
        ahead = golden["in_points"][0] + torch.tensor([0.0, 0.0, 4.0])
        near(geometry.project(ahead, intrinsics), golden["out_cam_persp_norot"], 2e-4)
        near(
            geometry.bearings(golden["out_cam_persp"], intrinsics),
            points_cam[0] / points_cam[0, ..., 2:],
            1e-6,
        )

    @pytest.mark.parametrize(
        ("name", "transform"),
        [
            ("invert", lambda a, _: geometry.invert(a)),
            ("compose", lambda a, b: a @ b),
            ("rel_w2c", lambda a, b: b @ geometry.invert(a)),
            ("rel_c2w", lambda a, b: geometry.invert(b) @ a),
        ],
    )
    def test_transforms(self, golden, cam_from_world, name, transform):
        found = transform(cam_from_world[0], cam_from_world[1])
        near(found[..., :3, :3], golden[f"out_cam_{name}_R"], 1e-6)
        near(found[..., :3, 3], golden[f"out_cam_{name}_t"], 5e-6)
