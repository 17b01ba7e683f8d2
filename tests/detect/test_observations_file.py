"""Reading observations.npz: what the contract allows is read, everything else is one clear line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slamhmr.detect.file import read_observations
from slamhmr.errors import InputError
from slamhmr.skeleton import COCO_KEYPOINTS

PEOPLE, FRAMES = 2, 5


def arrays(names: tuple[str, ...] = COCO_KEYPOINTS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    count = len(names)
    return {
        "person_id": np.array([3, 7]),
        "keypoints": rng.uniform(10, 90, (PEOPLE, FRAMES, count, 2)).astype(np.float32),
        "confidence": rng.uniform(0.2, 1.0, (PEOPLE, FRAMES, count)).astype(np.float32),
        "keypoint_names": np.array(names),
        "image_size": np.array([100, 120]),
        "fps": np.array(25.0),
    }


def write(path: Path, content: dict[str, np.ndarray]) -> Path:
    np.savez(path, **content)
    return path


def test_minimal_file_gets_times_and_boxes(tmp_path: Path):
    content = arrays()
    content["confidence"][1, 2] = 0
    content["keypoints"][1, 2] = np.nan  # allowed where nothing is seen
    read = read_observations(write(tmp_path / "observations.npz", content))
    assert read.person_id.tolist() == [3, 7]
    assert read.image_size == (100, 120)
    assert torch.allclose(read.timestamps, torch.arange(FRAMES).double() / 25)
    assert read.keypoints.isfinite().all()
    assert read.boxes[1, 2].isnan().all()
    assert read.seen.tolist()[1] == [True, True, False, True, True]
    box, points = read.boxes[0, 0], read.keypoints[0, 0]
    assert (points >= box[:2]).all()
    assert (points <= box[2:]).all()


def test_foreign_names_become_canonical_and_unused_ones_are_left_out(tmp_path: Path):
    content = arrays(("Neck", "LBigToe", "left_foot", "Nose")[:2] + ("RHeel", "nose"))
    read = read_observations(write(tmp_path / "o.npz", content))
    assert read.keypoint_names == ("left_big_toe", "right_heel", "nose")
    assert np.allclose(read.keypoints[..., 0, :], content["keypoints"][:, :, 1])
    assert np.allclose(read.confidence[..., 2], content["confidence"][:, :, 3])


def without(key: str):
    return lambda c: c.pop(key)


def put(key: str, value: object):
    return lambda c: c.__setitem__(key, np.asarray(value))


def poke(key: str, at: tuple, value: float):
    def change(content: dict[str, np.ndarray]) -> None:
        content[key][at] = value

    return change


BROKEN = {
    "missing key": (without("confidence"), "lacks confidence"),
    "people first": (put("keypoints", np.zeros((5, 17, 2))), r"must be \(N,T,K,2\)"),
    "nobody": (put("keypoints", np.zeros((0, 5, 17, 2))), "nobody or no frame"),
    "lengths": (put("confidence", np.ones((2, 4, 17))), r"must be \(2, 5, 17\)"),
    "names short": (put("keypoint_names", ["nose"]), "keypoint_names has shape"),
    "times short": (put("timestamps", np.arange(4.0)), "timestamps has shape"),
    "times fall": (put("timestamps", [0, 1, 1, 2, 3.0]), "not rising at frame 2"),
    "fps": (put("fps", 0.0), "fps is 0.0"),
    "fps text": (put("fps", "fast"), "fps has type"),
    "id real": (put("person_id", [1.0, 2.0]), "whole numbers"),
    "id twice": (put("person_id", [1, 1]), "not unique"),
    "image size": (put("image_size", [0, 10]), "image_size is"),
    "confidence": (poke("confidence", (1, 3, 0), 1.5), "person 7, frame 3, keypoint 'nose'"),
    "confidence nan": (poke("confidence", (0, 1, 2), np.nan), "person 3, frame 1"),
    "nan": (poke("keypoints", (0, 4, 5, 1), np.nan), "person 3, frame 4, keypoint 'left_shoulder'"),
    "unseen": (put("confidence", np.zeros((2, 5, 17))), "nobody is seen"),
    "unknown name": (poke("keypoint_names", 3, "left_wing"), "known: nose, left_eye"),
    "twice": (poke("keypoint_names", 3, "LEye"), "both mean 'left_eye'"),
    "box order": (put("boxes", np.tile([5.0, 5, 4, 9], (2, 5, 1))), "box is not"),
    "box shape": (put("boxes", np.zeros((2, 5, 2))), "boxes has shape"),
    "objects": (put("keypoint_names", np.array([{}] * 17, dtype=object)), "pickled objects"),
}


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_broken_file_is_one_clear_line(tmp_path: Path, case: str):
    change, message = BROKEN[case]
    content = arrays()
    change(content)
    path = write(tmp_path / "observations.npz", content)
    with pytest.raises(InputError, match=message) as caught:
        read_observations(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_text_and_missing_files_are_refused(tmp_path: Path):
    path = write(tmp_path / "observations.npz", arrays())
    whole = path.read_bytes()
    for length in (len(whole) // 2, 40, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="truncated|damaged"):
            read_observations(path)
    damaged = bytearray(whole)
    damaged[300:340] = bytes(40)
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="truncated|damaged"):
        read_observations(path)
    with pytest.raises(InputError, match="does not exist"):
        read_observations(tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="not an npz"):
        read_observations(tmp_path / "one.npy")


def test_a_seen_person_without_a_box_gets_one(tmp_path: Path):
    given = arrays() | {"boxes": np.full((2, FRAMES, 4), np.nan)}
    given["boxes"][1] = [10, 20, 30, 60]
    read = read_observations(write(tmp_path / "observations.npz", given))
    assert torch.isfinite(read.boxes[0][read.seen[0]]).all()
    assert (read.boxes[1] == torch.tensor([10.0, 20, 30, 60])).all()
