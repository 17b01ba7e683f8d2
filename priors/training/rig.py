"""The body as training sees it: points that ride on SMPL's joints, batched forward kinematics."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)  # SMPL's body
NECK, ANKLES = 12, (7, 8)


@dataclass(frozen=True)
class Rig:
    """Points of a body model: first its 22 body joints, then others, each rigid on one joint."""

    template: Float[Tensor, "P 3"]  # rest positions, body space, m
    shapedirs: Float[Tensor, "P 3 B"]
    joint: Int[Tensor, "P"]  # that carries the point; joints are carried by their parents
    keypoints: Int[Tensor, "K"]  # the points that a detector sees, in the order of `names`
    names: tuple[str, ...]

    def rest(self, betas: Float[Tensor, "N B"]) -> Float[Tensor, "N P 3"]:
        """Rest positions of every shape, m."""
        return self.template + torch.einsum("pdb,nb->npd", self.shapedirs, betas)

    def size(self, betas: Float[Tensor, "N B"]) -> Float[Tensor, "N"]:
        """Neck to ankles at rest, relative to the mean body's (`slamhmr.scene.PointSet.size`)."""
        length = _length(self.template[None])
        return _length(self.rest(betas)) / length

    def resized(
        self, betas: Float[Tensor, "N B"], size: Float[Tensor, "N"]
    ) -> Float[Tensor, "N B"]:
        """The nearest shapes (in betas) of a size."""
        up = self.shapedirs[:, 1]
        along = (up[NECK] - up[list(ANKLES)].mean(dim=0)) / _length(self.template[None])
        lacking = size - self.size(betas)
        return betas + lacking[:, None] * along / (along @ along)

    def forward(
        self, rest: Float[Tensor, "N P 3"], rotations: Float[Tensor, "N T 22 3 3"]
    ) -> tuple[Float[Tensor, "N T P 3"], Float[Tensor, "N T 22 3 3"]]:
        """Points relative to the pelvis joint, and global joint rotations, in the root's frame."""
        turned, places = [rotations[:, :, 0]], [torch.zeros_like(rotations[:, :, 0, :, 0])]
        for index, parent in enumerate(PARENTS[1:], start=1):
            bone = (rest[:, index] - rest[:, parent])[:, None, :, None]
            places.append(places[parent] + (turned[parent] @ bone)[..., 0])
            turned.append(turned[parent] @ rotations[:, :, index])
        joints, globals_ = torch.stack(places, dim=2), torch.stack(turned, dim=2)
        carrier = self.joint[len(PARENTS) :]
        arm = rest[:, len(PARENTS) :] - rest[:, carrier]
        others = joints[:, :, carrier] + torch.einsum(
            "ntpij,npj->ntpi", globals_[:, :, carrier], arm
        )
        return torch.cat([joints, others], dim=2), globals_


def _length(rest: Float[Tensor, "N P 3"]) -> Float[Tensor, "N"]:
    return rest[:, NECK, 1] - rest[:, list(ANKLES), 1].mean(dim=1)
