"""One consistent reading per frame: dynamic programming over the candidates of all frames."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PathWeights:
    """Costs of changing from one reading to the next."""

    speed: float = 1.5  # m/s, rms over the joints, that costs one unit
    depth_rate: float = 1.0  # 1/s, rate of log depth that costs one unit
    cap: float = 25.0  # most that one change may cost: cuts and misses happen
    emission: float = 0.5  # trust in the energy of a single frame


def best_path(
    energy: Float[Tensor, "T C"],
    joints: Float[Tensor, "T C J 3"],
    depth: Float[Tensor, "T C"],
    seconds: Float[Tensor, "T"],
    weights: PathWeights,
    linked: Bool[Tensor, "S"] | None = None,
) -> tuple[Int[Tensor, "T"], Float[Tensor, "T C"]]:
    """Cheapest sequence of readings (Viterbi) and the min-marginal cost of each, 0 on the path.

    `joints` are relative to the pelvis, in axes that do not turn with the camera, metres. Frames t
    and t + 1 that are not `linked` (a cut is between them) choose without each other.
    """
    emission = weights.emission * (energy - energy.min(dim=1, keepdim=True).values)
    change = _transitions(joints, depth, seconds, weights)
    if linked is not None:
        change = change * linked[:, None, None]
    forward = [emission[0]]
    for frame in range(1, len(energy)):
        forward.append(emission[frame] + (forward[-1][:, None] + change[frame - 1]).amin(dim=0))
    backward = [torch.zeros_like(emission[0])]
    for frame in range(len(energy) - 2, -1, -1):
        ahead = backward[-1] + emission[frame + 1]
        backward.append((change[frame] + ahead[None]).amin(dim=1))
    total = torch.stack(forward) + torch.stack(backward[::-1])
    total = total - total.min(dim=1, keepdim=True).values
    chosen = [int(forward[-1].argmin())]
    for frame in range(len(energy) - 2, -1, -1):
        chosen.append(int((forward[frame] + change[frame][:, chosen[-1]]).argmin()))
    return torch.tensor(chosen[::-1]), total


def _transitions(
    joints: Float[Tensor, "T C J 3"],
    depth: Float[Tensor, "T C"],
    seconds: Float[Tensor, "T"],
    weights: PathWeights,
) -> Float[Tensor, "S C C"]:
    """Cost of every change of reading between neighbouring frames."""
    step = (seconds[1:] - seconds[:-1]).clamp_min(1e-3)[:, None, None]
    flat = joints.flatten(2)
    apart = torch.cdist(flat[:-1], flat[1:]) / joints.shape[2] ** 0.5
    zoom = (depth[:-1, :, None].log() - depth[1:, None].log()).abs()
    cost = 0.5 * (apart / (weights.speed * step)) ** 2
    cost = cost + 0.5 * (zoom / (weights.depth_rate * step)) ** 2
    return weights.cap * (1 - torch.exp(-cost / weights.cap))
