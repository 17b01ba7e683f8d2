"""Who cannot be trusted, and in which frames: people and spans of frames that fail alone."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.config import GatesConfig
from slamhmr.geometry import runs
from slamhmr.quality import LIMBS, Quality, measure, natural_jitter
from slamhmr.scene import point_set
from slamhmr.types import Observations, Result, SceneState

WINDOW = 0.25  # s, half width of the median that decides about a frame: outliers are no failure
WHOLE = 0.5  # share of a person's frames that fail from which the person fails


@dataclass(frozen=True)
class Failure:
    """Frames `first` to `last` (both included) of a person that are not to be trusted."""

    person: int
    first: int
    last: int
    reason: str

    @property
    def sentence(self) -> str:
        """For people to read."""
        return f"person {self.person}, frames {self.first}-{self.last}: {self.reason}"


def judge_result(
    result: Result,
    state: SceneState,
    observations: Observations,
    body: BodyModel,
    limits: GatesConfig,
    cuts: tuple[int, ...] = (),
    *,
    measured: Bool[Tensor, "N"],
) -> tuple[Result, Quality, list[Failure]]:
    """The result of `state` without the frames that fail, its measures, and what fails.

    `measured`: whose stature is given, or seen by several cameras.
    Judging a result again changes nothing: everybody of `state` is looked at anew.
    """
    whole = dataclasses.replace(result, valid=state.valid, observed=state.observed & state.valid)
    quality = measure(whole, state, observations, body, cuts)
    sizes = guessed_sizes(state, body, measured)
    failed, failures = judge_people(whole, quality, limits, state.cameras.lost, sizes)
    return without(whole, failed), quality, failures


def guessed_sizes(
    state: SceneState, body: BodyModel, measured: Bool[Tensor, "N"]
) -> Float[Tensor, "N"]:
    """By how many standard deviations of the body's shape people are larger than the mean.

    NaN for who is measured, and where the camera travels: there other things tell the scale than
    that people stand on the floor.
    """
    points = point_set(body)
    spread = (points.size_directions / points.size_template).norm()
    sizes = torch.stack([points.size(betas) for betas in state.betas]).log() / spread
    return torch.where(measured | state.cameras.moving, torch.nan, sizes)


def judge_people(
    result: Result,
    quality: Quality,
    limits: GatesConfig,
    lost: Bool[Tensor, "T"] | None = None,
    sizes: Float[Tensor, "N"] | None = None,
) -> tuple[Bool[Tensor, "N T"], list[Failure]]:
    """Frames of everybody that fail, and why, in order of people; `lost`: without a camera.

    `sizes` are those of `guessed_sizes`. A person of whom more than half of the frames fail, fails
    as a whole.
    """
    failed, failures = torch.zeros_like(result.valid), []
    for row, person in enumerate(result.person_id.tolist()):
        frames = torch.nonzero(result.valid[row])[:, 0]
        if len(frames) == 0:
            continue
        ends = int(frames[0]), int(frames[-1])
        whole = _about_the_person(result, quality, limits, row)
        whole += [] if sizes is None else _about_the_size(float(sizes[row]), limits)
        spans = [Failure(person, *found) for found in _spans(result, quality, limits, row)]
        spans += [Failure(person, *found) for found in _without_camera(result, lost, limits, row)]
        for span in spans:
            failed[row, span.first : span.last + 1] = True
        share = float((failed[row] & result.valid[row]).sum()) / len(frames)
        if len(whole) == 0 and share > WHOLE:
            whole = [f"{100 * share:.0f} % of its frames fail"]
        failures += [Failure(person, *ends, reason) for reason in whole] + spans
        failed[row] |= len(whole) > 0
    return failed & result.valid, failures


def without(result: Result, failed: Bool[Tensor, "N T"]) -> Result:
    """The result with `failed` frames not valid; their values stay, and stay finite."""
    valid = result.valid & ~failed
    return dataclasses.replace(result, valid=valid, observed=result.observed & valid)


def _about_the_person(result: Result, quality: Quality, limits: GatesConfig, row: int) -> list[str]:
    """Why a person cannot be trusted anywhere."""
    reasons = []
    valid, observed = result.valid[row], result.observed[row]
    seen = float((observed & valid).sum()) / max(int(valid.sum()), 1)
    if limits.coverage is not None and seen < limits.coverage:
        reasons.append(
            f"seen in {100 * seen:.0f} % of its frames; limit {100 * limits.coverage:g} %"
        )
    middle = float(quality.pixel_percent[row][valid].nanmedian())
    if _above(middle, limits.person_percent):
        reasons.append(
            f"median pixel error is {middle:.1f} % of the box height; "
            f"limit {limits.person_percent:g}"
        )
    for limb, error in zip(LIMBS, quality.limb_percent[row].tolist(), strict=True):
        if _above(error, limits.limb_percent):
            reasons.append(
                f"the {limb} is {error:.1f} % of the box height from where it is seen (median); "
                f"limit {limits.limb_percent:g}"
            )
    return reasons


def _about_the_size(size: float, limits: GatesConfig) -> list[str]:
    """Why a size that the floor alone tells cannot be trusted."""
    if limits.size_sigma is None or not abs(size) > limits.size_sigma:
        return []
    return [
        f"is {'larger' if size > 0 else 'smaller'} than the mean by {abs(size):.1f} standard "
        "deviations, which nothing tells but the floor (is it the one they stand on?); give "
        f"`height_m` in sequence.yaml; limit {limits.size_sigma:g}"
    ]


def _spans(
    result: Result, quality: Quality, limits: GatesConfig, row: int
) -> list[tuple[int, int, str]]:
    """First and last frame of what fails alone, and why."""
    valid, observed, fps = result.valid[row], result.observed[row], result.fps
    half = max(1, round(WINDOW * fps))
    found = []
    if limits.gap_s is not None:
        words = "not seen for {:.1f} s; limit "
        found += _long(valid & ~observed, fps, limits.gap_s, words)
    natural = natural_jitter(fps)
    windowed = (
        ("pixel error is {:.1f} % of the box height", quality.pixel_percent, limits.frames_percent),
        ("{:.0f} cm under the ground", quality.depth_cm, limits.frames_depth_cm),
        ("jitter is {:.1f} times that of real motion", quality.jitter / natural,
         limits.frames_jitter),
    )  # fmt: skip
    for words, values, limit in windowed:
        if limit is not None:
            smooth = window_median(values[row], half)
            for first, stop in runs((smooth > limit) & valid):
                worst = float(smooth[first:stop].max())
                found.append((first, stop - 1, words.format(worst) + f"; limit {limit:g}"))
    if limits.jump_m_per_s is not None:
        found += _jumps(quality.speed[row], valid, limits.jump_m_per_s, half)
    return found


def _without_camera(
    result: Result, lost: Bool[Tensor, "T"] | None, limits: GatesConfig, row: int
) -> list[tuple[int, int, str]]:
    """The frames in which the camera is lost for long: only people's motion says where they are."""
    if lost is None or limits.lost_s is None:
        return []
    words = "the camera is lost for {:.1f} s; limit "
    return _long(lost & result.valid[row], result.fps, limits.lost_s, words)


