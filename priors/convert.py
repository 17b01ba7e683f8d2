"""Official checkpoints to safetensors and a json card: strict names and shapes, no licensed bodies.

The official files also carry optimisers, scores and, some of them, the arrays of a licensed body
model; only the networks' own weights are kept, under the official names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priors import humor, tcmr, vposer, wham
from priors.checkpoints import (
    CheckpointError,
    check_shapes,
    file_sha256,
    read_torch_checkpoint,
    save_weights,
)
from priors.wham_body import contact_order

WRAPPERS = ("gen_state_dict", "model", "state_dict")  # keys that may hold the state dict
PREFIXES = ("module.", "vp_model.")  # of DataParallel and of VPoser's Lightning module
SUFFIXES = (".tar", ".pth", ".pt", ".ckpt", ".bin")
BODY_MODEL = "licensed body model"
HUMOR_BODIES = ("male_bm.", "female_bm.", "neutral_bm.")


@dataclass(frozen=True)
class Kind:
    """One network: how its names begin, what is left out, what must be there."""

    name: str
    mark: str  # a beginning that no other network's names have
    left_out: tuple[str, ...]  # beginnings of names that belong to a body model
    shapes: Callable[[], Mapping[str, tuple[int, ...]]]
    licence: str


MPG = "Max Planck, non-commercial research"
KINDS = (
    Kind("wham", "motion_encoder.", ("smpl.",), wham.state_shapes, "code: MIT"),
    Kind("tcmr", "encoder.gru_", ("regressor.smpl.",), tcmr.state_shapes, "its LICENSE.md"),
    Kind("humor", "prior_net.", HUMOR_BODIES, humor.state_shapes, "code: MIT"),
    Kind("vposer_v1", "bodyprior_", (), partial(vposer.state_shapes, "vposer_v1"), MPG),
    Kind(
        "vposer_v2", "encoder_net.", ("bm_train.",), partial(vposer.state_shapes, "vposer_v2"), MPG
    ),
)


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote and what it left out."""

    kind: str
    path: Path
    tensors: int
    left_out: tuple[str, ...]  # names of the body model's arrays

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.tensors} tensors -> {self.path}"]
        if len(self.left_out) > 0:
            names = ", ".join(self.left_out)
            lines.append(f"left out, {BODY_MODEL} arrays, get them from their site: {names}")
        return "\n".join(lines)


def convert(checkpoint: Path, out: Path | None = None) -> Conversion:
    """Write the network in an official checkpoint as safetensors, with a card beside it.

    `out` defaults to the checkpoint's own name. Raises CheckpointError for a file that is damaged,
    would run code, holds no known network, or holds one with a missing, unknown or misshapen entry.
    """
    path = out if out is not None else default_path(checkpoint)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"output '{path}' must end in .safetensors")
    if checkpoint.suffix == ".safetensors":
        raise CheckpointError(
            f"weights '{checkpoint}' are safetensors already; use them as they are"
        )
    kind, state = _recognised(read_torch_checkpoint(checkpoint), checkpoint)
    left_out = tuple(name for name in state if name.startswith(kind.left_out))
    tensors = {name: value for name, value in state.items() if name not in left_out}
    owner = f"checkpoint '{checkpoint}' ({kind.name})"
    _check_values(tensors, owner)
    check_shapes(tensors, kind.shapes(), owner)
    card = {
        "kind": kind.name,
        "source": checkpoint.name,
        "source_sha256": file_sha256(checkpoint),
        "licence": f"that of the source, {kind.name} ({kind.licence})",
        "left_out": {BODY_MODEL: list(left_out)},
        **_facts(state),
    }
    save_weights(path, {name: _stored(value) for name, value in tensors.items()}, card)
    return Conversion(kind.name, path, len(tensors), left_out)


def _facts(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the arrays that are left out say about the network: the order of WHAM's contacts."""
    feet, rest = state.get("smpl.J_regressor_feet"), state.get("smpl.v_template")
    if not isinstance(feet, Tensor) or not isinstance(rest, Tensor):
        return {}
    if feet.dim() != 2 or len(feet) != 4 or rest.shape != (feet.shape[1], 3):
        return {}
    order = contact_order(feet.double(), rest.double())
    return {"contact_order": list(order)} if len(order) > 0 else {}


def default_path(checkpoint: Path) -> Path:
    """The checkpoint's name with .safetensors for its own suffixes (.pth.tar, .pt, .ckpt ...)."""
    path = checkpoint
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors")


def _recognised(content: Any, path: Path) -> tuple[Kind, dict[str, Any]]:
    if not isinstance(content, dict):
        raise CheckpointError(
            f"checkpoint '{path}' holds a {type(content).__name__}, expected a state dict"
        )
    inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), dict)]
    for state in (*inner, content):
        bare = {_bare(str(name)): value for name, value in state.items()}
        for kind in KINDS:
            if any(name.startswith(kind.mark) for name in bare):
                return kind, bare
    names = ", ".join(repr(str(name)) for name in list((*inner, content)[0])[:4])
    known = ", ".join(kind.name for kind in KINDS)
    raise CheckpointError(
        f"checkpoint '{path}' is of no known network (its entries begin with {names}); "
        f"known: {known}"
    )


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _check_values(tensors: Mapping[str, Any], owner: str) -> None:
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{owner}: '{name}' is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise CheckpointError(f"{owner}: '{name}' is no plain tensor of real numbers")
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{owner}: '{name}' has values that are not finite")


def _stored(value: Tensor) -> Tensor:
    """float32 for weights of any precision; counters as they are."""
    return value.float() if value.is_floating_point() else value
