import dataclasses
import json

import numpy as np
import pytest
from sequences import (
    FRAMES,
    FakeSteps,
    make_state,
    write_sequence,
    write_two_shots,
    write_video,
)

from priors.pose import load_pose_prior, save_pose_prior
from slamhmr.config import load_config
from slamhmr.errors import BackendError, ConfigError, InputError, SlamhmrError
from slamhmr.pipeline import optimize
from slamhmr.steps import check_schedule

ALL = ["detect", "slam", "init", "root", "smooth", "motion"]


@pytest.fixture
def fakes(monkeypatch):
    return FakeSteps(make_state()).install(monkeypatch)


@pytest.fixture
def metric(monkeypatch):
    """The same with cameras in metres: shots of four frames are too short to find a scale."""
    state = make_state()
    cameras = dataclasses.replace(state.cameras, scale_known=True)
    return FakeSteps(dataclasses.replace(state, cameras=cameras)).install(monkeypatch)


def sequence(tmp_path):
    folder = tmp_path / "clip"
    write_video(folder / "video.mp4")
    return folder


def test_steps_run_in_order_and_leave_the_files_of_the_contract(tmp_path, fakes):
    folder = sequence(tmp_path)
    outcome = optimize(folder, load_config())
    assert fakes.calls == ALL
    names = {path.name for path in (folder / "slamhmr").iterdir()}
    assert names == {
        "config.yaml", "0_cuts.txt", "0_cuts.txt.json", "1_observations.npz", "2_cameras.npz",
        "3_initial.npz", "4_root.npz", "5_smooth.npz", "6_motion.npz", "result.npz", "report.json",
        "report.html", "overlay.mp4", "topview.png",
    }  # fmt: skip
    assert [words.split(":")[0] for words in outcome.failed] == ["scale is not observable"]
    assert {path.name for path in folder.iterdir()} == {"video.mp4", "slamhmr"}


def test_a_second_run_computes_nothing_and_says_the_same(tmp_path, fakes):
    folder = sequence(tmp_path)
    first = optimize(folder, load_config())
    fakes.calls.clear()
    second = optimize(folder, load_config())
    assert fakes.calls == []
    assert first.report == second.report


@pytest.mark.parametrize("interrupted", ["slam", "smooth"])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, fakes, interrupted):
    folder = sequence(tmp_path)
    fakes.fail_at = interrupted
    with pytest.raises(KeyboardInterrupt):
        optimize(folder, load_config())
    assert not (folder / "slamhmr" / ".lock").exists()
    fakes.fail_at = ""
    fakes.calls.clear()
    optimize(folder, load_config())
    assert fakes.calls == ALL[ALL.index(interrupted) :]


def test_a_changed_stage_computes_it_and_the_later_ones(tmp_path, fakes):
    folder = sequence(tmp_path)
    optimize(folder, load_config())
    fakes.calls.clear()
    optimize(folder, load_config((), ["stages.smooth.iterations=3"]))
    assert fakes.calls == ["smooth", "motion"]


def test_changed_files_of_a_backend_or_term_compute_it_and_the_later_ones(tmp_path, fakes):
    """Under the same name: the settings are the same words."""
    folder = sequence(tmp_path)
    features, weights = tmp_path / "features.npz", tmp_path / "prior.safetensors"
    features.write_bytes(b"one")
    prior = load_pose_prior()
    save_pose_prior(weights, prior, {})
    config = load_config(
        (), [f"options.lift.path={features}", f"stages.smooth.terms.pose_prior.weights={weights}"]
    )
    optimize(folder, config)
    fakes.calls.clear()
    optimize(folder, config)
    assert fakes.calls == []
    other = dataclasses.replace(prior, component_means=prior.component_means + 1)
    save_pose_prior(weights, other, {})
    optimize(folder, config)
    assert fakes.calls == ["smooth", "motion"]
    fakes.calls.clear()
    features.write_bytes(b"two")
    optimize(folder, config)
    assert fakes.calls == ALL[ALL.index("init") :]