def _long(
    flags: Bool[Tensor, "T"], fps: float, limit: float, words: str
) -> list[tuple[int, int, str]]:
    """First and last frame of runs of more seconds than the limit, and the words on each."""
    return [
        (first, stop - 1, words.format((stop - first) / fps) + f"{limit:g}")
        for first, stop in runs(flags)
        if stop - first > limit * fps
    ]


def _jumps(
    speed: Float[Tensor, "T"], valid: Bool[Tensor, "T"], limit: float, half: int
) -> list[tuple[int, int, str]]:
    """The frames about every step of the pelvis that nobody makes."""
    near = torch.zeros_like(valid)
    for step in torch.nonzero(speed > limit)[:, 0].tolist():
        near[max(step + 1 - half, 0) : step + 1 + half] = True
    return [
        (first, stop - 1, f"jumps at {float(speed[first:stop].max()):.0f} m/s; limit {limit:g}")
        for first, stop in runs(near & valid)
    ]


def window_median(values: Float[Tensor, "T"], half: int) -> Float[Tensor, "T"]:
    """Median of the values that are not NaN within `half` frames of each; NaN if there is none."""
    padded = torch.nn.functional.pad(values, (half, half), value=torch.nan)
    return padded.unfold(0, 2 * half + 1, 1).nanmedian(dim=-1).values


def _above(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit
