"""Transition prior: Jacobians against autograd, splines, likelihood, a small training."""

import math

import numpy as np
import pytest
import roma
import torch

from priors.checkpoints import CheckpointError, load_weights, save_weights
from priors.training.clips import is_held_out, read_library
from priors.training.scoring import regular, student_nll
from priors.training.triples import clip_sample, draw, splines
from priors.transition import (
    DEFAULT_WEIGHTS,
    PELVIS_JITTER,
    Network,
    TransitionPrior,
    load_transition_prior,
    save_transition_prior,
)


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def network(*sizes):
    weights = tuple(
        noise(b, a, seed=k) / a**0.5 for k, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False))
    )
    return Network(noise(sizes[-1], sizes[0]), weights, tuple(0.3 * noise(b) for b in sizes[1:]))


def write_motions(folder, names, frames=60):
    for index, name in enumerate(names):
        time = torch.arange(frames, dtype=torch.float64)[:, None] / 30.0
        swing = torch.sin(2 * math.pi * (0.8 + 0.1 * index) * time + noise(66, seed=index))
        pose = (0.2 * swing[:, 3:]).reshape(frames, 21, 3)
        upright = roma.rotvec_to_rotmat(torch.tensor([math.pi / 2, 0, 0], dtype=torch.float64))
        root = roma.rotmat_to_rotvec(upright @ roma.rotvec_to_rotmat(0.3 * swing[:, :3]))
        pelvis = torch.cat([time * (0.5 + index), 0.1 * swing[:, :1], 1 + 0 * time], dim=1)
        np.savez(
            folder / f"{name}.npz", root_orient=root.numpy(), pelvis=pelvis.numpy(),
            body_pose=pose.numpy(), contacts=np.zeros((frames, 4)), fps=30.0,
            tracked=np.arange(21) != 20,
        )  # fmt: skip


@pytest.mark.parametrize("sizes", [(7, 5, 4), (9, 6, 5, 3)])
def test_jacobian_of_a_network_against_autograd(sizes):
    net, inputs, left = network(*sizes), noise(3, sizes[0], seed=5), noise(2, sizes[-1], seed=6)
    found = net.jacobian(inputs, left)
    for row in range(3):
        expected = left @ torch.autograd.functional.jacobian(net, inputs[row])
        torch.testing.assert_close(found[row], expected)


def test_round_trip_and_refusal(tmp_path):
    prior = TransitionPrior(
        network(198, 4, 69), network(261, 4, 3, 3), torch.eye(69).double(), torch.eye(3).double()
    )
    path = tmp_path / "transition.safetensors"
    save_transition_prior(path, prior, {"licence": "MIT"})
    again = load_transition_prior(path)
    inputs = noise(5, 198)
    torch.testing.assert_close(again.change(inputs), prior.change(inputs), rtol=1e-5, atol=1e-5)
    tensors, card = load_weights(path)
    assert card["licence"] == "MIT"
    for lacking in ("change.whitening", "gait.skip", "gait.bias.1"):
        other = {key: value for key, value in tensors.items() if key != lacking}
        save_weights(tmp_path / "other.safetensors", other, {})
        with pytest.raises(CheckpointError, match=lacking):
            load_transition_prior(tmp_path / "other.safetensors")
    tensors["change.weight.0"] = torch.zeros(4, 197)
    save_weights(tmp_path / "other.safetensors", tensors, {})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_transition_prior(tmp_path / "other.safetensors")


