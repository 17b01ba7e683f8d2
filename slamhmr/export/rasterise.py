"""The nearest triangle of every pixel by pytorch3d's rasteriser, on a GPU or the processor.

Its picture plane: x to the left, y up, the shorter side of the image from -1 to 1, the longer one
beyond by the ratio of the sides; depth is the distance along the camera's axis. Source:
facebookresearch/pytorch3d V0.7.8, `pytorch3d/renderer/mesh/rasterize_meshes.py` and
`docs/notes/cameras.md`; written against that signature, tested against a fake that enforces it.
"""

import numpy as np
import torch

from slamhmr.components import Lack, lacking_package, own_install

VERSIONS = ">=0.7.4,<0.8"
GET = own_install("pytorch3d", flags="--no-build-isolation")


def lacking(renderer: str) -> list[Lack]:
    """What `overlay.renderer` lacks: nothing, but for pytorch3d by name."""
    if renderer != "pytorch3d":
        return []
    return lacking_package("pytorch3d", GET, version=VERSIONS)


def chosen(renderer: str, device: torch.device) -> str:
    """The renderer of a run; "auto": pytorch3d where it is installed and the run has a GPU."""
    if renderer != "auto":
        return renderer
    here = device.type == "cuda" and len(lacking("pytorch3d")) == 0
    return "pytorch3d" if here else "opencv"


def nearest_faces(
    corners: np.ndarray, depths: np.ndarray, size: tuple[int, int], device: torch.device
) -> np.ndarray:
    """Index of the nearest triangle (H, W) at every pixel centre, -1 where there is none.

    `corners` (M, 3, 2) px, top-left pixel centre (0.5, 0.5); `depths` (M, 3), m, above 0; `size`
    is width, height. All triangles count, whichever way they turn.
    """
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    width, height = size
    if len(corners) == 0:
        return np.full((height, width), -1, dtype=np.int64)
    half = np.float32(min(width, height) / 2)
    middle = np.array([width / 2, height / 2], dtype=np.float32)
    plane = (middle - corners.astype(np.float32)) / half
    points = np.concatenate([plane, depths[..., None].astype(np.float32)], axis=-1)
    count = len(corners)
    meshes = Meshes(
        verts=[torch.from_numpy(points.reshape(-1, 3)).to(device)],
        faces=[torch.arange(3 * count, device=device).reshape(count, 3)],
    )
    nearest, _, _, _ = rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        max_faces_per_bin=count,  # somebody far away has all triangles in one bin
        perspective_correct=True,
    )
    return nearest[0, ..., 0].cpu().numpy()
