"""Scores of the transition prior on motions it did not see, and of simpler ones beside it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from priors.training.clips import group_name
from priors.training.triples import Sample, Splines, clip_sample, draw
from priors.transition import TransitionPrior

COUNT, SEED = 20000, 1
RIDGE = 1e-3
STEPS = (1 / 60, 1 / 50, 1 / 30, 1 / 25)
SHRINKAGE = 0.02
MOVING = 0.3  # m/s: frames slower than this tell nothing of the gain of a speed


def regular(covariance: Float[Tensor, "R R"]) -> Float[Tensor, "R R"]:
    """The nearest usable covariance, float64: correlations shrunk, none of them certain.

    One that was put together from pairs of columns that are not always recorded may have negative
    eigenvalues.
    """
    covariance = covariance.double()
    spread = covariance.diagonal().sqrt()
    correlation = (1.0 - SHRINKAGE) * covariance / (spread * spread[:, None])
    correlation.fill_diagonal_(1.0)
    values, vectors = torch.linalg.eigh(correlation)
    return (vectors * values.clamp_min(SHRINKAGE)) @ vectors.T * spread * spread[:, None]


def student_nll(
    error: Float[Tensor, "N R"],
    known: Tensor,
    covariance: Float[Tensor, "R R"],
    freedom: float,
) -> Float[Tensor, "N"]:
    """-log density of Student's t over the known columns of each row, nats."""
    total = torch.zeros(len(error), dtype=error.dtype)
    patterns, which = torch.unique(known, dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        rows, size = which == index, int(pattern.sum())
        factor = torch.linalg.cholesky(covariance[pattern][:, pattern])
        white = torch.linalg.solve_triangular(factor, error[rows][:, pattern].T, upper=False)
        squared = (white**2).sum(dim=0)
        constant = (
            math.lgamma(freedom / 2) - math.lgamma((freedom + size) / 2)
            + 0.5 * size * math.log(freedom * math.pi) + float(factor.diagonal().log().sum())
        )  # fmt: skip
        total[rows] = constant + 0.5 * (freedom + size) * torch.log1p(squared / freedom)
    return total


def squared_residuals(prior: TransitionPrior, unseen: Splines) -> dict[str, float]:
    """Median of the squared whitened residual of change, by time step."""
    generator = torch.Generator().manual_seed(SEED)
    found = {}
    for step in STEPS:
        sample = draw(unseen, COUNT, generator, step=step)
        residual = _error(prior, sample) @ prior.change_whitening.T
        found[f"1/{round(1 / step)} s"] = round(float((residual**2).sum(dim=1).median()), 2)
    return found


def score(prior: TransitionPrior, unseen: Splines, freedom: dict[str, float]) -> dict[str, object]:
    """NLL per frame by group, errors of the gait; of a prior with all rows of its whitening."""
    covariance = torch.linalg.inv(prior.change_whitening.T @ prior.change_whitening)
    groups: dict[str, list[Tensor]] = {}
    gait: dict[str, object] = {}
    for clip in range(len(unseen.length)):
        sample = clip_sample(unseen, clip)
        nll = student_nll(_error(prior, sample), sample.known, covariance, freedom["change"])
        name = group_name(int(unseen.group[clip]))
        groups.setdefault(name, []).append(nll)
        gait[f"{name}: {unseen.names[clip]}"] = _gait(prior, sample)
    parts = {name: round(float(torch.cat(each).mean()), 2) for name, each in groups.items()}
    return {"change_nll_per_frame": parts, "gait": gait}


def _error(prior: TransitionPrior, sample: Sample) -> Tensor:
    """Accelerations less those expected; what was not recorded is as expected."""
    triple = sample.triple
    error = triple.acceleration.double() - prior.change(triple.change_inputs.double())
    return torch.where(sample.known, error, 0.0)


def _gait(prior: TransitionPrior, sample: Sample) -> dict[str, float]:
    """Speeds of a clip against those its poses imply: m/s, and the gain that would be right.

    `gain`: of the world that fits best, |v| / |f| by least squares along the path; 1 is right.
    """
    velocity = sample.velocity.double()
    implied = prior.gait(sample.triple.gait_inputs.double())
    fast = velocity.norm(dim=1) > MOVING
    gain = (velocity * implied)[fast].sum() / (velocity**2)[fast].sum().clamp_min(1e-9)
    return {
        "speed": round(float(velocity.norm(dim=1).mean()), 3),
        "rms_error": round(float((velocity - implied).square().sum(dim=1).mean().sqrt()), 3),
        "median_error": round(float((velocity - implied).norm(dim=1).median()), 3),
        "gain": round(float(gain), 3) if int(fast.sum()) > 10 else math.nan,
    }


def baselines(
    seen: Splines, unseen: Splines, freedom: float, floor: Float[Tensor, "69"]
) -> dict[str, object]:
    """Held-out NLL per frame by group of simpler predictions, each with its own covariance."""
    generator = torch.Generator().manual_seed(SEED)
    data = draw(seen, COUNT, generator, step=1 / 30)
    found: dict[str, object] = {}
    for name, linear, full in (
        ("constant velocity, diagonal", False, False),
        ("constant velocity, covariance", False, True),
        ("linear AR(2), covariance", True, True),
    ):
        weights, covariance = _fit(data, freedom, floor, linear=linear, full=full)
        groups: dict[str, list[Tensor]] = {}
        for clip in range(len(unseen.length)):
            sample = clip_sample(unseen, clip)
            error = sample.triple.acceleration.double() - _inputs(sample) @ weights
            nll = student_nll(error, sample.known, covariance, freedom)
            groups.setdefault(group_name(int(unseen.group[clip])), []).append(nll)
        found[name] = {key: round(float(torch.cat(v).mean()), 2) for key, v in groups.items()}
    return found


def _inputs(sample: Sample) -> Float[Tensor, "N 199"]:
    inputs = sample.triple.change_inputs.double()
    return torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)


def _fit(
    data: Sample, freedom: float, floor: Float[Tensor, "69"], *, linear: bool, full: bool
) -> tuple[Float[Tensor, "199 69"], Float[Tensor, "69 69"]]:
    """Ridge regression and covariance under Student's t, by iterated weights."""
    inputs, target = _inputs(data), data.triple.acceleration.double()
    known = data.known.double()
    weights = torch.zeros(inputs.shape[1], target.shape[1], dtype=inputs.dtype)
    weight = torch.ones(len(inputs), dtype=inputs.dtype)
    covariance = torch.eye(target.shape[1], dtype=inputs.dtype)
    for _ in range(8):
        if linear:
            gram = (inputs * weight[:, None]).T @ inputs
            gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
            weights = torch.linalg.solve(gram, (inputs * weight[:, None]).T @ (target * known))
        error = (target - inputs @ weights) * known
        moment = (error * weight[:, None]).T @ error / (known.T @ known).clamp_min(1.0)
        covariance = regular(moment + torch.diag(floor**2))
        if not full:
            covariance = torch.diag(covariance.diagonal())
        squared = (torch.linalg.solve(covariance, error.T).T * error).sum(dim=1)
        weight = (freedom + known.sum(dim=1)) / (freedom + squared)
    return weights, covariance
