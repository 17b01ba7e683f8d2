"""Scores: zero for the truth, the stated error for a stated error."""

import math
from dataclasses import replace

import pytest
import roma
import torch
from recordings import rig, write_recordings

from priors.lifter import Lifted, Lifter
from priors.training import scores
from priors.training.clips import Library, read_library
from priors.training.lifter import Batch, make_batch
from priors.training.lifter_weights import _scaled
from priors.training.scores import format_scores, score

RIG = rig()


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    folder = tmp_path_factory.mktemp("motions")
    write_recordings(folder)
    return read_library(folder)


@pytest.fixture(scope="module")
def batch(library) -> Batch:
    return make_batch(library, RIG, 6, 30, torch.Generator().manual_seed(0), vary=False)


def truth(batch: Batch, sigma: float = 0.1) -> Lifted:
    footage = batch.footage
    shape = footage.pelvis_cam.shape[:2]
    return Lifted(
        rotations=footage.rotations_cam,
        rotation_sigma=torch.full((*shape, 22), sigma),
        up_cam=footage.true_world_from_cam[..., 2, :],
        up_sigma=torch.full(shape, sigma),
        root_velocity=footage.root_velocity,
        root_velocity_sigma=torch.full((*shape, 3), sigma),
        pelvis_cam=footage.pelvis_cam / RIG.size(footage.betas)[:, None, None],
        log_depth_sigma=torch.full(shape, sigma),
        contacts=footage.windows.contacts,
        betas=footage.betas,
    )


def summary(batch: Batch, lifted: Lifted) -> dict[str, float]:
    rows = batch.footage.windows.present
    found = scores._errors(batch, lifted, RIG, rows)
    return scores._summary(found, torch.ones(int(rows.sum()), dtype=torch.bool))


def test_the_truth_is_perfect(batch):
    found = summary(batch, truth(batch))
    assert found["contact_f1"] == 1
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "root_deg", "up_deg", "velocity", "depth"):
        assert found[name] < 0.1, name  # float32: an arc cosine near 1
    for name in ("root_ratio", "joints_ratio", "up_ratio", "velocity_ratio", "depth_ratio"):
        assert found[name] < 0.02, name


def test_a_turned_root_counts_for_mpjpe_only(batch):
    exact = truth(batch)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.3, 0.0]))
    rotations = exact.rotations.clone()
    rotations[:, :, 0] = turn @ rotations[:, :, 0]
    found = summary(batch, replace(exact, rotations=rotations))
    assert found["root_deg"] == pytest.approx(math.degrees(0.3), rel=1e-3)
    assert found["pa_mpjpe_mm"] < 0.1
    assert found["mpjpe_mm"] > 10
    assert found["root_ratio"] == pytest.approx(0.3 / 0.1 / 3**0.5, rel=1e-3)


def test_errors_over_sigmas_are_one_where_the_sigmas_are_right(batch):
    exact = truth(batch)
    generator = torch.Generator().manual_seed(0)
    shape = exact.root_velocity.shape
    velocity = exact.root_velocity + 0.1 * torch.randn(shape, generator=generator)
    noise = torch.exp(0.1 * torch.randn(shape[:2], generator=generator))
    turns = 0.1 * torch.randn(*shape[:2], 22, 3, generator=generator)
    found = summary(batch, replace(
        exact, root_velocity=velocity, pelvis_cam=exact.pelvis_cam * noise[..., None],
        rotations=exact.rotations @ roma.rotvec_to_rotmat(turns),
    ))  # fmt: skip
    for name in ("velocity_ratio", "depth_ratio", "root_ratio", "joints_ratio"):
        assert found[name] == pytest.approx(1, rel=0.15), name


def test_contacts_are_counted(batch):
    exact = truth(batch)
    assert summary(batch, replace(exact, contacts=1 - exact.contacts))["contact_f1"] < 0.05
    said = summary(batch, replace(exact, contacts=torch.ones_like(exact.contacts)))["contact_f1"]
    true = batch.footage.windows.contacts[batch.footage.windows.present] > 0.5
    share = float(true.float().mean())
    assert said == pytest.approx(2 * share / (1 + share), rel=1e-4)


def test_a_network_is_scored_by_group(library):
    torch.manual_seed(0)
    network = Lifter(8, (1,)).eval()
    found = score(network, library, RIG, windows=20, frames=20)
    assert {"mean", "recordings", "walk and run", "procedural"} <= set(found)
    values = [found[name]["mpjpe_mm"] for name in ("recordings", "mean", "procedural")]
    assert values[1] == pytest.approx(sorted(values)[1])  # the mean of all lies between both
    assert values[0] != values[2]
    assert all(math.isfinite(v) for row in found.values() for v in row.values())
    again = score(network, library, RIG, windows=20, frames=20)
    assert found == again
    lines = format_scores(found).splitlines()
    assert len(lines) == 1 + len(found)
    assert len({len(line) for line in lines}) == 1


def test_scaled_sigmas_make_the_errors_over_them_one(library):
    torch.manual_seed(0)
    network = Lifter(8, (1,)).eval()
    torch.nn.init.normal_(network.head.bias, std=0.1)
    names = ("root", "joints", "up", "velocity", "depth")
    before = score(network, library, RIG, windows=20, frames=20)["mean"]
    factors = {name: min(before[f"{name}_ratio"], 3.0) for name in names}
    after = score(_scaled(network, factors), library, RIG, windows=20, frames=20)["mean"]
    for name in names:
        wanted = before[f"{name}_ratio"] / factors[name]
        assert after[f"{name}_ratio"] == pytest.approx(wanted, rel=0.01), name
    assert after["mpjpe_mm"] == before["mpjpe_mm"]
