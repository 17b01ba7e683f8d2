"""What a stage would ask of a GPU: no tensor on the wrong device, few launches, few waits."""

from dataclasses import replace
from functools import cache

import pytest
import synthetic
import torch
from launches import Launches, StrayTensors
from sequences import BODY, make_initial, make_observations, make_state

from slamhmr.config import load_config
from slamhmr.device import on
from slamhmr.posterior import Calibration, posterior
from slamhmr.scene_problem import Known, SceneProblem, settings_of
from slamhmr.solve.assemble import assemble
from slamhmr.solve.levenberg import Schedule, minimise
from slamhmr.solve.sweep import Resources, Sweep
from slamhmr.stages import run_stage

TOGETHER = Resources(1, 16_384, together=True)
STAGE = load_config().stages["motion"]
# Launches of one iteration: linearisation, elimination, two trial steps and their cameras' jitter.
PER_PERSON, SHARED, PER_LEVEL = 8900, 900, 40
MOST_LEVELS = 13  # of 16,384 frames in pairs
ENDINGS = 9  # waits of an iteration whoever is there: pivots, step, decrease, energies
# Waits for every person. Who is near whom, and which capsules overlap, sets sizes; free fall and
# ties of segments are asked about only where there are any.
PER_PERSON_WAITS = {
    "slamhmr/neighbours.py": 8, "slamhmr/terms/people.py": 8, "slamhmr/terms/flight.py": 4,
    "slamhmr/terms/smoothness.py": 4, "slamhmr/features.py": 1,
    "slamhmr/scene_problem.py": 1,
}  # fmt: skip


def motion_problem(frames, people):
    """The last round of the motion stage with everything free, and its state."""
    scene, evidence, points = synthetic.make_scene(frames=frames, people=people)
    settings = settings_of("motion", STAGE, 1)
    problem = SceneProblem(points, evidence, synthetic.layout(), settings, scene)
    return problem, problem.settled(scene)


@cache
def counted(frames, people):
    """Launches and waits of one iteration, and of the energy at its start."""
    problem, state = motion_problem(frames, people)
    with Launches() as counter, StrayTensors() as copied:
        _, summary = minimise(problem, state, Schedule(iterations=1), resources=TOGETHER)
    assert (summary.iterations, summary.rejected) == (1, 0)
    return counter.total, counter.waits + copied.copies


def test_no_tensor_is_made_on_no_device_in_particular():
    problem, state = motion_problem(12, 2)
    minimise(problem, state, Schedule(iterations=1))  # reads the networks
    with StrayTensors() as strays:
        minimise(problem, state, Schedule(iterations=1), resources=TOGETHER)
    assert strays.found == {}


def test_a_stray_tensor_is_noticed():
    with StrayTensors() as strays:
        torch.zeros(3)
        torch.zeros(3, device="cpu")
    assert sum(strays.found.values()) == 1


def test_every_term_follows_the_problem_to_another_device(monkeypatch):
    """Tensors of the device "meta" have no numbers; mixed with the processor's they raise."""
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: True)  # there is flight, and a tie
    here, scene = motion_problem(12, 1)
    problem, state = on((here, scene), "meta")
    for name in ("point_path", "capsules"):  # once per stage, these do look at numbers
        owner = (problem.points.body, here.points.body)
        owner = owner if name == "point_path" else (problem.points, here.points)
        vars(owner[0])[name] = on(getattr(owner[1], name), "meta")
    window = problem.window(state, 0, 0, 12, derivatives=True)
    equations = assemble(window, problem.chains[0])
    found = [*equations.band, equations.border, equations.gradient, equations.corner]
    vars(problem)["_longest"] = (0.4, 11)
    found += [residual.derivative for residual in problem.border(state)]
    assert {value.device.type for value in found if value is not None} == {"meta"}


def test_launches_do_not_grow_with_the_frames():
    budget = PER_PERSON + SHARED + MOST_LEVELS * PER_LEVEL
    short, long = counted(64, 1)[0], counted(1024, 1)[0]
    assert long - short <= 4 * PER_LEVEL  # 32 and 512 pairs: four levels more
    assert long + (MOST_LEVELS - 9) * PER_LEVEL <= budget
    three = counted(64, 3)[0]
    assert three <= 3 * PER_PERSON + SHARED + MOST_LEVELS * PER_LEVEL


def test_the_processor_waits_seldom_and_where_it_is_known():
    for frames, people in ((64, 1), (1024, 1), (64, 3)):
        _, waits = counted(frames, people)
        by_file = {}
        for place, count in waits.items():
            file = place.split(" at ")[1].split(":")[0]
            by_file[file] = by_file.get(file, 0) + count
        ending = sum(n for file, n in by_file.items() if file.startswith("slamhmr/solve/"))
        assert ending <= ENDINGS, waits
        for file, count in by_file.items():
            if not file.startswith("slamhmr/solve/"):
                assert count <= people * max(people - 1, 1) * PER_PERSON_WAITS[file], waits


@pytest.mark.parametrize("damping", [1e-6, 1e-2])
def test_step_of_the_motion_stage_is_that_of_the_sweep(damping):
    """Without its one float32 Jacobian, whose last digits depend on how many frames it is of."""
    problem, state = motion_problem(23, 2)
    settings = {name: value for name, value in problem.settings.items() if name != "transition"}
    problem = replace(problem, settings=settings)
    swept = Sweep(problem, state, damping, Resources(1, 7)).solve()
    reduced = Sweep(problem, state, damping, TOGETHER).solve()
    for one, other in zip(
        [*swept.step.chains, swept.step.border], [*reduced.step.chains, reduced.step.border],
        strict=True,
    ):  # fmt: skip
        assert float((one - other).abs().max()) < 1e-9 * float(one.abs().max())
    assert reduced.predicted == pytest.approx(swept.predicted, rel=1e-9)


def test_the_posterior_is_that_of_the_default_path():
    state = make_state(people=2, frames=12)
    unknown = torch.full((2,), torch.nan).double()
    known = Known(make_observations(state), make_initial(state), BODY, unknown)
    calibration = Calibration(load_config().posterior.weights)
    one, two = (
        posterior(state, known, "motion", STAGE, calibration, resources=resources)
        for resources in (Resources(1), TOGETHER)
    )
    for name in ("joints_cov", "joints_cov_root", "betas_cov", "ground_cov"):
        swept, reduced = getattr(one, name), getattr(two, name)
        close = 1e-5 * float(swept.nan_to_num().abs().max())
        torch.testing.assert_close(reduced, swept, rtol=0, atol=close, equal_nan=True)


def test_a_whole_stage_ends_where_the_default_path_does():
    state = make_state(people=1, frames=16)
    known = Known(
        make_observations(state), make_initial(state), BODY, torch.full((1,), torch.nan).double()
    )
    moved = replace(state, pelvis=state.pelvis + 0.05)
    swept, said = run_stage(moved, known, "motion", STAGE, resources=Resources(1))
    reduced, also = run_stage(moved, known, "motion", STAGE, resources=TOGETHER)
    assert said.iterations == also.iterations
    total, other = (sum(report.energy_after.values()) for report in (said, also))
    assert other == pytest.approx(total, rel=1e-8)
    for name in ("pelvis", "root_orient", "body_pose", "betas", "log_scale", "ground"):
        one, two = getattr(swept, name), getattr(reduced, name)
        torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
