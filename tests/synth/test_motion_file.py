"""Motions read from files: resampling, floor, contacts, and clear errors."""

from pathlib import Path

import numpy as np
import pytest

from slamhmr import artifacts
from slamhmr.body import load_body
from slamhmr.errors import InputError
from slamhmr.synth.clips import make_clips
from slamhmr.synth.scene import SceneSpec, make_scene
from slamhmr.synth.write import truth

BODY = load_body()


@pytest.fixture
def motion(tmp_path: Path) -> Path:
    """A walk of 4 s at 60 fps in this project's own layout."""
    spec = SceneSpec(seed=51, frames=240, fps=60.0, motion="walk")
    path = tmp_path / "walk.npz"
    artifacts.write_arrays(path, artifacts.to_arrays(truth(make_scene(spec, BODY), BODY, spec)))
    return path


def test_motion_is_resampled_and_put_on_the_floor(motion: Path) -> None:
    scene = make_scene(SceneSpec(seed=1, frames=90, motion=str(motion), camera="follow"), BODY)
    assert scene.points.shape[:2] == (1, 90)
    speed = np.linalg.norm(np.diff(scene.pelvis[0, :, :2].numpy(), axis=0), axis=-1) * 30
    assert 0.8 < np.median(speed) < 1.8
    feet = scene.points[0, :, [BODY.point_names.index(n) for n in ("left_heel", "left_big_toe")], 2]
    assert -0.03 < feet.min() < 0.05
    assert 0.3 < scene.contacts.mean() < 0.9


def test_amass_names_are_known(motion: Path, tmp_path: Path) -> None:
    arrays = artifacts.read_arrays(motion)
    poses = np.concatenate([arrays["root_orient"][0], arrays["body_pose"][0]], axis=1)
    amass = {
        "poses": np.pad(poses, ((0, 0), (0, 90))), "trans": arrays["transl"][0],
        "mocap_framerate": np.array(60.0),
    }  # fmt: skip
    artifacts.write_arrays(tmp_path / "amass.npz", amass)
    scene = make_scene(SceneSpec(frames=60, motion=str(tmp_path / "amass.npz")), BODY)
    assert scene.points.shape[1] == 60


def test_motion_shorter_than_the_scene(motion: Path) -> None:
    with pytest.raises(InputError, match=r"lasts 4\.0 s, the scene 10\.0 s"):
        make_scene(SceneSpec(frames=300, motion=str(motion)), BODY)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read|does not exist"):
        make_scene(SceneSpec(motion=str(tmp_path / "no.npz")), BODY)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match="cannot be read|damaged"):
        make_scene(SceneSpec(motion=str(tmp_path / "bad.npz")), BODY)
    artifacts.write_arrays(tmp_path / "empty.npz", {"fps": np.array(30.0)})
    with pytest.raises(InputError, match="holds none of transl, trans"):
        make_scene(SceneSpec(motion=str(tmp_path / "empty.npz")), BODY)


def test_imported_motions_bring_their_contacts(tmp_path: Path) -> None:
    path = make_clips(1, 0, tmp_path)[0]  # a walk
    scene = make_scene(SceneSpec(seed=2, frames=120, motion=str(path), camera="follow"), BODY)
    recorded = artifacts.read_arrays(path)["contacts"].mean()
    assert abs(float(scene.contacts.mean()) - recorded) < 0.1
    arrays = artifacts.read_arrays(path)
    arrays["contacts"] = arrays["contacts"][:-1]
    artifacts.write_arrays(path, arrays)
    with pytest.raises(InputError, match="holds contacts"):
        make_scene(SceneSpec(seed=2, frames=120, motion=str(path)), BODY)
