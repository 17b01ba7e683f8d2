"""2D skeletons looked up in a library of seen poses: several 3D readings per frame."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.geometry import rotation_between
from slamhmr.init.kinematics import Pose
from slamhmr.init.library import ViewLibrary

CHUNK_FRAMES = 48
SHORTLIST = 400  # best views of a frame among which different readings are sought
DIFFERENT = 0.12  # m, rms distance of points beyond which two readings count as different
ROLL_SIGMA = 0.17  # rad (10 deg), picture roll of an upright person
TILT_SIGMA = 0.35  # rad (20 deg), camera elevation
MATCH_SIGMA = 0.06  # m, rms misfit of a library pose, about half the spacing of the library


@dataclass(frozen=True)
class Candidates:
    """C readings of each frame, best first."""

    pose: Pose  # batch = T * C, frame major
    misfit: Float[Tensor, "T C"]
    count: int


@dataclass(frozen=True)
class _Match:
    """Similarity alignment of every view to every frame of a chunk, in the virtual camera."""

    cost: Float[Tensor, "T M"]
    roll: Float[Tensor, "T M"]
    scale: Float[Tensor, "T M"]
    shift: Float[Tensor, "T M 2"]  # picture of the pelvis


def look_up(
    library: ViewLibrary,
    bearings: Float[Tensor, "T K 2"],
    weight: Float[Tensor, "T K"],
    count: int,
) -> Candidates:
    """The `count` best mutually different library views of each frame, placed in the camera.

    `bearings` are picture points at z = 1. Each frame is looked at through a virtual camera that
    points at the person, so that weak perspective holds even at the border of a wide picture.
    """
    parts = []
    for start in range(0, len(bearings), CHUNK_FRAMES):
        chunk = slice(start, start + CHUNK_FRAMES)
        parts.append(_look_up_chunk(library, bearings[chunk], weight[chunk], count))
    root = torch.cat([part[0] for part in parts])
    pelvis = torch.cat([part[1] for part in parts])
    chosen = torch.cat([part[2] for part in parts])
    misfit = torch.cat([part[3] for part in parts])
    pose = Pose(root.flatten(0, 1), pelvis.flatten(0, 1), library.rotations[chosen].flatten(0, 1))
    return Candidates(pose, misfit, count)


def _look_up_chunk(
    library: ViewLibrary, bearings: Tensor, weight: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = weight.sum(dim=1, keepdim=True)
    centre = (weight[..., None] * bearings).sum(dim=1) / total
    rays = torch.cat([bearings, torch.ones_like(bearings[..., :1])], dim=-1)
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=bearings.dtype).expand(len(bearings), 3)
    towards = torch.cat([centre, torch.ones_like(centre[:, :1])], dim=-1)
    virtual_from_cam = rotation_between(towards, axis)
    turned = rays @ virtual_from_cam.transpose(-1, -2)
    match = _align(library, turned[..., :2] / turned[..., 2:].clamp_min(0.1), weight)
    chosen = _different(library, match, count)
    rows = torch.arange(len(bearings))[:, None]
    roll, scale, shift = (
        match.roll[rows, chosen],
        match.scale[rows, chosen],
        match.shift[rows, chosen],
    )
    spin = _roll(roll)
    cam_from_virtual = virtual_from_cam.transpose(-1, -2)[:, None]
    root = cam_from_virtual @ spin @ library.root[chosen]
    pelvis = (
        torch.cat([shift, torch.ones_like(shift[..., :1])], dim=-1) / scale[..., None]
    ).double()
    pelvis = (cam_from_virtual @ pelvis[..., None])[..., 0]
    return root, pelvis, chosen, match.cost[rows, chosen]


def _align(
    library: ViewLibrary, picture: Float[Tensor, "T K 2"], weight: Float[Tensor, "T K"]
) -> _Match:
    """Weighted least-squares similarity (roll bounded by its prior) of every view to every frame.

    With complex points z (picture) and y (view): a = <y, z> / <y, y>, misfit <z, z> - |a|^2 <y, y>,
    all inner products centred and weighted, computed as matrix products.
    """
    z = torch.complex(picture[..., 0].float(), picture[..., 1].float())
    y = torch.complex(library.points[..., 0].float(), library.points[..., 1].float())
    w = (weight / weight.sum(dim=1, keepdim=True)).float()
    mean_z, mean_y = (w * z).sum(dim=1, keepdim=True), w.to(y.dtype) @ y.T
    size_z = (w * (z - mean_z).abs() ** 2).sum(dim=1, keepdim=True)
    size_y = (w @ (y.abs() ** 2).T - mean_y.abs() ** 2).clamp_min(1e-6)
    inner = (w * (z - mean_z)) @ y.conj().T
    roll = inner.angle().clamp(-0.5, 0.5)
    along = (inner * torch.polar(torch.ones_like(roll), -roll)).real.clamp_min(1e-6)
    scale = along / size_y
    misfit = (size_z - along**2 / size_y).clamp_min(0) / scale**2
    cost = (
        misfit / (2 * MATCH_SIGMA**2)
        + roll**2 / (2 * ROLL_SIGMA**2) / 4
        + (library.tilt.float() / TILT_SIGMA) ** 2 / 2 / 4
    )
    shift = mean_z - torch.polar(scale, roll) * mean_y
    return _Match(cost, roll, scale, torch.view_as_real(shift))


def _different(library: ViewLibrary, match: _Match, count: int) -> Int[Tensor, "T C"]:
    """Greedy choice of good views whose points differ by `DIFFERENT` (from those chosen before)."""
    cost, views = match.cost.topk(min(SHORTLIST, match.cost.shape[1]), dim=1, largest=False)
    rows = torch.arange(len(cost))
    spin = _roll(match.roll[rows[:, None], views]).float()
    points = library.points[views].float() @ spin.transpose(-1, -2)
    points = points - points.mean(dim=2, keepdim=True)
    taken = torch.zeros_like(cost)
    chosen = []
    for _ in range(count):
        best = (cost + taken).argmin(dim=1)
        chosen.append(views[rows, best])
        apart = ((points - points[rows, best][:, None]) ** 2).sum(dim=-1).mean(dim=-1)
        taken = taken + 100.0 * (apart < DIFFERENT**2)
        taken[rows, best] += 1e4
    return torch.stack(chosen, dim=1)


def _roll(angle: Float[Tensor, "T C"]) -> Float[Tensor, "T C 3 3"]:
    cosine, sine = torch.cos(angle).double(), torch.sin(angle).double()
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    entries = [cosine, -sine, zero, sine, cosine, zero, zero, zero, one]
    return torch.stack(entries, dim=-1).reshape(*angle.shape, 3, 3)
