"""Normal equations of one window of frames."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Equations:
    """H and gradient of the residuals of one window, on the n frames that they touch.

    `band[k][t]` couples frames t and t + k; the last k blocks of offset k are zero.
    """

    start: int
    count: int  # frames in which residuals begin; n - count more are touched
    band: list[Float[Tensor, "n d d"]]
    border: Float[Tensor, "n d g"]
    gradient: Float[Tensor, "n d"]
    corner: Float[Tensor, "g g"]
    corner_gradient: Float[Tensor, "g"]
