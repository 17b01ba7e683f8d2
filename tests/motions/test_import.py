"""Readers of recorded motion and their retargeting, on tiny written files and on real ones."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from slamhmr.body import forward_points, load_body
from slamhmr.errors import InputError
from slamhmr.motions.amc import read_amc
from slamhmr.motions.bvh import read_bvh
from slamhmr.motions.deepmimic import read_deepmimic
from slamhmr.motions.floor import foot_points, point_speed
from slamhmr.motions.limits import within_limits
from slamhmr.motions.motion import import_motion, load_motion, resample, save_motion
from slamhmr.motions.retarget import (
    LEG_LENGTH,
    PELVIS_ABOVE_HIPS,
    REST_LIMB,
    Retargeted,
    retarget,
    rig_of,
)
from slamhmr.skeleton import SMPL_JOINTS, SMPL_PARENTS

MOCAP = Path(__file__).resolve().parents[2] / ".." / "shared" / "mocap"
real = pytest.mark.skipif(not MOCAP.is_dir(), reason=f"no recordings in {MOCAP}")

BVH = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT arm
  {
    OFFSET 1 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 2 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.01
1 2 3 90 0 0 0 0 0
1 2 3 0 0 0 90 90 0
"""
ASF = """:version 1.10
:units
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
:bonedata
  begin
     id 1
     name lfemur
     direction 0.34202 -0.939693 0
     length 2
     axis 0 0 20  XYZ
     dof rx
  end
  begin
     id 2
     name ltibia
     direction 0 -1 0
     length 1
     axis 0 0 0  XYZ
  end
:hierarchy
  begin
    root lfemur
    lfemur ltibia
  end
"""


def local_rotations(body_pose: torch.Tensor) -> torch.Tensor:
    return roma.rotvec_to_rotmat(body_pose)