def test_splines_pass_through_the_recorded_frames(tmp_path):
    write_motions(tmp_path, ["a"])
    library = read_library(tmp_path)
    sample = clip_sample(splines(library), 0)
    triple, rotations = sample.triple, library.rotations
    torch.testing.assert_close(triple.pose, rotations[2:-4, 1:], rtol=0, atol=2e-5)
    rates = 30 * roma.rotmat_to_rotvec(rotations[1:-5].mT @ rotations[2:-4]).flatten(1)
    torch.testing.assert_close(triple.before[:, 3:], rates, rtol=0, atol=2e-3)
    moved = 30 * (library.pelvis[3:-3] - library.pelvis[2:-4])
    seen = (rotations[2:-4, 0].mT @ moved[..., None])[..., 0]
    torch.testing.assert_close(triple.after[:, :3], seen, rtol=0, atol=2e-3)
    torch.testing.assert_close(triple.up, rotations[2:-4, 0, 2], rtol=0, atol=2e-5)
    assert not sample.known[:, 66:].any()
    assert sample.known[:, :66].all()


def test_velocities_do_not_depend_on_the_step(tmp_path):
    write_motions(tmp_path, ["a"])
    found = splines(read_library(tmp_path))
    slow, fast = (
        draw(found, 400, torch.Generator().manual_seed(0), step=step) for step in (1 / 25, 1 / 60)
    )
    a, b = slow.triple.acceleration.std(dim=0), fast.triple.acceleration.std(dim=0)
    assert float((a[3:] / b[3:] - 1).abs().median()) < 0.05
    assert float((slow.velocity.mean(dim=0) - fast.velocity.mean(dim=0)).abs().max()) < 0.1


def test_likelihood_of_what_was_recorded():
    error, freedom = noise(50, 2), 4.0
    known = torch.ones(50, 2, dtype=torch.bool)
    known[::2, 1] = False
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    found = student_nll(error, known, covariance, freedom)
    single = torch.distributions.StudentT(
        torch.tensor(4.0).double(), 0.0, torch.tensor(2.0).double().sqrt()
    )
    torch.testing.assert_close(found[::2], -single.log_prob(error[::2, 0]))
    assert float(found[1::2].mean()) > float(found[::2].mean())


def test_regular_covariance_mends_negative_eigenvalues():
    broken = torch.tensor([[4.0, 5.9, 0.0], [5.9, 9.0, 2.9], [0.0, 2.9, 1.0]], dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(broken)[0]) < 0
    mended = regular(broken)
    assert float(torch.linalg.eigvalsh(mended)[0]) > 0
    torch.testing.assert_close(mended, broken, rtol=0, atol=2.0)


def test_leading_rows_keep_what_they_say_and_the_precision_of_jitter():
    whitening = noise(69, 69, seed=3)
    prior = TransitionPrior(
        network(198, 4, 69), network(261, 4, 3), whitening, torch.eye(3).double()
    )
    whole, everything = prior.leading(69)
    assert everything == pytest.approx(1.0)
    torch.testing.assert_close(
        whole.change_whitening.T @ whole.change_whitening, whitening.T @ whitening
    )
    kept, share = prior.leading(40)
    jitter = torch.ones(69).double()
    jitter[:3] = PELVIS_JITTER
    found = (kept.change_whitening * jitter).square().sum()
    assert kept.change_whitening.shape == (40, 69)
    assert float(found / (whitening * jitter).square().sum()) == pytest.approx(share)
    assert float((whitening[:40] * jitter).square().sum()) < float(found)
    left_over = torch.linalg.eigvalsh(
        whitening.T @ whitening - kept.change_whitening.T @ kept.change_whitening
    )
    assert float(left_over[0]) > -1e-9


def test_the_shipped_prior_is_that_of_its_card_and_knows_walking():
    prior = load_transition_prior()
    _, card = load_weights(DEFAULT_WEIGHTS)
    assert prior.change_whitening.shape == (44, 69)
    assert card["share_of_precision_kept"] > 0.95
    assert not any(is_held_out(name) for name in card["trained_on"])
    walks = [v for name, v in card["scores"]["gait"].items() if name.startswith("walk")]
    assert len(walks) >= 4
    for walk in walks:
        assert walk["rms_error"] < 0.25 * walk["speed"]
        assert walk["gain"] == pytest.approx(1.0, abs=0.1)
