"""WHAM in tests: the golden case's inputs, random clips, and a naive twin stepped by torch."""

from functools import cache

import numpy as np
import torch
from filler import fill_module
from golden_files import FOLDER, Golden, filled_network
from torch import Tensor

from priors.wham import Clip, Start, Wham
from priors.wham_body import LinearBody
from priors.wham_modules import MAIN_JOINTS, Regressor


@cache
def golden_network() -> Golden:
    return Golden("wham_network")


@cache
def golden_motion() -> Golden:
    return Golden("wham_e2e")


@cache
def network() -> Wham:
    """The network with the golden weights, checked against the sums of the golden file."""
    filled = filled_network(golden_network(), Wham())
    assert isinstance(filled, Wham)
    return filled.requires_grad_(False)


@cache
def network_of_motion() -> Wham:
    """The same with the constants that the end-to-end case adds to three biases."""
    filled = fill_module(Wham())
    assert isinstance(filled, Wham)
    state = filled.requires_grad_(False).state_dict()
    for name, added in golden_motion().facts["bias_additions_after_fill"].items():
        state[name] += torch.tensor(added, dtype=torch.float32)
    return filled


def golden_start() -> Start:
    golden = golden_network()
    keys = ("in_init_kp", "in_init_smpl", "in_init_root")
    return Start(*(golden[key][:, 0] for key in keys))


def golden_clip(features: str | None = "in_img_features") -> Clip:
    golden = golden_network()
    keys = ("in_x", "in_mask", "in_cam_angvel")
    return Clip(*(golden[key] for key in keys), None if features is None else golden[features])


def toy_body() -> LinearBody:
    with np.load(FOLDER / "toy_smpl_lbs.npz") as file:
        arrays = {key: torch.from_numpy(file[key]).float() for key in file.files}
    motion = golden_motion()
    return LinearBody(
        v_template=arrays["v_template"],
        shapedirs=arrays["shapedirs"],
        posedirs=arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        weights=arrays["weights"],
        parents=tuple(arrays["parents"].long().tolist()),
        wham_regressor=motion["J_regressor_wham"],
        feet_regressor=motion["J_regressor_feet"],
    )


def random_case(people: int, frames: int, seed: int = 0) -> tuple[Start, Clip]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    start = Start(normal(people, 88), normal(people, 24, 6), normal(people, 6))
    masked = normal(people, frames, 17) > 1.0
    return start, Clip(
        normal(people, frames, 37), masked, 0.1 * normal(people, frames, 6),
        normal(people, frames, 1024),
    )  # fmt: skip


def crop(clip: Clip, first: int, last: int) -> Clip:
    """Frames first..last - 1."""
    features = None if clip.features is None else clip.features[:, first:last]
    return Clip(
        clip.keypoints[:, first:last], clip.masked[:, first:last],
        clip.camera_velocity[:, first:last], features,
    )  # fmt: skip


@torch.no_grad()
def naive(network: Wham, start: Start, clip: Clip) -> dict[str, Tensor]:
    """The network as its modules say it: one call of `nn.LSTM` per frame and loop."""
    points = clip.keypoints.clone()
    points[..., :34] = torch.where(
        clip.masked.repeat_interleave(2, dim=-1),
        network.mask_embedding.flatten(),
        points[..., :34],
    )
    embedded = network.motion_encoder.embed_layer(points)
    init = network.motion_encoder.neural_init(start.keypoints)
    encoder = network.motion_encoder.regressor
    hidden, (keypoints,) = _stepped(encoder, [embedded], [], start.keypoints[:, :51], 0, init)
    context = torch.cat([hidden, keypoints], dim=-1)
    still = torch.zeros(3, len(points), 563, dtype=points.dtype)
    trajectory = network.trajectory_decoder.regressor
    _, (velocity, root) = _stepped(
        trajectory, [context], [clip.camera_velocity], start.root, 1, (still, still)
    )
    mixed = context
    if clip.features is not None:
        residual = torch.ones(points.shape[:2], dtype=torch.bool)
        mixed = network.integrator(context, clip.features, residual)
    init = network.motion_decoder.neural_init(start.pose[:, MAIN_JOINTS].flatten(1))
    decoder = network.motion_decoder.regressor
    _, (pose, betas, camera, contact) = _stepped(
        decoder, [mixed], [], start.pose.flatten(1), 0, init
    )
    return {
        "keypoints": keypoints.unflatten(-1, (17, 3)), "context": context, "velocity": velocity,
        "root": torch.cat([start.root[:, None], root], dim=1), "pose": pose, "betas": betas,
        "camera": camera, "contact": contact,
    }  # fmt: skip


def _stepped(
    part: Regressor, before: list[Tensor], after: list[Tensor], previous: Tensor, fed: int,
    state: tuple[Tensor, Tensor],
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    count = sum(name.startswith("declayer") for name, _ in part.named_children())
    hidden, found = [], []
    for t in range(before[0].shape[1]):
        now = [*(x[:, t] for x in before), previous, *(x[:, t] for x in after)]
        out, state = part.rnn(torch.cat(now, dim=-1)[:, None], state)
        found.append([part.head(index)(out[:, 0]) for index in range(count)])
        previous = found[-1][fed]
        hidden.append(out[:, 0])
    outputs = [torch.stack(list(one), dim=1) for one in zip(*found, strict=True)]
    return torch.stack(hidden, dim=1), outputs
