"""DROID-SLAM's adapter against a fake that enforces the published interface and knows the truth."""

import dataclasses
import sys

import cv2
import numpy as np
import pytest
import roma
import torch
from droid_fake import write_package, write_truth

from slamhmr.components import Gpu, Lack
from slamhmr.errors import BackendError, ConfigError, InputError, MissingAsset
from slamhmr.geometry import invert, rigid
from slamhmr.slam import droid
from slamhmr.slam.droid import Options, buffer_size, lacking, track_camera
from slamhmr.slam.droid_frames import Reduction, tracked_frames
from slamhmr.types import Observations
from slamhmr.video import open_video

COUNT, SIZE = 30, (101, 67)  # a size that neither scales evenly nor divides by 8
AREA = 64 * 96
INTRINSICS = torch.tensor([90.0, 92.0, 52.0, 31.0], dtype=torch.float64)


def true_path(count=COUNT):
    """A camera path that turns and travels, smooth; world_from_cam (T,4,4), first not identity."""
    t = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    turn = torch.cat([0.3 + 0.4 * t, -0.5 * t, 0.2 + 0.1 * torch.sin(5 * t)], 1)
    centre = torch.cat([1 + 2 * t, -t * t, 0.5 * t], 1)
    return rigid(roma.rotvec_to_rotmat(turn), centre)


def tum(path):
    """Rows tx ty tz qx qy qz qw of world_from_cam, as `terminate` gives them."""
    return torch.cat([path[:, :3, 3], roma.rotmat_to_unitquat(path[:, :3, :3])], 1).numpy()


def person(count=COUNT, size=SIZE):
    """Somebody whose box moves from left to right."""
    left = np.linspace(5, 60, count)
    ones = np.ones(count)
    boxes = torch.from_numpy(np.stack([left, 20 * ones, left + 20, 60 * ones], 1))
    return Observations(
        person_id=torch.zeros(1, dtype=torch.int64),
        keypoints=torch.zeros(1, count, 1, 2, dtype=torch.float64),
        confidence=torch.zeros(1, count, 1, dtype=torch.float64),
        keypoint_names=("nose",),
        boxes=boxes[None],
        image_size=size,
        fps=30.0,
        timestamps=torch.arange(count, dtype=torch.float64) / 30,
    )


@dataclasses.dataclass
class Case:
    """A clip, a fake DROID-SLAM and options to run one with the other."""

    video: object
    options: Options
    truth: dict
    folder: object

    def run(self, **changes):
        options = dataclasses.replace(self.options, **changes)
        write_truth(self.folder / "droid.pth", **self.truth)
        return track_camera(self.video, person(), INTRINSICS, options, progress=False)


