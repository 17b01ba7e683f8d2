"""Products with an articulation's Jacobian against the Jacobian itself."""

import pytest
import roma
import torch

from slamhmr.solve.articulated import (
    inertias,
    isotropic_inertias,
    quadratic_product,
    rows,
    stretch,
    summed_twists,
    transposed_product,
    twists,
)
from slamhmr.solve.manifolds import skew
from slamhmr.solve.problem import Articulation

FRAMES, JOINTS, POINTS = 3, 4, 6
PARENTS = (-1, 0, 1, 0)


@pytest.fixture
def articulation():
    generator = torch.Generator().manual_seed(0)
    axes = roma.random_rotmat((FRAMES, JOINTS), dtype=torch.float64)
    joints = torch.randn(FRAMES, JOINTS, 3, generator=generator, dtype=torch.float64)
    points = torch.randn(FRAMES, POINTS, 3, generator=generator, dtype=torch.float64)
    above = torch.eye(JOINTS, dtype=torch.bool)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            above[:, joint] |= above[:, parent]
    moves = above[:, [0, 1, 2, 2, 3, 3]]
    return Articulation(points, joints, axes, moves, above)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_rows_are_the_points_motion(articulation):
    jacobian = rows(articulation).reshape(FRAMES, POINTS, 3, -1)
    torch.testing.assert_close(jacobian[..., :3], torch.eye(3).double().expand(3, 6, 3, 3))
    for joint in range(JOINTS):
        axis = articulation.axes[:, joint, :, 1]
        arm = articulation.points - articulation.joints[:, joint, None]
        expected = torch.linalg.cross(axis[:, None].expand_as(arm), arm)
        expected = expected * articulation.moves[joint, None, :, None]
        torch.testing.assert_close(jacobian[..., 3 + 3 * joint + 1], expected)


@pytest.mark.parametrize("offset", [0, 1])
def test_quadratic_product_equals_the_dense_one(articulation, offset):
    jacobian, found = rows(articulation), twists(articulation)
    length = FRAMES - offset
    weights = random(length, POINTS, 3, 3)
    if offset == 0:
        weights = weights + weights.mT
    here, there = found.span(0, length), found.span(offset, length)
    product = quadratic_product(here, there, inertias(here, there, weights), same_frame=offset == 0)
    dense = torch.stack([torch.block_diag(*frame) for frame in weights])
    expected = jacobian[:length].mT @ dense @ jacobian[offset:]
    torch.testing.assert_close(product, expected)


def test_isotropic_sums_equal_the_general_ones(articulation):
    found = twists(articulation)
    here, there = found.span(0, 2), found.span(1, 2)
    scalar = random(2, POINTS)
    full = scalar[..., None, None] * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(isotropic_inertias(here, there, scalar), inertias(here, there, full))


def test_transposed_product_equals_the_dense_one(articulation):
    values = random(FRAMES, POINTS, 3, 5)
    found = twists(articulation)
    product = transposed_product(found, summed_twists(found, values))
    torch.testing.assert_close(product, rows(articulation).mT @ values.flatten(1, 2))


def test_stretch_is_the_curvature_of_a_limb_that_is_too_short(articulation):
    """One point pulled straight outwards: the energy's second derivative, and never negative."""
    joint, point = 2, 3
    gradient = torch.zeros(FRAMES, POINTS, 3, dtype=torch.float64)
    arm = articulation.points[:, point] - articulation.joints[:, joint]
    gradient[:, point] = -0.7 * arm
    found = stretch(articulation, gradient)[:, joint]

    def energy(turn):
        moved = articulation.axes[:, joint] @ torch.linalg.matrix_exp(skew(turn))
        moved = moved @ articulation.axes[:, joint].mT @ arm[..., None]
        return (gradient[:, point, None] @ moved)[:, 0, 0]

    zero = torch.zeros(3, dtype=torch.float64)
    for frame in range(FRAMES):
        expected = torch.autograd.functional.hessian(
            lambda turn, frame=frame: energy(turn.expand(FRAMES, 3))[frame], zero
        )
        torch.testing.assert_close(found[frame], expected, rtol=1e-5, atol=1e-6)
    assert float(torch.linalg.eigvalsh(stretch(articulation, -gradient)).min()) > -1e-12
    assert float(stretch(articulation, -gradient)[:, joint].abs().max()) < 1e-12
