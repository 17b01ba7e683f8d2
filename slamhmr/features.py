"""Features of a scene state and their derivatives: what terms are functions of.

Two groups of points share one Jacobian: `points`, in the world, and `anchored`, as the camera sees
them; only the first depend on scale and drift. Rotations are those of the joints, the root's
relative to the camera's drift, so that no term on rotations depends on it.
"""

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import forward_points
from slamhmr.cameras import Placed
from slamhmr.layout import POSE_COLUMNS, ROOT_COLUMNS, BorderLayout
from slamhmr.neighbours import Neighbours
from slamhmr.scene import Evidence, PointSet, Scene
from slamhmr.skeleton import BODY_JOINT_COUNT
from slamhmr.solve.manifolds import left_jacobian, skew
from slamhmr.solve.problem import Articulation, FeatureGroup, RigidBorder


@dataclass(frozen=True)
class PersonFeatures:
    """One person's points and rotations in some frames; the input of every per-person term."""

    points: PointSet
    evidence: Evidence
    layout: BorderLayout
    betas: Float[Tensor, "B"]
    local: Float[Tensor, "T 22 3 3"]  # root against the drift, then local joint rotations
    rotations: Float[Tensor, "T 24 3 3"]  # global
    world: Float[Tensor, "T P 3"]  # points in the world
    anchored: Float[Tensor, "T P 3"]  # points relative to the camera's centre, world axes
    cam_from_world: Float[Tensor, "T 3 3"]  # with drift and jitter
    intrinsics: Float[Tensor, "T 4"]  # with the focal length's correction
    cameras: Placed
    drift: Float[Tensor, "M 6"]
    velocity_gain: Float[Tensor, ""]
    ground: Float[Tensor, "4"]
    up: Float[Tensor, "3"]  # against gravity
    jitter_free: bool
    offsets: Float[Tensor, "K 2"] | None = None  # of keypoints, in units of the person's size
    neighbours: Neighbours | None = None  # where a term looks at other people

    @property
    def metric_centres(self) -> Float[Tensor, "T 3"]:
        """Camera centres in the track's own axes, m: without drift and placement of segments."""
        return self.cameras.metric

    def path_by_scales(self) -> Float[Tensor, "T 3 c"]:
        """Derivative of `metric_centres` by the log scale, then by those of the segments."""
        stretched = self.evidence.rig.segments[:, None] * self.cameras.arm[..., None]
        return torch.cat([self.cameras.metric[..., None], stretched], dim=-1)

    @property
    def frame_count(self) -> int:
        """Frames of this window."""
        return len(self.world)

    def size_border(
        self, value: Float[Tensor, "T E R"]
    ) -> tuple[Float[Tensor, "T E R"], Float[Tensor, "T E R c"] | None]:
        """Residual divided by the body's relative size, and its explicit derivative by the betas.

        Zero-mean motion terms in metres reward a smaller world (scale 21-46 % short, solver_probe
        4.2). The caller divides its own derivatives by `points.size(betas)` too.
        """
        size = self.points.size(self.betas)
        scaled = value / size
        if self.layout.betas is None:
            return scaled, None
        relative = self.points.size_directions / (self.points.size_template * size)
        return scaled, -scaled[..., None] * relative

    def groups(self) -> dict[str, FeatureGroup]:
        """How points, rotations and the pose as a whole move with the unknowns."""
        free, count = self.layout.free, len(self.points.names)
        moving = BODY_JOINT_COUNT if free.pose else 1
        articulation = Articulation(
            self.world,
            self.world[:, :moving],
            self.rotations[:, :moving],
            self.points.moves[:moving],
            self.points.above[:moving, :moving],
            self.points.turning(moving),
        )
        seen, columns, rigid = self._body_border(), self.layout.body, self._rigid()
        whole = slice(0, self.layout.chain_width)
        riding = self._root_border(seen, rigid)
        rest = self.layout.free.columns - ROOT_COLUMNS
        groups = {
            "points": FeatureGroup(count, 3, 0, articulation, seen, columns, rigid),
            "anchored": FeatureGroup(count, 3, 0, articulation, seen, columns),
            "rotations": FeatureGroup(moving, 3, column=3),
            "pose": FeatureGroup(1, POSE_COLUMNS, column=6),
            "frame": FeatureGroup(1, self.layout.free.columns),
            "root": FeatureGroup(1, ROOT_COLUMNS, 0, None, riding, whole),
        }
        if self.evidence.flight is not None and bool(self.evidence.flight.any()):
            padded = torch.nn.functional.pad(riding, (0, 0, 0, rest))
            groups["body"] = FeatureGroup(1, self.layout.free.columns, 0, None, padded, whole)
        return groups

    def _root_border(
        self, seen: Float[Tensor, "T P3 c"] | None, rigids: tuple[RigidBorder, ...]
    ) -> Float[Tensor, "T 6 g"]:
        """How pelvis and root rotation ride with their camera: all columns of the chain."""
        layout = self.layout
        moved = self.world.new_zeros(len(self.world), ROOT_COLUMNS, layout.chain_width)
        if seen is not None and layout.body is not None:
            moved[:, :3, layout.body] = seen[:, :3]
        for rigid in rigids:
            spin = self.rotations[:, 0].mT @ rigid.twist[:, :3]
            twist = torch.cat([rigid.twist[:, 3:], spin], dim=1)
            modes = rigid.basis[:, None, :, None] * twist[:, :, None]
            moved[..., rigid.columns] = modes.flatten(start_dim=2)
        return moved

    def _body_border(self) -> Float[Tensor, "T P3 c"] | None:
        """Derivative of the points by focal length (everybody rides along) and betas."""
        if self.layout.body is None:
            return None
        count = self.world.shape[1]
        parts = []
        if self.layout.focal is not None:
            axis = self.cam_from_world[:, 2]
            depth = (self.anchored[:, 0] * axis).sum(dim=-1, keepdim=True)
            parts.append((depth * axis)[:, None, :, None].expand(-1, count, -1, -1))
        if self.layout.betas is not None:
            parts.append(self.by_shape())
        return torch.cat(parts, dim=-1).flatten(start_dim=1, end_dim=2)

    def by_shape(self) -> Float[Tensor, "T P 3 B"]:
        """Derivative of the points by the betas, the pelvis where it is."""
        body, place = self.points.body, self.points.places
        directions = body.point_shapedirs
        bones = directions - directions[body.point_parent]
        turned = self.rotations[:, body.point_parent] @ bones  # (T, P, 3, B)
        walked = body.point_path[place] @ turned.flatten(start_dim=2)
        return walked.reshape(*self.world.shape, -1)

    def _rigid(self) -> tuple[RigidBorder, ...]:
        """How scale and drift move all points of a frame, as twists about the pelvis."""
        found, frames = [], len(self.world)
        if self.layout.scale is not None:
            twist = self.world.new_zeros(frames, 6, 1)
            twist[:, 3:, 0] = self.cameras.scaled
            found.append(RigidBorder(self.layout.scale, twist, self.world.new_ones(frames, 1)))
        if self.layout.stretch is not None:
            twist = self.world.new_zeros(frames, 6, 1)
            twist[:, 3:, 0] = self.cameras.turned
            found.append(RigidBorder(self.layout.stretch, twist, self.evidence.rig.segments))
        place, freedom = self.layout.chain_drift, self.layout.free.drift
        if place is not None:
            basis = self.evidence.rig.basis
            twist = self.world.new_zeros(frames, 6, freedom)
            slope = left_jacobian(basis @ self.drift[:, :3])  # of Q_t by its rotation vector
            twist[:, :3, :3] = slope
            twist[:, 3:, :3] = -skew(self.anchored[:, 0]) @ slope
            if freedom == 6:
                twist[:, 3:, 3:] = torch.eye(3, dtype=twist.dtype, device=twist.device)
            found.append(RigidBorder(place, twist, basis))
        if self.layout.chain_segments is not None:
            twist = self.world.new_zeros(frames, 6, 6)
            spin = self.cameras.drift  # about the segment's first camera; the drift comes after it
            twist[:, :3, :3] = spin
            twist[:, 3:, :3] = -skew(self.anchored[:, 0]) @ spin - skew(self.cameras.turned)
            twist[:, 3:, 3:] = torch.eye(3, dtype=twist.dtype, device=twist.device)
            segments = self.evidence.rig.segments
            found.append(RigidBorder(self.layout.chain_segments, twist, segments))
        return tuple(found)


