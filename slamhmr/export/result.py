"""The deliverable: the solved state as SMPL parameters in a world with its origin on the ground."""

import dataclasses
import math

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points, transl_from_pelvis
from slamhmr.cameras import corrected_intrinsics, levelled, metric_cameras
from slamhmr.errors import BackendError
from slamhmr.types import Observations, Posterior, Result, SceneState


def build_result(
    state: SceneState,
    body: BodyModel,
    observations: Observations,
    *,
    body_model: str,
    provenance: dict[str, object],
    found: Posterior | None = None,
) -> Result:
    """Result in metres: gravity is -z, the origin the point of the ground below the first camera.

    `body_model` is what loads the body again: "default" or the path of its file.
    Frames outside `valid` repeat the person's nearest valid frame, so that every number is finite.
    So do the covariances of `found`, the posterior of the state. Raises BackendError if the state
    itself is not finite.
    """
    shown = _held(state.valid)
    state = levelled(_held_outside(state))
    cameras = metric_cameras(state).clone()
    footprint = ground_below(cameras[0, :3, 3], state.ground)
    pelvis = state.pelvis - footprint
    cameras[:, :3, 3] -= footprint
    ground = torch.cat([state.ground[:3], (state.ground[3] + state.ground[:3] @ footprint)[None]])
    points, _ = forward_points(
        body,
        state.betas,
        roma.rotvec_to_rotmat(state.root_orient),
        pelvis,
        roma.rotvec_to_rotmat(state.body_pose),
    )
    result = Result(
        person_id=state.person_id,
        valid=state.valid,
        observed=state.observed & state.valid,
        root_orient=state.root_orient,
        transl=transl_from_pelvis(body, state.betas, pelvis),
        body_pose=state.body_pose.flatten(start_dim=2),
        betas=state.betas,
        joints=points[:, :, :24],
        contacts=state.contacts,
        world_from_cam=cameras,
        intrinsics=corrected_intrinsics(state),
        image_size=state.cameras.image_size,
        fps=observations.fps,
        ground=ground,
        scale=float(state.log_scale.exp()),
        scale_std=_scale_std(state, found),
        body_model=body_model,
        gender=(body.gender,) * len(state.person_id),
        provenance=provenance,
        joints_cov=None if found is None else found.joints_cov[shown],
        joints_cov_root=None if found is None else found.joints_cov_root[shown],
        ground_cov=None if found is None else found.ground_cov,
        betas_cov=None if found is None else found.betas_cov,
        segments=state.cameras.segments,
        segment_tied=state.segment_tied,
    )
    _require_finite(result)
    return result


def ground_below(point: Float[Tensor, "3"], ground: Float[Tensor, "4"]) -> Float[Tensor, "3"]:
    """Point of the plane n.x + d = 0 straight below or above `point` (gravity is -z).

    Raises BackendError if the ground is vertical.
    """
    if float(ground[2].abs()) < 1e-3:
        raise BackendError(f"the solved ground {ground[:3].tolist()} is vertical")
    height = -(ground[:2] @ point[:2] + ground[3]) / ground[2]
    return torch.stack([point[0], point[1], height])


def _held_outside(state: SceneState) -> SceneState:
    """Everybody's first and last valid frame (and nearest ones in gaps) held outside `valid`."""
    held = _held(state.valid)
    return dataclasses.replace(
        state,
        root_orient=state.root_orient[held],
        pelvis=state.pelvis[held],
        body_pose=state.body_pose[held],
        contacts=torch.where(state.valid[..., None], state.contacts, 0.0),
    )


def _held(valid: Bool[Tensor, "N T"]) -> tuple[Tensor, Tensor]:
    """Index of everybody's nearest valid frame."""
    times = torch.arange(valid.shape[1])
    nearest = torch.stack([_nearest(times, own) for own in valid])
    return torch.arange(len(nearest))[:, None], nearest


def _scale_std(state: SceneState, found: Posterior | None) -> float:
    """Standard deviation of the scale: that of its log, times the scale."""
    if found is None or found.log_scale_var is None:
        return math.nan
    return float(state.log_scale.exp() * found.log_scale_var.sqrt())


def _nearest(times: Tensor, valid: Tensor) -> Tensor:
    if not bool(valid.any()):
        return times
    known = times[valid]
    return known[(times[:, None] - known[None]).abs().argmin(dim=1)]


def _require_finite(result: Result) -> None:
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Tensor) and not bool(torch.isfinite(value.double()).all()):
            raise BackendError(f"the solved state is not finite: '{field.name}'; report this clip")
