"""Reader of DeepMimic motion files (json): one fixed, simplified humanoid."""

import json
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.errors import InputError
from slamhmr.motions.source import SourceMotion, chain

# Joint, parent, offset from it in metres, number of values (4 quaternion wxyz, 1 angle about z, 0
# fixed). Axes: x forward, y up, z right; arms hang down at rest. As in DeepMimic's humanoid3d
# character (Peng et al. 2018).
_TREE: tuple[tuple[str, str, tuple[float, float, float], int], ...] = (
    ("root", "", (0.0, 0.0, 0.0), 4),
    ("chest", "root", (0.0, 0.236, 0.0), 4),
    ("neck", "chest", (0.0, 0.224, 0.0), 4),
    ("right_hip", "root", (0.0, 0.0, 0.085), 4),
    ("right_knee", "right_hip", (0.0, -0.422, 0.0), 1),
    ("right_ankle", "right_knee", (0.0, -0.410, 0.0), 4),
    ("right_shoulder", "chest", (-0.024, 0.244, 0.183), 4),
    ("right_elbow", "right_shoulder", (0.0, -0.275, 0.0), 1),
    ("left_hip", "root", (0.0, 0.0, -0.085), 4),
    ("left_knee", "left_hip", (0.0, -0.422, 0.0), 1),
    ("left_ankle", "left_knee", (0.0, -0.410, 0.0), 4),
    ("left_shoulder", "chest", (-0.024, 0.244, -0.183), 4),
    ("left_elbow", "left_shoulder", (0.0, -0.275, 0.0), 1),
    ("right_wrist", "right_elbow", (0.0, -0.259, 0.0), 0),
    ("left_wrist", "left_elbow", (0.0, -0.259, 0.0), 0),
    ("right_toe", "right_ankle", (0.15, -0.05, 0.0), 0),
    ("left_toe", "left_ankle", (0.15, -0.05, 0.0), 0),
)
_WIDTH = 44  # duration, root position, rotations


def read_deepmimic(path: Path) -> SourceMotion:
    """Motion of a DeepMimic file, metres. Raises InputError for anything else."""
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["Frames"]
        values = torch.tensor(frames, dtype=torch.float64)
    except OSError as error:
        raise InputError(f"motion '{path}': cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"motion '{path}': not a DeepMimic motion file ({error})") from error
    if values.ndim != 2 or values.shape[1] != _WIDTH or len(values) < 2 or values[0, 0] <= 0:
        raise InputError(
            f"motion '{path}': frames of shape {tuple(values.shape)}, expected (T >= 2, {_WIDTH})"
        )
    names = tuple(name for name, _, _, _ in _TREE)
    parents = tuple(names.index(parent) if parent else -1 for _, parent, _, _ in _TREE)
    offsets = torch.tensor([offset for _, _, offset, _ in _TREE], dtype=torch.float64)
    positions = offsets.repeat(len(values), 1, 1)
    positions[:, 0] = values[:, 1:4]
    rotations, global_positions = chain(parents, _rotations(values[:, 4:]), positions)
    identity = torch.eye(3, dtype=torch.float64).expand(1, len(names), 3, 3)
    rest_rotations, rest_positions = chain(parents, identity, offsets[None])
    return SourceMotion(
        names=names,
        parents=parents,
        rotations=rotations,
        positions=global_positions,
        rest_rotations=rest_rotations[0],
        rest_positions=rest_positions[0],
        fps=1 / float(values[0, 0]),
    )


def _rotations(values: Float[Tensor, "T C"]) -> Float[Tensor, "T J 3 3"]:
    """Local rotations of all joints of the tree."""
    local: list[Tensor] = []
    column = 0
    for _, _, _, width in _TREE:
        block = values[:, column : column + width]
        column += width
        if width == 4:
            quaternion = torch.nn.functional.normalize(block, dim=-1)
            local.append(roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(quaternion)))
        else:
            rotvec = torch.zeros(len(values), 3, dtype=values.dtype)
            rotvec[:, 2:] = block if width == 1 else 0.0
            local.append(roma.rotvec_to_rotmat(rotvec))
    return torch.stack(local, dim=1)