class TestReaders:
    def test_bvh_by_hand(self, tmp_path: Path) -> None:
        (tmp_path / "a.bvh").write_text(BVH)
        motion = read_bvh(tmp_path / "a.bvh")
        assert motion.names == ("hip", "arm", "arm_end")
        assert motion.fps == pytest.approx(100)
        expected = [
            [[1, 2, 3], [1, 3, 3], [-1, 3, 3]],  # hip turned by 90 degrees about z
            [[1, 2, 3], [2, 2, 3], [2, 2, 5]],  # arm: Rz(90) Rx(90), tip y -> z
        ]
        torch.testing.assert_close(motion.positions, torch.tensor(expected, dtype=torch.float64))
        rest = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 2, 0]], dtype=torch.float64)
        torch.testing.assert_close(motion.rest_positions, rest)

    @pytest.mark.parametrize(
        ("old", "new"),
        [("HIERARCHY", "NONSENSE"), ("Frames: 2", "Frames: 3"), ("1 2 3 90", "1 2 x 90"),
         ("  OFFSET 0 0 0\n", "  SPIN 0 0 0\n"), ("Frame Time: 0.01", "Frame Time: 0")],
    )  # fmt: skip
    def test_damaged_bvh(self, tmp_path: Path, old: str, new: str) -> None:
        (tmp_path / "a.bvh").write_text(BVH.replace(old, new, 1))
        with pytest.raises(InputError, match=r"a\.bvh"):
            read_bvh(tmp_path / "a.bvh")

    def test_amc_turns_about_the_axis_of_the_bone(self, tmp_path: Path) -> None:
        (tmp_path / "7.asf").write_text(ASF)
        (tmp_path / "7_1.amc").write_text("#\n:DEGREES\n1\nroot 0 0 0 0 0 0\nlfemur 90\n")
        motion = read_amc(tmp_path / "7_1.amc")
        assert motion.names == ("root", "lfemur", "ltibia", "ltibia_end")
        # about its own x axis, (cos 20, sin 20, 0), a thigh goes straight backwards
        knee = torch.tensor([0.0, 0.0, -2.0], dtype=torch.float64)
        torch.testing.assert_close(motion.positions[0, 2], knee, atol=1e-4, rtol=0)

    def test_amc_without_its_skeleton(self, tmp_path: Path) -> None:
        (tmp_path / "7_1.amc").write_text("1\nroot 0 0 0 0 0 0\n")
        with pytest.raises(InputError, match=r"7\.asf"):
            read_amc(tmp_path / "7_1.amc")

    def test_deepmimic_bends_its_knees_backwards(self, tmp_path: Path) -> None:
        frame = [0.05, 0, 0.9, 0] + [1, 0, 0, 0] * 4 + [-1.2] + [1, 0, 0, 0] * 2 + [1.0]
        frame += [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
        path = tmp_path / "m.txt"
        path.write_text(json.dumps({"Frames": [frame] * 4}))
        source = read_deepmimic(path)
        assert source.fps == pytest.approx(20)
        pose = retarget(source, rig_of(source)).rotations
        local = pose[0, 2].T @ pose[0, 5]  # right knee in the frame of the right thigh
        rest = local @ torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
        assert float(rest[2]) < -0.8  # the shank goes behind the thigh
        path.write_text(json.dumps({"Frames": [frame[:-1]] * 4}))
        with pytest.raises(InputError, match="44"):
            read_deepmimic(path)

    def test_unknown_skeletons_and_suffixes_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.bvh").write_text(BVH)
        with pytest.raises(InputError, match="fits none of the known rigs"):
            import_motion(tmp_path / "a.bvh")
        with pytest.raises(InputError, match="unknown suffix '.fbx'"):
            import_motion(tmp_path / "a.fbx")


def test_constants_are_those_of_the_default_body() -> None:
    rest = load_body().point_template[:24]
    knee, ankle, hip = (SMPL_JOINTS.index(f"left_{p}") for p in ("knee", "ankle", "hip"))
    leg = (rest[knee] - rest[hip]).norm() + (rest[ankle] - rest[knee]).norm()
    assert float(leg) == pytest.approx(LEG_LENGTH, abs=0.01)
    above = rest[0] - 0.5 * (rest[1] + rest[2])
    assert float(above[1]) == pytest.approx(PELVIS_ABOVE_HIPS, abs=0.01)
    for part, end in (
        ("hip", "knee"),
        ("knee", "ankle"),
        ("shoulder", "elbow"),
        ("elbow", "wrist"),
    ):
        bone = rest[SMPL_JOINTS.index(f"left_{end}")] - rest[SMPL_JOINTS.index(f"left_{part}")]
        declared = torch.tensor(REST_LIMB[part][0], dtype=torch.float64)
        assert degrees_between(bone, declared).item() < 2, part


def degrees_between(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    sine = torch.linalg.cross(one, other).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, (one * other).sum(dim=-1)))


def test_resampling_keeps_slow_motion_and_removes_a_shake() -> None:
    time = torch.arange(241, dtype=torch.float64) / 120
    slow, shake = 0.8 * torch.sin(2 * time), 0.2 * torch.sin(2 * math.pi * 30 * time)

    def body(angle: torch.Tensor) -> Retargeted:
        axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
        rotation = roma.rotvec_to_rotmat(angle[:, None, None] * axis).expand(-1, 22, 3, 3)
        return Retargeted(rotation, angle[:, None] * axis, (True,) * 21)

    clean = resample(body(slow), 120.0, 30.0)
    shaken = resample(body(slow + shake), 120.0, 30.0)
    assert len(clean.pelvis) == 61
    inner = slice(5, -5)
    angle = roma.rotmat_geodesic_distance(clean.rotations[:, 0], body(slow[::4]).rotations[:, 0])
    assert float(angle[inner].max()) < 0.005
    left = roma.rotmat_geodesic_distance(clean.rotations[:, 0], shaken.rotations[:, 0])
    assert float(left[inner].max()) < 0.02  # of 0.2 rad


