"""Features of a scene state and their derivatives: what terms are functions of.

Per person and frame the unknowns are the pelvis joint (3, metres), and body-frame increments of
the root rotation (3) and of the 21 joint rotations (63). Shared: log scale, ground (two tilts,
offset), betas. Scale is camera-anchored: X = Y + s c_t, where Y is the position seen from the
camera's centre, and the retraction keeps Y when s moves; so image points do not depend on the
scale at all, and world points have the derivative s c_t with respect to log s.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slamhmr.body import BodyModel, forward_points
from slamhmr.skeleton import BODY_JOINT_COUNT, CONTACT_POINTS, KEYPOINTS, SMPL_JOINTS
from slamhmr.solve.manifolds import compose_rotation
from slamhmr.solve.problem import FeatureGroup, Step

ROOT_COLUMNS = 6  # pelvis 3, root rotation 3; the 63 body columns follow
POSE_COLUMNS = 63


@dataclass(frozen=True)
class Free:
    """Which unknowns a stage moves."""

    pose: bool
    betas: bool
    scale: bool
    ground: bool

    @property
    def columns(self) -> int:
        """Unknowns per frame."""
        return ROOT_COLUMNS + POSE_COLUMNS * self.pose


@dataclass(frozen=True)
class BorderLayout:
    """Places of the shared unknowns, in the whole border and in a chain's own.

    Order: log scale, ground, then betas (of every person in the border, of its own in a chain).
    """

    free: Free
    betas_count: int

    @property
    def scale(self) -> int | None:
        """Column of log scale; the same in the border and in every chain."""
        return 0 if self.free.scale else None

    @property
    def ground(self) -> slice | None:
        """Columns of the ground's two tilts and offset."""
        start = int(self.free.scale)
        return slice(start, start + 3) if self.free.ground else None

    @property
    def shared(self) -> int:
        """Columns before the betas."""
        return int(self.free.scale) + 3 * int(self.free.ground)

    @property
    def betas(self) -> slice | None:
        """Columns of a person's betas in its own chain."""
        return slice(self.shared, self.shared + self.betas_count) if self.free.betas else None

    @property
    def chain_width(self) -> int:
        """Border columns that one chain sees."""
        return self.shared + self.betas_count * self.free.betas

    def betas_of(self, person: int) -> slice:
        """Columns of a person's betas in the whole border."""
        start = self.shared + person * self.betas_count
        return slice(start, start + self.betas_count)

    def width(self, people: int) -> int:
        """Columns of the whole border."""
        return self.shared + people * self.betas_count * self.free.betas

    def columns(self, person: int) -> Int[Tensor, "g"]:
        """The chain's border columns among those of the whole border."""
        own = self.betas_of(person)
        betas = range(own.start, own.stop) if self.free.betas else range(0)
        return torch.tensor([*range(self.shared), *betas], dtype=torch.int64)


@dataclass(frozen=True)
class Person:
    """One person's unknowns over its own span of frames."""

    rotations: Float[Tensor, "T 22 3 3"]  # root in the world, then local joint rotations
    pelvis: Float[Tensor, "T 3"]
    betas: Float[Tensor, "B"]


@dataclass(frozen=True)
class Scene:
    """All unknowns."""

    people: tuple[Person, ...]
    log_scale: Float[Tensor, ""]
    ground: Float[Tensor, "4"]
    scale_prior: Float[Tensor, "2"]  # mean and standard deviation of log scale; a constant


@dataclass(frozen=True)
class Evidence:
    """What is known about one person over its span: constants of a stage."""

    keypoints: Float[Tensor, "T K 2"]
    confidence: Float[Tensor, "T K"]
    keypoint_points: Int[Tensor, "K"]  # place of each keypoint among `PointSet.names`
    size_px: Float[Tensor, "T"]  # apparent size of the person
    cam_from_world: Float[Tensor, "T 3 3"]
    centres: Float[Tensor, "T 3"]  # camera centres, SLAM units
    intrinsics: Float[Tensor, "T 4"]
    contacts: Float[Tensor, "T 4"]
    times: Float[Tensor, "T"]  # s
    linked: Bool[Tensor, "T"]  # frame t and t + 1 belong to one take; false at cuts and at the end
    initial_rotations: Float[Tensor, "T 22 3 3"]
    initial_confidence: Float[Tensor, "T 22"]
    height_m: float | None


