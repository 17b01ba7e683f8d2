"""Kinematics and skinning of the body: golden SMPL, naive twins, invariances, the default body."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from slamhmr.body import (
    BodyModel,
    forward_points,
    load_body,
    pelvis_from_transl,
    rest_points,
    transl_from_pelvis,
    vertices,
)
from slamhmr.body_files import smpl_arrays
from slamhmr.body_licensed import SEGMENTS
from slamhmr.skeleton import KEYPOINTS, SMPL_JOINTS, SMPL_PARENTS

GOLDEN = Path(__file__).with_name("golden") / "toy_smpl_lbs.npz"
F64 = torch.float64


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    """A random 96-vertex SMPL and the official forward pass on it (float32)."""
    with np.load(GOLDEN) as file:
        return {key: torch.as_tensor(file[key].astype(np.float64)) for key in file.files}


@pytest.fixture(scope="module")
def toy(golden) -> BodyModel:
    """The golden toy as a body; three vertices serve as landmarks."""
    regressor, chosen = golden["J_regressor"], [3, 40, 77]
    return BodyModel(
        name="toy",
        gender="neutral",
        v_template=golden["v_template"],
        shapedirs=golden["shapedirs"],
        posedirs=golden["posedirs"],
        weights=golden["weights"],
        faces=torch.zeros(1, 3, dtype=torch.int64),
        parents=SMPL_PARENTS,
        joint_template=regressor @ golden["v_template"],
        joint_shapedirs=torch.einsum("jv,vdb->jdb", regressor, golden["shapedirs"]),
        landmark_names=("nose", "left_heel", "right_big_toe"),
        landmark_joint=torch.tensor([15, 7, 11]),
        landmark_template=golden["v_template"][chosen],
        landmark_shapedirs=golden["shapedirs"][chosen],
        segment=torch.zeros(96, dtype=torch.int64),
    )


def random_state(people: int, frames: int, *, seed: int = 0, spread: float = 1.0):
    """Betas, root, pelvis and body rotations."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    return (
        normal(people, 10),
        roma.rotvec_to_rotmat(normal(people, frames, 3)),
        normal(people, frames, 3),
        roma.rotvec_to_rotmat(spread * normal(people, frames, 21, 3)),
    )


def naive_lbs(body, betas, rotations, transl):
    """One body, one frame, 24 local rotations, written as in the SMPL paper with 4x4 matrices."""
    shaped = body.v_template + body.shapedirs @ betas
    joints = body.joint_template + body.joint_shapedirs @ betas
    if body.posedirs is not None:
        feature = (rotations[1:] - torch.eye(3, dtype=F64)).reshape(-1)
        posed = shaped + body.posedirs @ feature
    else:
        posed = shaped
    world = []
    for joint, parent in enumerate(body.parents):
        local = torch.eye(4, dtype=F64)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    result = torch.zeros_like(posed)
    for joint, transform in enumerate(world):
        moved = (posed - joints[joint]) @ transform[:3, :3].T + transform[:3, 3]
        result += body.weights[:, joint, None] * moved
    return result + transl, torch.stack([transform[:3, 3] for transform in world]) + transl


def test_naive_twin_is_the_official_smpl(toy, golden):
    for case in range(4):
        rotations = roma.rotvec_to_rotmat(golden["in_pose_aa"][case].reshape(24, 3))
        posed, joints = naive_lbs(
            toy, golden["in_betas"][case], rotations, golden["in_transl"][case]
        )
        assert (posed - golden["out_vertices"][case]).abs().max() < 1e-5
        assert (joints - golden["out_joints24"][case]).abs().max() < 1e-5


def test_points_are_the_official_joints(toy, golden):
    rotations = roma.rotvec_to_rotmat(golden["in_pose_aa"].reshape(4, 1, 24, 3))
    betas = golden["in_betas"]
    pelvis = pelvis_from_transl(toy, betas, golden["in_transl"][:, None])
    points, _ = forward_points(toy, betas, rotations[:, :, 0], pelvis, rotations[:, :, 1:22])
    assert (points[:, 0, :24] - golden["out_joints24"]).abs().max() < 1e-5


