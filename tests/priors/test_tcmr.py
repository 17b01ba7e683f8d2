"""TCMR against the official network, and a whole clip against the naive loop over its windows."""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from golden_files import Golden, filled_network

from priors import tcmr
from priors.checkpoints import CheckpointError, save_weights


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("tcmr")


@pytest.fixture(scope="module")
def network(golden: Golden) -> tcmr.TCMR:
    """The golden weights, and the mean pose and camera that make them well conditioned."""
    network = filled_network(golden, tcmr.TCMR()).requires_grad_(False)
    regressor = network.regressor
    regressor.init_pose += torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(24)
    regressor.init_cam += torch.tensor([0.9, 0, 0])
    return network


def test_shapes_without_making_a_network(golden: Golden):
    shapes = tcmr.state_shapes()
    assert len(shapes) == 59
    buffers = 144 + 10 + 3  # the mean the regressor starts from
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert count == golden.facts["n_parameters"] + buffers


def test_encoder(golden: Golden, network: tcmr.TCMR):
    before, current, after = network.encoder.recurrent(golden["in_features"])
    golden.check("gru_bef_last", before)
    golden.check("gru_cur_mid", current)
    golden.check("gru_aft_last", after)
    features, scores = network.encoder.integrate(before, current, after)
    golden.check("feature", features[:, 2])
    golden.check("feature_train", features)
    golden.check("scores", scores)
    golden.check("scores_train", scores)


def test_regressor(golden: Golden, network: tcmr.TCMR):
    found = network.regressor.iterations(golden["out_feature"])
    for number, (pose, shape, camera) in enumerate(found, start=1):
        golden.check(f"iter{number}_pose6d", pose)
        golden.check(f"iter{number}_shape", shape)
        golden.check(f"iter{number}_cam", camera)


def test_whole(golden: Golden, network: tcmr.TCMR):
    estimate = network(golden["in_features"])
    golden.check("rotmat", estimate.rotations)
    check_theta(golden, "theta", estimate)
    check_theta(golden, "theta_train", network.training_outputs(golden["in_features"]))


def check_theta(golden: Golden, name: str, estimate: tcmr.Estimate):
    """Camera and shape as numbers; rotation vectors as matrices: at pi the axis has no sign."""
    ours, theirs = estimate.theta(), golden[f"out_{name}"]
    golden.arrays["out_linear"] = torch.cat([theirs[..., :3], theirs[..., 75:]], dim=-1)
    golden.facts["max_abs"]["linear"] = golden.facts["max_abs"][name]
    golden.check("linear", torch.cat([ours[..., :3], ours[..., 75:]], dim=-1))
    turns = [roma.rotvec_to_rotmat(t[..., 3:75].unflatten(-1, (24, 3))) for t in (ours, theirs)]
    torch.testing.assert_close(*turns, rtol=0, atol=golden.tolerance(name))


def test_projection(golden: Golden):
    """float32 arithmetic on numbers up to the size of the points in the crop."""
    points = tcmr.project_to_crop(golden["in_proj_joints"], golden["in_proj_cam"])
    torch.testing.assert_close(points, golden["out_proj_kp2d"], rtol=1e-5, atol=1e-5)


def test_demo_windows(golden: Golden):
    ours = tcmr.windows(40, "demo")
    first_last = golden["demo_windows_n40"] % 40
    assert torch.equal(ours[:, [0, -1]], first_last)
    steps = ours[:, 1:] - ours[:, :-1]
    assert torch.equal(steps, (first_last[:, :1] != first_last[:, 1:]).long().expand(-1, 15))


def test_held_windows_keep_the_frames_there_are():
    ours = tcmr.windows(40)
    assert torch.equal(ours[8:33], tcmr.windows(40, "demo")[8:33])
    assert torch.equal(ours[:, 8], torch.arange(40))
    assert ours[2].tolist() == [0, 0, 0, 0, 0, 0, 0, *range(1, 10)]
    assert ours[39].tolist() == [*range(31, 40), 39, 39, 39, 39, 39, 39, 39]
    assert tcmr.windows(1).tolist() == [[0] * 16]


@pytest.mark.parametrize("ends", ["held", "demo"])
def test_a_clip_is_its_windows(network: tcmr.TCMR, ends, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tcmr, "WINDOWS_PER_BATCH", 7)  # more than one batch, the last one shorter
    features = torch.rand(19, 2048, generator=torch.Generator().manual_seed(0))
    ours = network.clip(features, ends)
    naive = network(features[tcmr.windows(19, ends)])
    torch.testing.assert_close(ours.rotations, naive.rotations, rtol=0, atol=2e-5)
    torch.testing.assert_close(ours.camera, naive.camera, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.betas, naive.betas, rtol=0, atol=1e-5)


@pytest.mark.slow  # 330 MB to disk and back
def test_weights_file(tmp_path: Path, network: tcmr.TCMR, golden: Golden):
    path = tmp_path / "tcmr.safetensors"
    save_weights(path, dict(network.state_dict()), {})
    loaded = tcmr.load_tcmr(path)
    assert not loaded.training
    golden.check("rotmat", loaded(golden["in_features"]).rotations)


def test_other_weights_are_refused(tmp_path: Path):
    save_weights(tmp_path / "x.safetensors", {"encoder.linear_cur.bias": torch.zeros(2048)}, {})
    with pytest.raises(CheckpointError, match="is missing"):
        tcmr.load_tcmr(tmp_path / "x.safetensors")