def person_features(
    points: PointSet,
    known: Evidence,
    layout: BorderLayout,
    scene: Scene,
    index: int,
    start: int = 0,
) -> PersonFeatures:
    """Kinematics of one person at a state, in the frames of `known`.

    These begin at frame `start` of the person's span.
    """
    person, frames = scene.people[index], len(known.times)
    span = slice(start, start + frames)
    rotations, pelvis = person.rotations[span], person.pelvis[span]
    body_points, turned = forward_points(
        points.body, person.betas[None], rotations[None, :, 0], pelvis[None], rotations[None, :, 1:]
    )
    world = body_points[0][:, points.places]
    cameras = scene.place(known.rig)
    local = rotations.clone()
    local[:, 0] = cameras.turn.mT @ rotations[:, 0]
    cam_from_world = jitter_rotation(scene, known) @ (cameras.turn @ known.world_from_cam).mT
    intrinsics = known.intrinsics.clone()
    intrinsics[:, :2] *= scene.log_focal.exp()
    return PersonFeatures(
        points, known, layout, person.betas, local, turned[0], world,
        world - cameras.centre[:, None], cam_from_world, intrinsics, cameras, scene.drift,
        scene.velocity_gain[index], scene.ground, scene.up, scene.jitter_information is not None,
        None if scene.offsets is None else scene.offsets[index],
    )  # fmt: skip


def jitter_rotation(scene: Scene, known: Evidence) -> Float[Tensor, "T 3 3"]:
    """exp([j]x) of the frames of `known`: the camera shakes against what SLAM says."""
    jitter = scene.jitter[known.first : known.first + len(known.times)]
    return roma.rotvec_to_rotmat(jitter)
