"""Random linear least squares on chains with a border, in windows and as one dense matrix."""

from dataclasses import dataclass, field

import torch

from slamhmr.solve.problem import BorderResidual, ChainShape, FeatureGroup, Residual, Window

ELEMENT = torch.zeros(1, dtype=torch.int64)


@dataclass
class LinearProblem:
    """r = J x - b: every frame's residual touches up to three frames and the chain's border."""

    lengths: list[int]
    size: int = 5
    shared: int = 2
    own: int = 3
    seed: int = 0
    parts: list[dict] = field(init=False)

    def __post_init__(self):
        generator = torch.Generator().manual_seed(self.seed)

        def random(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        rows, self.chains, self.parts = self.size + 2, [], []
        for index, length in enumerate(self.lengths):
            first = self.shared + self.own * index
            columns = [*range(self.shared), *range(first, first + self.own)]
            self.chains.append(ChainShape(length, self.size, torch.tensor(columns).long()))
            self.parts.append(
                {
                    "rows": random(3, length, 1, rows, self.size),
                    "border": random(length, 1, rows, len(columns)),
                    "value": random(length, 1, rows),
                    "local": random(length, 1, rows, 2),
                }
            )
        self.border_count = self.shared + self.own * len(self.lengths)

    def value(self, state, chain):
        steps, border = state
        part, length = self.parts[chain], self.lengths[chain]
        value = part["value"].clone()
        for i in range(3):
            moved = (part["rows"][i, : length - i] @ steps[chain][i:, None, :, None])[..., 0]
            value[: length - i] += moved
        return value + part["border"] @ border[self.chains[chain].border_columns]

    def start(self):
        steps = [torch.zeros(n, self.size, dtype=torch.float64) for n in self.lengths]
        return steps, torch.zeros(self.border_count, dtype=torch.float64)

    def window(self, state, chain, start, stop, *, derivatives):
        span = slice(start, min(stop + 2, self.lengths[chain]))
        part = self.parts[chain]
        ones = torch.ones(self.lengths[chain], 1, dtype=torch.float64)
        residual = Residual(
            "r", "x", ELEMENT, self.value(state, chain)[span], ones[span],
            part["rows"][:, span], None, part["border"][span],
            slice(0, self.shared + self.own),
        )  # fmt: skip
        return Window(start, stop, {"x": FeatureGroup(1, self.size)}, [residual])

    def border(self, state):
        border = state[1]
        return [BorderResidual("b", border, 1.0, torch.eye(len(border), dtype=torch.float64))]

    def retract(self, state, step):
        return [a + b for a, b in zip(state[0], step.chains, strict=True)], state[1] + step.border

    def dense(self):
        """Jacobian and value of everything: chains one after another, then the border."""
        total = sum(self.lengths) * self.size
        blocks, values, offset = [], [], 0
        for part, length, shape in zip(self.parts, self.lengths, self.chains, strict=True):
            for t in range(length):
                block = torch.zeros(self.size + 2, total + self.border_count, dtype=torch.float64)
                for i in range(min(3, length - t)):
                    first = offset + (t + i) * self.size
                    block[:, first : first + self.size] = part["rows"][i, t, 0]
                block[:, total + shape.border_columns] = part["border"][t, 0]
                blocks.append(block)
                values.append(part["value"][t, 0])
            offset += length * self.size
        eye = torch.zeros(self.border_count, total + self.border_count, dtype=torch.float64)
        eye[:, total:] = torch.eye(self.border_count, dtype=torch.float64)
        zeros = torch.zeros(self.border_count, dtype=torch.float64)
        return torch.cat([*blocks, eye]), torch.cat([*values, zeros])


def flat(step):
    return torch.cat([*[c.reshape(-1) for c in step.chains], step.border])
