"""SLAHMR's preprocessing tree written from truth, made a sequence directory, read back."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_case import Truth, check_poses, make_truth
from slahmr_case import write_tree

from slamhmr.detect.file import read_observations
from slamhmr.errors import InputError
from slamhmr.init.file import read_initial
from slamhmr.sequence import open_sequence
from slamhmr.skeleton import KEYPOINTS
from slamhmr.slahmr_folder import import_folder
from slamhmr.slam.file import read_cameras
from slamhmr.video import VideoWriter


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smpl")


@pytest.fixture(scope="module")
def whole(truth: Truth, tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("slahmr"), truth)


def test_a_round_trip_is_exact(truth: Truth, whole: Path, tmp_path: Path):
    folder = tmp_path / "park"
    notes = import_folder(whole, folder, truth.body)
    sequence = open_sequence(folder)
    assert sequence.video.frame_count == 9
    assert sequence.settings.fps == 25
    seen = read_observations(folder / "observations.npz")
    assert seen.person_id.tolist() == [1, 2]
    columns = [KEYPOINTS.index(name) for name in seen.keypoint_names]
    assert sorted(columns) == list(range(17))
    assert torch.allclose(seen.keypoints, truth.observations.keypoints[:, :, columns])
    assert bool((seen.confidence == 0.8).all())
    assert seen.fps == 25
    cameras = read_cameras(folder / "cameras.npz", frame_count=9)
    assert torch.allclose(cameras.world_from_cam, truth.cameras.world_from_cam, atol=1e-9)
    assert torch.allclose(cameras.intrinsics, truth.cameras.intrinsics)
    assert cameras.moving
    assert not cameras.scale_known
    check_poses(read_initial(folder / "initial.npz"), truth, [0, 1])
    said = " ".join(notes)
    for corrected in ("issue 44", "25 frames a second", "focal length 700 px", "body shapes"):
        assert corrected in said
    assert list(notes) == [n for n in cameras.notes if n.startswith("SLAHMR's folder")]


def test_again_changes_nothing(truth: Truth, whole: Path, tmp_path: Path):
    folder = tmp_path / "park"
    import_folder(whole, folder, truth.body)
    files = [folder / f"{name}.npz" for name in ("observations", "cameras", "initial")]
    before = [file.read_bytes() for file in files]
    (folder / "sequence.yaml").write_text("fps: 25\npeople: [2]\n")
    import_folder(whole, folder, truth.body)
    assert [file.read_bytes() for file in files] == before
    assert open_sequence(folder).settings.people == [2]


def test_the_rate_of_a_sequence_yaml_that_is_there_counts(
    truth: Truth, whole: Path, tmp_path: Path
):
    folder = tmp_path / "park"
    folder.mkdir()
    (folder / "sequence.yaml").write_text("fps: 30\n")
    notes = import_folder(whole, folder, truth.body)
    assert read_observations(folder / "observations.npz").fps == 30
    assert not any("25 frames a second" in note for note in notes)


def test_shots_are_segments_of_their_own(truth: Truth, tmp_path: Path):
    root = write_tree(tmp_path / "root", truth, cuts=(5,))
    folder = tmp_path / "park"
    import_folder(root, folder, truth.body)
    assert open_sequence(folder).cuts == (5,)
    assert read_cameras(folder / "cameras.npz", frame_count=9).starts == (5,)


def test_only_shots_with_cameras_are_taken(truth: Truth, tmp_path: Path):
    root = write_tree(tmp_path / "root", truth, cuts=(2,))
    shutil.rmtree(root / "slahmr" / "cameras" / "park" / "shot-0")
    folder = tmp_path / "park"
    notes = import_folder(root, folder, truth.body)
    assert any("only shots [1] of [0, 1]" in note for note in notes)
    assert open_sequence(folder).video.frame_count == 7
    found = read_initial(folder / "initial.npz")
    assert torch.allclose(found.cam_from_root[:, :, :3, 3], truth.pelvis[:, 2:], atol=1e-6)


def test_without_cameras_no_start_is_written(truth: Truth, tmp_path: Path):
    root = write_tree(tmp_path / "root", truth)
    shutil.rmtree(root / "slahmr" / "cameras")
    notes = import_folder(root, tmp_path / "park", truth.body, fps=30)
    assert any("left no cameras" in note for note in notes)
    assert not any("frames a second" in note for note in notes)
    assert not (tmp_path / "park" / "initial.npz").exists()


def test_a_guessed_focal_length_and_a_camera_that_stands(truth: Truth, tmp_path: Path):
    root = write_tree(tmp_path / "root", truth)
    path = root / "slahmr" / "cameras" / "park" / "shot-0" / "cameras.npz"
    arrays = dict(np.load(path))
    arrays["intrins"] = np.tile([280.0, 280.0, 160.0, 120.0], (9, 1))  # of half the size
    arrays["width"], arrays["height"] = np.float32(320), np.float32(240)
    arrays["w2c"] = np.tile(np.eye(4), (9, 1, 1))
    np.savez(path, **arrays)
    import_folder(root, tmp_path / "park", truth.body)
    cameras = read_cameras(tmp_path / "park" / "cameras.npz", frame_count=9)
    assert cameras.intrinsics[0].tolist() == [560, 560, 320, 240]
    assert cameras.focal_sigma is not None
    assert cameras.notes[0].startswith("focal length guessed")
    assert not cameras.moving
    assert any("stands still" in note for note in cameras.notes)


def test_hidden_frames(truth: Truth, tmp_path: Path):
    root = write_tree(tmp_path / "root", truth)
    for kind in ("keypoints", "smpl"):
        (root / "slahmr" / "track_preds" / "park" / "002" / f"000004_{kind}.json").unlink()
    import_folder(root, tmp_path / "park", truth.body)
    seen = read_observations(tmp_path / "park" / "observations.npz").seen
    assert not bool(seen[1, 3])
    assert int((~seen).sum()) == 1
    found = read_initial(tmp_path / "park" / "initial.npz")
    assert float(found.confidence[1, 3].max()) == 0


@pytest.mark.parametrize(("frames", "rate"), [(9, 25.0), (7, 30.0), (4, 25.0)])
def test_the_videos_length_tells_the_rate(
    truth: Truth, whole: Path, tmp_path: Path, frames: int, rate: float
):
    """9 images of 0.36 s are 25 a second; of 0.3 s 30; what fits nothing is SLAHMR's default."""
    root = tmp_path / "root"
    shutil.copytree(whole, root)
    (root / "videos").mkdir()
    speed = {9: 25.0, 7: 70 / 3, 4: 10.0}[frames]
    with VideoWriter(root / "videos" / "park.mp4", speed, (64, 48)) as writer:
        for _ in range(frames):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    import_folder(root, tmp_path / "park", truth.body)
    assert open_sequence(tmp_path / "park").settings.fps == rate