@pytest.mark.parametrize("which", ["toy", "default"])
def test_vertices_and_joints_equal_the_naive_twin(which, toy, body):
    model = toy if which == "toy" else body
    betas, root, pelvis, rotations = random_state(2, 3)
    posed = vertices(model, betas, root, pelvis, rotations)
    points, global_rotations = forward_points(model, betas, root, pelvis, rotations)
    transl = transl_from_pelvis(model, betas, pelvis)
    still = torch.eye(3, dtype=F64).expand(2, 3, 3)  # the hands
    for person in range(2):
        for frame in range(3):
            local = torch.cat([root[person, frame, None], rotations[person, frame], still])
            expected, joints = naive_lbs(model, betas[person], local, transl[person, frame])
            assert (posed[person, frame] - expected).abs().max() < 1e-12
            assert (points[person, frame, :24] - joints).abs().max() < 1e-12
            chain = local[0] @ local[2] @ local[5] @ local[8] @ local[11]
            assert (global_rotations[person, frame, 11] - chain).abs().max() < 1e-12
    assert torch.equal(global_rotations[:, :, 22:], global_rotations[:, :, 20:22])


def test_landmarks_move_rigidly_with_their_joint(body):
    betas, root, pelvis, rotations = random_state(2, 4)
    points, global_rotations = forward_points(body, betas, root, pelvis, rotations)
    rest = rest_points(body, betas)
    for index, joint in enumerate(body.landmark_joint.tolist()):
        offset = rest[:, 24 + index] - rest[:, joint]
        expected = (
            points[:, :, joint] + (global_rotations[:, :, joint] @ offset[:, None, :, None])[..., 0]
        )
        assert (points[:, :, 24 + index] - expected).abs().max() < 1e-12


def test_whole_scene_turns_and_shifts_with_the_root(body):
    betas, root, pelvis, rotations = random_state(1, 3)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -1.1, 0.7], dtype=F64))
    shift = torch.tensor([3.0, -2.0, 0.5], dtype=F64)
    before = vertices(body, betas, root, pelvis, rotations)
    after = vertices(body, betas, turn @ root, pelvis @ turn.T + shift, rotations)
    assert (before @ turn.T + shift - after).abs().max() < 1e-12
    points, _ = forward_points(body, betas, root, pelvis, rotations)
    turned, _ = forward_points(body, betas, turn @ root, pelvis @ turn.T + shift, rotations)
    assert (points @ turn.T + shift - turned).abs().max() < 1e-12


def test_gradients_agree_with_finite_differences(toy):
    betas, _, pelvis, _ = random_state(1, 2)
    generator = torch.Generator().manual_seed(5)
    rotvecs = torch.randn(1, 2, 22, 3, generator=generator, dtype=F64)

    def positions(betas, pelvis, rotvecs):
        matrices = roma.rotvec_to_rotmat(rotvecs)
        return forward_points(toy, betas, matrices[:, :, 0], pelvis, matrices[:, :, 1:])[0]

    inputs = [tensor.clone().requires_grad_() for tensor in (betas, pelvis, rotvecs)]
    assert torch.autograd.gradcheck(positions, inputs, fast_mode=True)


def test_skinning_in_chunks_changes_nothing(body, monkeypatch):
    state = random_state(2, 5)
    whole = vertices(body, *state)
    monkeypatch.setattr("slamhmr.body.CHUNK_FRAMES", 2)
    assert (vertices(body, *state) - whole).abs().max() < 1e-14


def test_transl_and_pelvis_are_inverse(toy):
    betas, _, pelvis, _ = random_state(3, 4)
    there = transl_from_pelvis(toy, betas, pelvis)
    assert (there - pelvis).abs().max() > 0.01
    assert (pelvis_from_transl(toy, betas, there) - pelvis).abs().max() < 1e-14