@pytest.mark.parametrize("content", [None, b"", b"<html>log in</html>"])
def test_a_term_without_its_weights_is_refused_before_any_step(tmp_path, fakes, content):
    weights = tmp_path / "vposer.safetensors"
    if content is not None:
        weights.write_bytes(content)
    config = load_config((), [f"stages.smooth.terms.pose_prior.weights={weights}"])
    with pytest.raises(SlamhmrError, match=r"term 'pose_prior'.*vposer\.safetensors'"):
        optimize(sequence(tmp_path), config)
    assert fakes.calls == []
    assert not (tmp_path / "clip" / "slamhmr").exists()


@pytest.mark.parametrize(
    ("term", "unknown"),
    [
        ("gravity", "gravity"),
        ("camera", "cameras"),
        ("segments", "segments"),
        ("velocity_gain", "velocity_gain"),
        ("keypoint_offset", "offsets"),
    ],
)
def test_a_posterior_without_what_holds_a_free_unknown_is_refused(tmp_path, fakes, term, unknown):
    folder, without = sequence(tmp_path), f"posterior.weights.{term}.weight=0"
    with pytest.raises(ConfigError, match=f"{term}.weight is 0; the free unknown '{unknown}'"):
        optimize(folder, load_config((), [without]))
    assert fakes.calls == []


def test_an_unknown_that_is_not_free_needs_no_weight_in_the_posterior():
    words = ["posterior.weights.gravity.weight=0", "stages.motion.free=[root,pose]"]
    check_schedule(load_config((), words))


def test_overwrite_computes_everything(tmp_path, fakes):
    folder = sequence(tmp_path)
    optimize(folder, load_config())
    fakes.calls.clear()
    optimize(folder, load_config(), overwrite=True)
    assert fakes.calls == ALL


def test_a_shorter_schedule_leaves_no_file_of_the_longer_one(tmp_path, fakes):
    folder = sequence(tmp_path)
    optimize(folder, load_config())
    optimize(folder, load_config((), ["schedule=[root]"]))
    assert sorted(p.name for p in (folder / "slamhmr").glob("[4-9]_*")) == ["4_root.npz"]


def test_own_files_are_used_and_never_touched(tmp_path, fakes):
    folder = write_sequence(tmp_path / "clip")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    optimize(folder, load_config(), out=tmp_path / "elsewhere", overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (tmp_path / "elsewhere" / "result.npz").exists()
    assert not (tmp_path / "elsewhere" / "overlay.mp4").exists()


def test_report_tells_energies_pixels_seconds_and_where_from(tmp_path, fakes):
    folder = sequence(tmp_path)
    optimize(folder, load_config())
    report = json.loads((folder / "slamhmr" / "report.json").read_text())
    assert list(report["scores"]) == ["start", "root", "smooth", "motion"]
    assert report["stages"][0]["energy_before"] == {"data": 2.0}
    assert {"1_observations", "6_motion", "total"} <= set(report["seconds"])
    person = report["people"]["1"]
    assert (person["frames"], person["seen_share"], person["longest_gap"]) == (FRAMES, 1.0, 0)
    assert list(report["provenance"]["inputs"]) == ["video.mp4"]
    assert any("focal length guessed" in note for note in report["notes"])
    page = (folder / "slamhmr" / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "data:image/jpeg;base64" in page


def test_known_intrinsics_are_no_guess(tmp_path, fakes):
    folder = sequence(tmp_path)
    (folder / "sequence.yaml").write_text("intrinsics: [300, 300, 160, 120]")
    report = optimize(folder, load_config()).report
    assert not any("guessed" in note for note in report["notes"])


def test_what_is_allowed_and_said_reaches_the_camera_step(tmp_path, fakes):
    folder = sequence(tmp_path)
    (folder / "sequence.yaml").write_text("camera: moving")
    optimize(folder, load_config((), ["allow_degraded=true"]))
    assert fakes.options["slam"].allow_degraded
    assert fakes.options["slam"].assume == "moving"


def test_a_camera_that_is_said_to_stand_still_is_not_searched_for(tmp_path, fakes):
    folder = sequence(tmp_path)
    (folder / "sequence.yaml").write_text("camera: static")
    optimize(folder, load_config())
    assert fakes.names["slam"] == "static"


def test_a_camera_file_is_used_although_the_camera_is_said_to_stand_still(tmp_path, fakes):
    folder = write_sequence(tmp_path / "clip")
    (folder / "sequence.yaml").write_text("camera: static")
    with pytest.raises(SlamhmrError, match="the camera file says moving = true"):
        optimize(folder, load_config())
    assert fakes.names["slam"] == "file"


def test_settings_of_the_camera_that_contradict_each_other_are_refused(tmp_path, fakes):
    folder = sequence(tmp_path)
    (folder / "sequence.yaml").write_text("camera: static")
    with pytest.raises(SlamhmrError, match="slam=sfm contradicts camera: static"):
        optimize(folder, load_config((), ["slam=sfm"]))


def test_a_trajectory_without_intrinsics_tells_that_they_are_guessed(tmp_path, fakes):
    folder = write_sequence(tmp_path / "clip")
    (folder / "cameras.npz").rename(folder / "cameras.txt")  # the fake reads anything
    assert any(
        "focal length guessed" in note for note in optimize(folder, load_config()).report["notes"]
    )
    (folder / "cameras.txt").rename(folder / "cameras.npz")
    notes = optimize(folder, load_config()).report["notes"]
    assert not any("focal length guessed" in note for note in notes)


def test_people_who_are_not_asked_for_still_hide_background(tmp_path, fakes, monkeypatch):
    fakes.state = make_state(2)
    folder = sequence(tmp_path)
    (folder / "sequence.yaml").write_text("people: [2]")

    def backend(kind, name):
        module = fakes.backend(kind, name)
        module.track_camera = track_camera
        return module

    def track_camera(video, observations, *_, **__):
        raise InputError(f"masks of {observations.person_id.tolist()}")

    monkeypatch.setattr("slamhmr.camera_step.backend", backend)
    with pytest.raises(InputError, match=r"masks of \[1, 2\]"):
        optimize(folder, load_config())


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sequence.yaml", "height_m: {1: 1.7}"),
        ("constraints.yaml", "contacts: [{person: 1, frames: [0, 1], point: left_heel}]"),
        ("constraints.yaml", "height_m: {1: 1.8}"),
    ],
)
def test_what_only_the_stages_use_leaves_the_long_steps_alone(tmp_path, fakes, file, text):
    folder = sequence(tmp_path)
    optimize(folder, load_config())
    fakes.calls.clear()
    (folder / file).write_text(text)
    optimize(folder, load_config())
    assert fakes.calls == ["root", "smooth", "motion"]


def test_cuts_are_found_once_and_reach_everything_that_looks_over_time(tmp_path, metric):
    """The fake video changes from one texture to another at frame 4."""
    folder = tmp_path / "clip"
    write_two_shots(folder / "video.mp4", 4)
    report = optimize(folder, load_config()).report
    assert (folder / "slamhmr" / "0_cuts.txt").read_text() == "4\n"
    assert report["cuts"] == {"frames": [4], "found": True}
    assert any(note.startswith("cuts found at frame 4: nothing is tr") for note in report["notes"])
    assert metric.cuts == dict.fromkeys(("detect", "init", *ALL[3:]), (4,))


@pytest.mark.parametrize("given", ["cuts: []", "cuts: [5]"])
def test_cuts_that_somebody_says_are_not_looked_for(tmp_path, metric, given):
    folder = tmp_path / "clip"
    write_two_shots(folder / "video.mp4", 4)
    optimize(folder, load_config())
    metric.calls.clear()
    (folder / "sequence.yaml").write_text(given)
    report = optimize(folder, load_config()).report
    assert not (folder / "slamhmr" / "0_cuts.txt").exists()
    cuts = (5,) if "5" in given else ()
    assert report["cuts"] == {"frames": list(cuts), "found": False}
    assert any("by sequence.yaml, at frame 5" in note for note in report["notes"]) == bool(cuts)
    assert metric.calls == ALL
    assert metric.cuts["detect"] == cuts


