"""Statures that one camera does not see: said where they are the prior's, or rare in it."""

import dataclasses

import pytest
import torch
from sequences import BODY, make_observations, make_state

from slamhmr.export.result import build_result
from slamhmr.observability import unknown_statures
from slamhmr.scene import point_set
from slamhmr.types import Result

UNKNOWN = torch.full((1,), torch.nan, dtype=torch.float64)


def somebody(height: float, sigma: float) -> Result:
    """A result with one person of that height, m, whose betas are known to `sigma` of the prior."""
    points, state = point_set(BODY), make_state()
    along = points.height_directions / points.height_directions.square().sum()
    betas = ((height - points.height_template) * along)[None].expand_as(state.betas)
    state = dataclasses.replace(state, betas=betas.clone())
    result = build_result(
        state, BODY, make_observations(state), body_model="default", provenance={}
    )
    covariance = sigma**2 * torch.eye(betas.shape[1], dtype=torch.float64)[None]
    return dataclasses.replace(result, betas_cov=covariance)


@pytest.mark.parametrize(
    ("height", "sigma", "words"),
    [
        (1.66, 0.3, None),
        (1.8, 0.3, None),
        (1.42, 0.4, "smaller and nearer; give `height_m`"),
        (1.42, 0.1, None),
        (1.92, 0.4, "taller and farther away; give `height_m`"),
        (1.66, 0.99, "is not observable"),
        (1.42, 0.99, "is not observable"),
    ],
)
def test_statures_of_the_prior_and_rare_ones_are_said(height, sigma, words):
    told = unknown_statures(somebody(height, sigma), BODY, UNKNOWN)
    assert (told == []) if words is None else (len(told) == 1 and words in told[0])


def test_a_stature_that_was_given_is_no_guess():
    known = torch.tensor([1.42], dtype=torch.float64)
    assert unknown_statures(somebody(1.42, 0.99), BODY, known) == []
