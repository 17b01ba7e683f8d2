"""HuMoR's residual for multiple shooting: values, Jacobian against differences, invariance."""

from dataclasses import fields, replace

import pytest
import roma
import torch
from golden_files import Golden, filled_network
from torch import Tensor

from priors import humor
from priors.humor_transition import (
    TANGENT,
    TURNS,
    VECTORS,
    Transition,
    layers_jacobian,
    transition_residual,
    transition_values,
)

PIVOT = torch.tensor([0.02, -0.03, 0.1], dtype=torch.float64)
STEP = 1e-6  # a unit of the network has its kink 1e-5 from here


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("humor")


@pytest.fixture(scope="module")
def network(golden: Golden) -> humor.HuMoR:
    return filled_network(golden, humor.HuMoR()).requires_grad_(False).double()


@pytest.fixture(scope="module")
def states(golden: Golden) -> tuple[humor.State, humor.State]:
    """Two steps of a world sequence, with true rotations."""
    parts = [golden[f"in_globalseq_{field.name}"] for field in fields(humor.State)]
    sequence = humor.State.from_vector(torch.cat(parts, dim=-1).double())[0]
    exact = replace(
        sequence,
        root_orient=roma.special_procrustes(sequence.root_orient),
        pose_body=roma.special_procrustes(sequence.pose_body),
    )
    return exact[:2], exact[1:3]


def moved(state: humor.State, tangent: Tensor) -> humor.State:
    """The state after increments (..., 207), one copy of the state for each."""

    def turned(rotation: Tensor, start: int) -> Tensor:
        return rotation @ roma.rotvec_to_rotmat(tangent[..., start : start + 3])

    return humor.State(
        state.trans + tangent[..., :3],
        state.trans_vel + tangent[..., 3:6],
        turned(state.root_orient, 6),
        state.root_orient_vel + tangent[..., 9:12],
        torch.stack([turned(state.pose_body[..., j, :, :], 12 + 3 * j) for j in range(21)], dim=-3),
        state.joints + tangent[..., 75:141].unflatten(-1, (22, 3)),
        state.joints_vel + tangent[..., 141:].unflatten(-1, (22, 3)),
    )


def repeated(state: humor.State, step: int) -> humor.State:
    return humor.State(
        *(
            getattr(state, f.name)[step].expand(TANGENT, *getattr(state, f.name).shape[1:])
            for f in fields(humor.State)
        )
    )


def values(found: Transition) -> Tensor:
    return torch.cat([found.state, found.latent], dim=-1)


def test_every_place_of_the_tangent_is_a_vector_or_a_turn():
    places = sorted(p + k for p in (*VECTORS, *TURNS) for k in range(3))
    assert places == list(range(TANGENT))


@pytest.mark.parametrize("name", ["decoder", "prior_net"])
def test_networks_jacobian_against_autograd(network: humor.HuMoR, golden: Golden, name: str):
    layers = getattr(network, name)
    x = golden["in_x_past"].double()
    code = golden["in_z"].double() if name == "decoder" else None
    value, jacobian = layers_jacobian(layers, x, code)
    torch.testing.assert_close(value, layers(x, code))
    exact = torch.autograd.functional.jacobian(lambda x: layers(x, code).sum(dim=0), x)
    torch.testing.assert_close(jacobian, exact.transpose(0, 1), rtol=1e-9, atol=1e-9)


def test_values(network: humor.HuMoR, states):
    past, present = states
    found = transition_residual(network, past, present, PIVOT)
    frame = humor.canonical_frame(past)
    flat = torch.tensor([*PIVOT[:2], 0.0], dtype=torch.float64)
    frame = replace(frame, pivot=flat.expand(2, 3))
    before, after = frame.apply(past).vector(), frame.apply(present).vector()
    code, _ = network.posterior(before, after)
    alone = torch.cat(transition_values(network, past, present, PIVOT, code), dim=-1)
    torch.testing.assert_close(values(found), alone, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.code, code)
    mean, variance = network.prior(before)
    torch.testing.assert_close(found.latent, (code - mean) / variance.sqrt())
    predicted, _ = network.decode(before, code)
    torch.testing.assert_close(found.state[:, :3], (frame.apply(present).trans - predicted.trans))
    turn = predicted.pose_body[:, 4].transpose(-1, -2) @ present.pose_body[:, 4]
    torch.testing.assert_close(found.state[:, 24:27], roma.rotmat_to_rotvec(turn))


def test_a_decoded_state_has_no_residual(network: humor.HuMoR, states):
    past, present = states
    frame = replace(humor.canonical_frame(past), pivot=torch.zeros(2, 3, dtype=torch.float64))
    code = transition_residual(network, past, present, 0 * PIVOT).code
    present = frame.undo(network.decode(frame.apply(past).vector(), code)[0])
    found = transition_residual(network, past, present, 0 * PIVOT, code)
    torch.testing.assert_close(found.state, torch.zeros_like(found.state), rtol=0, atol=1e-7)


@pytest.mark.parametrize("which", ["past", "present"])
def test_jacobian_against_differences(network: humor.HuMoR, states, which: str):
    past, present = states
    found = transition_residual(network, past, present, PIVOT)
    steps = STEP * torch.eye(TANGENT, dtype=torch.float64)
    for step in range(2):
        ends = []
        for sign in (1, -1):
            sides = [repeated(past, step), repeated(present, step)]
            index = 0 if which == "past" else 1
            sides[index] = moved(sides[index], sign * steps)
            code = found.code[step].expand(TANGENT, -1)
            ends.append(torch.cat(transition_values(network, *sides, PIVOT, code), dim=-1))
        exact = ((ends[0] - ends[1]) / (2 * STEP)).T
        state = getattr(found, f"state_by_{which}")[step]
        torch.testing.assert_close(state, exact[:TANGENT], rtol=1e-5, atol=1e-6)
        latent = (
            found.latent_by_past[step] if which == "past" else torch.zeros(48, TANGENT).double()
        )
        torch.testing.assert_close(latent, exact[TANGENT:], rtol=1e-5, atol=1e-6)


def test_nothing_changes_when_all_turn_and_move_together(network: humor.HuMoR, states):
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0, 2.5], dtype=torch.float64))
    shift = torch.tensor([3.0, -1, 0], dtype=torch.float64)
    elsewhere = humor.Frame(turn.expand(2, 3, 3), shift.expand(2, 3), shift.expand(2, 3) * 0)
    past, present = states
    here = transition_residual(network, past, present, 0 * PIVOT)
    there = transition_residual(network, elsewhere.apply(past), elsewhere.apply(present), 0 * PIVOT)
    torch.testing.assert_close(values(here), values(there), rtol=0, atol=1e-9)
    common = torch.zeros(TANGENT, 2, dtype=torch.float64)  # everything along x, along y
    for start in (0, *range(75, 141, 3)):
        common[start, 0] = common[start + 1, 1] = 1
    still = (here.state_by_past + here.state_by_present) @ common
    torch.testing.assert_close(still, torch.zeros_like(still), rtol=0, atol=1e-9)
