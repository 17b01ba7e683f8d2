"""Cuts: found between shots, not in flashes, pans, new exposure, dissolves or real single shots."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from slamhmr.shots import cuts_among, detect_cuts
from slamhmr.video import VideoWriter, open_video, read_frames

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "videos"
NAMES = (
    "basketball_static.mp4", "pedestrians_static.avi", "walk_forest_moving.mp4",
    "wall_jump_static.mp4", "beam_multiview/cam01.mp4", "beam_multiview/cam02.mp4",
    "beam_multiview/cam03.mp4", "beam_multiview/cam04.mp4",
)  # fmt: skip
SIZE = (192, 108)
PIECE = 15  # frames on each side of a cut


def world(seed: int, width: int = 2000) -> np.ndarray:
    """Coarse and fine coloured texture (216, width, 3)."""
    rng = np.random.default_rng(seed)
    layers = []
    for cell, strength in ((48, 40), (16, 25), (5, 15)):
        shape = (216 // cell + 2, width // cell + 2, 3)
        coarse = rng.normal(0, strength, shape).astype(np.float32)
        layers.append(cv2.resize(coarse, (width, 216), interpolation=cv2.INTER_CUBIC))
    return np.clip(120 + sum(layers), 0, 255).astype(np.uint8)


def shot(seed: int, frames: int = 30, speed: float = 2.0, start: float = 100.0) -> np.ndarray:
    """Frames (T,108,192,3) of a camera that pans at `speed` px per frame while a box walks by."""
    texture = world(seed)
    images = []
    for frame in range(frames):
        left = start + speed * frame
        view = np.array([[1, 0, -left], [0, 1, -40.0]])
        image = cv2.warpAffine(texture, view, SIZE)
        x = int(20 + 3 * frame) % 150
        image[40:90, x : x + 20] = (30, 60, 200)
        images.append(image)
    return np.stack(images)


def cuts(*parts: np.ndarray) -> list[int]:
    return list(cuts_among(np.concatenate(parts)))


@pytest.mark.parametrize(("first", "second"), [(1, 2), (3, 4), (5, 6)])
def test_cuts_between_shots_are_found(first, second):
    assert cuts(shot(first), shot(second)) == [30]
    assert cuts(shot(second, 8), shot(first, 7), shot(second, 20)) == [8, 15]


def test_a_shot_that_jumps_ahead_is_cut():
    assert cuts(shot(1, 20), shot(1, 20, start=260)) == [20]


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bright", "black", "other"])
def test_a_flash_is_no_cut(length, kind):
    images = shot(1, 40)
    lit = images[20 : 20 + length]
    flash = {
        "bright": np.clip(lit.astype(int) * 2 + 60, 0, 255).astype(np.uint8),
        "black": np.zeros_like(lit),
        "other": shot(2, length),
    }
    images[20 : 20 + length] = flash[kind]
    assert cuts(images) == []


@pytest.mark.parametrize("gain", [0.5, 0.7, 1.4])
def test_new_exposure_is_no_cut(gain):
    images = shot(1, 40)
    images[20:] = np.clip(images[20:] * gain, 0, 255)
    assert cuts(images) == []


@pytest.mark.parametrize("speed", [5, 20, 50])
def test_a_fast_pan_is_no_cut(speed):
    """50 px per frame of a view of 192 px: over in four frames."""
    texture, images = world(3), []
    steps = np.concatenate([np.zeros(15), np.full(max(4, 190 // speed), speed), np.zeros(15)])
    steps = np.convolve(steps, [0.25, 0.5, 0.25], mode="same")
    for left in 300 + np.cumsum(steps):
        view = np.array([[1, 0, -left], [0, 1, -40.0]])
        images.append(cv2.warpAffine(texture, view, SIZE))
    assert cuts(np.stack(images)) == []


def test_a_jolt_of_the_camera_is_no_cut():
    texture = world(1)
    before, after = (texture[40:148, left : left + 192][None].repeat(20, 0) for left in (100, 130))
    assert cuts(before, after) == []


@pytest.mark.parametrize("length", [8, 20])
def test_a_dissolve_is_not_claimed(length):
    share = np.clip((np.arange(40) - 10) / length, 0, 1)[:, None, None, None]
    mixed = (1 - share) * shot(1, 40) + share * shot(2, 40)
    assert cuts(mixed.astype(np.uint8)) == []


def test_a_cut_too_near_the_ends_is_not_claimed():
    assert cuts(shot(1, 1), shot(2, 20)) == []
    assert cuts(shot(1, 20), shot(2, 1)) == []
    assert cuts(shot(1, 3), shot(2, 20)) == [3]
    assert cuts(shot(1, 2)) == []


@pytest.mark.parametrize("size", [(16, 12), (192, 12), (20, 192)])
def test_images_of_any_size_are_compared(size):
    small = [np.stack([cv2.resize(i, size) for i in shot(seed, 12)]) for seed in (1, 2)]
    assert cuts(*small) == [12]


def test_frames_of_a_file_count_from_the_first_kept_one(tmp_path):
    path = tmp_path / "two.mp4"
    with VideoWriter(path, 30, (384, 216)) as writer:
        for image in np.concatenate([shot(1, 25), shot(2, 25)]):
            writer.write(cv2.resize(image, (384, 216)))
    assert detect_cuts(open_video(path), progress=False) == (25,)
    assert detect_cuts(open_video(path, frames=(10, 45)), progress=False) == (15,)


def test_image_folders_are_read(tmp_path):
    for number, image in enumerate(np.concatenate([shot(1, 12), shot(2, 12)])):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[..., ::-1])
    assert detect_cuts(open_video(tmp_path), progress=False) == (12,)


@pytest.fixture(scope="module")
def clips() -> dict[str, np.ndarray]:
    """The first 200 small frames of every real clip, all of one size."""
    found = {}
    for name in NAMES:
        if not (CLIPS / name).exists():
            pytest.skip(f"{name} is not in a folder 'shared/videos' beside the repository")
        frames = read_frames(open_video(CLIPS / name), longest=SIZE[0])
        kept = (image for _, image in itertools.islice(frames, 200))
        found[name] = np.stack([cv2.resize(image, SIZE) for image in kept])
    return found


@pytest.mark.slow
def test_single_real_shots_have_no_cut(clips):
    found = {(name, n): cuts(clips[name][::n]) for name in NAMES for n in (1, 2, 3)}
    assert found == dict.fromkeys(found, [])


@pytest.mark.slow
def test_cuts_between_real_shots_are_all_found(clips):
    """Both orders of every pair, four views of one scene among them."""
    found = {}
    for first, second in itertools.permutations(NAMES, 2):
        middles = (len(clips[first]) // 2, len(clips[second]) // 2)
        pieces = (clips[first][middles[0] :][:PIECE], clips[second][middles[1] :][:PIECE])
        found[first, second] = cuts(*pieces)
    assert found == dict.fromkeys(found, [PIECE])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seconds"), [(NAMES[2], 2), (NAMES[2], 4), (NAMES[5], 1)])
def test_real_shots_that_jump_ahead_are_cut(clips, name, seconds):
    images, rate = clips[name], 24 if name == NAMES[2] else 60
    ahead = seconds * rate
    starts = range(0, len(images) - ahead - 2 * PIECE, 9)
    found = {
        start: cuts(
            images[start : start + PIECE],
            images[start + PIECE + ahead : start + 2 * PIECE + ahead],
        )
        for start in starts
    }
    assert found == dict.fromkeys(starts, [PIECE])
