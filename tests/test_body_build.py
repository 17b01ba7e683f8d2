"""The parts of the default body's build that need no `anny`: T-pose, directions, regressor."""

import numpy as np
import pytest

from slamhmr.assets.build_body import (
    BETAS,
    Samples,
    head_shares,
    joint_names,
    joint_of_bones,
    joint_parents,
    joint_regressor,
    principal_directions,
)
from slamhmr.assets.t_pose import BONE_TARGETS, Rig, posed_heads, t_pose_rotations
from slamhmr.skeleton import SMPL_JOINTS

# One side of a stick figure in an A-pose: bone, parent, head (x left, y up, z forward; metres).
ARM = (
    ("clavicle", "spine01", (0.02, 0.42, 0.05)),
    ("shoulder01", "clavicle", (0.12, 0.44, 0.02)),
    ("upperarm01", "shoulder01", (0.18, 0.42, 0.0)),
    ("upperarm02", "upperarm01", (0.27, 0.33, 0.0)),
    ("lowerarm01", "upperarm02", (0.36, 0.24, 0.0)),
    ("lowerarm02", "lowerarm01", (0.43, 0.17, 0.05)),
    ("wrist", "lowerarm02", (0.5, 0.1, 0.1)),
)
LEG = (
    ("upperleg01", "root", (0.1, -0.1, 0.0)),
    ("upperleg02", "upperleg01", (0.12, -0.3, 0.01)),
    ("lowerleg01", "upperleg02", (0.15, -0.5, 0.02)),
    ("lowerleg02", "lowerleg01", (0.16, -0.7, 0.0)),
    ("foot", "lowerleg02", (0.17, -0.9, -0.02)),
)
TOES = tuple((f"toe{toe}-1", "foot", (0.12 + 0.02 * toe, -0.93, 0.1)) for toe in range(1, 6))
FINGERS = tuple(
    (
        f"finger{finger}-{part}",
        "wrist" if part == 1 else f"finger{finger}-{part - 1}",
        (0.56 + 0.02 * part, 0.06 - 0.02 * part, 0.17 - 0.02 * finger),
    )
    for finger in range(1, 6)
    for part in (1, 2, 3)
)
TRUNK = (
    ("root", None, (0, -0.1, 0)),
    ("spine04", "root", (0, 0, 0)),
    ("spine03", "spine04", (0, 0.1, 0)),
    ("spine02", "spine03", (0, 0.2, 0)),
    ("spine01", "spine02", (0, 0.3, 0)),
    ("neck01", "spine01", (0, 0.45, 0)),
    ("head", "neck01", (0, 0.55, 0.03)),
)
LIMBS = {
    "upperarm": ("upperarm01", "lowerarm01"),
    "lowerarm": ("lowerarm01", "wrist"),
    "hand": ("wrist", "finger3-1"),
    "thigh": ("upperleg01", "lowerleg01"),
    "shank": ("lowerleg01", "foot"),
}


@pytest.fixture(scope="module")
def figure():
    """Rig and heads (S, R, 3) of three stick figures."""
    bones = list(TRUNK)
    for side, sign in (("L", 1), ("R", -1)):
        for name, parent, (x, y, z) in ARM + LEG + TOES + FINGERS:
            whose = parent if parent in ("root", "spine01") else f"{parent}.{side}"
            bones.append((f"{name}.{side}", whose, (sign * x, y, z)))
    names = tuple(name for name, _, _ in bones)
    parents = tuple(-1 if parent is None else names.index(parent) for _, parent, _ in bones)
    heads = np.array([head for _, _, head in bones])
    noise = 0.004 * np.random.default_rng(0).normal(size=(3, *heads.shape))
    return Rig(names, parents), heads + noise


def test_t_pose_reaches_its_targets(figure):
    rig, heads = figure
    rotations = t_pose_rotations(rig, heads)
    assert np.abs(rotations @ rotations.swapaxes(-1, -2) - np.eye(3)).max() < 1e-12
    assert np.abs(np.linalg.det(rotations) - 1).max() < 1e-12
    posed = posed_heads(rig, heads, rotations)
    for name, (start, end) in LIMBS.items():
        for side, sign in (("L", 1), ("R", -1)):
            first, last = (rig.index(f"{bone}.{side}") for bone in (start, end))
            direction = posed[:, last] - posed[:, first]
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            wanted = np.array(BONE_TARGETS[name]) * [sign, 1, 1]
            wanted /= np.linalg.norm(wanted)
            # bones in two parts bend a little where the noisy parts do not lie on one line
            assert (direction @ wanted).min() > np.cos(np.radians(4)), (name, side)


