"""The lifter's view of a person, what its rows mean, and its weights."""

import math

import pytest
import roma
import torch
from people_seen import POINTS, draw, person, seen

from priors import lifter
from priors.checkpoints import CheckpointError, save_weights
from priors.lifter import Crop, Lifter, crop, decode, load_lifter


def test_the_virtual_camera_looks_at_the_person():
    points, confidence, turns = person(0)
    view = crop(seen(points), confidence, turns)
    ahead = view.cam_from_crop[..., 2]
    middle = (confidence[..., None] * seen(points)).sum(dim=2) / confidence.sum(dim=2)[..., None]
    torch.testing.assert_close(seen(ahead), middle, atol=0.03, rtol=0)  # it follows smoothly
    local = seen(points @ view.cam_from_crop)
    scaled = view.features[..., : 2 * POINTS].reshape(local.shape)
    torch.testing.assert_close(
        2 * scaled * view.size[..., None, None], local * (confidence > 0)[..., None]
    )
    assert view.features.shape[-1] == lifter.FEATURES


def test_features_do_not_know_the_world():
    points, confidence, turns = person(1)
    world = roma.random_rotmat(1, dtype=torch.float64)[0]
    first = crop(seen(points), confidence, turns)
    other = crop(seen(points), confidence, world @ turns)
    torch.testing.assert_close(first.features, other.features)


def test_a_rolled_camera_rolls_the_view():
    """About the optical axis the crop turns with the camera: its points do too."""
    points, confidence, turns = person(2)
    roll = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    first = crop(seen(points), confidence, turns)
    other = crop(seen(points @ roll.mT), confidence, turns @ roll.mT)
    torch.testing.assert_close(other.size, first.size)
    torch.testing.assert_close(other.cam_from_crop, roll @ first.cam_from_crop @ roll.mT)
    turned = first.features[..., : 2 * POINTS].unflatten(-1, (POINTS, 2)) @ roll[:2, :2].mT
    torch.testing.assert_close(other.features[..., : 2 * POINTS], turned.flatten(start_dim=2))


def test_a_turned_camera_sees_nearly_the_same_crop():
    """A crop is what a camera that looks at the person would see, wherever the real one looks.

    Not exactly: the middle of the points is taken in the picture, where far ones weigh more.
    """
    points, confidence, turns = person(3)
    pan = roma.rotvec_to_rotmat(torch.tensor([0.0, -0.3, 0.0], dtype=torch.float64))
    first = crop(seen(points), confidence, turns)
    other = crop(seen(points @ pan.mT), confidence, turns @ pan.mT)
    ahead = (pan.mT @ other.cam_from_crop[..., 2:])[..., 0] - first.cam_from_crop[..., 2]
    assert float(ahead.norm(dim=-1).max()) < 0.02
    assert float((other.size / first.size).log().abs().max()) < 0.2
    turning = slice(3 * POINTS + 3, 3 * POINTS + 6)
    off = first.features[..., turning] - other.features[..., turning]
    assert float(off.norm(dim=-1).mean()) < 0.2 * float(
        first.features[..., turning].norm(dim=-1).mean()
    )


def test_unseen_points_leave_no_trace():
    points, confidence, turns = person(4)
    confidence[:, 20:30] = 0
    elsewhere = torch.where(confidence[..., None] > 0, seen(points), 1e3)
    first, other = (crop(at, confidence, turns) for at in (seen(points), elsewhere))
    # where nobody is seen the smoothed values come from neighbours, but for a share of 1e-9
    torch.testing.assert_close(first.features, other.features, atol=1e-2, rtol=0)


@pytest.mark.parametrize("frames", [601, 950])
def test_smoothing_in_spans_is_smoothing_at_once(frames: int):
    time = torch.arange(frames, dtype=torch.float64)
    values = torch.sin(time / 40)[None, :, None] + 0.1 * draw(5, 1, frames, 3)
    weight = torch.rand(1, frames, generator=torch.Generator().manual_seed(5)).double() * 10
    weight[:, 400:430] = 0
    apart = (time[:, None] - time).abs()
    once = lifter._mean(values, weight, apart)
    assert float((lifter._smooth(values, weight) - once).abs().max()) < 0.02


def test_a_long_absence_in_a_long_clip_holds_what_was_seen():
    """Nothing within reach is seen: the size stays that of the nearest frames that are."""
    points, confidence, turns = person(6, people=1, frames=1500)
    confidence[:, 300:1300] = 0
    steady = points[:, :1].expand_as(points)
    view = crop(seen(steady), confidence, turns)
    typical = view.size[:, :200].mean()
    assert float((view.size / typical).log().abs().max()) < 0.2


def test_turn_to_is_the_smallest_rotation():
    ray = torch.cat([draw(7, 1, 50, 2), torch.ones(1, 50, 1).double()], dim=-1)
    found = lifter._turn_to(ray)
    unit = torch.nn.functional.normalize(ray, dim=-1)
    torch.testing.assert_close(found[..., 2], unit)
    identity = torch.eye(3).double().expand_as(found)
    torch.testing.assert_close(found @ found.mT, identity)
    torch.testing.assert_close(
        roma.rotmat_geodesic_distance(found, identity), unit[..., 2].acos(), atol=1e-6, rtol=0
    )


def test_turning_is_the_rate_of_the_crop_and_ignores_the_end():
    time = torch.arange(30, dtype=torch.float64)[:, None] / lifter.FPS
    rate = torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64)
    turns = roma.rotvec_to_rotmat(time * rate)[None]
    torch.testing.assert_close(lifter._turning(turns), rate.expand(1, 30, 3))
    torch.testing.assert_close(lifter._turning(turns[:, :1]), torch.zeros(1, 1, 3).double())


