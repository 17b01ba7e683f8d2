"""Stages: what is refused before any work, recovery from a disturbed start, cuts and spans."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from slamhmr.body import load_body
from slamhmr.config import load_config
from slamhmr.errors import BackendError, ConfigError
from slamhmr.evidence import apparent_size, scene_of, spans, state_of
from slamhmr.reprojection import score
from slamhmr.scene_problem import Known, check_stage
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import SceneSpec, make_scene
from slamhmr.types import Initial

BODY = load_body()


@dataclass(frozen=True)
class Stage:
    free: list = field(default_factory=lambda: ["root"])
    terms: dict = field(default_factory=lambda: {"reprojection": {"sigma": 0.02}})
    iterations: int = 10
    tolerance: float = 1e-3


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage(free=["root", "hands"]), "free 'hands' is unknown"),
        (Stage(free=["pose"]), "'root' must be among"),
        (Stage(terms={"foot_slp": {}}), "unknown term 'foot_slp'"),
        (Stage(terms={"reprojection": {"sgima": 1}}), "unknown setting 'sgima'"),
        (Stage(terms={"pose_prior": {}}), "needs 'pose'"),
        (Stage(terms={}), "no term"),
        (Stage(terms={"scale": {}}), "no term"),
        (Stage(terms={"reprojection": {"mu": []}}), "mu is an empty list"),
        (Stage(terms={"reprojection": {"sigma": 0}}), "sigma is 0, must be above 0"),
        (Stage(terms={"reprojection": {"mu": [9, -1]}}), "mu is -1, must be above 0"),
        (Stage(terms={"reprojection": {"weight": -1}}), "weight is -1, must not be negative"),
        (Stage(terms={"reprojection": {"sigma": "wide"}}), "must be a number"),
        (Stage(iterations=0), "iterations is 0"),
        (Stage(tolerance=0), "tolerance is 0"),
        (Stage(free=["root", "gravity"]), "free 'gravity' needs the term 'gravity'"),
        (Stage(free=["root", "cameras"]), "free 'cameras' needs the term 'camera'"),
        (
            Stage(free=["root", "focal"], terms={"focal": {"weight": [1, 0]}, "reprojection": {}}),
            "needs the term 'focal' with a weight above 0",
        ),
    ],
)
def test_a_stage_that_cannot_run_is_refused(stage, words):
    with pytest.raises(ConfigError, match=words):
        check_stage("mine", stage)


def test_the_stages_that_ship_are_accepted():
    config = load_config([], [])
    for name in config.schedule:
        check_stage(name, config.stages[name])


UNKNOWN = torch.full((1,), torch.nan, dtype=torch.float64)


@pytest.fixture(scope="module")
def disturbed():
    """A walk with a moving camera; its truth as state, disturbed; and what was observed."""
    from slamhmr.init.align import align
    from slamhmr.init.geometric import Options, initialise

    spec = SceneSpec(seed=5, frames=60, motion="walk", camera="orbit")
    scene = make_scene(spec, BODY)
    observations, cameras = observe(scene, BODY, spec)
    initial = initialise(observations, cameras, BODY, Options())
    return scene, align(initial, observations, cameras, BODY), observations, initial


def solve(disturbed, state=None, **changes):
    _, aligned, observations, initial = disturbed
    config = load_config([], [])
    return run_stage(
        aligned if state is None else state, Known(observations, initial, BODY, UNKNOWN),
        "smooth", replace(config.stages["smooth"], **changes),
    )  # fmt: skip


def test_energy_falls_and_the_report_says_why_it_stopped(disturbed):
    _, report = solve(disturbed, iterations=4)
    assert sum(report.energy_after.values()) < sum(report.energy_before.values())
    assert len(report.stopped.split()) > 3


def test_a_person_behind_the_camera_is_refused_in_one_line(disturbed):
    _, aligned, _, _ = disturbed
    behind = replace(aligned, pelvis=aligned.pelvis - torch.tensor([0.0, 50.0, 0.0]))
    with pytest.raises(BackendError, match="stage 'smooth'.*person 1.*frame"):
        solve(disturbed, behind)


def test_unknowns_and_state_round_trip_over_a_late_entry(disturbed):
    _, aligned, _, _ = disturbed
    valid = aligned.valid.clone()
    valid[:, :7] = False
    late = replace(aligned, valid=valid)
    assert spans(late) == [(7, 60)]
    back = state_of(scene_of(late), late)
    torch.testing.assert_close(back.pelvis[:, 7:], late.pelvis[:, 7:])
    torch.testing.assert_close(back.pelvis[:, 0], late.pelvis[:, 7])


def test_apparent_size_without_any_box_comes_from_the_keypoints(disturbed):
    _, _, observations, _ = disturbed
    with_boxes = apparent_size(observations)
    blind = replace(observations, boxes=torch.full_like(observations.boxes, torch.nan))
    without = apparent_size(blind)
    assert bool(torch.isfinite(without).all())
    assert float((without / with_boxes).median()) == pytest.approx(1.0, abs=0.3)


def test_nothing_reaches_across_a_cut(disturbed):
    """With a cut between, the second half does not change when the first half is disturbed."""
    _, aligned, observations, initial = disturbed
    config = load_config([], [])
    stage = replace(config.stages["root"], free=["root"], iterations=30)
    moved = observations.keypoints.clone()
    moved[:, :30] += 15.0
    changed = replace(observations, keypoints=moved)
    ends = []
    for given in (observations, changed):
        known = Known(given, initial, BODY, UNKNOWN, (30,))
        state, _ = run_stage(aligned, known, "root", stage)
        ends.append(state.pelvis[0])
    assert float((ends[0] - ends[1])[:30].norm(dim=-1).mean()) > 0.02
    assert float((ends[0] - ends[1])[30:].norm(dim=-1).max()) < 0.005


def test_initial_is_needed_only_through_its_rotations(disturbed):
    """A start without confidence counts fully where it is valid."""
    _, aligned, observations, initial = disturbed
    bare = Initial(initial.person_id, initial.cam_from_root, initial.body_pose, initial.betas,
                   initial.valid)  # fmt: skip
    state, _ = solve((None, aligned, observations, bare), iterations=2)
    assert bool(torch.isfinite(state.pelvis).all())


def test_the_result_is_no_farther_from_the_keypoints_than_the_start(disturbed):
    """With priors that pull away, the keypoints weigh more until they hold; the report says so."""
    _, aligned, observations, initial = disturbed
    config = load_config([], [])
    smooth = config.stages["smooth"]
    terms = {**smooth.terms, "pose_prior": {"weight": 2.0}, "shape": {"weight": 30.0}}
    known = Known(observations, initial, BODY, UNKNOWN)
    stage = replace(smooth, terms=terms)
    free, _ = run_stage(aligned, known, "smooth", stage)
    limit = 0.97 * float(score(free, observations, BODY)["mean_percent"])
    held, report = run_stage(aligned, known, "smooth", stage, start_percent=limit)
    assert float(score(held, observations, BODY)["mean_percent"]) <= limit
    assert report.keypoint_sigma < 1


def test_a_window_of_frames_and_the_whole_clip_give_the_same(disturbed):
    """Factors that are made again, halves side by side: one scale, one shape, no seam."""
    _, aligned, observations, initial = disturbed
    config = load_config([], [])
    known = Known(observations, initial, BODY, UNKNOWN)
    stage = replace(config.stages["motion"], iterations=3)
    whole, _ = run_stage(aligned, known, "motion", stage)
    small = Resources(threads=2, window=9, frames=0)
    windows, _ = run_stage(aligned, known, "motion", stage, resources=small)
    torch.testing.assert_close(whole.pelvis, windows.pelvis, rtol=0, atol=1e-3)
    torch.testing.assert_close(whole.log_scale, windows.log_scale, rtol=0, atol=1e-3)
