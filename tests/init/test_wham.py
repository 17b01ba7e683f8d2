"""The start from WHAM: what the network is given and what is made of its words, without weights."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from torch import Tensor
from wham_case import network_of_motion

from priors.checkpoints import save_weights
from priors.rotation6d import matrix_to_rows
from priors.wham import Clip, Prediction, Predictor, Start, Wham
from slamhmr.body import BodyModel, load_body
from slamhmr.errors import ConfigError, InputError, MissingAsset
from slamhmr.geometry import apply, invert, rigid
from slamhmr.init.wham import Options, initialise
from slamhmr.init.wham_start import MIDDLE, begin
from slamhmr.init.wham_tracks import tracks
from slamhmr.registry import backend
from slamhmr.scene import point_set
from slamhmr.skeleton import COCO_KEYPOINTS, CONTACT_POINTS, KEYPOINT_JOINT
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import CameraTrack, Initial, Observations

SPEC = SceneSpec(
    seed=1, frames=24, motion="walk", camera="follow", keypoint_noise=0.0, outliers=0.0,
    slam_rotation_deg=0.0, slam_drift=0.0, people=2,
)  # fmt: skip
ORDER = ["right_heel", "left_heel", "left_big_toe", "right_big_toe"]


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()


@pytest.fixture(scope="module")
def scene(body) -> Scene:
    return make_scene(SPEC, body)


@pytest.fixture(scope="module")
def seen(scene, body) -> tuple[Observations, CameraTrack]:
    return observe(scene, body, SPEC)


class Standing:
    """An initialiser that says: somebody stands upright 4 m before the camera, facing it."""

    @dataclass(frozen=True)
    class Options:
        """None."""

    @staticmethod
    def initialise(
        observations: Observations, cameras: CameraTrack, body: BodyModel, options: object
    ) -> Initial:
        people, frames = observations.confidence.shape[:2]
        facing = roma.rotvec_to_rotmat(torch.tensor([torch.pi, 0, 0], dtype=torch.float64))
        place = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
        return Initial(
            observations.person_id,
            rigid(facing, place).expand(people, frames, 4, 4),
            torch.zeros(people, frames, 21, 3, dtype=torch.float64),
            torch.zeros(people, body.shapedirs.shape[-1], dtype=torch.float64),
            torch.ones(people, frames, dtype=torch.bool),
        )


@pytest.fixture(autouse=True)
def quick_start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame's pose without waiting for a real initialiser."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("slamhmr.init.wham_start.backend", lambda kind, name: Standing)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Options whose checkpoint is the golden network, not read from disk."""
    monkeypatch.setattr("slamhmr.init.wham.load_wham", lambda _: (network_of_motion(), {}))
    (tmp_path / "filled.safetensors").touch()
    return Options(checkpoint=str(tmp_path / "filled.safetensors"))


def knowing(scene: Scene, body: BodyModel, monkeypatch: pytest.MonkeyPatch) -> list[Clip]:
    """A network that says the truth of a scene at 30 fps; returns the clips it was asked about."""
    network = Wham().eval().requires_grad_(False)  # all-zero corrections of the refiner
    for name, value in network.state_dict().items():
        if "refiner" in name:
            value.zero_()
    cam_from_world = invert(scene.world_from_cam)[None].expand(2, -1, -1, -1)
    root = cam_from_world[..., :3, :3] @ scene.root
    turned = torch.cat([root[:, :, None], scene.body_rotations], dim=2)
    hands = torch.eye(3, dtype=torch.float64).expand(*turned.shape[:2], 2, 3, 3)
    pose = matrix_to_rows(torch.cat([turned, hands], dim=2)).flatten(-2)
    places = [body.point_names.index(KEYPOINT_JOINT.get(n, n)) for n in COCO_KEYPOINTS]
    middle = scene.points[:, :, places][:, :, MIDDLE].mean(dim=2)
    in_camera = apply(cam_from_world, middle[:, :, None])[:, :, 0]
    down = roma.rotvec_to_rotmat(torch.tensor([torch.pi / 2, 0, 0], dtype=torch.float64))
    level = down.mT @ scene.root  # world z up -> y down
    step = torch.diff(middle, dim=1, prepend=middle[:, :1])
    before = torch.cat([scene.root[:, :1], scene.root], dim=1)
    velocity = (before[:, :-1].mT @ step[..., None])[..., 0]
    entries = matrix_to_rows(torch.cat([level[:, :1], level], dim=1))
    asked: list[Clip] = []

    def predict(self: Predictor, start: Start, clip: Clip, compat: str = "corrected") -> Prediction:
        asked.append(clip)
        people, frames = clip.masked.shape[:2]
        side = clip.keypoints[..., 36].double() * max(scene.spec.image_size)
        size = torch.tensor(scene.spec.image_size, dtype=torch.float64)
        corner = clip.keypoints[..., 34:36].double() * size.max() / 2  # centre less the middle
        f = scene.intrinsics[:, 0]
        s = 2 * f / (in_camera[..., 2] * side)
        offset = corner + size / 2 - scene.intrinsics[:, 2:]
        aside = in_camera[..., :2] - 2 * offset / (s * side)[..., None]
        camera = torch.cat([s[..., None], aside], dim=-1)
        order = [CONTACT_POINTS.index(name) for name in ORDER]
        return Prediction(
            torch.zeros(people, frames, 17, 3), torch.zeros(people, frames, 563),
            entries.float(), velocity.float(), pose.float(), torch.ones(people, frames, 10),
            camera.float(), 0.49 * scene.contacts[..., order].float(),
        )  # fmt: skip

    monkeypatch.setattr(Predictor, "predict", predict)
    monkeypatch.setattr(
        "slamhmr.init.wham.load_wham", lambda _: (network, {"contact_order": ORDER})
    )
    return asked


