"""What a start predicts with sigmas: root velocity and its gain, rotations, gravity."""

import math
from dataclasses import replace

import pytest
import sequences
import synthetic
import torch

from slamhmr.config import load_config
from slamhmr.features import person_features
from slamhmr.scene_problem import Known, scene_problem
from slamhmr.stages import run_stage
from slamhmr.terms import TERMS, BorderContext, term_settings

LAYOUT = synthetic.layout()


def residual(name, evidence, scene, **settings):
    features = person_features(synthetic.POINTS, evidence, LAYOUT, scene, 0)
    return TERMS[name].person(features, term_settings("test", name, settings, 0), False)


def known(*, velocity):
    state = sequences.make_state()
    initial = sequences.make_initial(state)
    if velocity:
        ones = torch.ones(*state.valid.shape, 3, dtype=torch.float64)
        initial = replace(initial, root_velocity=0.1 * ones, root_velocity_sigma=0.2 * ones)
    heights = torch.full((1,), torch.nan, dtype=torch.float64)
    return state, Known(sequences.make_observations(state), initial, sequences.BODY, heights)


def test_a_constant_gain_of_the_prediction_explains_it_away():
    scene, evidence, _ = synthetic.make_scene(frames=8)
    fast = replace(evidence[0], root_velocity=evidence[0].root_velocity * math.exp(0.1))
    off = residual("root_velocity", fast, scene)
    assert float(off.energy()) > 1e-3
    gained = replace(scene, velocity_gain=torch.tensor([0.1], dtype=torch.float64))
    assert float(residual("root_velocity", fast, gained).energy()) == pytest.approx(0, abs=1e-20)


def test_noise_of_the_prediction_does_not_reward_a_smaller_world():
    """The prediction stands alone in the residual: gain and scale only divide out each other."""
    scene, evidence, points = synthetic.make_scene(frames=400)
    sigma = evidence[0].root_velocity_sigma
    noise = torch.randn(400, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loud = replace(evidence[0], root_velocity=evidence[0].root_velocity + sigma * noise)

    def energy(gain):
        gained = replace(scene, velocity_gain=torch.tensor([gain], dtype=torch.float64))
        return float(residual("root_velocity", loud, gained, mu=1e12).energy())

    best = min((g / 100 for g in range(-60, 61)), key=energy)
    assert abs(best) < 0.1


def test_a_velocity_counts_where_both_its_frames_are_valid_and_linked():
    state, given = known(velocity=True)
    given.initial.valid[0, 3] = False
    stage = load_config().stages["motion"]
    problem, scene = scene_problem(state, replace(given, cuts=(6,)), "motion", stage)
    found = residual("root_velocity", problem.evidence[0], scene)
    assert found.weight[:, 0].gt(0).tolist() == [True, True, False, False, True, False, True, False]
    assert bool(torch.isfinite(found.value).all())


def test_a_term_whose_input_the_start_lacks_is_idle_and_named():
    stage = load_config().stages["motion"]
    assert {"root_velocity", "velocity_gain"} <= set(stage.terms)
    for velocity in (False, True):
        state, given = known(velocity=velocity)
        problem, _ = scene_problem(state, given, "motion", stage)
        assert ("root_velocity" in problem.settings) == velocity
        assert (problem.layout.gain is not None) == velocity
        short = replace(stage, iterations=1)
        solved, report = run_stage(state, given, "motion", short)
        assert ("root_velocity" in report.idle) != velocity
        assert ("root_velocity" in report.energy_after) == velocity
        assert bool((solved.velocity_gain != 0).all()) == velocity


def test_initial_pose_is_white_where_errors_last_and_sigmas_change():
    frames, tau = 4000, 20.0
    generator = torch.Generator().manual_seed(2)
    fade = math.exp(-1 / tau)
    white = torch.randn(frames, 22, 3, generator=generator, dtype=torch.float64)
    error = white.clone()
    for t in range(1, frames):
        error[t] = fade * error[t - 1] + math.sqrt(1 - fade**2) * white[t]
    scene, evidence, _ = synthetic.make_scene(frames=frames)
    slow = 1 + 0.5 * torch.sin(torch.arange(frames) / 10.0)[:, None].expand(frames, 22).double()
    sigma = 1e-3 * slow
    turned = scene.people[0].rotations @ synthetic.roma.rotvec_to_rotmat(-error * sigma[..., None])
    start = replace(evidence[0], initial_rotations=turned, rotation_sigma=sigma)
    found = residual("initial_pose", start, scene, tau=tau)
    value = found.value[:-1]
    assert float(value.square().mean()) == pytest.approx(1, abs=0.03)
    assert float((value[1:] * value[:-1]).mean().abs()) < 0.03
    doubled = residual("initial_pose", start, scene, tau=tau, factor=2.0)
    torch.testing.assert_close(2 * doubled.value, found.value)


def test_sigmas_of_the_start_replace_the_flat_one():
    scene, evidence, _ = synthetic.make_scene(frames=5)
    start = replace(evidence[0], initial_rotations=evidence[0].initial_rotations.roll(1, dims=0))
    flat = torch.full((5, 22), math.radians(12), dtype=torch.float64)
    own = residual("initial_pose", replace(start, rotation_sigma=flat), scene)
    given = residual("initial_pose", replace(start, rotation_sigma=None), scene, sigma_deg=12)
    torch.testing.assert_close(own.value, given.value)
    half = torch.full((5, 22), 0.5, dtype=torch.float64)
    unsure = replace(start, initial_confidence=half)
    assert float(residual("initial_pose", unsure, scene).weight[0, 0]) == 1.0
    plain = residual("initial_pose", replace(unsure, rotation_sigma=None), scene)
    assert float(plain.weight[0, 0]) == 0.5


def test_gravity_is_as_sure_as_the_alignment_says():
    scene, evidence, points = synthetic.make_scene(frames=5)
    up = torch.nn.functional.normalize(torch.tensor([0.1, 0, 1], dtype=torch.float64), dim=0)
    settings = term_settings("test", "gravity", {"sigma_deg": 3}, 0)

    def value(sigma):
        moved = replace(scene, up=up, up_sigma=sigma)
        context = BorderContext(moved, moved, LAYOUT, (5,), (None,), points, 1.0, ())
        return float(TERMS["gravity"].border(context, settings)[0].value[0])

    plain = value(None)
    sure = value(torch.tensor(math.radians(1), dtype=torch.float64))
    assert sure == pytest.approx(3 * plain)