def some_view(people: int = 2, frames: int = 20) -> Crop:
    points, confidence, turns = person(8, people, frames)
    return crop(seen(points), confidence, turns)


def test_decoded_rows_are_rotations_unit_vectors_and_sigmas():
    view = some_view()
    found = decode(3 * draw(9, 2, 20, sum(lifter.WIDTHS)), view)
    identity = torch.eye(3).double().expand_as(found.rotations)
    torch.testing.assert_close(found.rotations @ found.rotations.mT, identity)
    torch.testing.assert_close(torch.linalg.det(found.rotations), identity[..., 0, 0])
    torch.testing.assert_close(found.up_cam.norm(dim=-1), torch.ones(2, 20).double())
    low, high = (math.exp(limit) for limit in lifter.SIGMA_RANGE)
    for sigma in (found.rotation_sigma, found.up_sigma, found.root_velocity_sigma,
                  found.log_depth_sigma):  # fmt: skip
        assert low * 0.999 <= float(sigma.min()) < float(sigma.max()) <= high * 1.001
    assert 0 <= float(found.contacts.min()) < float(found.contacts.max()) <= 1


def test_the_pelvis_projects_where_the_row_says():
    view = some_view()
    raw = draw(10, 2, 20, sum(lifter.WIDTHS))
    start = lifter.ROTATIONS + lifter.UP + lifter.VELOCITY
    place = raw[..., start : start + 3]
    found = decode(raw, view)
    local = (found.pelvis_cam[..., None, :] @ view.cam_from_crop)[..., 0, :]
    torch.testing.assert_close(seen(local), place[..., :2] * view.size[..., None])
    torch.testing.assert_close(local[..., 2], place[..., 2].exp() / view.size)


def test_root_and_vertical_turn_with_the_crop():
    view = some_view()
    raw = draw(11, 2, 20, sum(lifter.WIDTHS))
    straight = Crop(torch.eye(3).double().expand_as(view.cam_from_crop), view.size, view.features)
    turned, plain = decode(raw, view), decode(raw, straight)
    torch.testing.assert_close(
        turned.rotations[:, :, 0], view.cam_from_crop @ plain.rotations[:, :, 0]
    )
    torch.testing.assert_close(turned.rotations[:, :, 1:], plain.rotations[:, :, 1:])
    torch.testing.assert_close(
        turned.up_cam, (view.cam_from_crop @ plain.up_cam[..., None])[..., 0]
    )


def test_betas_are_the_mean_over_frames_in_which_somebody_is_seen():
    points, confidence, turns = person(12, 1, 10)
    confidence[:, 6:] = 0
    raw = draw(12, 1, 10, sum(lifter.WIDTHS))
    start = sum(lifter.WIDTHS[:5])
    found = decode(raw, crop(seen(points), confidence, turns)).betas
    torch.testing.assert_close(found, raw[:, :6, start : start + 10].mean(dim=1))


def test_weights_travel_through_a_file(tmp_path):
    torch.manual_seed(0)
    network = Lifter(16, (1, 2)).eval()
    save_weights(tmp_path / "own.safetensors", dict(network.state_dict()),
                 {"kind": "lifter", "dilations": [1, 2]})  # fmt: skip
    read, card = load_lifter(tmp_path / "own.safetensors")
    features = draw(13, 1, 12, lifter.FEATURES).float()
    torch.testing.assert_close(read(features), network(features))
    assert card["dilations"] == [1, 2]
    assert not read.training


def test_unusable_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="do not exist"):
        load_lifter(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError):
        load_lifter(tmp_path / "bad.safetensors")
    network = Lifter(16, (1, 2))
    tensors = dict(network.state_dict())
    for name, kind, dilations, missing in (
        ("other", "lifter", [1, 2], "head.weight"),
        ("fewer", "lifter", [1, 2], "norm.bias"),
        ("deeper", "lifter", [1, 2, 4], None),
        ("nodilations", "lifter", None, None),
    ):
        kept = {key: value for key, value in tensors.items() if key != missing}
        card = {"kind": kind} | ({"dilations": dilations} if dilations is not None else {})
        save_weights(tmp_path / f"{name}.safetensors", kept, card)
        with pytest.raises(CheckpointError):
            load_lifter(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("dilations", [[1, 0], [1, -2], [1, 65], [1, 2.0], [True, 2], [1, "2"]])
def test_a_card_with_impossible_dilations_is_refused(tmp_path, dilations):
    path = tmp_path / "own.safetensors"
    card = {"kind": "lifter", "dilations": dilations}
    save_weights(path, dict(Lifter(16, (1, 2)).state_dict()), card)
    with pytest.raises(CheckpointError, match="must be whole numbers from 1 to 64"):
        load_lifter(path)


def test_the_network_sees_people_apart_and_no_further_than_its_reach():
    torch.manual_seed(0)
    network = Lifter(16, (1, 2, 4)).eval()
    features = draw(14, 2, 40, lifter.FEATURES).float()
    both = network(features)
    torch.testing.assert_close(network(features[1:]), both[1:], atol=1e-5, rtol=1e-5)
    changed = features.clone()
    changed[:, 30:] += 1
    other = network(changed)
    torch.testing.assert_close(other[:, :23], both[:, :23])
    assert not torch.allclose(other[:, 23:30], both[:, 23:30])