def test_a_network_that_says_the_truth_gives_the_truth(scene, seen, body, monkeypatch):
    """Pelvis from mid-hip, contacts in our order, the pelvis's velocity in the root's axes."""
    asked = knowing(scene, body, monkeypatch)
    initial = initialise(*seen, body, Options(checkpoint=__file__))
    cam_from_world = invert(scene.world_from_cam)[None].expand(2, -1, -1, -1)
    pelvis = apply(cam_from_world, scene.pelvis[:, :, None])[:, :, 0]
    torch.testing.assert_close(initial.cam_from_root[..., :3, 3], pelvis, rtol=0, atol=0.02)
    root = cam_from_world[..., :3, :3] @ scene.root
    torch.testing.assert_close(initial.cam_from_root[..., :3, :3], root, rtol=0, atol=1e-5)
    turned = roma.rotvec_to_rotmat(initial.body_pose)
    torch.testing.assert_close(turned, scene.body_rotations, rtol=0, atol=1e-5)
    assert initial.contacts is not None
    torch.testing.assert_close(initial.contacts, 0.49 * scene.contacts, rtol=0, atol=1e-6)
    step = torch.diff(scene.pelvis, dim=1) * SPEC.fps
    velocity = (scene.root[:, :-1].mT @ step[..., None])[..., 0]
    assert initial.root_velocity is not None
    error = initial.root_velocity[:, :-1] - velocity
    # The scene's bodies are not of the mean shape that the start has: hips some mm elsewhere.
    assert float(error.norm(dim=-1).max()) < 0.02
    assert len(asked) == 1
    assert float(point_set(body).size(initial.betas[0])) == 1.0


def test_every_number_is_finite_and_confidence_follows_what_is_seen(seen, body, filled):
    observations, cameras = seen
    confidence = observations.confidence.clone()
    confidence[0, :3] = 0.0
    confidence[0, 10:14] = 0.0
    initial = initialise(replace(observations, confidence=confidence), cameras, body, filled)
    for name, value in vars(initial).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            assert bool(torch.isfinite(value).all()), name
    assert torch.equal(initial.valid[0], torch.arange(SPEC.frames) >= 3)
    assert bool(initial.valid[1].all())
    assert initial.confidence is not None
    assert initial.contacts is not None
    assert float(initial.confidence[0, 10:14].max()) == 0.0
    assert float(initial.confidence[0, 4:10].min()) == 1.0
    assert float(initial.contacts.min()) >= 0.0
    assert float(initial.contacts.max()) <= 1.0


def test_people_who_enter_late_get_the_cameras_of_their_own_frames(seen, body):
    """The official demo gives everybody the camera's rotations from frame 0."""
    observations, cameras = seen
    confidence = observations.confidence.clone()
    confidence[0, :9] = 0.0
    found = tracks(replace(observations, confidence=confidence), cameras, 6, None, ())
    assert found[0].rows[0] == 9
    expected = cameras.world_from_cam[9:, :3, :3].mT
    torch.testing.assert_close(found[0].cam_from_world, expected)
    whole = found[1].clip(SPEC.image_size).camera_velocity
    own = found[0].clip(SPEC.image_size).camera_velocity
    torch.testing.assert_close(own, whole[:, 9:], rtol=0, atol=1e-4)


def test_gaps_are_filled_and_masked_not_left_out(seen):
    observations, cameras = seen
    confidence = observations.confidence.clone()
    confidence[0, 8:12] = 0.0
    track = tracks(replace(observations, confidence=confidence), cameras, 6, None, ())[0]
    assert len(track.at) == SPEC.frames
    clip = track.clip(SPEC.image_size)
    assert bool(clip.masked[0, 8:12].all())
    assert bool(torch.isfinite(clip.keypoints).all())
    assert not bool(clip.masked[0, 7].any())


@pytest.mark.parametrize("fps", [15.0, 60.0, 25.0])
def test_other_frame_rates_are_resampled_to_thirty(seen, body, filled, fps):
    observations, cameras = seen
    times = torch.arange(SPEC.frames, dtype=torch.float64) / fps
    other = replace(observations, fps=fps, timestamps=times)
    track = tracks(other, cameras, 6, None, ())[0]
    assert abs(len(track.at) - 1 - float(times[-1]) * 30) < 0.51
    torch.testing.assert_close(track.at[1] - track.at[0], torch.tensor(fps / 30).double())
    initial = initialise(other, cameras, body, filled)
    assert initial.root_velocity is not None
    assert bool(torch.isfinite(initial.root_velocity).all())
    assert initial.cam_from_root.shape == (2, SPEC.frames, 4, 4)


