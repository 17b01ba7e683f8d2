"""Weights of the golden files, made from each tensor's name and shape; none are stored.

The rule is that of the golden data: standard normal numbers seeded by the CRC of the name, scaled
by the kind of the entry. `norm` names the layers (prefix of their weight) that normalise.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def filled(name: str, shape: Sequence[int], *, norm: bool = False) -> Tensor:
    """float32 value of one floating-point state-dict entry; `norm`: weight of a norm layer."""
    seed = zlib.crc32(name.encode("utf-8"))
    n = np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(shape))
    if name.endswith(".running_var"):
        value = np.abs(n) + 0.5
    elif norm:
        value = 1 + 0.1 * n
    elif len(shape) == 1:
        value = 0.1 * n
    else:
        value = n / np.sqrt(max(int(np.prod(shape[1:])), 1))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def norm_weights(module: torch.nn.Module) -> set[str]:
    """State-dict names of the weights of a module's normalisation layers."""
    kinds = (
        torch.nn.modules.batchnorm._NormBase,
        torch.nn.LayerNorm,
        torch.nn.GroupNorm,
    )
    return {
        f"{name}.weight".lstrip(".")
        for name, part in module.named_modules()
        if isinstance(part, kinds)
    }


def fill_module(module: torch.nn.Module) -> torch.nn.Module:
    """`module` in eval mode, every floating-point entry of its state dict filled, strictly."""
    norms = norm_weights(module)
    state = {
        name: filled(name, value.shape, norm=name in norms) if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state, strict=True)
    return module.eval()


def filled_state(entries: Iterable[Mapping[str, object]]) -> dict[str, Tensor]:
    """State dict of a manifest's `state_dict` list; integer entries are left out."""
    out = {}
    for entry in entries:
        if entry["filled"]:
            name, shape = str(entry["name"]), entry["shape"]
            assert isinstance(shape, list)
            out[name] = filled(name, shape, norm=str(entry["rule"]).startswith("1+"))
    return out


def check_sums(value: Tensor) -> tuple[float, float, float]:
    """Sum in float64, first and last element in C order: the manifest's three checks."""
    flat = value.double().flatten()
    return float(flat.sum()), float(flat[0]), float(flat[-1])
