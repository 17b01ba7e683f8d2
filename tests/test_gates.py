"""Every gate from both sides, on results that are made wrong on purpose."""

import dataclasses
import math

import pytest
import roma
import torch
from sequences import BODY, make_observations, make_state

from slamhmr.config import GatesConfig, load_config
from slamhmr.export.result import build_result
from slamhmr.gates import Gate, Judged, open_gates, worse_percent
from slamhmr.judgement import judge_result
from slamhmr.quality import measure, natural_jitter
from slamhmr.types import Observations, Result, SceneState

LIMITS = GatesConfig()
FRAMES = 60
SCORES = {"start": {"mean_percent": 2.0}, "motion": {"mean_percent": 1.5}}


def standing(people: int = 1) -> SceneState:
    """People who stand still, both feet flat on the floor, before a camera that travels."""
    state = make_state(people, FRAMES)
    pelvis = state.pelvis.clone()
    pelvis[..., 0] = torch.arange(people, dtype=torch.float64)[:, None] - 0.5
    state = dataclasses.replace(
        state, pelvis=pelvis, body_pose=torch.zeros_like(state.body_pose),
        contacts=torch.ones_like(state.contacts),
    )  # fmt: skip
    result = result_of(state, make_observations(state))
    sole = result.joints[0, 0, 0, 2] + BODY.v_template[:, 1].min() - BODY.point_template[0, 1]
    lowered = state.pelvis.clone()
    lowered[..., 2] -= sole
    return dataclasses.replace(state, pelvis=lowered)


def result_of(state: SceneState, seen: Observations, scale_percent: float = 5.0) -> Result:
    result = build_result(state, BODY, seen, body_model="default", provenance={})
    return dataclasses.replace(result, scale_std=0.01 * scale_percent * result.scale)


def gates(
    state: SceneState, seen: Observations, limits: GatesConfig = LIMITS, **changed: object
) -> dict[str, Gate]:
    """All gates by name, of a state that is scored against what is seen."""
    whole = result_of(state, seen, float(str(changed.pop("scale_percent", 5.0))))
    result, quality, _ = judge_result(
        whole, state, seen, BODY, limits, measured=torch.zeros(len(state.betas), dtype=torch.bool)
    )
    judged = Judged(result, state.valid, quality, state.cameras, SCORES, {"scale": 0.2})
    judged = dataclasses.replace(judged, **changed)
    return {gate.name: gate for gate in open_gates(judged, limits)}


def failed(found: dict[str, Gate]) -> list[str]:
    return [name for name, gate in found.items() if not gate.passed]


@pytest.fixture(scope="module")
def good() -> SceneState:
    return standing()


@pytest.fixture(scope="module")
def seen(good: SceneState) -> Observations:
    return make_observations(good)


def test_the_shipped_limits_are_those_of_the_schema():
    assert load_config().gates == LIMITS


def test_somebody_who_stands_passes_everything(good, seen):
    found = gates(good, seen)
    assert failed(found) == []
    values = {name: gate.value for name, gate in found.items()}
    assert values["foot_sliding_mm"] < 1e-6
    assert values["penetration_cm"] < 0.2
    assert values["floating_cm"] < 1.5  # big toes of a flat foot
    assert values["jitter"] < 1e-6


def test_a_gate_that_is_switched_off_is_not_there(good, seen):
    nothing = GatesConfig(**{field.name: None for field in dataclasses.fields(GatesConfig)})
    assert gates(good, seen, nothing) == {}
    off = dataclasses.replace(LIMITS, scale_percent=None)
    assert set(gates(good, seen)) - set(gates(good, seen, off)) == {"scale"}


def shifted(state: SceneState, move: torch.Tensor) -> SceneState:
    """The state with every pelvis moved by (T, 3) metres."""
    return dataclasses.replace(state, pelvis=state.pelvis + move)


def sliding(state: SceneState, mm: float) -> SceneState:
    """All slide to the right by so many mm per 1/30 s."""
    move = torch.zeros(FRAMES, 3, dtype=torch.float64)
    move[:, 0] = torch.arange(FRAMES) * (mm / 1000) * 30 / 25
    return shifted(state, move)


def lifted(state: SceneState, metres: float) -> SceneState:
    return shifted(state, torch.tensor([0.0, 0.0, metres], dtype=torch.float64))


