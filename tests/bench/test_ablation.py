"""`slamhmr bench ablation`: variants, what each lacks, the table."""

import csv
from dataclasses import replace

import pytest
import roma
import torch

from slamhmr.bench import ablation
from slamhmr.bench.ablation import VARIANTS, AblationSpec, scenes_of, start_of, summary
from slamhmr.body import load_body
from slamhmr.config import load_config
from slamhmr.errors import ConfigError
from slamhmr.init.align import align
from slamhmr.synth.scene import SceneSpec


@pytest.fixture(scope="module")
def case() -> ablation.Case:
    spec = SceneSpec(seed=3, frames=20, motion="walk", camera="follow")
    return ablation.make_case("walk", spec, load_body())


@pytest.mark.parametrize("lacks", [*VARIANTS.values(), ("start", "up")])
def test_a_start_lacks_what_it_should_and_nothing_else(case, lacks) -> None:
    start = start_of(case, lacks)
    assert (start.contacts is None) == ("contacts" in lacks)
    assert (start.up_cam is None) == (start.up_sigma is None) == ("up" in lacks)
    assert (start.root_velocity is None) == ("root_velocity" in lacks)
    assert (start.root_velocity_sigma is None) == ("root_velocity" in lacks)
    from_old = "start" in lacks
    source = case.geometric if from_old else case.lifted
    assert start.body_pose is source.body_pose
    assert start.betas is source.betas
    assert (start.rotation_sigma is None) == from_old


def test_what_variants_lack_exists() -> None:
    """A term of the default stages, or a part of the start."""
    config = load_config()
    terms = {term for stage in config.stages.values() for term in stage.terms}
    for lacks in VARIANTS.values():
        assert set(lacks) <= terms | {"start", "up", "contacts"}


def test_scores_of_an_exact_state_are_zero(case) -> None:
    body = load_body()
    state = align(case.lifted, case.observations, case.cameras, body)
    truth = case.truth
    exact = replace(
        state,
        root_orient=roma.rotmat_to_rotvec(truth.root),
        pelvis=truth.pelvis,
        body_pose=roma.rotmat_to_rotvec(truth.body_rotations),
        betas=truth.betas,
        log_scale=torch.tensor(truth.scale).double().log(),
        cameras=replace(state.cameras, world_from_cam=truth.world_from_cam),
    )
    for name, value in ablation.scores(case, exact, body).items():
        assert value < 1e-3, name


def test_scenes_are_of_every_family_and_differ() -> None:
    jobs = scenes_of(AblationSpec(scenes=3, families=["walk", "sit"]))
    assert [family for family, _ in jobs] == ["walk"] * 3 + ["sit"] * 3
    assert len({scene.seed for _, scene in jobs}) == 6
    assert len({scene.camera for _, scene in jobs}) > 3


def test_the_table_is_of_means_over_families() -> None:
    rows = [
        {"variant": "all", "family": family, "seed": 0, "pa_mpjpe_mm": 10.0 * number,
         "wa_mpjpe100_mm": 1.0, "w_mpjpe100_mm": 100.0 * number, "gravity_deg": 0.5}
        for family, number in (("walk", 1), ("walk", 3), ("sit", 6))
    ]  # fmt: skip
    text = summary(rows, AblationSpec(scenes=2, families=["walk", "sit"]))
    line = next(line for line in text.splitlines() if line.split()[:1] == ["all"])
    assert "40" in line  # pa: the mean of 20 and 60
    assert "3 scenes of 2 families" in text
    assert "walk" in text


@pytest.mark.parametrize(
    "words", [["families=[swim]"], ["variants=[nothing]"], ["scenes=0"], ["colour=red"]]
)
def test_unknown_words_are_refused(words, tmp_path) -> None:
    with pytest.raises(ConfigError):
        ablation.run(words, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_scene_and_two_variants_make_the_table(tmp_path) -> None:
    words = ["scenes=1", "frames=40", "families=[walk]", "variants=[geometric,all]"]
    table = ablation.run(words, tmp_path)
    assert (tmp_path / "ablation.md").read_text() == table
    with (tmp_path / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["geometric", "all"]
    for row in rows:
        assert 0 < float(row["pa_mpjpe_mm"]) < 150
        assert 0 < float(row["w_mpjpe100_mm"]) < 2000
