"""Scoring a result file against a truth file: matching, gaps, scale, and refusing bad files."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from slamhmr import artifacts
from slamhmr.body import forward_points, load_body, transl_from_pelvis
from slamhmr.errors import InputError
from slamhmr.eval.protocols import evaluate, format_table
from slamhmr.types import Result

BODY = load_body()
FPS = 30.0
UPRIGHT = roma.rotvec_to_rotmat(torch.tensor([math.pi / 2, 0, 0], dtype=torch.float64))


def make_truth(frames: int = 64) -> Result:
    """Two people walk past a camera that moves along x; z up."""
    time = torch.arange(frames, dtype=torch.float64) / FPS
    pelvis = torch.zeros(2, frames, 3, dtype=torch.float64)
    pelvis[:, :, 0] = torch.stack([time, -0.5 * time + 1])
    pelvis[:, :, 1] = torch.tensor([[4.0], [6.0]])
    pelvis[:, :, 2] = 0.9 + 0.02 * torch.sin(8 * time)
    heading = roma.rotvec_to_rotmat(torch.stack([0 * time, 0 * time, 0.4 * torch.sin(time)], -1))
    pose = torch.zeros(2, frames, 63, dtype=torch.float64)
    pose[:, :, 0] = 0.4 * torch.sin(4 * time)
    pose[:, :, 3] = -0.4 * torch.sin(4 * time)
    camera = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    camera[:, :3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    camera[:, 0, 3], camera[:, 2, 3] = 0.3 * time, 1.5
    return pack(heading @ UPRIGHT, pelvis, pose, camera)


def pack(
    orient: torch.Tensor, pelvis: torch.Tensor, pose: torch.Tensor, camera: torch.Tensor
) -> Result:
    people, frames = pelvis.shape[:2]
    betas = torch.zeros(people, 10, dtype=torch.float64)
    root = orient.expand(people, frames, 3, 3)
    points, _ = forward_points(
        BODY, betas, root, pelvis, roma.rotvec_to_rotmat(pose.reshape(people, frames, 21, 3))
    )
    return Result(
        person_id=torch.arange(people) + 1,
        valid=torch.ones(people, frames, dtype=torch.bool),
        observed=torch.ones(people, frames, dtype=torch.bool),
        root_orient=roma.rotmat_to_rotvec(root),
        transl=transl_from_pelvis(BODY, betas, pelvis),
        body_pose=pose,
        betas=betas,
        joints=points[:, :, :24],
        contacts=torch.zeros(people, frames, 4, dtype=torch.float64),
        world_from_cam=camera,
        intrinsics=torch.tensor([500.0, 500.0, 320.0, 180.0], dtype=torch.float64).repeat(
            frames, 1
        ),
        image_size=(640, 360),
        fps=FPS,
        ground=torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64),
        scale=1.0,
        scale_std=float("nan"),
        body_model="default",
        gender=("neutral",) * people,
    )


def moved(result: Result, scale: float, tilt: float = 0.0) -> Result:
    """The same scene with another origin, heading and tilt, and everything further apart."""
    steps = torch.tensor([[0.0, 0.0, 0.7], [tilt, 0.0, 0.0]], dtype=torch.float64)
    heading, lean = roma.rotvec_to_rotmat(steps)
    turn = heading @ lean
    offset = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)
    pelvis = scale * result.joints[:, :, 0] @ turn.T + offset
    camera = result.world_from_cam.clone()
    camera[:, :3, :3] = turn @ camera[:, :3, :3]
    camera[:, :3, 3] = scale * camera[:, :3, 3] @ turn.T + offset
    orient = turn @ roma.rotvec_to_rotmat(result.root_orient)
    return pack(orient, pelvis, result.body_pose, camera)


def score(folder: Path, result: Result, truth: Result) -> dict:
    for name, value in (("result.npz", result), ("truth.npz", truth)):
        artifacts.save(folder / name, value, stamp={})
    return evaluate(folder / "result.npz", folder / "truth.npz")


def test_the_truth_itself_has_no_error(tmp_path: Path) -> None:
    scores = score(tmp_path, make_truth(), make_truth())
    for name in ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "accel_m_per_s2", "w_mpjpe100_mm",
                 "wa_mpjpe100_mm", "rte_percent", "roe_deg", "erve_mm_per_frame"):  # fmt: skip
        assert scores["overall"][name] == pytest.approx(0, abs=1e-4), name
    assert scores["scale_error"] == pytest.approx(0, abs=1e-9)
    assert scores["overall"]["coverage"] == 1
    assert scores["overall"]["frames"] == 128
    overall = scores["overall"]
    assert overall["jitter_10m_per_s3"] == overall["truth_jitter_10m_per_s3"] > 0.1
    json.dumps(artifacts.json_ready(scores))
    table = format_table(scores)
    assert "pa_mpjpe_mm" in table
    assert "2 as 2" in table


def test_another_world_frame_and_a_tilt_are_told_apart(tmp_path: Path) -> None:
    truth = make_truth()
    scores = score(tmp_path, moved(truth, 1.0, tilt=0.05), truth)
    assert scores["overall"]["w_mpjpe100_mm"] == pytest.approx(0, abs=1e-4)
    assert scores["overall"]["roe_deg"] == pytest.approx(0, abs=1e-4)
    assert scores["gravity_error_deg"] == pytest.approx(math.degrees(0.05))


def test_scale_error_from_the_camera_path(tmp_path: Path) -> None:
    truth = make_truth()
    scores = score(tmp_path, moved(truth, 1.1), truth)
    assert scores["scale_error"] == pytest.approx(0.1)
    assert scores["scale_measured_on"] == "camera path"
    assert scores["overall"]["rte_percent"] > 1
    assert scores["overall"]["mpjpe_mm"] == pytest.approx(0, abs=1e-4)  # bodies kept their size


def test_scale_error_of_a_static_camera_comes_from_the_people(tmp_path: Path) -> None:
    truth = make_truth()
    still = dataclasses.replace(truth, world_from_cam=truth.world_from_cam[:1].repeat(64, 1, 1))
    scores = score(tmp_path, moved(still, 0.8), still)
    assert scores["scale_error"] == pytest.approx(0.2, abs=1e-6)
    assert scores["scale_measured_on"] == "people's paths"


def test_people_are_matched_by_place_not_by_id(tmp_path: Path) -> None:
    truth = make_truth()
    order = torch.tensor([1, 0])
    fields = ("valid", "observed", "root_orient", "transl", "body_pose", "betas", "joints")
    swapped = {name: getattr(truth, name)[order] for name in fields}
    scores = score(tmp_path, dataclasses.replace(truth, **swapped), truth)
    assert [(p["truth_id"], p["result_id"]) for p in scores["people"]] == [(1, 2), (2, 1)]
    assert scores["overall"]["mpjpe_mm"] == pytest.approx(0, abs=1e-4)


def test_a_missed_and_an_invented_person_are_named(tmp_path: Path) -> None:
    truth = make_truth()
    ghost = truth.joints.clone()
    ghost[1, :, :, 1] += 20
    result = dataclasses.replace(truth, joints=ghost, person_id=torch.tensor([5, 9]))
    scores = score(tmp_path, result, truth)
    assert scores["missed"] == [2]
    assert scores["extra"] == [9]
    assert scores["overall"]["coverage"] == pytest.approx(0.5)
    assert "missed: person 2" in format_table(scores)


def test_gaps_cost_coverage_but_no_derivative_reaches_across_them(tmp_path: Path) -> None:
    truth = make_truth()
    valid = truth.valid.clone()
    valid[:, 20:35] = False
    joints = truth.joints.clone()
    joints[:, 20:35] = float("nan")
    scores = score(tmp_path, dataclasses.replace(truth, valid=valid, joints=joints), truth)
    overall = scores["overall"]
    assert overall["coverage"] == pytest.approx(49 / 64)
    own = score(tmp_path, truth, truth)["overall"]["truth_jitter_10m_per_s3"]
    assert overall["jitter_10m_per_s3"] == pytest.approx(own, rel=0.3)  # a jump would be 100 x it
    assert overall["w_mpjpe100_mm"] == pytest.approx(0, abs=1e-4)


def test_a_drift_is_seen_by_the_path_not_by_the_pose(tmp_path: Path) -> None:
    truth = make_truth()
    drift = torch.linspace(0, 1, 64, dtype=torch.float64)[:, None] * torch.tensor([0.0, 1, 0])
    orient = roma.rotvec_to_rotmat(truth.root_orient)
    result = pack(orient, truth.joints[:, :, 0] + drift, truth.body_pose, truth.world_from_cam)
    overall = score(tmp_path, result, truth)["overall"]
    assert overall["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-4)
    assert overall["w_mpjpe100_mm"] > 50
    assert overall["rte_percent"] > 1
    assert overall["erve_mm_per_frame"] == pytest.approx(1000 / 63, rel=1e-6)


def test_rte_of_a_person_who_stays_is_undefined(tmp_path: Path) -> None:
    truth = make_truth(20)  # less than a metre walked
    scores = score(tmp_path, truth, truth)
    assert scores["overall"]["rte_percent"] is None
    assert "-" in format_table(scores)


def in_pieces(result: Result, start: int, *, tied: bool, size: float = 1.0) -> Result:
    """The same, with what follows from `start` on turned, moved and further apart."""
    later = moved(result, size)
    fields = ("root_orient", "transl", "joints")
    mixed = {
        name: torch.cat([getattr(result, name)[:, :start], getattr(later, name)[:, start:]], dim=1)
        for name in fields
    }
    camera = torch.cat([result.world_from_cam[:start], later.world_from_cam[start:]])
    return dataclasses.replace(
        result,
        **mixed,
        world_from_cam=camera,
        segments=torch.tensor([start]),
        segment_tied=torch.tensor([tied]),
    )


def test_pieces_that_nobody_ties_are_scored_each_by_itself_and_it_is_said(tmp_path: Path) -> None:
    truth = make_truth(120)
    scores = score(tmp_path, in_pieces(truth, 50, tied=False), truth)
    overall = scores["overall"]
    for name in ("w_mpjpe100_mm", "wa_mpjpe100_mm", "rte_percent", "roe_deg", "erve_mm_per_frame"):
        assert overall[name] == pytest.approx(0, abs=1e-4), name
    assert overall["jitter_10m_per_s3"] == pytest.approx(overall["truth_jitter_10m_per_s3"])
    assert overall["coverage"] == 1
    assert scores["scale_error"] == pytest.approx(0, abs=1e-9)
    assert scores["apart"] == [50]
    assert "nobody ties the pieces from frame 50 on" in format_table(scores)


def test_scale_is_that_of_every_piece_by_itself(tmp_path: Path) -> None:
    truth = make_truth(120)
    scores = score(tmp_path, in_pieces(truth, 50, tied=False, size=1.2), truth)
    assert scores["scale_error"] == pytest.approx(0.2 * 70 / 120)
    assert scores["scale_measured_on"] == "camera path"


def test_pieces_that_are_tied_are_one_world(tmp_path: Path) -> None:
    truth = make_truth(120)
    scores = score(tmp_path, in_pieces(truth, 50, tied=True), truth)
    assert scores["overall"]["w_mpjpe100_mm"] > 500
    assert scores["overall"]["jitter_10m_per_s3"] > 100
    assert scores["apart"] == []
    assert "nobody ties" not in format_table(scores)


class TestBadFiles:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        for name in ("result.npz", "truth.npz"):
            artifacts.save(tmp_path / name, make_truth(20), stamp={})
        return tmp_path / "result.npz", tmp_path / "truth.npz"

    def rewrite(self, path: Path, **changes: np.ndarray | None) -> None:
        arrays = artifacts.read_arrays(path) | changes
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})

    def test_missing(self, files) -> None:
        with pytest.raises(InputError, match="does not exist"):
            evaluate(files[0].with_name("no.npz"), files[1])

    def test_truncated(self, files) -> None:
        files[0].write_bytes(files[0].read_bytes()[:5000])
        with pytest.raises(InputError, match="damaged"):
            evaluate(*files)

    def test_a_key_is_missing(self, files) -> None:
        self.rewrite(files[0], joints=None)
        with pytest.raises(InputError, match="lacks the key 'joints'"):
            evaluate(*files)

    def test_a_shape_is_wrong(self, files) -> None:
        self.rewrite(files[0], transl=np.zeros((2, 19, 3)))
        with pytest.raises(InputError, match="'transl' has shape"):
            evaluate(*files)

    def test_a_valid_frame_is_not_finite(self, files) -> None:
        joints = make_truth(20).joints.numpy()
        joints[0, 3] = np.nan
        self.rewrite(files[0], joints=joints)
        with pytest.raises(InputError, match="'joints' is not finite"):
            evaluate(*files)

    @pytest.mark.parametrize(
        ("starts", "tied", "words"),
        [
            ([0], [True], "'segments' must hold frames above 0, in order"),
            ([12, 7], [True, True], "'segments' must"),
            ([20], [True], "'segments' must"),
            ([7, 12], [False], "'segment_tied' must"),
        ],
    )
    def test_pieces_make_no_sense(self, files, starts, tied, words) -> None:
        self.rewrite(files[0], segments=np.array(starts), segment_tied=np.array(tied))
        with pytest.raises(InputError, match=words):
            evaluate(*files)

    def test_other_clips(self, files) -> None:
        artifacts.save(files[1], make_truth(21), stamp={})
        with pytest.raises(InputError, match="20 frames, .* has 21"):
            evaluate(*files)
        artifacts.save(files[1], dataclasses.replace(make_truth(20), fps=25.0), stamp={})
        with pytest.raises(InputError, match="30 fps, .* at 25"):
            evaluate(*files)

    def test_nobody_in_common(self, files) -> None:
        truth = make_truth(20)
        far = truth.joints + torch.tensor([0.0, 100.0, 0.0]).double()
        artifacts.save(files[0], dataclasses.replace(truth, joints=far), stamp={})
        with pytest.raises(InputError, match="nobody"):
            evaluate(*files)
