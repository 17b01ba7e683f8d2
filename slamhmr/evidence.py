"""Between files and solver: scene states as unknowns, observations as constants of a stage."""

from collections.abc import Callable
from dataclasses import replace

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.cameras import rig_of, segment_moves, segment_starts
from slamhmr.geometry import fill_gaps
from slamhmr.scene import Evidence, Person, PointSet, Scene, ViewEvidence
from slamhmr.types import Initial, Observations, SceneState, Views
from slamhmr.views import view_observations

LOST_TRUST = 0.1  # share of a keypoint's weight where the camera is interpolated
TIE_REACH = 10  # frames on either side of a segment's end in which somebody who ties it is seen


def spans(state: SceneState) -> list[tuple[int, int]]:
    """First and last-plus-one frame of every person's span."""
    found = []
    for valid in state.valid:
        frames = torch.nonzero(valid)[:, 0]
        found.append((int(frames[0]), int(frames[-1]) + 1))
    return found


def scene_of(state: SceneState) -> Scene:
    """The solver's unknowns of a state, each person over its own span."""
    people = []
    for index, (start, stop) in enumerate(spans(state)):
        vectors = torch.cat([state.root_orient[index, :, None], state.body_pose[index]], dim=1)
        rotations = roma.rotvec_to_rotmat(vectors[start:stop])
        people.append(Person(rotations, state.pelvis[index, start:stop], state.betas[index]))
    gain = state.velocity_gain
    return Scene(
        tuple(people), state.log_scale, state.ground, state.up, state.log_focal, state.drift,
        state.jitter, None, state.scale_prior,
        torch.zeros_like(state.betas[:, 0]) if gain is None else gain, state.up_sigma,
        state.keypoint_offsets, segment_moves(state), state.segment_sigma, state.cameras.lost,
    )  # fmt: skip


def state_of(scene: Scene, before: SceneState) -> SceneState:
    """`before` with the solved unknowns in place; frames outside a span hold its nearest frame."""
    root, pelvis, pose = [], [], []
    frames = before.valid.shape[1]
    for person, (start, stop) in zip(scene.people, spans(before), strict=True):
        vectors = roma.rotmat_to_rotvec(person.rotations)
        held = torch.arange(frames).clamp(start, stop - 1) - start
        root.append(vectors[held, 0])
        pose.append(vectors[held, 1:])
        pelvis.append(person.pelvis[held])
    return replace(
        before,
        root_orient=torch.stack(root),
        pelvis=torch.stack(pelvis),
        body_pose=torch.stack(pose),
        betas=torch.stack([person.betas for person in scene.people]),
        log_scale=scene.log_scale,
        ground=scene.ground,
        up=scene.up,
        log_focal=scene.log_focal,
        drift=scene.drift,
        jitter=scene.jitter,
        velocity_gain=scene.velocity_gain,
        segment_moves=scene.segments,
        keypoint_offsets=scene.offsets,
    )


def gather_evidence(
    state: SceneState,
    observations: Observations,
    initial: Initial,
    points: PointSet,
    height_m: Float[Tensor, "N"],
    cuts: tuple[int, ...],
    views: Views | None = None,
) -> list[Evidence]:
    """The constants of the solve for every person, over its span."""
    cameras = state.cameras
    trusted = observations.confidence
    if cameras.lost is not None:
        trusted = torch.where(cameras.lost[None, :, None], LOST_TRUST * trusted, trusted)
    keypoint_points = torch.tensor([points.names.index(n) for n in observations.keypoint_names])
    linked = torch.ones(state.valid.shape[1], dtype=torch.bool)
    linked[-1] = False
    for start in segment_starts(cameras, cuts):
        linked[start - 1] = False
    tied = tied_frames(state)
    sizes = apparent_size(observations)
    rig, others = rig_of(cameras), view_evidence(observations, points, views)
    gathered = []
    for index, (start, stop) in enumerate(spans(state)):
        span = slice(start, stop)
        own_linked = linked[span].clone()
        own_linked[-1] = False
        camera = initial_world_rotations(state, initial, index)[span]
        confidence = (
            initial.confidence[index, span]
            if initial.confidence is not None
            else initial.valid[index, span, None].expand(-1, 22).to(camera)
        )
        height = float(height_m[index])
        gathered.append(
            Evidence(
                first=start,
                keypoints=observations.keypoints[index, span],
                confidence=trusted[index, span],
                keypoint_points=keypoint_points,
                size_px=sizes[index, span],
                world_from_cam=cameras.world_from_cam[span, :3, :3],
                rig=rig.part(span),
                intrinsics=cameras.intrinsics[span],
                times=observations.timestamps[span],
                linked=own_linked,
                initial_rotations=camera,
                initial_confidence=confidence,
                height_m=height if height == height else None,
                tied=None if tied is None or not bool(tied[index].any()) else tied[index, span],
                views=tuple(view(index, span) for view in others),
                **standing(state, index, span, points),
                **predicted(initial, index, span),
            )
        )
    return gathered


