"""The pose prior: the mixture as a least-squares penalty, and what the weights find plausible."""

import hashlib
import json
from dataclasses import replace

import pytest
import roma
import torch

from priors.checkpoints import CheckpointError, save_weights
from priors.pose import (
    DEFAULT_WEIGHTS,
    PosePrior,
    load_pose_prior,
    save_pose_prior,
)
from priors.training.clips import is_held_out
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
    return float(prior.energy(prior.coordinates(rotations)))


def test_coordinates_and_rotations_are_inverse() -> None:
    prior = small_prior()
    x = 0.4 * torch.randn(5, 63, dtype=torch.float64)
    torch.testing.assert_close(prior.coordinates(prior.rotations(x)), x)


def test_penalty_is_minus_log_probability_up_to_one_constant() -> None:
    prior = small_prior()
    x = 0.5 * torch.randn(20, 63, dtype=torch.float64)
    shifted = prior.energy(x) + prior.log_prob(x)
    torch.testing.assert_close(shifted, shifted[0].expand(20))


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_the_square_of_the_residual_is_the_penalty(temperature: float) -> None:
    """Also between components, where the rest that the last row makes up for is smallest."""
    prior = small_prior()
    ends = prior.component_means[[0, 1]]
    x = torch.cat([torch.lerp(*ends, w)[None] for w in (0.0, 0.3, 0.5, 0.9)])
    x = torch.cat([x, 0.5 * torch.randn(20, 63, dtype=torch.float64)])
    residual, _ = prior.whitened_residual(x, temperature)
    torch.testing.assert_close(0.5 * residual.square().sum(dim=-1), prior.energy(x, temperature))
    assert float(prior.energy(x, temperature).min()) > 0


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_gradient_is_exact_and_the_matrix_not_below_the_hessian(temperature: float) -> None:
    prior = small_prior()
    prior = replace(prior, component_means=0.1 * prior.component_means)
    x = 0.03 * torch.randn(63, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    share = torch.softmax(prior.joint_log_prob(x) / temperature, dim=-1)
    assert float(share.max()) < 0.999  # several components speak
    residual, rows = prior.whitened_residual(x, temperature)

    def energy(at: torch.Tensor) -> torch.Tensor:
        return prior.energy(at, temperature)

    torch.testing.assert_close(rows.T @ residual, torch.func.jacrev(energy)(x))
    step = 1e-5 * torch.ones(63, dtype=torch.float64)
    numeric = (energy(x + step) - energy(x - step)) / 2
    torch.testing.assert_close(rows.T @ residual @ step, numeric, rtol=1e-5, atol=1e-12)
    hessian = torch.func.hessian(energy)(x)
    assert float(torch.linalg.eigvalsh(rows.T @ rows - hessian).min()) > -1e-9


def test_one_component_is_a_plain_gaussian() -> None:
    prior = small_prior(count=1)
    x = torch.randn(5, 63, dtype=torch.float64)
    residual, rows = prior.whitened_residual(x)
    white = (x - prior.component_means) @ prior.whitening[0].T
    torch.testing.assert_close(residual.square().sum(dim=-1), white.square().sum(dim=-1))
    torch.testing.assert_close(residual[:, 63], torch.zeros(5).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        rows.mT @ rows, (prior.whitening[0].T @ prior.whitening[0]).expand(5, 63, 63)
    )


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


def test_saved_prior_is_read_back(tmp_path) -> None:
    prior = small_prior()
    save_pose_prior(tmp_path / "p.safetensors", prior, {"licence": "MIT"})
    again = load_pose_prior(tmp_path / "p.safetensors")
    torch.testing.assert_close(again.whitening, prior.whitening, atol=1e-4, rtol=1e-4)


def test_wrong_files_are_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="nothing.safetensors"):
        load_pose_prior(tmp_path / "nothing.safetensors")
    save_weights(tmp_path / "other.safetensors", {"a": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="other.safetensors': 'mean_rotvecs' is missing"):
        load_pose_prior(tmp_path / "other.safetensors")


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
    scores = list(card["scores"]["held_out_nll_nats_per_pose"].values())
    assert not any(is_held_out(name) for name in card["trained_on"])
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
    x = prior.coordinates(poses)
    likeliest = prior.joint_log_prob(x).argmax(dim=-1)
    apart = x - prior.component_means[likeliest]
    distance = (prior.whitening[likeliest] @ apart[..., None]).square().sum(dim=(-1, -2))
    assert float(distance.mean()) == pytest.approx(63, rel=0.1)  # chi-square with 63 degrees
    assert prior.component_poses().shape == (len(prior.log_weights), 21, 3)
