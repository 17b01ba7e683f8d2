"""What a clip cannot tell, in words: unknowns the posterior leaves where the prior had them.

The heading of the world and where its origin lies are no such unknowns: they are chosen, along the
first camera and below it.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.geometry import shot_numbers
from slamhmr.reprojection import SELDOM, WELL_SEEN
from slamhmr.scene import point_set
from slamhmr.skeleton import IN_CONTACT
from slamhmr.types import CameraTrack, Observations, Result, SceneState

Facts = dict[str, Any]
MEASURED = 0.3  # of the prior's standard deviation, below which statures are seen, not drawn
RARE = 1.8  # standard deviations of adults' statures: below 1.46 m, above 1.87 m
UNKNOWN_SHARE = 0.95  # of the prior's variance; above it the clip has said next to nothing
WELL_KNOWN = math.radians(
    2.0
)  # of each tilt of gravity before the solve: edges, not people, say it
TREMBLE = math.radians(2.0)  # that a camera which stands still may turn by
GAUGE = (
    "heading and origin of the world are chosen, not measured: the origin lies on the ground below "
    "the first camera"
)
SENTENCES = {
    "focal": "the focal length is not observable: people look alike from near and far; give "
    "`intrinsics` in sequence.yaml",
    "gravity": "the direction of gravity is not observable: nobody is seen standing on the floor",
    "floor_tilt": "the floor's tilt is not observable: nobody is seen standing in several places",
    "floor_height": "the floor's height is not observable: nobody is seen standing on it",
}
FEET = ("ankle", "heel", "big_toe", "small_toe")
LEGS = ("knee", *FEET)


def unobservable(
    cameras: CameraTrack,
    prior_share: dict[str, float],
    *,
    height_known: bool,
    size: float = math.nan,
    up_sigma: float = math.nan,
) -> list[str]:
    """One sentence for every direction of the whole scene that cannot be known.

    `prior_share`: posterior over prior variance, by name, of what was free. `size`: relative
    standard deviation of the people's size, which stands in for the scale's; NaN where not known.
    `up_sigma`: rad, of each tilt of gravity before the solve; NaN where nothing said so.
    """
    sentences = []
    if not cameras.moving and not height_known:
        why = "only turns: it does not" if _turns(cameras) else "does not"
        sure = "how far off is not known" if math.isnan(size) else f"{100 * size:.1f} % uncertain"
        sentences.append(
            f"scale is not observable: the camera {why} translate and no height is known; people "
            f"are as tall as their shape says, and their distance with them ({sure}); a child is "
            "taken for an adult further away: give `height_m` in sequence.yaml"
        )
    share = prior_share.get("scale", 0.0)
    if cameras.moving and share > UNKNOWN_SHARE:
        sentences.append(
            "scale is not observable: neither standing feet nor the floor say how far the camera "
            f"travels ({100 * share:.0f} % of the prior's variance is left)"
        )
    sentences += [
        sentence
        for name, sentence in SENTENCES.items()
        if prior_share.get(name, 0.0) > UNKNOWN_SHARE
        and not (name == "gravity" and up_sigma < WELL_KNOWN)
    ]
    return sentences


def _turns(cameras: CameraTrack) -> bool:
    """True if the camera's axis moves by more than a tremble within a piece of its path."""
    axis = cameras.world_from_cam[:, :3, 2]
    first = torch.tensor([0, *cameras.starts])[shot_numbers(len(axis), cameras.starts)]
    return bool((axis * axis[first]).sum(dim=-1).min() < math.cos(TREMBLE))


def without_contact(
    result: Result, prior_share: dict[str, float], feet: Bool[Tensor, "N"]
) -> list[str]:
    """That the floor is a guess, where no foot is ever in contact and nothing else has said so.

    `feet`: whose are seen; contacts of others are a guess of the start.
    """
    stands = (result.contacts >= IN_CONTACT) & (result.observed & feet[:, None])[..., None]
    if bool(stands.any()) or prior_share.get("floor_height", 0.0) > UNKNOWN_SHARE:
        return []
    return ["the floor's height is not observable: no foot is seen in contact with anything"]


def untied_segments(state: SceneState) -> list[str]:
    """Pieces of the camera's path whose place among the others nobody tells."""
    tied, starts = state.segment_tied, state.cameras.segments
    if starts is None or tied is None:
        return []
    return [
        f"how the camera's path from frame {start} on lies to what was before is not observable: "
        "nobody is known to go on across it"
        for start, known in zip(starts.tolist(), tied.tolist(), strict=True)
        if not known
    ]


