"""Distance of a result's joints from joints that were triangulated in calibrated views.

    python -m slamhmr.bench.triangulated RESULT CAMERAS TRIANGULATED

RESULT: result.npz. CAMERAS: cameras.npz of its main view, in the calibrated world, metres.
TRIANGULATED: an npz with `p0_X` (T, 33, 3), BlazePose's joints in that world, NaN where there are
none. Printed are medians over frames and joints, cm: in the calibrated world as it is (`absolute`),
with each frame's hips at one place (`hips`), and after one similarity of all frames (`aligned`),
with its scale. Only arms, legs, shoulders and hips are compared; BlazePose's hips lie some 3 cm
from SMPL's.
"""

import sys
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.artifacts import load, read_arrays
from slamhmr.geometry import apply, invert, similarity_between
from slamhmr.skeleton import SMPL_JOINTS
from slamhmr.slam.file import read_cameras
from slamhmr.types import Result

PAIRS = (
    ("left_shoulder", 11), ("right_shoulder", 12), ("left_elbow", 13), ("right_elbow", 14),
    ("left_wrist", 15), ("right_wrist", 16), ("left_hip", 23), ("right_hip", 24),
    ("left_knee", 25), ("right_knee", 26), ("left_ankle", 27), ("right_ankle", 28),
)  # fmt: skip
HIPS = [6, 7]  # among PAIRS


def compare(
    result: Result, cameras: Float[Tensor, "T 4 4"], joints: Float[Tensor, "T 33 3"]
) -> dict[str, float]:
    """Medians over frames and joints, cm, of the person who is nearest; and the scale."""
    moved = (cameras @ invert(result.world_from_cam)).expand(len(result.joints), -1, -1, -1)
    world = apply(moved, result.joints)
    own = world[:, :, [SMPL_JOINTS.index(name) for name, _ in PAIRS]]
    wanted = joints[:, [number for _, number in PAIRS]]
    known = torch.isfinite(wanted).all(dim=-1).all(dim=-1)
    off = (own - wanted).norm(dim=-1)[:, known]  # (N, T, J)
    row = int(off.flatten(1).median(dim=1).values.argmin())
    mine, theirs = own[row, known], wanted[known]
    scale, turn, shift = similarity_between(mine.flatten(0, 1), theirs.flatten(0, 1))
    fitted = scale * mine @ turn.T + shift
    centred = [x - x[:, HIPS].mean(dim=1, keepdim=True) for x in (mine, theirs)]
    return {
        "person": float(result.person_id[row]),
        "frames": float(known.sum()),
        "absolute": 100 * float(off[row].median()),
        "hips": 100 * float((centred[0] - centred[1]).norm(dim=-1).median()),
        "aligned": 100 * float((fitted - theirs).norm(dim=-1).median()),
        "scale": float(scale),
    }


def main(words: list[str]) -> None:
    """Print the distances."""
    result = load(Path(words[0]), Result)
    cameras = read_cameras(Path(words[1]), frame_count=len(result.world_from_cam))
    found = torch.from_numpy(read_arrays(Path(words[2]))["p0_X"]).double()
    told = compare(result, cameras.world_from_cam, found)
    sys.stdout.write("  ".join(f"{name} {value:.4g}" for name, value in told.items()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
