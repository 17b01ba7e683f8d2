"""Camera files of other tools: round trips, and every damage is an error that names it."""

import numpy as np
import pytest
import roma
import torch

from slamhmr.artifacts import to_arrays
from slamhmr.errors import InputError
from slamhmr.slam.file import read_cameras
from slamhmr.slam.gaps import lost_note

COUNT = 12


def arrays():
    generator = torch.Generator().manual_seed(0)
    pose = torch.eye(4, dtype=torch.float64).repeat(COUNT, 1, 1)
    pose[:, :3, :3] = roma.rotvec_to_rotmat(
        0.3 * torch.randn(COUNT, 3, generator=generator, dtype=torch.float64)
    )
    pose[:, :3, 3] = torch.randn(COUNT, 3, generator=generator, dtype=torch.float64)
    return {
        "world_from_cam": pose.numpy(),
        "intrinsics": np.tile([500.0, 510.0, 320.0, 240.0], (COUNT, 1)),
        "image_size": np.array([640, 480]),
        "scale_known": np.array(True),
        "moving": np.array(True),
        "source": np.array("droid"),
    }


def saved(tmp_path, **changes):
    content = {k: v for k, v in {**arrays(), **changes}.items() if v is not None}
    np.savez(tmp_path / "cameras.npz", **content)
    return tmp_path / "cameras.npz"


def reflected():
    pose = arrays()["world_from_cam"]
    pose[4, :3, 0] *= -1
    return pose


def with_nan():
    pose = arrays()["world_from_cam"]
    pose[7, 0, 3] = np.nan
    return pose


def test_npz_round_trip(tmp_path):
    track = read_cameras(saved(tmp_path), frame_count=COUNT)
    assert np.array_equal(track.world_from_cam.numpy(), arrays()["world_from_cam"])
    assert track.image_size == (640, 480)
    assert track.scale_known
    assert track.moving
    assert track.source == "droid"
    assert track.covariance is None


def lost_in(*frames):
    pose = arrays()["world_from_cam"]
    pose[list(frames)] = np.nan
    return pose


DAMAGE = {
    r"segments \[0, 4\] must be growing": {"segments": np.array([0, 4])},
    r"segments \[5, 5\] must be growing": {"segments": np.array([5, 5])},
    r"within 1..11": {"segments": np.array([4, 12])},
    "segments holds float64": {"segments": np.array([4.0])},
    "segments has shape": {"segments": np.array([[4], [6]])},
    "lost has shape": {"lost": np.zeros(3, dtype=bool)},
    "lost holds int64": {"lost": np.zeros(COUNT, dtype=np.int64)},
    r"lost in all frames 4-6 of a segment": {
        "world_from_cam": lost_in(4, 5, 6),
        "segments": np.array([4, 7]),
    },
    r"lost in all frames 0-11;": {"world_from_cam": lost_in(*range(COUNT))},
    "point_segments must be": {"points": np.ones((2, 3)), "point_segments": np.array([0, 1])},
    "focal_sigma 0.0": {"focal_sigma": np.array(0.0)},
    "lacks intrinsics": {"intrinsics": None},
    r"\(3, 4\)": {"intrinsics": np.ones((3, 4))},
    "frame 4 is not a rotation": {"world_from_cam": reflected()},
    "frame 7 is not finite": {"world_from_cam": with_nan()},
    "holds no pose": {"world_from_cam": np.zeros((0, 4, 4))},
    "focal": {"intrinsics": np.zeros((COUNT, 4))},
    "last row": {"world_from_cam": arrays()["world_from_cam"] * np.array([1, 1, 1, 2.0])[:, None]},
    "numbers": {"moving": np.array("yes")},
    "covariance": {"covariance": np.zeros((COUNT, 3, 3))},
    "pickled objects": {"source": np.array({"a": 1}, dtype=object)},
}


@pytest.mark.parametrize(("message", "change"), DAMAGE.items())
def test_damaged_npz(tmp_path, message, change):
    with pytest.raises(InputError, match=message):
        read_cameras(saved(tmp_path, **change), frame_count=COUNT)


