"""HMR2's bodies in PHALP's track file written from truth, read, compared."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_case import Truth, check_poses, make_truth, only, pixels_off
from phalp_case import phalp_frames, write_phalp

from slamhmr.body import load_body
from slamhmr.errors import InputError, MissingAsset
from slamhmr.init.hmr2 import Options, initialise


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smpl")


def options_of(path: Path, content: dict) -> Options:
    return Options(path=str(write_phalp(path, content)))


def test_a_round_trip_is_exact(truth: Truth, tmp_path: Path):
    options = options_of(tmp_path / "demo_v.pkl", phalp_frames(truth))
    found = initialise(truth.observations, truth.cameras, truth.body, options)
    check_poses(found, truth, [0, 1])


def test_the_depth_follows_the_cameras_focal_length(truth: Truth, tmp_path: Path):
    options = options_of(tmp_path / "demo_v.pkl", phalp_frames(truth))
    lens = truth.cameras.intrinsics * torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    cameras = replace(truth.cameras, intrinsics=lens)
    found = initialise(truth.observations, cameras, truth.body, options)
    deeper = found.cam_from_root[..., 2, 3]
    assert torch.allclose(deeper, 2 * truth.pelvis[..., 2], atol=1e-6)


def test_frames_that_phalp_only_predicted_are_left_out(truth: Truth, tmp_path: Path):
    content = phalp_frames(truth, {2: {3, 4}})
    found = initialise(
        truth.observations, truth.cameras, truth.body, options_of(tmp_path / "d.pkl", content)
    )
    sure = found.confidence[1, :, 0] > 0
    assert sure.tolist() == [True] * 3 + [False] * 2 + [True] * 4
    assert torch.equal(found.cam_from_root[1, 3], found.cam_from_root[1, 2])


def test_the_last_frames_without_a_look_are_not_valid(truth: Truth, tmp_path: Path):
    content = phalp_frames(truth, {2: {7, 8}})
    found = initialise(
        truth.observations, truth.cameras, truth.body, options_of(tmp_path / "d.pkl", content)
    )
    assert found.valid[1].tolist() == [True] * 7 + [False] * 2
    assert bool(found.valid[0].all())


def test_a_person_in_two_tracks(truth: Truth, tmp_path: Path):
    content = phalp_frames(truth)
    for frame in list(content.values())[5:]:
        for key in ("tid", "tracked_ids"):
            frame[key] = [7 if track == 1 else track for track in frame[key]]
    options = replace(options_of(tmp_path / "d.pkl", content), least_frames=2)
    found = initialise(truth.observations, truth.cameras, truth.body, options)
    check_poses(found, truth, [0, 1])


def test_another_body_stands_on_the_picture(truth: Truth, tmp_path: Path):
    options = options_of(tmp_path / "demo_v.pkl", phalp_frames(truth))
    body = load_body()
    found = initialise(truth.observations, truth.cameras, body, options)
    boxes = truth.observations.boxes[0, 0]
    side = float((boxes[2:] - boxes[:2]).max())
    assert float(pixels_off(found, truth, body).median()) < 0.03 * side


def test_one_line_for_everything_wrong(truth: Truth, tmp_path: Path):
    seen = only(truth, 0)
    with pytest.raises(MissingAsset, match="options.hmr2.path"):
        initialise(seen, truth.cameras, truth.body, Options())
    content = phalp_frames(truth)
    options = options_of(tmp_path / "d.pkl", content)
    short = replace(
        seen, keypoints=seen.keypoints[:, :4], confidence=seen.confidence[:, :4],
        boxes=seen.boxes[:, :4], timestamps=seen.timestamps[:4],
    )  # fmt: skip
    with pytest.raises(InputError, match=r"frames 0 to 8, the observations have 4.*options.hmr2"):
        initialise(short, truth.cameras, truth.body, options)
    with pytest.raises(InputError, match="no track is seen in 10"):
        initialise(seen, truth.cameras, truth.body, replace(options, least_frames=10))
    content["img/1.jpg"]["smpl"][0]["body_pose"] = content["img/1.jpg"]["smpl"][0]["body_pose"][:21]
    options_of(tmp_path / "d.pkl", content)
    with pytest.raises(InputError, match=r"'smpl.body_pose' of track 1 in frame 0 has shape"):
        initialise(seen, truth.cameras, truth.body, options)


def test_a_payload_does_not_run(truth: Truth, tmp_path: Path):
    joblib = pytest.importorskip("joblib", reason="package joblib is not installed")
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (ran,))

    content = phalp_frames(truth)
    next(iter(content.values()))["smpl"] = Payload()
    joblib.dump(content, tmp_path / "demo_v.pkl", compress=3)
    with pytest.raises(InputError, match="refused|asks for"):
        initialise(
            truth.observations, truth.cameras, truth.body, Options(str(tmp_path / "demo_v.pkl"))
        )
    assert not ran.exists()
