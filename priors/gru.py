"""One direction of a `torch.nn.GRU`, stepped over many windows at once from projected inputs."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

Frame = int


class Direction:
    """Weights of one direction ("" or "_reverse") of all layers of a GRU.

    h' = (1 - z) n + z h with r = s(W_r x + U_r h), z = s(W_z x + U_z h), n = tanh(W_n x + r U_n h),
    biases on both products: gate order and arithmetic of torch.
    """

    def __init__(self, gru: nn.GRU, suffix: str = "") -> None:
        self._gru = gru
        self._suffix = suffix

    def project(self, layer: int, inputs: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch G"]:
        """Input products W x + b of all three gates: what needs no state."""
        return nn.functional.linear(
            inputs, self._weight("weight_ih", layer), self._weight("bias_ih", layer)
        )

    def run(
        self,
        layer: int,
        projected: Callable[[Frame], Float[Tensor, "B G"]],
        frames: Iterable[Frame],
    ) -> dict[Frame, Float[Tensor, "B H"]]:
        """State after each of `frames`, in that order, from a zero state."""
        weight, bias = self._weight("weight_hh", layer), self._weight("bias_hh", layer)
        states: dict[Frame, Tensor] = {}
        state: Tensor | None = None
        for frame in frames:
            inputs = projected(frame)
            # The first state is zero: its product is the bias.
            recurrent = bias if state is None else nn.functional.linear(state, weight, bias)
            r_in, z_in, n_in = inputs.chunk(3, dim=-1)
            r_state, z_state, n_state = recurrent.chunk(3, dim=-1)
            reset = torch.sigmoid(r_in + r_state)
            update = torch.sigmoid(z_in + z_state)
            new = torch.tanh(n_in + reset * n_state)
            state = (1 - update) * new if state is None else torch.lerp(new, state, update)
            states[frame] = state
        return states

    def _weight(self, name: str, layer: int) -> Tensor:
        value: Tensor = getattr(self._gru, f"{name}_l{layer}{self._suffix}")
        return value


def last_output(
    gru: Direction, projected: Callable[[Frame], Float[Tensor, "B G"]], frames: range
) -> Float[Tensor, "B H"]:
    """Output of two layers after the last of `frames`; `projected` are layer 0's inputs."""
    below = gru.run(0, projected, frames)
    above = gru.project(1, torch.stack([below[frame] for frame in frames]))
    return gru.run(1, lambda frame: above[frames.index(frame)], frames)[frames[-1]]


def middle_output(
    forward: Direction,
    backward: Direction,
    projected: tuple[Callable[[Frame], Tensor], Callable[[Frame], Tensor]],
    length: int,
    middle: Frame,
) -> Float[Tensor, "B O"]:
    """Output of two bidirectional layers at frame `middle` of `length` frames.

    Layer 1 is read at `middle` alone, so it runs forwards up to it and backwards down to it.
    """
    ahead = forward.run(0, projected[0], range(length))
    back = backward.run(0, projected[1], range(length - 1, -1, -1))
    both = torch.stack([torch.cat([ahead[f], back[f]], dim=-1) for f in range(length)])
    up_to, down_to = range(middle + 1), range(length - 1, middle - 1, -1)
    first = forward.project(1, both[: middle + 1])
    second = backward.project(1, both[middle:])
    top = forward.run(1, lambda frame: first[frame], up_to)
    end = backward.run(1, lambda frame: second[frame - middle], down_to)
    return torch.cat([top[middle], end[middle]], dim=-1)