def test_segments_and_lost_frames_round_trip(tmp_path):
    whole = read_cameras(
        saved(
            tmp_path,
            segments=np.array([5, 9]),
            world_from_cam=lost_in(2, 4, 9),
            points=np.ones((2, 3)),
            point_segments=np.array([0, 2]),
            focal_sigma=np.array(0.15),
        ),
        frame_count=COUNT,
    )
    assert whole.segments.tolist() == [5, 9]
    assert whole.lost.nonzero().flatten().tolist() == [2, 4, 9]
    np.savez(tmp_path / "again.npz", **to_arrays(whole))
    again = read_cameras(tmp_path / "again.npz", frame_count=COUNT)
    for name in ("world_from_cam", "segments", "lost", "point_segments", "focal_sigma"):
        assert torch.equal(getattr(whole, name), getattr(again, name)), name


def test_lost_frames_are_filled_from_their_own_segment(tmp_path):
    path = saved(tmp_path, segments=np.array([5]), world_from_cam=lost_in(2, 4, 5))
    filled = read_cameras(path, frame_count=COUNT).world_from_cam
    pose = torch.from_numpy(arrays()["world_from_cam"])
    torch.testing.assert_close(filled[2, :3, 3], (pose[1, :3, 3] + pose[3, :3, 3]) / 2)
    torch.testing.assert_close(filled[4], pose[3])  # the ends of a segment hold
    torch.testing.assert_close(filled[5], pose[6])


def test_frames_that_a_file_calls_lost_keep_what_stands_there(tmp_path):
    lost = np.zeros(COUNT, dtype=bool)
    lost[3] = True
    track = read_cameras(saved(tmp_path, lost=lost), frame_count=COUNT)
    assert np.array_equal(track.world_from_cam.numpy(), arrays()["world_from_cam"])
    assert track.lost.tolist() == lost.tolist()


def test_words_on_lost_frames():
    lost = torch.zeros(120, dtype=torch.bool)
    lost[[3, 10, 11, 12]] = True
    assert lost_note(lost) == (
        "camera lost in frames 3, 10-12 (4 of 120): bridged between the nearest known poses"
    )
    assert lost_note(lost, [4, 13]).endswith("; 4 of them have one on one side only, which is held")
    lost[20::2] = True
    assert "and 46 more places" in lost_note(lost)


def test_other_number_of_frames(tmp_path):
    with pytest.raises(InputError, match="12 camera poses but the sequence has 13"):
        read_cameras(saved(tmp_path), frame_count=13)


