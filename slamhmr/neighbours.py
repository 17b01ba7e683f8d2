"""The other people near one person: constants of that person's part of the energy."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.body import forward_points
from slamhmr.scene import Evidence, Person, PointSet, Scene

FARTHEST = 2.2  # m between the pelves of people of the mean size, beyond which nobody can touch


@dataclass(frozen=True)
class Neighbours:
    """Capsules of others: one row for every frame in which somebody else is near."""

    frames: Int[Tensor, "n"]  # among those of the window
    people: Int[Tensor, "n"]  # index of the other person
    ends: Float[Tensor, "n C 2 3"]  # of the capsules' axes, in the world
    radius: Float[Tensor, "n C"]  # m


def neighbours(
    points: PointSet, evidence: list[Evidence], scene: Scene, index: int, start: int, count: int
) -> Neighbours:
    """Who is near person `index` in `count` frames from frame `start` of its span on."""
    person, first = scene.people[index], evidence[index].first + start
    own = person.pelvis[start : start + count]
    size = points.size(person.betas)
    found = []
    for other, someone in enumerate(scene.people):
        begin = evidence[other].first
        low = max(first, begin)
        high = min(first + count, begin + len(someone.pelvis))
        if other == index or high <= low:
            continue
        apart = own[low - first : high - first] - someone.pelvis[low - begin : high - begin]
        reach = FARTHEST * (size + points.size(someone.betas)) / 2
        near = torch.nonzero(apart.norm(dim=-1) < reach)[:, 0]
        if len(near) > 0:
            found.append(_near(points, someone, near + low - first, near + low - begin, other))
    if len(found) == 0:
        return nobody(points, own)
    return Neighbours(*(torch.cat([getattr(f, name) for f in found]) for name in vars(found[0])))


def nobody(points: PointSet, like: Tensor) -> Neighbours:
    """Nobody near, or nobody looked for; `like` has the numbers' type."""
    none = torch.zeros(0, dtype=torch.int64, device=like.device)
    ends = like.new_zeros(0, len(points.capsules.ends), 2, 3)
    return Neighbours(none, none, ends, ends[..., 0, 0])


def _near(
    points: PointSet,
    someone: Person,
    frames: Int[Tensor, "n"],
    own_frames: Int[Tensor, "n"],
    other: int,
) -> Neighbours:
    rotations = someone.rotations[own_frames]
    found, _ = forward_points(
        points.body, someone.betas[None], rotations[None, :, 0],
        someone.pelvis[own_frames][None], rotations[None, :, 1:],
    )  # fmt: skip
    ends = found[0][:, points.places][:, points.capsules.ends]
    radius = points.capsules.radius * points.size(someone.betas)
    people = torch.full_like(frames, other)
    return Neighbours(frames, people, ends, radius.expand(len(frames), -1))