def shaking(state: SceneState, amount: float) -> SceneState:
    """Up and down by `amount` metres from frame to frame."""
    move = torch.zeros(FRAMES, 3, dtype=torch.float64)
    move[1::2, 1] = amount
    return shifted(state, move)


# What is done to the state, the gate it breaks, and a dose on either side of its limit. `shaking`
# by a has accelerations of 2 a fps^2 and a jitter of 4 a fps^3.
NATURAL = natural_jitter(25.0)
DOSES = {
    "sliding": (sliding, "foot_sliding_mm", 14.5, 15.5),
    "doubled scale": (lambda s, speed: sliding(s, speed), "foot_sliding_mm", 5.0, 35.0),
    "floating": (lifted, "floating_cm", 0.08, 0.11),
    "in the floor": (lambda s, d: lifted(s, -d), "penetration_cm", 0.078, 0.084),
    "shaking": (
        lambda s, share: shaking(s, share * 10 * 3 * NATURAL / (4 * 25**3)), "jitter", 0.98, 1.02,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DOSES)
def test_both_sides_of_a_limit(good, case):
    """What is seen fits the state: pixels alone would not tell."""
    change, name, little, much = DOSES[case]
    for dose, fails in ((little, False), (much, True)):
        state = change(good, dose)
        gate = gates(state, make_observations(state))[name]
        assert gate.passed is not fails, gate
        assert ("; limit" in gate.sentence) is fails


def test_acceleration_both_sides(good):
    for share, fails in ((0.98, False), (1.02, True)):
        state = shaking(good, share * 250 / (2 * 25**2))
        limits = dataclasses.replace(LIMITS, jitter=None, frames_jitter=None)
        gate = gates(state, make_observations(state), limits)["acceleration_m_per_s2"]
        assert gate.passed is not fails, gate


@pytest.mark.parametrize(
    ("name", "changed", "fails"),
    [
        ("scale", {"scale_percent": 29.0}, False),
        ("scale", {"scale_percent": 31.0}, True),
        ("scale", {"prior_share": {"scale": 0.94}}, False),
        ("scale", {"prior_share": {"scale": 0.96}}, True),
        ("worse_than_start", {"scores": {"s": {"mean_percent": 2.0}, "m": {"mean_percent": 2.0}}},
         False),
        ("worse_than_start", {"scores": {"s": {"mean_percent": 2.0}, "m": {"mean_percent": 2.01}}},
         True),
        ("worse_than_start", {"scores": {"s": {"mean_percent": 1e-6}, "m": {"mean_percent": 0.1}}},
         False),
    ],
)  # fmt: skip
def test_numbers_both_sides(good, seen, name, changed, fails):
    found = gates(good, seen, **changed)
    assert failed(found) == ([name] if fails else [])


def test_an_unobservable_scale_says_so(good, seen):
    gate = gates(good, seen, prior_share={"scale": 0.99})["scale"]
    assert "scale is not observable: 99 % of its prior's variance is left" in gate.sentence


def test_a_scale_without_posterior_is_said_to_be_unknown(good, seen):
    gate = gates(good, seen, scale_percent=math.nan)["scale"]
    assert gate.passed
    assert gate.sentence == "no posterior was computed: the scale's sigma is not known"


@pytest.mark.parametrize(
    ("what", "there"), [({"moving": False}, False), ({"scale_known": True}, False), ({}, True)]
)
def test_scale_is_judged_only_where_a_camera_travels(good, seen, what, there):
    cameras = dataclasses.replace(good.cameras, **what)
    assert ("scale" in gates(good, seen, cameras=cameras)) is there


@pytest.mark.parametrize(("share", "fails"), [(0.25, False), (0.35, True)])
def test_a_camera_that_is_lost_for_long(good, seen, share, fails):
    lost = torch.arange(FRAMES) < share * FRAMES
    cameras = dataclasses.replace(good.cameras, lost=lost)
    found = gates(good, seen, cameras=cameras)
    assert failed(found) == (["lost_share"] if fails else [])


@pytest.mark.parametrize(("apart", "fails"), [(0, False), (1, True)])
def test_pieces_that_nobody_ties_are_no_one_world(good, seen, apart, fails):
    cameras = dataclasses.replace(good.cameras, segments=torch.tensor([FRAMES // 2]))
    found = gates(good, seen, cameras=cameras, apart=apart)
    assert failed(found) == (["pieces_apart"] if fails else [])
    assert "pieces_apart" not in gates(good, seen, apart=apart)  # one piece


def test_a_piece_of_unknown_scale_fails_as_the_whole_does(good, seen):
    found = gates(good, seen, prior_share={"scale": 0.1, "segment_scale": 0.99})
    assert failed(found) == ["scale"]


@pytest.mark.parametrize(("limit", "fails"), [(2, False), (1, True)])
def test_degraded_steps_count_where_a_limit_is_given(good, seen, limit, fails):
    found = gates(good, seen, dataclasses.replace(LIMITS, degraded_steps=limit), degraded=2)
    assert failed(found) == (["degraded_steps"] if fails else [])


@pytest.mark.parametrize(("percent", "fails"), [(2.9, False), (3.1, True)])
def test_pixel_errors_both_sides(good, seen, percent, fails):
    """Everything is seen so far beside of where it is."""
    height = seen.boxes[..., 3] - seen.boxes[..., 1]
    moved = seen.keypoints.clone()
    moved[..., 0] += (0.01 * percent * height)[..., None]
    found = gates(good, dataclasses.replace(seen, keypoints=moved))
    assert failed(found) == (["reprojection_percent"] if fails else [])


def test_somebody_frozen_fails(seen, good):
    """The person who is seen walks on; the result stands."""
    walked = seen.keypoints.clone()
    walked[..., 0] += torch.linspace(0, 120, FRAMES, dtype=torch.float64)[:, None]
    found = gates(good, dataclasses.replace(seen, keypoints=walked))
    assert {"reprojection_percent", "people"} <= set(failed(found))


def test_a_wrong_arm_fails(good, seen):
    """Down in the pictures, straight out in the result."""
    hanging = good.body_pose.clone()
    hanging[:, :, 15] = torch.tensor([0.0, 0.0, -1.3])
    truth = make_observations(dataclasses.replace(good, body_pose=hanging))
    found = gates(good, truth)
    assert "people" in failed(found)
    assert measured_limbs(good, truth)[0, 0] > 12


def measured_limbs(state: SceneState, seen: Observations) -> torch.Tensor:
    return measure(result_of(state, seen), state, seen, BODY).limb_percent


def test_somebody_on_a_step_neither_floats_nor_sinks(good):
    state = lifted(good, 0.4)
    seen = make_observations(state)
    assert "floating_cm" in failed(gates(state, seen))
    step = torch.full((1, FRAMES, 4), 0.4, dtype=torch.float64)
    assert failed(gates(dataclasses.replace(state, support=step), seen)) == []
    high = dataclasses.replace(state, support=step + 0.1)
    assert failed(gates(high, seen)) == ["penetration_cm"]


def test_nobody_in_contact_is_not_measured_and_passes(good, seen):
    found = gates(dataclasses.replace(good, contacts=torch.zeros_like(good.contacts)), seen)
    assert failed(found) == []
    assert found["foot_sliding_mm"].sentence == "no foot is in contact: sliding is not known"


def test_nothing_well_seen_fails(good, seen):
    blurred = dataclasses.replace(seen, confidence=0.4 * seen.confidence)
    found = gates(good, blurred)
    assert failed(found) == ["reprojection_percent"]
    assert "no keypoint" in found["reprojection_percent"].sentence


def test_worse_than_unknown_is_not_a_number():
    assert math.isnan(worse_percent({"mean_percent": 2.0}, {"mean_percent": None}))


def test_turning_the_world_changes_nothing(good, seen):
    """A result's gates do not depend on the heading that the world happens to have."""
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.1], dtype=torch.float64))
    track = good.cameras.world_from_cam.clone()
    track[:, :3] = turn @ track[:, :3]
    root = roma.rotmat_to_rotvec(turn @ roma.rotvec_to_rotmat(good.root_orient))
    turned = dataclasses.replace(
        good, root_orient=root, pelvis=good.pelvis @ turn.T,
        cameras=dataclasses.replace(good.cameras, world_from_cam=track),
    )  # fmt: skip
    ours, theirs = gates(good, seen), gates(turned, seen)
    for name, gate in ours.items():
        assert theirs[name].value == pytest.approx(gate.value, abs=1e-6), name
