"""`initial.npz`: a round trip, and one line for every way a file can be wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slamhmr.artifacts import load, save
from slamhmr.body import load_body
from slamhmr.errors import InputError
from slamhmr.init.file import OPTIONAL, REQUIRED, Options, initialise, read_initial
from slamhmr.types import CameraTrack, Initial, Observations

Arrays = dict[str, np.ndarray]


def good() -> Arrays:
    transform = np.tile(np.eye(4), (2, 5, 1, 1))
    transform[..., 2, 3] = 4.0
    return {
        "person_id": np.array([7, 3]),
        "cam_from_root": transform,
        "body_pose": np.full((2, 5, 21, 3), 0.1),
        "betas": np.zeros((2, 10)),
        "valid": np.ones((2, 5), dtype=bool),
        "confidence": np.full((2, 5, 22), 0.5),
        "contacts": np.full((2, 5, 4), 0.25),
        "rotation_sigma": np.full((2, 5, 22), 0.2),
        "up_cam": np.tile([0.0, -1.0, 0.0], (2, 5, 1)),
        "up_sigma": np.full((2, 5), 0.1),
        "root_velocity": np.full((2, 5, 3), 0.5),
        "root_velocity_sigma": np.full((2, 5, 3), 0.3),
    }


def write(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    arrays = good()
    initial = read_initial(write(tmp_path / "initial.npz", arrays))
    assert initial.person_id.tolist() == [7, 3]
    assert initial.cam_from_root.dtype == torch.float64
    assert initial.valid.dtype == torch.bool
    np.testing.assert_array_equal(initial.body_pose.numpy(), arrays["body_pose"])
    for key in OPTIONAL:
        np.testing.assert_array_equal(getattr(initial, key).numpy(), arrays[key])


def test_optional_keys_may_be_missing(tmp_path: Path) -> None:
    arrays = {key: value for key, value in good().items() if key not in OPTIONAL}
    initial = read_initial(write(tmp_path / "initial.npz", arrays))
    assert all(getattr(initial, key) is None for key in OPTIONAL)


def test_the_start_of_a_run_folder_is_read_as_any_other(tmp_path: Path) -> None:
    initial = read_initial(write(tmp_path / "initial.npz", good()))
    save(tmp_path / "3_initial.npz", initial, stamp={})
    for again in (
        load(tmp_path / "3_initial.npz", Initial),
        read_initial(tmp_path / "3_initial.npz"),
    ):
        for key in (*REQUIRED, *OPTIONAL):
            assert torch.equal(getattr(again, key), getattr(initial, key)), key


def damaged(key: str, value: np.ndarray) -> Arrays:
    arrays = good()
    arrays[key] = value
    return arrays


def with_entry(key: str, index: tuple[int, ...], value: float) -> Arrays:
    arrays = good()
    arrays[key] = arrays[key].copy()
    arrays[key][index] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({key: value for key, value in good().items() if key != "betas"}, "lacks betas"),
        (damaged("body_pose", np.zeros((2, 5, 63))), r"body_pose has shape \(2, 5, 63\)"),
        (damaged("valid", np.ones(5, dtype=bool)), "valid has shape"),
        (damaged("person_id", np.array([3, 3])), "repeats"),
        (damaged("betas", np.array([["a"] * 10] * 2)), "expected numbers"),
        (with_entry("body_pose", (0, 1, 2, 0), np.nan), "NaN or infinity"),
        (with_entry("confidence", (0, 0, 0), 1.5), "confidence must lie in 0..1"),
        (with_entry("contacts", (0, 0, 0), -0.1), "contacts must lie in 0..1"),
        (with_entry("rotation_sigma", (0, 1, 5), 0.0), "rotation_sigma must be above 0"),
        (with_entry("root_velocity_sigma", (1, 1, 2), -1.0), "must be above 0"),
        (with_entry("up_cam", (1, 1, 2), 1.0), "up_cam must be a unit vector"),
        (damaged("up_sigma", np.ones((2, 5, 1))), r"up_sigma has shape \(2, 5, 1\)"),
        ({k: v for k, v in good().items() if k != "up_sigma"}, "up_cam but not up_sigma"),
        (
            {k: v for k, v in good().items() if k != "root_velocity"},
            "root_velocity_sigma but not root_velocity; give both",
        ),
        (with_entry("cam_from_root", (1, 2, 0, 0), 2.0), "index 1, frame 2 is not a rigid"),
        (with_entry("cam_from_root", (1, 2, 0, 0), -1.0), "not a rigid"),
        (with_entry("cam_from_root", (0, 3, 2, 3), -4.0), "behind the camera in frame 3"),
    ],
)
def test_a_bad_file_is_named_in_one_line(arrays: Arrays, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_initial(write(tmp_path / "initial.npz", arrays))
    assert "\n" not in str(caught.value)
    assert "initial.npz" in str(caught.value)


def test_missing_truncated_and_pickled_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_initial(tmp_path / "initial.npz")
    whole = write(tmp_path / "initial.npz", good()).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_initial(tmp_path / "half.npz")
    pickled = damaged("betas", np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        read_initial(write(tmp_path / "pickled.npz", pickled))


def observed(people: list[int], frames: int) -> tuple[Observations, CameraTrack]:
    count = len(people)
    eye = torch.eye(4, dtype=torch.float64).expand(frames, 4, 4)
    observations = Observations(
        torch.tensor(people),
        torch.zeros(count, frames, 1, 2, dtype=torch.float64),
        torch.ones(count, frames, 1, dtype=torch.float64),
        ("nose",),
        torch.zeros(count, frames, 4, dtype=torch.float64),
        (64, 48),
        30.0,
        torch.arange(frames, dtype=torch.float64) / 30,
    )
    intrinsics = torch.ones(frames, 4, dtype=torch.float64)
    return observations, CameraTrack(eye, intrinsics, (64, 48), False, False, "static")


def test_people_come_in_the_order_of_the_observations(tmp_path: Path) -> None:
    arrays = with_entry("cam_from_root", (1, 0, 2, 3), 9.0)
    options = Options(str(write(tmp_path / "initial.npz", arrays)))
    body = load_body()
    initial = initialise(*observed([3, 7], 5), body, options)
    assert initial.person_id.tolist() == [3, 7]
    assert float(initial.cam_from_root[0, 0, 2, 3]) == 9.0
    with pytest.raises(InputError, match="lacks \\[4\\]"):
        initialise(*observed([3, 4], 5), body, options)
    with pytest.raises(InputError, match="5 frames, the observations have 6"):
        initialise(*observed([3, 7], 6), body, options)


def test_frames_that_are_not_valid_may_hold_anything_and_repeat_the_nearest(tmp_path: Path) -> None:
    arrays = good()
    arrays["valid"][0] = [False, True, False, False, True]
    arrays["cam_from_root"][0, ~arrays["valid"][0]] = 0
    arrays["body_pose"][0, 1] = 0.3
    arrays["up_cam"][0, ~arrays["valid"][0]] = 0
    arrays["rotation_sigma"][0, ~arrays["valid"][0]] = 0
    arrays["root_velocity"][0, 1] = 0.7
    options = Options(str(write(tmp_path / "initial.npz", arrays)))
    initial = initialise(*observed([3, 7], 5), load_body(), options)
    assert initial.valid[1].tolist() == [False, True, False, False, True]
    assert torch.equal(initial.cam_from_root[1, 0], initial.cam_from_root[1, 1])
    assert torch.equal(initial.cam_from_root[1, 3], initial.cam_from_root[1, 4])
    assert initial.body_pose[1, :, 0, 0].tolist() == [0.3, 0.3, 0.3, 0.1, 0.1]
    for key, expected in (
        ("confidence", [0.0, 0.5, 0.0, 0.0, 0.5]),
        ("contacts", [0.0, 0.25, 0.0, 0.0, 0.25]),
        ("rotation_sigma", [0.2] * 5),
        ("root_velocity", [0.7, 0.7, 0.7, 0.5, 0.5]),
    ):
        assert getattr(initial, key)[1, :, 0].tolist() == expected, key
    assert initial.up_cam is not None
    assert initial.up_cam[1, :, 1].tolist() == [-1.0] * 5


def test_the_nearest_valid_pose_is_taken_from_the_same_shot(tmp_path: Path) -> None:
    arrays = good()
    arrays["valid"][0] = [False, True, False, False, True]
    arrays["body_pose"][0, 1] = 0.3
    options = Options(str(write(tmp_path / "initial.npz", arrays)))
    initial = initialise(*observed([3, 7], 5), load_body(), options, cuts=(2,))
    assert initial.body_pose[1, :, 0, 0].tolist() == [0.3, 0.3, 0.1, 0.1, 0.1]


def test_somebody_who_is_never_valid_is_refused(tmp_path: Path) -> None:
    arrays = good()
    arrays["valid"][0] = False
    options = Options(str(write(tmp_path / "initial.npz", arrays)))
    with pytest.raises(InputError, match=r"person_id \[7\] are valid in no frame"):
        initialise(*observed([3, 7], 5), load_body(), options)
