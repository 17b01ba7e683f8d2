"""People with a known truth, from which tests write what other regressors would have written.

The body is ours under SMPL's or SMPL-X's name, with its pelvis joint away from the origin and moved
by the betas as theirs is, so that `transl` and pelvis differ.
"""

from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from torch import Tensor

from slamhmr.body import BodyModel, forward_points, load_body, rest_points
from slamhmr.geometry import project
from slamhmr.scene import point_set
from slamhmr.skeleton import KEYPOINTS
from slamhmr.types import CameraTrack, Initial, Observations

SIZE = (640, 480)
LENS = (700.0, 700.0, 320.0, 240.0)
Y_UP = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # from z up
LOOK = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # along world +y


def body_named(name: str) -> BodyModel:
    body = load_body()
    shift = torch.tensor([0.003, -0.3, 0.02], dtype=torch.float64)
    grow = torch.linspace(-0.01, 0.02, 10, dtype=torch.float64)
    return replace(
        body,
        name=name,
        v_template=body.v_template + shift,
        joint_template=body.joint_template + shift,
        landmark_template=body.landmark_template + shift,
        shapedirs=body.shapedirs + grow,
        joint_shapedirs=body.joint_shapedirs + grow,
        landmark_shapedirs=body.landmark_shapedirs + grow,
    )


@dataclass(frozen=True)
class Truth:
    """Everybody in the camera and in a world with z up."""

    body: BodyModel
    world_from_root: Tensor  # (N,T,3,3)
    pelvis_world: Tensor  # (N,T,3)
    pose: Tensor  # (N,T,21,3)
    betas: Tensor  # (N,10)
    cameras: CameraTrack  # metric
    observations: Observations

    @property
    def root(self) -> Tensor:
        """Roots in the camera, (N,T,3,3)."""
        return self.cameras.world_from_cam[:, :3, :3].mT @ self.world_from_root

    @property
    def pelvis(self) -> Tensor:
        """Pelvis joints in the camera, (N,T,3)."""
        placed = self.cameras.world_from_cam
        return ((self.pelvis_world - placed[:, :3, 3])[..., None, :] @ placed[:, :3, :3])[..., 0, :]

    def rest(self, person: int) -> Tensor:
        """Rest position of a person's pelvis joint, (3,)."""
        return rest_points(self.body, self.betas[person : person + 1])[0, 0]

    def transl(self, person: int, lens: tuple[float, ...] = LENS) -> np.ndarray:
        """The model's `transl` in a camera of another lens that shows the same picture, (T,3)."""
        place, theirs = self.pelvis[person], torch.tensor(lens, dtype=torch.float64)
        ours = torch.tensor(LENS, dtype=torch.float64)
        pixel = ours[:2] * place[:, :2] / place[:, 2:] + ours[2:]
        depth = place[:, 2:] * theirs[0] / ours[0]
        across = (pixel - theirs[2:]) / theirs[:2] * depth
        return (torch.cat([across, depth], dim=1) - self.rest(person)).numpy()

    def velocity(self, person: int) -> Tensor:
        """What `Initial.root_velocity` is to be, but for the last frame, (T-1,3)."""
        step = torch.diff(self.pelvis_world[person], dim=0) * self.observations.fps
        local = (self.world_from_root[person, :-1].mT @ step[..., None])[..., 0]
        return local / point_set(self.body).size(self.betas[person])

    def up(self) -> Tensor:
        """Against gravity in the camera, (T,3)."""
        return self.cameras.world_from_cam[:, 2, :3]


