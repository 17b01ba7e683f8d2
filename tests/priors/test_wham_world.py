"""WHAM's trajectory against golden values; chunks; the toy body end to end."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from wham_case import (
    crop,
    golden_clip,
    golden_motion,
    golden_network,
    golden_start,
    network,
    network_of_motion,
    random_case,
    toy_body,
)

from priors.rotation6d import ROWS_IDENTITY, rows_to_matrix
from priors.wham import Clip, Prediction, Predictor, Start
from priors.wham_mirror import predict_averaged
from priors.wham_world import (
    Motion,
    Path,
    Trajectory,
    camera_motion,
    camera_translation,
    roll_out,
    velocity_without_sliding,
)


def check_path(golden, rotation: str, position: str, path: Path) -> None:
    golden.check(rotation, path.rotation)
    golden.check(position, path.position)


@pytest.fixture(scope="module")
def golden():
    return golden_network()


@pytest.fixture(scope="module")
def predicted(golden) -> Prediction:
    """The golden prediction with the synthetic contacts."""
    return Prediction(
        golden["out_pred_kp3d"], golden["out_motion_context"], golden["out_pred_root"],
        golden["out_pred_vel"], golden["out_pred_pose"], golden["out_pred_shape"],
        golden["out_pred_cam"], golden["in_syn_contact"],
    )  # fmt: skip


def test_roll_out(golden):
    path = roll_out(golden["out_pred_root"], golden["out_pred_vel"])
    check_path(golden, "rollout_root_world", "rollout_trans", path)
    start = torch.tensor([1.0, 2.0, 3.0]).expand(2, -1)
    path = roll_out(golden["out_pred_root"], golden["out_pred_vel"], start)
    golden.check("rollout_trans_init123", path.position)


def test_camera_motion_and_feet_in_the_world(golden):
    path = Path(golden["out_rollout_root_world"], golden["out_rollout_trans"])
    root = rows_to_matrix(golden["out_pred_pose"][..., :6])
    rotation, shift = camera_motion(root, golden["in_syn_full_cam"], path)
    golden.check("cam_R", rotation)
    golden.check("cam_T", shift)
    feet = golden["in_syn_feet"] + (golden["in_syn_full_cam"] - shift)[:, :, None]
    golden.check("syn_feet_world", feet @ rotation)


def test_velocity_without_sliding(golden):
    ours = velocity_without_sliding(
        golden["in_syn_feet"], golden["in_syn_contact"],
        rows_to_matrix(golden["out_pred_root"][:, 1:]), golden["out_pred_vel"],
    )  # fmt: skip
    golden.check("updated_vel", ours)


def test_refined_trajectory(golden, predicted):
    trajectory = Trajectory(network(), toy_body())
    moved = replace(predicted, velocity=golden["out_updated_vel"])
    root, velocity, _ = trajectory.refine(moved, golden["in_syn_feet"], trajectory.init_state(2))
    golden.check("poses_root_r6d_refined", root)
    golden.check("vel_root_refined", velocity)
    path = roll_out(root, velocity)
    check_path(golden, "refined_root_world_ydown", "refined_trans_world_ydown", path)
    check_path(golden, "refined_root_world_yup", "refined_trans_world_yup", path.y_up())


def one_sequence(people: slice) -> tuple[Start, Clip]:
    start = Start(*(value[people] for value in vars(golden_start()).values()))
    return start, Clip(*(value[people] for value in vars(golden_clip()).values()))


def end_to_end(people: slice = slice(None)) -> tuple[Prediction, Motion]:
    golden, model = golden_network(), network_of_motion()
    start, clip = one_sequence(people)
    prediction = Predictor(model).predict(start, clip, "official")
    trajectory = Trajectory(model, toy_body())
    motion, _ = trajectory.step(
        trajectory.init_state(len(start.root)), prediction, golden["in_bbox"][people],
        golden["in_cam_intrinsics"][people],
    )  # fmt: skip
    return prediction, motion


def test_end_to_end_on_the_toy_body():
    prediction, motion = end_to_end()
    body, expected = motion.body, golden_motion()
    ours: dict[str, Tensor] = {
        "feet": motion.feet_world,
        "contact": prediction.contact,
        "pose": prediction.pose,
        "betas": prediction.betas,
        "cam": prediction.camera,
        "poses_root_cam": motion.rotations[:, :, :1].flatten(0, 1),
        "poses_body": motion.rotations[:, :, 1:].flatten(0, 1),
        "poses_root_r6d": prediction.root,
        "vel_root": prediction.velocity,
        "trans_cam": motion.position_cam.flatten(0, 1),
        "verts_cam": body.vertices + 0.0,
        "offset": body.offset,
        "joints": body.joints,
        "feet_cam": body.feet,
        "poses_root_r6d_refined": motion.root_refined,
        "vel_root_refined": motion.velocity_refined,
    }
    for name, value in ours.items():
        expected.check(f"refine_{name}", value)
    paths = {
        "refine": motion.refined.y_up(), "ydown": motion.refined, "norefine": motion.path.y_up(),
    }  # fmt: skip
    for prefix, path in paths.items():
        check_path(expected, f"{prefix}_poses_root_world", f"{prefix}_trans_world", path)


def test_projections_of_the_toy_body():
    """Full image by the pinhole camera; the box by TCMR's weak-perspective one."""
    from priors.tcmr import project_to_crop

    prediction, motion = end_to_end()
    golden, expected = golden_network(), golden_motion()
    joints = motion.body.joints.reshape(2, 20, 31, 3)
    seen = (joints + motion.position_cam[:, :, None]) @ golden["in_cam_intrinsics"].mT
    expected.check("refine_full_joints2d", seen[..., :2] / seen[..., 2:])
    weak = project_to_crop(joints.flatten(0, 1), prediction.camera.flatten(0, 1))
    expected.check("refine_weak_joints2d", weak.reshape(2, 20, 31, 2))


