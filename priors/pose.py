"""Pose prior: a mixture of Gaussians over the 21 body rotations, as a least-squares penalty.

Coordinates x_j = log(M_j^T R_j), M a mean pose: 63 numbers. The penalty is -log p(x) itself, up to
a constant. With responsibilities g_k of the components, precisions P_k and means mu_k its gradient
is g = sum_k g_k P_k (x - mu_k); the matrix P = sum_k g_k P_k is never below its Hessian, so a step
by it never raises the penalty (that of expectation maximisation). Both vary smoothly with x: a
penalty by the best component alone (Olson & Agarwal 2013) switches from step to step, and the
switch travels from frame to frame. Trained by `slamhmr train pose`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors.checkpoints import check_shapes, load_weights, save_weights

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "pose.safetensors"
JOINT_COUNT = 21
DIMENSION = 3 * JOINT_COUNT


@dataclass(frozen=True)
class PosePrior:
    """Weights, means and covariances of K components in the tangent space at `mean_rotations`."""

    mean_rotations: Float[Tensor, "21 3 3"]
    component_means: Float[Tensor, "K 63"]
    component_scale_tril: Float[Tensor, "K 63 63"]  # Cholesky factor of the covariance
    log_weights: Float[Tensor, "K"]

    @cached_property
    def whitening(self) -> Float[Tensor, "K 63 63"]:
        """W with W^T W the inverse covariance: Jacobian of the whitened residual wrt x."""
        scale = self.component_scale_tril
        identity = torch.eye(DIMENSION, dtype=scale.dtype, device=scale.device)
        return torch.linalg.solve_triangular(
            self.component_scale_tril, identity.expand_as(self.component_scale_tril), upper=False
        )

    @cached_property
    def costs(self) -> Float[Tensor, "K"]:
        """-log of the peak of each weighted component, shifted so that the smallest is 0."""
        diagonal = self.component_scale_tril.diagonal(dim1=-2, dim2=-1)
        cost = diagonal.log().sum(dim=-1) - self.log_weights
        return cost - cost.min()

    def coordinates(self, rotations: Float[Tensor, "*batch 21 3 3"]) -> Float[Tensor, "*batch 63"]:
        """x: rotation vectors from the mean pose, body frame."""
        relative = self.mean_rotations.transpose(-1, -2) @ rotations
        return roma.rotmat_to_rotvec(relative).flatten(start_dim=-2)

    def rotations(self, x: Float[Tensor, "*batch 63"]) -> Float[Tensor, "*batch 21 3 3"]:
        """Inverse of `coordinates`."""
        return self.mean_rotations @ roma.rotvec_to_rotmat(x.reshape(*x.shape[:-1], JOINT_COUNT, 3))

    def joint_log_prob(self, x: Float[Tensor, "*batch 63"]) -> Float[Tensor, "*batch K"]:
        """Log of weight times density of every component, nats."""
        normaliser = 0.5 * DIMENSION * math.log(2 * math.pi)
        diagonal = self.component_scale_tril.diagonal(dim1=-2, dim2=-1)
        constant = self.log_weights - diagonal.log().sum(dim=-1) - normaliser
        return constant - 0.5 * self._squared_distances(x)

    def log_prob(self, x: Float[Tensor, "*batch 63"]) -> Float[Tensor, "*batch"]:
        """Log density of the mixture, nats."""
        return torch.logsumexp(self.joint_log_prob(x), dim=-1)

    def energy(
        self, x: Float[Tensor, "*batch 63"], temperature: float = 1.0
    ) -> Float[Tensor, "*batch"]:
        """-log p(x) up to the constant that makes it the -log of a mean of exponentials.

        E = -T log sum_k w_k exp(-d_k / (2 T)), d_k the squared whitened distance, w_k the share of
        the component's peak (to the power 1 / T) in the sum of all: never negative.
        """
        return -temperature * torch.logsumexp(self._log_shares(x, temperature), dim=-1)

    def whitened_residual(
        self, x: Float[Tensor, "*batch 63"], temperature: float = 1.0
    ) -> tuple[Float[Tensor, "*batch 64"], Float[Tensor, "*batch 64 63"]]:
        """Residual r with |r|^2 / 2 = `energy`, and J with J^T r its gradient and J^T J = P.

        r = [L^-1 g, c], J = [L^T, 0], L the Cholesky factor of P. What c makes up for is not
        negative: 2 E >= sum_k g_k d_k >= g^T P^-1 g (Gibbs' and Jensen's inequality).
        """
        flat = x.reshape(-1, DIMENSION)
        shares = self._log_shares(flat, temperature)
        energy = -temperature * torch.logsumexp(shares, dim=-1)
        responsibility = torch.softmax(shares, dim=-1)
        precision = (responsibility @ self._precision.flatten(start_dim=1)).reshape(-1, 63, 63)
        gradient = (precision @ flat[..., None])[..., 0] - responsibility @ self._pulled
        factor = torch.linalg.cholesky(precision)
        white = torch.linalg.solve_triangular(factor, gradient[..., None], upper=False)[..., 0]
        rest = (2 * energy - white.square().sum(dim=-1)).clamp_min(0).sqrt()
        residual = torch.cat([white, rest[:, None]], dim=-1)
        rows = torch.nn.functional.pad(factor.mT, (0, 0, 0, 1))
        return residual.reshape(*x.shape[:-1], 64), rows.reshape(*x.shape[:-1], 64, DIMENSION)

    def sample(self, generator: torch.Generator, count: int) -> Float[Tensor, "count 21 3 3"]:
        """Random poses, as local joint rotations."""
        picks = torch.multinomial(
            self.log_weights.exp(), count, replacement=True, generator=generator
        )
        noise = torch.randn(count, DIMENSION, generator=generator, dtype=self.log_weights.dtype)
        spread = (self.component_scale_tril[picks] @ noise[..., None])[..., 0]
        return self.rotations(self.component_means[picks] + spread)

    def component_poses(self) -> Float[Tensor, "K 21 3"]:
        """Mean pose of each component as rotation vectors: hypotheses for an initialiser."""
        return roma.rotmat_to_rotvec(self.rotations(self.component_means))

    @cached_property
    def _precision(self) -> Float[Tensor, "K 63 63"]:
        return self.whitening.mT @ self.whitening

    @cached_property
    def _pairs(self) -> Int[Tensor, "2 2016"]:
        """Rows and columns of a lower triangle."""
        return torch.tril_indices(DIMENSION, DIMENSION, device=self.log_weights.device)

    @cached_property
    def _packed(self) -> Float[Tensor, "2016 K"]:
        """Lower triangles of the precisions, twice what is off the diagonal."""
        rows, columns = self._pairs
        times = torch.where(rows == columns, 1.0, 2.0).to(self._precision)
        return (self._precision[:, rows, columns] * times).T.contiguous()

    @cached_property
    def _pulled(self) -> Float[Tensor, "K 63"]:
        """Precision times mean."""
        return (self._precision @ self.component_means[..., None])[..., 0]

    def _log_shares(
        self, x: Float[Tensor, "*batch 63"], temperature: float
    ) -> Float[Tensor, "*batch K"]:
        """Weighted components: log w_k - d_k / (2 T)."""
        weights = torch.log_softmax(-self.costs / temperature, dim=0)
        return weights - 0.5 / temperature * self._squared_distances(x)

    def _squared_distances(self, x: Float[Tensor, "*batch 63"]) -> Float[Tensor, "*batch K"]:
        """(x - mu)' P (x - mu): products of pairs of coordinates times packed P."""
        rows, columns = self._pairs
        level = (self._pulled * self.component_means).sum(dim=-1)
        flat = x.reshape(-1, DIMENSION)
        quadratic = (flat[:, rows] * flat[:, columns]) @ self._packed
        distances = quadratic - 2 * flat @ self._pulled.T + level
        return distances.clamp_min(0).reshape(*x.shape[:-1], -1)


