"""What cannot be known is refused or flagged: the words and the exit code of every case.

Real runs of small sequences without pixels; nothing is made up but what is seen.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scenes import write_synthetic

from slamhmr import cli
from slamhmr.synth.scene import SceneSpec

FRAMES = 48
SWITCHED = 10  # frame from which on two people have each other's ids
OBSERVATIONS, CAMERAS = "observations.npz", "cameras.npz"
LEGS = ("hip", "knee", "ankle", "heel", "big_toe", "small_toe")
FEET = ("ankle", "heel", "big_toe", "small_toe")
TWO = "people: [1, 2]"  # ids that are named stay apart
IGNORED = shutil.ignore_patterns("slamhmr")  # runs
QUICK = "schedule=[root,motion]"
DONE, INPUT, BELOW, REFUSED = 0, 2, 3, 4
Arrays = dict[str, np.ndarray]
Change = Callable[[Path], object]
SCENES = {
    "follow": SceneSpec(seed=601, frames=FRAMES, motion="walk", camera="follow"),
    "static": SceneSpec(seed=602, frames=FRAMES, motion="walk", camera="static"),
    "rotation": SceneSpec(seed=603, frames=FRAMES, motion="walk", camera="rotation"),
    "two": SceneSpec(seed=604, frames=FRAMES, people=2, motion="walk", camera="static"),
    "restart": SceneSpec(
        seed=605, frames=FRAMES, people=2, motion="walk", camera="follow", slam_restarts=1,
        slam_lost_seconds=0.4,
    ),
    "cut": SceneSpec(seed=606, frames=FRAMES, people=2, motion="walk", camera="static", shots=2),
    "lost": SceneSpec(
        seed=607, frames=FRAMES, motion="walk", camera="follow", slam_lost_seconds=0.4
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    code: int
    said: str  # standard output and standard error
    folder: Path

    @property
    def report(self) -> dict:
        return json.loads((self.folder / "slamhmr" / "report.json").read_text())

    @property
    def result(self) -> Arrays:
        with np.load(self.folder / "slamhmr" / "result.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directory of a scene by its name, written once."""
    root = tmp_path_factory.mktemp("scenes")

    def ask(name: str) -> Path:
        if not (root / name).exists():
            write_synthetic(root / name, SCENES[name])
        return root / name

    return ask


@pytest.fixture
def run(tmp_path: Path, scenes: Callable[[str], Path]) -> Callable[..., Ran]:
    """Run the command line on a changed copy of a scene."""

    def ask(scene: str, change: Change | None = None, *words: str) -> Ran:
        folder = scenes(scene)  # unchanged scenes are solved once: limits only judge anew
        if change is not None:
            shutil.copytree(folder, folder := tmp_path / "clip", ignore=IGNORED)
            change(folder)
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            code = cli.main(["optimize", "--seq", str(folder), "threads=1", QUICK, *words])
        assert "Traceback" not in told.getvalue()
        return Ran(code, told.getvalue(), folder)

    return ask


def rewrite(path: Path, change: Callable[[Arrays], object]) -> None:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def unseen(
    person: int | None = None, frames: slice = slice(None), parts: tuple[str, ...] = ()
) -> Change:
    """Hide a row (everybody) in some frames: all of it, or the named parts."""
    rows = slice(None) if person is None else slice(person, person + 1)

    def change(arrays: Arrays) -> None:
        names = [str(name) for name in arrays["keypoint_names"]]
        hidden = [k for k, name in enumerate(names) if parts == () or name.endswith(parts)]
        for k in hidden:
            arrays["confidence"][rows, frames, k] = 0
        if parts == ():
            arrays["boxes"][rows, frames] = np.nan

    return lambda folder: rewrite(folder / OBSERVATIONS, change)


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def nobody_stands(frames: int = FRAMES) -> Change:
    """No foot ever touches anything, says the user."""
    lines = [
        f"- {{person: 1, frames: [0, {frames - 1}], point: {point}, touches: false}}"
        for point in ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
    ]
    return write("constraints.yaml", "contacts:\n" + "\n".join(lines) + "\n")


def only_poses(folder: Path) -> None:
    """The camera's path as a TUM file, which says nothing of the lens."""
    with np.load(folder / CAMERAS, allow_pickle=False) as file:
        poses = file["world_from_cam"]
    (folder / CAMERAS).unlink()
    import roma
    import torch

    quaternions = roma.rotmat_to_unitquat(torch.from_numpy(poses[:, :3, :3])).numpy()
    rows = [
        " ".join(f"{value:.9f}" for value in (t, *poses[t, :3, 3], *quaternions[t]))
        for t in range(len(poses))
    ]
    (folder / "cameras.txt").write_text("\n".join(rows) + "\n")
    (folder / "sequence.yaml").unlink()


