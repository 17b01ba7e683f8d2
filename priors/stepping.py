"""Stacked LSTMs that feed on their own output, one step at a time and as fast as memory allows.

A step of one row is a product of every recurrent weight with a vector, so its cost is reading the
weights. Hence: what the past does not touch is projected for all frames in one product; the two
matrices of a layer are one; weights are laid out once in the order in which they are read; rows
(people) share the reading; only the head that is fed back is computed within the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

Precision: TypeAlias = Literal["float32", "bfloat16"]
Product: TypeAlias = Callable[[Tensor], Tensor]
ROWS_HINT = 8  # oneDNN's layout for few rows is as good for one (a layout for one is worse for two)


BLOCK = 512  # frames whose inputs are projected at once: 5 MB per person


@dataclass
class LstmState:
    """What a recurrent part remembers: hidden and cell of its layers, and its last output."""

    hidden: Float[Tensor, "L N H"]
    cell: Float[Tensor, "L N H"]
    previous: Float[Tensor, "N F"]  # what is fed back; F = 0 where nothing is


def product(weight: Float[Tensor, "G K"], bias: Float[Tensor, "G"] | None = None) -> Product:
    """X -> x W' + b for few rows x (N,K), with W laid out for it once.

    oneDNN's packed weights on a CPU that has it (3 times as fast as a plain product for 2..8 rows),
    column order otherwise.
    """
    packable = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)
    # The two operators are those that torch's own compiler emits; not every build has them.
    if packable and hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    columns = weight.t().contiguous()
    if bias is None:
        return lambda x: x @ columns
    return lambda x: torch.addmm(bias, x, columns)


class SelfFeedingLstm:
    """Weights of an `nn.LSTM` with its own previous output among its inputs, ready to be stepped.

    `fed_at` is the input column at which the output of `head` begins; the other columns are given.
    Without a head (None) nothing is fed back. Dropout between the layers is for training only.
    """

    def __init__(
        self, rnn: nn.LSTM, head: nn.Linear | None, fed_at: int, precision: Precision = "float32"
    ) -> None:
        self.size, self.layers = rnn.hidden_size, rnn.num_layers
        weights = rnn.all_weights
        order = _gate_order(self.size).to(weights[0][0].device)
        layers = [[tensor.detach()[order] for tensor in layer] for layer in weights]
        inputs, _, bias_i, bias_h = layers[0]
        dtype = inputs.dtype if precision == "float32" else torch.bfloat16
        self.fed = 0 if head is None else head.out_features
        fed = slice(fed_at, fed_at + self.fed)
        self.given = torch.cat([inputs[:, :fed_at], inputs[:, fed.stop :]], dim=1)
        self.bias = bias_i + bias_h
        joined = [torch.cat([inputs[:, fed], layers[0][1]], dim=1)]
        biases: list[Tensor | None] = [None]
        for weight_i, weight_h, bias_i, bias_h in layers[1:]:
            joined.append(torch.cat([weight_i, weight_h], dim=1))
            biases.append((bias_i + bias_h).to(dtype))
        self.steps = [
            product(weight.to(dtype), bias) for weight, bias in zip(joined, biases, strict=True)
        ]
        self.feed = None
        if head is not None:
            self.feed = product(head.weight.detach().to(dtype), head.bias.detach().to(dtype))
        self.dtype = dtype

    def project(self, inputs: Float[Tensor, "N T D"]) -> Float[Tensor, "T N G"]:
        """Part of layer 0 that the given inputs make, of all frames in one product."""
        return nn.functional.linear(inputs.transpose(0, 1), self.given, self.bias)

    def run(
        self, inputs: Float[Tensor, "N T D"], state: LstmState
    ) -> tuple[Float[Tensor, "N T H"], Float[Tensor, "N T F"], LstmState]:
        """Hidden vectors and fed-back outputs of every frame, and the state after the last.

        `state` is not changed.
        """
        people, frames, _ = inputs.shape
        hidden = inputs.new_empty(frames, people, self.size)
        outputs = inputs.new_empty(frames, people, self.fed)
        rows = self._rows(state)
        cells = list(state.cell.clone().unbind(0))
        size, fed = self.size, self.fed
        own = [row[:, row.shape[1] - size :] for row in rows]
        below = [row[:, :size] for row in rows[1:]]
        for t in range(frames):
            if t % BLOCK == 0:
                projected = self.project(inputs[:, t : t + BLOCK])
            for layer, (step, row, cell) in enumerate(zip(self.steps, rows, cells, strict=True)):
                gates = step(row)
                if layer == 0:
                    gates = projected[t % BLOCK].add(gates)
                elif self.dtype != cell.dtype:
                    gates = gates.to(cell.dtype)
                new = _cell(gates, cell, size)
                own[layer].copy_(new)
                if layer + 1 < self.layers:
                    below[layer].copy_(new)
            hidden[t] = new
            if self.feed is not None:
                outputs[t] = self.feed(own[-1].contiguous())
                rows[0][:, :fed] = outputs[t]
        after = LstmState(
            torch.stack([part.to(hidden.dtype) for part in own]),
            torch.stack(cells),
            rows[0][:, :fed].to(hidden.dtype, copy=True),
        )
        return hidden.transpose(0, 1), outputs.transpose(0, 1), after

    def _rows(self, state: LstmState) -> list[Tensor]:
        """Input of each layer's product: what is fed back or comes from below, then its own."""
        first = torch.cat([state.previous, state.hidden[0]], dim=1).to(self.dtype)
        rest = [
            torch.cat([state.hidden[layer - 1], state.hidden[layer]], dim=1).to(self.dtype)
            for layer in range(1, self.layers)
        ]
        return [first, *rest]


def _cell(
    gates: Float[Tensor, "N G"], cell: Float[Tensor, "N H"], size: int
) -> Float[Tensor, "N H"]:
    """New hidden vector of gates in the order input, forget, output, candidate; renews `cell`."""
    switches = gates[:, : 3 * size].sigmoid_()
    candidate = gates[:, 3 * size :].tanh_()
    cell.mul_(switches[:, size : 2 * size]).addcmul_(switches[:, :size], candidate)
    return torch.tanh(cell).mul_(switches[:, 2 * size :])


def _gate_order(size: int) -> Tensor:
    """Rows of torch's gates (input, forget, candidate, output) with the candidate last."""
    rows = torch.arange(4 * size).reshape(4, size)
    return rows[[0, 1, 3, 2]].flatten()
