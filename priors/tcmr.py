"""TCMR (Choi et al. 2021): SMPL parameters of a frame from image features of 16 frames around it.

Attribute names are the official state-dict names. Source: github.com/hongsukchoi/TCMR_RELEASE at
c41fdd7, as described in prose; eval mode only. The paper's PoseForecast is `gru_bef` and `gru_aft`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.checkpoints import load_weights
from priors.gru import Direction, last_output, middle_output
from priors.rotation6d import columns_to_matrix

WINDOW = 16  # frames
CURRENT = 8  # the frame of a window that is estimated: 8 before it, 7 after it
FEATURES = 2048
HIDDEN = 1024
ITERATIONS = 3
FOCAL = 5000.0  # px, of the weak-perspective camera of a crop
CROP = 224  # px
Ends: TypeAlias = Literal["held", "demo"]
WINDOWS_PER_BATCH = 256  # layer 0 of the middle GRU holds 256 x 16 x 2048 x 4 bytes = 34 MB


@dataclass(frozen=True)
class Estimate:
    """Weak-perspective camera, SMPL rotations (root in the camera of the crop first) and shape."""

    camera: Float[Tensor, "*batch 3"]  # s, tx, ty of the crop
    rotations: Float[Tensor, "*batch 24 3 3"]
    betas: Float[Tensor, "*batch 10"]

    def theta(self) -> Float[Tensor, "*batch 85"]:
        """The official 85 numbers: camera, 24 rotation vectors, betas."""
        vectors = roma.rotmat_to_rotvec(self.rotations).flatten(start_dim=-2)
        return torch.cat([self.camera, vectors, self.betas], dim=-1)


class Attention(nn.Module):
    """Scores of the features before, of and after the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(FEATURES, 256)
        self.attention = nn.Sequential(
            nn.Linear(3 * 256, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 3),
            nn.Tanh(),
        )  # fmt: skip

    def forward(self, parts: Float[Tensor, "B 3 2048"]) -> Float[Tensor, "B 3"]:
        """Softmax of the three scores."""
        scores: Tensor = self.attention(self.fc(parts).flatten(start_dim=1))
        return torch.softmax(scores, dim=-1)


class TemporalEncoder(nn.Module):
    """One feature of the current frame from the 16 of its window."""

    def __init__(self) -> None:
        super().__init__()
        self.gru_cur = nn.GRU(FEATURES, HIDDEN, 2, bidirectional=True)
        self.gru_bef = nn.GRU(FEATURES, HIDDEN, 2)
        self.gru_aft = nn.GRU(FEATURES, HIDDEN, 2)
        self.linear_cur = nn.Linear(2 * HIDDEN, FEATURES)
        self.linear_bef = nn.Linear(HIDDEN, FEATURES)
        self.linear_aft = nn.Linear(HIDDEN, FEATURES)
        self.attention = Attention()

    def recurrent(
        self, features: Float[Tensor, "B 16 2048"]
    ) -> tuple[Float[Tensor, "B 1024"], Float[Tensor, "B 2048"], Float[Tensor, "B 1024"]]:
        """Outputs of the GRUs: frames 0..7 forwards, all frames at 8, frames 15..9 backwards."""
        sequence = features.transpose(0, 1)
        before = self.gru_bef(sequence[:CURRENT])[0][-1]
        current = self.gru_cur(sequence)[0][CURRENT]
        after = self.gru_aft(sequence[CURRENT + 1 :].flip(0))[0][-1]
        return before, current, after

    def integrate(
        self,
        before: Float[Tensor, "B 1024"],
        current: Float[Tensor, "B 2048"],
        after: Float[Tensor, "B 1024"],
    ) -> tuple[Float[Tensor, "B 3 2048"], Float[Tensor, "B 3"]]:
        """Features before, after and integrated (the training outputs), and the scores.

        The third, the sum of before, current and after weighted by the scores, is the estimate's.
        """
        parts = torch.stack(
            [
                self.linear_bef(before.relu()),
                self.linear_cur(current.relu()),
                self.linear_aft(after.relu()),
            ],
            dim=1,
        )
        scores = self.attention(parts)
        integrated = (scores[..., None] * parts).sum(dim=1)
        return torch.stack([parts[:, 0], parts[:, 2], integrated], dim=1), scores


