"""Rotations between pictures of one camera centre, from bearing vectors."""

import numpy as np
import roma
import torch
from jaxtyping import Float, Int

HYPOTHESES = 64  # random pairs of points; at half outliers the chance to miss is 0.75^64 = 1e-8


def fit_rotation(
    before: Float[np.ndarray, "P 2"],
    after: Float[np.ndarray, "P 2"],
    intrinsics: Float[np.ndarray, "4"],
    threshold: float,
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "P"]]:
    """Rotation after_from_before that most points obey within `threshold` px, and residuals, px.

    RANSAC over pairs of bearing vectors with a fixed seed, then Kabsch on the inliers twice.
    Needs two points.
    """
    rays_before, rays_after = _rays(before, intrinsics), _rays(after, intrinsics)
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(before), (HYPOTHESES, 2))
    rotations = _kabsch(rays_before[picks], rays_after[picks])
    errors = _residuals(rotations, rays_before, after, intrinsics)
    best = int((errors < threshold).sum(axis=1).argmax())
    rotation, error = rotations[best], errors[best]
    for _ in range(2):
        inlier = error < threshold
        if inlier.sum() < 2:
            break
        rotation = _kabsch(rays_before[None, inlier], rays_after[None, inlier])[0]
        error = _residuals(rotation[None], rays_before, after, intrinsics)[0]
    return rotation, error


def _rays(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Unit bearing vectors (P,3) of image points (P,2)."""
    xy = (points - intrinsics[2:]) / intrinsics[:2]
    rays = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _kabsch(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotations (H,3,3) that take source (H,P,3) to target in the least-squares sense."""
    u, _, vt = np.linalg.svd(np.einsum("hpi,hpj->hij", target, source))
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return u @ vt


def _residuals(
    rotations: np.ndarray, rays: np.ndarray, after: np.ndarray, intrinsics: np.ndarray
) -> np.ndarray:
    """Image distance (H,P), px; infinite for points that a rotation takes behind the camera."""
    turned = np.einsum("hij,pj->hpi", rotations, rays)
    depth = np.where(turned[..., 2:] > 1e-6, turned[..., 2:], np.nan)
    image = intrinsics[:2] * turned[..., :2] / depth + intrinsics[2:]
    return np.nan_to_num(np.linalg.norm(image - after, axis=-1), nan=np.inf)


def average_rotations(
    start: Float[np.ndarray, "K 3 3"],
    pairs: Int[np.ndarray, "E 2"],
    relative: Float[np.ndarray, "E 3 3"],
    weights: Float[np.ndarray, "E"],
) -> Float[np.ndarray, "K 3 3"]:
    """Rotations world_from_view that agree best with relative ones between views.

    relative[e] = view_j_from_view_i for pairs[e] = (i, j).
    Gauss-Newton on the rotation vectors of the closing errors; view 0 keeps its rotation. The pairs
    must connect all views.
    """
    rotations = start.copy()
    edges = np.arange(len(pairs))
    system = np.zeros((len(pairs), len(start)))
    system[edges, pairs[:, 1]], system[edges, pairs[:, 0]] = 1.0, -1.0
    root = np.sqrt(weights)[:, None]
    for _ in range(10):
        first, second = rotations[pairs[:, 0]], rotations[pairs[:, 1]]
        closing = second @ relative @ first.transpose(0, 2, 1)  # identity when all agree
        error = roma.rotmat_to_rotvec(torch.from_numpy(closing)).numpy()
        update = np.zeros((len(start), 3))
        update[1:] = np.linalg.lstsq(root * system[:, 1:], -root * error, rcond=None)[0]
        rotations = roma.rotvec_to_rotmat(torch.from_numpy(update)).numpy() @ rotations
        if np.abs(update).max() < 1e-9:
            break
    return rotations
