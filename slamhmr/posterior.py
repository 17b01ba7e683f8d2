"""How sure the result is: covariances of joints, scale, ground, shapes, and what cannot be known.

The information matrix of the solved energy, with its terms reweighted: errors of keypoints, start
and contacts repeat from frame to frame, so a term counts in the posterior by its number of
independent residuals, not by the weight that solves best. In a gap without keypoints what the start
predicts is one guess, however long the gap is, and counts at most once. What is left is one
temperature per kind of quantity. Weights and temperatures are measured on synthetic scenes
(`slamhmr bench posterior`).
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.cameras import levelling
from slamhmr.device import on
from slamhmr.errors import BackendError
from slamhmr.features import person_features
from slamhmr.geometry import runs
from slamhmr.layout import BorderLayout
from slamhmr.scene import PointSet, Scene, plane_axes, point_set
from slamhmr.scene_problem import Known, SceneProblem, StageSpec, scene_problem
from slamhmr.skeleton import SMPL_JOINTS
from slamhmr.solve.articulated import rows
from slamhmr.solve.banded import NotPositiveDefiniteError
from slamhmr.solve.manifolds import skew
from slamhmr.solve.posterior import FrameCovariance, border_covariance, frame_covariances
from slamhmr.solve.problem import Step
from slamhmr.solve.sweep import Resources, Sweep
from slamhmr.terms.trajectory import PREDICTED_FPS
from slamhmr.types import Posterior, SceneState

NOTHING = 1e-6  # information of a standard deviation of 1000
HANDS = SMPL_JOINTS[22:24]


@dataclass(frozen=True)
class Calibration:
    """`weights`: term -> setting -> value in the posterior; the rest are factors on variances."""

    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    relative: float = 1.0  # joints relative to the pelvis
    absolute: float = 1.0  # joints in the world
    scale: float = 1.0
    ground: float = 1.0


def posterior(
    state: SceneState,
    known: Known,
    name: str,
    stage: StageSpec,
    calibration: Calibration,
    *,
    resources: Resources | None = None,
) -> Posterior:
    """Covariances at a state that a stage has solved, in the world of `build_result`.

    Raises BackendError where the energy has no curvature at all in some direction.
    """
    began = time.perf_counter()
    problem, scene = scene_problem(state, known, name, with_offsets(stage))
    chosen = {
        term: replace(settings, **calibration.weights.get(term, {}))
        for term, settings in problem.settings.items()
    }
    problem = one_guess_per_gap(replace(problem, settings=chosen), state.observed)
    scene = problem.settled(scene)
    resources = resources or Resources()
    try:
        sweep = Sweep(*on((problem, scene), resources.device), 0.0, resources, floor=NOTHING)
    except NotPositiveDefiniteError as e:
        raise BackendError(
            f"the posterior of stage '{name}' is singular: {e}; "
            "posterior.enabled=false leaves it out"
        ) from e
    covariance = border_covariance(sweep)
    border, step = on((covariance, sweep.solve().step), "cpu")
    about = border + torch.outer(step.border, step.border)
    frames = state.valid.shape
    world = torch.full((*frames, 24, 3, 3), torch.nan, dtype=torch.float64)
    relative = world.clone()
    joints = _Joints(problem, scene, point_set(known.body, HANDS))

    def visit(found: FrameCovariance) -> None:
        found = _about_state(on(found, "cpu"), step, problem)
        first = problem.evidence[found.chain].first + found.start
        span = slice(first, first + len(found.frames))
        own, cross = joints.covariances(found, about)
        world[found.chain, span] = calibration.absolute * own
        relative[found.chain, span] = calibration.relative * cross

    frame_covariances(sweep, covariance, visit)
    ratio = _prior_share(problem, border)
    seconds = time.perf_counter() - began
    return _gather(problem, about, calibration, world, relative, ratio, seconds)


@dataclass(frozen=True)
class _Stage:
    """What a stage says, with other unknowns and terms."""

    free: list[str]
    terms: dict[str, dict[str, Any]]
    iterations: int
    tolerance: float


def with_offsets(stage: StageSpec) -> StageSpec:
    """The stage with constant errors of the keypoints among its unknowns, if it looks at them.

    A detector puts a hip, an eye, a heel where its training data had them, which is not where the
    body model has them. Taken as independent from frame to frame such errors average out over a
    clip, and its length seems to tell the shape; they do not, and it does not.
    """
    if "offsets" in stage.free or "reprojection" not in stage.terms:
        return stage
    terms: dict[str, dict[str, Any]] = {"keypoint_offset": {}, **stage.terms}
    return _Stage([*stage.free, "offsets"], terms, stage.iterations, stage.tolerance)


def one_guess_per_gap(problem: SceneProblem, observed: Bool[Tensor, "N T"]) -> SceneProblem:
    """The problem with predictions in long gaps, each gap's together, counted as one at most.

    Of contacts and root velocities: where somebody is not seen they come from one guess at what
    happens there, and are wrong together. A weight w says that 1 / w residuals are as good as one
    that is independent, so the n of a longer gap are weighted by 1 / (w n).
    """
    evidence = []
    for row, known in enumerate(problem.evidence):
        seen = observed[row, known.first : known.first + len(known.times)]
        count, seconds = torch.ones_like(known.times), torch.zeros_like(known.times)
        for first, stop in runs(~seen):
            after = min(stop, len(seen) - 1)
            count[first:stop] = stop - first
            seconds[first:stop] = known.times[after] - known.times[first]
        contacts, sigma = known.contacts, known.root_velocity_sigma
        if "contact_velocity" in problem.settings:
            weight = problem.settings["contact_velocity"].weight
            often = (weight * count).clamp_min(1.0).sqrt()  # the term has a contact's square
            contacts = contacts / often[:, None]
        if "root_velocity" in problem.settings and sigma is not None:
            weight = problem.settings["root_velocity"].weight * PREDICTED_FPS
            often = (weight * seconds).clamp_min(1.0).sqrt()
            sigma = sigma * often[:, None]
        evidence.append(replace(known, contacts=contacts, root_velocity_sigma=sigma))
    return replace(problem, evidence=evidence)


def _about_state(found: FrameCovariance, step: Step, problem: SceneProblem) -> FrameCovariance:
    """The frames' second moments about the state.

    The state has the least energy by the stage's weights, not by the posterior's: how far it is
    from there counts as an error.
    """
    move = step.chains[found.chain][found.start : found.start + len(found.frames)]
    shared = step.border[problem.chains[found.chain].border_columns]
    frames = found.frames + move[:, :, None] * move[:, None]
    cross = found.cross + move[..., None] * shared
    return replace(found, frames=frames, cross=cross)


def _gather(
    problem: SceneProblem,
    border: Float[Tensor, "G G"],
    calibration: Calibration,
    world: Tensor,
    relative: Tensor,
    prior_share: dict[str, float],
    seconds: float,
) -> Posterior:
    """Everything by name."""
    layout = problem.layout

    def block(place: slice | None, factor: float) -> Tensor | None:
        return None if place is None else factor * border[place, place]

    shapes = None
    if layout.free.betas:
        count = len(problem.evidence)
        shapes = torch.stack([border[p, p] for p in map(layout.betas_of, range(count))])
    return Posterior(
        joints_cov=world,
        joints_cov_root=relative,
        log_scale_var=block(layout.scale, calibration.scale),
        ground_cov=block(layout.ground, calibration.ground),
        gravity_cov=block(layout.gravity, calibration.ground),
        log_focal_var=block(layout.focal, 1.0),
        drift_cov=block(layout.drift, 1.0),
        betas_cov=shapes,
        prior_share=prior_share,
        seconds=seconds,
    )


def _prior_share(problem: SceneProblem, border: Float[Tensor, "G G"]) -> dict[str, float]:
    """Variance of the border's unknowns over what it was before anything was seen."""
    share = border.diagonal() / torch.linalg.inv(prior_information(problem)).diagonal()
    places = _named_places(problem)
    return {label: float(share[place].max().clamp(0, 1)) for label, place in places.items()}


