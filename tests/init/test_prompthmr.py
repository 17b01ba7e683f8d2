"""PromptHMR's file written from truth, read, compared."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from foreign_case import Y_UP, Truth, check_poses, make_truth

from slamhmr.errors import InputError, MissingAsset
from slamhmr.init.prompthmr import Options, initialise

SHRUNK = 0.5  # pictures above 896 px in height are made smaller


def results(truth: Truth, parts: dict[int, tuple[int, list[int]]]) -> dict:
    """What yufu-wang/PromptHMR@d8f4031 pipeline/pipeline.py dumps with `save_only_essential`."""
    lens = (640.0, 640.0, 320.0, 240.0)  # in px of our pictures
    frames = truth.pose.shape[1]
    people = {}
    for name, (person, seen) in parts.items():
        turns = torch.eye(3).repeat(len(seen), 55, 1, 1).double()
        turns[:, 0] = truth.root[person, seen]
        turns[:, 1:22] = roma.rotvec_to_rotmat(truth.pose[person, seen])
        people[name] = {
            "track_id": name,
            "frames": np.array(seen),
            "bboxes": np.zeros((len(seen), 4)),
            "smplx_cam": {
                "rotmat": turns.numpy(),
                "pose": np.zeros((len(seen), 75)),
                "shape": truth.betas[person].expand(len(seen), 10).numpy().copy(),
                "trans": truth.transl(person, lens)[seen],
                "contact": np.zeros((len(seen), 6), dtype=bool),
                "static_conf_logits": np.full((len(seen), 6), 2.0, np.float32),
            },
        }
    world_from_cam = Y_UP @ truth.cameras.world_from_cam[:, :3, :3]
    return {
        "camera": {
            "pred_cam_R": np.eye(3)[None].repeat(frames, axis=0),
            "pred_cam_T": np.zeros((frames, 3)),
            "img_focal": np.float64(lens[0] * SHRUNK),
            "img_center": np.array(lens[2:]) * SHRUNK,
        },
        "people": people,
        "timings": {},
        "has_hps_cam": True,
        "contact_joint_ids": [7, 10, 8, 11, 20, 21],
        "spec_calib": {"first_frame": {"pitch": 0.1, "roll": 0.0}},
        "camera_world": {"Rcw": world_from_cam.mT.numpy()},
    }


def write(path: Path, content: object) -> Options:
    with path.open("wb") as file:
        pickle.dump(content, file)
    return Options(path=str(path))


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smplx")


EVERYBODY = {1: (1, list(range(9))), 2: (0, list(range(9)))}


def test_a_round_trip_is_exact(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "results.pkl", results(truth, EVERYBODY))
    found = initialise(truth.observations, truth.cameras, truth.body, options)
    check_poses(found, truth, [0, 1])
    assert torch.allclose(found.up_cam, truth.up().expand(2, -1, -1), atol=1e-6)
    assert bool((found.up_sigma == 0.15).all())
    still = torch.full_like(found.contacts, float(torch.sigmoid(torch.tensor(2.0))))
    assert torch.allclose(found.contacts, still, atol=1e-6)
    assert found.root_velocity is None


def test_nothing_is_said_of_gravity_that_was_not_estimated(truth: Truth, tmp_path: Path):
    content = results(truth, EVERYBODY)
    del content["spec_calib"]
    options = write(tmp_path / "r.pkl", content)
    found = initialise(truth.observations, truth.cameras, truth.body, options)
    assert found.up_cam is None


def test_part_of_a_video_in_which_somebody_never_is(truth: Truth, tmp_path: Path):
    parts = {**EVERYBODY, 3: (0, [0, 1])}
    content = results(truth, parts)
    options = write(tmp_path / "r.pkl", content)
    seen = truth.observations
    part = replace(
        seen,
        keypoints=seen.keypoints[:, 2:],
        confidence=seen.confidence[:, 2:],
        boxes=seen.boxes[:, 2:],
        timestamps=seen.timestamps[2:],
    )
    cameras = replace(
        truth.cameras,
        world_from_cam=truth.cameras.world_from_cam[2:],
        intrinsics=truth.cameras.intrinsics[2:],
    )
    found = initialise(part, cameras, truth.body, replace(options, first=2))
    assert torch.allclose(found.cam_from_root[..., :3, 3], truth.pelvis[:, 2:], atol=1e-6)
    assert torch.allclose(found.up_cam[0], truth.up()[2:], atol=1e-6)


def test_one_line_for_everything_wrong(truth: Truth, tmp_path: Path):
    def start(options: Options):
        return initialise(truth.observations, truth.cameras, truth.body, options)

    with pytest.raises(MissingAsset, match="'results.pkl' is not in the sequence directory"):
        start(Options())
    path = tmp_path / "r.pkl"
    with pytest.raises(InputError, match="has no 'people': no output of PromptHMR"):
        start(write(path, {"camera": {}}))
    content = results(truth, EVERYBODY)
    del content["people"][1]["smplx_cam"]["rotmat"]
    with pytest.raises(InputError, match="lacks 'rotmat'.*no output of PromptHMR"):
        start(write(path, content))
    content = results(truth, EVERYBODY)
    content["people"][1]["smplx_cam"]["rotmat"] *= 2
    with pytest.raises(InputError, match="'rotmat' holds matrices that are no rotations"):
        start(write(path, content))
    content = results(truth, EVERYBODY)
    content["camera"]["pred_cam_R"] = content["camera"]["pred_cam_R"][::2]
    del content["spec_calib"]
    with pytest.raises(InputError, match="5 frames, the observations have 9"):
        start(write(path, content))
    content = results(truth, {1: EVERYBODY[1]})
    with pytest.raises(InputError, match="person 1 of the observations is on none of its 1 tracks"):
        start(write(path, content))


def test_a_payload_does_not_run(truth: Truth, tmp_path: Path):
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (ran,))

    options = write(tmp_path / "results.pkl", results(truth, EVERYBODY) | {"timings": Payload()})
    with pytest.raises(InputError, match="refused|asks for"):
        initialise(truth.observations, truth.cameras, truth.body, options)
    assert not ran.exists()
