"""Muon: steps of equal length in all directions of a weight matrix (Jordan et al. 2024).

The momentum of a matrix is replaced by the nearest orthogonal matrix, so that rare directions are
learnt as fast as common ones (kellerjordan.github.io/posts/muon). Steps have the size of AdamW's,
as in Liu et al. 2025 (arXiv 2502.16982): one learning rate serves both. torch's own Muon takes no
convolutions, and is younger than the oldest torch that is supported.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.95
SIZE = 0.2  # root mean square of AdamW's steps, in learning rates (Liu et al. 2025, section 2.2)
QUINTIC, ROUNDS = (3.4445, -4.7750, 2.0315), 5  # singular values end in 0.7 to 1.2 (Jordan)


def orthogonal(matrix: Float[Tensor, "A B"]) -> Float[Tensor, "A B"]:
    """About the orthogonal factor of a matrix's polar decomposition, by Newton-Schulz rounds."""
    a, b, c = QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.mT).bfloat16()
    x = x / x.norm().clamp_min(1e-20)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return (x if wide else x.mT).to(matrix)


class Muon(torch.optim.Optimizer):
    """For weights of two dimensions or more; all but the first count as one."""

    def __init__(self, weights: Iterable[Tensor], rate: float, decay: float) -> None:
        super().__init__(weights, {"lr": rate, "weight_decay": decay, "momentum": MOMENTUM})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step down the gradients, with Nesterov's momentum."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                kept = self.state[weight]
                if "m" not in kept:
                    kept["m"] = torch.zeros_like(weight)
                mean = kept["m"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(mean, group["momentum"]).flatten(start_dim=1)
                turn = orthogonal(ahead) * (SIZE * max(ahead.shape) ** 0.5)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(turn.view_as(weight), alpha=-group["lr"])


class Optimisers:
    """Muon for the weights that lie between features, AdamW for all others."""

    def __init__(self, network: nn.Module, hidden: set[str], rate: float, decay: float) -> None:
        """`hidden`: names of parameters for Muon."""
        named = list(network.named_parameters())
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            Muon([weight for name, weight in named if name in hidden], rate, decay),
            torch.optim.AdamW(
                [weight for name, weight in named if name not in hidden], rate, weight_decay=decay
            ),
        )

    def rate(self, value: float) -> None:
        """Set the learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = value

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """One step of all weights."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: object) -> None:
        """Go on from a checkpoint.

        Raises ValueError for that of another optimiser.
        """
        if not isinstance(states, list) or len(states) != len(self.parts):
            raise ValueError("the checkpoint is of another optimiser; delete it to begin anew")
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