@pytest.fixture
def case(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    blue = 40 + 5 * np.arange(COUNT)
    for number in range(COUNT):
        picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        picture[..., 0] = blue[number]  # OpenCV writes BGR
        cv2.imwrite(str(tmp_path / "images" / f"{number:03d}.png"), picture)
    reduction = Reduction.to_area(SIZE, AREA)
    truth = {
        "poses": tum(true_path()),
        "intrinsics": reduction.intrinsics(INTRINSICS.numpy()),
        "blue": blue,
        "moves": np.ones(COUNT, bool),
        "log": np.array(str(tmp_path / "log.npz")),
    }
    monkeypatch.setattr(droid, "lacking", lambda _: [])
    monkeypatch.setattr(droid, "devices", lambda: (Gpu("card", 24.0),))
    path = list(sys.path)
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.delitem(sys.modules, "droid", raising=False)
    options = Options(
        repository=str(write_package(tmp_path / "clone")),
        weights=str(tmp_path / "droid.pth"),
        area=AREA,
        check=False,
    )
    yield Case(open_video(tmp_path / "images", fps=30.0), options, truth, tmp_path)
    sys.modules.pop("droid", None)


def expected():
    path = true_path()
    return invert(path[0]) @ path


def test_the_path_is_world_from_camera_of_every_frame(case):
    track = case.run()
    torch.testing.assert_close(track.world_from_cam, expected(), atol=1e-5, rtol=0)
    assert track.moving
    assert not track.scale_known
    assert track.source == "droid"
    assert torch.equal(track.intrinsics, INTRINSICS.repeat(COUNT, 1))
    assert track.notes == ("DROID-SLAM: 26 keyframes of 30 frames, people left out",)


def test_an_environment_of_its_own_gives_the_same(case):
    track = case.run(python=sys.executable)
    torch.testing.assert_close(track.world_from_cam, expected(), atol=1e-5, rtol=0)


def test_frames_between_the_tracked_ones_are_interpolated(case):
    track = case.run(stride=3)
    assert tracked_frames(COUNT, 3) == [*range(0, 30, 3), 29]
    torch.testing.assert_close(track.world_from_cam[::3], expected()[::3], atol=1e-5, rtol=0)
    torch.testing.assert_close(track.world_from_cam[29], expected()[29], atol=1e-5, rtol=0)
    centre = (2 * expected()[3, :3, 3] + expected()[6, :3, 3]) / 3
    torch.testing.assert_close(track.world_from_cam[4, :3, 3], centre, atol=1e-5, rtol=0)
    assert "every 3. frame was tracked" in track.notes[0]


def test_people_have_no_weight_and_all_else_keeps_its_own(case):
    """The weights of an edge are 0 on the people of the frame that its slot really holds."""
    case.run()
    with np.load(case.folder / "log.npz") as file:
        frames, weights, slots = file["frames"], file["weights"], file["slots"]
    assert 0 < len(slots) < COUNT  # keyframes were dropped and their slots moved
    reduction = Reduction.to_area(SIZE, AREA)
    for frame, weight in zip(frames.tolist(), weights, strict=True):
        cells = reduction.people(person(), frame, 1)
        assert 0 < cells.mean() < 1
        assert np.array_equal(weight, np.where(cells, 0.0, 0.5)[..., None].repeat(2, -1)), frame
    assert len(set(frames.tolist())) > 20


def test_people_are_left_in_on_demand(case):
    case.run(mask=False)
    with np.load(case.folder / "log.npz") as file:
        assert (file["weights"] == 0.5).all()


def still(moving):
    return {"moves": np.arange(COUNT) < moving}


def broken_pose():
    poses = tum(true_path())
    poses[7, 2] = np.nan
    return {"poses": poses}


FAILURES = {
    r"only 5 of the 8 keyframes that DROID-SLAM starts with were found": (still(5), {}),
    r"pose of frame 7 is not finite \(1 of 30\)": (broken_pose(), {}),
    r"slam=droid: the buffer of 25 keyframes is full at frame 9 with 21 frames": (
        {},
        {"buffer": 25},
    ),
    r"slam=droid: out of memory of the GPU; lower options\.droid\.buffer \(now 64\) or": (
        {"raises": np.array("CUDA out of memory. Tried to allocate 2 GiB")},
        {},
    ),
    r"slam=droid: DROID-SLAM failed: RuntimeError: size mismatch for cnet": (
        {"raises": np.array("size mismatch\nfor cnet")},
        {},
    ),
    r"the clip has 7 frames \(stride 5\), fewer than the 8": ({}, {"stride": 5}),
}


@pytest.mark.parametrize(("message", "change"), FAILURES.items())
def test_every_failure_is_one_line(case, message, change):
    truth, options = change
    case.truth.update(truth)
    with pytest.raises(BackendError, match=message) as caught:
        case.run(**options)
    assert "\n" not in str(caught.value)


ANSWERS = {
    "DROID-SLAM kept 1 keyframe, it did not start": {"keyframes": np.array(1)},
    r"run\.py answered with \['keyframes'\], not with poses": {"poses": None},
    r"DROID-SLAM gave \(29, 7\) for 30 poses": {"poses": tum(true_path(29))},
    "quaternions do not have length 1": {"poses": 2 * tum(true_path())},
}


@pytest.mark.parametrize(("message", "change"), ANSWERS.items())
def test_impossible_answers_are_refused(case, monkeypatch, message, change):
    answer = {"poses": tum(true_path()), "keyframes": np.array(9)} | change
    given = {name: value for name, value in answer.items() if value is not None}
    monkeypatch.setattr(droid, "_run", lambda *_: given)
    with pytest.raises(BackendError, match=message):
        case.run()


def test_a_path_that_jumps_is_kept_with_a_note(case):
    poses = tum(true_path())
    poses[15:, 0] += 5
    case.truth["poses"] = poses
    (note,) = case.run().notes
    assert "its path may be wrong: the path jumps in" in note


def test_a_background_that_says_nothing_does_not_stop_it(case, monkeypatch):
    def unknown(*_):
        raise BackendError("camera: too plain")

    monkeypatch.setattr(droid, "classify", unknown)
    notes = case.run(check=True).notes
    assert notes[0] == "the camera's motion could not be classified before DROID-SLAM ran"
    assert notes[1].startswith("DROID-SLAM: 26 keyframes")


@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", 0), ("warmup", 2), ("area", 100), ("filter_thresh", 0.0), ("buffer", 20)],
)
def test_impossible_settings_are_named(case, name, value):
    with pytest.raises(ConfigError, match=rf"options\.droid\.{name}={value}"):
        case.run(**{name: value})


