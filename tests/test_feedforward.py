"""`slamhmr init` on a scene without pixels: the contract of its files, and what runs again."""

import json
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from scenes import BODY, write_synthetic

from slamhmr import cli, feedforward
from slamhmr.body import forward_points, pelvis_from_transl
from slamhmr.config import load_config
from slamhmr.errors import InputError, MissingAsset
from slamhmr.eval.protocols import evaluate
from slamhmr.feedforward import FOLDER, feed_forward
from slamhmr.synth.scene import SceneSpec

SPEC = SceneSpec(seed=12, frames=50, people=2, motion="walk", camera="orbit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sequence")
    write_synthetic(folder, SPEC)
    assert cli.main(["init", "--seq", str(folder)]) == 0
    return folder


def test_the_files_are_those_of_a_solve(folder: Path) -> None:
    run = folder / FOLDER
    names = {path.name for path in run.iterdir()}
    assert {
        "result.npz", "report.json", "report.html", "config.yaml", "log.txt",
        "1_observations.npz", "2_cameras.npz", "3_initial.npz",
    } <= names  # fmt: skip
    report = json.loads((run / "report.json").read_text())
    assert report["stages"] == []


def test_the_result_is_near_the_truth_and_keeps_its_promise(folder: Path) -> None:
    """The contract of `optimize`, without a posterior; joints are those of its parameters."""
    with np.load(folder / FOLDER / "result.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["person_id"].tolist() == [1, 2]
    assert arrays["joints"].shape == (2, 50, 24, 3)
    assert np.isnan(arrays["scale_std"])
    assert not {"joints_cov", "ground_cov", "betas_cov"} & set(arrays)
    for name in ("root_orient", "transl", "body_pose", "betas", "contacts", "world_from_cam"):
        assert np.isfinite(arrays[name]).all(), name
    shape, root, pose, transl = (
        torch.from_numpy(arrays[name]).double()
        for name in ("betas", "root_orient", "body_pose", "transl")
    )
    points, _ = forward_points(
        BODY, shape, roma.rotvec_to_rotmat(root), pelvis_from_transl(BODY, shape, transl),
        roma.rotvec_to_rotmat(pose.unflatten(-1, (21, 3))),
    )  # fmt: skip
    np.testing.assert_allclose(points[:, :, :24].numpy(), arrays["joints"], atol=1e-4)
    np.testing.assert_allclose(arrays["world_from_cam"][0, :2, 3], 0, atol=1e-6)
    found = evaluate(folder / FOLDER / "result.npz", folder / "truth.npz")
    assert found["overall"]["pa_mpjpe_mm"] < 90
    assert found["overall"]["wa_mpjpe100_mm"] < 400
    assert found["gravity_error_deg"] < 6


def test_a_second_run_computes_nothing(folder: Path, monkeypatch) -> None:
    before = (folder / FOLDER / "result.npz").read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(feedforward, "build_result", refuse)
    monkeypatch.setattr("slamhmr.init.lift.initialise", refuse)
    outcome = feed_forward(folder, load_config())
    assert (folder / FOLDER / "result.npz").read_bytes() == before
    assert outcome.result.joints.shape == (2, 50, 24, 3)
    with pytest.raises(AssertionError, match="computed again"):
        feed_forward(folder, load_config(), overwrite=True, out=folder / "anew")


def test_settings_of_the_lifter_are_taken(folder: Path) -> None:
    config = load_config([], ["init=lift", "options.lift.weights=nowhere.safetensors"])
    with pytest.raises(MissingAsset, match=r"nowhere\.safetensors"):
        feed_forward(folder, config, out=folder / "other")
    assert not (folder / "other" / "result.npz").exists()


def test_a_folder_that_is_no_sequence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        feed_forward(tmp_path / "none", load_config())
    assert cli.main(["init", "--seq", str(tmp_path / "none")]) != 0
