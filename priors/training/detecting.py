"""Errors of 2D detectors, for training: lasting, biased, of several kinds, and wrong about trust.

Three kinds after detectors seen on real clips: `blazepose` (23 points, feet, hallucinates what is
hidden with a lower confidence), `coco` (17 points, honest gaps) and `vitpose` (17 points, small
errors, high confidence). Units: shares of the person's size in the picture.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.training.filming import Footage

BLAZEPOSE, COCO, VITPOSE = 0, 1, 2
KIND_SHARE = (0.5, 0.25, 0.25)
LEVEL = ((0.006, 0.022), (0.005, 0.02), (0.003, 0.012))  # standard deviation, by kind
FACE, ARM, LEG, FEET = range(0, 5), (5, 6, 7, 8, 9, 10), (11, 12, 13, 14, 15, 16), range(17, 23)
# How much worse some points are than others: wrists, hips (badly defined), ankles and feet.
WORSE = {9: 1.5, 10: 1.5, 11: 1.6, 12: 1.6, 15: 1.3, 16: 1.3, **{i: 1.6 for i in FEET}}
LEFT = (5, 7, 9, 11, 13, 15, 17, 18, 19)
RIGHT = (6, 8, 10, 12, 14, 16, 20, 21, 22)
LEFT_LEG, RIGHT_LEG = (11, 13, 15, 17, 18, 19), (12, 14, 16, 20, 21, 22)
TAU = 8.0  # frames, correlation time of the lasting part
HIDDEN_GROUPS: tuple[tuple[tuple[int, ...], float], ...] = (
    ((7, 9), 0.1), ((8, 10), 0.1), ((13, 15, 17, 18, 19), 0.06), ((14, 16, 20, 21, 22), 0.06),
    (tuple(range(13, 23)), 0.1), (tuple(range(11, 23)), 0.06), (tuple(range(0, 5)), 0.08),
    (tuple(FEET), 0.12), (tuple(range(23)), 0.12),
)  # fmt: skip


def detect(
    footage: Footage, generator: torch.Generator, kind: int | None = None
) -> tuple[Float[Tensor, "N T K 2"], Float[Tensor, "N T K"]]:
    """Bearings with a detector's errors and its confidences 0..1, 0 = not seen.

    `kind`: all windows by that detector; None: a mixture.
    """
    exact, seen = footage.bearings, footage.inside
    count, frames, points = seen.shape
    kinds = _kinds(count, kind, generator)
    size = _apparent_size(exact, seen)
    low, high = (torch.tensor(LEVEL)[kinds, i] for i in (0, 1))
    level = low * (high / low) ** torch.rand(count, generator=generator)
    worse = torch.ones(points)
    for index, factor in WORSE.items():
        worse[index] = factor
    hidden = _hidden(count, frames, points, generator)
    error = _errors(count, frames, points, generator) * worse[:, None]
    error = error * torch.where(hidden, 4.0, 1.0)[..., None]  # guesses, where it dares to guess
    error = error + _feet_bias(count, points, generator, kinds)
    shift = error * (level[:, None] * size)[..., None, None]
    noisy = _swap(exact, generator) + shift
    noisy, thrown = _outliers(noisy, size, generator)
    confidence = _confidence(error, kinds, generator)
    guessed = torch.rand(count, generator=generator) < 0.5
    guess = (kinds == BLAZEPOSE) & guessed
    confidence = torch.where(hidden & guess[:, None, None], 0.35 * confidence, confidence)
    confidence = torch.where(hidden & ~guess[:, None, None], 0.0, confidence)
    drop = torch.rand(seen.shape, generator=generator) < 0.02
    confidence = torch.where(thrown, 0.3 + 0.6 * torch.rand(seen.shape, generator=generator),
                             confidence)  # fmt: skip
    confidence = torch.where(seen & ~drop, confidence, 0.0)
    footless = (kinds != BLAZEPOSE) & (torch.rand(count, generator=generator) < 0.9)
    confidence[:, :, list(FEET)] *= (~footless)[:, None, None]
    return noisy, confidence


def _kinds(count: int, kind: int | None, generator: torch.Generator) -> Tensor:
    if kind is not None:
        return torch.full((count,), kind)
    share = torch.tensor(KIND_SHARE)
    return torch.multinomial(share, count, replacement=True, generator=generator)


def _apparent_size(
    exact: Float[Tensor, "N T K 2"], seen: Bool[Tensor, "N T K"]
) -> Float[Tensor, "N T"]:
    """Longer side of the box around the seen points; of the whole window where none is."""
    known = seen[..., None]
    high = torch.where(known, exact, -torch.inf).amax(dim=2)
    low = torch.where(known, exact, torch.inf).amin(dim=2)
    side = (high - low).amax(dim=-1)
    side = torch.where(torch.isfinite(side), side, torch.nan)
    typical = side.nanmedian(dim=1, keepdim=True).values.nan_to_num(0.1)
    return torch.where(side > 0.2 * typical, side, typical)


def _errors(
    count: int, frames: int, points: int, generator: torch.Generator
) -> Float[Tensor, "N T K 2"]:
    """Lasting, white and constant parts; standard deviation about 1.5."""
    keep = float(torch.exp(torch.tensor(-1 / TAU)))
    fresh = torch.randn(frames, count, points, 2, generator=generator)
    lasting = [fresh[0]]
    for now in fresh[1:]:
        lasting.append(keep * lasting[-1] + (1 - keep**2) ** 0.5 * now)
    white = torch.randn(count, frames, points, 2, generator=generator)
    bias = torch.randn(count, 1, points, 2, generator=generator)
    return 0.9 * torch.stack(lasting, dim=1) + 0.45 * white + 1.1 * bias


def _feet_bias(
    count: int, points: int, generator: torch.Generator, kinds: Tensor
) -> Float[Tensor, "N 1 K 2"]:
    """BlazePose sets ankles and feet up to 5 % of the body too high, seen from behind."""
    bias = torch.zeros(count, 1, points, 2)
    strength = 3.0 * torch.rand(count, generator=generator) * (kinds == BLAZEPOSE)
    strength = strength * (torch.rand(count, generator=generator) < 0.3)
    bias[:, 0, [15, 16, *FEET], 1] = -strength[:, None]
    return bias


def _confidence(
    error: Float[Tensor, "N T K 2"], kinds: Tensor, generator: torch.Generator
) -> Float[Tensor, "N T K"]:
    """Knows something of the error, by an amount that differs, and is sometimes plainly wrong."""
    shape = error.shape[:-1]
    knows = 0.15 * torch.rand(shape[0], 1, 1, generator=generator)
    top = torch.tensor([1.0, 0.9, 0.95])[kinds][:, None, None]
    told = top - knows * error.norm(dim=-1) + 0.08 * torch.randn(shape, generator=generator)
    wrong = torch.rand(shape, generator=generator) < 0.04
    told = torch.where(wrong, torch.rand(shape, generator=generator), told)
    return told.clamp(0.12, 1.0)


def _hidden(
    count: int, frames: int, points: int, generator: torch.Generator
) -> Bool[Tensor, "N T K"]:
    """Limbs, halves of the body or the whole person hidden for a while."""
    hidden = torch.zeros(count, frames, points, dtype=torch.bool)
    time = torch.arange(frames)
    for group, probability in HIDDEN_GROUPS:
        chosen = torch.rand(count, generator=generator) < probability
        length = 4 + frames * 0.8 * torch.rand(count, generator=generator) ** 2
        if len(group) == points:
            length = length.clamp_max(25)
        begin = (frames + length) * torch.rand(count, generator=generator) - length
        span = (time >= begin[:, None]) & (time < (begin + length)[:, None]) & chosen[:, None]
        hidden[:, :, list(group)] |= span[..., None]
    return hidden


def _swap(exact: Float[Tensor, "N T K 2"], generator: torch.Generator) -> Float[Tensor, "N T K 2"]:
    """Legs, or all of left and right, exchanged for 3 to 15 frames, in every fourth window."""
    count, frames = exact.shape[:2]
    result = exact.clone()
    time = torch.arange(frames)
    for left, right, probability in ((LEFT_LEG, RIGHT_LEG, 0.2), (LEFT, RIGHT, 0.06)):
        chosen = torch.rand(count, generator=generator) < probability
        begin = frames * torch.rand(count, generator=generator)
        length = 3 + 12 * torch.rand(count, generator=generator)
        span = (time >= begin[:, None]) & (time < (begin + length)[:, None]) & chosen[:, None]
        swapped = result[:, :, [*left, *right]], result[:, :, [*right, *left]]
        result[:, :, [*left, *right]] = torch.where(span[..., None, None], swapped[1], swapped[0])
    return result


def _outliers(
    noisy: Float[Tensor, "N T K 2"], size: Float[Tensor, "N T"], generator: torch.Generator
) -> tuple[Float[Tensor, "N T K 2"], Bool[Tensor, "N T K"]]:
    """Some points anywhere near the person: up to 6 % of them in a window."""
    shape = noisy.shape[:-1]
    share = 0.06 * torch.rand(shape[0], 1, 1, generator=generator) ** 2
    thrown = torch.rand(shape, generator=generator) < share
    middle = noisy.median(dim=2, keepdim=True).values
    anywhere = torch.rand(noisy.shape, generator=generator) - 0.5
    spread = middle + 1.4 * size[..., None, None] * anywhere
    return torch.where(thrown[..., None], spread, noisy), thrown