def test_a_camera_step_that_fails_names_the_shot(tmp_path, fakes, monkeypatch):
    folder = tmp_path / "clip"
    write_two_shots(folder / "video.mp4", 4)
    fail_in_shot(fakes, monkeypatch, first=4)
    with pytest.raises(BackendError, match=r"^shot 2 \(frames 4-7\): camera: no path$") as caught:
        optimize(folder, load_config())
    assert caught.value.exit_code == 4
    fail_in_shot(fakes, monkeypatch, first=0)
    with pytest.raises(BackendError, match="^camera: no path$"):
        optimize(folder, load_config((), ["detect_cuts=false"]))


def test_a_shot_without_a_path_is_degraded_where_that_is_allowed(tmp_path, metric, monkeypatch):
    folder = tmp_path / "clip"
    write_two_shots(folder / "video.mp4", 4)
    fail_in_shot(metric, monkeypatch, first=4)
    outcome = optimize(folder, load_config((), ["allow_degraded=true"]))
    said = "DEGRADED in shot 2 (frames 4-7) to rotation-only: camera: no path"
    assert said in outcome.report["notes"]


def fail_in_shot(fakes, monkeypatch, *, first):
    """The default camera step finds nothing in the shot that begins with a frame."""

    def backend(kind, name):
        module = fakes.backend(kind, name)
        found = module.track_camera

        def track_camera(video, *given, **named):
            if name == "auto" and video.first == first:
                raise BackendError("camera: no path")
            return found(video, *given, **named)

        module.track_camera = track_camera
        return module

    monkeypatch.setattr("slamhmr.camera_step.backend", backend)


def test_cuts_can_be_left_alone(tmp_path, fakes):
    folder = tmp_path / "clip"
    write_two_shots(folder / "video.mp4", 4)
    report = optimize(folder, load_config((), ["detect_cuts=false"])).report
    assert report["cuts"] == {"frames": [], "found": False}


def test_contacts_set_by_hand_reach_the_stages(tmp_path, fakes):
    folder = sequence(tmp_path)
    (folder / "constraints.yaml").write_text(
        "contacts: [{person: 1, frames: [2, 3], point: right_big_toe}]"
    )
    contacts = optimize(folder, load_config()).result.contacts
    assert contacts[0, 2:4, 3].tolist() == [1.0, 1.0]


def test_the_shipped_body_with_hands(tmp_path, fakes):
    outcome = optimize(sequence(tmp_path), load_config((), ["body.model=default-hands"]))
    assert outcome.result.body_model == "default-hands"


def test_gates_that_fail_are_said(tmp_path, fakes):
    limits = ["gates.reprojection_percent=-1", "gates.scale_percent=null"]
    outcome = optimize(sequence(tmp_path), load_config((), limits))
    assert len(outcome.failed) == 1
    assert "of the box height; limit -1" in outcome.failed[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["detect=file"], "'observations.npz' is not in the sequence directory"),
        (["options.blazepose.treshold=1"], "did you mean 'threshold'"),
        (["body.model=/nowhere/smpl.npz"], "nowhere"),
        (["stages.root.terms.reprojektion={}"], "reprojektion"),
    ],
)
def test_a_wrong_configuration_stops_before_the_long_steps(tmp_path, fakes, words, message):
    with pytest.raises(SlamhmrError, match=message):
        optimize(sequence(tmp_path), load_config((), words))
    assert fakes.calls == []


def test_without_pixels_the_real_steps_solve(tmp_path):
    """The only fake-free run here: observations and cameras given, no detector, no SLAM package."""
    folder = write_sequence(tmp_path, people=2, initial=False)
    outcome = optimize(folder, load_config())
    assert outcome.report["scores"]["motion"]["median_percent"] < 2.0
    with np.load(folder / "slamhmr" / "result.npz", allow_pickle=False) as result:
        assert all(np.isfinite(result[k]).all() for k in ("joints", "transl", "world_from_cam"))
        assert abs(result["world_from_cam"][0, :2, 3]).max() < 1e-9
