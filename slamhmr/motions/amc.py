"""Reader of Acclaim ASF/AMC: the skeleton and the motion are two files."""

from dataclasses import dataclass
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.errors import InputError
from slamhmr.motions.source import SourceMotion, chain

AMC_FPS = 120.0  # the files carry no rate; CMU recorded at 120, a few trials at 60


@dataclass(frozen=True)
class _Bone:
    """One bone: `axis` takes its own axes to the skeleton's, `channels` turn about them."""

    name: str
    offset: Float[Tensor, "3"]  # from its start to its end
    axis: Float[Tensor, "3 3"]
    channels: tuple[str, ...]


def read_amc(path: Path, skeleton: Path | None = None, *, fps: float = AMC_FPS) -> SourceMotion:
    """Motion of an AMC file.

    A joint is the start of the bone of that name; `<bone>_end` ends a leaf.

    Args:
        path: the motion, `SUBJECT_TRIAL.amc`.
        skeleton: the ASF file; None looks for `SUBJECT.asf` beside the motion.
        fps: the recording rate.

    Raises:
        InputError: a file is missing, damaged, or names a bone that the skeleton does not have.
    """
    skeleton = skeleton or path.with_name(path.stem.split("_")[0] + ".asf")
    try:
        bones, children = _parse_asf(skeleton.read_text(encoding="utf-8", errors="replace"))
        frames = _parse_amc(path.read_text(encoding="utf-8", errors="replace"))
        names, parents, rotations, positions = _locals(bones, children, frames)
    except OSError as error:
        raise InputError(
            f"motion '{path}': cannot read '{error.filename}' ({error.strerror})"
        ) from error
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"motion '{path}': damaged ASF/AMC pair ({error})") from error
    identity = torch.eye(3, dtype=torch.float64).expand(1, len(names), 3, 3)
    rest = positions[:1].clone()
    rest[:, 0] = 0
    global_rotations, global_positions = chain(parents, rotations, positions)
    rest_rotations, rest_positions = chain(parents, identity, rest)
    return SourceMotion(
        names=names,
        parents=parents,
        rotations=global_rotations,
        positions=global_positions,
        rest_rotations=rest_rotations[0],
        rest_positions=rest_positions[0],
        fps=fps,
    )


def _parse_asf(text: str) -> tuple[dict[str, _Bone], dict[str, list[str]]]:
    """Bones by name and the children of each, from the `:bonedata` and `:hierarchy` sections."""
    sections = {part.split()[0]: part for part in text.split("\n:")[1:] if part.split()}
    bones: dict[str, _Bone] = {}
    for block in sections["bonedata"].split("begin")[1:]:
        fields = {line.split()[0]: line.split()[1:] for line in block.splitlines() if line.split()}
        direction = torch.tensor([float(v) for v in fields["direction"]], dtype=torch.float64)
        angles = torch.tensor([float(v) for v in fields["axis"][:3]], dtype=torch.float64)
        bones[fields["name"][0]] = _Bone(
            name=fields["name"][0],
            offset=direction * float(fields["length"][0]),
            axis=roma.euler_to_rotmat(fields["axis"][3].lower(), angles, degrees=True),
            channels=tuple(fields.get("dof", [])),
        )
    children: dict[str, list[str]] = {}
    for line in sections["hierarchy"].splitlines()[1:]:
        words = line.split()
        if len(words) > 1:
            children[words[0]] = words[1:]
    return bones, children


def _parse_amc(text: str) -> dict[str, Float[Tensor, "T C"]]:
    """Channel values of every bone over all frames."""
    values: dict[str, list[list[float]]] = {}
    frame_count = 0
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ":")):
            continue
        if len(words) == 1 and words[0].isdigit():
            frame_count += 1
        else:
            values.setdefault(words[0], []).append([float(word) for word in words[1:]])
    if frame_count == 0 or any(len(rows) != frame_count for rows in values.values()):
        raise ValueError("bones have different numbers of frames")
    return {name: torch.tensor(rows, dtype=torch.float64) for name, rows in values.items()}


def _locals(
    bones: dict[str, _Bone], children: dict[str, list[str]], frames: dict[str, Float[Tensor, "T C"]]
) -> tuple[tuple[str, ...], tuple[int, ...], Float[Tensor, "T J 3 3"], Float[Tensor, "T J 3"]]:
    """Names, parents, local rotations and local positions in the axes of the rest pose."""
    root = frames["root"]
    names, parents = ["root"], [-1]
    rotations = [roma.euler_to_rotmat("xyz", root[:, 3:], degrees=True)]
    positions = [root[:, :3]]
    pending = [(name, 0, torch.zeros(3, dtype=torch.float64)) for name in children["root"]]
    while pending:
        name, parent, start = pending.pop(0)
        bone = bones[name]
        angles = torch.zeros(len(root), 3, dtype=torch.float64)
        for column, channel in enumerate(bone.channels):
            angles[:, ("rx", "ry", "rz").index(channel)] = frames[name][:, column]
        turn = roma.euler_to_rotmat("xyz", angles, degrees=True)
        index = len(names)
        names.append(name)
        parents.append(parent)
        rotations.append(bone.axis @ turn @ bone.axis.T)
        positions.append(start.expand(len(root), 3))
        pending += [(child, index, bone.offset) for child in children.get(name, [])]
        if name not in children:
            names.append(f"{name}_end")
            parents.append(index)
            rotations.append(torch.eye(3, dtype=torch.float64).expand(len(root), 3, 3))
            positions.append(bone.offset.expand(len(root), 3))
    return tuple(names), tuple(parents), torch.stack(rotations, 1), torch.stack(positions, 1)