def test_shots_are_clips_of_their_own(seen, body, monkeypatch, filled):
    observations, cameras = seen
    found = tracks(observations, cameras, 6, None, (10,))
    assert [(t.person, int(t.rows[0]), len(t.rows)) for t in found] == [
        (0, 0, 10), (0, 10, 14), (1, 0, 10), (1, 10, 14),
    ]  # fmt: skip
    whole = initialise(observations, cameras, body, filled, cuts=(10,))
    front = initialise(cut(observations, 10), cut_cameras(cameras, 10), body, filled)
    torch.testing.assert_close(
        whole.cam_from_root[:, :10], front.cam_from_root, rtol=1e-4, atol=1e-4
    )


def cut(observations: Observations, count: int) -> Observations:
    return replace(
        observations, keypoints=observations.keypoints[:, :count],
        confidence=observations.confidence[:, :count], boxes=observations.boxes[:, :count],
        timestamps=observations.timestamps[:count],
    )  # fmt: skip


def cut_cameras(cameras: CameraTrack, count: int) -> CameraTrack:
    return replace(
        cameras, world_from_cam=cameras.world_from_cam[:count],
        intrinsics=cameras.intrinsics[:count], points=None, covariance=None,
    )  # fmt: skip


def test_features_and_the_mirror_image_are_used(seen, body, filled, tmp_path, caplog):
    rng = np.random.default_rng(0)
    path = tmp_path / "features.npz"
    shape = (2, SPEC.frames, 1024)
    arrays = {"features": rng.normal(size=shape), "features_mirrored": rng.normal(size=shape)}
    np.savez(path, **arrays)
    plain = initialise(*seen, body, filled)
    assert "without image features" in caplog.text
    results: list[Initial] = [plain]
    for flip in (False, True):
        results.append(initialise(*seen, body, replace(filled, features=str(path), flip=flip)))
    results.append(initialise(*seen, body, replace(filled, flip=True)))
    for index, one in enumerate(results):
        for other in results[index + 1 :]:
            assert float((one.body_pose - other.body_pose).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"wrong": np.zeros((2, 24, 1024))}, "no npz file with features"),
        ({"features": np.zeros((2, 23, 1024))}, r"have shape \(2, 23, 1024\)"),
        ({"features": np.zeros((24, 1024))}, r"have shape \(24, 1024\)"),
        ({"features": np.full((2, 24, 1024), np.nan)}, "not finite"),
    ],
)
def test_unusable_features_are_refused(seen, body, filled, tmp_path, arrays, says):
    path = tmp_path / "features.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=says):
        initialise(*seen, body, replace(filled, features=str(path)))


def test_contacts_need_an_order_of_the_four_points(seen, body, filled, caplog):
    initialise(*seen, body, filled)
    assert "order of WHAM's contacts assumed" in caplog.text
    with pytest.raises(ConfigError, match="must be an order of"):
        initialise(*seen, body, replace(filled, contact_order=("left_heel",) * 4))


def test_missing_weights_say_where_to_get_them(seen, body, tmp_path):
    for checkpoint in ("", str(tmp_path / "none.safetensors"), str(tmp_path / "wham.pth.tar")):
        with pytest.raises(MissingAsset, match="slamhmr convert") as caught:
            initialise(*seen, body, Options(checkpoint=checkpoint))
        assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(seen, body, tmp_path):
    path = tmp_path / "other.safetensors"
    save_weights(path, {"fc.weight": torch.zeros(2, 2)}, {})
    with pytest.raises(MissingAsset, match="'mask_embedding' is missing"):
        initialise(*seen, body, Options(checkpoint=str(path)))


def test_people_never_seen_are_refused(seen, body, filled):
    observations, cameras = seen
    confidence = observations.confidence.clone()
    confidence[1] = 0.2
    with pytest.raises(InputError, match="person 2 has no frame"):
        initialise(replace(observations, confidence=confidence), cameras, body, filled)


@pytest.mark.slow
def test_the_geometric_start_gives_the_first_frame(scene, seen, body, monkeypatch, filled):
    """Near the truth in pose, up and 3D keypoints, and level: the root of an upright walker."""
    observations, cameras = seen
    track = tracks(observations, cameras, 6, None, ())[0]
    _, start = begin(track, observations, cameras, body, "geometric")
    root = scene.world_from_cam[0, :3, :3].mT @ scene.root[0, 0]
    assert float(roma.rotmat_geodesic_distance(start.pose[0], root)) < 0.3
    # Body y against gravity is -y in the level y-down world.
    tilt = torch.arccos(-(start.root[1, 1]).clamp(-1, 1))
    true = torch.arccos(scene.root[0, 0, 2, 1].clamp(-1, 1))
    assert abs(float(tilt - true)) < 0.15
    assert bool(torch.isfinite(initialise(*seen, body, filled).cam_from_root).all())


def test_wham_is_registered():
    assert backend("init", "wham").initialise is initialise
