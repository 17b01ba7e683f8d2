"""Procedural training clips: feet at rest in contacts, limbs within their range, determinism."""

from pathlib import Path

import pytest
import roma
import torch

from slamhmr.body import load_body
from slamhmr.cli import main
from slamhmr.errors import InputError
from slamhmr.motions.floor import floor_contacts, floor_height, foot_points, point_speed
from slamhmr.motions.motion import Motion, load_motion
from slamhmr.skeleton import SMPL_JOINTS
from slamhmr.synth.clips import KINDS, make_clip, make_clips

BODY = load_body()
STAIRS = ("upstairs", "downstairs")


def feet_of(motion: Motion) -> torch.Tensor:
    rotations = [roma.rotvec_to_rotmat(v) for v in (motion.root_orient, motion.body_pose)]
    return foot_points(BODY, rotations[0], motion.pelvis, rotations[1])


@pytest.mark.parametrize("kind", KINDS)
def test_contacts_are_at_rest_on_the_floor(kind: str) -> None:
    motion = make_clip(kind, 3, BODY)
    assert 4 <= len(motion.pelvis) / motion.fps <= 30
    feet, down = feet_of(motion), motion.contacts > 0.75
    assert float(point_speed(feet, motion.fps)[down].mean()) < 0.015
    if kind in STAIRS:
        assert "stairs" in motion.source
    else:
        assert float(feet[..., 2][down].abs().max()) < 0.02
        assert float(feet[..., 2].min()) > -0.05
    assert bool(down.any())


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_put_out_of_joint(kind: str) -> None:
    motion = make_clip(kind, 5, BODY)
    knees = motion.body_pose[:, [SMPL_JOINTS.index(f"{s}_knee") - 1 for s in ("left", "right")]]
    assert float(knees[..., 0].min()) > -0.1  # never forwards
    assert float(knees[..., 0].max()) < 2.8
    rotations = roma.rotvec_to_rotmat(motion.body_pose)
    speed = roma.rotmat_geodesic_distance(rotations[1:], rotations[:-1]) * motion.fps
    assert float(speed.max()) < 30  # rad/s
    jerk = motion.pelvis[2:] - 2 * motion.pelvis[1:-1] + motion.pelvis[:-2]
    assert float(jerk.norm(dim=-1).max()) * motion.fps**2 < 40  # m/s^2


def test_stairs_put_every_foot_on_a_step() -> None:
    motion = make_clip("upstairs", 1, BODY)
    feet, down = feet_of(motion), motion.contacts > 0.9
    heights = feet[..., 2][down]
    steps = torch.unique((heights * 1000).round())
    rise = float(steps[1] - steps[0])
    assert 150 <= rise <= 191  # mm
    assert float((steps / rise - (steps / rise).round()).abs().max()) < 0.02
    assert float(motion.pelvis[-1, 2] - motion.pelvis[0, 2]) > 0.8


@pytest.mark.parametrize(("kind", "f1_least"), [("walk", 0.88), ("backward", 0.9), ("jump", 0.95)])
def test_labels_of_recordings_agree_with_exact_contacts(kind: str, f1_least: float) -> None:
    """The rule that labels recordings, on motions whose contacts are known."""
    motion = make_clip(kind, 2, BODY)
    feet = feet_of(motion)
    assert floor_height(feet, motion.fps) == pytest.approx(0, abs=0.005)
    found = floor_contacts(feet, motion.pelvis, motion.fps)
    truth = motion.contacts > 0.5
    f1 = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert float(f1) > f1_least


def test_the_same_seed_gives_the_same_clips(tmp_path: Path) -> None:
    first = make_clips(2, 4, tmp_path / "a")
    assert [path.name for path in first] == ["proc_walk_4000.npz", "proc_carry_4000.npz"]
    again, other = make_clips(1, 4, tmp_path / "b"), make_clips(1, 5, tmp_path / "c")
    poses = [load_motion(paths[0]).body_pose for paths in (first, again, other)]
    torch.testing.assert_close(poses[0], poses[1], atol=0, rtol=0)
    assert poses[0].shape != poses[2].shape or not torch.allclose(poses[0], poses[2])
    with pytest.raises(InputError, match="must be at least 1"):
        make_clips(0, 0, tmp_path)


def test_the_command_makes_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-motion", "--procedural", "3", "--seed", "1", "--out", str(tmp_path)]) == 0
    assert "3 motions" in capsys.readouterr().out
    assert len(list(tmp_path.glob("proc_*.npz"))) == 3
    assert main(["import-motion", "--out", str(tmp_path)]) == 2
    assert "nothing to import" in capsys.readouterr().err