def load_pose_prior(path: Path | None = None, *, dtype: torch.dtype = torch.float64) -> PosePrior:
    """Trained prior of a weights file; None loads the one that comes with the package.

    Raises CheckpointError if the file does not exist or holds anything else.
    """
    path = path if path is not None else DEFAULT_WEIGHTS
    tensors, _ = load_weights(path)
    values = {name: value.to(dtype) for name, value in tensors.items()}
    count = values["log_weights"].numel() if "log_weights" in values else 0
    packed = DIMENSION * (DIMENSION + 1) // 2
    shapes = {
        "mean_rotvecs": (JOINT_COUNT, 3),
        "component_means": (count, DIMENSION),
        "scale_tril": (count, packed),
        "log_weights": (count,),
    }
    check_shapes(values, shapes, f"pose prior '{path}'")
    rows, columns = torch.tril_indices(DIMENSION, DIMENSION)
    scale_tril = torch.zeros(count, DIMENSION, DIMENSION, dtype=dtype)
    scale_tril[:, rows, columns] = values["scale_tril"]
    return PosePrior(
        mean_rotations=roma.rotvec_to_rotmat(values["mean_rotvecs"]),
        component_means=values["component_means"],
        component_scale_tril=scale_tril,
        log_weights=torch.log_softmax(values["log_weights"], dim=0),
    )


def save_pose_prior(path: Path, prior: PosePrior, card: Mapping[str, Any]) -> None:
    """Write a weights file of float32 tensors, Cholesky factors packed row by row, and its card."""
    rows, columns = torch.tril_indices(DIMENSION, DIMENSION)
    tensors = {
        "mean_rotvecs": roma.rotmat_to_rotvec(prior.mean_rotations),
        "component_means": prior.component_means,
        "scale_tril": prior.component_scale_tril[:, rows, columns],
        "log_weights": prior.log_weights,
    }
    save_weights(path, {name: value.detach().float() for name, value in tensors.items()}, card)
