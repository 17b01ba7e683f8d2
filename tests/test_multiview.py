"""Several calibrated views: the energy, who is who, files, accuracy, and what is refused."""

import dataclasses
import shutil

import numpy as np
import pytest
import roma
import torch
from scenes import BODY
from view_scenes import SPEC, calibrated, seen_from, write_view, write_views

from slamhmr.artifacts import load, read_arrays, write_arrays
from slamhmr.cli import main
from slamhmr.config import load_config
from slamhmr.eval.protocols import evaluate
from slamhmr.geometry import apply, invert
from slamhmr.init.identity import Lifted, match_views
from slamhmr.pipeline import optimize
from slamhmr.synth.scene import make_scene
from slamhmr.types import Views

QUIET = ["posterior.enabled=false"]


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """The same person by one camera and by three: outcomes and scores."""
    folder = tmp_path_factory.mktemp("views") / "three"
    write_views(folder, SPEC)
    alone = folder.parent / "one"
    shutil.copytree(folder, alone)
    shutil.rmtree(alone / "views")
    arrays = read_arrays(alone / "cameras.npz")
    del arrays["up"]
    write_arrays(alone / "cameras.npz", {**arrays, "scale_known": np.array(False)})
    found = {}
    for path, words in ((folder, []), (alone, QUIET)):
        outcome = optimize(path, load_config((), words))
        scores = evaluate(path / "slamhmr" / "result.npz", path / "truth.npz")
        found[path.name] = (outcome, scores)
    return found


@pytest.mark.slow
def test_several_views_are_far_more_accurate_than_one(solved):
    several, one = (solved[name][1] for name in ("three", "one"))
    for name in ("wa_mpjpe100_mm", "w_mpjpe100_mm", "pa_mpjpe_mm"):
        assert several["overall"][name] < 0.7 * one["overall"][name], name
    assert several["gravity_error_deg"] < 0.5


@pytest.mark.slow
def test_places_are_metric_in_the_calibrated_world(solved):
    """No alignment at all: joints where they are, some centimetres."""
    result, scene = solved["three"][0].result, make_scene(SPEC, BODY)
    joints = apply((scene.world_from_cam @ invert(result.world_from_cam))[None], result.joints)
    off = (joints - scene.points[:, :, :24])[:, :, :22].norm(dim=-1)
    assert float(off.mean()) < 0.05
    assert result.joints_cov is not None


@pytest.mark.slow
def test_report_names_every_view_and_its_error(solved):
    report = solved["three"][0].report
    views = report["scores"]["motion"]["views"]
    assert list(views) == ["main", "cam2", "cam3"]
    assert all(0 < found["median_px"] < 15 for found in views.values())
    assert any("3 views, median error" in note for note in report["notes"])
    assert not any("scale is not observable" in note for note in report["notes"])


@pytest.mark.slow
def test_views_of_a_run_are_read_back_as_they_were(solved):
    folder = solved["three"][0].folder
    views = load(folder / "1_views.npz", Views)
    assert views.names == ("cam2", "cam3")
    scene = make_scene(SPEC, BODY)
    other = seen_from(scene, 1.5).world_from_cam
    expected = invert(other) @ scene.world_from_cam
    torch.testing.assert_close(views.cam_from_main[0], expected)


def lifted(scene, people, error: float):
    """People of one view in the world, their depth wrong by a share of it."""
    centres = scene.world_from_cam[:, :3, 3]
    joints = scene.points[people][:, :, :22]
    ray = joints[:, :, :1] - centres[:, None]
    return Lifted(
        joints + error * ray, torch.ones(len(people), len(centres), dtype=torch.bool), centres
    )


CROWD = dataclasses.replace(SPEC, people=3, frames=30, seed=11)


def test_people_are_matched_by_place_and_who_is_in_one_view_only_stays_alone():
    scene = make_scene(CROWD, BODY)
    views = [
        lifted(scene, [0, 1], 0.1),
        lifted(seen_from(scene, 1.4), [1, 2, 0], -0.1),
        lifted(seen_from(scene, 2.8), [2], 0.12),
    ]
    found = {tuple(tuple(own) for own in rows) for rows in match_views(views)}
    assert found == {((0,), (2,), ()), ((1,), (0,), ()), ((), (1,), (0,))}


def test_a_track_that_breaks_off_is_one_person_with_its_second_piece():
    scene = make_scene(CROWD, BODY)
    first, second = lifted(scene, [0, 1], 0.05), lifted(seen_from(scene, 1.4), [1, 0, 1], 0.05)
    second.seen[0, 15:] = False
    second.seen[2, :15] = False
    rows = match_views([first, second])
    assert [sorted(own) for own in rows[1]] == [[1], [0, 2]]
    assert len(rows) == 2


def short(tmp_path, angles=(1.5,), **changes):
    spec = dataclasses.replace(SPEC, frames=8, **changes)
    return write_views(tmp_path, spec, angles)


def refused(folder, capsys, *words) -> str:
    code = main(["optimize", "--seq", str(folder), "posterior.enabled=false", *words])
    told = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert told[-1].startswith("slamhmr: error: ")
    return told[-1]


def change(path, **arrays):
    write_arrays(path, {**read_arrays(path), **arrays})


