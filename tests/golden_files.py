"""The golden files of the official networks: arrays, tolerances, and weights made by the filler."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filler import check_sums, fill_module
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """Arrays and facts of one official network.

    The tolerance of an output is ten times what float32 cost the official network, plus 1e-6.
    """

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.facts: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def tolerance(self, output: str) -> float:
        return 10 * float(self.facts["max_abs"][output]) + 1e-6

    def check(self, output: str, ours: Tensor) -> None:
        """Fail unless `ours` has the shape and, within the tolerance, the values of `output`."""
        theirs = self[f"out_{output}"].to(ours)
        torch.testing.assert_close(
            ours, theirs, rtol=0, atol=self.tolerance(output), msg=lambda m: f"{output}: {m}"
        )

    def check_state(self, network: nn.Module) -> None:
        """Fail unless the filled network has exactly the official names, shapes and values."""
        state = network.state_dict()
        filled = self.facts["filled"]
        assert set(state) == set(filled) | set(self.facts["not_filled"])
        for name, (shape, _, *sums) in filled.items():
            assert list(state[name].shape) == shape, name
            np.testing.assert_allclose(check_sums(state[name]), sums, rtol=1e-9, err_msg=name)


def filled_network(golden: Golden, network: nn.Module) -> nn.Module:
    """The network with the golden weights, checked."""
    fill_module(network)
    golden.check_state(network)
    return network
