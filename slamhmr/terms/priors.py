"""Terms that know people and scenes in general: poses, shapes, the scale."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from priors.checkpoints import CheckpointError, load_weights
from priors.pose import PosePrior, load_pose_prior
from priors.vposer import VPoser, load_vposer
from slamhmr.device import CPU, on
from slamhmr.errors import InputError
from slamhmr.features import PersonFeatures
from slamhmr.solve.manifolds import right_jacobian_inverse
from slamhmr.solve.problem import BorderResidual, Residual, single_element
from slamhmr.terms.register import BorderContext, term

OWN = "own"  # the weights that ship with the package


def pose_prior_weights(weights: str, device: torch.device = CPU) -> PosePrior | VPoser:
    """The pose prior of a weights file, or the one that ships with the package, on a device.

    Read at first use, and again when the file has changed. Raises InputError for a file that is
    missing, or neither a mixture of ours nor a converted VPoser.
    """
    if weights == OWN:
        return _read_pose_prior(None, 0, 0, device)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"term 'pose_prior': weights '{path}' do not exist")
    state = path.stat()
    return _read_pose_prior(path, state.st_mtime_ns, state.st_size, device)


@lru_cache(maxsize=4)
def _read_pose_prior(
    path: Path | None, changed_ns: int, size: int, device: torch.device
) -> PosePrior | VPoser:
    """The prior of one state of a file; None: our own."""
    try:
        if path is None:
            return on(load_pose_prior(), device)
        if "component_means" in load_weights(path)[0]:
            return on(load_pose_prior(path), device)
        return on(load_vposer(path, dtype=torch.float64), device)
    except CheckpointError as error:
        raise InputError(f"term 'pose_prior': {error}") from error


@dataclass(frozen=True)
class PosePriorSettings:
    """`weight` is about 1 / correlation length in frames: neighbouring poses repeat each other.

    `weights`: "own", or the path of a converted VPoser (`slamhmr convert`) or a mixture of ours.
    """

    weight: float = 0.05
    weights: str = OWN


@term(
    "pose_prior",
    PosePriorSettings,
    needs_pose=True,
    check=lambda settings: pose_prior_weights(settings.weights),
)
def pose_prior(
    features: PersonFeatures, settings: PosePriorSettings, derivatives: bool
) -> Residual:
    """-log p of the 21 joint rotations of a frame, as one residual.

    By VPoser: its latent code, E = weight |z|^2 / 2. By our mixture of Gaussians on
    x_j = log(M_j' R_j): E = -log sum_k (w_k N_k)^weight. Every component counts by the weight,
    their mixture whole, for a frame whose neighbours repeat it must not choose a component by
    itself (with the weight outside of the sum PA-MPJPE was 42-50 mm instead of 39-42). The gradient
    is exact, the Jacobian's square not below the Hessian (`PosePrior.whitened_residual`).
    """
    prior = pose_prior_weights(settings.weights, features.world.device)
    rotations = features.local[:, 1:]
    if isinstance(prior, PosePrior):
        value, rows = _mixture_residual(prior, rotations, settings.weight, derivatives)
    elif derivatives:
        value, rows = prior.prior_residual(rotations)
    else:
        value, rows = prior.encode(roma.rotmat_to_rotvec(rotations).flatten(start_dim=1))[0], None
    weight = torch.full_like(value[:, :1], settings.weight)
    return Residual(
        "pose_prior", "pose", single_element(value), value[:, None], weight,
        None if rows is None else rows[None, :, None],
    )  # fmt: skip


def _mixture_residual(
    prior: PosePrior, rotations: Float[Tensor, "T 21 3 3"], weight: float, derivatives: bool
) -> tuple[Float[Tensor, "T R"], Float[Tensor, "T 64 63"] | None]:
    """Residual, and its Jacobian by body-frame increments; of the energy alone R = 1."""
    temperature = 1.0 / weight if weight > 0 else 1.0
    x = prior.coordinates(rotations)
    if not derivatives:
        return (2 * prior.energy(x, temperature)).sqrt()[:, None], None
    value, rows = prior.whitened_residual(x, temperature)
    slope = right_jacobian_inverse(x.reshape(-1, 21, 3))  # dx_j = slope d_j
    split = rows.reshape(len(x), 64, 21, 3).transpose(1, 2)  # (T, 21, 64, 3)
    return value, (split @ slope).transpose(1, 2).flatten(start_dim=2)


@dataclass(frozen=True)
class ShapeSettings:
    """Weight of the population: `prior`, and `weight` for every frame of the person.

    `height_sigma` m, where a stature is known.
    """

    weight: float = 0.03
    prior: float = 1.0
    height_sigma: float = 0.01


@term("shape", ShapeSettings, on_border=True)
def shape(context: BorderContext, settings: ShapeSettings) -> list[BorderResidual]:
    """Betas, standard normal in the body's population; the deviation from a stated stature.

    The weight grows with the length of the clip, as the data's does: their errors repeat from
    frame to frame (weight 1 for 1000 frames let the shape run away, solver_probe section 1).
    """
    layout, residuals = context.layout, []
    for index, person in enumerate(context.scene.people):
        count = len(person.betas)
        place = layout.betas_of(index) if layout.free.betas else None
        derivative = context.derivative(
            count, (place, torch.eye(count, dtype=person.betas.dtype, device=person.betas.device))
        )
        weight = settings.prior + settings.weight * context.frames[index]
        residuals.append(BorderResidual("shape", person.betas, weight, derivative))
        height = context.heights[index]
        if height is not None:
            value = (context.points.height(person.betas) - height) / settings.height_sigma
            slope = context.points.height_directions[None] / settings.height_sigma
            derivative = context.derivative(1, (place, slope))
            residuals.append(BorderResidual("shape", value[None], weight, derivative))
    return residuals


@dataclass(frozen=True)
class ScaleSettings:
    """`weight` multiplies the information of the alignment."""

    weight: float = 1.0


@term("scale", ScaleSettings, on_border=True)
def scale(context: BorderContext, settings: ScaleSettings) -> list[BorderResidual]:
    """Log scale about what the alignment found, over the standard deviation it stated."""
    mean, sigma = context.scene.scale_prior
    value = (context.scene.log_scale - mean)[None] / sigma
    derivative = context.derivative(1, (context.layout.scale, (1.0 / sigma)[None, None]))
    return [BorderResidual("scale", value, settings.weight, derivative)]
