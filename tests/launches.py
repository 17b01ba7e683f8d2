"""What a GPU would be asked to do, counted on the processor: launches, waits, stray tensors."""

import traceback
from collections import Counter
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import slamhmr

ROOT, PACKAGES = Path(slamhmr.__file__).parents[1], ("slamhmr", "priors")  # installed or not
# Nothing is launched for these: other views of the same numbers, or memory without numbers.
FREE = {
    "view", "_unsafe_view", "reshape", "_reshape_alias", "slice", "select", "transpose", "permute",
    "expand", "unsqueeze", "squeeze", "detach", "alias", "t", "as_strided", "diagonal", "split",
    "split_with_sizes", "unbind", "narrow", "unfold", "empty", "empty_like", "new_empty",
    "new_empty_strided", "empty_strided", "lift_fresh", "resize_", "resize_output_", "movedim",
}  # fmt: skip
# The processor must wait for the GPU: it needs a number, or a size that depends on numbers.
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "_unique",
    "is_nonzero", "equal", "unique_consecutive",
}  # fmt: skip
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # waits where an index is a mask
FACTORIES = (
    torch.zeros, torch.ones, torch.full, torch.empty, torch.eye, torch.arange, torch.linspace,
    torch.tensor, torch.as_tensor, torch.rand, torch.randn, torch.scalar_tensor, torch.from_numpy,
    torch.tril_indices, torch.triu_indices,
)  # fmt: skip

# To the processor: it waits for them too, and they show as no operation of their own.
COPIES = (torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.__array__)


class Launches(TorchDispatchMode):
    """Counts what would be launched, and where the processor would wait."""

    def __init__(self):
        super().__init__()
        self.launches, self.waits = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if name not in FREE:
            self.launches[name] += 1
        masks = name in MASKED and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITS or masks:
            self.waits[f"{name} at {where()}"] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self):
        return sum(self.launches.values())


class StrayTensors(TorchFunctionMode):
    """Where tensors are made on no device in particular, and where they are copied home."""

    def __init__(self):
        super().__init__()
        self.found, self.copies = Counter(), Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in COPIES:
            self.copies[f"{func.__name__} at {where()}"] += 1
        if func in FACTORIES and (kwargs or {}).get("device") is None:
            self.found[f"{func.__name__} at {where()}"] += 1
        return func(*args, **(kwargs or {}))


def where():
    """Innermost line of the package, or of the priors, that is being run."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
        if inside:
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return "nowhere"
