"""Parts of WHAM (Shin et al. 2024) under the names of their official state dict.

They hold weights; `priors.wham` runs them. Sizes are those of the released demo (ViT features).
Source: github.com/yohanshin/WHAM at 2b54f77, as described in prose.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

KEYPOINTS = 17  # COCO
INPUT = 2 * KEYPOINTS + 3  # keypoints in their box, centre and size of the box in the image
EMBEDDING = 512
KEYPOINTS_3D = 3 * KEYPOINTS
CONTEXT = EMBEDDING + KEYPOINTS_3D
FEATURES = 1024  # HMR2's vision transformer
POSE = 24 * 6
ROOT = 6
CAMERA = 6
BETAS = 10
# SMPL joints that start the motion decoder: neither toes (10, 11) nor hands (22, 23).
MAIN_JOINTS: tuple[int, ...] = (*range(10), *range(12, 22))


class NeuralInitialization(nn.Module):
    """State of an LSTM before its first step, from what is known of the first frame."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.linear1 = nn.Linear(inputs, hidden)
        self.linear2 = nn.Linear(hidden, hidden * layers)
        self.linear3 = nn.Linear(hidden * layers, hidden * layers * 2)

    def forward(
        self, start: Float[Tensor, "N D"]
    ) -> tuple[Float[Tensor, "L N H"], Float[Tensor, "L N H"]]:
        """Hidden and cell of every layer."""
        state = self.linear2(self.linear1(start).relu()).relu()
        made = self.linear3(state).reshape(len(start), 2, self.layers, -1)
        hidden, cell = made[:, 0], made[:, 1]
        return hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()


class Regressor(nn.Module):
    """LSTM that is also fed its last outputs, and one linear head per output."""

    def __init__(self, inputs: int, fed: int, hidden: int, outputs: tuple[int, ...], layers: int):
        super().__init__()
        self.rnn = nn.LSTM(inputs + fed, hidden, layers, batch_first=True)
        for index, width in enumerate(outputs):
            self.add_module(f"declayer{index}", nn.Linear(hidden, width))

    def head(self, index: int) -> nn.Linear:
        """Linear layer of one output."""
        layer = self.get_submodule(f"declayer{index}")
        assert isinstance(layer, nn.Linear)
        return layer


class MotionEncoder(nn.Module):
    """2D keypoints -> 3D keypoints and the motion context."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_layer = nn.Linear(INPUT, EMBEDDING)
        self.neural_init = NeuralInitialization(KEYPOINTS_3D + INPUT, EMBEDDING, 3)
        self.regressor = Regressor(EMBEDDING, KEYPOINTS_3D, EMBEDDING, (KEYPOINTS_3D,), 3)


class TrajectoryDecoder(nn.Module):
    """Motion context and the camera's angular velocity -> root velocity and orientation."""

    def __init__(self) -> None:
        super().__init__()
        self.regressor = Regressor(CONTEXT + CAMERA, ROOT, CONTEXT, (3, ROOT), 3)


class Integrator(nn.Module):
    """Motion context and image features -> context of the motion decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(CONTEXT + FEATURES, 1024)
        self.layer2 = nn.Linear(1024, 1024)
        self.layer3 = nn.Linear(1024, CONTEXT)

    def forward(
        self,
        context: Float[Tensor, "N T C"],
        features: Float[Tensor, "N T F"],
        residual: Bool[Tensor, "N T"],
    ) -> Float[Tensor, "N T C"]:
        """Integrated context; the context itself is added to it where `residual`.

        Trained so: frames without an image (motion capture) have zero features and no residual.
        """
        hidden = self.layer1(torch.cat([context, features], dim=-1)).relu()
        out: Tensor = self.layer3(self.layer2(hidden).relu())
        return out + context * residual[..., None]


class MotionDecoder(nn.Module):
    """Integrated context -> pose, betas, weak-perspective camera, contacts."""

    def __init__(self) -> None:
        super().__init__()
        self.neural_init = NeuralInitialization(6 * len(MAIN_JOINTS), CONTEXT, 3)
        self.regressor = Regressor(CONTEXT, POSE, CONTEXT, (POSE, BETAS, 3, 4), 3)


class TrajectoryRefiner(nn.Module):
    """Context and the motion of feet in contact -> corrections of the root and its velocity."""

    def __init__(self) -> None:
        super().__init__()
        self.refiner = Regressor(CONTEXT + 12, ROOT + 3, EMBEDDING, (ROOT, 3), 2)
