"""Muon: orthogonal steps, what it is for, checkpoints."""

import copy

import pytest
import torch

from priors.lifter import Lifter
from priors.training.lifter import hidden_weights
from priors.training.muon import SIZE, Muon, Optimisers, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (20, 50), (50, 20), (1, 7)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_orthogonal_has_singular_values_near_one_and_the_same_directions(shape, size):
    made = torch.Generator().manual_seed(3)
    matrix = size * torch.randn(*shape, generator=made)
    found = orthogonal(matrix)
    assert found.shape == matrix.shape
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    naive = left @ right
    assert float((found * naive).sum() / found.norm() / naive.norm()) > 0.95


def test_nothing_comes_of_a_gradient_of_zero():
    assert not bool(orthogonal(torch.zeros(3, 4)).any())


def test_a_step_has_the_size_of_adamw_whatever_the_gradient():
    for scale in (1e-6, 1e3):
        weight = torch.zeros(40, 30, 3, requires_grad=True)
        weight.grad = scale * torch.randn(40, 30, 3, generator=torch.Generator().manual_seed(1))
        Muon([weight], rate=0.01, decay=0.0).step()
        size = float(weight.detach().square().mean().sqrt())
        assert 0.6 * SIZE * 0.01 < size < 1.3 * SIZE * 0.01


def test_muon_takes_fewer_steps_where_inputs_are_of_unlike_strength():
    made = torch.Generator().manual_seed(0)
    strength = torch.logspace(0, -2, 24)
    inputs = torch.randn(512, 24, generator=made) * strength
    wanted = inputs @ torch.randn(24, 24, generator=made)

    def left_over(make) -> float:
        weight = torch.zeros(24, 24, requires_grad=True)
        optimiser = make(weight)
        for step in range(300):
            for group in optimiser.param_groups:
                group["lr"] = 0.05 * (1 - step / 300)
            optimiser.zero_grad()
            loss = (inputs @ weight - wanted).square().mean()
            loss.backward()
            optimiser.step()
        return float((inputs @ weight.detach() - wanted).square().mean())

    muon = left_over(lambda weight: Muon([weight], rate=0.05, decay=0.0))
    descent = left_over(lambda weight: torch.optim.SGD([weight], lr=0.05, momentum=0.9))
    assert muon < 0.5 * descent


def test_muon_has_the_weights_between_features_and_adamw_the_rest():
    network = Lifter(16, (1, 2))
    names = hidden_weights(network)
    assert {"blocks.0.taps.weight", "blocks.1.narrow.weight", "embed.2.weight"} <= names
    assert not names & {"embed.0.weight", "head.weight", "head.bias", "blocks.0.taps.bias"}
    both = Optimisers(network, names, rate=0.1, decay=0.0)
    counts = [sum(len(group["params"]) for group in part.param_groups) for part in both.parts]
    assert counts == [len(names), len(list(network.parameters())) - len(names)]


def test_checkpoint_goes_on_as_if_nothing_had_been():
    def step(network: Lifter, both: Optimisers, seed: int) -> None:
        x = torch.randn(2, 9, 76, generator=torch.Generator().manual_seed(seed))
        both.zero_grad()
        network(x).square().mean().backward()
        both.rate(1e-3)
        both.step()

    torch.manual_seed(0)
    first, second = Lifter(16, (1, 2)), Lifter(16, (1, 2))
    one = Optimisers(first, hidden_weights(first), 1e-3, 0.02)
    two = Optimisers(second, hidden_weights(second), 1e-3, 0.02)
    step(first, one, 1)
    second.load_state_dict(first.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    step(first, one, 2)
    step(second, two, 2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_checkpoint_of_another_optimiser_is_refused():
    network = Lifter(16, (1, 2))
    both = Optimisers(network, hidden_weights(network), 1e-3, 0.02)
    with pytest.raises(ValueError, match="another optimiser"):
        both.load_state_dict(torch.optim.AdamW(network.parameters()).state_dict())
