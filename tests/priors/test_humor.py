"""HuMoR against the official network, and what must hold of its frames."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import roma
import torch
from golden_files import Golden, filled_network

from priors import humor
from priors.checkpoints import CheckpointError, save_weights

OFFICIAL = humor.official_heading_removal


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("humor")


@pytest.fixture(scope="module")
def network(golden: Golden) -> humor.HuMoR:
    return filled_network(golden, humor.HuMoR()).requires_grad_(False)


@pytest.fixture(scope="module")
def sequence(golden: Golden) -> humor.State:
    """World states, batch (4, 9)."""
    parts = [golden[f"in_globalseq_{field.name}"] for field in fields(humor.State)]
    return humor.State.from_vector(torch.cat(parts, dim=-1))


def check_state(golden: Golden, name: str, state: humor.State):
    for field in fields(humor.State):
        theirs = golden[f"out_{name}_{field.name}"]
        golden.check(f"{name}_{field.name}", getattr(state, field.name).reshape(theirs.shape))


def test_shapes_without_making_a_network(network: humor.HuMoR, golden: Golden):
    shapes = humor.state_shapes()
    assert shapes == {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert sum(value.numel() for value in network.state_dict().values()) == 9_725_976


def test_state_vector(golden: Golden):
    state = humor.State.from_vector(golden["in_x_past"])
    assert torch.equal(state.vector(), golden["in_x_past"])
    assert torch.equal(state.joints.flatten(1), golden["in_x_past"][:, 207:273])


def test_networks(golden: Golden, network: humor.HuMoR):
    past, present = golden["in_x_past"], golden["in_x_t"]
    for name, (mean, variance) in {
        "prior": network.prior(past),
        "post": network.posterior(past, present),
    }.items():
        golden.check(f"{name}_mean", mean)
        golden.check(f"{name}_var", variance)
    golden.check("decoder_raw", network.decode_raw(past, golden["in_z"]))
    state, contacts = network.decode(past, golden["in_z"])
    golden.check("decode", torch.cat([state.vector(), contacts], dim=-1))
    check_state(golden, "split", state)
    golden.check("split_contacts", contacts[:, None])


def test_heading(golden: Golden):
    rotations = golden["in_root_mats"]
    golden.check("world2aligned", OFFICIAL(rotations))
    exact = humor.heading_removal(rotations)
    torch.testing.assert_close(exact, golden["out_world2aligned"], rtol=0, atol=5e-5)
    right = -(exact @ rotations)[..., 0]
    assert float(right[:, 0].min()) > 0
    torch.testing.assert_close(right[:, 1], torch.zeros(7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_of_three_is_no_special_case(golden: Golden, count: int):
    """The official `torch.cross` crosses along the batch if that is 3 long: 1.99 off."""
    for removal in (OFFICIAL, humor.heading_removal):
        whole = removal(golden["in_root_mats"])
        assert torch.equal(removal(golden["in_root_mats"][:count]), whole[:count])


@pytest.mark.parametrize("heading", [0.0, 1e-9, 3.1415926535])
def test_heading_of_aligned_and_opposite_people(heading: float):
    """Where the official arc cosine has no digits left and the cross product no direction."""
    turn = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.0, heading]], dtype=torch.float64))
    facing = torch.tensor([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.float64)  # right = x
    removal = humor.heading_removal(turn @ facing)
    torch.testing.assert_close(removal, turn.transpose(-1, -2), rtol=0, atol=1e-12)


def test_roll_out(golden: Golden, network: humor.HuMoR, sequence: humor.State):
    start = humor.State.from_vector(golden["in_x_past"])
    codes = golden["in_z_seq"]
    found = humor.roll_out(network, start, 12, codes=codes, heading=OFFICIAL)
    check_state(golden, "rollout", found.states)
    golden.check("rollout_contacts", found.contact_logits)
    found = humor.roll_out(network, start, 5, heading=OFFICIAL)
    check_state(golden, "rollmean", found.states)
    golden.check("rollmean_contacts", found.contact_logits)
    golden.check("rollmean_prior_mean", found.prior_mean)
    golden.check("rollmean_prior_var", found.prior_variance)
    found = humor.roll_out(
        network, sequence[:, 0], 4, codes=codes, canonicalize=True, heading=OFFICIAL
    )
    check_state(golden, "rollcanon", found.states)
    golden.check("rollcanon_contacts", found.contact_logits)


def test_inference(golden: Golden, network: humor.HuMoR, sequence: humor.State):
    names = ("prior_mean", "prior_var", "post_mean", "post_var")
    for name, ours in zip(names, humor.infer(network, sequence, OFFICIAL), strict=True):
        golden.check(f"infer_{name}", ours)


def test_frames_are_undone(sequence: humor.State):
    frame = humor.canonical_frame(sequence)
    local = frame.apply(sequence)
    torch.testing.assert_close(local.trans[..., :2], torch.zeros(4, 9, 2), rtol=0, atol=1e-6)
    offset = (sequence.joints[..., 0, :] - sequence.trans)[..., :2]
    torch.testing.assert_close(local.joints[..., 0, :2], offset, rtol=0, atol=1e-6)
    torch.testing.assert_close(frame.undo(local).vector(), sequence.vector(), rtol=0, atol=1e-5)


def test_a_roll_out_does_not_depend_on_where_it_starts(
    golden: Golden, network: humor.HuMoR, sequence: humor.State
):
    start = sequence[:, 0]
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 2.0])).expand(4, 3, 3)
    shift = torch.tensor([3.0, -1.0, 0.0]).expand(4, 3)
    moved = replace(humor.canonical_frame(start), rotation=turn, shift=shift)
    codes = golden["in_z_seq"]
    here = humor.roll_out(network, start, 3, codes=codes, canonicalize=True)
    there = humor.roll_out(network, moved.apply(start), 3, codes=codes, canonicalize=True)
    for step in range(3):
        expected = moved.apply(here.states[:, step]).vector()
        torch.testing.assert_close(there.states[:, step].vector(), expected, rtol=0, atol=1e-4)


def test_weights_file(tmp_path: Path, network: humor.HuMoR):
    path, state = tmp_path / "humor.safetensors", dict(network.state_dict())
    save_weights(path, state, {})
    x = torch.linspace(-1, 1, humor.STATE)[None]
    assert torch.equal(humor.load_humor(path).prior(x)[0], network.prior(x)[0])
    state.pop("decoder.net.9.bias")
    save_weights(path, state, {})
    with pytest.raises(CheckpointError, match=r"'decoder.net.9.bias' is missing"):
        humor.load_humor(path)