def test_motion_file_round_trip(tmp_path: Path) -> None:
    frame = [0.05, 0, 0.9, 0] + [1, 0, 0, 0] * 4 + [-1.2] + [1, 0, 0, 0] * 2 + [1.0]
    frame += [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    (tmp_path / "m.txt").write_text(json.dumps({"Frames": [frame] * 10}))
    motion = import_motion(tmp_path / "m.txt")
    assert motion.fps == 30
    save_motion(tmp_path / "m.npz", motion)
    again = load_motion(tmp_path / "m.npz")
    for field in ("root_orient", "pelvis", "transl", "body_pose", "contacts"):
        torch.testing.assert_close(
            getattr(again, field), getattr(motion, field), atol=1e-6, rtol=0, msg=field
        )
    assert again.tracked == motion.tracked
    assert not again.tracked[SMPL_JOINTS.index("left_wrist") - 1]
    np.savez(tmp_path / "old.npz", body_pose=np.zeros((4, 21, 3)))
    with pytest.raises(InputError, match=r"old\.npz.*lacks root_orient, pelvis"):
        load_motion(tmp_path / "old.npz")
    (tmp_path / "m.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"m\.npz"):
        load_motion(tmp_path / "m.npz")


def test_a_foot_turned_over_is_no_recording() -> None:
    ankle, head = (SMPL_JOINTS.index(name) - 1 for name in ("left_ankle", "head"))
    turns = torch.zeros(10, 21, 3, dtype=torch.float64)
    turns[:5, ankle, 0] = 3.0  # half of the clip: not recorded
    turns[:1, head, 1] = 2.0  # one frame: turned back to the limit
    joints, tracked = within_limits(roma.rotvec_to_rotmat(turns), (True,) * 21)
    assert [index for index, known in enumerate(tracked) if not known] == [ankle]
    back = torch.rad2deg(roma.rotmat_to_rotvec(joints))
    assert float(back[:, ankle].abs().max()) < 1e-6
    assert float(back[0, head, 1]) == pytest.approx(75)
    turns[:, [ankle, head]] = 0
    rest = roma.rotvec_to_rotmat(turns)
    torch.testing.assert_close(joints[1:], rest[1:], atol=1e-12, rtol=0)


LIMBS = {  # source joints of left limbs, first frame to look at, and what they may differ by
    "cmu_asf_amc/02_07.amc": (("lfemur", "ltibia", "lfoot"), ("lhumerus", "lradius", "lhand")),
    "cmu_bvh/002_04.bvh": (
        ("CC_Base_L_Thigh", "CC_Base_L_Calf", "CC_Base_L_Foot"),
        ("CC_Base_L_Upperarm", "CC_Base_L_Forearm", "CC_Base_L_Hand"),
    ),
    "cmu_dance/salsa/10.bvh": (("lThigh", "lShin", "lFoot"), ("lShldr", "lForeArm", "lHand")),
    "reactidle/003_genuine.bvh": (
        ("thigh.L", "shin.L", "foot.L"), ("upper_arm.L", "forearm.L", "forearm.L_end"),
    ),
    "deepmimic/humanoid3d_kick.txt": (
        ("left_hip", "left_knee", "left_ankle"), ("left_shoulder", "left_elbow", "left_wrist"),
    ),
}  # fmt: skip
READERS = {".amc": read_amc, ".bvh": read_bvh, ".txt": read_deepmimic}


@real
@pytest.mark.parametrize("name", LIMBS)
def test_limbs_point_where_the_recorded_ones_do(name: str) -> None:
    source = READERS[Path(name).suffix](MOCAP / name)
    body = retarget(source, rig_of(source))
    every = slice(30, None, 10)
    rotations, pelvis = body.rotations[every], body.pelvis[every]
    parents = list(SMPL_PARENTS[1:22])
    local = rotations[:, parents].transpose(-1, -2) @ rotations[:, 1:]
    points, _ = forward_points(
        load_body(), torch.zeros(1, 10).double(), rotations[None, :, 0], pelvis[None], local[None]
    )
    z_up = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    places = (source.positions @ z_up.T)[every]
    for names, parts, limit in zip(
        LIMBS[name], (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")), (5, 2), strict=True
    ):
        theirs = [places[:, source.names.index(joint)] for joint in names]
        ours = [points[0][:, SMPL_JOINTS.index(f"left_{part}")] for part in parts]
        for k in range(2):
            angle = degrees_between(ours[k + 1] - ours[k], theirs[k + 1] - theirs[k])
            assert float(angle.mean()) < limit, (names[k], float(angle.mean()))


@real
def test_two_readers_agree_on_the_same_trial() -> None:
    """CMU 02_04, a jump, as ASF/AMC and as a BVH of another rig: same limbs, contacts, height."""
    one = import_motion(MOCAP / "cmu_asf_amc" / "02_04.amc")
    other = import_motion(MOCAP / "cmu_bvh" / "002_04.bvh")
    assert one.body_pose.shape == other.body_pose.shape
    turn = local_rotations(one.body_pose).transpose(-1, -2) @ local_rotations(other.body_pose)
    degrees = torch.rad2deg(roma.rotmat_to_rotvec(turn).norm(dim=-1)).mean(dim=0)
    for part, limit in (("hip", 4), ("knee", 4), ("spine", 4), ("shoulder", 5), ("elbow", 9),
                        ("ankle", 10), ("wrist", 11), ("head", 4)):  # fmt: skip
        for index, name in enumerate(SMPL_JOINTS[1:22]):
            if part in name:
                assert float(degrees[index]) < limit, (name, float(degrees[index]))
    same = (one.contacts > 0.5) == (other.contacts > 0.5)
    assert float(same.double().mean()) > 0.95
    assert float((one.pelvis - other.pelvis)[:, 2].abs().mean()) < 0.02
    assert float(one.pelvis[:, 2].max() - one.pelvis[:, 2].min()) > 0.6


@real
def test_a_walk_is_upright_flat_footed_and_as_fast_as_a_walk() -> None:
    motion = import_motion(MOCAP / "cmu_bvh" / "007_02.bvh")
    root = roma.rotvec_to_rotmat(motion.root_orient)
    assert float(root[:, 2, 1].min()) > 0.95  # body y is world z
    speed = (motion.pelvis[-1, :2] - motion.pelvis[0, :2]).norm() / (len(root) - 1) * 30
    assert 0.9 < float(speed) < 1.7
    knees = local_rotations(motion.body_pose)[:, [3, 4]]
    shank = knees @ torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    assert float(shank[..., 2].max()) < 0.1  # never in front of the thigh, 0.087 at rest
    assert float(shank[..., 2].min()) < -0.6  # and well behind it in the swing


@real
@pytest.mark.parametrize("name", ["007_02", "002_04", "006_10"])
def test_feet_stand_where_a_recording_touches_the_floor(name: str) -> None:
    motion = import_motion(MOCAP / "cmu_bvh" / f"{name}.bvh")
    root, joints = (roma.rotvec_to_rotmat(v) for v in (motion.root_orient, motion.body_pose))
    feet = foot_points(load_body(), root, motion.pelvis, joints)
    down = motion.contacts > 0.75
    assert float(feet[..., 2][down].abs().mean()) < 0.003
    assert float(point_speed(feet, motion.fps)[down].mean()) < 0.03
    assert float(feet[..., 2].min()) > -0.03
    if name == "007_02":  # a walk: one foot after the other, never none
        left, right = down[:, :2].any(dim=1), down[:, 2:].any(dim=1)
        assert bool((left | right).all())
        assert 0.1 < float((left & right).double().mean()) < 0.5
    if name == "002_04":  # a jump: nothing stands while the feet are in the air
        aloft = feet[..., 2].min(dim=1).values > 0.1
        assert int(aloft.sum()) > 8
        assert not bool(down[aloft].any())


@real
def test_the_jump_out_of_the_t_pose_is_dropped() -> None:
    motion = import_motion(MOCAP / "cmu_dance" / "salsa" / "10.bvh")
    step = (motion.pelvis[1:] - motion.pelvis[:-1]).norm(dim=-1) * 30
    assert float(step.max()) < 3  # m/s
    assert 15 < len(motion.pelvis) / 30 < 20  # 1198 frames: 60 fps, not the header's 120
