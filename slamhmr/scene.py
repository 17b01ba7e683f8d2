"""Unknowns of a scene, what is known of it, and how a step moves it.

Per person and frame the unknowns are the pelvis joint (3, metres), and body-frame increments of
the root rotation (3) and of the 21 joint rotations (63). Shared (the border): log scale, ground
(two tilts, offset), gravity (two tilts), log focal length, drift of the cameras, place and scale of
every piece of their path, betas, gain of the predicted velocity, constant offsets of the keypoints.
People are anchored to their camera: X = C_t + Q_t Y, where Y is the position seen from the camera,
C_t its centre and Q_t how it was turned by corrections; the retraction keeps Y when the cameras
move, so image points do not depend on that at all, and world points have the derivatives of C_t
and Q_t.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slamhmr.body import BodyModel
from slamhmr.cameras import MODES, Placed, Rig
from slamhmr.capsules import Capsules, capsules_of
from slamhmr.layout import BorderLayout
from slamhmr.skeleton import BODY_JOINT_COUNT, CONTACT_POINTS, KEYPOINTS, SMPL_JOINTS
from slamhmr.solve.manifolds import compose_rotation
from slamhmr.solve.problem import Step

LOST_JITTER = math.radians(5.0)  # rad, of a camera between the frames in which it is known


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
    up: Float[Tensor, "3"]  # against gravity, unit
    log_focal: Float[Tensor, ""]  # correction of the focal length
    drift: Float[Tensor, "M 6"]  # of the cameras, per mode: rotation (rad), offset (m)
    jitter: Float[Tensor, "F 3"]  # of the cameras of all frames, in their own axes, rad
    jitter_information: Float[Tensor, "F 3 3"] | None  # of all people and its prior; None: fixed
    scale_prior: Float[Tensor, "2"]  # mean and standard deviation of log scale; a constant
    velocity_gain: Float[Tensor, "N"]  # log of predicted over true speed of everybody's root
    up_sigma: Float[Tensor, ""] | None = None  # of each tilt of gravity, rad; a constant
    offsets: Float[Tensor, "N K 2"] | None = None  # of keypoints, in units of the person's size
    segments: Float[Tensor, "S 7"] | None = None  # of the cameras after the first; None: no others
    segment_sigma: Float[Tensor, "S 4"] | None = None  # rad, rad, m, log; a constant
    lost: Bool[Tensor, "F"] | None = None  # frames of which no camera is known; a constant

    def jitter_sigma(self, usual: float) -> Float[Tensor, "F 1"]:
        """Standard deviation of every frame's jitter, rad: `usual` but where the camera is lost."""
        sigma = torch.full_like(self.jitter[:, :1], usual)
        if self.lost is not None:
            sigma = torch.where(self.lost[:, None], LOST_JITTER, sigma)
        return sigma

    def place(self, rig: Rig) -> Placed:
        """The cameras of some frames where this scene has them."""
        moves = self.segments
        if moves is None:
            moves = self.drift.new_zeros(rig.segments.shape[1], 7)
        return rig.place(self.log_scale, self.drift, moves)


@dataclass(frozen=True)
class ViewEvidence:
    """What another camera than the main one saw of one person; constants of a stage."""

    keypoints: Float[Tensor, "T K 2"]
    confidence: Float[Tensor, "T K"]
    keypoint_points: Int[Tensor, "K"]
    size_px: Float[Tensor, "T"]
    rotation: Float[Tensor, "T 3 3"]  # cam_from_main
    translation: Float[Tensor, "T 3"]  # of cam_from_main, m
    intrinsics: Float[Tensor, "T 4"]

    def part(self, span: slice) -> "ViewEvidence":
        """The same of some frames of the span."""
        return ViewEvidence(
            self.keypoints[span], self.confidence[span], self.keypoint_points,
            self.size_px[span], self.rotation[span], self.translation[span],
            self.intrinsics[span],
        )  # fmt: skip