def feet_seen(observations: Observations) -> Bool[Tensor, "N"]:
    """Whose feet are seen often enough to say whether they stand."""
    well, names = observations.confidence >= WELL_SEEN, observations.keypoint_names
    shares = [
        _share_seen(own[seen], names, FEET) if bool(seen.any()) else 0.0
        for own, seen in zip(well, observations.seen, strict=True)
    ]
    return torch.tensor(shares) >= SELDOM


def unseen_parts(observations: Observations) -> list[str]:
    """People whose legs or feet are next to never seen: whether they stand cannot be known."""
    sentences = []
    well = observations.confidence >= WELL_SEEN
    for row, person in enumerate(observations.person_id.tolist()):
        frames = well[row, observations.seen[row]]
        if len(frames) == 0:
            continue
        legs, feet = (_share_seen(frames, observations.keypoint_names, part) for part in
                      (LEGS, FEET))  # fmt: skip
        if legs < SELDOM:
            sentences.append(
                f"person {person}: the legs are never seen; their pose and whether the feet stand, "
                "slide or float are not observable"
            )
        elif feet < SELDOM:
            sentences.append(
                f"person {person}: the feet are never seen; whether they stand, slide or float is "
                "not observable"
            )
    return sentences


def _share_seen(well: Tensor, names: tuple[str, ...], parts: tuple[str, ...]) -> float:
    """Share of frames in which that keypoint of the named parts is well seen which is most often.

    Not that in which any is: stray detections of many keypoints add up.
    """
    columns = [index for index, name in enumerate(names) if name.endswith(parts)]
    return float(well[:, columns].double().mean(dim=0).max()) if len(columns) > 0 else 0.0


def statures(result: Result, body: BodyModel) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Height of everybody and its standard deviation, m; NaN where no posterior was computed."""
    points = point_set(body)
    heights = points.height_template + result.betas @ points.height_directions
    if result.betas_cov is None:
        return heights, torch.full_like(heights, torch.nan)
    across = points.height_directions
    variance = torch.einsum("b,nbc,c->n", across, result.betas_cov, across)
    return heights, variance.clamp_min(0).sqrt()


def unknown_statures(
    result: Result, body: BodyModel, known: Float[Tensor, "N"], *, spread: float = 1.0
) -> list[str]:
    """People whose stature is the prior's, no better known than of anybody, or rare in it.

    `known`: heights that were given, m, NaN where none was; `spread`: standard deviation of each of
    the betas in the prior.
    """
    heights, sigma = statures(result, body)
    points = point_set(body)
    prior = spread * float(points.height_directions.norm())
    sentences = []
    for row, person in enumerate(result.person_id.tolist()):
        if not bool(known[row].isnan()):
            continue
        height, away = float(heights[row]), float(heights[row] - points.height_template) / prior
        if float(sigma[row]) ** 2 > UNKNOWN_SHARE * prior**2:
            sentences.append(
                f"person {person}: the stature is not observable, {height:.2f} m +- "
                f"{100 * float(sigma[row]):.0f} cm is what adults have: a child is taken for "
                "somebody further away; give `height_m` in sequence.yaml"
            )
        elif abs(away) > RARE and float(sigma[row]) > MEASURED * prior:
            kind = "smaller and nearer" if away < 0 else "taller and farther away"
            sentences.append(
                f"person {person}: {height:.2f} m is {abs(away):.1f} standard deviations from the "
                "mean of adults, towards which statures are drawn: this one may well be "
                f"{kind}; give `height_m` in sequence.yaml"
            )
    return sentences


def uncertainty(result: Result, found: Facts) -> Facts | None:
    """The posterior in numbers for report.json; None where there is none.

    Joint errors: root mean square over the three axes, median over everybody's frames, mm.
    """
    if result.joints_cov is None or result.joints_cov_root is None:
        return None

    def spread(covariance: Any) -> float | None:
        variance = covariance[result.valid].diagonal(dim1=-2, dim2=-1).mean(dim=-1)
        middle = variance.mean(dim=-1).sqrt()
        return 1000 * float(middle.median()) if len(middle) > 0 else None

    scale = result.scale_std / result.scale
    ground = result.ground_cov
    return {
        "joints_std_mm": spread(result.joints_cov),
        "joints_std_root_mm": spread(result.joints_cov_root),
        "scale_std_percent": None if math.isnan(scale) else 100 * scale,
        "floor_tilt_std_deg": None
        if ground is None
        else math.degrees(float(ground.diagonal()[:2].max().sqrt())),
        "floor_height_std_mm": None if ground is None else 1000 * float(ground[2, 2].sqrt()),
        "prior_share": found.get("prior_share", {}),
        "seconds": found.get("seconds"),
    }
