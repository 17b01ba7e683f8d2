"""Random cameras: what they see is the projection of the truth that comes with it."""

import pytest
import torch
from recordings import rig, write_recordings

from priors.training import filming
from priors.training.clips import Windows, read_library, sample_windows
from priors.training.filming import Footage, film

RIG = rig()


@pytest.fixture(scope="module")
def windows(tmp_path_factory) -> Windows:
    folder = tmp_path_factory.mktemp("motions")
    write_recordings(folder)
    return sample_windows(read_library(folder), 40, 50, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def footage(windows) -> Footage:
    return film(windows, RIG, torch.Generator().manual_seed(1))


def test_bearings_are_the_projection_of_the_truth(footage):
    """Up to what is wrong with the stated focal length, one factor for each window."""
    points = (footage.points_cam + footage.pelvis_cam[:, :, None])[:, :, RIG.keypoints]
    exact = points[..., :2] / points[..., 2:]
    seen = footage.inside
    assert bool((points[..., 2][seen] > filming.NEAREST).all())
    for window in range(len(seen)):
        kept = seen[window]
        if not bool(kept.any()):
            continue
        found, true = footage.bearings[window][kept], exact[window][kept]
        factor = float((found * true).sum() / (true * true).sum())
        assert abs(factor - 1) < 5 * filming.FOCAL_ERROR
        torch.testing.assert_close(found, factor * true, atol=1e-5, rtol=1e-4)


def test_points_in_the_camera_are_those_of_the_posed_body(footage):
    points, _ = RIG.forward(RIG.rest(footage.betas), footage.rotations_cam)
    torch.testing.assert_close(points, footage.points_cam, atol=1e-4, rtol=0)
    torch.testing.assert_close(footage.rest, RIG.rest(footage.betas))


def test_the_true_cameras_lead_from_the_camera_to_the_recording(footage):
    root = footage.true_world_from_cam @ footage.rotations_cam[:, :, 0]
    torch.testing.assert_close(root, footage.windows.rotations[:, :, 0], atol=1e-5, rtol=0)
    identity = torch.eye(3).expand_as(root)
    torch.testing.assert_close(
        footage.true_world_from_cam @ footage.true_world_from_cam.mT, identity, atol=1e-5, rtol=0
    )


def test_velocities_integrate_to_the_path_of_the_pelvis(windows, footage):
    step = (windows.rotations[:, :, 0] @ footage.root_velocity[..., None])[..., 0] / 30
    path = windows.pelvis[:, :1] + torch.cumsum(step, dim=1)
    torch.testing.assert_close(path[:, :-1], windows.pelvis[:, 1:], atol=1e-4, rtol=0)
    assert torch.equal(footage.root_velocity[:, -1], footage.root_velocity[:, -2])


def test_camera_paths_differ_and_people_are_mostly_in_the_picture(footage):
    moved = (footage.true_world_from_cam[:, 1:] - footage.true_world_from_cam[:, :-1]).abs()
    still = moved.amax(dim=(1, 2, 3)) < 1e-6
    assert 0.1 < float(still.float().mean()) < 0.6
    present = footage.windows.present[..., None].expand_as(footage.inside)
    assert 0.5 < float(footage.inside[present].float().mean()) < 1
    assert not bool(footage.inside[~present].any())
    distance = footage.pelvis_cam.norm(dim=-1)
    assert 0.3 < float(distance.min()) < float(distance.max()) < 40


def test_stated_rotations_are_nearly_true(footage):
    trace = (footage.world_from_cam.mT @ footage.true_world_from_cam).diagonal(dim1=-2, dim2=-1)
    angle = torch.rad2deg(torch.acos(((trace.sum(dim=-1) - 1) / 2).clamp(-1, 1)))
    assert 0.05 < float(angle.mean()) < 0.3


def test_some_people_are_children_or_giants():
    betas = filming._shapes(4000, RIG, torch.Generator().manual_seed(5))
    size = RIG.size(betas)
    assert float(size.min()) < 0.62
    assert float(size.max()) > 1.18
    small = float((size < 0.8).float().mean())
    assert small == pytest.approx(filming.RARE_SHARE * 0.23 / 0.63, rel=0.25)
    assert abs(float(size.median()) - 1) < 0.02
