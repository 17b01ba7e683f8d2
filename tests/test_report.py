import dataclasses

import pytest
import roma
import torch
from sequences import BODY, make_observations, make_state, write_sequence

from slamhmr.config import load_config
from slamhmr.export.result import build_result
from slamhmr.notes import notes_on_cuts, notes_on_frame_times
from slamhmr.observability import unobservable
from slamhmr.report import Run, assemble_report, provenance
from slamhmr.report_page import page
from slamhmr.sequence import open_sequence
from slamhmr.types import StageReport


def scored(median_px, percent=1.0):
    return {
        "mean_percent": median_px, "median_px": median_px, "p90_px": 2 * median_px,
        "median_percent": percent,
        "p90_percent": 2 * percent, "median_percent_by_person": {"1": percent}, "keypoints": 100,
    }  # fmt: skip


def facts(tmp_path, *, notes=(), moving=True, scores=None, posterior=None, state=None, limits=()):
    folder = write_sequence(tmp_path)
    (folder / "constraints.yaml").write_text("exclude: []")
    if state is None:
        state = make_state()
        state.observed[0, 2:5] = False
        state.contacts[:, 0] = 1.0  # of one frame: nothing slides
    observations = make_observations(state)
    cameras = dataclasses.replace(state.cameras, notes=notes, moving=moving)
    config, sequence = load_config((), list(limits)), open_sequence(folder)
    made_by = provenance(config, sequence)
    state = dataclasses.replace(state, cameras=cameras)
    result = build_result(state, BODY, observations, body_model="default", provenance=made_by)
    return assemble_report(
        Run(
            config, sequence, observations, state, state, result, BODY,
            scores or {"start": scored(3), "root": scored(2)},
            [StageReport("root", 3, 0, "converged <soon>", {"a": 2.0}, {"a": 1.0}, 0.5)],
            posterior or {}, {"4_root": 0.5},
        )
    )  # fmt: skip


def test_the_source_of_the_scale_is_told(tmp_path):
    assert any("from standing feet alone" in note for note in facts(tmp_path)["notes"])


@pytest.mark.parametrize(
    ("moving", "share", "words"),
    [
        (False, {}, "scale is not observable: the camera does not translate and no height"),
        (True, {"scale": 0.99}, "scale is not observable: neither standing feet"),
        (True, {"gravity": 0.99}, "direction of gravity is not observable"),
        (True, {"floor_tilt": 0.99}, "floor's tilt is not observable"),
        (True, {"floor_height": 0.99}, "floor's height is not observable"),
        (True, {"focal": 0.99}, "focal length is not observable"),
    ],
)
def test_what_cannot_be_known_is_said_in_words(tmp_path, moving, share, words):
    found = facts(tmp_path, moving=moving, posterior={"prior_share": share})
    assert any(words in sentence for sentence in found["unobservable"])
    assert found["notes"][0] == found["unobservable"][0]


def test_what_is_known_is_not_called_unobservable(tmp_path):
    found = facts(tmp_path, posterior={"prior_share": {"scale": 0.1, "gravity": 0.3}})
    assert found["unobservable"] == []
    assert "heading and origin of the world are chosen" in found["gauge"]
    told = unobservable(make_state().cameras, {}, height_known=True)
    share = {"gravity": 0.99, "floor_tilt": 0.99}
    edges = unobservable(make_state().cameras, share, height_known=True, up_sigma=0.018)
    people = unobservable(make_state().cameras, share, height_known=True, up_sigma=0.04)
    assert [("gravity" in said[0], len(said)) for said in (edges, people)] == [
        (False, 1),
        (True, 2),
    ]
    still = dataclasses.replace(make_state().cameras, moving=False)
    assert told == unobservable(still, {}, height_known=True) == []


def test_a_cut_between_two_cameras_that_stand_is_no_turn():
    """Only what the camera does within a piece of its path is called turning."""
    still = dataclasses.replace(make_state().cameras, moving=False)
    pose = still.world_from_cam.clone()
    pose[4:, :3, :3] = pose[4:, :3, :3] @ roma.rotvec_to_rotmat(torch.tensor([0.0, 1, 0]).double())
    cut = dataclasses.replace(still, world_from_cam=pose, segments=torch.tensor([4]))
    assert "the camera does not translate" in unobservable(cut, {}, height_known=False)[0]
    panned = dataclasses.replace(still, world_from_cam=pose)
    assert "only turns" in unobservable(panned, {}, height_known=False)[0]


def test_stages_tell_pixels_before_and_after(tmp_path):
    stage = facts(tmp_path)["stages"][0]
    assert stage["pixels_before"] > stage["pixels_after"] > 0


def test_people_are_counted_with_their_gaps(tmp_path):
    person = facts(tmp_path)["people"]["1"]
    assert person["stature_std_m"] is None
    assert 1.5 < person.pop("stature_m") < 1.9
    assert person == {
        "frames": 8, "valid_frames": 8, "seen_share": 5 / 8, "longest_gap": 3,
        "stature_std_m": None, "failures": [],
    }  # fmt: skip


