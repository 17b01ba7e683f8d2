"""Where the body's keypoints fall in the image, and how far from the observed ones."""

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points
from slamhmr.cameras import corrected_intrinsics, metric_cameras
from slamhmr.geometry import apply, invert, project
from slamhmr.types import Observations, SceneState, Views
from slamhmr.views import view_observations

WELL_SEEN = 0.5  # confidence from which a keypoint counts in the errors that are reported
# Share of a person's seen frames; a keypoint that is well seen in fewer is as good as never seen:
# stray detections alone reach some 5 %.
SELDOM = 0.1
# Mean error, % of the box height, below any detector's noise: a start that is nearer took it over.
EXACT_PERCENT = 0.5
OUTLIER_PERCENT = 10.0  # of the box height; a keypoint further off is wrong, however far


def project_keypoints(
    state: SceneState,
    body: BodyModel,
    names: tuple[str, ...],
    view: tuple[Float[Tensor, "T 4 4"], Float[Tensor, "T 4"]] | None = None,
) -> Float[Tensor, "N T K 2"]:
    """Image points of the named keypoints of everybody, px; NaN behind the camera.

    `view`: cam_from_main (m) and intrinsics of another camera than the main one.
    """
    points, _ = forward_points(
        body,
        state.betas,
        roma.rotvec_to_rotmat(state.root_orient),
        state.pelvis,
        roma.rotvec_to_rotmat(state.body_pose),
    )
    columns = [body.point_names.index(name) for name in names]
    cam_from_world = invert(metric_cameras(state))
    intrinsics = corrected_intrinsics(state)
    if view is not None:
        cam_from_world, intrinsics = view[0] @ cam_from_world, view[1]
    points_cam = apply(cam_from_world.expand(len(points), -1, -1, -1), points[:, :, columns])
    image = project(points_cam, intrinsics.expand(len(points), -1, -1))
    return torch.where(points_cam[..., 2:] > 0, image, torch.nan)


def reprojection_error(
    state: SceneState,
    observations: Observations,
    body: BodyModel,
    view: tuple[Float[Tensor, "T 4 4"], Float[Tensor, "T 4"]] | None = None,
) -> Float[Tensor, "N T K"]:
    """Distance of projected and observed keypoints, px; inf behind the camera.

    NaN where a keypoint is not well seen, and in frames in which the state has nobody (`valid`).
    `view`: the camera that made the observations, as in `project_keypoints`.
    """
    projected = project_keypoints(state, body, observations.keypoint_names, view)
    distance = (projected - observations.keypoints).norm(dim=-1).nan_to_num(torch.inf)
    counted = (observations.confidence >= WELL_SEEN) & state.valid[..., None]
    return torch.where(counted, distance, torch.nan)


def box_heights(observations: Observations) -> Float[Tensor, "N T"]:
    """Height of each person's box, px: of the detector where it gave one, else of the keypoints."""
    given = observations.boxes[..., 3] - observations.boxes[..., 1]
    rows = observations.keypoints[..., 1]
    seen = observations.confidence > 0
    top = torch.where(seen, rows, torch.inf).amin(dim=-1)
    bottom = torch.where(seen, rows, -torch.inf).amax(dim=-1)
    spanned = torch.where(seen.any(dim=-1), bottom - top, torch.nan)
    return torch.where(given > 0, given, spanned)


def score(
    state: SceneState, observations: Observations, body: BodyModel, views: Views | None = None
) -> dict[str, object]:
    """Reprojection of well-seen keypoints: median and 90 % quantile in px and in % of the box.

    `mean_percent` is the mean of errors cut off at `OUTLIER_PERCENT`: stages are compared by it,
    for a median alone is bought by giving up on the other half of the points. Errors are raw, of
    the body as it is drawn on the pixels: constant offsets of keypoints, which the solver estimates
    (`SceneState.keypoint_offsets`), are not taken off. The start has none, and an error of the body
    that an offset takes up is an error still. With `views`, of
    the keypoints of all cameras; `views` then holds the same of each.
    """
    error = reprojection_error(state, observations, body)
    percent = 100 * error / box_heights(observations)[..., None].clamp_min(1)
    if views is None:
        return _summary(error, percent, observations)
    errors, percents = [error], [percent]
    for number, seen in enumerate(view_observations(views, observations)):
        camera = views.cam_from_main[number], views.intrinsics[number]
        errors.append(reprojection_error(state, seen, body, camera))
        percents.append(100 * errors[-1] / box_heights(seen)[..., None].clamp_min(1))
    together = _summary(torch.cat(errors, dim=-1), torch.cat(percents, dim=-1), observations)
    named = zip((views.main, *views.names), errors, percents, strict=True)
    return {**together, "views": {n: _summary(e, p, observations) for n, e, p in named}}


def _summary(
    error: Float[Tensor, "N T K"], percent: Float[Tensor, "N T K"], observations: Observations
) -> dict[str, object]:
    people = observations.person_id.tolist()
    return {
        "median_px": _quantile(error, 0.5),
        "p90_px": _quantile(error, 0.9),
        "mean_percent": _mean(percent.clamp_max(OUTLIER_PERCENT)),
        "median_percent": _quantile(percent, 0.5),
        "p90_percent": _quantile(percent, 0.9),
        "median_percent_by_person": {
            str(person): _quantile(percent[row], 0.5) for row, person in enumerate(people)
        },
        "keypoints": int((~error.isnan()).sum()),
    }


def _mean(values: Tensor) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    return float(values[~values.isnan()].mean())


def _quantile(values: Tensor, level: float) -> float:
    """Quantile of the values that are not NaN; NaN if there is none."""
    known = values[~values.isnan()].flatten().sort().values
    if len(known) == 0:
        return float("nan")
    return float(known[min(int(level * len(known)), len(known) - 1)])
