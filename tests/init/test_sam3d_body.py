"""SAM 3D Body's points written from truth, read, compared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from foreign_case import LENS, SIZE, Truth, make_truth, pixels_off

from slamhmr.body import forward_points, load_body
from slamhmr.errors import InputError, MissingAsset
from slamhmr.init.sam3d_body import MHR70, Options, initialise

BODY = load_body()


def write(
    folder: Path, truth: Truth, focal: float = LENS[0], size: float = 1.0, start: int = 0
) -> Options:
    """One npz per person and picture, as facebookresearch/MHR@4debaac has them.

    Keys of facebookresearch/sam-3d-body@2137f4e sam_3d_body_estimator.py. The people of a picture
    are in turns in one order and the other: they have no identity.
    """
    folder.mkdir()
    people, frames = truth.pose.shape[:2]
    points, _ = forward_points(
        BODY, truth.betas * 0, truth.root, truth.pelvis, roma.rotvec_to_rotmat(truth.pose)
    )
    for frame in range(frames):
        for number in range(people):
            person = number if frame % 2 == 0 else people - 1 - number
            keypoints = np.zeros((70, 3))
            for name, place in MHR70.items():
                keypoints[place] = points[person, frame, BODY.point_names.index(name)]
            keypoints *= size
            middle = keypoints[[9, 10]].mean(axis=0)
            further = np.array([middle[0], middle[1], middle[2] * focal / LENS[0]])
            np.savez(
                folder / f"clip_{start + frame:05d}_subj{number:02d}.npz",
                pred_keypoints_3d=(keypoints - middle).astype(np.float32),
                pred_cam_t=further.astype(np.float32),
                focal_length=np.float32(focal),
                pred_pose_raw=np.zeros(266, np.float32),
            )
    return Options(path=str(folder))


@pytest.fixture(scope="module")
def truth() -> Truth:
    """People of our body's mean shape."""
    made = make_truth("smpl", frames=5)
    points, _ = forward_points(
        BODY, made.betas * 0, made.root, made.pelvis, roma.rotvec_to_rotmat(made.pose)
    )
    names = made.observations.keypoint_names
    seen = points[:, :, [BODY.point_names.index(name) for name in names]]
    lens = torch.tensor(LENS, dtype=torch.float64)
    image = lens[:2] * seen[..., :2] / seen[..., 2:] + lens[2:]
    return replace(made, observations=replace(made.observations, keypoints=image))


def joints(found) -> torch.Tensor:
    points, _ = forward_points(
        BODY,
        found.betas,
        found.cam_from_root[..., :3, :3],
        found.cam_from_root[..., :3, 3],
        roma.rotvec_to_rotmat(found.body_pose),
    )
    return points


def test_limbs_and_trunk_are_where_they_were(truth: Truth, tmp_path: Path):
    found = initialise(truth.observations, truth.cameras, BODY, write(tmp_path / "a", truth))
    expected, _ = forward_points(
        BODY, truth.betas * 0, truth.root, truth.pelvis, roma.rotvec_to_rotmat(truth.pose)
    )
    shown = [BODY.point_names.index(name) for name in MHR70]
    error = (joints(found) - expected).norm(dim=-1)
    assert float(error[:, :, shown].max()) < 0.015
    turn = roma.rotmat_geodesic_distance(found.cam_from_root[..., :3, :3], truth.root)
    assert float(turn.max()) < 0.2  # the pelvis tilts about its two points, the spine bends back
    assert bool(found.valid.all())
    assert found.root_velocity is None
    assert float(pixels_off(found, truth, BODY).max()) < 2.5


def test_another_size_and_focal_length_show_the_same_picture(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "b", truth, focal=900.0, size=1.2)
    found = initialise(truth.observations, truth.cameras, BODY, options)
    assert float(pixels_off(found, truth, BODY).max()) < 4.0
    assert torch.allclose(found.cam_from_root[..., :3, 3], truth.pelvis, atol=0.03)


def test_numbers_of_the_pictures_count(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "c", truth, start=100)
    with pytest.raises(InputError, match=r"frames 100 to 104, the observations have 5.*\.first"):
        initialise(truth.observations, truth.cameras, BODY, options)
    (tmp_path / "c" / "clip_00102_subj00.npz").unlink()  # person 1 is not found there
    found = initialise(truth.observations, truth.cameras, BODY, replace(options, first=100))
    seen = found.confidence[:, :, 0] > 0
    assert seen.tolist() == [[True, True, False, True, True], [True] * 5]
    assert float(pixels_off(found, truth, BODY)[seen].max()) < 2.5


def test_one_line_for_everything_wrong(truth: Truth, tmp_path: Path):
    def start(options: Options, observations=truth.observations):
        return initialise(observations, truth.cameras, BODY, options)

    with pytest.raises(MissingAsset, match="no folder 'sam3d_body': it is not in the seq"):
        start(Options())
    with pytest.raises(MissingAsset, match="'nowhere' is no folder"):
        start(Options(path="nowhere"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no .npz file"):
        start(Options(path=str(empty)))
    np.savez(empty / "a_subj00.npz", pred_cam_t=np.zeros(3))
    with pytest.raises(InputError, match="lacks 'pred_keypoints_3d' .* no output of SAM 3D Body"):
        start(Options(path=str(empty)))
    (empty / "a_subj00.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="a_subj00.npz' cannot be read"):
        start(Options(path=str(empty)))
    options = write(tmp_path / "d", truth)
    away = replace(truth.observations, keypoints=truth.observations.keypoints + 2.0 * SIZE[0])
    with pytest.raises(InputError, match="nobody matched"):
        start(options, away)
