"""HuMoR as a term: exact gradient, cuts, invariance, frame rates; with made-up weights."""

from dataclasses import replace

import pytest
import roma
import synthetic
import torch
from golden_files import Golden, filled_network

from priors import humor as networks
from priors.checkpoints import save_weights
from slamhmr.errors import ConfigError, InputError
from slamhmr.features import person_features
from slamhmr.scene import retract
from slamhmr.scene_problem import SceneProblem, check_stage
from slamhmr.solve.assemble import assemble
from slamhmr.solve.levenberg import Schedule, minimise
from slamhmr.solve.problem import Step
from slamhmr.terms import TERMS, term_settings
from slamhmr.terms.humor import STEP, _States, humor_network

UNEVEN = torch.tensor([0.0, 0.031, 0.068, 0.1, 0.14], dtype=torch.float64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("humor") / "humor.safetensors"
    save_weights(path, filled_network(Golden("humor"), networks.HuMoR()).state_dict(), {})
    return str(path)


def problem_of(weights, frames=5, **others):
    """Somebody in motion and the energy of the term, at uneven times."""
    scene, evidence, points = synthetic.make_scene(frames=frames)
    times = UNEVEN if frames == 5 else evidence[0].times
    evidence = [replace(evidence[0], times=times)]
    values = {"humor": {"weights": weights}, **others}
    settings = {name: term_settings("test", name, chosen, 0) for name, chosen in values.items()}
    return SceneProblem(points, evidence, synthetic.layout(), settings, scene), scene


def residual(weights, scene, known, points, *, derivatives=False):
    features = person_features(points, known, synthetic.layout(), scene, 0)
    settings = term_settings("test", "humor", {"weights": weights}, 0)
    return TERMS["humor"].person(features, settings, derivatives)


def blocks(layout, frames):
    """Columns of each kind of unknown in a flat step, the chain's before the border's."""
    chain = torch.arange(frames * 69).reshape(frames, 69)
    border = frames * 69 + torch.arange(layout.width(1))
    places = {
        "scale": layout.scale, "ground": layout.ground, "focal": layout.focal,
        "drift": layout.drift, "betas": layout.betas_of(0),
    }  # fmt: skip
    columns = {name: border[place] for name, place in places.items()}
    return {"pelvis": chain[:, :3], "root": chain[:, 3:6], "body": chain[:, 6:], **columns}


def test_gradient_is_that_of_the_energy(weights):
    """Every kind of unknown; the differences are small for the network has kinks."""
    problem, state = problem_of(weights)
    layout, evidence = problem.layout, problem.evidence
    assert layout.columns(0).tolist() != list(range(layout.width(1)))  # betas before the drift
    found = assemble(
        problem.window(state, 0, 0, 5, derivatives=True), problem.chains[0], second_order=False
    )
    border = torch.zeros(layout.width(1), dtype=torch.float64)
    border[layout.columns(0)] = found.corner_gradient
    gradient = torch.cat([found.gradient.flatten(), border])
    generator = torch.Generator().manual_seed(2)
    for name, columns in blocks(layout, 5).items():
        direction = torch.zeros(len(gradient), dtype=torch.float64)
        direction[columns] = torch.randn(columns.shape, generator=generator, dtype=torch.float64)
        ends = []
        for amount in (1e-8, -1e-8):
            flat = amount * direction
            step = Step([flat[: 5 * 69].reshape(5, 69)], flat[5 * 69 :])
            moved = retract(state, step, layout, evidence)
            window = problem.window(moved, 0, 0, 5, derivatives=False)
            ends.append(float(window.residuals[0].energy(window.count)))
        numeric = (ends[0] - ends[1]) / 2e-8
        assert numeric == pytest.approx(float(gradient @ direction), rel=5e-5, abs=2e-3), name


def test_states_are_the_frames_at_30_per_second():
    scene, evidence, points = synthetic.make_scene(frames=6)
    known = evidence[0]
    states = _States(person_features(points, known, synthetic.layout(), scene, 0))
    here, ahead = states.at(0.0), states.at(STEP)
    torch.testing.assert_close(ahead.joints[:-1], here.joints[1:])
    torch.testing.assert_close(ahead.pose_body[:-1], here.pose_body[1:])
    person = scene.people[0]
    heights = person.pelvis @ scene.ground[:3] + scene.ground[3]
    size = points.size(person.betas)
    torch.testing.assert_close(here.joints[:, 0, 2], heights[1:-1] / size)
    torch.testing.assert_close(  # to the second order in the step, of about 1 rad/s
        here.root_orient.mT @ here.root_orient_vel[..., None],
        roma.rotmat_to_rotvec(person.rotations[:-2, 0].mT @ person.rotations[2:, 0])[..., None]
        / (2 * STEP),
        rtol=0, atol=0.03,
    )  # fmt: skip


def test_yaw_and_place_on_the_floor_do_not_matter(weights):
    scene, evidence, points = synthetic.make_scene(frames=6)
    scene = replace(scene, ground=torch.tensor([0.0, 0, 1, 1.3], dtype=torch.float64))
    before = residual(weights, scene, evidence[0], points).value
    yaw = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    someone = scene.people[0]
    rotations = someone.rotations.clone()
    rotations[:, 0] = yaw @ rotations[:, 0]
    shift = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    turned = replace(someone, rotations=rotations, pelvis=someone.pelvis @ yaw.T + shift)
    after = residual(weights, replace(scene, people=(turned,)), evidence[0], points).value
    torch.testing.assert_close(after, before)


def test_weights_stop_at_cuts_and_ends(weights):
    scene, evidence, points = synthetic.make_scene(frames=8)
    linked = evidence[0].linked.clone()
    linked[3] = False
    found = residual(weights, scene, replace(evidence[0], linked=linked), points)
    assert (found.weight[:, 0] > 0).tolist() == [True, True, False, False, True, True, False, False]
    times = evidence[0].times.clone()
    times[4:] += 1.0  # s, a hole
    found = residual(weights, scene, replace(evidence[0], times=times), points)
    assert (found.weight[:, 0] > 0).tolist() == [True, True, False, False, True, True, False, False]
    for frames in (1, 2):
        few, evidence, points = synthetic.make_scene(frames=frames)
        found = residual(weights, few, evidence[0], points, derivatives=True)
        assert float(found.energy()) == 0.0


def test_a_few_iterations_lower_the_energy(weights):
    others = {"reprojection": {}, "camera": {}, "velocity_gain": {}, "scale": {}, "shape": {},
              "initial_pose": {}, "gravity": {}, "focal": {}, "ground_prior": {}}  # fmt: skip
    problem, state = problem_of(weights, 20, **others)
    _, summary = minimise(problem, problem.settled(state), Schedule(iterations=3))
    assert summary.total_after < 0.9 * summary.total_before
    assert summary.energy_after["humor"] < summary.energy_before["humor"]


class Stage:
    free = ("root", "pose")
    iterations, tolerance = 3, 1e-3

    def __init__(self, weights):
        self.terms = {"humor": {"weights": weights}}


def test_weights_that_are_missing_or_others_are_refused_before_the_stage(tmp_path, weights):
    check_stage("motion", Stage(weights))
    other = tmp_path / "other.safetensors"
    save_weights(other, {"a": torch.zeros(3)}, {})
    for wrong, words in (
        ("", "has no weights"), (str(tmp_path / "none.safetensors"), "do not exist"),
        (str(other), "other.safetensors"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"stage 'motion', term 'humor': .*{words}"):
            check_stage("motion", Stage(wrong))
        with pytest.raises(InputError):
            humor_network(wrong)
