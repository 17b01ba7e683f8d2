"""Losses: nothing to learn at the truth, something finite everywhere else."""

from dataclasses import replace

import pytest
import torch
from recordings import rig, write_recordings

from priors.lifter import WIDTHS
from priors.rotation6d import matrix_to_rows
from priors.training.clips import read_library
from priors.training.lifter import Batch, make_batch, to_device
from priors.training.losses import WEIGHTS, losses, targets_of

RIG = rig()
EXACT = ("joints", "motion", "rotations", "up", "velocity", "place", "shape", "size")


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Batch:
    folder = tmp_path_factory.mktemp("motions")
    write_recordings(folder)
    return make_batch(read_library(folder), RIG, 6, 30, torch.Generator().manual_seed(0))


def exact_rows(batch: Batch, log_sigma: float = -1.0) -> torch.Tensor:
    """What a perfect network would say."""
    truth = targets_of(batch.footage, batch.view, RIG)
    contacts = torch.logit(batch.footage.windows.contacts.clamp(1e-6, 1 - 1e-6))
    betas = batch.footage.betas[:, None].expand(-1, contacts.shape[1], -1)
    sigmas = torch.full((*contacts.shape[:2], WIDTHS[-1]), log_sigma)
    return torch.cat(
        [matrix_to_rows(truth.rotations).flatten(start_dim=2), truth.up,
         batch.footage.root_velocity, truth.place, contacts, betas, sigmas], dim=-1,
    )  # fmt: skip


def test_every_loss_is_weighted(batch):
    assert set(losses(exact_rows(batch), batch.footage, batch.view, RIG)) == set(WEIGHTS)


def test_the_truth_costs_nothing(batch):
    found = losses(exact_rows(batch), batch.footage, batch.view, RIG)
    for name in EXACT:
        assert float(found[name]) < 1e-4, name
    assert float(found["root"]) < 2e-3  # a root of its own keeps it smooth
    said = batch.footage.windows.contacts
    entropy = -(torch.xlogy(said, said) + torch.xlogy(1 - said, 1 - said))
    least = entropy.mean(dim=-1)[batch.footage.windows.present].mean()
    assert float(found["contacts"]) == pytest.approx(float(least), abs=1e-4)


@pytest.mark.parametrize(("part", "names"), [(0, ("rotations", "joints", "root")), (1, ("up",)),
    (2, ("velocity",)), (3, ("place",)), (4, ("contacts",)), (5, ("shape", "size"))])  # fmt: skip
def test_every_part_of_a_row_has_a_loss_of_its_own(batch, part, names):
    rows = exact_rows(batch)
    start = sum(WIDTHS[:part])
    rows[..., start : start + WIDTHS[part]] += torch.linspace(0.5, 1.5, WIDTHS[part])
    before = losses(exact_rows(batch), batch.footage, batch.view, RIG)
    after = losses(rows, batch.footage, batch.view, RIG)
    for name in names:
        assert float(after[name]) > float(before[name]) + 0.003, name
    for name in {"up", "velocity", "place", "contacts", "shape"} - set(names):
        assert float(after[name]) == pytest.approx(float(before[name]), abs=1e-6), name


def test_sigmas_are_best_where_they_say_the_error(batch):
    """Velocities that are wrong by 0.3 m/s on every axis ask for a sigma of 0.3."""
    start = sum(WIDTHS[:2])
    costs = {}
    for sigma in (0.1, 0.2, 0.3, 0.45, 0.9):
        rows = exact_rows(batch)
        rows[..., start : start + 3] += 0.3
        rows[..., -4:-1] = torch.tensor(sigma).log()
        costs[sigma] = float(losses(rows, batch.footage, batch.view, RIG)["sigmas"])
    assert min(costs, key=lambda sigma: costs[sigma]) == 0.3


@pytest.mark.parametrize("size", [0.0, 1e-3, 30.0, 1e4])
def test_hard_rows_give_finite_losses_and_gradients(batch, size):
    generator = torch.Generator().manual_seed(0)
    rows = size * torch.randn(exact_rows(batch).shape, generator=generator)
    rows.requires_grad_()
    found = losses(rows, batch.footage, batch.view, RIG)
    torch.stack(list(found.values())).sum().backward()
    assert all(bool(torch.isfinite(value)) for value in found.values()), found
    assert rows.grad is not None
    assert bool(torch.isfinite(rows.grad).all())


def test_gradients_at_the_truth_are_finite(batch):
    rows = exact_rows(batch).requires_grad_()
    torch.stack(list(losses(rows, batch.footage, batch.view, RIG).values())).sum().backward()
    assert rows.grad is not None
    assert bool(torch.isfinite(rows.grad).all())


def test_frames_outside_the_recording_do_not_count(batch):
    present = torch.ones_like(batch.footage.windows.present)
    present[:, 20:] = False
    footage = replace(batch.footage, windows=replace(batch.footage.windows, present=present))
    rows = exact_rows(batch)
    rows[:, 20:] += 3.0
    found = losses(rows, footage, batch.view, RIG)
    for name in EXACT:
        assert float(found[name]) < 1e-4, name
    absent = replace(footage, windows=replace(footage.windows, present=torch.zeros_like(present)))
    for name, value in losses(rows, absent, batch.view, RIG).items():
        assert bool(torch.isfinite(value)), name


def test_no_loss_mixes_the_batch_with_a_constant_of_the_processor(batch):
    """On a device without numbers: whatever does not follow the batch there raises."""
    rows = exact_rows(batch).to("meta").requires_grad_()
    moved, carried = to_device(batch, "meta"), to_device(RIG, "meta")
    found = losses(rows, moved.footage, moved.view, carried)
    torch.stack(list(found.values())).sum().backward()
    assert all(value.device.type == "meta" for value in found.values())
    assert rows.grad is not None
