"""Pose prior: a mixture of Gaussians over the 21 body rotations, as a least-squares penalty.

Coordinates x_j = log(M_j^T R_j), M a mean pose: 63 numbers. Up to a constant, -log p(x) is
replaced by its best component (max-mixture, Olson & Agarwal 2013, equations 5-7), which is a sum
of squares and linear in x while the component stays the same. Trained by `priors.training.pose`.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "pose.npz"
JOINT_COUNT = 21
DIMENSION = 3 * JOINT_COUNT
CHUNK_FRAMES = 500  # frames against all components at once: 500 x 64 x 63 x 8 bytes = 16 MB


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
        identity = torch.eye(DIMENSION).to(self.component_scale_tril)
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
        normaliser = 0.5 * DIMENSION * torch.log(torch.tensor(2 * torch.pi, dtype=x.dtype))
        diagonal = self.component_scale_tril.diagonal(dim1=-2, dim2=-1)
        constant = self.log_weights - diagonal.log().sum(dim=-1) - normaliser
        return constant - 0.5 * self._squared_distances(x)

    def log_prob(self, x: Float[Tensor, "*batch 63"]) -> Float[Tensor, "*batch"]:
        """Log density of the mixture, nats."""
        return torch.logsumexp(self.joint_log_prob(x), dim=-1)

    def best_component(self, x: Float[Tensor, "*batch 63"]) -> Int[Tensor, "*batch"]:
        """Component with the largest weighted density at x."""
        return (0.5 * self._squared_distances(x) + self.costs).argmin(dim=-1)

    def whitened_residual(
        self, x: Float[Tensor, "*batch 63"], component: Int[Tensor, "*batch"] | None = None
    ) -> tuple[Float[Tensor, "*batch 64"], Int[Tensor, "*batch"]]:
        """Residual r = [W_k (x - mu_k), sqrt(2 c_k)] and the component k with the smallest |r|.

        |r|^2 / 2 = -log max_k w_k N_k(x) + constant, the constant making the highest peak of all
        components cost 0, so the penalty is never negative. With `component` given it is held:
        r is then linear in x with Jacobian [W_k; 0].
        """
        if component is None:
            component = self.best_component(x)
        flat, picks = x.reshape(-1, DIMENSION), component.reshape(-1)
        white = torch.empty_like(flat)
        for index in torch.unique(picks).tolist():  # by component: no copy of W for every frame
            mine = picks == index
            white[mine] = (flat[mine] - self.component_means[index]) @ self.whitening[index].T
        white = white.reshape(x.shape)
        return torch.cat([white, (2 * self.costs[component]).sqrt()[..., None]], dim=-1), component

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

    def _squared_distances(self, x: Float[Tensor, "*batch 63"]) -> Float[Tensor, "*batch K"]:
        flat, count = x.reshape(-1, DIMENSION), len(self.log_weights)
        stacked = self.whitening.reshape(-1, DIMENSION).T  # all components in one product
        shift = (self.whitening @ self.component_means[..., None])[..., 0].reshape(-1)
        parts = [
            (chunk @ stacked - shift).reshape(-1, count, DIMENSION).square().sum(dim=-1)
            for chunk in torch.split(flat, CHUNK_FRAMES)
        ]
        return torch.cat(parts).reshape(*x.shape[:-1], count)


def load_pose_prior(path: Path | None = None, *, dtype: torch.dtype = torch.float64) -> PosePrior:
    """Trained prior of a weights file; None loads the one that comes with the package.

    Raises FileNotFoundError if the file does not exist, ValueError if it holds anything else.
    """
    path = path if path is not None else DEFAULT_WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"pose prior '{path}' does not exist")
    with np.load(path, allow_pickle=False) as arrays:
        values = {name: torch.from_numpy(arrays[name]).to(dtype) for name in arrays.files}
    expected = {"mean_rotvecs", "component_means", "scale_tril", "log_weights"}
    if set(values) != expected:
        raise ValueError(
            f"pose prior '{path}': arrays {sorted(values)}, expected {sorted(expected)}"
        )
    count = len(values["log_weights"])
    packed = DIMENSION * (DIMENSION + 1) // 2
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if (
        shapes["mean_rotvecs"] != (JOINT_COUNT, 3)
        or shapes["component_means"] != (count, DIMENSION)
        or shapes["scale_tril"] != (count, packed)
    ):
        raise ValueError(f"pose prior '{path}': wrong shapes {shapes}")
    rows, columns = torch.tril_indices(DIMENSION, DIMENSION)
    scale_tril = torch.zeros(count, DIMENSION, DIMENSION, dtype=dtype)
    scale_tril[:, rows, columns] = values["scale_tril"]
    return PosePrior(
        mean_rotations=roma.rotvec_to_rotmat(values["mean_rotvecs"]),
        component_means=values["component_means"],
        component_scale_tril=scale_tril,
        log_weights=torch.log_softmax(values["log_weights"], dim=0),
    )


def save_pose_prior(path: Path, prior: PosePrior) -> None:
    """Write a weights file: npz of float32 arrays, Cholesky factors packed row by row."""
    rows, columns = torch.tril_indices(DIMENSION, DIMENSION)
    arrays = {
        "mean_rotvecs": roma.rotmat_to_rotvec(prior.mean_rotations),
        "component_means": prior.component_means,
        "scale_tril": prior.component_scale_tril[:, rows, columns],
        "log_weights": prior.log_weights,
    }
    np.savez_compressed(
        path, **{name: value.detach().cpu().float().numpy() for name, value in arrays.items()}
    )
