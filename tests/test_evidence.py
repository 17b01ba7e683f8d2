"""What a state says of how people stand, as the solver is given it."""

from dataclasses import replace

import torch
from sequences import BODY, make_state

from slamhmr.evidence import standing
from slamhmr.scene import point_set


def test_what_is_below_somebody_is_as_high_as_they_are_tall():
    """In sizes of the body: a step grows with whom the pixels show on it."""
    points, state = point_set(BODY), make_state()
    whole = slice(0, state.valid.shape[1])
    support = torch.full_like(state.contacts, 0.6)
    for taller in (-2.0, 0.0, 2.0):
        betas = state.betas + taller * points.size_directions / points.size_directions.norm()
        tall = replace(state, betas=betas, support=support)
        found = standing(tall, 0, whole, points)["support"]
        torch.testing.assert_close(found * points.size(betas[0]), support[0])
    assert "support" not in standing(replace(state, support=None), 0, whole, points)
