"""Start from GVHMR's `hmr4d_results.pt` (Shen et al. 2024): one person, camera and world motion.

`smpl_params_incam` and `smpl_params_global` are SMPL-X: `body_pose` (L,63), `global_orient` and
`transl` (L,3), `betas` (L,10); the world is y up. `K_fullimg` (L,3,3) is a guess, f = sqrt(w^2 +
h^2). `net_outputs.static_conf_logits` (1,L,6) tells still joints. Every frame of the video is one
of 30 a second for the network, which its video copy states too, whatever the real rate.
Source: zju3dv/GVHMR@cb702cd tools/demo/demo.py, hmr4d/model/gvhmr/gvhmr_pl_demo.py; @a866a86
hmr4d/model/gvhmr/pipeline/gvhmr_pipeline.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slamhmr.body import BodyModel
from slamhmr.components import Lack, require
from slamhmr.errors import InputError
from slamhmr.init.formats import (
    as_rotations,
    contacts_of_static,
    lacking_output,
    own_betas,
    rate_doubt,
    rest_pelvis,
    root_velocity,
    to_our_picture,
    whole_clip,
)
from slamhmr.init.imported import Said, join_tracks
from slamhmr.init.matching import Track
from slamhmr.types import CameraTrack, Initial, Observations

FILES = ("hmr4d_results.pt",)  # looked for in the sequence directory
KEYS = ("global_orient", "body_pose", "betas", "transl")
MODEL = "smplx"


@dataclass(frozen=True)
class Options:
    """Settings of init `gvhmr`; the sigmas are assumed, the file states none."""

    path: str = ""  # unset: hmr4d_results.pt in the sequence directory
    first: int = 0  # frame of the file that is the first of the observations
    velocity_sigma: float = 0.2  # m/s per axis
    up_sigma: float = 0.1  # rad


def lacking(options: Options) -> list[Lack]:
    """The file, if it is not there."""
    return lacking_output("gvhmr", options.path, FILES[0], "GVHMR's tools/demo/demo.py")


def initialise(
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    options: Options,
    *,
    cuts: tuple[int, ...] = (),
) -> Initial:
    """Camera-space start with contacts, root velocities and the direction against gravity.

    Raises MissingAsset without the file, InputError if it does not fit.
    """
    require(lacking(options))
    path = Path(options.path).expanduser()
    content = _load(path)
    incam, world = (
        _params(content, key, path) for key in ("smpl_params_incam", "smpl_params_global")
    )
    count = len(incam["transl"])
    frames, inside = whole_clip(
        count, options.first, observations, path=path, option="options.gvhmr"
    )
    betas = torch.from_numpy(incam["betas"])
    rest = rest_pelvis(betas, body, MODEL)
    root = as_rotations(incam["global_orient"], 1, path=path, key="global_orient")[:, 0]
    world_root = as_rotations(world["global_orient"], 1, path=path, key="global_orient")[:, 0]
    walked = torch.from_numpy(world["transl"]) + rest_pelvis(
        torch.from_numpy(world["betas"]), body, MODEL
    )
    matrix = torch.from_numpy(_array(content.get("K_fullimg"), (count, 3, 3), "K_fullimg", path))[0]
    lens = torch.stack([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
    size = (2 * float(lens[2]), 2 * float(lens[3]))
    track = Track(
        name="0",
        frames=frames[inside],
        root=root[inside],
        pelvis=(torch.from_numpy(incam["transl"]) + rest)[inside],
        rotations=as_rotations(incam["body_pose"], 21, path=path, key="body_pose")[inside],
        betas=own_betas(betas, body, MODEL),
        intrinsics=to_our_picture(lens, size, observations.image_size, path),
        contacts=_contacts(content, count, inside, path),
        velocity=root_velocity(
            world_root[inside], walked[inside], frames[inside], observations.timestamps
        ),
        up=(root @ world_root.mT)[inside][:, :, 1],  # the world's y in the camera
    )
    doubt = rate_doubt(observations.fps)
    said = Said(options.velocity_sigma * doubt, options.up_sigma)
    same = body.name == MODEL
    return join_tracks(
        [track], observations, cameras, body, said, path=path, same_body=same, cuts=cuts
    )


def _load(path: Path) -> dict[str, Any]:
    """Content of the file, tensors and containers only: nothing in it is run."""
    from slamhmr.safe_pickle import DAMAGE

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as e:
        why = " ".join(str(e).split())[:200] or type(e).__name__
        raise InputError(f"'{path}' is no file of tensors that can be read safely: {why}") from e
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, not GVHMR's results")
    return content


def _params(content: dict[str, Any], key: str, path: Path) -> dict[str, NDArray[np.float64]]:
    found = content.get(key)
    if not isinstance(found, dict) or any(name not in found for name in KEYS):
        raise InputError(f"'{path}' lacks '{key}' with {', '.join(KEYS)}: no output of GVHMR")
    count = len(found["transl"])
    widths = {"global_orient": 3, "body_pose": 63, "betas": 10, "transl": 3}
    return {
        name: _array(found[name], (count, width), f"{key}.{name}", path)
        for name, width in widths.items()
    }


def _array(value: object, shape: tuple[int, ...], key: str, path: Path) -> NDArray[np.float64]:
    if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
        have = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f"'{path}': '{key}' is {have}, expected numbers of shape {shape}")
    numbers = value.detach().double().numpy()
    if not np.isfinite(numbers).all():
        raise InputError(f"'{path}': '{key}' holds NaN or infinity")
    return np.asarray(numbers)


def _contacts(
    content: dict[str, Any], count: int, inside: torch.Tensor, path: Path
) -> torch.Tensor | None:
    outputs = content.get("net_outputs")
    if not isinstance(outputs, dict) or "static_conf_logits" not in outputs:
        return None
    logits = _array(
        outputs["static_conf_logits"], (1, count, 6), "net_outputs.static_conf_logits", path
    )
    return contacts_of_static(logits, inside)
