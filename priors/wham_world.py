"""WHAM's path through the world: roll-out, feet that do not slide, refined trajectory, cameras.

The root is the middle of the COCO hips, the world y-down, velocities are m per frame of 1/30 s.
Where the world is level: the network's world is that of `Start.root`. The official demo starts with
the root in the first camera, so a tilted camera tilts the world; give the root in level axes.
Source: github.com/yohanshin/WHAM at 2b54f77, as described in prose.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from priors.rotation6d import rows_to_matrix
from priors.stepping import LstmState, SelfFeedingLstm
from priors.wham import FPS, Prediction, Wham
from priors.wham_body import Body, BodyPoints
from priors.wham_modules import CONTEXT, EMBEDDING

CONTACT = 0.5  # of the contact head, above which a foot is held still
Y_UP = (1.0, -1.0, -1.0)  # half a turn about x: the y-down world with y up


@dataclass(frozen=True)
class Path:
    """Root in the world; entry t is the root after the step of frame t."""

    rotation: Float[Tensor, "N T 3 3"]
    position: Float[Tensor, "N T 3"]

    def y_up(self) -> "Path":
        """The same in a world with y up."""
        axes = self.rotation.new_tensor(Y_UP)
        return Path(axes[:, None] * self.rotation, axes * self.position)


@dataclass(frozen=True)
class WorldState:
    """What the trajectory remembers between chunks; None before the first frame."""

    refiner: LstmState
    position: Float[Tensor, "N 3"]
    refined_position: Float[Tensor, "N 3"]
    refined_root: Float[Tensor, "N 6"] | None = None
    feet_world: Float[Tensor, "N 1 4 3"] | None = None
    feet_turned: Float[Tensor, "N 1 4 3"] | None = None


@dataclass(frozen=True)
class Motion:
    """A prediction with its body and both paths."""

    body: BodyPoints  # in the camera; N T flattened
    rotations: Float[Tensor, "N T 24 3 3"]  # local, root in the camera first
    position_cam: Float[Tensor, "N T 3"]  # the root in the full camera, m
    path: Path  # as the trajectory decoder has it
    feet_world: Float[Tensor, "N T 4 3"]  # along `path`
    root_refined: Float[Tensor, "N U 6"]
    velocity_refined: Float[Tensor, "N T 3"]
    refined: Path


def roll_out(
    root: Float[Tensor, "N U 6"],
    velocity: Float[Tensor, "N T 3"],
    start: Float[Tensor, "N 3"] | None = None,
) -> Path:
    """Path of a root that moves by `velocity` in the axes it had one frame before.

    U = T + 1: entry 0 is the root before the first frame. The first position is the first step, not
    zero; `start` is added to all.
    """
    rotation = rows_to_matrix(root)
    steps = (rotation[:, :-1] @ velocity[..., None])[..., 0]
    position = steps.cumsum(dim=1)
    if start is not None:
        position = position + start[:, None]
    return Path(rotation[:, 1:], position)


def camera_translation(
    camera: Float[Tensor, "N T 3"],
    box: Float[Tensor, "N T 3"],
    intrinsics: Float[Tensor, "N #T 3 3"],
) -> Float[Tensor, "N T 3"]:
    """Root in the full camera from the weak-perspective camera of its box (CLIFF's rule).

    z = 2 f / (s b) with b the side of the box in px (`box` holds side / 200), and the box's centre
    moves x and y. A scale s near 0 gives a far body: nothing guards it. The official code takes the
    middle of the image for the principal point and f = sqrt(w^2 + h^2) whatever the calibration.
    """
    s, tx, ty = camera.unbind(-1)
    reach = s * box[..., 2] * 200.0
    f = intrinsics[..., 0, 0]
    x = tx + 2 * (box[..., 0] - intrinsics[..., 0, 2]) / reach
    y = ty + 2 * (box[..., 1] - intrinsics[..., 1, 2]) / reach
    return torch.stack([x, y, 2 * f / reach], dim=-1)


def camera_motion(
    root_cam: Float[Tensor, "N T 3 3"], position_cam: Float[Tensor, "N T 3"], path: Path
) -> tuple[Float[Tensor, "N T 3 3"], Float[Tensor, "N T 3"]]:
    """R and t of cam_from_world, x_cam = R x + t, that put the person of `path` before the camera.

    The world's scale is thus the body's, never that of a SLAM system.
    """
    rotation = root_cam @ path.rotation.transpose(-1, -2)
    return rotation, position_cam - (rotation @ path.position[..., None])[..., 0]


def velocity_without_sliding(
    feet: Float[Tensor, "N T 4 3"],
    contact: Float[Tensor, "N T 4"],
    rotation: Float[Tensor, "N T 3 3"],
    velocity: Float[Tensor, "N T 3"],
    before: Float[Tensor, "N 1 4 3"] | None = None,
) -> Float[Tensor, "N T 3"]:
    """Root velocity less the mean velocity of the feet that are in contact.

    `feet` are relative to the root, in the world's axes; `before` those of the frame before the
    first (None: the first frame's velocity stays). Both velocities use the root's orientation at
    the frame itself, unlike the roll-out; the mean divides by the number of components that are
    not zero + 1e-4, per axis. So the network was trained.
    """
    world = (rotation @ velocity[..., None])[..., 0]
    earlier = feet[:, :1] if before is None else before
    slide = feet - torch.cat([earlier, feet[:, :-1]], dim=1) + world[:, :, None]
    if before is None:
        slide = torch.cat([torch.zeros_like(slide[:, :1]), slide[:, 1:]], dim=1)
    slide = slide * (contact > CONTACT)[..., None]
    mean = slide.sum(dim=2) / ((slide != 0).sum(dim=2) + 1e-4)
    return (rotation.transpose(-1, -2) @ (world - mean)[..., None])[..., 0]


class Trajectory:
    """Bodies and paths of predictions, chunk after chunk."""

    def __init__(self, network: Wham, body: Body) -> None:
        refiner = network.trajectory_refiner.refiner
        self.heads = refiner.head(0), refiner.head(1)
        self.refiner = SelfFeedingLstm(refiner.rnn, None, CONTEXT + 12 + 9)
        self.body = body

    def init_state(self, people: int) -> WorldState:
        """State before the first frame."""
        like = self.heads[0].weight.detach()
        still, origin = like.new_zeros(2, people, EMBEDDING), like.new_zeros(people, 3)
        return WorldState(
            LstmState(still, still, like.new_zeros(people, 0)), origin, origin.clone()
        )

    @torch.no_grad()
    def step(
        self,
        state: WorldState,
        prediction: Prediction,
        box: Float[Tensor, "N T 3"],
        intrinsics: Float[Tensor, "N #T 3 3"],
    ) -> tuple[Motion, WorldState]:
        """Motion of a chunk and the state after it; the world is y-down."""
        people, frames = prediction.velocity.shape[:2]
        rotations = rows_to_matrix(prediction.pose.reshape(people, frames, 24, 6))
        body = self.body(rotations.flatten(0, 1), prediction.betas.flatten(0, 1))
        feet = body.feet.reshape(people, frames, 4, 3)
        position_cam = camera_translation(prediction.camera, box, intrinsics)
        path = roll_out(prediction.root, prediction.velocity, state.position)
        rotation, shift = camera_motion(rotations[:, :, 0], position_cam, path)
        feet_world = feet + (position_cam - shift)[:, :, None]
        feet_world = feet_world @ rotation  # the transpose from the left, on rows
        turned = feet @ (path.rotation @ rotations[:, :, 0].transpose(-1, -2)).transpose(-1, -2)
        velocity = velocity_without_sliding(
            turned, prediction.contact, path.rotation, prediction.velocity, state.feet_turned
        )
        moved = replace(prediction, velocity=velocity)
        root, velocity, refiner = self.refine(moved, feet_world, state)
        refined = roll_out(root, velocity, state.refined_position)
        after = WorldState(
            refiner, path.position[:, -1], refined.position[:, -1], root[:, -1],
            feet_world[:, -1:], turned[:, -1:],
        )  # fmt: skip
        return Motion(
            body, rotations, position_cam, path, feet_world, root, velocity, refined
        ), after

    @torch.no_grad()
    def refine(
        self, prediction: Prediction, feet_world: Float[Tensor, "N T 4 3"], state: WorldState
    ) -> tuple[Float[Tensor, "N U 6"], Float[Tensor, "N T 3"], LstmState]:
        """Corrected root and velocity, and the refiner's state.

        The refiner sees the velocity of the feet in the world (x 30) times their contact; entry 0
        of the root stays.
        """
        before = feet_world[:, :1] if state.feet_world is None else state.feet_world
        speed = (feet_world - torch.cat([before, feet_world[:, :-1]], dim=1)) * FPS
        speed = (speed * prediction.contact[..., None]).flatten(-2)
        given = [prediction.context, speed, prediction.root[:, 1:], prediction.velocity]
        hidden, _, refiner = self.refiner.run(torch.cat(given, dim=-1), state.refiner)
        first = prediction.root[:, 0] if state.refined_root is None else state.refined_root
        root = torch.cat([first[:, None], prediction.root[:, 1:] + self.heads[0](hidden)], dim=1)
        return root, prediction.velocity + self.heads[1](hidden), refiner
