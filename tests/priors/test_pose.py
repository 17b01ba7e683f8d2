"""The pose prior: max-mixture residuals, Jacobians, and what the weights find plausible."""

import hashlib
import json

import numpy as np
import pytest
import roma
import torch

from priors.pose import (
    DEFAULT_WEIGHTS,
    PosePrior,
    load_pose_prior,
    save_pose_prior,
)
from priors.training.mixture import Shrinkage, fit_mixture
from priors.training.procedural import JOINTS, mirror_poses, procedural_poses


def small_prior(seed: int = 0, count: int = 4) -> PosePrior:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    factor = 0.1 * normal(count, 63, 63).tril(-1) * 0.3 + 0.3 * torch.eye(63, dtype=torch.float64)
    return PosePrior(
        mean_rotations=roma.rotvec_to_rotmat(0.5 * normal(21, 3)),
        component_means=0.3 * normal(count, 63),
        component_scale_tril=factor,
        log_weights=torch.log_softmax(normal(count), dim=0),
    )


@pytest.fixture(scope="module")
def prior() -> PosePrior:
    return load_pose_prior()


def pose(**degrees: tuple[float, float, float]) -> torch.Tensor:
    rotvecs = torch.zeros(21, 3, dtype=torch.float64)
    for name, values in degrees.items():
        rotvecs[JOINTS.index(name)] = torch.deg2rad(torch.tensor(values, dtype=torch.float64))
    return roma.rotvec_to_rotmat(rotvecs)


ARMS_DOWN = {"left_shoulder": (0.0, 0.0, -72.0), "right_shoulder": (0.0, 0.0, 72.0)}


def cost(prior: PosePrior, rotations: torch.Tensor) -> float:
    residual, _ = prior.whitened_residual(prior.coordinates(rotations))
    return float(0.5 * residual.square().sum())


def test_coordinates_and_rotations_are_inverse() -> None:
    prior = small_prior()
    x = 0.4 * torch.randn(5, 63, dtype=torch.float64)
    torch.testing.assert_close(prior.coordinates(prior.rotations(x)), x)


def test_penalty_is_the_best_component_up_to_one_constant() -> None:
    prior = small_prior()
    x = 0.5 * torch.randn(20, 63, dtype=torch.float64)
    residual, component = prior.whitened_residual(x)
    best = prior.joint_log_prob(x).amax(dim=-1)
    shifted = 0.5 * residual.square().sum(dim=-1) + best
    torch.testing.assert_close(shifted, shifted[0].expand(20))
    assert torch.equal(component, prior.joint_log_prob(x).argmax(dim=-1))


def test_the_highest_peak_costs_nothing() -> None:
    prior = small_prior()
    residual, component = prior.whitened_residual(prior.component_means)
    costs = 0.5 * residual.square().sum(dim=-1)
    assert float(costs.min()) == pytest.approx(0.0, abs=1e-12)
    assert len(set(component.tolist())) > 1  # components differ, so the test above says something


def test_log_prob_agrees_with_torch_distributions() -> None:
    prior = small_prior()
    x = 0.5 * torch.randn(7, 63, dtype=torch.float64)
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=prior.log_weights),
        torch.distributions.MultivariateNormal(
            prior.component_means, scale_tril=prior.component_scale_tril
        ),
    )
    torch.testing.assert_close(prior.log_prob(x), reference.log_prob(x))


def test_a_held_component_gives_a_linear_residual() -> None:
    prior = small_prior()
    x, dx = torch.randn(2, 63, dtype=torch.float64)
    held = torch.tensor(2)
    before, _ = prior.whitened_residual(x, held)
    after, _ = prior.whitened_residual(x + dx, held)
    torch.testing.assert_close((after - before)[:63], prior.whitening[2] @ dx)
    assert float((after - before)[63]) == 0.0


def test_saved_prior_is_read_back(tmp_path) -> None:
    prior = small_prior()
    save_pose_prior(tmp_path / "p.npz", prior)
    again = load_pose_prior(tmp_path / "p.npz")
    torch.testing.assert_close(again.whitening, prior.whitening, atol=1e-4, rtol=1e-4)


def test_wrong_files_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.npz"):
        load_pose_prior(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"arrays \['a'\]"):
        load_pose_prior(tmp_path / "other.npz")