def _pattern(
    keypoints: Float[Tensor, "T K 2"], confidence: Float[Tensor, "T K"], size: Float[Tensor, "T"]
) -> Float[Tensor, "K 2"]:
    """Mean place of every keypoint about the centre of those seen, over the person's size."""
    weight = confidence[..., None]
    seen = torch.where(weight > 0, keypoints, 0.0)
    centre = (weight * seen).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-9)
    apart = weight * (seen - centre) / size[:, None, None]
    return apart.sum(dim=0) / weight.sum(dim=0).clamp_min(1e-9)


@dataclass(frozen=True)
class Evidence:
    """What is known about one person over its span, or a part of it: constants of a stage."""

    first: int  # frame of the clip at which the span begins
    keypoints: Float[Tensor, "T K 2"]
    confidence: Float[Tensor, "T K"]
    keypoint_points: Int[Tensor, "K"]  # place of each keypoint among `PointSet.names`
    size_px: Float[Tensor, "T"]  # apparent size of the person
    world_from_cam: Float[Tensor, "T 3 3"]  # of SLAM, without drift
    rig: Rig  # camera centres, and how they may move
    intrinsics: Float[Tensor, "T 4"]
    contacts: Float[Tensor, "T 4"]
    times: Float[Tensor, "T"]  # s
    linked: Bool[Tensor, "T"]  # frame t and t + 1 belong to one take; false at cuts and at the end
    initial_rotations: Float[Tensor, "T 22 3 3"]
    initial_confidence: Float[Tensor, "T 22"]
    height_m: float | None
    # What the start predicts with a sigma, None where it does not.
    rotation_sigma: Float[Tensor, "T 22"] | None = None  # rad
    root_velocity: Float[Tensor, "T 3"] | None = None  # m/s, root axes, for the mean size
    root_velocity_sigma: Float[Tensor, "T 3"] | None = None  # infinite where nothing is predicted
    tied: Bool[Tensor, "T"] | None = None  # motion goes on from t to t + 1 into another segment
    views: tuple[ViewEvidence, ...] = ()  # of the other cameras
    support: Float[Tensor, "T 4"] | None = None  # above the ground, below heels and toes, m / size
    flight: Bool[Tensor, "T"] | None = None  # frames of free fall

    @property
    def keypoint_count(self) -> int:
        """Keypoints of all cameras."""
        others = sum(len(view.keypoint_points) for view in self.views)
        return len(self.keypoint_points) + others

    def patterns(self) -> Float[Tensor, "C L 2"]:
        """Mean arrangement of the keypoints of each camera about their centre, over the size.

        Zero for the keypoints of other cameras.
        """
        seen = [(self.keypoints, self.confidence, self.size_px)]
        seen += [(view.keypoints, view.confidence, view.size_px) for view in self.views]
        patterns, place = self.keypoints.new_zeros(len(seen), self.keypoint_count, 2), 0
        for camera, of_one in enumerate(seen):
            count = of_one[0].shape[1]
            patterns[camera, place : place + count] = _pattern(*of_one)
            place += count
        return patterns

    def part(self, start: int, stop: int) -> "Evidence":
        """The same of some frames of the span."""
        span = slice(start, stop)

        def cut(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[span]

        return replace(
            self,
            first=self.first + start,
            keypoints=self.keypoints[span],
            confidence=self.confidence[span],
            size_px=self.size_px[span],
            world_from_cam=self.world_from_cam[span],
            rig=self.rig.part(span),
            intrinsics=self.intrinsics[span],
            contacts=self.contacts[span],
            times=self.times[span],
            linked=self.linked[span],
            initial_rotations=self.initial_rotations[span],
            initial_confidence=self.initial_confidence[span],
            rotation_sigma=cut(self.rotation_sigma),
            root_velocity=cut(self.root_velocity),
            root_velocity_sigma=cut(self.root_velocity_sigma),
            tied=cut(self.tied),
            views=tuple(view.part(span) for view in self.views),
            support=cut(self.support),
            flight=cut(self.flight),
        )


@dataclass(frozen=True)
class PointSet:
    """The points that terms may use: 22 joints and the landmarks that are keypoints."""

    body: BodyModel
    names: tuple[str, ...]
    places: Int[Tensor, "P"]  # among body.point_names
    moves: Bool[Tensor, "22 P"]  # the joint's rotation moves the point
    above: Bool[Tensor, "22 22"]  # [i, j]: joint i is joint j or an ancestor of it
    contact: Int[Tensor, "c"]  # heels and toes
    clearance: Float[Tensor, "P"]  # m above the ground with the sole flat on it; 0 but for the feet
    size_directions: Float[Tensor, "B"]  # d length / d betas of the size measure
    size_template: float  # metres, neck to ankles at rest
    height_directions: Float[Tensor, "B"]
    height_template: float  # stature: top of the head to heels at rest, metres
    pairs: Int[Tensor, "2 M"]  # joint and point of all pairs in `moves`, joint after joint
    pairs_before: tuple[int, ...]  # pairs of the joints before each joint, and of all

    def size(self, betas: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        """Length of this body relative to the template's."""
        return 1.0 + betas @ self.size_directions / self.size_template

    def turning(self, moving: int) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"]]:
        """Of the first `moving` joints, and of the points that each moves, all pairs."""
        count = self.pairs_before[moving]
        return self.pairs[0, :count], self.pairs[1, :count]

    def height(self, betas: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        """Stature, metres."""
        return self.height_template + betas @ self.height_directions

    @cached_property
    def capsules(self) -> Capsules:
        """The body as capsules about its bones."""
        return capsules_of(self.body, self.names)


def point_set(body: BodyModel, others: tuple[str, ...] | None = None) -> PointSet:
    """The solver's points of a body model: 22 joints, and `others` or the keypoints it has."""
    if others is None:
        others = tuple(name for name in body.landmark_names if name in KEYPOINTS)
    names = (*SMPL_JOINTS[:BODY_JOINT_COUNT], *others)
    places = [body.point_names.index(name) for name in names]
    above = torch.eye(BODY_JOINT_COUNT, dtype=torch.bool)
    for joint in range(1, BODY_JOINT_COUNT):
        above[:, joint] |= above[:, body.parents[joint]]
    carrier = body.point_parent[places[BODY_JOINT_COUNT:]]
    strictly = above & ~torch.eye(BODY_JOINT_COUNT, dtype=torch.bool)
    moves = torch.cat([strictly, above[:, carrier]], dim=1)
    feet = [names.index(name) for name in CONTACT_POINTS if name in names]
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
        moves, above,
        torch.tensor(feet, dtype=torch.int64), _clearance(body, names),
        size_directions, size, height_directions, height,
        torch.stack(moves.nonzero(as_tuple=True)),
        (0, *moves.sum(dim=1).cumsum(dim=0).tolist()),
    )  # fmt: skip


def _clearance(body: BodyModel, names: tuple[str, ...]) -> Float[Tensor, "P"]:
    """Rest height of heels and toes above the lowest vertex; 0 for every other point."""
    sole = body.v_template[:, 1].min()
    heights = torch.stack([body.point_template[body.point_names.index(n), 1] for n in names]) - sole
    on_foot = torch.tensor([name.endswith(("_heel", "_toe")) for name in names])
    return torch.where(on_foot, heights, torch.zeros_like(heights))


def retract(scene: Scene, step: Step, layout: BorderLayout, evidence: list[Evidence]) -> Scene:
    """Move the scene: rotations in their body frames, people riding with their cameras."""
    moved = _move_border(scene, step.border, layout)
    people = []
    for index, (person, move, known) in enumerate(
        zip(scene.people, step.chains, evidence, strict=True)
    ):
        pelvis, turned = _ride(person, scene, moved, known)
        turn = move[:, 3:].reshape(len(move), -1, 3)
        rotations = torch.cat([turned[:, None], person.rotations[:, 1:]], dim=1)
        moving = turn.shape[1]
        rotations = torch.cat(
            [compose_rotation(rotations[:, :moving], turn), rotations[:, moving:]], dim=1
        )
        betas = person.betas
        if layout.free.betas:
            betas = betas + step.border[layout.betas_of(index)]
        people.append(Person(rotations, pelvis + move[:, :3], betas))
    return replace(moved, people=tuple(people))


def _move_border(scene: Scene, border: Float[Tensor, "G"], layout: BorderLayout) -> Scene:
    """The scene with its shared unknowns moved, people where they were."""
    log_scale, ground, up = scene.log_scale, scene.ground, scene.up
    log_focal, drift, gain = scene.log_focal, scene.drift, scene.velocity_gain
    segments = _moved_segments(scene, border, layout)
    offsets = scene.offsets
    if offsets is not None and layout.free.offsets > 0:
        places = [layout.offsets_of(person) for person in range(len(scene.people))]
        offsets = offsets + torch.stack([border[place].reshape(-1, 2) for place in places])
    gains = layout.gains(len(scene.people))
    if layout.scale is not None:
        log_scale = log_scale + border[layout.scale][0]
    if layout.ground is not None:
        ground = tilt_ground(ground, border[layout.ground])
    if layout.gravity is not None:
        up = tilt(up, border[layout.gravity])
    if layout.focal is not None:
        log_focal = log_focal + border[layout.focal][0]
    if layout.drift is not None:
        added = border[layout.drift].reshape(MODES, -1)
        drift = drift + torch.nn.functional.pad(added, (0, 6 - added.shape[1]))
    if gains is not None:
        gain = gain + border[gains]
    return replace(
        scene, log_scale=log_scale, ground=ground, up=up, log_focal=log_focal, drift=drift,
        velocity_gain=gain, segments=segments, offsets=offsets,
    )  # fmt: skip


def _moved_segments(
    scene: Scene, border: Float[Tensor, "G"], layout: BorderLayout
) -> Float[Tensor, "S 7"] | None:
    """The segments' corrections after a step; rotations are turned further in the world's axes."""
    if scene.segments is None or layout.segments is None:
        return scene.segments
    step = border[layout.segments].reshape(-1, 6)
    turn = roma.rotvec_to_rotmat(step[:, :3]) @ roma.rotvec_to_rotmat(scene.segments[:, :3])
    offset, stretch = scene.segments[:, 3:6] + step[:, 3:], scene.segments[:, 6:]
    if layout.stretch is not None:
        stretch = stretch + border[layout.stretch][:, None]
    return torch.cat([roma.rotmat_to_rotvec(turn), offset, stretch], dim=1)


def _ride(
    person: Person, before: Scene, after: Scene, known: Evidence
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3 3"]]:
    """Pelvis and root rotation of a person that stays where it is in the image."""
    old, new = before.place(known.rig), after.place(known.rig)
    relative = (old.turn.mT @ (person.pelvis - old.centre)[..., None])[..., 0]
    axis = known.world_from_cam[..., 2]  # the camera's depth axis, without drift
    farther = torch.expm1(after.log_focal - before.log_focal)
    depth = (relative * axis).sum(dim=-1, keepdim=True)
    relative = relative + farther * depth * axis
    pelvis = (new.turn @ relative[..., None])[..., 0] + new.centre
    return pelvis, new.turn @ old.turn.mT @ person.rotations[:, 0]


def plane_axes(normal: Float[Tensor, "3"]) -> Float[Tensor, "2 3"]:
    """Two unit vectors that span the plane across a normal."""
    axes = torch.eye(3, dtype=normal.dtype, device=normal.device)
    spare = axes.index_select(0, normal.abs().argmin(dim=0, keepdim=True))[0]
    first = torch.nn.functional.normalize(torch.linalg.cross(normal, spare), dim=0)
    return torch.stack([first, torch.linalg.cross(normal, first)])


def tilt(normal: Float[Tensor, "3"], angles: Float[Tensor, "2"]) -> Float[Tensor, "3"]:
    """A unit vector tilted by two small angles, rad."""
    tilted = normal + angles @ plane_axes(normal)
    return tilted / tilted.norm()


def tilt_ground(ground: Float[Tensor, "4"], increment: Float[Tensor, "3"]) -> Float[Tensor, "4"]:
    """Plane n.x + d = 0, its normal tilted by two small angles and its offset moved (m)."""
    return torch.cat([tilt(ground[:3], increment[:2]), ground[3:] + increment[2:]])
