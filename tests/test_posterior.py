"""How the joints of the result move with every unknown, against the result itself."""

from dataclasses import replace

import pytest
import torch
from sequences import BODY, make_initial, make_observations, make_state

from slamhmr.config import load_config
from slamhmr.evidence import state_of
from slamhmr.export.result import build_result
from slamhmr.posterior import HANDS, Calibration, _Joints, posterior
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
