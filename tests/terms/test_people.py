"""Interpenetration: people who are inside each other part, the energy counts a pair once."""

import math
from dataclasses import replace

import pytest
import synthetic
import torch

from slamhmr.capsules import capsules_of, overlap
from slamhmr.features import person_features
from slamhmr.layout import BorderLayout, Free
from slamhmr.neighbours import neighbours
from slamhmr.scene import Person, retract
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.assemble import assemble
from slamhmr.solve.levenberg import Schedule, minimise
from slamhmr.solve.problem import Step
from slamhmr.solve.sweep import Resources, energies_of
from slamhmr.terms import term_settings

CAPSULES = capsules_of(synthetic.BODY, synthetic.POINTS.names)


def upright(frames, place):
    """Somebody who stands still with the arms down."""
    rotations = torch.eye(3).double().repeat(frames, 22, 1, 1)
    rotations[:, 0] = synthetic.UPRIGHT
    for joint, sign in ((16, -1), (17, 1)):
        rotations[:, joint] = synthetic.roma.rotvec_to_rotmat(
            torch.tensor([0.0, 0.0, sign * 1.3]).double()
        )
    pelvis = torch.tensor(place).double().repeat(frames, 1)
    return Person(rotations, pelvis, torch.zeros(synthetic.BODY.shapedirs.shape[-1]).double())


def pair(apart, frames=6):
    """Two people side by side, `apart` m between their pelves, and evidence without keypoints."""
    scene, evidence, points = synthetic.make_scene(frames=frames, people=2)
    people = upright(frames, [0.0, 4.0, -0.3]), upright(frames, [apart, 4.05, -0.3])
    return replace(scene, people=people), evidence, points


def problem_of(scene, evidence, points, layout):
    chosen = {"interpenetration": term_settings("test", "interpenetration", {}, 0)}
    return SceneProblem(points, evidence, layout, chosen, scene)


def total(problem, scene):
    return sum(energies_of(problem, scene, Resources(window=4)).values())


def random_step(problem, size, seed):
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return size * torch.randn(*shape, generator=generator, dtype=torch.float64)

    chains = [noise(shape.frame_count, shape.unknowns) for shape in problem.chains]
    return Step(chains, noise(problem.border_count))


def moved(problem, state, step, factor):
    return retract(state, step.scaled(factor), problem.layout, problem.evidence)


def along(problem, state, step):
    """First derivative of the energy along a step, and its matrix's second, as assembled."""
    slope = curvature = 0.0
    for index, shape in enumerate(problem.chains):
        window = problem.window(state, index, 0, shape.frame_count, derivatives=True)
        found = assemble(window, shape, second_order=False)
        own, shared = step.chains[index], step.border[shape.border_columns]
        slope += float((found.gradient * own).sum() + found.corner_gradient @ shared)
        curvature += float(shared @ found.corner @ shared)
        curvature += float(torch.einsum("ti,tij,tj->", own, found.band[0], own))
        curvature += 2 * float(torch.einsum("ti,tig,g->", own, found.border, shared))
    return slope, curvature


def depth_of(scene, points):
    """Deepest overlap of any two capsules of two people, m, written out."""
    found = []
    for person in scene.people:
        world = person_features(
            points, synthetic.make_scene(len(person.pelvis))[1][0], synthetic.layout(),
            replace(scene, people=(person,)), 0,
        ).world  # fmt: skip
        found.append(world)
    deepest = -math.inf
    for a, ends in enumerate(CAPSULES.ends):
        for b, other in enumerate(CAPSULES.ends):
            radii = (CAPSULES.radius[a] + CAPSULES.radius[b]).expand(len(world))
            depth = overlap(found[0][:, ends], found[1][:, other], radii).depth
            deepest = max(deepest, float(depth.max()))
    return deepest


def test_radii_are_those_of_a_person():
    radius = dict(zip((tuple(e.tolist()) for e in CAPSULES.ends), CAPSULES.radius, strict=True))
    assert len(radius) == 13
    index = synthetic.POINTS.names.index
    assert 0.08 < radius[index("pelvis"), index("spine3")] < 0.16
    assert 0.04 < radius[index("left_hip"), index("left_knee")] < 0.09
    assert 0.02 < radius[index("left_elbow"), index("left_wrist")] < 0.06


