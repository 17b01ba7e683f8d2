"""Metrics against WHAM's own values (tests/golden/metrics.npz) and against hand-computed cases.

The golden arrays come from WHAM's lib/eval/eval_utils.py at commit 2b54f77 in float32, on
synthetic joints.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from slamhmr.eval import metrics

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics.npz"
SMPL_ROOT, LSP_ROOT = (1, 2), (2, 3)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {
        name: value.double() if value.is_floating_point() else value
        for name, value in values.items()
    }


def close(ours: torch.Tensor, theirs: torch.Tensor, relative: float = 2e-5) -> None:
    scale = float(theirs.abs().mean())
    torch.testing.assert_close(ours, theirs, rtol=relative, atol=relative * scale)


def walk(frames: int = 250, joints: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = torch.randn(joints, 3, generator=generator, dtype=torch.float64)
    path = torch.randn(frames, 1, 3, generator=generator, dtype=torch.float64).cumsum(dim=0) * 0.05
    return shape + path + 0.05 * torch.randn(frames, joints, 3, generator=generator).double()


def turned(points: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    rotation = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64))
    return scale * points @ rotation.T + torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)


class TestGolden:
    @pytest.mark.parametrize(
        ("name", "count", "root"), [("smpl24", 24, SMPL_ROOT), ("h36m14", 14, LSP_ROOT)]
    )
    def test_camera_metrics(self, golden, name, count, root) -> None:
        predicted = golden["in_pred_joints"][:, :count]
        truth = golden["in_gt_joints"][:, :count]
        close(metrics.mpjpe_mm(predicted, truth, root), golden[f"out_{name}_mpjpe_mm"])
        close(metrics.pa_mpjpe_mm(predicted, truth), golden[f"out_{name}_pa_mpjpe_mm"], 1e-4)
        centred = [metrics.align_root(points, points, root) for points in (predicted, truth)]
        accel = metrics.accel_m_per_s2(*centred, fps=30.0)
        close(accel[1:-1], golden[f"out_{name}_accel_eval_m_per_s2"], 1e-4)
        close(accel / 900, golden[f"out_{name}_accel_err_per_frame2_m"], 1e-4)

    def test_vertices(self, golden) -> None:
        joints = [golden[f"in_{side}_joints"][:40] for side in ("pred", "gt")]
        ours = metrics.pve_mm(golden["in_pred_verts"], golden["in_gt_verts"], *joints, SMPL_ROOT)
        close(ours, golden["out_smpl24_pve_mm"])

    def test_world_metrics(self, golden) -> None:
        predicted, truth = golden["in_pred_joints"], golden["in_gt_joints"]
        close(metrics.w_mpjpe100_mm(predicted, truth), golden["out_w_mpjpe100_mm"], 1e-4)
        close(metrics.wa_mpjpe100_mm(predicted, truth), golden["out_wa_mpjpe100_mm"], 1e-4)
        rte = metrics.rte_percent(predicted[:, 0], truth[:, 0])
        close(rte, golden["out_rte_percent"], 1e-4)
        close(metrics.jitter_10m_per_s3(predicted, fps=30.0), golden["out_jitter"], 1e-4)

    def test_foot_sliding(self, golden) -> None:
        predicted = golden["in_pred_feet_all"][golden["in_masks"]]
        truth = golden["in_gt_feet"][golden["in_masks"]]
        ours = metrics.foot_sliding_mm(predicted, truth, fps=30.0)
        close(ours, golden["out_foot_sliding_mm"], 1e-4)

    def test_a_mirror_image_is_never_aligned_by_a_reflection(self, golden) -> None:
        truth = golden["in_gt_joints"][:20, :14]
        ours = metrics.align_each_frame(golden["in_reflected"], truth)
        torch.testing.assert_close(ours, golden["out_reflect_pa_S1_hat"], atol=1e-5, rtol=1e-5)


class TestAlignment:
    @pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
    def test_a_similarity_is_forgiven_by_aligned_metrics_only(self, scale: float) -> None:
        truth = walk()
        predicted = turned(truth, scale)
        zero = torch.zeros(len(truth), dtype=torch.float64)
        for metric in (metrics.pa_mpjpe_mm, metrics.w_mpjpe100_mm, metrics.wa_mpjpe100_mm):
            torch.testing.assert_close(metric(predicted, truth), zero, atol=1e-6, rtol=0)
        assert float(metrics.mpjpe_mm(predicted, truth, SMPL_ROOT).mean()) > 100
        rte = float(metrics.rte_percent(predicted[:, 0], truth[:, 0]).mean())
        assert (rte < 1e-6) == (scale == 1.0)  # RTE forgives the place, not the size

    def test_relative_scale(self) -> None:
        assert metrics.relative_scale(turned(walk(), 0.8), walk()) == pytest.approx(0.8)
        assert metrics.relative_scale(torch.zeros(5, 3, 3).double(), walk(5, 3)) is None

    def test_drift_after_the_first_frames_shows_in_w_more_than_in_wa(self) -> None:
        truth = walk(100)
        drift = torch.linspace(0, 1, 100, dtype=torch.float64)[:, None, None] ** 2
        predicted = truth + drift * torch.tensor([1.0, 0, 0], dtype=torch.float64)
        w = float(metrics.w_mpjpe100_mm(predicted, truth).mean())
        assert w > 1.2 * float(metrics.wa_mpjpe100_mm(predicted, truth).mean())


class TestByHand:
    def test_mpjpe_of_a_shifted_joint(self) -> None:
        truth = torch.zeros(1, 4, 3, dtype=torch.float64)
        predicted = truth.clone()
        predicted[0, 3] = torch.tensor([0.03, 0.04, 0.0])
        error = metrics.mpjpe_mm(predicted, truth, (1, 2))
        assert float(error[0]) == pytest.approx(50 / 4)

    def test_accel_of_a_parabola(self) -> None:
        times = torch.arange(10, dtype=torch.float64) / 25
        truth = torch.zeros(10, 2, 3, dtype=torch.float64)
        predicted = truth.clone()
        predicted[:, 0, 2] = 0.5 * 9.81 * times**2  # one of two joints falls
        accel = metrics.accel_m_per_s2(predicted, truth, fps=25.0)
        torch.testing.assert_close(accel, torch.full((8,), 9.81 / 2, dtype=torch.float64))

    def test_jitter_of_a_cubic_does_not_depend_on_the_rate(self) -> None:
        for fps in (25.0, 60.0):
            times = torch.arange(20, dtype=torch.float64) / fps
            joints = torch.zeros(20, 1, 3, dtype=torch.float64)
            joints[:, 0, 0] = times**3  # third derivative 6 m/s^3
            jitter = metrics.jitter_10m_per_s3(joints, fps)
            torch.testing.assert_close(jitter, torch.full((17,), 0.6, dtype=torch.float64))

    def test_rte_of_a_path_twice_too_long(self) -> None:
        line = torch.zeros(101, 3, dtype=torch.float64)
        line[:, 0] = torch.linspace(0, 10, 101)
        rte = metrics.rte_percent(2 * line, line)
        # centred on each other, the ends are 5 m of 10 m apart; mean of |x - 5| over 101 points
        assert float(rte.amax()) == pytest.approx(50)
        expected = 100 * float((line[:, 0] - 5).abs().mean()) / 10
        assert float(rte.mean()) == pytest.approx(expected)

    def test_rte_needs_a_path(self) -> None:
        still = torch.zeros(10, 3, dtype=torch.float64)
        with pytest.raises(ValueError, match="no length"):
            metrics.rte_percent(still, still)

    def test_roe_forgives_one_constant_rotation(self) -> None:
        angles = torch.linspace(0, 2, 50, dtype=torch.float64)
        truth = roma.rotvec_to_rotmat(angles[:, None] * torch.tensor([0.0, 0, 1]).double())
        offset = roma.rotvec_to_rotmat(torch.tensor([0.4, 0.2, -0.9], dtype=torch.float64))
        assert float(metrics.roe_deg(offset @ truth, truth).max()) < 1e-5
        half = truth.clone()
        half[25:] = half[25:] @ roma.rotvec_to_rotmat(torch.tensor([0.0, 0, 0.2]).double())
        expected = torch.full((50,), math.degrees(0.1), dtype=torch.float64)
        torch.testing.assert_close(metrics.roe_deg(half, truth), expected)

    def test_erve_is_blind_to_the_heading(self) -> None:
        path = torch.zeros(11, 3, dtype=torch.float64)
        path[:, 0] = torch.arange(11, dtype=torch.float64) * 0.05
        eye = torch.eye(3, dtype=torch.float64).expand(11, 3, 3)
        turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0, 1.0], dtype=torch.float64))
        same = metrics.erve_mm_per_frame(path @ turn.T, path, turn @ eye, eye, fps=30.0)
        assert float(same.max()) == pytest.approx(0, abs=1e-9)
        slow = metrics.erve_mm_per_frame(0.8 * path, path, eye, eye, fps=60.0)
        torch.testing.assert_close(slow, torch.full((10,), 0.2 * 50 * 2, dtype=torch.float64))

    def test_foot_sliding_counts_planted_points_only(self) -> None:
        truth = torch.zeros(3, 2, 3, dtype=torch.float64)
        truth[:, 1, 0] = torch.tensor([0.0, 0.1, 0.2])  # the second foot swings at 3 m/s
        predicted = truth.clone()
        predicted[2, :, 1] = 0.004
        sliding = metrics.foot_sliding_mm(predicted, truth, fps=30.0)
        torch.testing.assert_close(sliding, torch.tensor([0.0, 4.0], dtype=torch.float64))

    def test_a_single_frame_left_over_is_aligned_alone(self) -> None:
        truth = walk(101)
        torch.testing.assert_close(
            metrics.w_mpjpe100_mm(turned(truth), truth)[-1:],
            torch.zeros(1, dtype=torch.float64),
            atol=1e-6,
            rtol=0,
        )

    def test_scale_error(self) -> None:
        assert metrics.scale_error(0.9, 1.2) == pytest.approx(0.25)
        with pytest.raises(ValueError, match="positive"):
            metrics.scale_error(0.0, 1.0)
