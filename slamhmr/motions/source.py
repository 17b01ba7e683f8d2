"""A recorded motion on its own skeleton, as every reader returns it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SourceMotion:
    """Global rotations and positions of all joints of the recorded skeleton.

    The rest pose is the one with every rotation channel at zero; it need not be a T-pose. Units
    and axes are those of the file.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]  # -1 for the root; parents come first
    rotations: Float[Tensor, "T J 3 3"]
    positions: Float[Tensor, "T J 3"]
    rest_rotations: Float[Tensor, "J 3 3"]
    rest_positions: Float[Tensor, "J 3"]
    fps: float


def chain(
    parents: Sequence[int],
    local_rotations: Float[Tensor, "T J 3 3"],
    local_positions: Float[Tensor, "T J 3"],
) -> tuple[Float[Tensor, "T J 3 3"], Float[Tensor, "T J 3"]]:
    """Global rotations and positions of a tree whose joints follow their parents."""
    rotations: list[Tensor] = []
    positions: list[Tensor] = []
    for joint, parent in enumerate(parents):
        rotation, position = local_rotations[:, joint], local_positions[:, joint]
        if parent >= 0:
            position = positions[parent] + (rotations[parent] @ position[..., None])[..., 0]
            rotation = rotations[parent] @ rotation
        rotations.append(rotation)
        positions.append(position)
    return torch.stack(rotations, dim=1), torch.stack(positions, dim=1)
