"""Mirror images: the same view of exchanged sides, the same words about them."""

import pytest
import roma
import torch
from people_seen import POINTS, draw, person, seen

from priors.lifter import WIDTHS, Lifter, crop, decode
from priors.lifting import FLIP, KEYPOINTS, lift, mean_of, mirrored_back, mirrored_view

MIRROR = torch.tensor(FLIP, dtype=torch.float64)


@pytest.fixture(scope="module")
def network() -> Lifter:
    torch.manual_seed(0)
    return Lifter(16, (1, 2)).eval()


def both_views(seed: int = 0):
    points, confidence, turns = person(seed)
    own = crop(seen(points), confidence, turns)
    mirrored = (points * MIRROR)[:, :, KEYPOINTS]
    other = crop(seen(mirrored), confidence[..., KEYPOINTS], turns * MIRROR[:, None] * MIRROR)
    return own, other


def test_left_and_right_are_exchanged_and_back():
    assert sorted(KEYPOINTS) == list(range(POINTS))
    assert [KEYPOINTS[i] for i in KEYPOINTS] == list(range(POINTS))


@pytest.mark.parametrize("seed", range(3))
def test_the_view_of_mirrored_people_is_the_mirrored_view(seed):
    own, other = both_views(seed)
    made = mirrored_view(own)
    for name in ("cam_from_crop", "size", "features"):
        assert torch.allclose(getattr(made, name), getattr(other, name), atol=1e-9), name
    again = mirrored_view(made)
    assert torch.equal(again.features, own.features)


def test_mirrored_words_are_those_of_the_mirrored_body():
    own, other = both_views()
    raw = draw(5, *own.features.shape[:2], sum(WIDTHS))
    twice = mirrored_back(mirrored_back(decode(raw, own)))
    for name, value in vars(decode(raw, own)).items():
        assert torch.allclose(getattr(twice, name), value), name
    back = mirrored_back(decode(raw, other))
    assert roma.is_rotation_matrix(back.rotations)
    knees = decode(raw, other).rotations[:, :, 4], back.rotations[:, :, 5]
    assert torch.allclose(roma.rotmat_to_rotvec(knees[0])[..., 0],
                          roma.rotmat_to_rotvec(knees[1])[..., 0])  # fmt: skip
    assert torch.allclose(roma.rotmat_to_rotvec(knees[0])[..., 1:],
                          -roma.rotmat_to_rotvec(knees[1])[..., 1:])  # fmt: skip


def test_people_and_their_mirror_images_are_told_the_same(network):
    own, other = both_views(4)
    said, mirrored = lift(network, own), mirrored_back(lift(network, other))
    for name, value in vars(said).items():
        assert torch.allclose(getattr(mirrored, name), value, atol=1e-5), name
    alone = decode(network(own.features.float()).double(), own)
    assert not torch.allclose(alone.root_velocity, said.root_velocity, atol=1e-3)


def test_the_mean_of_two_answers_lies_between_them(network):
    own, _ = both_views(1)
    first, second = (
        decode(draw(seed, *own.features.shape[:2], sum(WIDTHS)), own) for seed in (7, 8)
    )
    mean = mean_of(first, second)
    assert torch.allclose(mean.up_cam.norm(dim=-1), torch.ones(()).double())
    assert torch.allclose(mean.root_velocity, (first.root_velocity + second.root_velocity) / 2)
    assert torch.allclose(mean.up_sigma.log(), (first.up_sigma.log() + second.up_sigma.log()) / 2)
    apart = [
        roma.rotmat_geodesic_distance(mean.rotations, one.rotations) for one in (first, second)
    ]
    assert torch.allclose(apart[0], apart[1], atol=1e-5)