def test_default_body_is_an_adult_in_t_pose(body):
    at = dict(zip(body.point_names, body.point_template, strict=True))
    assert body.point_names[:24] == SMPL_JOINTS
    assert set(KEYPOINTS) <= set(body.point_names)
    stature = body.v_template[:, 1].max() - body.v_template[:, 1].min()
    assert 1.6 < stature < 1.8
    for side, sign in (("left", 1), ("right", -1)):
        assert sign * at[f"{side}_wrist"][0] > 0.6  # +x is left
        assert at[f"{side}_big_toe"][2] > at[f"{side}_heel"][2] + 0.2  # +z is forward
        assert sign * (at[f"{side}_small_toe"][0] - at[f"{side}_big_toe"][0]) > 0.04
        assert at[f"{side}_eye"][2] > at[f"{side}_ear"][2] + 0.05
        assert at[f"{side}_knee"][1] < -0.4 < at["pelvis"][1]
        assert at[f"{side}_mouth"][1] < at["nose"][1] < at[f"{side}_eye"][1] < at["head_top"][1]
    assert at["head_top"][1] == body.v_template[:, 1].max()


def test_default_landmarks_mirror(body):
    mirror = torch.tensor([-1.0, 1.0, 1.0], dtype=F64)
    at = dict(zip(body.point_names, body.point_template, strict=True))
    for name, point in at.items():
        if name.startswith("left_"):
            other = at[name.replace("left_", "right_")] * mirror
            assert (point - other).abs().max() < 2e-3, name


def test_default_betas_start_with_stature(body):
    heights = []
    for step in (-2.0, 0.0, 2.0):
        betas = torch.zeros(10, dtype=F64)
        betas[0] = step
        y = body.v_template[:, 1] + (body.shapedirs @ betas)[:, 1]
        heights.append(float(y.max() - y.min()))
    assert heights[0] + 0.15 < heights[1] < heights[2] - 0.15


def test_default_regressor_gives_the_stored_joints_at_any_shape():
    for with_fingers, name in ((False, "default"), (True, "default-hands")):
        arrays, model = smpl_arrays(with_fingers=with_fingers), load_body(name)
        regressor = torch.as_tensor(arrays["J_regressor"])
        betas = random_state(5, 1)[0]
        meshes = model.v_template + torch.einsum("vdb,nb->nvd", model.shapedirs, betas)
        joints = model.joint_template + torch.einsum("jdb,nb->njd", model.joint_shapedirs, betas)
        assert (regressor @ meshes - joints).abs().max() < 1e-6
        assert (regressor.sum(dim=1) - 1).abs().max() < 1e-9
        assert int((regressor != 0).sum(dim=1).max()) <= 3 * 34  # a hand is a mean of three


def test_default_body_is_complete_and_bounded(body):
    assert (body.weights >= 0).all()
    assert (body.weights.sum(dim=1) - 1).abs().max() < 1e-12
    assert int(body.faces.max()) == len(body.v_template) - 1
    assert set(body.segment.unique().tolist()) == set(range(len(SEGMENTS)))
    edges = torch.cat([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]])
    assert len(edges.unique(dim=0)) == len(edges)  # consistently oriented: each directed edge once
    corners = body.v_template[body.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    volume = float((corners[:, 0] * normals).sum() / 6)
    assert 0.05 < volume < 0.09  # m3; positive: faces look outwards


def test_fingers_follow_the_wrist(body):
    state = random_state(1, 2)
    fingers = load_body("default-hands")
    assert len(fingers.parents) == 52
    assert (vertices(fingers, *state) - vertices(body, *state)).abs().max() < 1e-12
    both = [forward_points(model, *state)[0] for model in (body, fingers)]
    assert (both[0] - both[1]).abs().max() < 1e-12


def test_dtype_is_the_callers_choice():
    model = load_body(dtype=torch.float32)
    state = [tensor.float() for tensor in random_state(1, 2)]
    points, _ = forward_points(model, *state)
    exact, _ = forward_points(load_body(), *random_state(1, 2))
    assert points.dtype == torch.float32
    assert (points.double() - exact).abs().max() < 1e-5


def test_body_is_frozen(body):
    with pytest.raises(dataclasses.FrozenInstanceError):
        body.name = "other"


def test_thousand_frames_take_milliseconds(body):
    state = random_state(1, 1000)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        forward_points(body, *state)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1  # measured 0.004 on one idle core; loose for busy machines
