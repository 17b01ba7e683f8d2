"""WHAM's file written from truth, read, compared."""

import pickle
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from foreign_case import SIZE, Y_UP, Truth, check_poses, make_truth, only, pixels_off

from slamhmr.body import load_body, rest_points
from slamhmr.errors import InputError, MissingAsset
from slamhmr.init.wham_output import Options, initialise

THEIRS = (800.0, 800.0, 320.0, 240.0)  # hypot(640, 480), which is not in the file


def hips(truth: Truth, person: int) -> torch.Tensor:
    """Middle of the hips from the pelvis joint."""
    rest = rest_points(truth.body, truth.betas[person : person + 1])[0]
    return rest[[1, 2]].mean(dim=0) - rest[0]


def tracks(truth: Truth, parts: dict[int, tuple[int, list[int]]]) -> dict:
    """What yohanshin/WHAM@2b54f77 demo.py stores: of each id a person and its frames."""
    results: dict = defaultdict(dict)
    for name, (person, frames) in parts.items():
        body = truth.pose[person, frames]
        body = torch.cat([body, torch.zeros(len(frames), 2, 3)], dim=1).reshape(-1, 69)  # hands
        turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(name)))[0]
        yaw = roma.rotvec_to_rotmat(torch.tensor([0.0, float(turn[0, 0]), 0.0])).double()
        world = yaw @ Y_UP @ truth.world_from_root[person, frames]
        middle = truth.pelvis_world[person, frames]
        middle = (
            middle + (truth.world_from_root[person, frames] @ hips(truth, person)[:, None])[..., 0]
        )
        placed = (yaw @ Y_UP @ middle[..., None])[..., 0]
        pose = [roma.rotmat_to_rotvec(truth.root[person, frames]), body]
        pose_world = [roma.rotmat_to_rotvec(world), body]
        results[name]["pose"] = torch.cat(pose, dim=1).numpy()
        results[name]["trans"] = truth.transl(person, THEIRS)[frames]
        results[name]["pose_world"] = torch.cat(pose_world, dim=1).numpy()
        results[name]["trans_world"] = (placed - placed[0]).numpy()
        results[name]["betas"] = truth.betas[person].expand(len(frames), 10).numpy().copy()
        results[name]["verts"] = np.zeros((len(frames), 6890, 3), np.float32)
        results[name]["frame_ids"] = np.array(frames)
    return results


def write(path: Path, content: object) -> Options:
    with path.open("wb") as file:
        pickle.dump(content, file)
    return Options(path=str(path))


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smpl")


EVERYBODY = {4: (1, list(range(9))), 0: (0, list(range(9)))}


def test_a_round_trip_is_exact(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "wham_output.pkl", tracks(truth, EVERYBODY))
    found = initialise(truth.observations, truth.cameras, truth.body, options)
    check_poses(found, truth, [0, 1])
    for person in (0, 1):
        velocity = found.root_velocity[person, :-1]
        assert torch.allclose(velocity, truth.velocity(person), atol=1e-6)
    assert bool((found.root_velocity_sigma[:, :-1] == 0.2).all())
    assert bool((found.root_velocity_sigma[:, -1] > 1).all())
    assert found.up_cam is None
    assert found.contacts is None


def test_as_joblib_writes_it(truth: Truth, tmp_path: Path):
    joblib = pytest.importorskip("joblib", reason="package joblib is not installed")
    path = tmp_path / "wham_output.pkl"
    joblib.dump(tracks(truth, EVERYBODY), path)
    found = initialise(truth.observations, truth.cameras, truth.body, Options(path=str(path)))
    check_poses(found, truth, [0, 1])


def test_pieces_of_a_track_are_one_person(truth: Truth, tmp_path: Path):
    parts = {1: (0, [2, 3, 4]), 7: (1, list(range(9))), 8: (0, [6, 7])}
    options = write(tmp_path / "w.pkl", tracks(truth, parts))
    found = initialise(truth.observations, truth.cameras, truth.body, options)
    seen = [False, False, True, True, True, False, True, True, False]
    assert (found.confidence[0, :, 0] > 0).tolist() == seen
    assert found.valid[0].tolist() == [False, False, *[True] * 6, False]
    known = [2, 3, 4, 6, 7]
    assert torch.allclose(found.cam_from_root[0, known, :3, 3], truth.pelvis[0, known], atol=1e-6)
    assert torch.equal(found.cam_from_root[0, 0], found.cam_from_root[0, 2])
    sure = found.root_velocity_sigma[0, :, 0] < 1
    assert sure.tolist() == [False, False, True, True, False, False, True, False, False]


def test_a_video_that_begins_before_the_observations(truth: Truth, tmp_path: Path):
    content = tracks(truth, EVERYBODY)
    for track in content.values():
        track["frame_ids"] = track["frame_ids"] + 30
    options = write(tmp_path / "w.pkl", content)
    with pytest.raises(InputError, match=r"frames 30 to 38, the observations have 9.*\.first"):
        initialise(truth.observations, truth.cameras, truth.body, options)
    options = replace(options, first=30)
    found = initialise(truth.observations, truth.cameras, truth.body, options)
    check_poses(found, truth, [0, 1])


def test_another_body_stands_on_the_picture(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "w.pkl", tracks(truth, EVERYBODY))
    body = load_body()
    found = initialise(truth.observations, truth.cameras, body, options)
    boxes = truth.observations.boxes
    side = (boxes[..., 2:] - boxes[..., :2]).amax(dim=-1)
    assert float((pixels_off(found, truth, body) / side[..., None]).median()) < 0.03


def test_one_line_for_everything_wrong(truth: Truth, tmp_path: Path):
    def start(options: Options, observations=truth.observations):
        return initialise(observations, truth.cameras, truth.body, options)

    with pytest.raises(MissingAsset, match=r"'wham_output.pkl' is not in the sequence.*--save_pkl"):
        start(Options())
    with pytest.raises(MissingAsset, match="nowhere.pkl' does not exist"):
        start(Options(path=str(tmp_path / "nowhere.pkl")))
    path = tmp_path / "w.pkl"
    with pytest.raises(InputError, match="holds no tracks: no output of WHAM"):
        start(write(path, [1, 2]))
    with pytest.raises(InputError, match="lacks 'frame_ids'.*no output of WHAM"):
        start(write(path, {0: {"pose": np.zeros(3)}}))
    content = tracks(truth, EVERYBODY)
    content[0]["trans"] = content[0]["trans"][:-1]
    with pytest.raises(InputError, match=r"'trans' has shape \(8, 3\), expected \(9, 3\)"):
        start(write(path, content))
    options = write(path, tracks(truth, {0: EVERYBODY[0]}))
    with pytest.raises(InputError, match="person 2 of the observations is on none of its 1 tracks"):
        start(options)
    away = replace(truth.observations, keypoints=truth.observations.keypoints + 2.0 * SIZE[0])
    with pytest.raises(InputError, match="nobody matched: none of its 1 tracks"):
        start(options, away)
    alone = start(options, only(truth, 0))
    assert alone.person_id.tolist() == [1]


def test_a_payload_does_not_run(truth: Truth, tmp_path: Path):
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (ran,))

    options = write(tmp_path / "w.pkl", {0: Payload()})
    with pytest.raises(InputError, match="refused|asks for"):
        initialise(truth.observations, truth.cameras, truth.body, options)
    assert not ran.exists()
