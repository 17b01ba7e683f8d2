"""The body that WHAM's trajectory needs: joints and feet about the middle of the hips.

The network's arrays do not contain a body. `LinearBody` is plain linear blend skinning on arrays
that the caller has; any function of the kind `Body` serves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

LEFT_HIP, RIGHT_HIP = 11, 12  # COCO


@dataclass(frozen=True)
class BodyPoints:
    """Points of posed bodies relative to the middle of the COCO hips, m, in the root's parent."""

    joints: Float[Tensor, "B P 3"]  # the 17 COCO joints first
    feet: Float[Tensor, "B 4 3"]  # two points per foot, in the order of the contacts
    offset: Float[Tensor, "B 3"]  # the middle of the hips in the body model's own axes
    vertices: Float[Tensor, "B V 3"] | None = None


# Poses bodies: local rotations (B,24,3,3), root first, and shapes (B,10).
Body: TypeAlias = Callable[[Tensor, Tensor], BodyPoints]


@dataclass(frozen=True)
class LinearBody:
    """SMPL's linear blend skinning with regressors of WHAM's 31 joints and 4 foot points.

    Shapes as in SMPL: `posedirs` multiplies the 23 body rotations less identity, row by row.
    Source: Loper et al. 2015, eq. 2-10.
    """

    v_template: Float[Tensor, "V 3"]
    shapedirs: Float[Tensor, "V 3 10"]
    posedirs: Float[Tensor, "V 3 207"]
    joint_regressor: Float[Tensor, "24 V"]
    weights: Float[Tensor, "V 24"]
    parents: tuple[int, ...]  # -1 for the root
    wham_regressor: Float[Tensor, "P V"]
    feet_regressor: Float[Tensor, "4 V"]

    def skin(
        self, rotations: Float[Tensor, "B 24 3 3"], betas: Float[Tensor, "B 10"]
    ) -> tuple[Float[Tensor, "B V 3"], Float[Tensor, "B 24 3"]]:
        """Vertices and joints in the body model's own axes, without translation."""
        shaped = self.v_template + torch.einsum("vck,bk->bvc", self.shapedirs, betas)
        rest = torch.einsum("jv,bvc->bjc", self.joint_regressor, shaped)
        bent = (rotations[:, 1:] - torch.eye(3).to(rotations)).flatten(1)
        shaped = shaped + torch.einsum("vck,bk->bvc", self.posedirs, bent)
        turns, joints = [rotations[:, 0]], [rest[:, 0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            turns.append(turns[parent] @ rotations[:, joint])
            bone = rest[:, joint] - rest[:, parent]
            joints.append(joints[parent] + (turns[parent] @ bone[..., None])[..., 0])
        turn, posed = torch.stack(turns, dim=1), torch.stack(joints, dim=1)
        shift = posed - (turn @ rest[..., None])[..., 0]
        blended = torch.einsum("vj,bjrc->bvrc", self.weights, turn)
        moved = torch.einsum("vj,bjc->bvc", self.weights, shift)
        return (blended @ shaped[..., None])[..., 0] + moved, posed

    def __call__(
        self, rotations: Float[Tensor, "B 24 3 3"], betas: Float[Tensor, "B 10"]
    ) -> BodyPoints:
        """Regressed joints and feet, and the vertices, about the middle of the hips."""
        vertices, _ = self.skin(rotations, betas)
        joints = torch.einsum("pv,bvc->bpc", self.wham_regressor, vertices)
        feet = torch.einsum("pv,bvc->bpc", self.feet_regressor, vertices)
        offset = joints[:, [LEFT_HIP, RIGHT_HIP]].mean(dim=1)
        middle = offset[:, None]
        return BodyPoints(joints - middle, feet - middle, offset, vertices - middle)


def contact_order(
    feet_regressor: Float[Tensor, "4 V"], v_template: Float[Tensor, "V 3"]
) -> tuple[str, ...]:
    """Which point of the feet each contact is, from the regressor that WHAM was trained with.

    SMPL rests with x to its left and z ahead: of the two points on a side the farther ahead is the
    toe. Empty where there are not two points on each side.
    """
    points = feet_regressor @ v_template
    left = points[:, 0] > 0
    if int(left.sum()) != 2:
        return ()
    names = []
    for side, ahead in zip(left.tolist(), points[:, 2], strict=True):
        toe = bool(ahead >= points[left == side, 2].max())
        names.append(("left_" if side else "right_") + ("big_toe" if toe else "heel"))
    return tuple(names) if len(set(names)) == 4 else ()