def standing(state: SceneState, index: int, span: slice, points: PointSet) -> dict[str, Tensor]:
    """What a state says of how one person stands: contacts, what is below them, free fall.

    Heights of what is below are those of the state over the person's size in it: how high a step
    is, is known as well as how tall who climbs it is.
    """
    found = {"contacts": state.contacts, "support": state.support, "flight": state.flight}
    known = {name: value[index, span] for name, value in found.items() if value is not None}
    if "flight" in known and not bool(known["flight"].any()):
        del known["flight"]  # so that nobody asks again, in every evaluation on a GPU
    if "support" in known:
        known["support"] = known["support"] / points.size(state.betas[index])
    return known


def view_evidence(
    observations: Observations, points: PointSet, views: Views | None
) -> list[Callable[[int, slice], ViewEvidence]]:
    """For every further view: what it saw of a person (row) in some frames."""

    def of_view(number: int, seen: Observations) -> Callable[[int, slice], ViewEvidence]:
        assert views is not None
        places = torch.tensor([points.names.index(name) for name in seen.keypoint_names])
        sizes, pose = apparent_size(seen), views.cam_from_main[number]
        return lambda row, span: ViewEvidence(
            seen.keypoints[row, span], seen.confidence[row, span], places, sizes[row, span],
            pose[span, :3, :3], pose[span, :3, 3], views.intrinsics[number, span],
        )  # fmt: skip

    everyone = [] if views is None else view_observations(views, observations)
    return [of_view(number, seen) for number, seen in enumerate(everyone)]


def tied_frames(state: SceneState) -> Bool[Tensor, "N T"] | None:
    """Where somebody moves on from frame t to t + 1 into another segment of the cameras."""
    starts = state.cameras.segments
    if starts is None or state.segment_tied is None:
        return None
    tied = torch.zeros_like(state.valid)
    for start in starts[state.segment_tied].tolist():
        near = state.observed[:, max(start - TIE_REACH, 0) : start].any(dim=1)
        near = near & state.observed[:, start : start + TIE_REACH].any(dim=1)
        tied[:, start - 1] = near & state.valid[:, start] & state.valid[:, start - 1]
    return tied


def predicted(initial: Initial, index: int, span: slice) -> dict[str, Tensor]:
    """What the start says of one person with a sigma; the velocity's is infinite where not valid.

    A velocity is that from its frame to the next: it counts where both are valid.
    """
    found = {}
    if initial.rotation_sigma is not None:
        found["rotation_sigma"] = initial.rotation_sigma[index, span]
    if initial.root_velocity is not None and initial.root_velocity_sigma is not None:
        valid = initial.valid[index].clone()
        valid[:-1] &= initial.valid[index, 1:]
        sigma = torch.where(valid[:, None], initial.root_velocity_sigma[index], torch.inf)
        found["root_velocity"] = initial.root_velocity[index, span]
        found["root_velocity_sigma"] = sigma[span]
    return found


def initial_world_rotations(
    state: SceneState, initial: Initial, index: int
) -> Float[Tensor, "T 22 3 3"]:
    """The start's root (turned into the world) and local joint rotations."""
    root = state.cameras.world_from_cam[:, :3, :3] @ initial.cam_from_root[index, :, :3, :3]
    joints = roma.rotvec_to_rotmat(initial.body_pose[index])
    return torch.cat([root[:, None], joints], dim=1)


def _extent(observations: Observations) -> Float[Tensor, "N T"]:
    """Longer side of the box around the seen keypoints, px; NaN where fewer than two are seen."""
    seen = (observations.confidence > 0)[..., None]
    high = torch.where(seen, observations.keypoints, -torch.inf).amax(dim=-2)
    low = torch.where(seen, observations.keypoints, torch.inf).amin(dim=-2)
    side = (high - low).amax(dim=-1)
    return torch.where(side > 0, side, torch.nan)


def apparent_size(observations: Observations) -> Float[Tensor, "N T"]:
    """Apparent size of each person, px: the longer side of its box, gaps filled.

    Where there is no box, the extent of the seen keypoints. Keypoint errors grow with it; a median
    over a second keeps wrong boxes out.
    """
    side = (observations.boxes[..., 2:] - observations.boxes[..., :2]).amax(dim=-1)
    side = torch.where(torch.isfinite(side), side, _extent(observations))
    half = max(1, round(observations.fps / 2))
    padded = torch.nn.functional.pad(side, (half, half), value=torch.nan)
    median = torch.nanmedian(padded.unfold(1, 2 * half + 1, 1), dim=-1).values
    median[~torch.isfinite(median).any(dim=1)] = 0.0  # of somebody whom this camera never sees
    filled = [fill_gaps(row[:, None], torch.isfinite(row))[:, 0] for row in median]
    return torch.stack(filled).clamp_min(8.0)
