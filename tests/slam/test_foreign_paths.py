"""Paths of MegaSaM, DPVO and MASt3R-SLAM: written as they write them, from truth, and read back."""

import numpy as np
import pytest
import roma
import torch

from slamhmr.errors import InputError
from slamhmr.geometry import rigid
from slamhmr.slam.file import read_cameras

COUNT, SIZE = 30, (1280, 720)
INTRINSICS = torch.tensor([1000.0, 1010.0, 655.0, 350.0], dtype=torch.float64)


def true_path(count=COUNT):
    t = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    turn = torch.cat([0.3 * t, -0.5 * t, 0.1 * torch.sin(5 * t)], 1)
    return rigid(roma.rotvec_to_rotmat(turn), torch.cat([2 * t, -t * t, 0.5 * t], 1))


def read(path, count=COUNT, fps=30.0, size=SIZE):
    times = torch.arange(count, dtype=torch.float64) / fps
    return read_cameras(
        path, frame_count=count, intrinsics=INTRINSICS, image_size=size, times=times
    )


def megasam(path, *, count=COUNT, **changes):
    """As its test_demo.py: pictures reduced to 384 x 512 px, cut to multiples of 8, K with them."""
    width, height = SIZE
    h1 = int(height * np.sqrt((384 * 512) / (height * width)))
    w1 = int(width * np.sqrt((384 * 512) / (height * width)))
    # Edges of pixels are at whole numbers in ours; its pixel centres are.
    fx, fy, cx, cy = INTRINSICS.tolist()
    matrix = np.eye(3)
    matrix[0] = [fx * w1 / width, 0, cx * w1 / width - 0.5]
    matrix[1] = [0, fy * h1 / height, cy * h1 / height - 0.5]
    content = {
        "images": np.zeros((count, h1 - h1 % 8, w1 - w1 % 8, 3), np.uint8),
        "depths": np.ones((1,), np.float32),
        "intrinsic": matrix,
        "cam_c2w": true_path(count).numpy().astype(np.float32),
    } | changes
    np.savez(path, **{name: value for name, value in content.items() if value is not None})
    return path


def test_megasam_round_trip(tmp_path):
    track = read(megasam(tmp_path / "cameras.npz"))
    torch.testing.assert_close(track.world_from_cam, true_path(), atol=1e-6, rtol=0)
    torch.testing.assert_close(track.intrinsics, INTRINSICS.repeat(COUNT, 1))
    assert track.image_size == SIZE
    assert track.moving
    assert not track.scale_known
    assert track.notes == ("focal length of MegaSaM: 1000 px",)


DAMAGE = {
    "was made from other pictures: it holds 512 x 384 px": {
        "images": np.zeros((COUNT, 384, 512, 3), np.uint8)
    },
    "lacks intrinsic": {"intrinsic": None},
    r"cam_c2w has shape \(4, 4\)": {"cam_c2w": np.eye(4)},
    "frame 0 is not a rotation": {"cam_c2w": 2 * true_path().numpy()},
}


@pytest.mark.parametrize(("message", "change"), DAMAGE.items())
def test_damaged_megasam(tmp_path, message, change):
    with pytest.raises(InputError, match=message):
        read(megasam(tmp_path / "cameras.npz", **change))


def test_megasam_of_another_length(tmp_path):
    path = megasam(tmp_path / "cameras.npz", cam_c2w=true_path(1000).numpy())
    with pytest.raises(InputError, match="1000 poses but .* 1200 frames; MegaSaM saves 1000"):
        read(path, 1200)


def test_megasam_without_the_size_of_the_video(tmp_path):
    with pytest.raises(InputError, match="does not hold the size"):
        read_cameras(megasam(tmp_path / "cameras.npz"), frame_count=COUNT)


def tum(path, stamps, frames, count=COUNT):
    """Lines of stamp, centre and quaternion xyzw of some frames."""
    poses = true_path(count)[list(frames)]
    rows = torch.cat([poses[:, :3, 3], roma.rotmat_to_unitquat(poses[:, :3, :3])], 1).numpy()
    lines = [" ".join(map(str, (s, *row))) for s, row in zip(stamps, rows, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_dpvo_round_trip(tmp_path):
    stamps = np.arange(COUNT, dtype=np.float64)  # evo writes them as floats
    track = read(tum(tmp_path / "cameras.txt", stamps, range(COUNT)), fps=24.0)
    torch.testing.assert_close(track.world_from_cam, true_path(), atol=1e-9, rtol=0)
    assert track.lost is None


@pytest.mark.parametrize(("stride", "count"), [(2, 30), (2, 31), (3, 31)])
def test_dpvo_with_a_stride_is_told(tmp_path, stride, count):
    frames = range(0, count, stride)
    path = tum(tmp_path / "cameras.txt", np.arange(len(frames)) * 1.0, frames, count)
    with pytest.raises(InputError, match=rf"stride of {stride} .*multiply the time stamps"):
        read(path, count)
    path = tum(tmp_path / "cameras.txt", np.array(frames) * 1.0, frames, count)
    poses = read(path, count).world_from_cam
    torch.testing.assert_close(poses[::stride], true_path(count)[::stride], atol=1e-9, rtol=0)


@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0, 50.0, 59.94, 60.0, 15.0])
def test_mast3r_slam_round_trip(tmp_path, fps):
    """Keyframes alone, stamped number / 30 in float32 whatever the rate of the pictures."""
    keys = [0, 1, 3, 4, 6, 9, 10, 13, 15, 16, 18, 19, 21, 22, 24, 27, 28]
    stamps = np.arange(COUNT).astype(np.float32) / 30.0
    track = read(tum(tmp_path / "cameras.txt", stamps[keys].tolist(), keys), fps=fps)
    torch.testing.assert_close(track.world_from_cam[keys], true_path()[keys], atol=1e-9, rtol=0)
    assert track.lost.nonzero().flatten().tolist() == sorted(set(range(COUNT)) - set(keys))
    assert any("MASt3R-SLAM" in note for note in track.notes) == (fps != 30.0)


@pytest.mark.parametrize("fps", [24.0, 30.0, 60.0])
def test_seconds_of_the_video_stay_seconds(tmp_path, fps):
    keys = [0, 2, 3, 7, 20, 29]
    track = read(tum(tmp_path / "cameras.txt", [key / fps for key in keys], keys), fps=fps)
    torch.testing.assert_close(track.world_from_cam[keys], true_path()[keys], atol=1e-9, rtol=0)
    assert track.notes == ()
