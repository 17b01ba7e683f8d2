"""Every registered term: derivatives against differences, zero at truth, symmetric H."""

import math
from dataclasses import replace

import pytest
import roma
import synthetic
import torch
from golden_files import Golden, filled_network

from priors.checkpoints import save_weights
from priors.pose import load_pose_prior, save_pose_prior
from priors.vposer import VERSIONS
from slamhmr.errors import ConfigError, InputError
from slamhmr.features import person_features
from slamhmr.scene import Person, retract
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.assemble import assemble
from slamhmr.solve.problem import Step, robust_weight
from slamhmr.solve.sweep import Resources, energies_of
from slamhmr.terms import TERMS, term_settings
from slamhmr.terms.priors import pose_prior_weights

# Terms whose matrix is an upper bound of the Hessian, not the square of the residual's Jacobian.
BOUNDED = {"pose_prior"}
WITH_OFFICIAL_WEIGHTS = {"humor"}  # tested with made-up ones in test_humor.py
NAMES = sorted(set(TERMS) - WITH_OFFICIAL_WEIGHTS)
EXACT_AT_TRUTH = {
    "reprojection": {},
    "initial_pose": {},
    "scale": {},
    "root_velocity": {},
    "velocity_gain": {},
}


def moved(scene, evidence, layout, size, seed=1):
    """A random step of the given size, and the scene after it."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return size * torch.randn(*shape, generator=generator, dtype=torch.float64)

    frames = [len(known.times) for known in evidence]
    step = Step([noise(t, layout.free.columns) for t in frames], noise(layout.width(len(frames))))
    return retract(scene, step, layout, evidence), step


def problem_of(name, scene, evidence, points, layout, **settings):
    chosen = {name: term_settings("test", name, settings, 0)}
    if TERMS[name].border is not None:  # a chain needs at least one residual
        chosen["acceleration"] = term_settings("test", "acceleration", {"weight": 0.0}, 0)
    return SceneProblem(points, evidence, layout, chosen, scene)


def total(problem, scene):
    return sum(energies_of(problem, scene, Resources(window=4)).values())


def dense_system(problem, state):
    """H and gradient of everything, from the windows of all chains; chains, then the border."""
    size = problem.layout.free.columns
    lengths = [shape.frame_count for shape in problem.chains]
    offset, first = sum(lengths) * size, 0
    dense = torch.zeros(offset + problem.border_count, offset + problem.border_count).double()
    gradient = torch.zeros(len(dense)).double()
    for index, shape in enumerate(problem.chains):
        window = problem.window(state, index, 0, shape.frame_count, derivatives=True)
        found = assemble(window, shape, second_order=False)
        columns = offset + shape.border_columns
        for k in range(3):
            for t in range(shape.frame_count - k):
                a = slice(first + t * size, first + (t + 1) * size)
                b = slice(first + (t + k) * size, first + (t + k + 1) * size)
                dense[a, b] = found.band[k][t]
                dense[b, a] = found.band[k][t].T
        rows = slice(first, first + shape.frame_count * size)
        border = found.border.reshape(-1, len(columns))
        dense[rows, columns] += border
        dense[columns, rows] += border.T
        dense[columns[:, None], columns] += found.corner
        gradient[rows] += found.gradient.flatten()
        gradient[columns] += found.corner_gradient
        first = rows.stop
    for residual in problem.border(state):
        if residual.derivative is not None:
            dense[offset:, offset:] += residual.weight * residual.derivative.T @ residual.derivative
            gradient[offset:] += residual.weight * residual.derivative.T @ residual.value
    return dense, gradient


def flat_step(problem, flat):
    size, parts, first = problem.layout.free.columns, [], 0
    for shape in problem.chains:
        parts.append(flat[first : first + shape.frame_count * size].reshape(-1, size))
        first += shape.frame_count * size
    return Step(parts, flat[first:])


@pytest.mark.parametrize("pose", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_against_finite_differences(name, pose):
    if TERMS[name].needs_pose and not pose:
        pytest.skip("the term needs a free pose")
    scene, evidence, points = synthetic.make_scene(frames=6, people=2)
    evidence = [replace(e, height_m=1.8) for e in evidence]
    layout = synthetic.layout(pose=pose)
    problem = problem_of(name, scene, evidence, points, layout)
    state, _ = moved(scene, evidence, layout, 0.03)
    check_gradient(problem, state)


def check_gradient(problem, state):
    """The assembled gradient against differences of the energy, in some directions."""
    layout, evidence, name = problem.layout, problem.evidence, next(iter(problem.settings))
    _, gradient = dense_system(problem, state)
    generator = torch.Generator().manual_seed(10)
    for _ in range(4):
        direction = torch.randn(len(gradient), generator=generator, dtype=torch.float64)
        eps = 1e-6
        ahead, behind = (
            total(problem, retract(state, flat_step(problem, h * direction), layout, evidence))
            for h in (eps, -eps)
        )
        numeric = (ahead - behind) / (2 * eps)
        assert numeric == pytest.approx(float(gradient @ direction), rel=2e-5, abs=1e-6), name


@pytest.mark.parametrize("name", NAMES)
def test_normal_matrix_against_numeric_jacobian(name):
    """H = J'WJ, J by finite differences of whitened residuals: catches a forgotten cross block.

    A sixth of all columns, drawn once, so that every kind of unknown is among them.
    """
    scene, evidence, points = synthetic.make_scene(frames=3, people=1)
    evidence = [replace(e, height_m=1.8) for e in evidence]
    layout = synthetic.layout()
    problem = problem_of(name, scene, evidence, points, layout)
    state, _ = moved(scene, evidence, layout, 0.03)
    dense, _ = dense_system(problem, state)
    torch.testing.assert_close(dense, dense.T, rtol=1e-6, atol=1e-6)  # some in single precision
    if name in BOUNDED:
        check_bound(problem, state, dense)
        return
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randperm(len(dense), generator=generator)[: len(dense) // 6]
    columns = []
    for index in chosen.tolist():
        flat = torch.zeros(len(dense), dtype=torch.float64)
        column = []
        for amount in (1e-6, -1e-6):
            flat[index] = amount
            there = retract(state, flat_step(problem, flat), layout, evidence)
            column.append(whitened(problem, there, state))
        columns.append((column[0] - column[1]) / 2e-6)
    jacobian = torch.stack(columns, dim=1)
    expected = jacobian.T @ jacobian
    tolerance = 1e-5 * float(expected.abs().max()) + 1e-7
    torch.testing.assert_close(dense[chosen[:, None], chosen], expected, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("version", ["vposer_v1", "vposer_v2"])
def test_gradient_of_a_converted_vposer(version, tmp_path):
    network = filled_network(Golden(version), VERSIONS[version]())
    path = tmp_path / f"{version}.safetensors"
    save_weights(path, network.state_dict(), {})
    scene, evidence, points = synthetic.make_scene(frames=4)
    layout = synthetic.layout()
    problem = problem_of("pose_prior", scene, evidence, points, layout, weights=str(path))
    state, _ = moved(scene, evidence, layout, 0.03)
    assert total(problem, state) > 0
    check_gradient(problem, state)


def test_pose_prior_of_a_foreign_file_is_refused_in_one_line(tmp_path):
    save_weights(tmp_path / "other.safetensors", {"a": torch.zeros(3)}, {})
    with pytest.raises(InputError, match="term 'pose_prior': weights .*other.safetensors"):
        pose_prior_weights(str(tmp_path / "other.safetensors"))
    with pytest.raises(InputError, match="term 'pose_prior': .*not exist"):
        pose_prior_weights(str(tmp_path / "missing.safetensors"))
    with pytest.raises(ConfigError, match="weights is 3, must be words"):
        term_settings("motion", "pose_prior", {"weights": 3}, 0)


def test_pose_prior_of_a_file_that_has_changed_is_read_again(tmp_path):
    path, own = tmp_path / "mine.safetensors", load_pose_prior()
    save_pose_prior(path, own, {})
    first = pose_prior_weights(str(path))
    assert pose_prior_weights(str(path)) is first
    save_pose_prior(path, replace(own, component_means=own.component_means + 1), {})
    second = pose_prior_weights(str(path))
    assert float((second.component_means - first.component_means).min()) > 0.9


def check_bound(problem, state, dense):
    """The matrix is not below the second derivative of the energy in any of some directions."""
    generator = torch.Generator().manual_seed(11)
    for _ in range(6):
        direction = torch.randn(len(dense), generator=generator, dtype=torch.float64)
        energies = [
            total(problem, retract(state, flat_step(problem, h * direction), problem.layout,
                                   problem.evidence))
            for h in (1e-3, 0.0, -1e-3)
        ]  # fmt: skip
        second = (energies[0] - 2 * energies[1] + energies[2]) / 1e-6
        assert float(direction @ dense @ direction) > 0.999 * float(second)


def whitened(problem, there, centre):
    """All residuals at a state, times the root of the IRLS weights at the centre."""
    frames = problem.chains[0].frame_count
    parts = []
    for here, at in zip(
        problem.window(there, 0, 0, frames, derivatives=False).residuals,
        problem.window(centre, 0, 0, frames, derivatives=False).residuals,
        strict=True,
    ):
        squared = (at.value**2).sum(dim=-1)
        weight = (at.weight * robust_weight(squared, at.kernel)).sqrt()
        parts.append((weight[..., None] * here.value).reshape(-1))
    parts += [math.sqrt(b.weight) * b.value for b in problem.border(there)]
    return torch.cat(parts)


@pytest.mark.parametrize("name", sorted(EXACT_AT_TRUTH))
def test_zero_at_truth(name):
    scene, evidence, points = synthetic.make_scene(frames=8)
    problem = problem_of(name, scene, evidence, points, synthetic.layout())
    assert total(problem, scene) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["contact_velocity", "contact_height", "penetration"])
def test_standing_still_on_the_floor_costs_nothing(name):
    """Feet that neither move nor leave the floor: zero; the floor touches the lowest point."""
    scene, evidence, points = synthetic.make_scene(frames=8)
    someone = scene.people[0]
    still = Person(
        someone.rotations[:1].expand(8, -1, -1, -1).clone(),
        someone.pelvis[:1].expand(8, -1).clone(),
        someone.betas,
    )
    scene = replace(scene, people=(still,))
    layout = synthetic.layout()
    features = person_features(points, evidence[0], layout, scene, 0)
    height = features.world[0, :, 2] - points.clearance
    offset = -float(height.min() if name == "penetration" else height[points.contact[0]])
    ground = torch.tensor([0.0, 0.0, 1.0, offset], dtype=torch.float64)
    contacts = torch.zeros(8, 4, dtype=torch.float64)
    contacts[:, 0] = 1.0
    if name == "contact_velocity":
        contacts[:] = 1.0
    known = [replace(evidence[0], contacts=contacts)]
    problem = problem_of(name, replace(scene, ground=ground), known, points, layout)
    assert total(problem, replace(scene, ground=ground)) == pytest.approx(0.0, abs=1e-18)


@pytest.mark.parametrize("name", ["acceleration", "turning", "contact_velocity", "root_velocity"])
def test_motion_terms_ignore_world_yaw_and_translation(name):
    scene, evidence, points = synthetic.make_scene(frames=9)
    layout = synthetic.layout()
    yaw = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    shift = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    someone = scene.people[0]
    rotations = someone.rotations.clone()
    rotations[:, 0] = yaw @ rotations[:, 0]
    turned = Person(rotations, someone.pelvis @ yaw.T + shift, someone.betas)
    problem = problem_of(name, scene, evidence, points, layout)
    before, after = total(problem, scene), total(problem, replace(scene, people=(turned,)))
    assert after == pytest.approx(before, rel=1e-9)


def test_smaller_world_is_not_rewarded():
    """Shrinking a person with its motion leaves the size-normalised velocity unchanged."""
    scene, evidence, points = synthetic.make_scene(frames=9)
    problem = problem_of("contact_velocity", scene, evidence, points, synthetic.layout(), mu=1e12)
    someone = replace(scene.people[0], betas=torch.zeros_like(scene.people[0].betas))
    base = total(problem, replace(scene, people=(someone,)))
    slope = points.size_directions / points.size_template
    betas = slope * (0.1 / (slope @ slope))  # size + 10 %
    larger = replace(someone, betas=betas, pelvis=someone.pelvis * 1.1)
    assert float(points.size(betas)) == pytest.approx(1.1)
    grown = total(problem, replace(scene, people=(larger,)))
    assert grown == pytest.approx(base, rel=0.05)  # limbs do not all grow by exactly 10 %


def test_reprojection_does_not_depend_on_scale():
    scene, evidence, points = synthetic.make_scene(frames=5)
    layout = synthetic.layout()
    problem = problem_of("reprojection", scene, evidence, points, layout)
    state, _ = moved(scene, evidence, layout, 0.03)
    before = total(problem, state)
    border = torch.zeros(layout.width(1), dtype=torch.float64)
    border[layout.scale] = 0.4
    still = torch.zeros(5, layout.free.columns, dtype=torch.float64)
    after = total(problem, retract(state, Step([still], border), layout, evidence))
    assert after == pytest.approx(before, rel=1e-10)


def test_seen_point_behind_the_camera_has_infinite_energy():
    scene, evidence, points = synthetic.make_scene(frames=3)
    problem = problem_of("reprojection", scene, evidence, points, synthetic.layout())
    behind = replace(scene.people[0], pelvis=scene.people[0].pelvis - torch.tensor([0, 9.0, 0]))
    assert total(problem, replace(scene, people=(behind,))) == math.inf