def test_one_line_for_everything_wrong(truth: Truth, tmp_path: Path):
    with pytest.raises(InputError, match=r"images/park' does not exist: SLAHMR's root holds"):
        import_folder(tmp_path, tmp_path / "park", truth.body)
    root = write_tree(tmp_path / "root", truth)
    shots = root / "slahmr" / "shot_idcs" / "park.json"
    good = shots.read_text()
    shots.write_text("{")
    with pytest.raises(InputError, match="park.json' is no JSON"):
        import_folder(root, tmp_path / "park", truth.body)
    shots.write_text(good.replace("000003.jpg", "x.jpg"))
    with pytest.raises(InputError, match="knows no shot of '000003.jpg'"):
        import_folder(root, tmp_path / "park", truth.body)
    shots.write_text(good)
    path = root / "slahmr" / "cameras" / "park" / "shot-0" / "cameras.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "w2c": arrays["w2c"][:4]})
    with pytest.raises(InputError, match="9 rows of intrins, 4 poses"):
        import_folder(root, tmp_path / "park", truth.body)
    np.savez(path, **{**arrays, "w2c": arrays["w2c"][:4], "intrins": arrays["intrins"][0]})
    with pytest.raises(InputError, match="4 poses, shot 0 has 9 frames"):
        import_folder(root, tmp_path / "park", truth.body)
    np.savez(path, **arrays)
    body = root / "slahmr" / "track_preds" / "park" / "001" / "000001_smpl.json"
    body.write_text("{}")
    with pytest.raises(InputError, match="000001_smpl.json' lacks 'betas'"):
        import_folder(root, tmp_path / "park", truth.body)
    assert not (tmp_path / "park").exists()


def test_a_payload_does_not_run(truth: Truth, whole: Path, tmp_path: Path):
    """SLAHMR's cameras.npz may hold objects, which numpy would unpickle if it were let."""
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (ran,))

    tree = tmp_path / "tree"
    shutil.copytree(whole, tree)
    (cameras,) = tree.rglob("cameras.npz")
    with np.load(cameras) as file:
        arrays = dict(file)
    np.savez(cameras, **{**arrays, "w2c": np.array([Payload()], dtype=object)})
    with pytest.raises(InputError):
        import_folder(tree, tmp_path / "park", truth.body)
    assert not ran.exists()
    np.load(cameras, allow_pickle=True)["w2c"]
    assert ran.exists(), "the payload is none"
