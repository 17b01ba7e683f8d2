"""Reader of Biovision BVH files."""

from dataclasses import dataclass, field
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.errors import InputError
from slamhmr.motions.source import SourceMotion, chain


@dataclass
class _Hierarchy:
    """Joints in file order; end sites are joints without channels, named after their parent."""

    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)


def read_bvh(path: Path) -> SourceMotion:
    """Motion of a BVH file in its own units and axes.

    Position channels replace the joint's offset, as exporters write them. Raises InputError for a
    file that is no BVH, is cut short, or whose sample count is not frames times channels.
    """
    try:
        tokens = path.read_text(encoding="utf-8", errors="replace").split()
    except OSError as error:
        raise InputError(f"motion '{path}': cannot be read ({error.strerror})") from error
    if not tokens or tokens[0] != "HIERARCHY" or "MOTION" not in tokens:
        raise InputError(f"motion '{path}': not a BVH file (no HIERARCHY and MOTION sections)")
    split = tokens.index("MOTION")
    try:
        hierarchy = _parse_hierarchy(tokens[1:split])
        frame_count, frame_time = int(tokens[split + 2]), float(tokens[split + 5])
        values = torch.tensor([float(word) for word in tokens[split + 6 :]], dtype=torch.float64)
    except (IndexError, ValueError) as error:
        raise InputError(f"motion '{path}': damaged BVH file ({error})") from error
    width = sum(len(names) for names in hierarchy.channels)
    if frame_count < 1 or frame_time <= 0 or len(values) != frame_count * width:
        raise InputError(
            f"motion '{path}': {len(values)} samples, expected {frame_count} frames "
            f"x {width} channels"
        )
    rotations, offsets = _local(hierarchy, values.reshape(frame_count, width))
    rest = torch.tensor(hierarchy.offsets, dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64).expand(1, len(rest), 3, 3)
    global_rotations, positions = chain(hierarchy.parents, rotations, offsets)
    rest_rotations, rest_positions = chain(hierarchy.parents, identity, rest[None])
    return SourceMotion(
        names=tuple(hierarchy.names),
        parents=tuple(hierarchy.parents),
        rotations=global_rotations,
        positions=positions,
        rest_rotations=rest_rotations[0],
        rest_positions=rest_positions[0],
        fps=1 / frame_time,
    )


def _parse_hierarchy(tokens: list[str]) -> _Hierarchy:
    """Walk the brace structure; raises ValueError or IndexError where it is malformed."""
    tree = _Hierarchy()
    stack: list[int] = []
    position = 0
    while position < len(tokens):
        word = tokens[position]
        if word in ("ROOT", "JOINT", "End"):
            parent = stack[-1] if stack else -1
            name = f"{tree.names[parent]}_end" if word == "End" else tokens[position + 1]
            stack.append(len(tree.names))
            tree.names.append(name)
            tree.parents.append(parent)
            tree.offsets.append([0.0, 0.0, 0.0])
            tree.channels.append([])
            position += 3  # keyword, name or "Site", opening brace
        elif word == "OFFSET":
            tree.offsets[stack[-1]] = [
                float(value) for value in tokens[position + 1 : position + 4]
            ]
            position += 4
        elif word == "CHANNELS":
            count = int(tokens[position + 1])
            tree.channels[stack[-1]] = tokens[position + 2 : position + 2 + count]
            position += 2 + count
        elif word == "}":
            stack.pop()
            position += 1
        else:
            raise ValueError(f"unexpected word '{word}' in the hierarchy")
    if stack:
        raise ValueError("the hierarchy is not closed")
    return tree


def _local(
    tree: _Hierarchy, values: Float[Tensor, "T C"]
) -> tuple[Float[Tensor, "T J 3 3"], Float[Tensor, "T J 3"]]:
    """Local rotations (product of the rotation channels in file order) and positions."""
    count, joints = len(values), len(tree.names)
    rotations = torch.eye(3, dtype=values.dtype).repeat(count, joints, 1, 1)
    positions = torch.tensor(tree.offsets, dtype=values.dtype).repeat(count, 1, 1)
    column = 0
    for joint, names in enumerate(tree.channels):
        block = values[:, column : column + len(names)]
        column += len(names)
        turns = [index for index, name in enumerate(names) if name.endswith("rotation")]
        for index, name in enumerate(names):
            if name.endswith("position"):
                positions[:, joint, "XYZ".index(name[0])] = block[:, index]
        if turns:
            order = "".join(names[index][0] for index in turns)
            rotations[:, joint] = roma.euler_to_rotmat(order, block[:, turns], degrees=True)
    return rotations, positions
