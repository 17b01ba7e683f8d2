"""One track of nonsense does not spoil the others."""

import pytest
import torch
from sequences import make_observations, make_state

from slamhmr import nonsense


def start_of(observations, percents):
    people = observations.person_id.tolist()
    return {"median_percent_by_person": dict(zip(map(str, people), percents, strict=True))}


@pytest.mark.parametrize(("percent", "kept"), [(4.0, 1.0), (29.0, 1.0), (31.0, 1e-3), (1e9, 1e-3)])
def test_only_who_no_body_explains_is_muted(percent, kept):
    observations = make_observations(make_state())
    start = start_of(observations, [percent] * len(observations.person_id))
    found = nonsense.muted(observations, start)
    torch.testing.assert_close(found.confidence, kept * observations.confidence)
    assert len(nonsense.sentences(observations, start)) == (kept < 1) * len(observations.person_id)


def test_who_is_never_well_seen_is_not_called_nonsense():
    observations = make_observations(make_state())
    start = start_of(observations, [float("nan")] * len(observations.person_id))
    assert torch.equal(nonsense.muted(observations, start).confidence, observations.confidence)
    assert nonsense.sentences(observations, start) == ()


def test_the_sentence_names_person_and_error():
    observations = make_observations(make_state())
    start = start_of(observations, [99.0] * len(observations.person_id))
    told = nonsense.sentences(observations, start)[0]
    assert f"person {int(observations.person_id[0])}" in told
    assert "99 %" in told
