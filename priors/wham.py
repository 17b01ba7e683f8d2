"""WHAM (Shin et al. 2024): SMPL motion and root trajectory from 2D keypoints, frame after frame.

Every part is causal, so a clip can be given whole or in chunks of any length with the same result.
Inputs must be sampled at 30 frames per second, without gaps: root velocity is metres per FRAME of
1/30 s. The world is y-down, the root is the middle of the COCO hips, rotations are 6D rows.
Source: github.com/yohanshin/WHAM at 2b54f77, as described in prose; eval mode only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from priors.checkpoints import load_weights
from priors.stepping import LstmState, Precision, SelfFeedingLstm
from priors.wham_modules import (
    CONTEXT,
    EMBEDDING,
    KEYPOINTS,
    KEYPOINTS_3D,
    MAIN_JOINTS,
    Integrator,
    MotionDecoder,
    MotionEncoder,
    TrajectoryDecoder,
    TrajectoryRefiner,
)

FPS = 30.0  # that the network was trained at; resample what is slower or faster
# "official" repeats what the released code does where that is an accident; "corrected" does not.
Compat: TypeAlias = Literal["corrected", "official"]


@dataclass(frozen=True)
class Start:
    """What is known of the first frame."""

    keypoints: Float[Tensor, "N 88"]  # 3D keypoints from the mid-hip, m (51), then `Clip.keypoints`
    pose: Float[Tensor, "N 24 6"]  # SMPL pose, root in the camera first
    root: Float[Tensor, "N 6"]  # root in the (y-down) world


@dataclass(frozen=True)
class Clip:
    """Inputs of T consecutive frames at 30 fps (`priors.wham_preprocess` makes them)."""

    keypoints: Float[Tensor, "N T 37"]
    masked: Bool[Tensor, "N T 17"]  # True: the keypoint is not known; its numbers are not used
    camera_velocity: Float[Tensor, "N T 6"]  # of the camera's rotation, 6D rows less identity, x 30
    features: Float[Tensor, "N T 1024"] | None = None  # of the image; zeros where there are none


@dataclass(frozen=True)
class Prediction:
    """Outputs of T frames; U = T + 1."""

    keypoints: Float[Tensor, "N T 17 3"]  # from the mid-hip, m
    context: Float[Tensor, "N T 563"]  # before the integrator
    root: Float[Tensor, "N U 6"]  # in the world; entry 0 is that of the frame before
    velocity: Float[Tensor, "N T 3"]  # of the root, in its axes at the frame before, m per frame
    pose: Float[Tensor, "N T 144"]
    betas: Float[Tensor, "N T 10"]
    camera: Float[Tensor, "N T 3"]  # weak perspective: s, tx, ty of the box
    contact: Float[Tensor, "N T 4"]  # two points per foot; about 0..1, no sigmoid


@dataclass(frozen=True)
class State:
    """What the network remembers between chunks."""

    encoder: LstmState
    trajectory: LstmState
    decoder: LstmState


class Wham(nn.Module):
    """Weights of the released network, without the body model: 83 tensors, 42 million numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_embedding = nn.Parameter(torch.zeros(1, 1, KEYPOINTS, 2))
        self.motion_encoder = MotionEncoder()
        self.trajectory_decoder = TrajectoryDecoder()
        self.integrator = Integrator()
        self.motion_decoder = MotionDecoder()
        self.trajectory_refiner = TrajectoryRefiner()

    def fill_masked(
        self, keypoints: Float[Tensor, "N T 37"], masked: Bool[Tensor, "N T 17"]
    ) -> Float[Tensor, "N T 37"]:
        """Keypoints with the trained stand-in where `masked`; the box's numbers stay."""
        points, box = keypoints[..., : 2 * KEYPOINTS], keypoints[..., 2 * KEYPOINTS :]
        points = points.reshape(*masked.shape, 2)
        filled = torch.where(masked[..., None], self.mask_embedding, points)
        return torch.cat([filled.flatten(-2), box], dim=-1)


