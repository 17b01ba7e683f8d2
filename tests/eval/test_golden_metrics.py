"""The golden values of published metrics that `test_metrics.py` leaves: alignments, variants.

From WHAM's lib/eval at 2b54f77 and SLAHMR at 58518fe in float32, on synthetic joints.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from slamhmr.eval import metrics, published
from slamhmr.geometry import similarity_between

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
LSP_ROOT = (2, 3)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for name in ("metrics.npz", "metrics_more.npz"):
        with np.load(GOLDEN / name) as arrays:
            values |= {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return {key: v.double() if v.is_floating_point() else v for key, v in values.items()}


def close(ours: Tensor, theirs: Tensor, relative: float = 1e-4) -> None:
    scale = float(theirs.abs().mean())
    torch.testing.assert_close(ours, theirs, rtol=relative, atol=relative * scale)


def both(golden: dict[str, Tensor], joints: int) -> tuple[Tensor, Tensor]:
    return golden["in_pred_joints"][:, :joints], golden["in_gt_joints"][:, :joints]


@pytest.mark.parametrize(
    ("name", "joints", "root"), [("smpl24", 24, (1, 2)), ("h36m14", 14, (2, 3))]
)
def test_wham_accel(golden, name, joints, root):
    """As printed in WHAM's tables; ours keeps the frames at the ends, the frame rate, the root."""
    predicted, truth = both(golden, joints)
    theirs = golden[f"out_{name}_accel_eval_m_per_s2"]
    close(published.wham_accel_m_per_s2(predicted, truth, root), theirs)
    still = torch.zeros_like(truth)
    centred = metrics.align_root(predicted, predicted, root)
    alone = metrics.accel_m_per_s2(centred, still, fps=1.0)
    close(alone, golden[f"out_{name}_accel_pred_per_frame2"])


def test_accel_over_visible_frames(golden):
    ours = published.vibe_accel_mm_per_frame2(*both(golden, 24), golden["in_vis"])
    close(ours / 1000, golden["out_accel_err_vis"])


def test_slahmr_accel(golden):
    ours = published.slahmr_accel_m_per_frame2(*both(golden, 24))
    assert ours == pytest.approx(float(golden["out_slahmr_acc_norm"]), rel=1e-5)


def test_pve_of_fourteen_joints(golden):
    sides = golden["in_pred_verts"], golden["in_gt_verts"]  # of the first frames
    count = len(sides[0])
    joints = [side[:count] for side in both(golden, 14)]
    ours = metrics.pve_mm(*sides, *joints, LSP_ROOT)
    close(ours, golden["out_h36m14_pve_mm"][:count])


def test_procrustes_of_each_frame(golden):
    predicted, truth = both(golden, 14)
    centred = [metrics.align_root(points, points, LSP_ROOT) for points in (predicted, truth)]
    close(metrics.align_each_frame(*centred), golden["out_h36m14_S1_hat"])
    centred = [metrics.align_root(points, points, (1, 2)) for points in both(golden, 24)]
    close(metrics.align_each_frame(*centred)[::10], golden["out_smpl24_S1_hat"])
    whole = metrics.align_each_frame(*both(golden, 24))
    close(whole[:, :4], golden["out_local_aligned"])


def test_mirrored_points_are_turned_not_reflected(golden):
    ours = metrics.align_each_frame(golden["in_reflected"], golden["in_gt_joints"][:20, :14])
    for name in ("reflect_numpy_S1_hat", "local_align_reflect"):
        close(ours, golden[f"out_{name}"])


def test_alignment_of_a_path(golden):
    predicted, truth = (side[:, 0] for side in both(golden, 24))
    for name, with_scale in (("pcl", True), ("pcl_fixed", False)):
        found = similarity_between(predicted[None], truth[None], with_scale=with_scale)
        for letter, ours in zip("sRt", found, strict=True):
            theirs = golden[f"out_align_{name}_{letter}"].reshape(ours.shape)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "align"), [("w", metrics.align_first_two_frames), ("wa", metrics.align_sequence)]
)
def test_chunks_are_aligned_one_by_one(golden, name, align):
    predicted, truth = (torch.split(side, 100) for side in both(golden, 24))
    ours = torch.cat([align(p, t) for p, t in zip(predicted, truth, strict=True)])
    close(ours[:, :4], golden[f"out_{name}_aligned"])


def test_rte_is_a_percentage(golden):
    predicted, truth = (side[:, 0] for side in both(golden, 24))
    close(metrics.rte_percent(predicted, truth) / 100, golden["out_rte_fraction"])
