"""WHAM's body: golden skinning, points about the hips, and which contact is which point."""

from itertools import permutations

import numpy as np
import pytest
import roma
import torch
from golden_files import FOLDER
from wham_case import toy_body

from priors.checkpoints import load_weights
from priors.convert import convert
from priors.wham import Wham
from priors.wham_body import contact_order

# Vertices where SMPL has them: toes ahead (z), left side at positive x.
PLACES = {
    "left_big_toe": (0.1, -1.2, 0.15), "left_heel": (0.1, -1.2, -0.05),
    "right_big_toe": (-0.1, -1.2, 0.14), "right_heel": (-0.1, -1.2, -0.06),
}  # fmt: skip


def test_skinning_agrees_with_the_official_body_model():
    with np.load(FOLDER / "toy_smpl_lbs.npz") as file:
        golden = {key: torch.from_numpy(file[key]).float() for key in file.files}
    rotations = roma.rotvec_to_rotmat(golden["in_pose_aa"].reshape(-1, 24, 3))
    vertices, joints = toy_body().skin(rotations, golden["in_betas"])
    moved = golden["in_transl"][:, None]
    torch.testing.assert_close(vertices + moved, golden["out_vertices"], rtol=0, atol=5e-6)
    torch.testing.assert_close(joints + moved, golden["out_joints24"], rtol=0, atol=5e-6)


def test_points_turn_about_the_middle_of_the_hips_with_the_root():
    """So that feet in the world need no second pass of the body."""
    torch.manual_seed(0)
    rotations = roma.random_rotmat(24)[None]
    turn = roma.random_rotmat(1)
    body, betas = toy_body(), torch.randn(1, 10)
    other = rotations.clone()
    other[:, 0] = turn @ rotations[:, 0]
    here, there = body(rotations, betas), body(other, betas)
    torch.testing.assert_close(there.feet, here.feet @ turn.mT, rtol=0, atol=2e-6)
    middle = here.joints[:, [11, 12]].mean(dim=1)
    torch.testing.assert_close(middle, torch.zeros(1, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("names", list(permutations(PLACES))[::5])
def test_the_order_of_contacts_is_read_from_the_regressor(names):
    template = torch.tensor([PLACES[name] for name in names])
    assert contact_order(torch.eye(4), template) == names


def test_no_order_where_the_points_are_not_two_feet():
    assert contact_order(torch.eye(4), torch.tensor([[0.1, 0, 0]] * 4)) == ()
    flat = torch.tensor([[0.1, 0, 0], [0.1, 0, 0], [-0.1, 0, 0], [-0.1, 0, 1]])
    assert contact_order(torch.eye(4), flat) == ()


def test_converting_keeps_the_order_and_not_the_body(tmp_path):
    names = tuple(PLACES)
    template = torch.tensor([PLACES[name] for name in names])
    state = {**Wham().state_dict(), "smpl.J_regressor_feet": torch.eye(4)}
    torch.save({"model": {**state, "smpl.v_template": template}}, tmp_path / "wham.pth.tar")
    done = convert(tmp_path / "wham.pth.tar")
    tensors, card = load_weights(done.path)
    assert card["contact_order"] == list(names)
    assert not any(name.startswith("smpl.") for name in tensors)