def scrambled(person: int) -> Change:
    """Somebody whose keypoints lie anywhere in the picture, in every frame elsewhere."""

    def change(arrays: Arrays) -> None:
        width, height = arrays["image_size"]
        shape = arrays["keypoints"][person].shape[:2]
        random = np.random.default_rng(1)
        arrays["keypoints"][person] = random.uniform((0, 0), (width, height), (*shape, 2))

    return lambda folder: rewrite(folder / OBSERVATIONS, change)


def inside_each_other(arrays: Arrays) -> None:
    """The second person is seen exactly where the first one is, a little to the side."""
    for key in ("keypoints", "confidence", "boxes"):
        arrays[key][1] = arrays[key][0]
    arrays["keypoints"][1, ..., 0] += 2.0


def without_cameras(folder: Path) -> None:
    view = folder / "views" / "second"
    view.mkdir(parents=True)
    shutil.copy(folder / OBSERVATIONS, view)


def swapped_ids(arrays: Arrays) -> None:
    for key in ("keypoints", "confidence", "boxes"):
        arrays[key][:, SWITCHED:] = arrays[key][::-1, SWITCHED:].copy()


def first_frame(folder: Path) -> None:
    def shorten(arrays: Arrays) -> None:
        for key in ("keypoints", "confidence", "boxes"):
            arrays[key] = arrays[key][:, :1]
        arrays["timestamps"] = arrays["timestamps"][:1]

    rewrite(folder / OBSERVATIONS, shorten)


def upper_body(folder: Path) -> None:
    """The picture ends at the hips: what is below is not in it, but for stray detections."""

    def cut(arrays: Arrays) -> None:
        names = [str(name) for name in arrays["keypoint_names"]]
        rows = arrays["keypoints"][..., 1]
        height = int(np.median(rows[0, :, names.index("left_hip")])) // 2 * 2
        arrays["confidence"][rows >= height] = 0
        arrays["boxes"][..., 3] = np.minimum(arrays["boxes"][..., 3], height)
        arrays["image_size"][1] = height

    rewrite(folder / OBSERVATIONS, cut)
    with np.load(folder / OBSERVATIONS) as file:
        size = file["image_size"]
    rewrite(folder / CAMERAS, lambda arrays: arrays.update(image_size=size))


