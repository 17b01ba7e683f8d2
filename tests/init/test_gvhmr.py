"""GVHMR's file written from truth, read, compared."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch
from foreign_case import SIZE, Y_UP, Truth, check_poses, make_truth, only, pixels_off

from slamhmr.body import load_body
from slamhmr.errors import InputError, MissingAsset
from slamhmr.init.gvhmr import Options, initialise

THEIRS = (800.0, 800.0, 320.0, 240.0)  # hypot(640, 480): the network's guess


def write(path: Path, truth: Truth, person: int = 0) -> Options:
    """`hmr4d_results.pt` as zju3dv/GVHMR@cb702cd tools/demo/demo.py saves it."""
    count = truth.pose.shape[1]
    pose = {"body_pose": truth.pose[person].reshape(count, 63)}
    world = Y_UP @ truth.world_from_root[person]
    walked = truth.pelvis_world[person] @ Y_UP.T - truth.rest(person)
    matrix = torch.tensor([[THEIRS[0], 0, THEIRS[2]], [0, THEIRS[1], THEIRS[3]], [0, 0, 1]])
    shape = {"betas": truth.betas[person].expand(count, 10).clone()}
    content = {
        "smpl_params_incam": {
            **pose,
            **shape,
            "global_orient": roma.rotmat_to_rotvec(truth.root[person]),
            "transl": torch.from_numpy(truth.transl(person, THEIRS)),
        },
        "smpl_params_global": {
            **pose,
            **shape,
            "global_orient": roma.rotmat_to_rotvec(world),
            "transl": walked,
        },
        "K_fullimg": matrix.repeat(count, 1, 1),
        "net_outputs": {"static_conf_logits": torch.linspace(-4, 4, count * 6).reshape(1, -1, 6)},
    }
    torch.save(content, path)
    return Options(path=str(path))


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smplx")


def test_a_round_trip_is_exact(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "hmr4d_results.pt", truth, person=1)
    found = initialise(only(truth, 1), truth.cameras, truth.body, options)
    check_poses(found, truth, [1])
    assert torch.allclose(found.root_velocity[0, :-1], truth.velocity(1), atol=1e-6)
    assert bool((found.root_velocity_sigma[0, :-1] == 0.2).all())
    assert bool((found.root_velocity_sigma[0, -1] > 1).all())
    assert torch.allclose(found.up_cam[0], truth.up(), atol=1e-6)
    assert bool((found.up_sigma == 0.1).all())
    static = torch.linspace(-4, 4, truth.pose.shape[1] * 6).reshape(-1, 6)[:, :4]
    assert torch.allclose(found.contacts[0], torch.sigmoid(static).double(), atol=1e-6)


def test_another_body_stands_on_the_picture(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "hmr4d_results.pt", truth)
    body = load_body()
    seen = only(truth, 0)
    found = initialise(seen, truth.cameras, body, options)
    assert float(found.betas.abs().max()) == 0
    off = pixels_off(found, replace(truth, observations=seen), body)
    side = float((seen.boxes[0, 0, 2:] - seen.boxes[0, 0, :2]).max())
    assert float(off.median()) < 0.03 * side


def test_a_rate_that_is_not_the_networks_widens_the_sigma(tmp_path: Path):
    truth = make_truth("smplx", fps=60.0)
    options = write(tmp_path / "r.pt", truth)
    found = initialise(only(truth, 0), truth.cameras, truth.body, options)
    assert torch.allclose(found.root_velocity[0, :-1], truth.velocity(0), atol=1e-6)
    assert math.isclose(float(found.root_velocity_sigma[0, 0, 0]), 0.4)


def test_part_of_a_clip(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "r.pt", truth)
    seen = only(truth, 0)
    part = replace(
        seen,
        keypoints=seen.keypoints[:, 3:7],
        confidence=seen.confidence[:, 3:7],
        boxes=seen.boxes[:, 3:7],
        timestamps=seen.timestamps[3:7],
    )
    cameras = replace(
        truth.cameras,
        world_from_cam=truth.cameras.world_from_cam[3:7],
        intrinsics=truth.cameras.intrinsics[3:7],
    )
    with pytest.raises(InputError, match=r"9 frames, the observations have 4.*options.gvhmr.first"):
        initialise(part, cameras, truth.body, options)
    found = initialise(part, cameras, truth.body, replace(options, first=3))
    assert torch.allclose(found.cam_from_root[0, :, :3, 3], truth.pelvis[0, 3:7], atol=1e-6)


def test_frames_behind_the_camera_are_left_out(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "r.pt", truth)
    content = torch.load(options.path)
    content["smpl_params_incam"]["transl"][4, 2] = -3.0
    torch.save(content, options.path)
    found = initialise(only(truth, 0), truth.cameras, truth.body, options)
    assert (found.confidence[0, :, 0] > 0).tolist() == [True] * 4 + [False] + [True] * 4
    assert torch.equal(found.cam_from_root[0, 4], found.cam_from_root[0, 3])
    assert float(found.cam_from_root[0, :, 2, 3].min()) > 1


def test_one_line_for_everything_wrong(truth: Truth, tmp_path: Path):
    seen = only(truth, 0)
    with pytest.raises(MissingAsset, match="'hmr4d_results.pt' is not in the sequence directory"):
        initialise(seen, truth.cameras, truth.body, Options())
    with pytest.raises(MissingAsset, match="nowhere.pt' does not exist"):
        initialise(seen, truth.cameras, truth.body, Options(path=str(tmp_path / "nowhere.pt")))
    path = tmp_path / "r.pt"
    torch.save({"smpl_params_incam": {}}, path)
    with pytest.raises(InputError, match="lacks 'smpl_params_incam' with global_orient"):
        initialise(seen, truth.cameras, truth.body, Options(path=str(path)))
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="no file of tensors that can be read safely"):
        initialise(seen, truth.cameras, truth.body, Options(path=str(path)))
    options = write(path, truth)
    with pytest.raises(InputError, match="person 2 of the observations is on none of its 1 tracks"):
        initialise(truth.observations, truth.cameras, truth.body, options)
    far = replace(seen, keypoints=seen.keypoints + 300)
    with pytest.raises(InputError, match="nobody matched"):
        initialise(far, truth.cameras, truth.body, options)
    other = replace(seen, image_size=(SIZE[1], SIZE[0]))
    with pytest.raises(InputError, match="640 x 480 px, the observations of 480 x 640"):
        initialise(other, truth.cameras, truth.body, options)


def test_a_payload_does_not_run(truth: Truth, tmp_path: Path):
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (ran,))

    path = tmp_path / "r.pt"
    torch.save({"smpl_params_incam": Payload()}, path)
    with pytest.raises(InputError, match="cannot be read|can be read safely"):
        initialise(only(truth, 0), truth.cameras, truth.body, Options(path=str(path)))
    assert not ran.exists()


def test_pictures_made_smaller_keep_the_rays(truth: Truth, tmp_path: Path):
    options = write(tmp_path / "r.pt", truth)
    content = torch.load(options.path)
    content["K_fullimg"] = content["K_fullimg"] * torch.tensor([[0.5], [0.5], [1.0]])
    torch.save(content, options.path)
    found = initialise(only(truth, 0), truth.cameras, truth.body, options)
    check_poses(found, truth, [0])
