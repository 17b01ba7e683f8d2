"""First frame of a person for WHAM: pose, 3D keypoints and level root, by another initialiser."""

from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from priors.rotation6d import matrix_to_rows
from priors.wham import Start
from priors.wham_mirror import MIRROR_KEYPOINTS, mirror_pose
from slamhmr.body import BodyModel, forward_points
from slamhmr.geometry import project, rotation_between
from slamhmr.init.gravity import robust_up
from slamhmr.init.wham_tracks import Track
from slamhmr.registry import backend
from slamhmr.skeleton import COCO_KEYPOINTS, KEYPOINT_JOINT
from slamhmr.types import CameraTrack, Initial, Observations

MIDDLE = [COCO_KEYPOINTS.index("left_hip"), COCO_KEYPOINTS.index("right_hip")]


@dataclass(frozen=True)
class Beginning:
    """What is known of a track's first frame."""

    keypoints: Float[Tensor, "17 3"]  # from the middle of the hips, camera axes, m
    pose: Float[Tensor, "24 3 3"]  # root in the camera first
    root: Float[Tensor, "3 3"]  # in a y-down world that is level

    def for_network(self, view: Float[Tensor, "1 37"], *, mirrored: bool) -> Start:
        """The network's start; `view` is the first frame's keypoints as the network sees them."""
        points, pose = self.keypoints, matrix_to_rows(self.pose)
        if mirrored:
            points = points[list(MIRROR_KEYPOINTS)] * points.new_tensor([-1.0, 1.0, 1.0])
            pose = mirror_pose(pose)
        known = torch.cat([points.reshape(1, -1).float(), view], dim=-1)
        return Start(known, pose[None].float(), matrix_to_rows(self.root)[None].float())


def begin(
    track: Track,
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    initialiser: str,
) -> tuple[Track, Beginning]:
    """The first frame from the first second of a track.

    The track comes back with keypoints that its first frame does not see where the body has them:
    the network's start has no mask.
    """
    rows = track.rows[: max(1, round(observations.fps))]
    first, path = _cut(observations, cameras, track.person, rows)
    module = backend("init", initialiser)
    initial: Initial = module.initialise(first, path, body, module.Options())
    root = initial.cam_from_root[0, :, :3, :3]
    local = roma.rotvec_to_rotmat(initial.body_pose[0, 0])
    hands = torch.eye(3, dtype=local.dtype).expand(2, 3, 3)
    pose = torch.cat([root[:1], local, hands])
    points = points_of(body, pose[None], initial.betas[:1], COCO_KEYPOINTS)[0]
    seen = project(points + initial.cam_from_root[0, 0, :3, 3], track.intrinsics[0])
    keypoints = track.keypoints.clone()
    keypoints[0] = torch.where((track.confidence[0] > 0)[:, None], keypoints[0], seen)
    up = _up(initial, path)
    level = rotation_between(up, up.new_tensor([0.0, -1.0, 0.0]))
    centred = points - points[MIDDLE].mean(dim=0)
    return replace(track, keypoints=keypoints), Beginning(centred, pose, level @ root[0])


def points_of(
    body: BodyModel,
    rotations: Float[Tensor, "B 24 3 3"],
    betas: Float[Tensor, "B D"],
    names: tuple[str, ...],
) -> Float[Tensor, "B P 3"]:
    """Named keypoints of bodies with the pelvis joint at 0."""
    index = [body.point_names.index(KEYPOINT_JOINT.get(name, name)) for name in names]
    pelvis = torch.zeros(len(rotations), 1, 3, dtype=rotations.dtype)
    points, _ = forward_points(body, betas, rotations[:, None, 0], pelvis, rotations[:, None, 1:22])
    return points[:, 0, index]


def _cut(
    observations: Observations, cameras: CameraTrack, person: int, rows: Tensor
) -> tuple[Observations, CameraTrack]:
    """One person and the cameras in some frames."""
    one = slice(person, person + 1)
    times = observations.timestamps[rows]
    return (
        replace(
            observations,
            person_id=observations.person_id[one],
            keypoints=observations.keypoints[one][:, rows],
            confidence=observations.confidence[one][:, rows],
            boxes=observations.boxes[one][:, rows],
            timestamps=times - times[0],
        ),
        replace(
            cameras,
            world_from_cam=cameras.world_from_cam[rows],
            intrinsics=cameras.intrinsics[rows],
            covariance=None,
            points=None,
        ),
    )


def _up(initial: Initial, path: CameraTrack) -> Float[Tensor, "3"]:
    """Against gravity, in the first camera: what the initialiser says, else upright trunks."""
    if initial.up_cam is not None:
        return initial.up_cam[0, 0]
    turns = path.world_from_cam[:, :3, :3]
    axes = (turns @ initial.cam_from_root[0, :, :3, :3])[..., 1]
    return turns[0].mT @ robust_up(axes, torch.ones_like(axes[:, 0]), turns)