def test_overlap_of_crossing_and_parallel_and_end_to_end_segments():
    first = torch.tensor([[[0.0, 0, 0], [2, 0, 0]]] * 3).double()
    second = torch.tensor(
        [[[1.0, -1, 0.3], [1, 1, 0.3]], [[0, 0.4, 0], [2, 0.4, 0]], [[3, 0, 0], [4, 0, 0]]]
    ).double()
    found = overlap(first, second, torch.tensor([0.5, 0.5, 0.5]).double())
    torch.testing.assert_close(found.depth, torch.tensor([0.2, 0.1, -0.5]).double())
    torch.testing.assert_close(found.away[0], torch.tensor([0.0, 0, -1]).double())
    assert float(found.share[0]) == pytest.approx(0.5)
    assert float(found.share[2]) == pytest.approx(1.0)


def test_distant_people_have_no_neighbours_and_no_residual():
    scene, evidence, points = pair(5.0)
    found = neighbours(points, evidence, scene, 0, 0, 6)
    assert len(found.frames) == 0
    problem = problem_of(scene, evidence, points, synthetic.layout())
    residual = problem.window(scene, 0, 0, 6, derivatives=True).residuals[0]
    assert residual.value.shape == (6, 0, 1)
    assert total(problem, scene) == 0.0


def test_one_person_alone_has_no_residual():
    scene, evidence, points = synthetic.make_scene(frames=4)
    problem = problem_of(scene, evidence, points, synthetic.layout())
    assert total(problem, scene) == 0.0


def test_a_pair_counts_once():
    scene, evidence, points = pair(0.3)
    problem = problem_of(scene, evidence, points, synthetic.layout())
    expected, worlds = 0.0, []
    for index in range(2):
        worlds.append(person_features(points, evidence[index], problem.layout, scene, index).world)
    for a, ends in enumerate(CAPSULES.ends):
        for b, other in enumerate(CAPSULES.ends):
            radii = (CAPSULES.radius[a] + CAPSULES.radius[b]).expand(6)
            depth = overlap(worlds[0][:, ends], worlds[1][:, other], radii).depth.clamp_min(0)
            expected += 0.5 * float(((depth / 0.02) ** 2).sum())
    assert expected > 1.0
    assert total(problem, scene) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pose", [True, False])
def test_gradient_of_people_who_overlap(pose):
    scene, evidence, points = pair(0.3)
    layout = synthetic.layout(pose=pose)
    problem = problem_of(scene, evidence, points, layout)
    state = moved(problem, scene, random_step(problem, 0.02, 4), 1.0)
    assert total(problem, state) > 1.0
    for seed in range(4):
        step = random_step(problem, 1.0, seed)
        ahead, behind = (total(problem, moved(problem, state, step, h)) for h in (1e-6, -1e-6))
        slope, _ = along(problem, state, step)
        assert float(ahead - behind) / 2e-6 == pytest.approx(slope, rel=2e-5)


def test_the_matrix_bounds_the_curvature():
    scene, evidence, points = pair(0.32)
    problem = problem_of(scene, evidence, points, synthetic.layout())
    for seed in range(6):
        step = random_step(problem, 1.0, seed)
        ahead, here, behind = (total(problem, moved(problem, scene, step, h)) for h in
                               (1e-4, 0.0, -1e-4))  # fmt: skip
        second = float(ahead - 2 * here + behind) / 1e-8
        _, curvature = along(problem, scene, step)
        assert curvature > 0.99 * second


def test_people_ten_centimetres_inside_each_other_part():
    scene, evidence, points = pair(0.25)
    while depth_of(scene, points) < 0.10:
        pelvis = scene.people[1].pelvis - torch.tensor([0.01, 0.0, 0.0]).double()
        scene = replace(scene, people=(scene.people[0], replace(scene.people[1], pelvis=pelvis)))
    chosen = {
        name: term_settings("test", name, values, 0)
        for name, values in (
            ("interpenetration", {}), ("acceleration", {"weight": 0.02}),
            ("initial_pose", {"sigma_deg": 20}), ("shape", {}), ("scale", {}),
        )
    }  # fmt: skip
    layout = BorderLayout(Free(True, True, False, False), points.body.shapedirs.shape[-1])
    known = [
        replace(e, initial_rotations=p.rotations)
        for e, p in zip(evidence, scene.people, strict=True)
    ]
    problem = SceneProblem(points, known, layout, chosen, scene)
    before = scene.people[0].pelvis.clone()
    solved, _ = minimise(problem, scene, Schedule(iterations=20))
    assert depth_of(solved, points) < 0.02
    assert float((solved.people[0].pelvis - before).norm(dim=-1).max()) < 0.2
    assert energies_of(problem, solved, Resources())["interpenetration"] < 0.2