class Predictor:
    """The network laid out for inference: much faster than its modules, the same numbers.

    "bfloat16" halves the weights that each step reads; see the tests for what it costs in accuracy.
    """

    def __init__(self, network: Wham, precision: Precision = "float32") -> None:
        self.network = network
        encoder = network.motion_encoder.regressor
        trajectory = network.trajectory_decoder.regressor
        decoder = network.motion_decoder.regressor
        self.encoder = SelfFeedingLstm(encoder.rnn, encoder.head(0), EMBEDDING, precision)
        self.trajectory = SelfFeedingLstm(trajectory.rnn, trajectory.head(1), CONTEXT, precision)
        self.decoder = SelfFeedingLstm(decoder.rnn, decoder.head(0), CONTEXT, precision)

    @torch.no_grad()
    def init_state(self, start: Start) -> State:
        """State before the first frame."""
        network = self.network
        hidden, cell = network.motion_encoder.neural_init(start.keypoints)
        pose = start.pose[:, MAIN_JOINTS].flatten(1)
        posed, posed_cell = network.motion_decoder.neural_init(pose)
        still = start.root.new_zeros(3, len(start.root), CONTEXT)
        return State(
            LstmState(hidden, cell, start.keypoints[:, :KEYPOINTS_3D]),
            LstmState(still, still, start.root),
            LstmState(posed, posed_cell, start.pose.flatten(1)),
        )

    @torch.no_grad()
    def step(
        self, state: State, clip: Clip, residual: Bool[Tensor, "N T"] | None = None
    ) -> tuple[Prediction, State]:
        """Outputs of the clip's frames and the state after them; `state` itself stays as it was.

        `residual`: where the integrator adds the context, see `integrator_residual`; not given, in
        the corrected way. Rows (people) do not touch each other, and later frames not earlier ones.
        """
        network = self.network
        inputs = network.fill_masked(clip.keypoints, clip.masked)
        embedded = network.motion_encoder.embed_layer(inputs)
        hidden, keypoints, encoder = self.encoder.run(embedded, state.encoder)
        context = torch.cat([hidden, keypoints], dim=-1)
        given = torch.cat([context, clip.camera_velocity], dim=-1)
        moving, roots, trajectory = self.trajectory.run(given, state.trajectory)
        integrated = context
        if clip.features is not None:
            if residual is None:
                residual = integrator_residual(clip.features)
            integrated = network.integrator(context, clip.features, residual)
        posed, pose, decoder = self.decoder.run(integrated, state.decoder)
        heads = network.motion_decoder.regressor
        prediction = Prediction(
            keypoints=keypoints.reshape(*clip.masked.shape, 3),
            context=context,
            root=torch.cat([state.trajectory.previous[:, None], roots], dim=1),
            velocity=network.trajectory_decoder.regressor.head(0)(moving),
            pose=pose,
            betas=heads.head(1)(posed),
            camera=heads.head(2)(posed),
            contact=heads.head(3)(posed),
        )
        return prediction, State(encoder, trajectory, decoder)

    def predict(self, start: Start, clip: Clip, compat: Compat = "corrected") -> Prediction:
        """Outputs of a whole clip."""
        residual = None
        if clip.features is not None:
            residual = integrator_residual(clip.features, compat)
        return self.step(self.init_state(start), clip, residual)[0]


def integrator_residual(
    features: Float[Tensor, "N T F"], compat: Compat = "corrected"
) -> Bool[Tensor, "N T"]:
    """Where the integrator adds the context to its output: frames that have image features.

    The official code adds it to a whole clip or not at all, and a single number that is exactly
    zero anywhere in the clip is enough for not at all: padding a batch changes the results.
    """
    if compat == "corrected":
        return (features != 0).any(dim=-1)
    return (features != 0).all(dim=-1).all(dim=-1, keepdim=True).expand(features.shape[:2])


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict, without `smpl.*`: 83 entries."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in Wham().state_dict().items()}


def load_wham(path: Path) -> tuple[Wham, dict[str, Any]]:
    """Network with converted weights (.safetensors) in eval mode, and its card ({} without one).

    Raises CheckpointError.
    """
    tensors, card = load_weights(path, state_shapes())
    with torch.device("meta"):
        network = Wham()
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False), card