def _named_places(problem: SceneProblem) -> dict[str, slice | list[int]]:
    """Border unknowns whose observability the report speaks of."""
    layout = problem.layout
    places: dict[str, slice | list[int] | None] = {
        "scale": layout.scale, "focal": layout.focal, "gravity": layout.gravity
    }  # fmt: skip
    travelling = _travelling(problem)
    if layout.stretch is not None and len(travelling) > 0:
        places["segment_scale"] = [layout.stretch.start + index for index in travelling]
    if layout.ground is not None:
        start = layout.ground.start
        places["floor_tilt"] = slice(start, start + 2)
        places["floor_height"] = slice(start + 2, start + 3)
    return {name: place for name, place in places.items() if place is not None}


def _travelling(problem: SceneProblem) -> list[int]:
    """Segments after the first whose camera moves while somebody is there: they have a scale."""
    far = torch.zeros(problem.layout.free.segments, dtype=torch.float64)
    for known in problem.evidence:
        apart = (known.rig.centres - known.rig.pivots).norm(dim=-1, keepdim=True)
        far = torch.maximum(far, (known.rig.segments[:, : len(far)] * apart).amax(dim=0))
    return (far > 0).nonzero()[:, 0].tolist()


def prior_information(problem: SceneProblem) -> Float[Tensor, "G G"]:
    """Information on the border from terms that see no person; a trifle where there is none."""
    total = NOTHING * torch.eye(problem.border_count, dtype=torch.float64)
    for residual in problem.border(problem.start):
        if residual.derivative is not None:
            total += residual.weight * residual.derivative.T @ residual.derivative
    return total