NEVER = slice(None)
FIRST, SECOND = slice(0, FRAMES // 2), slice(FRAMES // 2, None)
# The scene, what is changed, settings, the exit code, and words that are said.
CASES: dict[str, tuple[str, Change | None, tuple[str, ...], int, tuple[str, ...]]] = {
    "static camera": ("static", None, (), DONE, (
        "scale is not observable: the camera does not translate and no height is known",
        "% uncertain", "a child is taken for an adult further away: give `height_m`",
    )),
    "pure rotation": ("rotation", None, (), DONE, (
        "scale is not observable: the camera only turns: it does not translate",
    )),
    "nobody stands": ("static", nobody_stands(), (), DONE, (
        "the floor's height is not observable",
    )),
    "people float before a moving camera": ("follow", nobody_stands(), (), DONE, (
        "the floor's height is not observable", "the direction of gravity is not observable",
    )),
    "unknown scale": (
        "follow", both(nobody_stands(6), write("sequence.yaml", "frames: [0, 5]")), (), BELOW,
        ("below the gates: scale is",),
    ),
    "camera lost for some frames": ("lost", None, (), DONE, (
        "camera lost in frames", f"of {FRAMES})", "bridged between the nearest known poses",
    )),
    "camera lost in most frames": ("lost", None, ("gates.lost_share=0.1",), BELOW, (
        "below the gates: the camera is lost in",
    )),
    "focal length guessed": ("follow", only_poses, (), DONE, ("focal length guessed",)),
    "another focal length stated": (
        "follow", write("sequence.yaml", "intrinsics: [300, 300, 320, 180]"), (), DONE,
        ("the camera file's intrinsics", "are used, not those of sequence.yaml"),
    ),
    "SLAM restarts and nobody goes on": (
        "restart",
        both(unseen(0, slice(14, None)), unseen(1, slice(0, 34)), write("sequence.yaml", TWO)),
        (), BELOW,
        ("below the gates: 1 piece(s) of the clip lie in a world of their own",
         "lies to what was before is not observable: nobody is known to go on across it",),
    ),
    "cut and nobody is known again": (
        "cut", both(unseen(0, SECOND), unseen(1, FIRST)), (), BELOW,
        ("nothing is tracked, smoothed or solved across them", "nobody is known to go on"),
    ),
    "legs never seen": ("static", unseen(0, NEVER, LEGS), (), DONE, (
        "person 1: the legs are never seen",
    )),
    "feet never seen": ("static", unseen(0, NEVER, FEET), (), DONE, (
        "person 1: the feet are never seen; whether they stand, slide or float is not observable",
    )),
    "only the upper body in the picture": ("static", upper_body, (), DONE, (
        "person 1: the legs are never seen; their pose and whether the feet stand, slide or float",
        "the floor's height is not observable",
        "scale is not observable",
    )),
    "hopeless track": ("two", unseen(1, slice(3, None)), (), DONE, ("person 2 is left out",)),
    "hopeless tracks only": ("static", unseen(0, slice(1, None)), (), REFUSED, ("person 1",)),
    "people inside each other": (
        "two", lambda d: rewrite(d / OBSERVATIONS, inside_each_other),
        ("gates.overlap_cm=1",), BELOW, ("cm inside each other",),
    ),
    "views without calibration": ("static", without_cameras, (), INPUT, (
        "view 'second' has no cameras.npz", "slamhmr calibration",
    )),
    "nobody at all": ("static", unseen(), (), INPUT, ("nobody is seen",)),
    "one frame": ("static", first_frame, (), INPUT, ("frame",)),
    "no posterior": ("follow", None, ("posterior.enabled=false",), DONE, (
        "no posterior was computed: how sure the scale and all else is, is not known",
    )),
    "scale too uncertain": ("follow", None, ("gates.scale_percent=0.1",), BELOW, (
        "below the gates: scale is known to",
    )),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_and_the_exit_code_tells(run, case):
    scene, change, words, code, expected = CASES[case]
    ran = run(scene, change, *words)
    missing = [sentence for sentence in expected if sentence not in ran.said]
    assert missing == [], ran.said
    assert ran.code == code, ran.said
    if code in (DONE, BELOW):
        assert ran.report["passed"] is (code == DONE)
        for key, array in ran.result.items():
            assert array.dtype.kind != "f" or key == "scale_std" or np.isfinite(array).all(), key


def test_legs_outside_the_picture_are_stated_as_unsure(run):
    """Their joints have larger covariances than those of arms, which are seen."""
    ran = run("static", upper_body)
    variance = ran.result["joints_cov_root"][0].diagonal(axis1=-2, axis2=-1).sum(axis=-1)
    spread = np.sqrt(variance.mean(axis=0))
    knees, ankles, elbows = [4, 5], [7, 8], [18, 19]
    assert spread[knees].min() > 1.3 * spread[elbows].max()
    assert spread[ankles].min() > 1.8 * spread[elbows].max()


def test_a_gap_that_is_too_long_is_not_valid_and_the_others_pass(run):
    """Who leaves for half a second is the same person afterwards; a shorter limit fails the gap."""
    hidden = slice(16, 31)
    filled = run("two", unseen(1, hidden))
    assert filled.code == DONE
    assert filled.result["person_id"].tolist() == [1, 2]
    assert filled.result["valid"].all()
    assert (~filled.result["observed"]).nonzero()[1].tolist() == list(range(16, 31))
    failed = cli.main(
        ["optimize", "--seq", str(filled.folder), "threads=1", QUICK, "gates.gap_s=0.3"]
    )  # fmt: skip
    assert failed == DONE
    assert filled.result["valid"].sum(axis=1).tolist() == [FRAMES, FRAMES - 15]
    assert np.isfinite(filled.result["joints"]).all()
    sentence = "person 2, frames 16-30: not seen for 0.5 s; limit 0.3"
    assert filled.report["people"]["2"]["failures"] == [sentence]
    assert sentence in filled.report["notes"]
    assert filled.report["people"]["1"]["failures"] == []


def test_a_switch_of_ids_is_told(run):
    ran = run("two", lambda d: rewrite(d / OBSERVATIONS, swapped_ids))
    assert ran.code == DONE
    assert f"from frame {SWITCHED} on: the rows of the observations were exchanged" in ran.said, (
        ran.said
    )


def assert_tall_as_without(ran, whole):
    """The first person's bones are as long beside nonsense as beside a second person."""
    first, wanted = (
        float(np.linalg.norm(r.result["joints"][0] - r.result["joints"][0, :, :1], axis=-1).mean())
        for r in (ran, whole)
    )
    assert first == pytest.approx(wanted, rel=0.06)


def test_one_person_fails_alone(run):
    """Somebody whose keypoints are nonsense is not valid; the other is."""
    ran = run("two", scrambled(1), "gates.people=0.6", "gates.worse_than_start_percent=null")
    assert ran.result["valid"].all(axis=1).tolist() == [True, False], ran.said
    assert ran.code == DONE, ran.said
    assert "person 2: the keypoints are" in ran.said
    assert "no say in scale" in ran.said
    assert_tall_as_without(ran, run("two"))
    assert not ran.result["valid"][1].any()
    again = cli.main(["optimize", "--seq", str(ran.folder), "threads=1", QUICK])
    assert again == BELOW
    assert "of everybody's frames failed alone" in str(ran.report["gates"])