def test_a_gap_that_is_too_long_fails_alone_and_is_told(tmp_path):
    found = facts(tmp_path, limits=["gates.gap_s=0.1", "gates.people=0.2"])
    person = found["people"]["1"]
    assert person["valid_frames"] == 5
    sentence = "person 1, frames 2-4: not seen for 0.1 s; limit 0.1"
    assert person["failures"] == [sentence]
    assert sentence in found["notes"]
    failed = {gate["name"]: gate["sentence"] for gate in found["gates"] if not gate["passed"]}
    assert failed == {"people": "38 % of everybody's frames failed alone; limit 0.2"}
    assert not found["passed"]


def test_what_was_guessed_or_cannot_be_seen_is_noted(tmp_path):
    notes = facts(tmp_path, notes=("focal length guessed",), moving=False)["notes"]
    assert "focal length guessed" in notes
    assert "the camera does not translate" in notes[0]


def test_a_stage_that_reprojects_worse_is_noted(tmp_path):
    scores = {"start": scored(3), "root": scored(4.5), "smooth": scored(2)}
    found = facts(tmp_path, scores=scores)
    assert "stage 'root' reprojects 50.0 % worse than the start" in found["notes"]
    assert found["passed"], found["gates"]


def test_inputs_and_configuration_are_bound_by_hashes(tmp_path):
    found = facts(tmp_path)["provenance"]
    assert set(found["inputs"]) == {
        "observations.npz", "cameras.npz", "initial.npz", "constraints.yaml",
    }  # fmt: skip
    assert len(found["config"]) == 32


def test_the_page_escapes_and_needs_nothing_else(tmp_path):
    text = page(facts(tmp_path), topview=None, overlay=None)
    assert "converged &lt;soon&gt;" in text
    assert "All gates hold" in text
    for table in text.split("<table>")[1:]:
        lines = table.split("</table>")[0].split("</tr>")[:-1]
        widths = {line.count("<td") + line.count("<th") for line in lines}
        assert len(widths) == 1, table  # every row has a cell under every heading
    assert "http" not in text


def test_the_page_says_what_fails(tmp_path):
    scores = {"start": scored(3), "root": scored(4, 5.0)}
    text = page(facts(tmp_path, scores=scores), topview=None, overlay=None)
    assert "Below the gates" in text


@pytest.mark.parametrize(
    ("detect", "seen", "words"),
    [
        ("blazepose", [[1, 1], [1, 0]], "known again by the clothes: person 1; everybody else"),
        ("blazepose", [[1, 0], [0, 1]], "nobody was known again by the clothes"),
        ("auto", [[1, 1], [1, 1]], "taken from the file of observations"),
    ],
)
def test_cuts_and_who_is_who_across_them_are_told(tmp_path, detect, seen, words):
    """Two shots of four frames; person 2 and perhaps 1 are seen in one of them only."""
    found = dataclasses.replace(open_sequence(write_sequence(tmp_path, 2)), found_cuts=(4,))
    observations = make_observations(make_state(2))
    share = torch.tensor(seen, dtype=torch.float64).repeat_interleave(4, dim=1)[..., None]
    observations = dataclasses.replace(observations, confidence=observations.confidence * share)
    config = load_config((), [f"detect={detect}"])
    cameras = make_state().cameras
    notes = notes_on_cuts(found, observations, cameras, config)
    assert notes[0].startswith("cuts found at frame 4: nothing is tracked")
    assert words in notes[0]
    assert "camera, gravity, scale and floor are those of the clip as a whole" in notes[1]
    apart = dataclasses.replace(cameras, segments=torch.tensor([4]))
    assert notes_on_cuts(found, observations, apart, config) == notes[:1]
    assert (
        notes_on_cuts(dataclasses.replace(found, found_cuts=()), observations, cameras, config)
        == []
    )


@pytest.mark.parametrize(
    ("fps", "lost", "words"),
    [
        (30.0, 0, []),
        (23.976, 0, []),
        (59.94, 0, []),
        (30.0, 1, []),  # one lost frame is no hole
        (10.0, 0, ["10 frames per second"]),
        (120.0, 0, ["120 frames per second"]),
        (30.0, 30, ["1 hole(s) in the frame times, the longest 1.03 s"]),
    ],
)
def test_frame_times_that_the_transition_prior_does_not_know_are_told(fps, lost, words):
    observations = make_observations(make_state())
    frames = torch.arange(len(observations.timestamps), dtype=torch.float64)
    frames[len(frames) // 2 :] += lost
    observations = dataclasses.replace(observations, timestamps=frames / fps)
    energies = {"transition": 1.0, "gait": 1.0}
    stage = StageReport("smooth", 3, 0, "converged", energies, energies, 0.5)
    notes = notes_on_frame_times(observations, [stage])
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note
        assert "'transition' and 'gait'" in note
    without = dataclasses.replace(stage, energy_before={}, energy_after={})
    assert notes_on_frame_times(observations, [without]) == []