@pytest.mark.parametrize("kind", ["static", "rotation"])
def test_a_camera_that_does_not_travel_is_told_from_the_pixels(case, rendered, kind):
    clip = rendered(kind, 40)
    track = track_camera(
        clip.video,
        clip.observations,
        clip.intrinsics,
        dataclasses.replace(case.options, check=True),
        progress=False,
    )
    assert track.source == kind
    assert not track.moving
    assert f"classified as {kind}" in track.notes[0]
    assert "DROID-SLAM was not run" in track.notes[0]


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (720, 1280), (101, 67)])
def test_a_point_is_where_the_reduced_intrinsics_put_it(size):
    """Blobs drawn where our camera sees points; their centres against DROID-SLAM's projection."""
    reduction = Reduction.to_area(size, 384 * 512)
    intrinsics = np.array([0.9 * size[0], 0.93 * size[0], 0.52 * size[0], 0.46 * size[1]])
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    sigma = 0.02 * size[0]
    for point in ([0.1, -0.05, 1.0], [-0.25, 0.1, 1.0], [0.0, 0.0, 1.0]):
        x, y = intrinsics[:2] * point[:2] + intrinsics[2:]
        blob = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        small = reduction.picture(blob.round().astype(np.uint8)[..., None].repeat(3, -1))
        assert small.shape == (*reduction.size[::-1], 3)
        seen = small[..., 0].astype(float)
        v, u = np.mgrid[: seen.shape[0], : seen.shape[1]]  # centre of the first pixel at 0
        centre = np.array([(u * seen).sum(), (v * seen).sum()]) / seen.sum()
        lens = reduction.intrinsics(intrinsics)
        assert np.abs(centre - (lens[:2] * point[:2] + lens[2:])).max() < 0.05
    assert np.allclose(reduction.full_intrinsics(lens), intrinsics)
    assert reduction.size[0] % 8 == reduction.size[1] % 8 == 0