def make_truth(name: str = "smpl", people: int = 2, frames: int = 9, fps: float = 30.0) -> Truth:
    """People who walk, turn and bend in front of a camera that moves and tilts."""
    body = body_named(name)
    generator = torch.Generator().manual_seed(7)
    time = torch.linspace(0, 1, frames, dtype=torch.float64)
    wave = torch.sin(2 * torch.pi * time[:, None] + torch.arange(66, dtype=torch.float64))
    turns = roma.rotvec_to_rotmat(0.3 * wave[:, :3])
    upright = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    root = upright @ turns.expand(people, frames, 3, 3)
    pelvis = torch.zeros(people, frames, 3, dtype=torch.float64)
    pelvis[..., 0] = 1.4 * torch.arange(people, dtype=torch.float64)[:, None] - 0.7
    pelvis[..., 0] += 0.3 * time
    pelvis[..., 1] = 4.0 + 0.4 * time
    pose = (0.15 * wave[:, 3:].reshape(frames, 21, 3)).expand(people, -1, -1, -1).clone()
    betas = 0.5 * torch.randn(people, 10, generator=generator, dtype=torch.float64)
    world_from_cam = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    tilt = torch.stack([0.1 + 0.05 * time, 0.02 * time, 0.05 * time], dim=1)
    world_from_cam[:, :3, :3] = LOOK @ roma.rotvec_to_rotmat(tilt)
    world_from_cam[:, :3, 3] = 0.2 * torch.stack([time, time**2, 0 * time], dim=1)
    lens = torch.tensor(LENS, dtype=torch.float64).expand(frames, 4).clone()
    cameras = CameraTrack(world_from_cam, lens, SIZE, True, True, "test")
    points, _ = forward_points(body, betas, root, pelvis, roma.rotvec_to_rotmat(pose))
    columns = [body.point_names.index(point) for point in KEYPOINTS]
    seen = (points[:, :, columns] - world_from_cam[:, None, :3, 3]) @ world_from_cam[:, :3, :3]
    image = project(seen, lens.expand(people, frames, 4))
    observations = Observations(
        person_id=torch.arange(1, people + 1),
        keypoints=image,
        confidence=torch.ones(image.shape[:3], dtype=torch.float64),
        keypoint_names=KEYPOINTS,
        boxes=torch.cat([image.amin(dim=2), image.amax(dim=2)], dim=-1),
        image_size=SIZE,
        fps=fps,
        timestamps=torch.arange(frames, dtype=torch.float64) / fps,
    )
    return Truth(body, root, pelvis, pose, betas, cameras, observations)


def only(truth: Truth, person: int) -> Observations:
    """Observations of one person."""
    rows = slice(person, person + 1)
    seen = truth.observations
    return replace(
        seen,
        person_id=seen.person_id[rows],
        keypoints=seen.keypoints[rows],
        confidence=seen.confidence[rows],
        boxes=seen.boxes[rows],
    )


def check_poses(found: Initial, truth: Truth, people: list[int], exact: float = 1e-6) -> None:
    """Same roots, places, poses and shapes, in the order of `people`."""
    assert bool(found.valid.all())
    assert torch.allclose(found.cam_from_root[..., :3, :3], truth.root[people], atol=exact)
    assert torch.allclose(found.cam_from_root[..., :3, 3], truth.pelvis[people], atol=exact)
    turns = roma.rotvec_to_rotmat(found.body_pose)
    assert torch.allclose(turns, roma.rotvec_to_rotmat(truth.pose[people]), atol=exact)
    assert torch.allclose(found.betas, truth.betas[people], atol=exact)


def pixels_off(found: Initial, truth: Truth, body: BodyModel) -> Tensor:
    """Distance of limb joints in the picture, px, of a start on any body, (N,T,12)."""
    names = KEYPOINTS[5:17]
    points, _ = forward_points(
        body,
        found.betas,
        found.cam_from_root[..., :3, :3],
        found.cam_from_root[..., :3, 3],
        roma.rotvec_to_rotmat(found.body_pose),
    )
    joints = points[:, :, [body.point_names.index(name) for name in names]]
    lens = truth.cameras.intrinsics.expand(len(points), -1, -1)
    columns = [KEYPOINTS.index(name) for name in names]
    return (project(joints, lens) - truth.observations.keypoints[:, :, columns]).norm(dim=-1)