@dataclass(frozen=True)
class _Joints:
    """Jacobians of the 24 SMPL joints in the result's world."""

    problem: SceneProblem
    scene: Scene
    points: PointSet

    def covariances(
        self, found: FrameCovariance, border: Float[Tensor, "G G"]
    ) -> tuple[Float[Tensor, "n 24 3 3"], Float[Tensor, "n 24 3 3"]]:
        """3 x 3 blocks of joints in the world, and relative to the pelvis, m^2."""
        chain, start, count = found.chain, found.start, len(found.frames)
        known = self.problem.evidence[chain].part(start, start + count)
        layout = self.problem.layout
        features = person_features(self.points, known, layout, self.scene, chain, start)
        group = features.groups()["points"]
        assert group.articulation is not None
        own = rows(group.articulation)
        shared = own.new_zeros(*own.shape[:2], layout.chain_width)
        if group.border is not None and group.border_slice is not None:
            shared[..., group.border_slice] = group.border
        arms = features.world - features.world[:, :1]
        velocity = torch.zeros(*arms.shape, 6, dtype=arms.dtype)
        velocity[..., :3] = -skew(arms)
        velocity[..., 3:] = torch.eye(3, dtype=arms.dtype)
        for rigid in group.rigid:
            moved = (velocity @ rigid.twist[:, None]).flatten(start_dim=1, end_dim=2)
            modes = rigid.basis[:, None, :, None] * moved[:, :, None]
            shared[..., rigid.columns] += modes.flatten(start_dim=2)
        turn = levelling(self.scene.up)
        own = (turn @ _by_point(own)).flatten(start_dim=1, end_dim=2)
        shared = (turn @ _by_point(shared)).flatten(start_dim=1, end_dim=2)
        _add_world(shared, features.world @ turn.T, self.scene, layout)
        columns = layout.columns(chain)
        own_border = border[columns[:, None], columns]
        world = _blocks(own, shared, found, own_border)
        relative = _blocks(_against_pelvis(own), _against_pelvis(shared), found, own_border)
        return world, relative


def _add_world(
    shared: Float[Tensor, "n P3 g"],
    points: Float[Tensor, "n P 3"],
    scene: Scene,
    layout: BorderLayout,
) -> None:
    """How the result's world itself moves with gravity and ground, in place.

    Its z axis is against gravity, its origin on the ground below the first camera, which is the
    origin of the solver's world: X_result = U X + z d / n_z, U levels.
    """
    turn = levelling(scene.up)
    normal = turn @ scene.ground[:3]
    axis = points.new_tensor([0.0, 0.0, 1.0])
    blocks = _by_point(shared)  # a view
    lift = scene.ground[3] / normal[2] ** 2  # -d(d / n_z) / d n_z
    if layout.gravity is not None:
        turned = _levelling_rates(scene.up)
        moved = torch.linalg.cross(turned[None, None], points[:, :, None], dim=-1)
        heights = -lift * torch.linalg.cross(turned, normal.expand(2, 3))[:, 2]
        blocks[..., layout.gravity] += moved.mT + (axis[:, None] * heights)
    if layout.ground is not None:
        tilts = plane_axes(scene.ground[:3]) @ turn.T
        change = torch.cat([-lift * tilts[:, 2], 1.0 / normal[2:]])
        blocks[..., layout.ground] += axis[:, None] * change


def _levelling_rates(up: Float[Tensor, "3"]) -> Float[Tensor, "2 3"]:
    """How the levelled world turns with each tilt of `up`: rotation vectors, levelled axes.

    U = I + [v] + [v]^2 / (1 + c), v = up x z, c = up . z; the rates are those of dU U'.
    """
    axis = up.new_tensor([0.0, 0.0, 1.0])
    tilts = plane_axes(up)
    lever, change = torch.linalg.cross(up, axis), torch.linalg.cross(tilts, axis.expand(2, 3))
    whole, part = 1.0 + up @ axis, tilts @ axis
    still, moved = skew(lever), skew(change)
    rate = moved + (moved @ still + still @ moved) / whole
    rate = rate - part[:, None, None] * (still @ still) / whole**2
    spin = rate @ levelling(up).T
    return torch.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], dim=-1)


def _by_point(jacobian: Float[Tensor, "n P3 d"]) -> Float[Tensor, "n P 3 d"]:
    """A view of the rows, point by point."""
    return jacobian.view(len(jacobian), jacobian.shape[1] // 3, 3, jacobian.shape[-1])


def _against_pelvis(jacobian: Float[Tensor, "n P3 d"]) -> Float[Tensor, "n P3 d"]:
    blocks = _by_point(jacobian)
    return (blocks - blocks[:, :1]).flatten(start_dim=1, end_dim=2)


def _blocks(
    own: Float[Tensor, "n P3 d"],
    shared: Float[Tensor, "n P3 g"],
    found: FrameCovariance,
    border: Float[Tensor, "g g"],
) -> Float[Tensor, "n P 3 3"]:
    """Diagonal 3 x 3 blocks of J Sigma J', J = [own, shared]."""
    half = own @ found.frames + shared @ found.cross.mT  # J times the frame's columns
    other = own @ found.cross + shared @ border
    points = own.shape[1] // 3

    def blockwise(left: Tensor, right: Tensor) -> Tensor:
        shape = (len(left), points, 3, left.shape[-1])
        return left.reshape(shape) @ right.reshape(shape).mT

    total = blockwise(half, own) + blockwise(other, shared)
    return 0.5 * (total + total.mT)
