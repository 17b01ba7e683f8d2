"""Transition prior: how a body's motion goes on, and how fast the pelvis travels while it moves so.

Two small networks on three consecutive frames. *Change*: from the pose and the direction of up at
the middle frame and the velocities before it to the accelerations there (pelvis, root, 21 joints),
with a full covariance. *Gait*: from the pose, up and the angular velocities before and after to the
velocity of the pelvis, which no network sees; with a moving camera this makes the world's scale
observable. All velocities are per second and in the axes of the pelvis at the middle frame; the
pelvis' are divided by the body's relative size. So nothing depends on heading, place, or the size
of body and world. Trained by `slamhmr train transition` on steps of 1/60 to 1/24 s.
Source: ours; HuMoR (Rempe et al. 2021) learns the same relation as a latent variable model.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.checkpoints import CheckpointError, load_weights, save_weights

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "transition.safetensors"
JOINTS = 21
RATES = 3 + 3 + 3 * JOINTS  # pelvis velocity, angular velocities of the root and of the joints
POSE = 6 * JOINTS  # first two columns of every joint's rotation, row by row
STATE = POSE + 3  # pose and up
PELVIS_JITTER = 0.2  # m of the pelvis that count like one rad of a joint: 1 cm like 3 degrees
TRAINED_STEP = 1.0 / 30.0  # s; the covariance is that of residuals at this rate
TRAINED_STEPS = (1.0 / 60.0, 1.0 / 24.0)  # s, shortest and longest that training shows
HOLE = 2.5  # times a clip's usual step: no step of the motion any more, one lost frame still is


@dataclass(frozen=True)
class Triple:
    """Three consecutive frames, seen from the pelvis at the middle one.

    Velocities are [pelvis (size of a mean body / s), root, joints (rad/s, body frame)]; `step` is
    the mean of the two time steps, s.
    """

    pose: Float[Tensor, "*batch 21 3 3"]
    up: Float[Tensor, "*batch 3"]
    before: Float[Tensor, "*batch 69"]
    after: Float[Tensor, "*batch 69"]
    step: Float[Tensor, "*batch"]

    @cached_property
    def state(self) -> Float[Tensor, "*batch 129"]:
        """Pose as two columns per joint, and up."""
        return torch.cat([self.pose[..., :2].flatten(start_dim=-3), self.up], dim=-1)

    @property
    def change_inputs(self) -> Float[Tensor, "*batch 198"]:
        """What the network of change sees."""
        return torch.cat([self.state, self.before], dim=-1)

    @property
    def gait_inputs(self) -> Float[Tensor, "*batch 261"]:
        """What the network of gait sees: all but the pelvis' velocity."""
        return torch.cat([self.state, self.before[..., 3:], self.after[..., 3:]], dim=-1)

    @property
    def acceleration(self) -> Float[Tensor, "*batch 69"]:
        """Change of all velocities, 1/s^2."""
        return (self.after - self.before) / self.step[..., None]


