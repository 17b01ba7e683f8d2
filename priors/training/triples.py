"""Three moments of recorded motion at any spacing, for the transition prior.

Recordings become cubic B-splines of quaternions and pelvis positions: two times differentiable, so
that accelerations mean something between the recorded frames and at any rate.
"""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.training.clips import ARMS, TRUNK, Library
from priors.training.procedural import JOINTS
from priors.transition import RATES, Triple

RECORDED_STEP = 1.0 / 30.0
POLE = 3.0**0.5 - 2.0  # of the cubic B-spline's interpolation filter (Unser 1999, table 1)
TAPS = 12  # POLE ** 12 = 1e-7
SPEED = (0.8, 1.25)
STEPS = (1.0 / 60.0, 1.0 / 24.0)  # s between frames; half of the samples are at 30 fps
SWAP_ARMS = 0.3  # share of triples with another motion's arms
WOBBLE_DEG = {"arm": 8.0, "trunk": 4.0, "leg": 2.0}
SIDES = {"left": "right", "right": "left"}
MIRRORED = [
    0,
    *(
        1 + JOINTS.index(f"{SIDES.get(side, side)}{line}{part}")
        for side, line, part in (name.partition("_") for name in JOINTS)
    ),
]


@dataclass(frozen=True)
class Splines:
    """Coefficients of all clips in one row: 22 quaternions (x y z w) and the pelvis."""

    names: tuple[str, ...]

    values: Float[Tensor, "F 91"]
    start: Int[Tensor, "C"]
    length: Int[Tensor, "C"]
    share: Float[Tensor, "C"]
    tracked: Bool[Tensor, "C 22"]
    group: Int[Tensor, "C"]


@dataclass(frozen=True)
class Sample:
    """Triples, the velocity of the pelvis over both steps, and which columns were recorded."""

    triple: Triple
    velocity: Float[Tensor, "N 3"]
    known: Bool[Tensor, "N 69"]

    def part(self, chosen: Tensor) -> "Sample":
        """Some of the samples."""
        t = self.triple
        triple = Triple(
            t.pose[chosen], t.up[chosen], t.before[chosen], t.after[chosen], t.step[chosen]
        )
        return Sample(triple, self.velocity[chosen], self.known[chosen])


def splines(library: Library) -> Splines:
    """Interpolating B-splines of every clip that is long enough (8 frames)."""
    kept = torch.nonzero(library.length >= 8)[:, 0]
    parts = []
    for clip in kept.tolist():
        span = slice(int(library.start[clip]), int(library.start[clip] + library.length[clip]))
        quats = roma.rotmat_to_unitquat(library.rotations[span].double())
        flips = (quats[1:] * quats[:-1]).sum(dim=-1, keepdim=True).sign()
        quats[1:] *= torch.cumprod(torch.where(flips == 0, 1.0, flips), dim=0)
        both = torch.cat([quats.flatten(start_dim=1), library.pelvis[span].double()], dim=1)
        parts.append(_coefficients(both).float())
    length = library.length[kept]
    share = library.share[kept] / library.share[kept].sum()
    return Splines(
        tuple(library.names[clip] for clip in kept.tolist()),
        torch.cat(parts), torch.cumsum(length, 0) - length, length, share,
        library.tracked[kept], library.group[kept],
    )  # fmt: skip


def _coefficients(values: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
    """B-spline coefficients whose spline passes through `values`; ends reflected."""
    taps = torch.arange(-TAPS, TAPS + 1, dtype=values.dtype)
    kernel = 6.0 * POLE / (POLE**2 - 1.0) * POLE ** taps.abs()
    reach = min(TAPS, len(values) - 1)
    head, tail = values[1 : reach + 1].flip(0), values[-reach - 1 : -1].flip(0)
    padded = torch.cat([head, values, tail])
    kernel = kernel[TAPS - reach : TAPS + reach + 1]
    return torch.nn.functional.conv1d(padded.T[:, None], kernel[None, None])[:, 0].T


def _at(
    found: Splines, clip: Int[Tensor, "N"], time: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "N 22 4"], Float[Tensor, "N 3"]]:
    """Quaternions and pelvis at a time of a clip, in its frames."""
    left = time.floor()
    f = (time - left)[:, None]
    basis = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    first = found.start[clip] + left.long()
    row = torch.zeros(len(clip), found.values.shape[1])
    for k, weight in enumerate(basis):
        row += weight / 6.0 * found.values[first + (k - 1)]
    quats = torch.nn.functional.normalize(row[:, :88].reshape(-1, 22, 4), dim=-1)
    return quats, row[:, 88:]