def test_truncated_and_absent(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(InputError, match="damaged"):
        read_cameras(path, frame_count=COUNT)
    with pytest.raises(InputError, match="does not exist"):
        read_cameras(tmp_path / "none.npz", frame_count=COUNT)


def tum(tmp_path, text=None, *, frames=range(COUNT), stamps=None):
    pose = torch.from_numpy(arrays()["world_from_cam"])[list(frames)]
    quaternion = roma.rotmat_to_unitquat(pose[:, :3, :3])
    stamps = np.array(frames) / 30 if stamps is None else stamps
    rows = np.concatenate([stamps[:, None], pose[:, :3, 3].numpy(), quaternion.numpy()], axis=1)
    path = tmp_path / "path.txt"
    if text is None:
        np.savetxt(path, rows, header="timestamp tx ty tz qx qy qz qw")
    else:
        path.write_text(text)
    return path


def test_tum_round_trip(tmp_path):
    intrinsics = torch.tensor([500.0, 500.0, 320.0, 240.0])
    track = read_cameras(
        tum(tmp_path), frame_count=COUNT, intrinsics=intrinsics, image_size=(640, 480)
    )
    expected = torch.from_numpy(arrays()["world_from_cam"])
    torch.testing.assert_close(track.world_from_cam, expected, atol=1e-9, rtol=0)
    assert track.moving
    assert not track.scale_known


@pytest.mark.parametrize("unit", ["seconds", "frame numbers"])
def test_tum_without_some_frames(tmp_path, unit):
    kept = np.array([0, 1, 2, 3, 6, 7, 8, 9, 11])
    path = tum(tmp_path, frames=kept, stamps=kept / 30 if unit == "seconds" else kept * 1.0)
    track = read_cameras(
        path,
        frame_count=COUNT,
        times=torch.arange(COUNT) / 30.0,
        intrinsics=torch.ones(4),
        image_size=(640, 480),
    )
    expected = torch.from_numpy(arrays()["world_from_cam"])
    torch.testing.assert_close(track.world_from_cam[kept], expected[kept], atol=1e-9, rtol=0)
    assert track.lost.nonzero().flatten().tolist() == [4, 5, 10]


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (100 + np.arange(5) / 30, "is at no frame"),
        (np.arange(5) / 300, "do not say which"),
    ],
)
def test_tum_stamps_that_fit_no_frames(tmp_path, stamps, message):
    with pytest.raises(InputError, match=message):
        read_cameras(
            tum(tmp_path, frames=range(5), stamps=stamps),
            frame_count=COUNT,
            times=torch.arange(COUNT) / 30.0,
            intrinsics=torch.ones(4),
            image_size=(640, 480),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 nan 0 0 0 0 1\n", "pose 0 is not finite"),
        ("a b c\n", "numbers"),
        ("0 1 2 3\n", "8 numbers"),
        ("0 0 0 0 0 0 0 2\n", "length 1"),
        ("1 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1\n", "increase"),
    ],
)
def test_damaged_tum(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_cameras(
            tum(tmp_path, text), frame_count=None, intrinsics=torch.ones(4), image_size=(6, 4)
        )


def test_tum_needs_intrinsics(tmp_path):
    with pytest.raises(InputError, match="intrinsics"):
        read_cameras(tum(tmp_path), frame_count=COUNT)


def colmap(tmp_path, frames, *, binary=True, model="PINHOLE"):
    import pycolmap

    pose = arrays()["world_from_cam"]
    reconstruction = pycolmap.Reconstruction()
    params = [500.0, 510.0, 320.0, 240.0] if model == "PINHOLE" else [500.0, 320.0, 240.0, 0.1]
    reconstruction.add_camera_with_trivial_rig(
        pycolmap.Camera(model=model, width=640, height=480, params=params, camera_id=1)
    )
    for number, frame in enumerate(frames, start=1):
        image = pycolmap.Image(name=f"shot2_{frame}.jpg", camera_id=1, image_id=number)
        world_from_cam = pycolmap.Rigid3d(pose[frame, :3])
        reconstruction.add_image_with_trivial_frame(image, world_from_cam.inverse())
    folder = tmp_path / "model"
    folder.mkdir()
    (reconstruction.write_binary if binary else reconstruction.write_text)(folder)
    return folder


@pytest.mark.parametrize("binary", [True, False])
def test_colmap_round_trip(tmp_path, binary):
    shuffled = [3, 11, 0, 1, 2, 10, 4, 5, 6, 7, 8, 9]
    track = read_cameras(colmap(tmp_path, shuffled, binary=binary), frame_count=COUNT)
    expected = torch.from_numpy(arrays()["world_from_cam"])
    torch.testing.assert_close(track.world_from_cam, expected, atol=1e-9, rtol=0)
    assert track.intrinsics[3].tolist() == [500.0, 510.0, 320.0, 240.0]
    assert track.notes == ()


def test_colmap_gaps_are_interpolated_and_noted(tmp_path):
    kept = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    track = read_cameras(colmap(tmp_path, kept), frame_count=COUNT)
    pose = torch.from_numpy(arrays()["world_from_cam"])
    torch.testing.assert_close(track.world_from_cam[kept], pose[kept], atol=1e-9, rtol=0)
    middle = (pose[4, :3, 3] + pose[6, :3, 3]) / 2
    torch.testing.assert_close(track.world_from_cam[5, :3, 3], middle)
    before = roma.rotmat_geodesic_distance(pose[4, :3, :3], track.world_from_cam[5, :3, :3])
    after = roma.rotmat_geodesic_distance(pose[6, :3, :3], track.world_from_cam[5, :3, :3])
    torch.testing.assert_close(before, after)
    assert track.lost.nonzero().flatten().tolist() == [5]


def test_colmap_errors(tmp_path):
    with pytest.raises(InputError, match=r"images\.bin"):
        read_cameras(tmp_path, frame_count=COUNT)
    folder = colmap(tmp_path, [0, 1, 2])
    with pytest.raises(InputError, match="distinct frames"):
        read_cameras(folder, frame_count=2)


def test_colmap_distortion_is_refused(tmp_path):
    with pytest.raises(InputError, match="undistort"):
        read_cameras(colmap(tmp_path, range(COUNT), model="SIMPLE_RADIAL"), frame_count=COUNT)
