"""VPoser v1 and v2 (Pavlakos et al. 2019): a variational autoencoder of the 21 body rotations.

Attribute names are the official state-dict names. Sources: PyPI human-body-prior 0.8.5.0 (v1) and
github.com/nghorbani/human_body_prior at 78c86ea (v2), as described in prose; eval mode only. The
latent space is 32 wide with a standard normal prior, so the encoder's mean is a whitened residual.
Input of the encoder: 63 rotation-vector coordinates. 6D rotations are columns.
"""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.checkpoints import check_shapes, load_weights
from priors.rotation6d import columns_to_matrix
from priors.so3 import inverse_right_jacobian

JOINTS = 21
LATENT = 32
NEURONS = 512


@dataclass(frozen=True)
class Affine:
    """x -> slope(weight x + bias), slope None for the identity."""

    weight: Float[Tensor, "O I"]
    bias: Float[Tensor, "O"]
    slope: float | None


class VPoser(nn.Module):
    """What both versions share; each gives its layers."""

    @abstractmethod
    def mean_layers(self) -> list[Affine]:
        """Encoder up to the mean, with batch normalisation folded in."""

    @abstractmethod
    def encode(
        self, pose: Float[Tensor, "*batch 63"]
    ) -> tuple[Float[Tensor, "*batch 32"], Float[Tensor, "*batch 32"]]:
        """Mean and standard deviation (softplus of the last layer) of the latent code."""

    @abstractmethod
    def decode_6d(self, code: Float[Tensor, "*batch 32"]) -> Float[Tensor, "*batch 126"]:
        """Rotations as 6D columns, before they are made orthogonal."""

    def decode(self, code: Float[Tensor, "*batch 32"]) -> Float[Tensor, "*batch 21 3 3"]:
        """Body rotations of a latent code."""
        return columns_to_matrix(self.decode_6d(code).reshape(*code.shape[:-1], JOINTS, 6))

    def prior_residual(
        self, pose: Float[Tensor, "T 21 3 3"]
    ) -> tuple[Float[Tensor, "T 32"], Float[Tensor, "T 32 63"]]:
        """Penalty r = mean of the latent code, and its Jacobian wrt body-frame increments.

        The increment d of a joint turns its rotation R into R exp(d). |r|^2 / 2 is -log p(r) under
        the standard normal prior. The Jacobian is in closed form: the layers are piecewise linear,
        and d(rotation vector)/d(increment) is the inverse right Jacobian of SO(3). Not smooth where
        a joint turns by pi, as the rotation vector jumps there.
        Source: ours; SLAHMR's pose prior is the same |z|^2 with z as the unknown.
        """
        vector = roma.rotmat_to_rotvec(pose)
        value, derivative = _through(self.mean_layers(), vector.flatten(start_dim=1))
        blocks = derivative.reshape(len(pose), LATENT, JOINTS, 3)
        turned = torch.einsum("trji,tjik->trjk", blocks, inverse_right_jacobian(vector))
        return value, turned.flatten(start_dim=2)


class VPoserV1(VPoser):
    """VPoser v1 (vposer_v1_0), the one of HuMoR and SLAHMR: leaky slope 0.2."""

    slope = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.bodyprior_enc_bn1 = nn.BatchNorm1d(3 * JOINTS)
        self.bodyprior_enc_fc1 = nn.Linear(3 * JOINTS, NEURONS)
        self.bodyprior_enc_bn2 = nn.BatchNorm1d(NEURONS)
        self.bodyprior_enc_fc2 = nn.Linear(NEURONS, NEURONS)
        self.bodyprior_enc_mu = nn.Linear(NEURONS, LATENT)
        self.bodyprior_enc_logvar = nn.Linear(NEURONS, LATENT)
        self.bodyprior_dec_fc1 = nn.Linear(LATENT, NEURONS)
        self.bodyprior_dec_fc2 = nn.Linear(NEURONS, NEURONS)
        self.bodyprior_dec_out = nn.Linear(NEURONS, 6 * JOINTS)

    def _hidden_layers(self) -> list[Affine]:
        return [
            _folded(self.bodyprior_enc_bn1, self.bodyprior_enc_fc1, self.slope),
            _folded(self.bodyprior_enc_bn2, self.bodyprior_enc_fc2, self.slope),
        ]

    def mean_layers(self) -> list[Affine]:
        """Encoder up to the mean, with batch normalisation folded in."""
        return [*self._hidden_layers(), _affine(self.bodyprior_enc_mu)]

    def encode(
        self, pose: Float[Tensor, "*batch 63"]
    ) -> tuple[Float[Tensor, "*batch 32"], Float[Tensor, "*batch 32"]]:
        """Mean and standard deviation (softplus of the last layer) of the latent code."""
        hidden = _apply(self._hidden_layers(), pose)
        spread = nn.functional.softplus(self.bodyprior_enc_logvar(hidden))
        return self.bodyprior_enc_mu(hidden), spread

    def decode_6d(self, code: Float[Tensor, "*batch 32"]) -> Float[Tensor, "*batch 126"]:
        """Rotations as 6D columns, before they are made orthogonal."""
        first, second = self.bodyprior_dec_fc1, self.bodyprior_dec_fc2
        layers = [_affine(first, self.slope), _affine(second, self.slope)]
        return _apply([*layers, _affine(self.bodyprior_dec_out)], code)


