"""Both six-number layouts against the golden values of the official codes."""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from priors.rotation6d import (
    COLUMNS_IDENTITY,
    ROWS_IDENTITY,
    columns_to_matrix,
    matrix_to_columns,
    matrix_to_rows,
    rows_to_matrix,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "kinematics.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def rotations() -> Tensor:
    return roma.random_rotmat(50, dtype=torch.float64)


@pytest.mark.parametrize(
    ("decode", "eps", "name"),
    [
        (rows_to_matrix, 1e-12, "out_p3d_6d2mat"),
        (columns_to_matrix, 1e-12, "out_humor_6d2mat"),
        (columns_to_matrix, 1e-12, "out_spin_6d2mat_whamutil"),
        (columns_to_matrix, 1e-6, "out_tcmr_6d2mat"),
    ],
)
def test_decoding_agrees_with_the_official_codes(golden, decode, eps, name):
    """Degenerate rows (zero and parallel vectors) included."""
    torch.testing.assert_close(decode(golden["in_d6"], eps), golden[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("encode", "name"),
    [(matrix_to_rows, "out_p3d_mat2_6d"), (matrix_to_columns, "out_spin_mat2_6d")],
)
def test_encoding_agrees_with_the_official_codes(golden, encode, name):
    torch.testing.assert_close(encode(golden["out_p3d_aa2mat"]), golden[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("decode", "encode"),
    [(rows_to_matrix, matrix_to_rows), (columns_to_matrix, matrix_to_columns)],
)
def test_a_rotation_survives_the_round_trip_at_any_scale(decode, encode):
    torch.manual_seed(0)
    matrices = rotations()
    torch.testing.assert_close(decode(3.0 * encode(matrices)), matrices)


def test_the_layouts_are_not_interchangeable():
    """A rotation in one layout, read in the other, is another rotation."""
    torch.manual_seed(0)
    matrices = rotations()
    wrong = columns_to_matrix(matrix_to_rows(matrices))
    assert float((wrong - matrices).abs().amax(dim=(-1, -2)).min()) > 1e-3


@pytest.mark.parametrize(
    ("decode", "identity"),
    [(rows_to_matrix, ROWS_IDENTITY), (columns_to_matrix, COLUMNS_IDENTITY)],
)
def test_identity(decode, identity):
    torch.testing.assert_close(decode(torch.tensor(identity)), torch.eye(3))


def test_decoding_has_finite_gradients_at_degenerate_input(golden):
    d = golden["in_d6"].clone().requires_grad_()
    rows_to_matrix(d).sum().backward()
    columns_to_matrix(d).sum().backward()
    assert d.grad is not None
    assert bool(torch.isfinite(d.grad).all())
