"""Where people of other regressors stand, as our camera and our body see them."""

import torch
from jaxtyping import Float
from torch import Tensor

# Of how wrong the file's places may be for our body: log-free scale of the distance (our body has
# another size), and a constant offset (another rest pelvis).
SCALE_SIGMA, OFFSET_SIGMA = 0.3, 0.15  # share; m
POINT_SIGMA = 0.04  # m across the ray, of a joint of one body on the keypoint of another's
ITERATIONS = 8


def through_lens(
    places: Float[Tensor, "S 3"], theirs: Float[Tensor, "4"], ours: Float[Tensor, "S 4"]
) -> Float[Tensor, "S 3"]:
    """Places seen through `theirs` moved to where the picture is the same through `ours`.

    Depth grows with the focal length, z' = z f'/f, so that people keep their size in the picture;
    x' and y' keep their image point.
    """
    ratio = (ours[:, :2] / theirs[:2]).mean(dim=1)
    depth = places[:, 2] * ratio
    image = theirs[:2] * places[:, :2] / places[:, 2:] + theirs[2:]
    across = (image - ours[:, 2:]) / ours[:, :2] * depth[:, None]
    return torch.cat([across, depth[:, None]], dim=1)


def on_picture(
    places: Float[Tensor, "S 3"],
    around: Float[Tensor, "S J 3"],
    image: Float[Tensor, "S J 2"],
    confidence: Float[Tensor, "S J"],
    intrinsics: Float[Tensor, "S 4"],
) -> Float[Tensor, "S 3"]:
    """Places s p + o, with one scale s and offset o per track that lay the joints on the keypoints.

    `around` are the joints less the place. Linear in s and o for the rays' equations
    (p + x) = a (p_z + z), a the keypoint at z = 1; weighted again and again against outliers
    (Cauchy), with s = 1 and o = 0 expected. Where nothing is seen the places stay.
    """
    bearing = (image - intrinsics[:, None, 2:]) / intrinsics[:, None, :2]  # (S,J,2)
    rows, sides = [], []
    for axis in (0, 1):
        a = bearing[..., axis]
        row = torch.zeros(*a.shape, 4, dtype=places.dtype)
        row[..., 0] = places[:, None, axis] - a * places[:, None, 2]
        row[..., 1 + axis] = 1.0
        row[..., 3] = -a
        rows.append(row)
        sides.append(a * around[..., 2] - around[..., axis])
    matrix, side = torch.stack(rows, dim=2), torch.stack(sides, dim=2)  # (S,J,2,4), (S,J,2)
    prior = torch.tensor([SCALE_SIGMA, *[OFFSET_SIGMA] * 3], dtype=places.dtype) ** -2
    expected = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=places.dtype)
    found = expected
    for _ in range(ITERATIONS):
        squared = ((matrix @ found - side) ** 2).sum(dim=-1) / POINT_SIGMA**2
        weight = confidence / (1 + squared) / POINT_SIGMA**2
        weighted = matrix * weight[..., None, None]
        normal = torch.einsum("sjak,sjal->kl", weighted, matrix) + torch.diag(prior)
        right = torch.einsum("sjak,sja->k", weighted, side) + prior * expected
        found = torch.linalg.solve(normal, right)
    return found[0] * places + found[1:]
