"""The stated uncertainties hold the truth, on scenes that they were not fitted on.

A few of the checking scenes of `slamhmr bench posterior`: over five scenes the shares of what has
one value per scene (scale, floor) say little, and those of joints, which share their scene's
errors, move by up to 20 points for each scene that goes wrong. The limits here are wider than the
benchmark's by that much.
"""

import pytest
import torch
from checking_scenes import errors_of

from slamhmr.bench.posterior import ABSOLUTE, HEIGHT, RELATIVE, SCALE, TILT, Errors, joined
from slamhmr.eval.calibration import coverage

SCENES = (0, 1, 2, 3, 4)
JOINTS = {RELATIVE: ((0.35, 0.70), (0.78, 0.99)), ABSOLUTE: ((0.30, 0.80), (0.72, 1.0))}
HALF_OF_THE_SHARED = (0.20, 0.80)  # of scale, height and tilt together: 3 values per scene


@pytest.mark.slow
def test_regions_hold_the_truth() -> None:
    found, wrong = errors_of(SCENES), []
    for kind, limits in JOINTS.items():
        everything = joined(found, kind)
        assert everything is not None
        for share, (low, high) in zip(shares(everything), limits, strict=True):
            if not low <= share <= high:
                wrong.append(f"{kind}: {share:.2f} is not within {low} .. {high}")
    single = [shares(scene[k]) for scene in found for k in (SCALE, HEIGHT, TILT) if k in scene]
    half, most = torch.tensor(single).mean(dim=0).tolist()
    if not HALF_OF_THE_SHARED[0] <= half <= HALF_OF_THE_SHARED[1]:
        wrong.append(f"scale and floor: {half:.2f} inside the 50 % regions")
    if most < 0.7:
        wrong.append(f"scale and floor: {most:.2f} inside the 90 % regions")
    assert wrong == []


def shares(judged: Errors) -> list[float]:
    return [float(share) for share in coverage(judged.error, judged.covariance)]
