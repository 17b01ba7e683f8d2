"""VPoser v1 and v2 against the official networks, and the solver's residual against autograd."""

from pathlib import Path

import pytest
import roma
import torch
from golden_files import Golden, filled_network

from priors import vposer
from priors.checkpoints import CheckpointError, save_weights
from priors.so3 import cross_matrix, inverse_right_jacobian


@pytest.fixture(scope="module", params=["vposer_v1", "vposer_v2"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def golden(version: str) -> Golden:
    return Golden(version)


@pytest.fixture(scope="module")
def network(version: str, golden: Golden) -> vposer.VPoser:
    return filled_network(golden, vposer.VERSIONS[version]()).requires_grad_(False)


def test_shapes_without_making_a_network(version: str, network: vposer.VPoser):
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert vposer.state_shapes(version) == shapes


def test_encoder(golden: Golden, network: vposer.VPoser):
    mean, scale = network.encode(golden["in_pose_body"])
    golden.check("enc_mean", mean)
    golden.check("enc_scale", scale)


def test_decoder(golden: Golden, network: vposer.VPoser, version: str):
    rotations = network.decode(golden["in_z"])
    rows = rotations.flatten(start_dim=-2)
    golden.check("dec_matrot", rows[:, None] if version == "vposer_v1" else rows)
    if version == "vposer_v2":
        golden.check("dec_raw6", network.decode_6d(golden["in_z"]))
    vectors = golden["out_dec_aa"].reshape(-1, 21, 3)
    again = roma.rotvec_to_rotmat(vectors)  # the sign of a turn by pi is arbitrary
    torch.testing.assert_close(rotations, again, rtol=0, atol=golden.tolerance("dec_aa"))


def test_residual_is_the_mean_of_the_code(golden: Golden, network: vposer.VPoser):
    rotations = roma.rotvec_to_rotmat(golden["in_pose_body"].reshape(-1, 21, 3))
    vectors = roma.rotmat_to_rotvec(rotations).flatten(start_dim=1)
    value, _ = network.prior_residual(rotations)
    torch.testing.assert_close(value, network.encode(vectors)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 2e-3, 0.5, 3.0])
def test_jacobian_against_autograd(network: vposer.VPoser, version: str, angle: float):
    double = vposer.VERSIONS[version]()
    double.load_state_dict(network.state_dict())
    double = double.double().eval()
    generator = torch.Generator().manual_seed(3)
    axes = torch.randn(2, 21, 3, generator=generator, dtype=torch.float64)
    pose = roma.rotvec_to_rotmat(angle * torch.nn.functional.normalize(axes, dim=-1))
    with torch.no_grad():
        value, jacobian = double.prior_residual(pose)

    def mean(increment: torch.Tensor) -> torch.Tensor:
        turned = pose @ torch.linalg.matrix_exp(cross_matrix(increment.reshape(2, 21, 3)))
        return double.encode(_log(turned, pose).flatten(start_dim=1))[0].sum(dim=0)

    exact = torch.autograd.functional.jacobian(mean, torch.zeros(2, 63, dtype=torch.float64))
    torch.testing.assert_close(jacobian, exact.transpose(0, 1), rtol=1e-6, atol=1e-7)
    assert value.shape == (2, 32)


def _log(rotation: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """Rotation vectors near those of `near`, by Newton's method: no branch, smooth at the identity.

    v <- v + J(v) log(exp(-v) R), with log(1 + E) = vee of the odd part to first order.
    """
    vector = roma.rotmat_to_rotvec(near)
    for _ in range(3):
        rest = torch.linalg.matrix_exp(cross_matrix(-vector)) @ rotation
        odd = (rest - rest.transpose(-1, -2)) / 2
        step = torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], dim=-1)
        vector = vector + (inverse_right_jacobian(vector.detach()) @ step[..., None])[..., 0]
    return vector


def test_weights_file(tmp_path: Path, network: vposer.VPoser, version: str):
    path = tmp_path / "prior.safetensors"
    state = dict(network.state_dict())
    save_weights(path, state, {})
    loaded = vposer.load_vposer(path)
    assert type(loaded) is vposer.VERSIONS[version]
    assert not loaded.training
    code = torch.linspace(-1, 1, 32)[None]
    torch.testing.assert_close(loaded.decode(code), network.decode(code))
    state.pop(next(name for name in state if name.endswith("mu.weight")))
    save_weights(path, state, {})
    with pytest.raises(CheckpointError, match="mu.weight' is missing"):
        vposer.load_vposer(path)
