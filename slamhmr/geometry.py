"""Rigid transforms, projection and alignment of points; rotations themselves come from `roma`."""

from collections.abc import Sequence

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def rigid(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """4x4 transform x -> rotation x + translation."""
    transform = torch.zeros(
        *rotation.shape[:-2], 4, 4, dtype=rotation.dtype, device=rotation.device
    )
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1
    return transform


def invert(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of a rigid transform: a_from_b -> b_from_a."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    return rigid(rotation, -(rotation @ transform[..., :3, 3:])[..., 0])


def apply(
    transform: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch P 3"]
) -> Float[Tensor, "*batch P 3"]:
    """Points of frame b in frame a, given a_from_b."""
    return points @ transform[..., :3, :3].transpose(-1, -2) + transform[..., None, :3, 3]


def project(
    points_cam: Float[Tensor, "*batch P 3"], intrinsics: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch P 2"]:
    """Pinhole image points, px: u = fx x/z + cx, v = fy y/z + cy. Depth is not checked."""
    return (
        intrinsics[..., None, :2] * points_cam[..., :2] / points_cam[..., 2:]
        + intrinsics[..., None, 2:]
    )


def bearings(
    points_image: Float[Tensor, "*batch P 2"], intrinsics: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch P 3"]:
    """Rays through image points, camera frame, z = 1 (not normalised)."""
    xy = (points_image - intrinsics[..., None, 2:]) / intrinsics[..., None, :2]
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def default_intrinsics(image_size: tuple[int, int]) -> Float[Tensor, "4"]:
    """Focal length sqrt(w^2 + h^2), 53 deg along the diagonal, and a centred principal point, px.

    The guess of WHAM and 4D-Humans.
    """
    width, height = image_size
    focal = (width**2 + height**2) ** 0.5
    return torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)


def similarity_between(
    source: Float[Tensor, "*batch P 3"],
    target: Float[Tensor, "*batch P 3"],
    *,
    with_scale: bool = True,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Scale s, proper rotation R, translation t minimising sum |s R source + t - target|^2.

    Source: Umeyama 1991, equations 40-43.
    """
    mean_source, mean_target = source.mean(dim=-2), target.mean(dim=-2)
    centred = source - mean_source[..., None, :]
    covariance = (target - mean_target[..., None, :]).transpose(-1, -2) @ centred
    rotation, singular = roma.special_procrustes(covariance, return_singular_values=True)
    if with_scale:
        scale = singular.sum(dim=-1) / (centred**2).sum(dim=(-1, -2)).clamp_min(1e-12)
    else:
        scale = torch.ones_like(singular[..., 0])
    translation = mean_target - scale[..., None] * (rotation @ mean_source[..., None])[..., 0]
    return scale, rotation, translation


def rotation_between(
    source: Float[Tensor, "*batch 3"], target: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """Smallest rotation that takes the direction `source` to the direction `target`.

    Opposite directions turn by pi about an arbitrary perpendicular axis.
    """
    a = torch.nn.functional.normalize(source, dim=-1)
    b = torch.nn.functional.normalize(target, dim=-1)
    axis = torch.linalg.cross(a, b)
    sine = axis.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(dim=-1, keepdim=True)
    least = torch.nn.functional.one_hot(a.abs().argmin(dim=-1), 3).to(a)
    spare = torch.nn.functional.normalize(torch.linalg.cross(a, least), dim=-1)
    unit = torch.where(sine > 1e-9, axis / sine.clamp_min(1e-12), spare)
    return roma.rotvec_to_rotmat(unit * torch.atan2(sine, cosine))


def shot_numbers(length: int, cuts: Sequence[int]) -> Int[Tensor, "T"]:
    """Number of the shot each of `length` frames is in; `cuts` are first frames of new ones."""
    starts = torch.tensor(cuts, dtype=torch.long)
    return torch.searchsorted(starts, torch.arange(length), right=True)


def ramps(times: Float[Tensor, "E"], duration: float, spacing: float) -> Float[Tensor, "E K"]:
    """Functions of time from 0 on that each rise from 0 to 1, one after the other: sums drift.

    As many as there are whole `spacing`s in `duration`, none in what is shorter. With independent
    coefficients of sigma s sqrt(spacing), a random walk of s per square root of a second.
    """
    count = int(duration / spacing)
    first = torch.arange(count, dtype=times.dtype, device=times.device)
    return (times[:, None] * (count / max(duration, spacing)) - first).clamp(0, 1)


def runs(flags: Bool[Tensor, "T"], shot: Int[Tensor, "T"] | None = None) -> list[tuple[int, int]]:
    """First and last-plus-one index of every unbroken run of true flags, within one shot."""
    edge = torch.zeros(1, dtype=torch.bool)
    before, after = torch.cat([edge, flags[:-1]]), torch.cat([flags[1:], edge])
    if shot is not None:
        same = shot[1:] == shot[:-1]
        before, after = before & torch.cat([edge, same]), after & torch.cat([same, edge])
    first, last = ((flags & ~near).nonzero()[:, 0] for near in (before, after))
    return list(zip(first.tolist(), (last + 1).tolist(), strict=True))


def nearest_rows(rows: Int[Tensor, "F"], shot: Int[Tensor, "T"]) -> Int[Tensor, "T"]:
    """Which of `rows` is nearest to each frame, of the frame's own shot where there is any."""
    times = torch.arange(len(shot))
    other = shot[:, None] != shot[rows]
    return ((times[:, None] - rows).abs() + len(shot) * other).argmin(dim=1)


def fill_gaps(values: Float[Tensor, "T D"], known: Bool[Tensor, "T"]) -> Float[Tensor, "T D"]:
    """Linear interpolation over time where `known` is false; ends are held.

    At least one frame must be known.
    """
    times = torch.arange(len(values), dtype=values.dtype, device=values.device)
    anchors = times[known]
    right = torch.searchsorted(anchors, times).clamp(1, max(len(anchors) - 1, 1))
    if len(anchors) == 1:
        return values[known].expand_as(values).clone()
    left = right - 1
    share = ((times - anchors[left]) / (anchors[right] - anchors[left])).clamp(0, 1)[:, None]
    return values[known][left] * (1 - share) + values[known][right] * share


def between(
    knots: Float[Tensor, "T"], at: Float[Tensor, "S"]
) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"], Float[Tensor, "S"]]:
    """Knots before and after each place, and how far on the way it lies, 0..1; ends are held.

    Knots ascend.
    """
    left = torch.searchsorted(knots, at + 1e-9, right=True) - 1
    left = left.clamp(0, max(len(knots) - 2, 0))
    right = (left + 1).clamp_max(len(knots) - 1)
    share = (at - knots[left]) / (knots[right] - knots[left]).clamp_min(1e-9)
    return left, right, share.clamp(0, 1)
