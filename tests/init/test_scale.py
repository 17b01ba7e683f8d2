"""Metres per SLAM unit from standing feet and from predicted velocities, each alone."""

import pytest
import torch

from slamhmr.init.scale import camera_scale

FPS, FRAMES, SCALE = 30.0, 60, 2.3


def scene(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Somebody who walks evenly, and camera centres in SLAM units, far ahead of it."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(FRAMES, dtype=torch.float64)[:, None] / FPS
    phase = torch.rand(3, generator=generator, dtype=torch.float64) * 6
    centres = 0.3 * torch.sin(2 * time + phase) + time * torch.tensor([0.4, 0.1, 0.0])
    speed = torch.tensor([0.6, -0.9, 0.0], dtype=torch.float64)
    pelvis = torch.tensor([0.5, 4.0, -0.3], dtype=torch.float64) + time * speed
    return centres, pelvis, speed.expand(FRAMES, 3)


def feet_of(pelvis: torch.Tensor, seed: int) -> torch.Tensor:
    """Points that swing at random below the pelvis."""
    noise = torch.randn(FRAMES, 4, 3, generator=torch.Generator().manual_seed(seed)).double()
    return pelvis[:, None] + torch.tensor([0.0, 0.0, -0.9]) + 0.3 * noise


def found(
    centres: torch.Tensor,
    pelvis: torch.Tensor,
    feet: torch.Tensor,
    velocity: torch.Tensor | None,
    contacts: torch.Tensor | None,
    cuts: tuple[int, ...] = (),
) -> float:
    away = SCALE * centres
    sigma = torch.full((1, FRAMES), 0.2, dtype=torch.float64)
    return camera_scale(
        (feet - away[:, None])[None], (pelvis - away)[None], centres,
        torch.ones(1, FRAMES, dtype=torch.bool), FPS,
        going=None if velocity is None else (velocity[None], sigma),
        contacts=None if contacts is None else contacts[None], cuts=cuts,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_exact_velocities_alone_give_the_scale(seed: int) -> None:
    centres, pelvis, velocity = scene(seed)
    nobody_stands = torch.zeros(FRAMES, 4, dtype=torch.float64)
    scale = found(centres, pelvis, feet_of(pelvis, seed), velocity, nobody_stands)
    assert scale == pytest.approx(SCALE, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_exact_contacts_alone_give_the_scale(seed: int) -> None:
    """The left foot stands all the time; the right one swings and is not believed."""
    centres, pelvis, _ = scene(seed)
    feet = feet_of(pelvis, seed)
    feet[:, :2] = torch.tensor([0.4, 3.0, -1.2], dtype=torch.float64)
    stands = torch.zeros(FRAMES, 4, dtype=torch.float64)
    stands[:, :2] = 1
    scale = found(centres, pelvis, feet, None, stands)
    assert scale == pytest.approx(SCALE, rel=1e-6)
    misled = found(centres, pelvis, feet, None, 1 - stands)
    assert abs(misled / SCALE - 1) > 1e-3


def test_a_jump_of_the_camera_at_a_cut_is_no_motion() -> None:
    centres, pelvis, velocity = scene(0)
    nobody_stands = torch.zeros(FRAMES, 4, dtype=torch.float64)
    centres[30:] += torch.tensor([3.0, -2.0, 1.0])
    pelvis = pelvis.clone()
    pelvis[30:] += torch.tensor([-1.0, 4.0, 0.5])
    feet = feet_of(pelvis, 0)
    assert found(centres, pelvis, feet, velocity, nobody_stands, (30,)) == pytest.approx(SCALE)
