"""WHAM's network against the golden outputs of the official one, and against a naive twin."""

from dataclasses import fields, replace

import pytest
import torch
from wham_case import (
    crop,
    golden_clip,
    golden_network,
    golden_start,
    naive,
    network,
    random_case,
)

from priors.checkpoints import CheckpointError, save_weights
from priors.wham import Predictor, State, integrator_residual, load_wham, state_shapes

NAMES = {
    "keypoints": "pred_kp3d", "context": "motion_context", "root": "pred_root",
    "velocity": "pred_vel", "pose": "pred_pose", "betas": "pred_shape", "camera": "pred_cam",
    "contact": "pred_contact",
}  # fmt: skip


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(network())


def test_the_network_has_the_official_names_and_numbers():
    golden = golden_network()
    shapes = state_shapes()
    assert shapes == {name: tuple(entry[0]) for name, entry in golden.facts["filled"].items()}
    assert sum(value.numel() for value in network().state_dict().values()) == 42_034_668


def test_masked_keypoints_are_replaced_and_the_box_is_not():
    clip = golden_clip()
    unknown = clip.masked.repeat_interleave(2, dim=-1)
    holed = clip.keypoints.clone()
    holed[..., :34][unknown] = torch.nan
    golden_network().check("x_preprocessed", network().fill_masked(holed, clip.masked))


def test_initial_states_agree(predictor):
    state = predictor.init_state(golden_start())
    golden = golden_network()
    golden.check("enc_h0", state.encoder.hidden)
    golden.check("enc_c0", state.encoder.cell)
    golden.check("dec_h0", state.decoder.hidden)
    golden.check("dec_c0", state.decoder.cell)


@pytest.mark.parametrize("compat", ["corrected", "official"])
def test_every_output_agrees_with_the_official_network(predictor, compat):
    prediction = predictor.predict(golden_start(), golden_clip(), compat)
    for ours, theirs in NAMES.items():
        golden_network().check(theirs, getattr(prediction, ours))


def test_outputs_without_image_features_agree(predictor):
    prediction = predictor.predict(golden_start(), golden_clip(None))
    for ours in ("pose", "betas", "camera", "contact"):
        golden_network().check(f"{NAMES[ours]}_nofeat", getattr(prediction, ours))


def test_one_zero_in_the_features_removes_the_official_residual_only():
    features = golden_network()["in_img_features_with_zero"]
    context = golden_network()["out_motion_context"]
    official = network().integrator(context, features, integrator_residual(features, "official"))
    golden_network().check("integrated_context_with_zero", official)
    corrected = network().integrator(context, features, integrator_residual(features))
    torch.testing.assert_close(corrected - official, torch.stack([0 * context[0], context[1]]))


def test_frames_without_features_do_not_touch_the_residual_of_others():
    features = torch.ones(2, 5, 1024)
    features[1, 3] = 0.0
    expected = torch.ones(2, 5, dtype=torch.bool)
    expected[1, 3] = False
    assert torch.equal(integrator_residual(features), expected)
    expected[1] = False
    assert torch.equal(integrator_residual(features, "official"), expected)


@pytest.mark.parametrize("people", [1, 3])
def test_the_fast_path_equals_the_modules_stepped_one_by_one(predictor, people):
    start, clip = random_case(people, 12)
    prediction = predictor.predict(start, clip)
    for name, value in naive(network(), start, clip).items():
        torch.testing.assert_close(getattr(prediction, name), value, rtol=0, atol=5e-6, msg=name)


def test_the_fast_path_equals_the_modules_exactly_in_double_precision():
    """Products in column order instead of packed ones; no rounding to hide a mistake in."""
    double = Predictor(network().double())
    try:
        start, clip = random_case(2, 5)
        start = type(start)(*(value.double() for value in vars(start).values()))
        clip = replace(
            clip, keypoints=clip.keypoints.double(), features=clip.features.double(),
            camera_velocity=clip.camera_velocity.double(),
        )  # fmt: skip
        prediction = double.predict(start, clip)
        for name, value in naive(double.network, start, clip).items():
            torch.testing.assert_close(getattr(prediction, name), value, rtol=0, atol=1e-12)
    finally:
        network().float()


@pytest.mark.parametrize("sizes", [(1,) * 7, (2, 5), (6, 1)])
def test_chunks_of_any_length_give_the_whole_clip(predictor, sizes):
    start, clip = random_case(2, 7)
    whole = predictor.predict(start, clip)
    state, first, parts = predictor.init_state(start), 0, []
    for size in sizes:
        part, state = predictor.step(state, crop(clip, first, first + size))
        parts.append(part)
        first += size
    for name in NAMES:
        pieces = [getattr(part, name) for part in parts]
        if name == "root":
            pieces = [pieces[0], *(piece[:, 1:] for piece in pieces[1:])]
        torch.testing.assert_close(
            torch.cat(pieces, dim=1), getattr(whole, name), rtol=0, atol=2e-6
        )


def test_a_state_can_be_used_twice(predictor):
    start, clip = random_case(2, 4)
    _, state = predictor.step(predictor.init_state(start), clip)
    first, _ = predictor.step(state, clip)
    again, _ = predictor.step(state, clip)
    assert torch.equal(first.pose, again.pose)
    assert isinstance(state, State)


def test_people_do_not_touch_each_other(predictor):
    start, clip = random_case(3, 6)
    together = predictor.predict(start, clip)
    alone = predictor.predict(
        type(start)(*(value[1:2] for value in vars(start).values())),
        type(clip)(*(value[1:2] for value in vars(clip).values())),
    )
    for field in fields(alone):
        torch.testing.assert_close(
            getattr(together, field.name)[1:2], getattr(alone, field.name), rtol=0, atol=5e-6
        )


def test_clips_longer_than_a_block_of_projections(predictor, monkeypatch):
    start, clip = random_case(1, 9)
    whole = predictor.predict(start, clip)
    monkeypatch.setattr("priors.stepping.BLOCK", 4)
    torch.testing.assert_close(predictor.predict(start, clip).pose, whole.pose, rtol=0, atol=2e-6)


def test_bfloat16_is_within_two_percent():
    """What the option costs: error over the rms of the golden outputs, about 1 % measured."""
    prediction = Predictor(network(), "bfloat16").predict(golden_start(), golden_clip())
    for ours, theirs in NAMES.items():
        expected = golden_network()[f"out_{theirs}"]
        error = (getattr(prediction, ours) - expected).square().mean().sqrt()
        assert 0 < float(error) < 0.02 * float(expected.square().mean().sqrt()), ours


def test_weights_load_strictly(tmp_path):
    path = tmp_path / "wham.safetensors"
    state = dict(network().state_dict())
    save_weights(path, state, {"name": "filled"})
    loaded, card = load_wham(path)
    assert card["name"] == "filled"
    loaded = loaded.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    del state["integrator.layer2.bias"]
    save_weights(path, state, {"name": "filled"})
    with pytest.raises(CheckpointError, match=r"'integrator\.layer2\.bias' is missing"):
        load_wham(path)
