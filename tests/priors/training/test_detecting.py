"""Made-up detector errors: kinds, sizes, gaps."""

import pytest
import torch
from recordings import rig, write_recordings

from priors.training import detecting
from priors.training.clips import read_library, sample_windows
from priors.training.detecting import BLAZEPOSE, COCO, FEET, VITPOSE, detect
from priors.training.filming import Footage, film


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Footage:
    folder = tmp_path_factory.mktemp("motions")
    write_recordings(folder)
    generator = torch.Generator().manual_seed(0)
    return film(sample_windows(read_library(folder), 60, 40, generator), rig(), generator)


def found(footage: Footage, kind: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    return detect(footage, torch.Generator().manual_seed(1), kind)


@pytest.mark.parametrize("kind", [None, BLAZEPOSE, COCO, VITPOSE])
def test_nothing_outside_the_picture_is_seen(footage, kind):
    bearings, confidence = found(footage, kind)
    assert float(confidence[~footage.inside].abs().max()) == 0
    assert 0 <= float(confidence.min()) < float(confidence.max()) <= 1
    assert bool(torch.isfinite(bearings).all())
    share = float((confidence[footage.inside] > 0).float().mean())
    assert 0.5 < share < 0.99


def test_feet_belong_to_blazepose(footage):
    share = {}
    for kind in (BLAZEPOSE, COCO, VITPOSE):
        _, confidence = found(footage, kind)
        feet = (confidence[:, :, list(FEET)] > 0).flatten(start_dim=1).any(dim=1)
        share[kind] = float(feet.float().mean())
    assert share[BLAZEPOSE] > 0.8
    assert share[COCO] < 0.3
    assert share[VITPOSE] < 0.3


def test_errors_are_a_few_percent_of_the_person_and_vitpose_is_the_best(footage):
    size = detecting._apparent_size(footage.bearings, footage.inside)
    typical = {}
    for kind in (BLAZEPOSE, COCO, VITPOSE):
        bearings, confidence = found(footage, kind)
        error = (bearings - footage.bearings).norm(dim=-1) / size[..., None]
        typical[kind] = float(error[confidence > 0].median())
        assert 0.003 < typical[kind] < 0.05
    assert typical[VITPOSE] < min(typical[BLAZEPOSE], typical[COCO])


def test_errors_last_and_have_the_stated_size():
    error = detecting._errors(400, 60, 3, torch.Generator().manual_seed(0))
    assert float(error.std()) == pytest.approx(1.5, rel=0.05)
    free = error - error.mean(dim=1, keepdim=True)
    near = (free[:, 1:] * free[:, :-1]).mean() / (free**2).mean()
    far = (free[:, 30:] * free[:, :-30]).mean() / (free**2).mean()
    assert float(near) > 0.5
    assert float(far) < 0.2


def test_confidence_knows_something_of_the_error():
    error = detecting._errors(300, 20, 5, torch.Generator().manual_seed(0))
    told = detecting._confidence(error, torch.zeros(300).long(), torch.Generator().manual_seed(1))
    size = error.norm(dim=-1)
    assert (
        float(told[size > size.quantile(0.9)].mean())
        < float(told[size < size.median()].mean()) - 0.1
    )


def test_swapped_sides_are_exchanged_and_nothing_else():
    exact = torch.arange(23).float()[:, None].expand(200, 30, 23, 2).clone()
    swapped = detecting._swap(exact, torch.Generator().manual_seed(0))
    changed = (swapped != exact).any(dim=-1)
    assert 0.01 < float(changed.any(dim=-1).float().mean()) < 0.2
    assert not bool(changed[..., :5].any())
    assert torch.equal(swapped.sort(dim=2).values, exact)
    partner = dict(zip(detecting.LEFT, detecting.RIGHT, strict=True))
    for left, right in partner.items():
        rows = changed[..., left]
        assert bool((swapped[..., left, 0][rows] == right).all())
        assert bool((swapped[..., right, 0][rows] == left).all())


def test_people_hidden_entirely_are_back_within_a_second():
    hidden = detecting._hidden(500, 81, 23, torch.Generator().manual_seed(0)).all(dim=-1)
    run = torch.zeros(500)
    longest = torch.zeros(500)
    for frame in range(81):
        run = (run + 1) * hidden[:, frame]
        longest = longest.maximum(run)
    assert float(longest.max()) >= 15
    assert 0.03 < float((longest > 0).float().mean()) < 0.25
