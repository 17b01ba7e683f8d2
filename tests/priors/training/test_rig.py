"""The rig of training is the body model of the package."""

import pytest
import roma
import torch
from recordings import BODY, rig

from slamhmr.body import forward_points, rest_points
from slamhmr.scene import point_set
from slamhmr.skeleton import KEYPOINT_JOINT, KEYPOINTS

RIG = rig()


def test_points_and_rotations_are_those_of_the_body():
    generator = torch.Generator().manual_seed(0)
    vectors = 0.6 * torch.randn(2, 5, 22, 3, generator=generator)
    rotations = roma.rotvec_to_rotmat(vectors)
    betas = torch.randn(2, BODY.shapedirs.shape[-1], generator=generator)
    found, turned = RIG.forward(RIG.rest(betas), rotations)
    exact, exact_turned = forward_points(
        BODY, betas.double(), rotations[:, :, 0].double(), torch.zeros(2, 5, 3).double(),
        rotations[:, :, 1:].double(),
    )  # fmt: skip
    places = [BODY.point_names.index(name) for name in RIG.names]
    torch.testing.assert_close(found.double(), exact[:, :, places], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.double(), exact_turned[:, :, :22], atol=1e-5, rtol=0)


def test_rest_and_size_are_those_of_the_body():
    betas = torch.randn(4, BODY.shapedirs.shape[-1], generator=torch.Generator().manual_seed(1))
    places = [BODY.point_names.index(name) for name in RIG.names]
    exact = rest_points(BODY, betas.double())[:, places]
    torch.testing.assert_close(RIG.rest(betas).double(), exact, atol=1e-5, rtol=0)
    sizes = torch.stack([point_set(BODY).size(row) for row in betas.double()])
    torch.testing.assert_close(RIG.size(betas).double(), sizes, atol=1e-5, rtol=0)
    assert float(RIG.size(torch.zeros_like(betas))[0]) == pytest.approx(1)


def test_keypoints_are_in_the_canonical_order():
    assert [RIG.names[i] for i in RIG.keypoints] == [KEYPOINT_JOINT.get(k, k) for k in KEYPOINTS]


def test_resized_shapes_have_the_size_and_are_the_nearest_that_have():
    betas = torch.randn(6, BODY.shapedirs.shape[-1], generator=torch.Generator().manual_seed(2))
    size = torch.linspace(0.57, 1.2, 6)
    found = RIG.resized(betas, size)
    torch.testing.assert_close(RIG.size(found), size, atol=1e-5, rtol=0)
    aside = torch.randn(betas.shape, generator=torch.Generator().manual_seed(3))
    other = RIG.resized(found + 0.1 * aside, size)  # another shape of the same size
    assert bool(((other - betas).norm(dim=1) > (found - betas).norm(dim=1)).all())
