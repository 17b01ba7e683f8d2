"""The focal length, where the background tells it: turning cameras, and reconstructions.

Used where it was guessed. A turn bends the paths of points as the focal length says; a bundle of
rays to points of a scene with depth fits at one focal length only.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.slam.bearings import fit_rotation
from slamhmr.slam.colmap import load_pycolmap
from slamhmr.slam.tracks import Tracks

LEAST_SIGMA = 0.02  # relative; no estimate is surer, whatever the residuals say
MOST_SIGMA = 0.1  # less sure estimates are worth no more than people's sizes
FACTORS = np.exp(np.linspace(np.log(0.45), np.log(2.2), 13))  # of the guess, that are tried
LEAST_RISE = 0.03  # px at 640 px width, of the residual at a focal length a quarter off
RESAMPLES = 50
WORSE = 1.02  # times the mean reprojection error before: the robust cost fell, this may not
# px at 640 px width: errors of followed points last, so many of them say no more than a few; with
# this the estimates of rendered walks and orbits (5 % off, 0.4 %) are as sure as they are right
RAY_SIGMA = 2.0


@dataclass(frozen=True)
class Focal:
    """An estimate: factor on the focal length that was assumed, and its relative deviation."""

    factor: float
    sigma: float

    def applied_to(self, intrinsics: Float[Tensor, "4"]) -> Float[Tensor, "4"]:
        """Fx fy cx cy with the estimated focal length."""
        factor = torch.tensor([self.factor, self.factor, 1.0, 1.0], dtype=torch.float64)
        return intrinsics.double() * factor

    def differs(self) -> bool:
        """Whether the assumed focal length is ruled out."""
        return abs(math.log(self.factor)) > max(0.05, 2 * self.sigma)


def focal_note(found: Focal, guess: float) -> str:
    """Sentence for the report: the estimate, and what was assumed before; px."""
    return (
        f"focal length estimated: {found.factor * guess:.0f} px (+- {100 * found.sigma:.0f} %) "
        f"from the background (was a guess of {guess:.0f} px)"
    )


def focal_of_turn(
    tracks: Tracks, pairs: Sequence[tuple[int, int]], intrinsics: Float[np.ndarray, "4"]
) -> Focal | None:
    """Focal length at which pairs of frames are best explained by rotations.

    Minimum of the mean over pairs of the median residual, px, along the logarithm of the focal
    length; its deviation by resampling the pairs. None where the minimum is flat, not inside the
    range, or less sure than MOST_SIGMA.
    """
    if len(pairs) < 4:
        return None
    cost = np.array([[_residual(tracks, pair, intrinsics, f) for f in FACTORS] for pair in pairs])
    mean = cost.mean(axis=0)
    best, at = _lowest(mean), int(mean.argmin())
    rise = min(mean[max(at - 2, 0)], mean[min(at + 2, len(mean) - 1)]) - mean[at]
    if rise < LEAST_RISE * tracks.unit:
        return None
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(pairs), (RESAMPLES, len(pairs)))
    spread = [_lowest(cost[pick].mean(axis=0)) for pick in picks]
    found = [value for value in spread if value is not None]
    if best is None or len(found) < 0.9 * RESAMPLES:
        return None
    sigma = max(float(np.std(found)), LEAST_SIGMA)
    return Focal(float(np.exp(best)), sigma) if sigma <= MOST_SIGMA else None


def _residual(
    tracks: Tracks, pair: tuple[int, int], intrinsics: np.ndarray, factor: float
) -> float:
    _, before, after = tracks.shared(*pair)
    scaled = intrinsics * np.array([factor, factor, 1.0, 1.0])
    return float(np.median(fit_rotation(before, after, scaled, 1.5 * tracks.unit)[1]))


def _lowest(cost: Float[np.ndarray, "F"]) -> float | None:
    """Log of the factor of least cost, by a parabola through three; None at an end."""
    at = int(cost.argmin())
    if at in (0, len(cost) - 1):
        return None
    left, middle, right = cost[at - 1 : at + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    step = float(np.log(FACTORS[1] / FACTORS[0]))
    return float(np.log(FACTORS[at])) + shift * step


def refine_bundle(reconstruction: Any, unit: float) -> tuple[Any, Focal | None]:
    """A COLMAP model whose rays, points and one focal length are adjusted together.

    The model itself and None where the scene does not tell the focal length: less sure than
    MOST_SIGMA, beyond the range of FACTORS, or no better. The camera must be SIMPLE_PINHOLE.
    """
    pycolmap = load_pycolmap()

    refined = copy.deepcopy(reconstruction)
    camera = refined.cameras[1]
    guess = float(camera.params[0])
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_extra_params = options.refine_principal_point = options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.loss_function_scale = unit
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for image in refined.reg_image_ids():
        config.add_image(image)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, refined)
    adjuster.solve()
    wanted = pycolmap.BACovarianceOptions()
    wanted.params = pycolmap.BACovarianceOptionsParams.ALL
    covariance = pycolmap.estimate_ba_covariance(wanted, refined, adjuster)
    variance = None if covariance is None else covariance.get_other_params_cov(camera.params)
    factor = float(camera.params[0]) / guess
    if variance is None or not FACTORS[0] < factor < FACTORS[-1]:
        return reconstruction, None
    sigma = RAY_SIGMA * unit * math.sqrt(float(variance[0, 0])) / (factor * guess)
    reconstruction.update_point_3d_errors()
    refined.update_point_3d_errors()
    before, after = (m.compute_mean_reprojection_error() for m in (reconstruction, refined))
    if not sigma <= MOST_SIGMA or not after <= WORSE * before:
        return reconstruction, None
    return refined, Focal(factor, max(sigma, LEAST_SIGMA))
