"""Free fall: who falls with g costs nothing; metres show; nothing where nobody falls."""

from dataclasses import replace

import pytest
import synthetic
import torch

from slamhmr.flights import GRAVITY, flights, mass_shares
from slamhmr.scene import Person
from slamhmr.scene_problem import SceneProblem
from slamhmr.solve.sweep import Resources, energies_of
from slamhmr.terms import term_settings

FRAMES = 9


def falling(scale=1.0, frames=FRAMES):
    """A stiff body on a parabola, in metres that are `scale` times too long."""
    scene, evidence, points = synthetic.make_scene(frames=frames)
    someone, times = scene.people[0], evidence[0].times
    drop = torch.zeros(frames, 3, dtype=torch.float64)
    drop[:, 0] = 1.3 * times
    drop[:, 2] = 2 * times - 0.5 * GRAVITY * times**2
    still = Person(
        someone.rotations[:1].expand(frames, -1, -1, -1).clone(),
        someone.pelvis[:1] + scale * drop,
        someone.betas,
    )
    return replace(scene, people=(still,)), evidence, points


def energy(scene, evidence, points, **settings):
    chosen = {"flight": term_settings("test", "flight", settings, 0)}
    problem = SceneProblem(points, evidence, synthetic.layout(), chosen, scene)
    return sum(energies_of(problem, scene, Resources(window=4)).values())


def test_free_fall_costs_nothing_and_too_small_a_world_does():
    assert energy(*falling()) == pytest.approx(0.0, abs=1e-15)
    small = energy(*falling(0.9), sigma=1.0, mu=1e9)
    assert small == pytest.approx(0.5 * (FRAMES - 2) * (0.1 * GRAVITY) ** 2, rel=1e-6)


def test_only_frames_of_free_fall_count():
    scene, evidence, points = falling(0.5)
    there = torch.zeros(FRAMES, dtype=torch.bool)
    there[2:6] = True  # two second differences lie within
    some = [replace(evidence[0], flight=there)]
    assert energy(scene, some, points, sigma=1.0, mu=1e9) == pytest.approx(
        0.5 * 2 * (0.5 * GRAVITY) ** 2, rel=1e-6
    )
    for nowhere in (None, torch.zeros(FRAMES, dtype=torch.bool)):
        assert energy(scene, [replace(evidence[0], flight=nowhere)], points) == 0


def test_the_shares_of_the_mass_add_up():
    shares = mass_shares(synthetic.POINTS.names)
    assert float(shares.sum()) == pytest.approx(1.0)
    assert float(shares.min()) >= 0


UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def jump(fps=30.0, pull=GRAVITY, hang=0.5):
    """Stands for a second, is in the air for `hang`, stands again: centre, contacts, times."""
    frames = round((2 + hang) * fps)
    times = torch.arange(frames, dtype=torch.float64) / fps
    air = (times > 1) & (times < 1 + hang)
    since = (times - 1).clamp(0, hang)
    centre = torch.zeros(1, frames, 3, dtype=torch.float64)
    centre[0, :, 2] = 1 + 0.5 * pull * since * (hang - since)
    contacts = (~air).double()[None, :, None].expand(1, -1, 4)
    return centre, contacts, times, air


@pytest.mark.parametrize("fps", [24.0, 30.0, 60.0])
def test_a_jump_is_found_but_for_its_edges(fps):
    centre, contacts, times, air = jump(fps)
    there = torch.ones_like(centre[..., 0]).bool()
    found = flights(centre, contacts, UP, times, there, there)[0]
    assert not bool((found & ~air).any())
    assert 0.3 < float(found.double().sum()) / fps < 0.5
    hidden = there & ~(air & (torch.arange(len(air)) % 4 > 0))  # what fills a gap is no fall
    assert not bool(flights(centre, contacts, UP, times, there, hidden).any())


def test_what_is_no_free_fall_is_not_taken_for_it():
    everywhere = torch.ones(1, 75, dtype=torch.bool)
    for pull in (0.0, 3.0, 25.0):  # hangs or sits; is carried; is no person of any size
        centre, contacts, times, _ = jump(pull=pull)
        assert not bool(flights(centre, contacts, UP, times, everywhere, everywhere).any())
    centre, contacts, times, _ = jump(hang=0.15)  # a running step
    few = everywhere[:, : len(times)]
    assert not bool(flights(centre, contacts, UP, times, few, few).any())
    centre, _, times, _ = jump()
    nobody_stands = torch.zeros(1, 75, 4, dtype=torch.float64)
    assert not bool(flights(centre, nobody_stands, UP, times, everywhere, everywhere).any())
    centre, contacts, times, air = jump()
    cut = int(air.nonzero()[0]), int(air.nonzero()[-1]) + 1
    assert not bool(flights(centre, contacts, UP, times, everywhere, everywhere, cut).any())
