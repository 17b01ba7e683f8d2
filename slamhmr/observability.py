"""What a clip cannot tell, in words: unknowns the posterior leaves where the prior had them."""

import math
from typing import Any

from slamhmr.types import CameraTrack, Result

Facts = dict[str, Any]
UNKNOWN_SHARE = 0.95  # of the prior's variance; above it the clip has said next to nothing
SENTENCES = {
    "focal": "the focal length is not observable: people look alike from near and far; give "
    "`intrinsics` in sequence.yaml",
    "gravity": "the direction of gravity is not observable: nobody is seen standing on the floor",
    "floor_tilt": "the floor's tilt is not observable: nobody is seen standing in several places",
    "floor_height": "the floor's height is not observable: nobody is seen standing on it",
}


def unobservable(
    cameras: CameraTrack, prior_share: dict[str, float], *, height_known: bool
) -> list[str]:
    """One sentence for every direction that cannot be known.

    `prior_share`: posterior over prior variance, by name, of what was free.
    """
    sentences = []
    if not cameras.moving and not height_known:
        sentences.append(
            "scale is not observable: the camera does not translate and no height is known; people "
            "are as tall as their shape says, and their distance with them"
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
    ]
    return sentences


def uncertainty(result: Result, found: Facts) -> Facts | None:
    """The posterior in numbers for report.json; None where there is none.

    Joint errors: root mean square over the three axes, median over everybody's frames, mm.
    """
    if result.joints_cov is None or result.joints_cov_root is None:
        return None

    def spread(covariance: Any) -> float:
        variance = covariance[result.valid].diagonal(dim1=-2, dim2=-1).mean(dim=-1)
        return 1000 * float(variance.mean(dim=-1).sqrt().median())

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