def draw(
    found: Splines, count: int, generator: torch.Generator, *, step: float | None = None
) -> Sample:
    """Random triples: mirrored, played at other speeds, with other arms, at steps of `STEPS`.

    With `step` given: that step, nothing varied.
    """
    vary = step is None
    clip = torch.multinomial(found.share, count, replacement=True, generator=generator)
    donor = torch.multinomial(found.share, count, replacement=True, generator=generator)

    def log_uniform(low: float, high: float) -> Tensor:
        return low * (high / low) ** torch.rand(count, generator=generator)

    steps = torch.full((count,), RECORDED_STEP if step is None else step)
    speed = torch.ones(count)
    if vary:
        other = torch.rand(count, generator=generator) < 0.5
        steps = torch.where(other, log_uniform(*STEPS), steps)
        speed = log_uniform(*SPEED)
    reach = speed * steps / RECORDED_STEP
    moments = [_moments(found, clip, reach, generator)]
    quats, pelvis = _three(found, clip, moments[0], reach)
    known = found.tracked[clip].clone()
    if vary:
        swap = torch.rand(count, generator=generator) < SWAP_ARMS
        arms, _ = _three(found, donor, _moments(found, donor, reach, generator), reach)
        places = torch.tensor(ARMS) + 1
        quats[:, :, places] = torch.where(
            swap[:, None, None, None], arms[:, :, places], quats[:, :, places]
        )
        known[:, places] = torch.where(
            swap[:, None], found.tracked[donor][:, places], known[:, places]
        )
        quats[:, :, 1:] = roma.quat_product(quats[:, :, 1:], _wobble(count, generator))
        mirror = torch.rand(count, generator=generator) < 0.5
        quats, pelvis, known = _mirror(quats, pelvis, known, mirror)
    return _sample(quats, pelvis, known, steps)


def clip_sample(found: Splines, clip: int, *, step: float = RECORDED_STEP) -> Sample:
    """All triples of one clip in order of time."""
    reach = step / RECORDED_STEP
    last = float(found.length[clip]) - 3.0 - reach
    times = torch.arange(1.0 + reach, last, reach)
    clips = torch.full((len(times),), clip)
    quats, pelvis = _three(found, clips, times, torch.full((len(times),), reach))
    return _sample(quats, pelvis, found.tracked[clips], torch.full((len(times),), step))


def _moments(found: Splines, clip: Tensor, reach: Tensor, generator: torch.Generator) -> Tensor:
    low, high = 1.0 + reach, found.length[clip] - 3.001 - reach
    return low + torch.rand(len(clip), generator=generator) * (high - low).clamp_min(0)


def _three(found: Splines, clip: Tensor, time: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    both = [_at(found, clip, time + k * reach) for k in (-1, 0, 1)]
    return torch.stack([q for q, _ in both], dim=1), torch.stack([p for _, p in both], dim=1)


def _wobble(count: int, generator: torch.Generator) -> Float[Tensor, "N 3 21 4"]:
    scale = torch.full((21, 1), WOBBLE_DEG["leg"])
    scale[list(ARMS)], scale[list(TRUNK)] = WOBBLE_DEG["arm"], WOBBLE_DEG["trunk"]
    strength = torch.rand(count, 1, 1, 1, generator=generator) / 3**0.5
    vectors = torch.randn(count, 1, 21, 3, generator=generator) * strength
    return roma.rotvec_to_unitquat(torch.deg2rad(scale) * vectors).expand(count, 3, 21, 4)


def _mirror(
    quats: Tensor, pelvis: Tensor, known: Tensor, chosen: Bool[Tensor, "N"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Left and right exchanged, in the plane x = 0 of body and world."""
    flipped = quats[:, :, MIRRORED] * torch.tensor([1.0, -1.0, -1.0, 1.0])
    away = pelvis * torch.tensor([-1.0, 1.0, 1.0])
    return (
        torch.where(chosen[:, None, None, None], flipped, quats),
        torch.where(chosen[:, None, None], away, pelvis),
        torch.where(chosen[:, None], known[:, MIRRORED], known),
    )


def _sample(quats: Tensor, pelvis: Tensor, known: Tensor, step: Float[Tensor, "N"]) -> Sample:
    turns = roma.quat_product(roma.quat_conjugation(quats[:, :-1]), quats[:, 1:])
    rates = roma.unitquat_to_rotvec(turns) / step[:, None, None, None]  # (N, 2, 22, 3)
    matrices = roma.unitquat_to_rotmat(quats[:, 1])
    root = matrices[:, 0]
    moved = (pelvis[:, 1:] - pelvis[:, :-1]) / step[:, None, None]
    velocity = moved @ root  # in the axes of the pelvis at the middle frame
    both = torch.cat([velocity, rates.flatten(start_dim=2)], dim=2)
    columns = torch.cat([known.new_ones(len(known), 1), known], dim=1).repeat_interleave(3, dim=1)
    assert columns.shape[1] == RATES
    triple = Triple(matrices[:, 1:], root[:, 2], both[:, 0], both[:, 1], step)
    return Sample(triple, velocity.mean(dim=1), columns)
