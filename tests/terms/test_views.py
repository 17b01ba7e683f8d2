"""Keypoints of further cameras in the reprojection term: values, derivatives, parts."""

from dataclasses import replace

import pytest
import roma
import synthetic
import torch

from slamhmr.features import person_features
from slamhmr.scene import ViewEvidence
from slamhmr.terms.data import ReprojectionSettings, reprojection

FRAMES = 5


def rigged(evidence, generator):
    """The same evidence with two more cameras, a metre aside and turned."""
    views = []
    for side in (-1.0, 1.0):
        turn = torch.tensor([0.05, -0.2 * side, 0.1]).double().expand(FRAMES, 3)
        turn = turn + 0.02 * torch.randn(FRAMES, 3, generator=generator, dtype=torch.float64)
        shift = torch.tensor([side, 0.1, 0.3]).double().expand(FRAMES, 3).clone()
        noise = torch.randn(evidence.keypoints.shape, generator=generator, dtype=torch.float64)
        kept = slice(0, 12) if side > 0 else slice(0, None)  # cameras may know other keypoints
        views.append(
            ViewEvidence(
                (evidence.keypoints + 20 * noise)[:, kept],
                evidence.confidence[:, kept],
                evidence.keypoint_points[kept],
                1.3 * evidence.size_px,
                roma.rotvec_to_rotmat(turn),
                shift,
                evidence.intrinsics * 0.9,
            )
        )
    return replace(evidence, views=tuple(views))


@pytest.fixture
def rig():
    scene, evidence, points = synthetic.make_scene(frames=FRAMES, people=2)
    generator = torch.Generator().manual_seed(5)
    layout = synthetic.layout()
    free = replace(layout.free, focal=False, drift=0, offsets=0)
    scene = replace(scene, offsets=None)
    return scene, [rigged(e, generator) for e in evidence], points, replace(layout, free=free)


def test_derivative_with_views_against_finite_differences(rig):
    scene, evidence, points, layout = rig
    features = person_features(points, evidence[0], layout, scene, 0)
    settings, step = ReprojectionSettings(), 1e-6
    found = reprojection(features, settings, True)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        direction = torch.randn(features.anchored.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (
            reprojection(
                replace(features, anchored=features.anchored + h * direction), settings, False
            ).value
            for h in (step, -step)
        )
        numeric = (ahead - behind) / (2 * step)
        closed = found.derivative[0] @ direction[:, found.elements, :, None]
        torch.testing.assert_close(closed[..., 0], numeric, rtol=1e-5, atol=1e-4)
    assert found.derivative.shape[2] == evidence[0].keypoint_count


def test_values_are_those_of_every_camera_by_itself(rig):
    """A naive twin: each camera's own pose, point by point."""
    scene, evidence, points, layout = rig
    known, settings = evidence[0], ReprojectionSettings()
    features = person_features(points, known, layout, scene, 0)
    found = reprojection(features, settings, False)
    column = len(known.keypoint_points)
    for view in known.views:
        for k, place in enumerate(view.keypoint_points.tolist()):
            for t in range(FRAMES):
                main = features.cam_from_world[t] @ features.anchored[t, place]
                x, y, z = (view.rotation[t] @ main + view.translation[t]).tolist()
                fx, fy, cx, cy = view.intrinsics[t].tolist()
                image = torch.tensor([fx * x / z + cx, fy * y / z + cy], dtype=torch.float64)
                off = (image - view.keypoints[t, k]) / (settings.sigma * view.size_px[t])
                torch.testing.assert_close(found.value[t, column], off)
            assert int(found.elements[column]) == place
            column += 1
    assert column == known.keypoint_count == found.value.shape[1]


def test_a_part_of_the_evidence_holds_the_same_frames_of_every_view(rig):
    known = rig[1][0]
    part = known.part(1, 4)
    for view, whole in zip(part.views, known.views, strict=True):
        assert torch.equal(view.keypoints, whole.keypoints[1:4])
        assert torch.equal(view.translation, whole.translation[1:4])
        assert view.intrinsics.shape == (3, 4)