def test_flip_averaging_end_to_end():
    """Sequence 1 stands for the mirrored video of sequence 0, as in the golden run."""
    golden, expected, model = golden_network(), golden_motion(), network_of_motion()
    clips = tuple(one_sequence(slice(row, row + 1)) for row in (0, 1))
    averaged = predict_averaged(Predictor(model), clips, "official")
    expected.check("flip_avg_pose", averaged.pose[0])
    expected.check("flip_avg_betas", averaged.betas[0])
    expected.check("flip_avg_contact", averaged.contact)
    trajectory = Trajectory(model, toy_body())
    motion, _ = trajectory.step(
        trajectory.init_state(1), averaged, golden["in_bbox"][:1],
        golden["in_cam_intrinsics"][:1],
    )  # fmt: skip
    expected.check("flip_poses_root_r6d_refined", motion.root_refined)
    expected.check("flip_vel_root_refined", motion.velocity_refined)
    check_path(expected, "flip_poses_root_world", "flip_trans_world", motion.refined.y_up())
    expected.check("flip_trans_cam", motion.position_cam[0])
    expected.check("flip_feet", motion.feet_world)
    expected.check("flip_poses_body", motion.rotations[0, :, 1:])
    expected.check("flip_poses_root_cam", motion.rotations[0, :, :1])


@pytest.mark.parametrize("sizes", [(1,) * 6, (2, 4)])
def test_chunks_of_any_length_give_the_whole_path(sizes):
    model, golden = network_of_motion(), golden_network()
    predictor, trajectory = Predictor(model), Trajectory(model, toy_body())
    start, clip = random_case(2, 6)
    start = replace(start, root=torch.tensor(ROWS_IDENTITY).expand(2, -1))
    box, intrinsics = golden["in_bbox"][:, :6], golden["in_cam_intrinsics"]
    whole, _ = trajectory.step(
        trajectory.init_state(2), predictor.predict(start, clip), box, intrinsics
    )
    state, world, first, parts = predictor.init_state(start), trajectory.init_state(2), 0, []
    for size in sizes:
        here = slice(first, first + size)
        part, state = predictor.step(state, crop(clip, here.start, here.stop))
        motion, world = trajectory.step(world, part, box[:, here], intrinsics)
        parts.append(motion)
        first += size
    for name in ("path", "refined"):
        for what in ("rotation", "position"):
            ours = torch.cat([getattr(getattr(part, name), what) for part in parts], dim=1)
            expected = getattr(getattr(whole, name), what)
            torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)


def test_a_planted_foot_stops_the_root():
    """One foot on the ground, the root as it turns about it: the velocity becomes the true one."""
    frames = 10
    swing = torch.linspace(0, 0.3, frames)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    feet = torch.zeros(1, frames, 4, 3)
    feet[0, :, 0] = torch.tensor([0.1, 1.0, 0.0]) - swing
    feet[0, :, 2] = torch.tensor([-0.1, 0.8, 0.0])
    contact = torch.tensor([0.9, 0.1, 0.2, 0.0]).expand(1, frames, 4)
    rotation = torch.eye(3).expand(1, frames, 3, 3)
    wrong = torch.tensor([0.02, 0.01, 0.05]).expand(1, frames, 3)
    velocity = velocity_without_sliding(feet, contact, rotation, wrong)
    # One component of a foot that is in contact: divided by 1 + 1e-4.
    true = (swing[1:] - swing[:-1])[None]
    torch.testing.assert_close(velocity[:, 1:], true, rtol=0, atol=1e-5)
    torch.testing.assert_close(velocity[:, 0], wrong[:, 0])


def test_the_camera_puts_the_box_over_the_person():
    """The root projects to the box's centre moved by tx, ty in units of the person's size."""
    intrinsics = torch.tensor([[[[900.0, 0, 600], [0, 900, 380], [0, 0, 1]]]])
    box = torch.tensor([[[700.0, 300.0, 2.0]]])
    camera = torch.tensor([[[0.8, 0.0, 0.0]]])
    seen = camera_translation(camera, box, intrinsics) @ intrinsics[0].mT
    torch.testing.assert_close(seen[..., :2] / seen[..., 2:], box[..., :2])
