"""How the joints of the result move with every unknown, against the result itself."""

from dataclasses import replace

import pytest
import torch
from sequences import BODY, make_initial, make_observations, make_state

from slamhmr.config import load_config
from slamhmr.evidence import state_of
from slamhmr.export.result import build_result
from slamhmr.posterior import HANDS, Calibration, _Joints, one_guess_per_gap, posterior
from slamhmr.scene import point_set, retract
from slamhmr.scene_problem import Known, scene_problem
from slamhmr.solve.posterior import FrameCovariance
from slamhmr.solve.problem import Step

FRAMES = 6


@pytest.fixture(scope="module")
def solved():
    """Two people, everything free, off every symmetric point."""
    state = make_state(people=2, frames=FRAMES)
    up = torch.tensor([0.04, -0.03, 1.0], dtype=torch.float64)
    normal = torch.tensor([0.05, 0.02, 1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    state = replace(
        state,
        up=up / up.norm(),
        ground=torch.cat([normal / normal.norm(), state.ground[3:]]),
        betas=0.3 * torch.randn(2, 10, generator=generator, dtype=torch.float64),
        drift=0.02 * torch.randn(6, 6, generator=generator, dtype=torch.float64),
    )
    known = Known(
        make_observations(state), make_initial(state), BODY, torch.full((2,), torch.nan).double()
    )
    stage = load_config().stages["motion"]
    terms = {**stage.terms, "focal": {}}
    return state, known, replace(stage, free=[*stage.free, "focal"], terms=terms)


def joints_of(scene, state, known):
    result = build_result(
        state_of(scene, state), BODY, known.observations, body_model="default", provenance={}
    )
    return result.joints


@pytest.mark.parametrize("person", [0, 1])
def test_jacobian_of_the_result(solved, person):
    """With a unit covariance of all unknowns the blocks are J J'."""
    state, known, stage = solved
    problem, scene = scene_problem(state, known, "motion", stage)
    scene = replace(scene, jitter_information=None)  # the jitter is no part of the unknowns
    joints = _Joints(problem, scene, point_set(BODY, HANDS))
    size, width = problem.layout.free.columns, problem.layout.chain_width
    unit = FrameCovariance(
        person, 0, torch.eye(size).double().expand(FRAMES, -1, -1),
        torch.zeros(FRAMES, size, width).double(),
    )  # fmt: skip
    world, relative = joints.covariances(unit, torch.eye(problem.border_count).double())
    eps, frame = 1e-6, 3
    zeros = [torch.zeros(FRAMES, size).double() for _ in range(2)]
    columns = []
    for index in range(size + problem.border_count):
        pair = []
        for sign in (eps, -eps):
            steps, border = [z.clone() for z in zeros], torch.zeros(problem.border_count).double()
            if index < size:
                steps[person][frame, index] = sign
            else:
                border[index - size] = sign
            moved = retract(scene, Step(steps, border), problem.layout, problem.evidence)
            pair.append(joints_of(moved, state, known)[person, frame])
        columns.append((pair[0] - pair[1]) / (2 * eps))
    jacobian = torch.stack(columns, dim=-1)  # (24, 3, n)
    expected = jacobian @ jacobian.mT
    torch.testing.assert_close(world[frame], expected, rtol=1e-5, atol=1e-6)
    against = jacobian - jacobian[:1]
    torch.testing.assert_close(relative[frame], against @ against.mT, rtol=1e-5, atol=1e-6)


def test_what_nobody_sees_is_less_sure(solved):
    """Without keypoints in the middle of the clip its joints have larger covariances."""
    state, known, stage = solved
    confidence = known.observations.confidence.clone()
    confidence[0, 2:4] = 0
    blind = replace(known, observations=replace(known.observations, confidence=confidence))
    sure = posterior(state, known, "motion", stage, Calibration())
    unsure = posterior(state, blind, "motion", stage, Calibration())
    trace = [
        found.joints_cov_root[0, 2:4, 15].diagonal(dim1=-2, dim2=-1).sum(dim=-1).mean()
        for found in (sure, unsure)
    ]
    assert float(trace[1]) > 1.05 * float(trace[0])
    assert sure.log_scale_var is not None
    assert set(sure.prior_share) == {"scale", "focal", "gravity", "floor_tilt", "floor_height"}
    assert all(0 <= share <= 1 for share in sure.prior_share.values())


GAP = slice(14, 47)  # 1.3 s


@pytest.fixture(scope="module")
def hidden():
    """Somebody who is not seen in a gap of a clip of 2.4 s, where the start predicts all the same.

    The contacts and velocities that it predicts in the gap are as sure as any.
    """
    state = make_state(frames=60)
    state = replace(state, contacts=torch.full_like(state.contacts, 0.8))
    seen, initial = make_observations(state), make_initial(state)
    confidence, observed = seen.confidence.clone(), state.observed.clone()
    confidence[:, GAP], observed[:, GAP] = 0.0, False
    velocity = 25 * (state.pelvis[:, 1:] - state.pelvis[:, :-1])
    initial = replace(
        initial,
        root_velocity=torch.cat([velocity, velocity[:, -1:]], dim=1),
        root_velocity_sigma=torch.full_like(state.pelvis, 0.2),
    )
    height = torch.tensor([1.7], dtype=torch.float64)
    known = Known(replace(seen, confidence=confidence), initial, BODY, height)
    return replace(state, observed=observed, velocity_gain=torch.zeros(1).double()), known


def test_nobody_knows_where_somebody_is_in_a_gap_of_more_than_a_second(hidden):
    state, known = hidden
    config = load_config()
    found = posterior(
        state, known, "motion", config.stages["motion"],
        Calibration(weights=config.posterior.weights),
    )  # fmt: skip
    middle = (GAP.start + GAP.stop) // 2
    judged = (("world", found.joints_cov, 1.35), ("relative", found.joints_cov_root, 1.5))
    for name, covariance, rise in judged:  # in the world scale and depth are unsure everywhere
        std = covariance[0, :, 1:].diagonal(dim1=-2, dim2=-1).sum(dim=-1).mean(dim=-1).sqrt()
        beside = torch.cat([std[: GAP.start], std[GAP.stop :]])
        assert float(std[middle]) > rise * float(beside.mean()), name
        assert float(std[middle]) > float(std[GAP.start + 3]), name


def test_what_is_predicted_in_a_gap_counts_once(hidden):
    """The information of a gap's predictions is that of one residual, however long it is."""
    state, known = hidden
    config = load_config()
    problem, _ = scene_problem(state, known, "motion", config.stages["motion"])
    weights = {"contact_velocity": 0.1, "root_velocity": 0.07}
    problem = replace(
        problem,
        settings={
            name: replace(chosen, weight=weights.get(name, chosen.weight))
            for name, chosen in problem.settings.items()
        },
    )
    before, after = problem.evidence[0], one_guess_per_gap(problem, state.observed).evidence[0]
    contacts = (after.contacts / before.contacts)[:, 0] ** 2
    assert float(0.1 * contacts[GAP].sum()) == pytest.approx(1.0)
    velocity = (before.root_velocity_sigma / after.root_velocity_sigma)[:, 0] ** 2
    assert float(0.07 * 30 / 25 * velocity[GAP].sum()) == pytest.approx(1.0)
    outside = torch.ones(60, dtype=torch.bool)
    outside[GAP] = False
    assert bool((contacts[outside] == 1).all() & (velocity[outside] == 1).all())
    short = state.observed.clone()
    short[:, GAP.start + 8 : GAP.stop] = True  # eight are less than one independent residual
    same = one_guess_per_gap(problem, short).evidence[0]
    torch.testing.assert_close(same.contacts, before.contacts)
    torch.testing.assert_close(same.root_velocity_sigma, before.root_velocity_sigma)


def test_a_shot_in_which_somebody_is_not_seen_leaves_the_others_certain(solved):
    """Nothing says where the person is there; the covariance says so, and only there."""
    state, known, stage = solved
    confidence = known.observations.confidence.clone()
    confidence[0, 3] = 0.0
    unseen = replace(
        known, observations=replace(known.observations, confidence=confidence), cuts=(3, 4)
    )
    found = posterior(state, unseen, "motion", stage, Calibration())
    spread = found.joints_cov.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt().amax(dim=-1)
    assert float(spread[0, 3]) > 10
    spread[0, 3] = 0.0
    assert float(spread.max()) < 5


@pytest.mark.parametrize("terms", [{"reprojection": {}, "acceleration": {}}])
def test_a_stage_without_shared_unknowns_has_a_posterior(solved, terms):
    state, known, stage = solved
    bare = replace(stage, free=["root"], terms=terms)
    found = posterior(state, known, "bare", bare, Calibration())
    assert bool(torch.isfinite(found.joints_cov).all())
    assert found.log_scale_var is None