@dataclass(frozen=True)
class Network:
    """f(z) = skip z + W_n tanh(... tanh(W_1 z + b_1) ...) + b_n, with its Jacobian by hand."""

    skip: Float[Tensor, "O I"]
    weights: tuple[Float[Tensor, "_ _"], ...]
    biases: tuple[Float[Tensor, "_"], ...]

    def hidden(self, inputs: Float[Tensor, "*batch I"]) -> list[Float[Tensor, "*batch _"]]:
        """Values of all hidden layers."""
        values, at = [], inputs
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            at = torch.tanh(at @ weight.T + bias)
            values.append(at)
        return values

    def __call__(self, inputs: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch O"]:
        """The network's value."""
        return inputs @ self.skip.T + self.hidden(inputs)[-1] @ self.weights[-1].T + self.biases[-1]

    def jacobian(
        self, inputs: Float[Tensor, "*batch I"], left: Float[Tensor, "R O"]
    ) -> Float[Tensor, "*batch R I"]:
        """Derivative of `left` f(z) by z: one product per layer, from the output back."""
        rows = left @ self.weights[-1]
        for weight, value in zip(
            reversed(self.weights[:-1]), reversed(self.hidden(inputs)), strict=True
        ):
            rows = (rows * (1.0 - value**2)[..., None, :]) @ weight
        return rows + left @ self.skip

    def to(self, dtype: torch.dtype) -> "Network":
        """The same in another floating point type."""
        return Network(
            self.skip.to(dtype),
            tuple(weight.to(dtype) for weight in self.weights),
            tuple(bias.to(dtype) for bias in self.biases),
        )


@dataclass(frozen=True)
class TransitionPrior:
    """Both networks, and the whitening W of their residuals.

    W'W is the inverse covariance, or the leading part of it (`leading`).
    """

    change: Network
    gait: Network
    change_whitening: Float[Tensor, "R 69"]
    gait_whitening: Float[Tensor, "3 3"]

    def change_residual(self, triple: Triple) -> Float[Tensor, "*batch R"]:
        """Whitened acceleration beyond what the network expects."""
        error = triple.acceleration - self.change(triple.change_inputs)
        return error @ self.change_whitening.T

    def gait_residual(
        self, triple: Triple, velocity: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch 3"]:
        """Whitened `velocity` of the pelvis over both steps, less what the pose's change says."""
        return (velocity - self.gait(triple.gait_inputs)) @ self.gait_whitening.T

    def leading(self, rows: int) -> tuple["TransitionPrior", float]:
        """The prior with `rows` combinations of whitened accelerations, and the share they keep.

        W S = U D V' with S the jitter to be told from motion: equal turns of all joints, and
        `PELVIS_JITTER`. Kept are the first rows of U'W, those in which jitter is largest beside
        real motion; the share is that of the squares of D, the precision that smooths.
        """
        jitter = self.change_whitening.new_ones(RATES)
        jitter[:3] = PELVIS_JITTER
        left, values, _ = torch.linalg.svd(self.change_whitening * jitter)
        share = float(values[:rows].square().sum() / values.square().sum())
        return replace(self, change_whitening=left[:, :rows].T @ self.change_whitening), share

    def to(self, dtype: torch.dtype) -> "TransitionPrior":
        """The same in another floating point type."""
        return TransitionPrior(
            self.change.to(dtype),
            self.gait.to(dtype),
            self.change_whitening.to(dtype),
            self.gait_whitening.to(dtype),
        )


def holes(steps: Float[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Time steps (s) that are far longer than the others and than those of training."""
    if len(steps) == 0:
        return torch.zeros_like(steps, dtype=torch.bool)
    return steps > HOLE * steps.median().clamp_min(TRAINED_STEPS[1])


def load_transition_prior(
    path: Path | None = None, *, dtype: torch.dtype = torch.float64
) -> TransitionPrior:
    """Trained prior of a weights file; None loads the one that comes with the package.

    Raises CheckpointError if the file is missing, damaged or holds anything else.
    """
    path = path if path is not None else DEFAULT_WEIGHTS
    tensors, _ = load_weights(path)
    networks = {}
    for name, inputs, outputs in (("change", STATE + RATES, RATES), ("gait", STATE + 132, 3)):
        networks[name] = _network(tensors, name, inputs, outputs, path)
        whitening = tensors.get(f"{name}.whitening")
        fits = whitening is not None and whitening.ndim == 2 and whitening.shape[1] == outputs
        if whitening is None or not fits or not 0 < len(whitening) <= outputs:
            raise CheckpointError(f"weights '{path}': '{name}.whitening' is missing or misshapen")
    return TransitionPrior(
        networks["change"],
        networks["gait"],
        tensors["change.whitening"],
        tensors["gait.whitening"],
    ).to(dtype)


def _network(
    tensors: dict[str, Tensor], name: str, inputs: int, outputs: int, path: Path
) -> Network:
    count = sum(key.startswith(f"{name}.weight.") for key in tensors)
    keys = [f"{name}.{kind}.{k}" for k in range(count) for kind in ("weight", "bias")]
    missing = [key for key in (f"{name}.skip", *keys) if key not in tensors]
    if count < 2 or len(missing) > 0:
        raise CheckpointError(
            f"weights '{path}' are no transition prior: '{(missing or [name])[0]}' is missing"
        )
    weights = tuple(tensors[f"{name}.weight.{k}"] for k in range(count))
    biases = tuple(tensors[f"{name}.bias.{k}"] for k in range(count))
    sizes = [inputs, *(len(bias) for bias in biases)]
    fits = all(
        weight.shape == (sizes[k + 1], sizes[k]) for k, weight in enumerate(weights)
    ) and tensors[f"{name}.skip"].shape == (outputs, inputs)
    if not fits or sizes[-1] != outputs:
        raise CheckpointError(f"weights '{path}': layers of '{name}' do not fit each other")
    return Network(tensors[f"{name}.skip"], weights, biases)


def save_transition_prior(path: Path, prior: TransitionPrior, card: dict[str, object]) -> None:
    """Write a weights file, float32, and its card."""
    tensors = {"change.whitening": prior.change_whitening, "gait.whitening": prior.gait_whitening}
    for name, network in (("change", prior.change), ("gait", prior.gait)):
        tensors[f"{name}.skip"] = network.skip
        for k, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            tensors[f"{name}.weight.{k}"], tensors[f"{name}.bias.{k}"] = weight, bias
    save_weights(path, {key: value.detach().float() for key, value in tensors.items()}, card)
