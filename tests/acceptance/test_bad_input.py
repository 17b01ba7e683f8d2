"""Bad input through the command line: one clear line, a non-zero exit, nothing lost.

What needs no solver at all (missing folders, empty videos, unknown keys) is in tests/test_cli.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scenes import contents, start_python
from sequences import write_sequence

from slamhmr import cli
from slamhmr.detect.models import DETECTOR, FULL, cache_folder
from slamhmr.video import VideoWriter

Change = Callable[[dict[str, np.ndarray]], None]


def rewrite(path: Path, change: Change) -> None:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def cut_off(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def not_a_number(arrays: dict[str, np.ndarray]) -> None:
    arrays["keypoints"][0, 3, 5] = np.nan


def first_frames(count: int) -> Change:
    def change(arrays: dict[str, np.ndarray]) -> None:
        for key in ("keypoints", "confidence", "boxes"):
            arrays[key] = arrays[key][:, :count]
        arrays["timestamps"] = arrays["timestamps"][:count]

    return change


def first_cameras(count: int) -> Change:
    def change(arrays: dict[str, np.ndarray]) -> None:
        for key in ("world_from_cam", "intrinsics"):
            arrays[key] = arrays[key][:count]

    return change


def renamed(arrays: dict[str, np.ndarray]) -> None:
    names = arrays["keypoint_names"].tolist()
    arrays["keypoint_names"] = np.array(["tail", *names[1:]])


def pickled(arrays: dict[str, np.ndarray]) -> None:
    arrays["person_id"] = np.array([{"id": 1}], dtype=object)


def unseen(arrays: dict[str, np.ndarray]) -> None:
    arrays["confidence"][:] = 0


def another_size(arrays: dict[str, np.ndarray]) -> None:
    arrays["image_size"] = np.array([1280, 720])


def sheared(arrays: dict[str, np.ndarray]) -> None:
    arrays["world_from_cam"][2, 0, 1] += 0.3


OBSERVATIONS, CAMERAS, INITIAL = "observations.npz", "cameras.npz", "initial.npz"
# What is done to a good directory, what else is said, what the message names.
BAD: dict[str, tuple[Callable[[Path], object], list[str], tuple[str, ...]]] = {
    "NaN keypoints": (
        lambda d: rewrite(d / OBSERVATIONS, not_a_number), [],
        (OBSERVATIONS, "frame 3", "left_shoulder"),
    ),
    "fewer observations than cameras": (
        lambda d: rewrite(d / OBSERVATIONS, first_frames(5)), [], (CAMERAS, " 8 ", " 5 "),
    ),
    "fewer cameras than observations": (
        lambda d: rewrite(d / CAMERAS, first_cameras(6)), [], (CAMERAS, " 6 ", " 8 "),
    ),
    "one frame": (
        lambda d: (
            rewrite(d / OBSERVATIONS, first_frames(1)), rewrite(d / CAMERAS, first_cameras(1)),
        ),
        [], ("1 frame", "at least 2"),
    ),
    "unknown keypoint name": (
        lambda d: rewrite(d / OBSERVATIONS, renamed), [], ("'tail'", "left_shoulder"),
    ),
    "nobody seen": (lambda d: rewrite(d / OBSERVATIONS, unseen), [], ("nobody",)),
    "pickled objects": (lambda d: rewrite(d / OBSERVATIONS, pickled), [], (OBSERVATIONS,)),
    "cameras for other pictures": (
        lambda d: rewrite(d / CAMERAS, another_size), [], (CAMERAS, "(1280, 720)", "(320, 240)"),
    ),
    "cameras that are no rotations": (
        lambda d: rewrite(d / CAMERAS, sheared), [], (CAMERAS, "rotation"),
    ),
    "half of the observations": (lambda d: cut_off(d / OBSERVATIONS, 0.5), [], (OBSERVATIONS,)),
    "half of the cameras": (lambda d: cut_off(d / CAMERAS, 0.9), [], (CAMERAS,)),
    "half of the start": (lambda d: cut_off(d / INITIAL, 0.5), [], (INITIAL,)),
    "no bytes at all": (lambda d: cut_off(d / CAMERAS, 0), [], (CAMERAS,)),
    "scheduled stage that does not exist": (
        lambda d: None, ["schedule=[root,smoth]"], ("smoth", "smooth"),
    ),
    "misspelt stage": (lambda d: None, ["stages.smoth.iterations=3"], ("smoth",)),
    "unknown term": (lambda d: None, ["stages.root.terms.shine={}"], ("shine", "reprojection")),
    "unknown freedom": (lambda d: None, ["stages.root.free=[root,tail]"], ("tail", "root")),
    "number that is none": (
        lambda d: None, ["stages.root.iterations=many"], ("stages.root.iterations",),
    ),
}  # fmt: skip


def kept(folder: Path) -> dict[str, bytes]:
    """Every file but the log, which tells of refused runs too."""
    return {name: held for name, held in contents(folder).items() if Path(name).name != "log.txt"}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    code = cli.main(["optimize", "--seq", str(folder), "threads=1", *words])
    errors = capsys.readouterr().err
    assert code in (2, 4), errors
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if "error" in line]
    assert len(lines) == 1, errors
    assert errors.splitlines()[-1] == lines[0]
    assert lines[0].startswith("slamhmr: error: ")
    return lines[0]


@pytest.mark.parametrize("case", BAD)
def test_one_line_and_the_input_stays(tmp_path, capsys, case):
    spoil, words, named = BAD[case]
    spoil(write_sequence(tmp_path))
    before = contents(tmp_path)
    line = refused(capsys, tmp_path, *words)
    assert [name for name in named if name not in line] == [], line
    after = contents(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert not (tmp_path / "slamhmr" / ".lock").exists()
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: rewrite(d / OBSERVATIONS, not_a_number),
        lambda d: cut_off(d / CAMERAS, 0.5),
        lambda d: cut_off(d / INITIAL, 0.5),
    ],
)
def test_the_result_of_an_earlier_run_stays(tmp_path, capsys, spoil):
    write_sequence(tmp_path)
    assert cli.main(["optimize", "--seq", str(tmp_path), "threads=1", "schedule=[root]"]) in (0, 3)
    spoil(tmp_path)
    before = kept(tmp_path)
    assert "slamhmr/result.npz" in before
    refused(capsys, tmp_path, "schedule=[root]")
    assert kept(tmp_path) == before


HOLDER = """
import sys
from pathlib import Path
from slamhmr.runfolder import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    folder = write_sequence(tmp_path)
    holder = start_python(HOLDER, folder / "slamhmr")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        before = kept(tmp_path)
        assert f"in use by process {holder.pid}" in refused(capsys, folder)
        assert kept(tmp_path) == before
    finally:
        holder.communicate("\n", timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0, 40])
def test_a_video_without_people(tmp_path, capsys, noise):
    if not all((cache_folder() / name).is_file() for name in (DETECTOR, FULL)):
        pytest.skip("the BlazePose networks are not in the cache")
    random = np.random.default_rng(1)
    with VideoWriter(tmp_path / "video.mp4", 25.0, (320, 240)) as writer:
        for _ in range(12):
            picture = 120 + noise * random.standard_normal((240, 320, 3))
            writer.write(np.clip(picture, 0, 255).astype(np.uint8))
    before = contents(tmp_path)
    assert "nobody found" in refused(capsys, tmp_path)
    after = contents(tmp_path)
    assert after["video.mp4"] == before["video.mp4"]
    assert not (tmp_path / "slamhmr" / "result.npz").exists()
