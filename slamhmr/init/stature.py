"""People whose height is known: a start of the right size, so that depth and scale follow it."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.scene import point_set
from slamhmr.types import Initial


def fit_heights(initial: Initial, body: BodyModel, heights: Float[Tensor, "N"]) -> Initial:
    """The start with everybody as tall as `heights` (m, NaN: unknown), and as much further away.

    Smallest change of the betas that gives the height; the pelvis moves along its ray by the ratio
    of the sizes, so the picture stays. Without it the alignment takes a tall person for a near one.
    """
    points = point_set(body)
    directions = points.height_directions
    betas, placed = initial.betas.clone(), initial.cam_from_root.clone()
    for row, height in enumerate(heights):
        if not bool(height.isnan()):
            before = points.height(betas[row])
            betas[row] += directions * (height - before) / (directions @ directions)
            placed[row, :, :3, 3] *= height / before
    return replace(initial, betas=betas, cam_from_root=placed)
