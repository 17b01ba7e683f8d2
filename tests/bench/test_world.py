"""The benchmark of one metric world: its scenes, its table, its sentences, one scene solved."""

from pathlib import Path

import pytest
import torch

from slamhmr.bench.world import WorldSpec, far_off, jobs_of, outside, run, summary, unsaid
from slamhmr.bench.world_scenes import FAMILIES, world_scene
from slamhmr.bench.world_scores import _path_percent
from slamhmr.errors import ConfigError

HOLDS = {"scale_moving": 3.0, "W": 80.0, "WA": 50.0, "RTE": 1.0, "sliding": 4.0, "mutual_cm": 9.0,
         "in90_abs": 0.9, "in90_rel": 0.9, "coverage": 1.0, "exit": 0, "failed": ""}  # fmt: skip


def test_at_least_thirty_scenes_of_every_family_and_no_seed_twice() -> None:
    jobs = jobs_of(WorldSpec())
    assert len(jobs) >= 30
    assert {family for family, _ in jobs} == set(FAMILIES)
    others = jobs_of(WorldSpec(seed=90_000))
    seeds = [scene.seed for _, scene in jobs + others]
    assert len(set(seeds)) == len(seeds)
    for _, scene in jobs:
        scene.check()
    assert max(scene.frames for _, scene in jobs) == 3000
    assert all(scene.noise == "detector" for _, scene in jobs)
    assert 0.3 < sum(scene.occlusions for _, scene in jobs) / len(jobs) < 0.7


def test_nothing_is_said_where_everything_holds() -> None:
    rows = [{"family": family, "seed": 1, **HOLDS} for family in ("orbit", "cut")]
    assert outside(rows) == []
    assert "Everything holds." in summary(rows, ["scenes=1"])


def test_who_is_far_off_and_passes_is_counted() -> None:
    rows = [{"family": "cut", "seed": 1, **HOLDS}, {"family": "cut", "seed": 2, **HOLDS, "W": 181}]
    last = next(line for line in summary(rows, []).splitlines() if line.strip().startswith("all"))
    assert [far_off(row) for row in rows] == [False, True]
    assert last.split()[-4:-1] == ["0", "1", "0"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({}, False), ({"W": 181.0}, False), ({"W": 181.0, "in90_abs": 0.3}, True),
     ({"W": 181.0, "in90_scale": 0.0}, True), ({"in90_scale": 0.0}, False),
     ({"W": 181.0, "in90_scale": 0.0, "exit": 3}, False)],
)  # fmt: skip
def test_who_is_far_off_outside_of_what_is_stated_is_silent(changed, expected) -> None:
    assert unsaid({"family": "cut", "seed": 1, **HOLDS, **changed}) is expected


def test_a_path_in_pieces_is_measured_piece_by_piece() -> None:
    path = torch.linspace(0, 2, 40, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5, 0.0])
    turned = path.clone()
    turned[20:] = (
        1.1 * (path[20:] - path[20]) @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]).double()
    )
    assert _path_percent([20], turned, path) == pytest.approx(5.0)
    assert _path_percent([], turned, path) > 10


def test_sentences_on_limits_families_regions_and_refusals() -> None:
    rows = [{"family": "orbit", "seed": n, **HOLDS} for n in range(5)]
    rows += [{"family": "cut", "seed": 9, **HOLDS, "W": 181.0, "in90_abs": 0.0, "coverage": 0.5}]
    said = outside(rows)
    assert any("family 'cut': W is 181 mm, more than 180" in sentence for sentence in said)
    assert not any("all scenes: W" in sentence for sentence in said), "the median holds"
    assert any("in90_abs" in sentence and "75.0 %" in sentence for sentence in said)
    assert any("family 'cut': only 50 % of the true frames" in sentence for sentence in said)
    refused = {"family": "cut", "seed": 10, "exit": 4, "failed": "refused", "notes": "no"}
    said = outside([{"family": "cut", "seed": 9, **HOLDS}, refused, {**refused, "seed": 11}])
    assert any("family 'cut': W is inf" in sentence for sentence in said)
    assert any("cut 10, cut 11" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["families=orbits"], "family 'orbits' is unknown"), (["scenes=0"], "scenes=0"),
     (["sceens=1"], "did you mean 'scenes'")],
)  # fmt: skip
def test_wrong_words_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(words, tmp_path)
    with pytest.raises(ConfigError, match="scene 100 of 'orbit'"):
        world_scene("orbit", 100, 0)


@pytest.mark.slow
def test_one_small_scene_is_written_solved_and_scored(tmp_path: Path) -> None:
    table = run(["families=crossing", "scenes=1", "frames=16"], tmp_path)
    assert "crossing" in table
    assert "limit" in table
    header, line = (tmp_path / "world.csv").read_text().splitlines()[:2]
    row = dict(zip(header.split(","), line.split(","), strict=False))
    assert 0 <= float(row["in90_rel"]) <= 1
    assert float(row["W"]) > 0
    assert float(row["mutual_cm"]) > 0
    assert row["exit"] in ("0", "3")
    assert (tmp_path / "world" / "crossing_81000" / "slamhmr" / "report.json").exists()
