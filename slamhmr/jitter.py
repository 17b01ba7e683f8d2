"""The cameras' jitter: in every frame the small rotation that suits everybody's keypoints best.

Minimised over for each state of the people (variable projection, Golub and Pereyra 1973, with
Kaufman's approximation of the Hessian), so that it couples neither frames nor people: 3 unknowns
per frame that cost next to nothing. A camera's position needs none of its own: 5 mm at 5 m look
like 0.06 degrees.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.features import PersonFeatures, person_features
from slamhmr.layout import BorderLayout
from slamhmr.scene import Evidence, PointSet, Scene
from slamhmr.solve.assemble import irls
from slamhmr.terms.data import ReprojectionSettings, reprojection

STEPS = 2  # Gauss-Newton steps: the problem is all but linear
PART = 2000  # frames whose points are held at once


def settle(
    scene: Scene,
    evidence: Sequence[Evidence],
    layout: BorderLayout,
    points: PointSet,
    settings: ReprojectionSettings,
    sigma: float,
) -> Scene:
    """The scene with the best jitter of every frame, and the information on it.

    `sigma`: of the jitter about each axis, rad; more where the camera is lost. A frame's step that
    raises its energy is not taken.
    """
    unit = torch.eye(3, dtype=scene.jitter.dtype, device=scene.jitter.device)
    prior = unit / scene.jitter_sigma(sigma)[..., None] ** 2
    information = prior
    scene = replace(scene, jitter_information=information)
    energy, gradient, information = _collect(scene, evidence, layout, points, settings, prior)
    for _ in range(STEPS):
        step = torch.linalg.solve(information, gradient[..., None])[..., 0]
        trial = replace(scene, jitter=scene.jitter - step)
        reached, slope, curvature = _collect(trial, evidence, layout, points, settings, prior)
        better = reached < energy
        energy = torch.where(better, reached, energy)
        gradient = torch.where(better[:, None], slope, gradient)
        information = torch.where(better[:, None, None], curvature, information)
        jitter = torch.where(better[:, None], trial.jitter, scene.jitter)
        scene = replace(scene, jitter=jitter)
    return replace(scene, jitter_information=information)


def _collect(
    scene: Scene,
    evidence: Sequence[Evidence],
    layout: BorderLayout,
    points: PointSet,
    settings: ReprojectionSettings,
    prior: Float[Tensor, "F 3 3"],
) -> tuple[Float[Tensor, "F"], Float[Tensor, "F 3"], Float[Tensor, "F 3 3"]]:
    """Energy, gradient and Gauss-Newton information on the jitter of every frame."""
    jitter = scene.jitter
    gradient = (prior @ jitter[..., None])[..., 0]
    energy = 0.5 * (gradient * jitter).sum(dim=-1)
    information = prior.clone()
    for index, known in enumerate(evidence):
        for start in range(0, len(known.times), PART):
            part = known.part(start, min(start + PART, len(known.times)))
            features = person_features(points, part, layout, scene, index, start)
            span = slice(part.first, part.first + len(part.times))
            _add_person(features, settings, energy[span], gradient[span], information[span])
    return energy, gradient, information


def _add_person(
    features: PersonFeatures,
    settings: ReprojectionSettings,
    energy: Float[Tensor, "T"],
    gradient: Float[Tensor, "T 3"],
    information: Float[Tensor, "T 3 3"],
) -> None:
    """Add one person's keypoints, in place."""
    residual = reprojection(features, settings, True)
    assert residual.local is not None
    weight, weighted_value = irls(residual, features.frame_count)
    energy += residual.energies_by_frame()
    local = torch.where((weight > 0)[..., None, None], residual.local, 0.0)
    gradient += torch.einsum("terl,ter->tl", local, weighted_value)
    information += torch.einsum("te,terl,term->tlm", weight, local, local)
