"""Small scenes with exact truth for tests: smooth random motion, exact keypoints."""

import math

import roma
import torch
from torch import Tensor

from slamhmr.body import forward_points, load_body
from slamhmr.cameras import Rig, drift_basis, uncorrected
from slamhmr.layout import BorderLayout, Free
from slamhmr.scene import Evidence, Person, PointSet, Scene, point_set
from slamhmr.skeleton import KEYPOINTS

BODY = load_body()
POINTS = point_set(BODY)
KEYPOINT_COUNT = sum(name in POINTS.names for name in KEYPOINTS)
UPRIGHT = roma.rotvec_to_rotmat(torch.tensor([math.pi / 2, 0.0, 0.0], dtype=torch.float64))


def smooth(frames: int, *shape: int, generator: torch.Generator, amount: float) -> Tensor:
    """Sum of a few slow sines with random phases, (frames, *shape)."""
    time = torch.arange(frames, dtype=torch.float64).reshape(-1, *[1] * len(shape)) / 30.0
    total = torch.zeros(frames, *shape, dtype=torch.float64)
    for frequency in (0.4, 0.9, 1.7):
        phase = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 * math.pi
        size = torch.randn(shape, generator=generator, dtype=torch.float64) * amount
        total = total + size * torch.sin(2 * math.pi * frequency * time + phase)
    return total


def person(frames: int, generator: torch.Generator) -> Person:
    """Somebody upright, turning and moving limbs, about 4 m in front of the first camera."""
    root = UPRIGHT @ roma.rotvec_to_rotmat(smooth(frames, 3, generator=generator, amount=0.3))
    joints = roma.rotvec_to_rotmat(smooth(frames, 21, 3, generator=generator, amount=0.15))
    pelvis = smooth(frames, 3, generator=generator, amount=0.2) + torch.tensor([0.0, 4.0, -0.3])
    betas = 0.5 * torch.randn(BODY.shapedirs.shape[-1], generator=generator, dtype=torch.float64)
    return Person(torch.cat([root[:, None], joints], dim=1), pelvis, betas)


def camera(frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """World-from-camera rotations (looking along world +y) and centres of a smooth path."""
    look = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]], dtype=torch.float64)
    wobble = roma.rotvec_to_rotmat(smooth(frames, 3, generator=generator, amount=0.03))
    centres = smooth(frames, 3, generator=generator, amount=0.3)
    return look @ wobble, centres - centres[:1]


def make_scene(
    frames: int = 12, people: int = 1, seed: int = 0, scale: float = 1.7
) -> tuple[Scene, list[Evidence], PointSet]:
    """A scene and exact evidence for it; contacts are on, whatever the feet do."""
    generator = torch.Generator().manual_seed(seed)
    rotation, centres = camera(frames, generator)
    intrinsics = torch.tensor([500.0, 510.0, 320.0, 180.0], dtype=torch.float64)
    cast = tuple(person(frames, generator) for _ in range(people))
    second = (torch.arange(frames) >= frames // 2).double()[:, None]  # a segment of its own
    pivots = torch.where(second > 0, centres[frames // 2], centres[0])
    rig = Rig(centres, pivots, drift_basis(frames), second)
    names = [n for n in KEYPOINTS if n in POINTS.names]
    places = torch.tensor([POINTS.names.index(n) for n in names])
    evidence = []
    for someone in cast:
        points, _ = forward_points(
            BODY, someone.betas[None], someone.rotations[None, :, 0], someone.pelvis[None],
            someone.rotations[None, :, 1:],
        )  # fmt: skip
        seen = points[0][:, POINTS.places][:, places] - scale * centres[:, None]
        seen = seen @ rotation
        image = intrinsics[:2] * seen[..., :2] / seen[..., 2:] + intrinsics[2:]
        linked = torch.ones(frames, dtype=torch.bool)
        linked[-1] = False
        step = torch.diff(someone.pelvis, dim=0, append=someone.pelvis[-1:]) * 30.0
        velocity = (someone.rotations[:, 0].mT @ step[..., None])[..., 0]
        velocity = velocity / POINTS.size(someone.betas)
        evidence.append(
            Evidence(
                0,
                image,
                torch.ones(frames, len(names), dtype=torch.float64),
                places,
                torch.full((frames,), 200.0, dtype=torch.float64),
                rotation,
                rig,
                intrinsics.expand(frames, 4),
                torch.rand(frames, 4, generator=generator, dtype=torch.float64),
                torch.arange(frames, dtype=torch.float64) / 30.0,
                linked,
                someone.rotations.clone(),
                torch.ones(frames, 22, dtype=torch.float64),
                None,
                0.1 + 0.3 * torch.rand(frames, 22, generator=generator, dtype=torch.float64),
                velocity,
                0.2 + 0.3 * torch.rand(frames, 3, generator=generator, dtype=torch.float64),
                torch.arange(frames) == frames // 2 - 1,
                flight=torch.ones(frames, dtype=torch.bool),
            )  # fmt: skip
        )
    ground = torch.tensor([0.02, -0.01, 1.0, 1.3], dtype=torch.float64)
    ground = ground / ground[:3].norm()
    log_scale = torch.tensor(math.log(scale), dtype=torch.float64)
    prior = torch.tensor([math.log(scale), 0.5], dtype=torch.float64)
    state = Scene(cast, log_scale, ground, **uncorrected(frames), jitter_information=None,
                  scale_prior=prior, velocity_gain=torch.zeros(people).double(),
                  segments=torch.zeros(1, 7).double(),
                  offsets=torch.zeros(people, KEYPOINT_COUNT, 2).double(),
                  segment_sigma=torch.tensor([[0.05, 0.3, 0.5, 0.1]]).double())  # fmt: skip
    return state, evidence, POINTS


def layout(*, pose: bool = True, cameras: bool = True) -> BorderLayout:
    """Border layout of a stage that frees everything, or all but poses or cameras."""
    free = Free(pose, True, True, True, cameras, cameras, 6 * cameras, velocity_gain=True,
                segments=int(cameras), offsets=2 * KEYPOINT_COUNT * cameras)  # fmt: skip
    return BorderLayout(free, BODY.shapedirs.shape[-1])
