"""AMASS files, and directories of recordings."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slamhmr.errors import InputError
from slamhmr.motions.batch import import_motions
from slamhmr.motions.motion import LostHeight, import_motion, load_motion
from slamhmr.skeleton import SMPL_JOINTS


def amass_file(path: Path, **changed: np.ndarray) -> Path:
    """A slow squat on AMASS' keys at 60 fps: knees, hips and ankles bend, the pelvis sinks."""
    time = np.arange(180) / 60
    bend = 0.4 * (1 - np.cos(2 * time))
    poses = np.zeros((180, 156))
    poses[:, 0] = np.pi / 2  # body y is world z
    for joint, share in ((1, -1), (2, -1), (4, 2), (5, 2), (7, -1), (8, -1)):
        poses[:, 3 * joint] = share * bend
    trans = np.stack([0.1 * time, 0 * time, 5 + 0.8 * np.cos(bend)], axis=1)
    arrays = {"poses": poses, "trans": trans, "mocap_framerate": np.array(60.0)}
    np.savez(path, betas=np.zeros(16), gender=np.array("neutral"), **{**arrays, **changed})
    return path


def test_amass_keeps_its_pose_and_its_path(tmp_path: Path) -> None:
    motion = import_motion(amass_file(tmp_path / "a.npz"))
    assert len(motion.pelvis) == 90
    frames = np.arange(90) * 2
    bend = torch.from_numpy(0.4 * (1 - np.cos(2 * frames / 60)))
    knee = motion.body_pose[:, SMPL_JOINTS.index("left_knee") - 1, 0]
    assert float((knee - 2 * bend)[5:-5].abs().max()) < 0.1  # planted, filtered
    arm = motion.body_pose[:, SMPL_JOINTS.index("left_shoulder") - 1]
    assert float(arm.abs().max()) < 1e-5
    moved = motion.pelvis[:, 2] - motion.pelvis[0, 2]
    expected = 0.8 * torch.cos(bend) - 0.8
    assert float((moved - expected)[5:-5].abs().max()) < 0.02
    assert 0.8 < float(motion.pelvis[0, 2]) < 1.0  # on the floor, not 5 m above it
    assert float(motion.contacts.min()) == 1
    shift = motion.transl - motion.pelvis
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"poses": np.zeros((180, 60))}, r"poses \(180, 60\)"),
        ({"trans": np.zeros((9, 3))}, r"trans \(9, 3\)"),
        ({"trans": np.full((180, 3), np.nan)}, "not finite"),
        ({"mocap_framerate": np.array(0.0)}, "a rate of 0.0"),
    ],
)
def test_damaged_amass_files(tmp_path: Path, changed: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(InputError, match=words):
        import_motion(amass_file(tmp_path / "a.npz", **changed))


def test_a_file_that_is_no_amass(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keypoints=np.zeros(3))
    with pytest.raises(InputError, match="not an AMASS file, holds keypoints"):
        import_motion(tmp_path / "a.npz")


def test_a_directory_becomes_motion_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
        amass_file(tmp_path / "in" / name / "a.npz")
    (tmp_path / "in" / "LICENSE.txt").write_text("free")
    written = import_motions([tmp_path / "in"], tmp_path / "out")
    assert [path.name for path in written] == ["one_a.npz", "two_a.npz"]
    assert load_motion(written[0]).source == "one/a.npz"
    twin = tmp_path / "again" / "one"
    twin.mkdir(parents=True)
    amass_file(twin / "a.npz")
    with pytest.raises(InputError, match=r"would both become 'one_a\.npz'"):
        import_motions([tmp_path / "in", twin], tmp_path / "out")
    with pytest.raises(InputError, match="no such file"):
        import_motions([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no recording in"):
        import_motions([tmp_path / "empty"], tmp_path / "out")


def test_a_walk_without_height_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat = np.stack([np.linspace(0, 2, 180), np.zeros(180), np.full(180, 0.9)], axis=1)
    (tmp_path / "in").mkdir()
    bad, good = amass_file(tmp_path / "in" / "a.npz", trans=flat), amass_file(tmp_path / "b.npz")
    with pytest.raises(LostHeight, match="rise and fall"):
        import_motion(bad)
    assert len(import_motions([bad, good], tmp_path / "out")) == 1
    assert "left out" in caplog.text