def test_other_lengths_are_refused(tmp_path, capsys):
    short(tmp_path)
    path = tmp_path / "views" / "cam2" / "observations.npz"
    arrays = read_arrays(path)
    cut = {k: arrays[k][:, :-1] for k in ("keypoints", "confidence", "boxes")}
    write_arrays(path, {**arrays, **cut, "timestamps": arrays["timestamps"][:-1]})
    cameras = tmp_path / "views" / "cam2" / "cameras.npz"
    known = read_arrays(cameras)
    write_arrays(cameras, {**known, **{k: known[k][:-1] for k in ("world_from_cam", "intrinsics")}})
    told = refused(tmp_path, capsys)
    assert "view 'cam2' has 7 frames, the main view 8" in told
    assert "frames: [first, last]" in told


def test_another_frame_rate_is_refused(tmp_path, capsys):
    short(tmp_path)
    (tmp_path / "views" / "cam2" / "sequence.yaml").write_text("fps: 25\n")
    assert "view 'cam2' has 25 frames per second, the main view 30" in refused(tmp_path, capsys)


def test_a_scale_that_is_not_known_is_refused(tmp_path, capsys):
    short(tmp_path)
    change(tmp_path / "views" / "cam2" / "cameras.npz", scale_known=np.array(False))
    assert "view 'cam2': scale_known of its cameras is false" in refused(tmp_path, capsys)


def test_a_view_without_calibration_is_refused(tmp_path, capsys):
    short(tmp_path)
    told = refused(tmp_path, capsys, "slam=static")
    assert "view 'main' has no cameras.npz" in told
    assert "slamhmr calibration" in told


def test_a_view_that_sees_nobody_is_refused(tmp_path, capsys):
    short(tmp_path)
    path = tmp_path / "views" / "cam2" / "observations.npz"
    change(path, confidence=np.zeros_like(read_arrays(path)["confidence"]))
    assert "cam2/observations.npz': every confidence is 0" in refused(tmp_path, capsys)


def test_cameras_of_another_world_are_refused(tmp_path, capsys):
    short(tmp_path)
    path = tmp_path / "views" / "cam2" / "cameras.npz"
    pose = read_arrays(path)["world_from_cam"]
    pose[:, 2, 3] += 3.0
    change(path, world_from_cam=pose)
    told = refused(tmp_path, capsys)
    assert "views 'main' and 'cam2' see nobody in one place" in told


def test_what_is_said_of_people_belongs_to_the_top(tmp_path, capsys):
    short(tmp_path)
    (tmp_path / "views" / "cam2" / "sequence.yaml").write_text("people: [1]\n")
    assert "'people' belongs to the top directory's" in refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("people: 7\n", "sequence.yaml: people '7' must be 'all' or a list of ids"),
        ("height_m: {1: 17.5}\n", "height_m of person 1 is 17.5; metres, 0.4 to 2.6"),
        ("fps: 25\n", "'fps' belongs into views/NAME/sequence.yaml"),
    ],
)
def test_what_the_top_says_without_files_of_its_own_is_checked(tmp_path, capsys, text, words):
    scene = make_scene(dataclasses.replace(SPEC, frames=8), BODY)
    for name in ("a", "b"):
        write_view(tmp_path / "views" / name, scene)
    (tmp_path / "sequence.yaml").write_text(text)
    assert words in refused(tmp_path, capsys)


@pytest.mark.parametrize("name", ["main", "cam2"])
def test_observations_without_cameras_ask_for_a_calibration(tmp_path, capsys, name):
    short(tmp_path)
    (tmp_path / ("." if name == "main" else f"views/{name}") / "cameras.npz").unlink()
    told = refused(tmp_path, capsys)
    assert f"view '{name}' has no cameras.npz" in told
    assert "slamhmr calibration" in told


@pytest.mark.slow
def test_only_views_and_somebody_whom_the_first_does_not_see(tmp_path):
    """Ids are those of the files; the first view by name is the main one."""
    spec = dataclasses.replace(SPEC, people=2, frames=20, seed=7)
    scene = make_scene(spec, BODY)
    write_view(tmp_path / "views" / "a", scene, [1])
    write_view(tmp_path / "views" / "b", seen_from(scene, 1.5))
    change(tmp_path / "views" / "b" / "observations.npz", person_id=np.array([1, 7]))
    config = load_config((), [*QUIET, "schedule=[root]"])
    outcome = optimize(tmp_path, config)
    result = outcome.result
    assert result.person_id.tolist() == [1, 7]
    assert bool(result.observed[1].any())
    world = (scene.world_from_cam @ invert(result.world_from_cam)).expand(2, -1, -1, -1)
    joints = apply(world, result.joints)
    pelvis = (joints - scene.points[:, :, :24])[:, :, 0].norm(dim=-1)
    assert float(pelvis[0].mean()) < 0.12
    assert float(pelvis[1].mean()) < 0.6, "one view: its depth is that of a single camera"
    assert list(outcome.report["scores"]["root"]["views"]) == ["a", "b"]


def test_up_of_calibrated_cameras_is_taken(tmp_path):
    scene = make_scene(dataclasses.replace(SPEC, frames=8), BODY)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, 0.1, 0.0]).double())
    track = calibrated(scene)
    pose = track.world_from_cam.clone()
    pose[:, :3] = turn @ pose[:, :3]
    from slamhmr.init.align import level_cameras

    tilted = dataclasses.replace(track, world_from_cam=pose, up=turn @ track.up)
    levelled = level_cameras(tilted, tilted.up)
    torch.testing.assert_close(levelled.world_from_cam[:, 2, :3], track.world_from_cam[:, 2, :3])
    assert levelled.up.tolist() == [0.0, 0.0, 1.0]