def test_masked_cells_cover_the_people():
    reduction = Reduction.to_area(SIZE, AREA)
    people = person()
    cells = reduction.people(people, 10, 0)
    assert cells.shape == (reduction.size[1] // 8, reduction.size[0] // 8)
    x0, y0, x1, y1 = people.boxes[0, 10].numpy() * np.tile(reduction.scale, 2)
    inside = np.zeros_like(cells)
    inside[int(y0 // 8) : int(y1 // 8) + 1, int(x0 // 8) : int(x1 // 8) + 1] = True
    assert cells[inside].all()
    grown = reduction.people(people, 10, 1)
    assert (grown >= cells).all()
    assert grown.sum() > cells.sum()


def test_pictures_that_are_too_narrow_are_refused():
    with pytest.raises(InputError, match="2000 x 2 px cannot be reduced to 4096 px"):
        Reduction.to_area((2000, 2), 64 * 64)


def test_the_buffer_fits_the_clip_and_the_gpu(monkeypatch):
    reduction = Reduction.to_area((1920, 1080), 384 * 512)
    monkeypatch.setattr(droid, "devices", lambda: (Gpu("card", 11.0),))
    assert buffer_size(Options(), 100, reduction) == (117, ())
    buffer, (note,) = buffer_size(Options(), 5000, reduction)
    slot = 19.125 * reduction.size[0] * reduction.size[1]
    assert buffer == int(0.4 * 11 * 2**30 / slot)
    assert f"holds {buffer - 17} keyframes and the clip has 5000 tracked frames" in note
    assert buffer_size(Options(buffer=512), 600, reduction)[0] == 512


def test_everything_that_is_missing_is_listed(monkeypatch):
    monkeypatch.setattr("slamhmr.components.devices", lambda: ())
    lacks = lacking(Options())
    assert all(isinstance(lack, Lack) for lack in lacks)
    text = "\n".join(f"{lack.what}; {lack.get}" for lack in lacks)
    for words in (
        "options.droid.repository): no file is given; "
        "git clone https://github.com/princeton-vl/DROID-SLAM.git && "
        "git -C DROID-SLAM checkout 2dfd39f0dcad44012ca7bbb8aa70b55edbfa9c99 && "
        "git -C DROID-SLAM submodule update --init --recursive, then",
        "torch>=2.6,<2.14' --index-url",
        "package 'droid_backends' is not installed; pip install --no-build-isolation '.[droid]'",
        "package 'lietorch' is not installed",
        "package 'torch-scatter' is not installed",
        "options.droid.weights): no file is given; pip install gdown; gdown",
        "slam 'droid' needs a GPU",
    ):
        assert words in text


@pytest.mark.parametrize("packed", [False, True])
def test_a_clone_at_another_commit_is_another_version(tmp_path, packed):
    clone = write_package(tmp_path / "clone")

    def said():
        return [lack for lack in lacking(Options(repository=str(clone))) if "commit" in lack.what]

    assert said() == []  # no clone of git: nobody can tell
    git = clone / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    branch = git / "refs" / "heads" / "main"
    if packed:
        branch = git / "packed-refs"
    mark = " refs/heads/main\n" if packed else "\n"
    branch.write_text(f"{'ab' * 20}{mark}")
    (lack,) = said()
    assert lack.what.endswith(f"'{clone}' is at commit abababa, needed: 2dfd39f or 8016d2b")
    assert lack.get.startswith(f"git -C {clone} checkout 2dfd39f0dcad")
    branch.write_text(f"{droid.COMMITS[0]}{mark}")
    assert said() == []
    (git / "HEAD").write_text("ab" * 20)
    assert len(said()) == 1


class Payload:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.mark.parametrize("own", ["", sys.executable])
def test_weights_with_a_payload_are_not_opened(case, tmp_path, monkeypatch, own):
    """DROID-SLAM reads them by torch.load as it is, which before torch 2.6 runs what is inside."""
    planted = tmp_path / "planted"
    planting = {"a": Payload(planted)}
    monkeypatch.setitem(globals(), "write_truth", lambda path, **_: torch.save(planting, path))
    with pytest.raises(BackendError, match=r"droid\.pth holds no weights"):
        case.run(python=own)
    assert not planted.exists()


def test_a_run_without_it_says_what_is_missing(case, monkeypatch):
    monkeypatch.setattr(droid, "lacking", lambda _: [Lack("no code", "a"), Lack("no GPU", "b")])
    with pytest.raises(MissingAsset, match="2 things are missing"):
        case.run()


def test_an_environment_of_its_own_is_asked(tmp_path):
    lacks = lacking(Options(python="/no/python"))
    assert any("interpreter '/no/python' does not exist" in lack.what for lack in lacks)
    python = tmp_path / "python"  # answers as one without packages does
    python.write_text("#!/bin/sh\necho null\n")
    python.chmod(0o755)
    lacks = lacking(Options(python=str(python), repository="/clone"))
    (lack,) = [lack for lack in lacks if "'lietorch'" in lack.what]
    assert lack.what == f"package 'lietorch' is not installed in the environment of '{python}'"
    assert lack.get == (
        f"{python} -m pip install --no-build-isolation /clone/thirdparty/lietorch "
        "(third_party/droid_slam/README.md)"
    )