@dataclass(frozen=True)
class PointSet:
    """The points that terms may use: 22 joints and the landmarks that are keypoints."""

    body: BodyModel
    names: tuple[str, ...]
    places: Int[Tensor, "P"]  # among body.point_names
    pair_point: Int[Tensor, "n"]  # (point, joint) pairs where the joint's rotation moves the point
    pair_joint: Int[Tensor, "n"]
    contact: Int[Tensor, "4"]
    clearance: Float[Tensor, "P"]  # m above the ground with the sole flat on it; 0 but for the feet
    size_directions: Float[Tensor, "B"]  # d length / d betas of the size measure
    size_template: float  # metres, neck to ankles at rest
    height_directions: Float[Tensor, "B"]
    height_template: float  # stature: top of the head to heels at rest, metres

    def size(self, betas: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        """Length of this body relative to the template's."""
        return 1.0 + betas @ self.size_directions / self.size_template

    def height(self, betas: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        """Stature, metres."""
        return self.height_template + betas @ self.height_directions


def point_set(body: BodyModel) -> PointSet:
    """Choose the solver's points of a body model."""
    landmarks = [n for n in body.landmark_names if n in KEYPOINTS]
    names = (*SMPL_JOINTS[:BODY_JOINT_COUNT], *landmarks)
    places = [body.point_names.index(name) for name in names]
    ancestors: list[set[int]] = []
    for joint in range(BODY_JOINT_COUNT):
        parent = body.parents[joint]
        ancestors.append((ancestors[parent] | {parent}) if joint > 0 else set())
    pairs = [(p, j) for p in range(BODY_JOINT_COUNT) for j in sorted(ancestors[p])]
    for index, name in enumerate(landmarks):
        joint = int(body.landmark_joint[body.landmark_names.index(name)])
        pairs += [(BODY_JOINT_COUNT + index, j) for j in sorted(ancestors[joint] | {joint})]
    template, directions = body.point_template, body.point_shapedirs

    def extent(top: str, bottoms: tuple[str, str]) -> tuple[float, Tensor]:
        first = body.point_names.index(top)
        last = [body.point_names.index(b) for b in bottoms]
        length = template[first, 1] - template[last, 1].mean()
        return float(length), directions[first, 1] - directions[last, 1].mean(dim=0)

    size, size_directions = extent("neck", ("left_ankle", "right_ankle"))
    head = "head_top" if "head_top" in body.point_names else "nose"
    height, height_directions = extent(head, ("left_heel", "right_heel"))
    return PointSet(
        body, names, torch.tensor(places),
        torch.tensor([p for p, _ in pairs]), torch.tensor([j for _, j in pairs]),
        torch.tensor([names.index(n) for n in CONTACT_POINTS]), _clearance(body, names),
        size_directions, size, height_directions, height,
    )  # fmt: skip


def _clearance(body: BodyModel, names: tuple[str, ...]) -> Float[Tensor, "P"]:
    """Rest height of heels and toes above the lowest vertex; 0 for every other point."""
    sole = body.v_template[:, 1].min()
    heights = torch.stack([body.point_template[body.point_names.index(n), 1] for n in names]) - sole
    on_foot = torch.tensor([name.endswith(("_heel", "_toe")) for name in names])
    return torch.where(on_foot, heights, torch.zeros_like(heights))


@dataclass(frozen=True)
class PersonFeatures:
    """One person's points and rotations at a state; the input of every per-person term."""

    points: PointSet
    evidence: Evidence
    layout: BorderLayout
    betas: Float[Tensor, "B"]
    local: Float[Tensor, "T 22 3 3"]
    rotations: Float[Tensor, "T 24 3 3"]  # global
    world: Float[Tensor, "T P 3"]  # points in the world
    anchored: Float[Tensor, "T P 3"]  # points relative to the camera's centre, world axes
    metric_centres: Float[Tensor, "T 3"]  # s c_t
    ground: Float[Tensor, "4"]

    @property
    def frame_count(self) -> int:
        """Frames of this person's span."""
        return len(self.world)

    def explicit_border(self, derivative: Float[Tensor, "S T E R 3"]) -> Float[Tensor, "T E R g"]:
        """Border derivative of a residual on *world* points: fills the column of log scale.

        d r_t / d log s = sum_i D_i s c_(t+i); the other columns are left at zero for the term to
        fill.
        """
        stencil, frames, elements, rows, _ = derivative.shape
        border = derivative.new_zeros(frames, elements, rows, self.layout.chain_width)
        if self.layout.scale is not None:
            for i in range(stencil):
                centres = self.metric_centres[i:][:, None, :, None]
                moved = (derivative[i, : frames - i] @ centres)[..., 0]
                border[: frames - i, ..., self.layout.scale] += moved
        return border

    def divide_by_size(
        self, value: Float[Tensor, "T E R"], border: Float[Tensor, "T E R g"] | None
    ) -> Float[Tensor, "T E R"]:
        """Residual divided by the body's relative size; its derivative goes into `border` in place.

        Zero-mean motion terms in metres reward a smaller world (scale 21-46 % short, solver_probe
        4.2). The caller divides its own derivatives by `points.size(betas)` too.
        """
        size = self.points.size(self.betas)
        scaled = value / size
        if border is not None and self.layout.betas is not None:
            relative = self.points.size_directions / (self.points.size_template * size)
            border[..., self.layout.betas] -= scaled[..., None] * relative
        return scaled

    def groups(self) -> dict[str, FeatureGroup]:
        """How points, rotations and the pose as a whole move with the unknowns."""
        free, count = self.layout.free, len(self.points.names)
        moving = BODY_JOINT_COUNT if free.pose else 1
        return {
            "points": FeatureGroup(count, 3, rows=self.point_rows, border=self._point_border()),
            "rotations": FeatureGroup(moving, 3, column=3),
            "pose": FeatureGroup(1, POSE_COLUMNS, column=ROOT_COLUMNS),
        }

    def point_rows(self, start: int, stop: int) -> Float[Tensor, "t P3 d"]:
        """Jacobian of the points of some frames.

        A body-frame increment d of joint j moves a descendant point X by (G_j d) x (X - X_j).
        """
        pair_point, pair_joint = self.points.pair_point, self.points.pair_joint
        free = self.layout.free
        if not free.pose:
            pair_point, pair_joint = pair_point[pair_joint == 0], pair_joint[pair_joint == 0]
        moving = BODY_JOINT_COUNT if free.pose else 1
        world, rotations = self.world[start:stop], self.rotations[start:stop]
        frames, count = world.shape[:2]
        arm = world[:, pair_point] - world[:, pair_joint]  # the first 22 points are the joints
        axes = rotations[:, pair_joint]
        turned = torch.linalg.cross(axes, arm[..., None].expand_as(axes), dim=-2)
        blocks = world.new_zeros(frames, count * moving, 3, 3)
        blocks[:, pair_point * moving + pair_joint] = turned
        rows = world.new_zeros(frames, count, 3, free.columns)
        rows[..., 0, 0] = rows[..., 1, 1] = rows[..., 2, 2] = 1.0
        rows[..., 3:] = (
            blocks.reshape(frames, count, moving, 3, 3)
            .transpose(2, 3)
            .reshape(frames, count, 3, -1)
        )
        return rows.reshape(frames, count * 3, -1)

    def _point_border(self) -> Float[Tensor, "T P3 g"] | None:
        """Derivative of the points with respect to the betas, in the chain's border columns."""
        columns = self.layout.betas
        if columns is None:
            return None
        body, frames = self.points.body, self.frame_count
        directions, parents = body.point_shapedirs, body.point_parent.tolist()
        moved = [self.world.new_zeros(frames, 3, directions.shape[-1])]
        for index in range(1, len(parents)):
            offset = directions[index] - directions[parents[index]]
            moved.append(moved[parents[index]] + self.rotations[:, parents[index]] @ offset)
        chosen = torch.stack([moved[int(p)] for p in self.points.places], dim=1)
        border = self.world.new_zeros(frames, chosen.shape[1] * 3, self.layout.chain_width)
        border[..., columns] = chosen.reshape(frames, -1, chosen.shape[-1])
        return border


def person_features(
    points: PointSet, evidence: Evidence, layout: BorderLayout, scene: Scene, index: int
) -> PersonFeatures:
    """Kinematics of one person at a state."""
    person = scene.people[index]
    body_points, rotations = forward_points(
        points.body,
        person.betas[None],
        person.rotations[None, :, 0],
        person.pelvis[None],
        person.rotations[None, :, 1:],
    )
    world = body_points[0][:, points.places]
    centres = torch.exp(scene.log_scale) * evidence.centres
    return PersonFeatures(
        points, evidence, layout, person.betas, person.rotations, rotations[0], world,
        world - centres[:, None], centres, scene.ground,
    )  # fmt: skip


def retract(scene: Scene, step: Step, layout: BorderLayout, evidence: list[Evidence]) -> Scene:
    """Move the scene: rotations in their body frames, people riding with their cameras."""
    increment = step.border.new_zeros(())
    if layout.scale is not None:
        increment = step.border[layout.scale]
    growth = (torch.exp(increment) - 1.0) * torch.exp(scene.log_scale)
    people = []
    for index, (person, move, known) in enumerate(
        zip(scene.people, step.chains, evidence, strict=True)
    ):
        pelvis = person.pelvis + move[:, :3] + growth * known.centres
        turn = move[:, 3:].reshape(len(move), -1, 3)
        rotations = person.rotations.clone()
        rotations[:, : turn.shape[1]] = compose_rotation(rotations[:, : turn.shape[1]], turn)
        betas = person.betas
        if layout.free.betas:
            betas = betas + step.border[layout.betas_of(index)]
        people.append(Person(rotations, pelvis, betas))
    ground = scene.ground
    if layout.ground is not None:
        ground = tilt_ground(ground, step.border[layout.ground])
    return replace(
        scene, people=tuple(people), log_scale=scene.log_scale + increment, ground=ground
    )


def ground_axes(ground: Float[Tensor, "4"]) -> Float[Tensor, "2 3"]:
    """Two unit vectors that span the ground plane."""
    normal = ground[:3]
    spare = torch.eye(3, dtype=ground.dtype, device=ground.device)[int(normal.abs().argmin())]
    first = torch.nn.functional.normalize(torch.linalg.cross(normal, spare), dim=0)
    return torch.stack([first, torch.linalg.cross(normal, first)])


def tilt_ground(ground: Float[Tensor, "4"], increment: Float[Tensor, "3"]) -> Float[Tensor, "4"]:
    """Plane n.x + d = 0, its normal tilted by two small angles and its offset moved (m)."""
    normal = ground[:3] + increment[:2] @ ground_axes(ground)
    return torch.cat([normal / normal.norm(), ground[3:] + increment[2:]])
