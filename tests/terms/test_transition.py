"""Terms of transition: autograd twin, invariances, frame rates, scale."""

import math
from dataclasses import replace

import pytest
import roma
import synthetic
import torch

from slamhmr.features import person_features
from slamhmr.scene import Person, retract
from slamhmr.solve.problem import Step
from slamhmr.synth.scene import SceneSpec, make_scene
from slamhmr.terms import TERMS, term_settings
from slamhmr.terms.transition import transition_prior

NAMES = ["transition", "gait"]


def residual(name, scene, evidence, points, layout, *, derivatives=False, **settings):
    features = person_features(points, evidence, layout, scene, 0)
    chosen = term_settings("test", name, settings, 0)
    return TERMS[name].person(features, chosen, derivatives)


def naive(name, scene, evidence, points):
    """The residual of the first three frames, written out frame by frame."""
    from priors.transition import Triple

    prior, _ = transition_prior()
    person, times = scene.people[0], evidence.times
    size = points.size(person.betas)
    root, pelvis = person.rotations[:, 0], person.pelvis
    rates = [
        roma.rotmat_to_rotvec(person.rotations[k].mT @ person.rotations[k + 1]).flatten()
        / (times[k + 1] - times[k])
        for k in (0, 1)
    ]
    speeds = [
        root[1].T @ (pelvis[k + 1] - pelvis[k]) / (times[k + 1] - times[k]) / size for k in (0, 1)
    ]
    before, after = (torch.cat(pair) for pair in zip(speeds, rates, strict=True))
    step = (times[2] - times[0]) / 2
    triple = Triple(person.rotations[1, 1:], root[1].T @ scene.up, before, after, step)
    if name == "transition":
        return prior.change_residual(triple)
    return prior.gait_residual(triple, root[1].T @ (pelvis[2] - pelvis[0]) / (2 * step) / size)


@pytest.mark.parametrize("name", NAMES)
def test_value_and_derivative_against_the_autograd_twin(name):
    """No drift: motion in the world is motion against the cameras."""
    scene, evidence, points = synthetic.make_scene(frames=3)
    layout = synthetic.layout()
    times = torch.tensor([0.0, 0.031, 0.068], dtype=torch.float64)
    known = replace(evidence[0], times=times)
    found = residual(name, scene, known, points, layout, derivatives=True)
    torch.testing.assert_close(found.value[0, 0], naive(name, scene, known, points))
    columns = layout.free.columns

    def moved(flat):
        chain = flat[: 3 * columns].reshape(3, columns)
        step = Step([chain], flat[3 * columns :])
        return naive(name, retract(scene, step, layout, [known]), known, points)

    width = layout.width(1)
    jacobian = torch.autograd.functional.jacobian(
        moved, torch.zeros(3 * columns + width, dtype=torch.float64)
    )
    scale = float(jacobian.abs().max())
    expected = jacobian[:, : 3 * columns].reshape(-1, 3, columns).transpose(0, 1)
    assert float((found.derivative[:, 0, 0] - expected).abs().max()) < 1e-5 * scale
    own = found.border_slice.stop  # all but the drift, which turns world and cameras alike
    shared = jacobian[:, 3 * columns :][:, layout.columns(0)][:, :own]
    assert float((found.border_derivative[0, 0] - shared).abs().max()) < 1e-5 * scale