class VPoserV2(VPoser):
    """VPoser v2 (V02_05): leaky slope 0.01, and none between encoder_net.6, .7 and .8."""

    slope = 0.01

    def __init__(self) -> None:
        super().__init__()
        empty = nn.Identity  # layers without weights, so that the others keep their numbers
        self.encoder_net = nn.Sequential(
            empty(), nn.BatchNorm1d(3 * JOINTS), nn.Linear(3 * JOINTS, NEURONS), empty(),
            nn.BatchNorm1d(NEURONS), empty(), nn.Linear(NEURONS, NEURONS),
            nn.Linear(NEURONS, NEURONS), _Heads(),
        )  # fmt: skip
        self.decoder_net = nn.Sequential(
            nn.Linear(LATENT, NEURONS), empty(), empty(), nn.Linear(NEURONS, NEURONS), empty(),
            nn.Linear(NEURONS, 6 * JOINTS),
        )  # fmt: skip

    def _heads(self) -> "_Heads":
        heads = self.encoder_net[8]
        assert isinstance(heads, _Heads)
        return heads

    def _hidden_layers(self) -> list[Affine]:
        net = self.encoder_net
        return [
            _folded(net[1], net[2], self.slope),
            _folded(net[4], net[6], None),
            _affine(net[7]),
        ]

    def mean_layers(self) -> list[Affine]:
        """Encoder up to the mean: batch normalisation folded in, its last three layers in one."""
        first, *linear = [*self._hidden_layers(), _affine(self._heads().mu)]
        folded = linear[0]
        for layer in linear[1:]:
            bias = layer.weight @ folded.bias + layer.bias
            folded = Affine(layer.weight @ folded.weight, bias, None)
        return [first, folded]

    def encode(
        self, pose: Float[Tensor, "*batch 63"]
    ) -> tuple[Float[Tensor, "*batch 32"], Float[Tensor, "*batch 32"]]:
        """Mean and standard deviation (softplus of the last layer) of the latent code."""
        hidden = _apply(self._hidden_layers(), pose)
        heads = self._heads()
        return heads.mu(hidden), nn.functional.softplus(heads.logvar(hidden))

    def decode_6d(self, code: Float[Tensor, "*batch 32"]) -> Float[Tensor, "*batch 126"]:
        """Rotations as 6D columns, before they are made orthogonal."""
        net = self.decoder_net
        layers = [_affine(net[0], self.slope), _affine(net[3], self.slope), _affine(net[5])]
        return _apply(layers, code)


class _Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Linear(NEURONS, LATENT)
        self.logvar = nn.Linear(NEURONS, LATENT)


VERSIONS: dict[str, type[VPoser]] = {"vposer_v1": VPoserV1, "vposer_v2": VPoserV2}


def state_shapes(version: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict of "vposer_v1" or "vposer_v2"."""
    with torch.device("meta"):
        network = VERSIONS[version]()
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def load_vposer(path: Path, *, dtype: torch.dtype = torch.float32) -> VPoser:
    """Network of either version with converted weights, in eval mode. Raises CheckpointError."""
    tensors, _ = load_weights(path)
    version = (
        "vposer_v2" if any(name.startswith("encoder_net.") for name in tensors) else "vposer_v1"
    )
    check_shapes(tensors, state_shapes(version), f"weights '{path}' of {version}")
    with torch.device("meta"):
        network = VERSIONS[version]()
    network.load_state_dict(tensors, assign=True)
    return network.to(dtype).eval().requires_grad_(False)


def _affine(layer: nn.Module, slope: float | None = None) -> Affine:
    assert isinstance(layer, nn.Linear)
    return Affine(layer.weight, layer.bias, slope)


def _folded(norm: nn.Module, layer: nn.Module, slope: float | None) -> Affine:
    """The linear layer after a batch normalisation in eval mode, as one."""
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(layer, nn.Linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - gain * norm.running_mean
    return Affine(layer.weight * gain, layer.weight @ shift + layer.bias, slope)


def _apply(layers: list[Affine], x: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch O"]:
    for layer in layers:
        x = nn.functional.linear(x, layer.weight, layer.bias)
        if layer.slope is not None:
            x = nn.functional.leaky_relu(x, layer.slope)
    return x


def _through(
    layers: list[Affine], x: Float[Tensor, "T I"]
) -> tuple[Float[Tensor, "T O"], Float[Tensor, "T O I"]]:
    """Value and Jacobian, multiplied from the output's side, where the rows are few."""
    gains: list[Tensor | None] = []
    for layer in layers:
        x = nn.functional.linear(x, layer.weight, layer.bias)
        if layer.slope is None:
            gains.append(None)
        else:
            gain = torch.where(x > 0, 1.0, layer.slope).to(x)
            gains.append(gain)
            x = x * gain
    last = layers[-1].weight
    derivative = last.expand(len(x), *last.shape)
    for layer, below in zip(layers[-2::-1], gains[-2::-1], strict=True):
        scaled = derivative if below is None else derivative * below[:, None]
        derivative = (scaled.flatten(0, 1) @ layer.weight).reshape(len(x), len(last), -1)
    return x, derivative
