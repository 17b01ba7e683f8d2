"""TCMR as a start: the file of features, placement off the axis, gaps and cuts."""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from filler import fill_module
from torch import Tensor

from priors.checkpoints import save_weights
from priors.tcmr import TCMR, Estimate
from slamhmr.body import BodyModel, forward_points, load_body
from slamhmr.errors import InputError, MissingAsset
from slamhmr.geometry import project, rotation_between
from slamhmr.init import tcmr
from slamhmr.registry import backend
from slamhmr.types import CameraTrack, Initial, Observations

FRAMES = 20
INTRINSICS = torch.tensor([1000.0, 1000.0, 960.0, 540.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


@pytest.fixture(scope="module")
def network() -> TCMR:
    """Filler weights about an upright pose and a camera of scale 0.9."""
    network = fill_module(TCMR()).requires_grad_(False)
    network.regressor.init_pose += torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(24)
    network.regressor.init_cam += torch.tensor([0.9, 0, 0])
    return network


@pytest.fixture
def options(network: TCMR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tcmr.Options:
    """Features of two people; the network is not read from disk (330 MB) but handed over."""
    monkeypatch.setattr(tcmr, "load_tcmr", lambda _: network)
    (tmp_path / "tcmr.safetensors").touch()
    return tcmr.Options(
        checkpoint=str(tmp_path / "tcmr.safetensors"), features=str(write(tmp_path))
    )


def arrays() -> dict[str, np.ndarray]:
    features = np.random.default_rng(0).random((2, FRAMES, 2048), dtype=np.float32)
    crops = np.tile([400.0, 500.0, 300.0], (2, FRAMES, 1))
    return {"person_id": np.array([5, 9]), "features": features, "crops": crops}


def write(folder: Path, **changes: np.ndarray) -> Path:
    np.savez(folder / "features.npz", **(arrays() | changes))
    return folder / "features.npz"


def observed(person_id: tuple[int, ...] = (9, 5), fps: float = 30.0) -> Observations:
    count = len(person_id)
    return Observations(
        person_id=torch.tensor(person_id),
        keypoints=torch.zeros(count, FRAMES, 1, 2, dtype=torch.float64),
        confidence=torch.ones(count, FRAMES, 1, dtype=torch.float64),
        keypoint_names=("nose",),
        boxes=torch.full((count, FRAMES, 4), torch.nan, dtype=torch.float64),
        image_size=(1920, 1080),
        fps=fps,
        timestamps=torch.arange(FRAMES, dtype=torch.float64) / fps,
    )


CAMERAS = CameraTrack(
    world_from_cam=torch.eye(4, dtype=torch.float64).expand(FRAMES, 4, 4).clone(),
    intrinsics=INTRINSICS.expand(FRAMES, 4).clone(),
    image_size=(1920, 1080),
    scale_known=False,
    moving=False,
    source="static",
)


def start(
    options: tcmr.Options, body: BodyModel, cuts: tuple[int, ...] = (), fps: float = 30.0
) -> Initial:
    return tcmr.initialise(observed(fps=fps), CAMERAS, body, options, cuts=cuts)


def test_it_is_registered():
    assert backend("init", "tcmr") is tcmr


def test_people_come_in_the_order_of_the_observations(options, body, network):
    initial = start(options, body)
    assert initial.person_id.tolist() == [9, 5]
    assert bool(initial.valid.all())
    expected = network.clip(torch.from_numpy(arrays()["features"][1]))
    turned = roma.rotvec_to_rotmat(initial.body_pose[0])
    torch.testing.assert_close(turned, expected.rotations[:, 1:22].double(), rtol=0, atol=1e-5)
    assert float(initial.betas.abs().max()) == 0  # TCMR's shape means nothing on another body


def test_the_crop_is_looked_at_along_its_ray(options, body, network):
    """Straight at the crop's centre with the camera's own rotation, the crop is centred."""
    ray = torch.tensor([400.0 - 960, 500 - 540, 1000], dtype=torch.float64) / 1000
    cam_from_crop = rotation_between(torch.tensor([0.0, 0, 1]).double(), ray)
    estimate = network.clip(torch.from_numpy(arrays()["features"][1]))
    expected = cam_from_crop @ estimate.rotations[:, 0].double()
    initial = start(options, body)
    torch.testing.assert_close(initial.cam_from_root[0, :, :3, :3], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("centre", [(960.0, 540.0), (300.0, 540.0), (960.0, 900.0)])
def test_a_person_lands_in_the_middle_of_the_crop_at_its_size(centre, body):
    """Two thirds of the crop for a person of 1.7 m seen with s = 0.8 wherever the crop is."""
    upright = roma.rotvec_to_rotmat(torch.tensor([torch.pi, 0, 0], dtype=torch.float64))
    turns = torch.eye(3, dtype=torch.float64).repeat(1, 24, 1, 1)
    turns[:, 0] = upright
    camera = torch.tensor([[0.8, 0.0, 0.0]], dtype=torch.float64)
    estimate = Estimate(camera, turns, torch.zeros(1, 10, dtype=torch.float64))
    crop = torch.tensor([[*centre, 400.0]], dtype=torch.float64)
    placed = tcmr._place(estimate, crop, INTRINSICS[None], torch.zeros(3, dtype=torch.float64))
    zero = torch.zeros(1, 10, dtype=torch.float64)
    points, _ = forward_points(
        body, zero, placed[None, :, :3, :3], placed[None, :, :3, 3], turns[None, :, 1:22]
    )
    names = list(body.point_names)
    ends = points[0, :, [names.index("left_ankle"), names.index("head")]]
    pixels = project(ends, INTRINSICS[None])[0]
    pelvis = project(placed[None, :, :3, 3], INTRINSICS[None])[0, 0]
    torch.testing.assert_close(pelvis, crop[0, :2], rtol=0, atol=1e-6)
    height = float((ends[0, 0] - ends[0, 1]).norm())
    expected = 0.8 * height / 2 * 400
    assert float((pixels[0] - pixels[1]).norm()) == pytest.approx(expected, rel=0.12)


def test_gaps_hold_the_nearest_frame_of_the_shot(tmp_path, options, body, network):
    features = arrays()["features"]
    features[0, 6:12] = np.nan
    features[0, 17:] = np.nan
    write(tmp_path, features=features)
    initial = start(options, body, cuts=(10,))
    seen = torch.ones(FRAMES, dtype=torch.bool)
    seen[6:12] = seen[17:] = False
    assert torch.equal(initial.confidence[1] > 0, seen[:, None].expand(-1, 22))
    assert initial.valid[1].tolist() == [True] * 17 + [False] * 3
    pose = initial.body_pose[1]
    assert torch.equal(pose[9], pose[5])  # before the cut, although frame 12 is nearer than 5
    assert torch.equal(pose[10], pose[12])
    assert torch.equal(pose[19], pose[16])
    alone = network.clip(torch.from_numpy(features[0, 12:17]))  # a run is a clip of its own
    expected = roma.rotmat_to_rotvec(alone.rotations[:, 1:22].double())
    torch.testing.assert_close(pose[12:17], expected, rtol=0, atol=1e-4)


def test_faster_clips_are_seen_at_the_trained_rate(options, body, network):
    initial = start(options, body, fps=60.0)
    expected = network.clip(torch.from_numpy(arrays()["features"][1]), stride=2)
    turned = roma.rotvec_to_rotmat(initial.body_pose[0])
    torch.testing.assert_close(turned, expected.rotations[:, 1:22].double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"features": np.zeros((2, FRAMES, 1024), np.float32)},
            r"'features' is float32 \(2, 20, 1024\)",
        ),
        ({"features": np.zeros((2, 7, 2048), np.float32)}, "expected floats"),
        ({"features": np.zeros((2, FRAMES, 2048), int)}, "'features' is int64"),
        ({"features": np.full((2, FRAMES, 2048), np.nan, np.float32)}, "features in no frame"),
        ({"crops": np.zeros((2, FRAMES, 3))}, "a side above 0 px"),
        ({"crops": np.full((2, FRAMES, 3), np.nan)}, "person 9, frame 0"),
        ({"person_id": np.array([5, 7])}, r"lacks \[9\]"),
    ],
)
def test_wrong_features_are_one_line(tmp_path, options, body, changes, words):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=words) as error:
        start(options, body)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named(tmp_path: Path, body: BodyModel):
    with pytest.raises(MissingAsset, match=r"options.tcmr.features=FILE.npz") as both:
        start(tcmr.Options(), body)
    assert "slamhmr convert" in str(both.value)
    with pytest.raises(MissingAsset, match="none.npz' does not exist"):
        start(tcmr.Options(features=str(tmp_path / "none.npz")), body)
    features = str(write(tmp_path))
    with pytest.raises(MissingAsset, match="slamhmr convert"):
        start(tcmr.Options(features=features), body)
    save_weights(tmp_path / "x.safetensors", {"a": Tensor([1.0])}, {})
    other = tcmr.Options(features=features, checkpoint=str(tmp_path / "x.safetensors"))
    with pytest.raises(MissingAsset, match="is missing"):
        start(other, body)
    np.savez(tmp_path / "features.npz", person_id=np.array([5, 9]))
    with pytest.raises(InputError, match="lacks 'features'"):
        start(other, body)