@pytest.mark.parametrize("name", NAMES)
def test_yaw_translation_and_size_do_not_matter(name):
    scene, evidence, points = synthetic.make_scene(frames=9)
    layout, someone = synthetic.layout(), scene.people[0]
    before = residual(name, scene, evidence[0], points, layout).value
    yaw = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    rotations = someone.rotations.clone()
    rotations[:, 0] = yaw @ rotations[:, 0]
    shift = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    turned = replace(someone, rotations=rotations, pelvis=someone.pelvis @ yaw.T + shift)
    after = residual(name, replace(scene, people=(turned,)), evidence[0], points, layout).value
    torch.testing.assert_close(after, before)
    slope = points.size_directions / points.size_template
    small = replace(someone, betas=torch.zeros_like(someone.betas))
    betas = slope * (0.1 / (slope @ slope))
    large = replace(small, betas=betas, pelvis=1.1 * small.pelvis)
    pair = [
        residual(name, replace(scene, people=(p,)), evidence[0], points, layout).value
        for p in (small, large)
    ]
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("name", NAMES)
def test_weights_stop_at_cuts_and_ends(name):
    scene, evidence, points = synthetic.make_scene(frames=8)
    linked = evidence[0].linked.clone()
    linked[3] = False
    known = replace(evidence[0], linked=linked)
    found = residual(name, scene, known, points, synthetic.layout())
    assert (found.weight[:, 0] > 0).tolist() == [True, True, False, False, True, True, False, False]
    for frames in (1, 2):
        few, evidence, points = synthetic.make_scene(frames=frames)
        found = residual(name, few, evidence[0], points, synthetic.layout(), derivatives=True)
        assert float(found.energy()) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_said_across_holes_in_the_frame_times(name):
    scene, evidence, points = synthetic.make_scene(frames=8)
    for fps, lost, kept in ((30.0, 20, False), (30.0, 1, True), (10.0, 1, True), (10.0, 9, False)):
        times = torch.arange(8, dtype=torch.float64) / fps
        times[4:] += lost / fps
        known = replace(evidence[0], times=times)
        found = residual(name, scene, known, points, synthetic.layout())
        said = [True, True, kept, kept, True, True, False, False]
        assert (found.weight[:, 0] > 0).tolist() == said, (fps, lost)


def walk(fps, frames, body=synthetic.BODY):
    """Somebody walking past a still camera, as scene and evidence of the solver."""
    spec = SceneSpec(seed=3, frames=frames, fps=fps, motion="walk", camera="static")
    truth = make_scene(spec, body)
    scene, evidence, points = synthetic.make_scene(frames=frames)
    rotations = torch.cat([truth.root[0, :, None], truth.body_rotations[0]], dim=1)
    person = Person(rotations, truth.pelvis[0], truth.betas[0])
    times = torch.arange(frames, dtype=torch.float64) / fps
    return replace(scene, people=(person,)), replace(evidence[0], times=times), points


@pytest.mark.parametrize("name", NAMES)
def test_energy_per_second_hardly_depends_on_the_frame_rate(name):
    energies = []
    for fps in (25.0, 30.0, 50.0, 60.0):
        scene, known, points = walk(fps, round(2 * fps) + 1)
        found = residual(name, scene, known, points, synthetic.layout(), mu=1e9)
        energies.append(float(found.energy()))
    assert max(energies) < 1.9 * min(energies)  # 60 fps has 2.4 times the triples of 25 fps


def test_gait_knows_the_speed_of_a_walk():
    """Somebody who walks 30 % too fast or too slowly for the legs costs more."""
    scene, known, points = walk(30.0, 60)
    someone = scene.people[0]
    energies = []
    for factor in (0.7, 1.0, 1.3):
        moved = replace(scene, people=(replace(someone, pelvis=factor * someone.pelvis),))
        energies.append(float(residual("gait", moved, known, points, synthetic.layout()).energy()))
    assert energies[1] < 0.7 * min(energies[0], energies[2])


def test_standing_still_costs_little_and_shaking_much():
    scene, evidence, points = synthetic.make_scene(frames=30)
    someone = scene.people[0]
    upright = synthetic.UPRIGHT.expand(30, 1, 3, 3)
    joints = torch.eye(3, dtype=torch.float64).expand(30, 21, 3, 3)
    still = Person(torch.cat([upright, joints], dim=1), someone.pelvis[:1].expand(30, 3),
                   0 * someone.betas)  # fmt: skip
    turn = 0.05 * torch.randn(30, 21, 3, generator=torch.Generator().manual_seed(0)).double()
    shaking = joints @ roma.rotvec_to_rotmat(turn)
    shaken = replace(still, rotations=torch.cat([upright, shaking], dim=1))
    layout = synthetic.layout()
    energies = [
        residual("transition", replace(scene, people=(p,)), evidence[0], points, layout, mu=1e9)
        .energies_by_frame()[:-2]
        .mean()
        for p in (still, shaken)
    ]
    assert float(energies[0]) < 0.5 * 0.05 * 69  # less than recorded motion in the mean
    assert float(energies[1]) > 50 * float(energies[0])
    assert math.isfinite(float(energies[1]))