def test_em_recovers_two_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    x = torch.where(torch.arange(2000)[:, None] < 500, noise * 0.2 + 3, noise - 2)
    mixture = fit_mixture(
        x,
        torch.ones(2000, dtype=torch.float64),
        2,
        shrinkage=Shrinkage(floor=1e-3, pooled=0.0, cap=torch.full((2,), 10.0).double()),
        iterations=20,
        generator=generator,
    )
    small = int(mixture.log_weights.argmin())
    assert float(mixture.log_weights[small].exp()) == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(
        mixture.means[small], torch.full((2,), 3.0, dtype=torch.float64), atol=0.05, rtol=0
    )
    assert float(mixture.scale_tril[small, 0, 0]) == pytest.approx(0.2, abs=0.02)


def test_procedural_poses_bend_knees_and_elbows_one_way() -> None:
    poses = procedural_poses(300, torch.Generator().manual_seed(1))
    along = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    for knee in ("left_knee", "right_knee"):
        shank = (
            poses[:, JOINTS.index(knee)] @ along
        )  # in the frame of the thigh: never in front of it
        assert float(shank[:, 2].max()) <= 1e-6
    for elbow, side in (("left_elbow", 1.0), ("right_elbow", -1.0)):
        arm = torch.tensor([side, 0.0, 0.0], dtype=torch.float64)
        assert float((poses[:, JOINTS.index(elbow)] @ arm)[:, 2].min()) >= -1e-6
    torch.testing.assert_close(mirror_poses(mirror_poses(poses)), poses)


def test_shipped_weights_match_their_card() -> None:
    card = json.loads(DEFAULT_WEIGHTS.with_suffix(".json").read_text())
    assert hashlib.sha256(DEFAULT_WEIGHTS.read_bytes()).hexdigest() == card["sha256"]
    assert "mocap.cs.cmu.edu" in card["acknowledgement"]
    scores = list(card["held_out_nll_nats_per_pose"].values())
    assert scores[1] < scores[0] - 10  # the mixture beats one Gaussian by far
    assert DEFAULT_WEIGHTS.stat().st_size < 3_000_000


def test_shipped_prior_knows_which_way_hinges_bend(prior: PosePrior) -> None:
    standing = cost(prior, pose(**ARMS_DOWN))
    for bent, broken in (
        ({"left_knee": (60.0, 0, 0)}, {"left_knee": (-60.0, 0, 0)}),
        ({"right_knee": (60.0, 0, 0)}, {"right_knee": (-60.0, 0, 0)}),
        ({"left_elbow": (0, -70.0, 0)}, {"left_elbow": (0, 70.0, 0)}),
        ({"right_elbow": (0, 70.0, 0)}, {"right_elbow": (0, -70.0, 0)}),
    ):
        good, bad = cost(prior, pose(**ARMS_DOWN, **bent)), cost(prior, pose(**ARMS_DOWN, **broken))
        assert good < standing + 60
        assert bad > good + 15  # nats: e^15 times less plausible


def test_shipped_prior_does_not_punish_sitting(prior: PosePrior) -> None:
    sitting = pose(
        **ARMS_DOWN,
        left_hip=(-85.0, 0, 5.0),
        right_hip=(-85.0, 0, -5.0),
        left_knee=(85.0, 0, 0),
        right_knee=(85.0, 0, 0),
    )
    assert cost(prior, sitting) < cost(prior, pose(**ARMS_DOWN)) + 60
    assert cost(prior, sitting) < cost(prior, pose()) + 60  # and no worse than the T-pose


def test_shipped_prior_is_nearly_symmetric(prior: PosePrior) -> None:
    poses = prior.sample(torch.Generator().manual_seed(0), 200)
    x, mirrored = prior.coordinates(poses), prior.coordinates(mirror_poses(poses))
    difference = (prior.log_prob(x) - prior.log_prob(mirrored)).abs().median()
    assert float(difference) < 12  # nats, over a spread of samples of about 40


def test_samples_are_as_plausible_as_the_model_says(prior: PosePrior) -> None:
    poses = prior.sample(torch.Generator().manual_seed(0), 500)
    distance = prior.whitened_residual(prior.coordinates(poses))[0][:, :63].square().sum(dim=-1)
    assert float(distance.mean()) == pytest.approx(63, rel=0.1)  # chi-square with 63 degrees
    assert prior.component_poses().shape == (len(prior.log_weights), 21, 3)