class Regressor(nn.Module):
    """SMPL parameters from one feature, corrected three times from a mean (HMR, SPIN)."""

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("init_pose", torch.zeros(1, 144))
        self.register_buffer("init_shape", torch.zeros(1, 10))
        self.register_buffer("init_cam", torch.zeros(1, 3))
        self.fc1 = nn.Linear(FEATURES + 144 + 10 + 3, 1024)
        self.fc2 = nn.Linear(1024, 1024)
        self.decpose = nn.Linear(1024, 144)
        self.decshape = nn.Linear(1024, 10)
        self.deccam = nn.Linear(1024, 3)

    def iterations(
        self, features: Float[Tensor, "*batch 2048"]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Pose (6D columns, 144), shape (10) and camera (3) after each correction.

        The features' part of the first layer is the same every time and computed once.
        """
        batch = features.shape[:-1]
        weight = self.fc1.weight
        fixed = nn.functional.linear(features, weight[:, :FEATURES], self.fc1.bias)
        state = torch.cat([self.init_pose, self.init_shape, self.init_cam], dim=-1)[0]
        state = state.expand(*batch, -1)
        found = []
        for _ in range(ITERATIONS):
            hidden = self.fc2(fixed + state @ weight[:, FEATURES:].T)
            change = [self.decpose(hidden), self.decshape(hidden), self.deccam(hidden)]
            state = state + torch.cat(change, dim=-1)
            found.append((state[..., :144], state[..., 144:154], state[..., 154:]))
        return found

    def forward(self, features: Float[Tensor, "*batch 2048"]) -> Estimate:
        """The last correction as rotations."""
        pose, shape, camera = self.iterations(features)[-1]
        rotations = columns_to_matrix(pose.reshape(*pose.shape[:-1], 24, 6), eps=1e-6)
        return Estimate(camera, rotations, shape)


class TCMR(nn.Module):
    """The released network: 16 frames, 2 layers, 1024 hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TemporalEncoder()
        self.regressor = Regressor()

    def forward(self, features: Float[Tensor, "B 16 2048"]) -> Estimate:
        """Estimate of frame 8 of every window."""
        integrated, _ = self.encoder.integrate(*self.encoder.recurrent(features))
        estimate: Estimate = self.regressor(integrated[:, 2])
        return estimate

    def training_outputs(self, features: Float[Tensor, "B 16 2048"]) -> Estimate:
        """Estimates from the features before, after and integrated, all supervised: batch (B,3)."""
        integrated, _ = self.encoder.integrate(*self.encoder.recurrent(features))
        estimate: Estimate = self.regressor(integrated)
        return estimate

    def clip(
        self, features: Float[Tensor, "T 2048"], ends: Ends = "held", stride: int = 1
    ) -> Estimate:
        """Estimate of every frame of a clip, equal to `forward` of every window of `windows`.

        What windows share is computed once: the input projections of layer 0 of all GRUs, for all
        frames. Hidden states cannot be shared, because every window starts from a zero state: the
        state at a frame depends on how far back its window began, so frame f has another state in
        each of its 16 windows. Instead all windows step together, as rows of one product, and the
        steps whose output nobody reads are left out (layer 1 of the middle GRU: forwards after
        frame 8, backwards before it).
        """
        index = windows(len(features), ends, stride).to(features.device)
        encoder = self.encoder
        current = Direction(encoder.gru_cur), Direction(encoder.gru_cur, "_reverse")
        bef, aft = Direction(encoder.gru_bef), Direction(encoder.gru_aft)
        inputs = [side.project(0, features) for side in (*current, bef, aft)]
        found = []
        for rows in torch.split(index, WINDOWS_PER_BATCH):
            ahead, back, early, late = (_picker(part, rows) for part in inputs)
            middle = middle_output(*current, (ahead, back), WINDOW, CURRENT)
            before = last_output(bef, early, range(CURRENT))
            after = last_output(aft, late, range(WINDOW - 1, CURRENT, -1))
            found.append(encoder.integrate(before, middle, after)[0][:, 2])
        estimate: Estimate = self.regressor(torch.cat(found))
        return estimate


def windows(count: int, ends: Ends = "held", stride: int = 1) -> Int[Tensor, "T 16"]:
    """Frames of the window of each of `count` frames: t - 8 .. t + 7, times `stride`.

    The network was trained at 25 to 30 frames per second: `stride` 2 suits a clip of 60.
    At the ends, where frames are missing, "held" repeats the first or last frame for those alone,
    so that the window keeps its other frames. "demo" is the official demo: the first 8 and last 7
    frames are seen alone, repeated 16 times, which leaves single-frame estimates and a seam.
    """
    frames = torch.arange(count)
    wanted = frames[:, None] + stride * torch.arange(-CURRENT, WINDOW - CURRENT)
    if ends == "held":
        return wanted.clamp(0, max(count - 1, 0))
    inside = (wanted >= 0).all(dim=1) & (wanted < count).all(dim=1)
    return torch.where(inside[:, None], wanted, frames[:, None])


def project_to_crop(
    points: Float[Tensor, "B P 3"], camera: Float[Tensor, "B 3"]
) -> Float[Tensor, "B P 2"]:
    """Image points in the crop by the weak-perspective camera, -1..1 across it.

    Perspective with focal length 5000 px at depth 2 f / (224 s); the centre of the crop is 0.
    """
    shifted = points + crop_translation(camera)[:, None]
    return FOCAL * shifted[..., :2] / shifted[..., 2:] / (CROP / 2)


def crop_translation(camera: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Translation of the body before the camera of focal length 5000 px that looks at the crop."""
    depth = 2 * FOCAL / (CROP * camera[..., :1] + 1e-9)
    return torch.cat([camera[..., 1:], depth], dim=-1)


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict, without `regressor.smpl.*`: 59 entries."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in TCMR().state_dict().items()}


def load_tcmr(path: Path, *, dtype: torch.dtype = torch.float32) -> TCMR:
    """Network with converted weights, in eval mode. Raises CheckpointError."""
    tensors, _ = load_weights(path, state_shapes())
    with torch.device("meta"):
        network = TCMR()
    network.load_state_dict(tensors, assign=True)
    return network.to(dtype).eval().requires_grad_(False)


def _picker(
    projected: Float[Tensor, "T G"], rows: Int[Tensor, "B 16"]
) -> Callable[[int], Float[Tensor, "B G"]]:
    return lambda frame: projected[rows[:, frame]]
