"""A stage and its posterior on a real GPU, against the processor's."""

import pytest
import torch
from sequences import BODY, make_initial, make_observations, make_state

from slamhmr.config import load_config
from slamhmr.device import resources
from slamhmr.posterior import Calibration, posterior
from slamhmr.scene_problem import Known
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def test_a_stage_and_its_posterior_are_those_of_the_processor():
    state, config = make_state(people=2, frames=24), load_config()
    stage = config.stages["motion"]
    known = Known(
        make_observations(state), make_initial(state), BODY, torch.full((2,), torch.nan).double()
    )
    found = []
    for allowed in (Resources(2), resources("cuda", 2, 24, 2)):
        solved, report = run_stage(state, known, "motion", stage, resources=allowed)
        told = posterior(
            found[0][0] if len(found) > 0 else solved, known, "motion", stage,
            Calibration(config.posterior.weights), resources=allowed,
        )  # fmt: skip
        found.append((solved, sum(report.energy_after.values()), told))
    (here, energy, told), (there, other, also) = found
    assert there.pelvis.device.type == "cpu"
    assert other == pytest.approx(energy, rel=1e-5)
    torch.testing.assert_close(there.pelvis, here.pelvis, rtol=0, atol=1e-3)
    largest = float(told.joints_cov.nan_to_num().abs().max())
    torch.testing.assert_close(
        also.joints_cov, told.joints_cov, rtol=0, atol=1e-4 * largest, equal_nan=True
    )