def test_t_pose_turns_palms_down_and_keeps_soles_flat(figure):
    rig, heads = figure
    rotations = t_pose_rotations(rig, heads)
    posed = posed_heads(rig, heads, rotations)
    for side in "LR":
        knuckles = (
            posed[:, rig.index(f"finger2-1.{side}")] - posed[:, rig.index(f"finger5-1.{side}")]
        )
        assert (knuckles[:, 2] > 0.95 * np.linalg.norm(knuckles, axis=1)).all()
        foot = rotations[:, rig.index(f"foot.{side}")]
        assert np.abs(foot[:, 1] - [0, 1, 0]).max() < 1e-12


def test_every_joint_has_heads_and_every_bone_a_joint(figure):
    rig, heads = figure
    shares = head_shares(rig)
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-12
    names, parents, joint_of = joint_names(), joint_parents(), joint_of_bones(rig)
    assert names[:22] == SMPL_JOINTS[:22]
    assert len(names) == len(parents) == 52
    assert all(parent < joint for joint, parent in enumerate(parents))
    carried = {
        "upperarm02.R": "right_shoulder",
        "finger5-2.L": "left_pinky2",
        "toe3-1.R": "right_foot",
        "root": "pelvis",
        "head": "head",
    }
    for bone, joint in carried.items():
        assert names[joint_of[rig.index(bone)]] == joint
    joints = np.einsum("jr,srd->sjd", shares, heads)
    thumb = joints[:, names.index("left_thumb1")]
    assert np.abs(thumb - heads[:, rig.index("finger1-1.L")]).max() == 0


def random_bodies(count: int = 60, vertex_count: int = 400) -> Samples:
    """Meshes and joints that vary together along 14 directions."""
    rng = np.random.default_rng(2)
    vertices = rng.normal(size=(vertex_count, 3)) * [0.2, 0.5, 0.1]
    joints = vertices[rng.choice(vertex_count, 52, replace=False)] * 0.8
    joints -= joints[:1]
    scale = 0.5 ** np.arange(14)
    shapes = rng.normal(size=(count, 14)) * scale
    vertex_dirs = 0.05 * rng.normal(size=(14, vertex_count, 3))
    joint_dirs = 0.05 * rng.normal(size=(14, 52, 3))
    vertex_dirs[0] += 0.1 * vertices * [0, 1, 0]
    joint_dirs[:, 0] = 0
    return Samples(
        (vertices + np.einsum("sk,kvd->svd", shapes, vertex_dirs)).astype(np.float32),
        joints + np.einsum("sk,kjd->sjd", shapes, joint_dirs),
    )


def test_directions_have_unit_variance_and_the_regressor_reproduces_the_joints():
    samples = random_bodies()
    v_template, shapedirs, joint_template, joint_shapedirs = principal_directions(samples)
    assert shapedirs.shape == (400, 3, BETAS)
    flat = (samples.vertices - v_template).reshape(60, -1)
    betas = flat @ np.linalg.pinv(shapedirs.reshape(-1, BETAS).T)
    assert np.abs(betas.std(axis=0, ddof=1) - 1).max() < 0.25
    assert np.ptp((v_template + 0.5 * shapedirs[..., 0])[:, 1]) > np.ptp(v_template[:, 1])
    assert np.abs(joint_shapedirs[0]).max() < 1e-12  # the pelvis stays at the origin
    regressor = joint_regressor(v_template, shapedirs, joint_template, joint_shapedirs)
    assert np.abs(regressor.sum(axis=1) - 1).max() < 1e-9
    assert np.abs(regressor @ v_template - joint_template).max() < 1e-9
    assert np.abs(np.einsum("jv,vdb->jdb", regressor, shapedirs) - joint_shapedirs).max() < 1e-9
    assert (regressor != 0).sum(axis=1).max() <= 3 + 3 * BETAS + 1
