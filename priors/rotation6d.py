"""Six-number rotations in the two layouts of the published networks; they are not interchangeable.

Rows: the first two ROWS of the matrix, row 1 then row 2; identity [1, 0, 0, 0, 1, 0] (WHAM,
PyTorch3D). Columns: the first two COLUMNS, interleaved row by row; identity [1, 0, 0, 1, 0, 0]
(TCMR, SPIN, HMR, VPoser, HuMoR). Both decode by Gram-Schmidt.
Source: Zhou et al. 2019, "On the continuity of rotation representations", eq. 15.
"""

import torch
from jaxtyping import Float
from torch import Tensor

ROWS_IDENTITY: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
COLUMNS_IDENTITY: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def rows_to_matrix(d: Float[Tensor, "*batch 6"], eps: float = 1e-12) -> Float[Tensor, "*batch 3 3"]:
    """Rotation whose first two rows are the orthonormalised d[0:3] and d[3:6].

    `eps` is the smallest length divided by: zero vectors give zero rows, never NaN.
    """
    return torch.stack(_gram_schmidt(d[..., :3], d[..., 3:], eps), dim=-2)


def matrix_to_rows(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """First two rows of a rotation, row 1 then row 2."""
    return rotation[..., :2, :].flatten(-2)


def columns_to_matrix(
    d: Float[Tensor, "*batch 6"], eps: float = 1e-12
) -> Float[Tensor, "*batch 3 3"]:
    """Rotation whose first two columns are the orthonormalised d[0::2] and d[1::2].

    `eps` is the smallest length divided by (TCMR: 1e-6): zero vectors give zero columns.
    """
    return torch.stack(_gram_schmidt(d[..., 0::2], d[..., 1::2], eps), dim=-1)


def matrix_to_columns(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """First two columns of a rotation, interleaved: r00 r01 r10 r11 r20 r21."""
    return rotation[..., :2].flatten(-2)


def _gram_schmidt(first: Tensor, second: Tensor, eps: float) -> list[Tensor]:
    a = torch.nn.functional.normalize(first, dim=-1, eps=eps)
    b = second - (a * second).sum(dim=-1, keepdim=True) * a
    b = torch.nn.functional.normalize(b, dim=-1, eps=eps)
    return [a, b, torch.linalg.cross(a, b, dim=-1)]
