"""`slamhmr bench speed` on tiny clips: every number is there, failures are one line."""

import csv
from pathlib import Path

import pytest

from slamhmr import cli
from slamhmr.bench.case import Case, Measurement, measure, memory_gb
from slamhmr.bench.speed import SpeedSpec, cases_of, charts, ratios
from slamhmr.bench.words import settings
from slamhmr.errors import BackendError, ConfigError


def measurement(
    frames: int, people: int, threads: int, wall: float, iterations: int = 20
) -> Measurement:
    return Measurement(
        case=Case(frames, people, threads), wall_s=wall, cpu_s=wall, parts_s={"root": wall},
        iterations=iterations, rejected=0, peak_gb=1.0, before_gb=0.4, pa_mpjpe_mm=40.0,
        wa_mpjpe100_mm=60.0, scale_error_percent=2.0,
    )  # fmt: skip


def sizes(spec: SpeedSpec) -> list[tuple[int, int, int]]:
    return [(case.frames, case.people, case.threads) for case in cases_of(spec)]


def test_lists_are_written_with_commas():
    spec = settings(SpeedSpec, ["frames=1000,2000", "people=3", "threads=[1,2]"], "bench")
    assert (spec.frames, spec.people, spec.threads) == ([1000, 2000], [3], [1, 2])
    with pytest.raises(ConfigError, match="frames"):
        settings(SpeedSpec, ["frames=many"], "bench")


def test_a_cross_of_cases_by_default_and_all_of_them_on_request():
    spec = SpeedSpec(frames=[40, 10], people=[1, 3], threads=[1, 2])
    assert sizes(spec) == [(10, 1, 1), (10, 1, 2), (10, 3, 2), (40, 1, 2)]
    assert len(sizes(SpeedSpec([40, 10], [1, 3], [1, 2], grid=True))) == 8
    assert [case.repeats for case in cases_of(spec)] == [2, 2, 1, 1]


def test_growth_is_counted_on_the_same_threads():
    measured = [
        measurement(1000, 1, 1, 20.0), measurement(1000, 1, 2, 10.0),
        measurement(1000, 4, 2, 50.0, 40), measurement(8000, 1, 2, 80.0),
    ]  # fmt: skip
    people, length = ratios(measured)
    assert (people.value, people.limit) == (5.0, pytest.approx(4.4))
    assert "does not hold" in str(people)
    assert people.per_iteration == pytest.approx(2.5), "with twice as many iterations"
    assert (length.value, length.limit) == (8.0, pytest.approx(8.8))
    assert ": holds" in str(length)
    assert len(charts(measured)) == 3


def test_a_tiny_case_is_measured_through_the_command(tmp_path: Path, capsys):
    words = ["frames=20", "people=1", "threads=1", "repeats=1"]
    assert cli.main(["bench", "speed", "--out", str(tmp_path / "bench"), *words]) == 0
    output = capsys.readouterr().out
    assert "pa_mpjpe_mm" in output
    with (tmp_path / "bench" / "speed.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["wall_s"]) > 0
    parts = sum(
        float(row[f"{name}_s"]) for name in ("align", "root", "smooth", "motion", "posterior")
    )
    assert parts == pytest.approx(float(row["wall_s"]), rel=0.1)
    assert 0.1 < float(row["before_gb"]) <= float(row["peak_gb"]) < 2
    assert 1 < float(row["pa_mpjpe_mm"]) < 200
    assert (tmp_path / "bench" / "speed.png").stat().st_size > 1000


def test_a_case_that_fails_is_one_line():
    with pytest.raises(BackendError, match="people 9 is not one of") as caught:
        measure(Case(30, 9, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["people=0", "frames=[]", "repeats=0", "sizes=3"])
def test_impossible_settings_are_refused_before_any_work(tmp_path: Path, capsys, word: str):
    assert cli.main(["bench", "speed", "--out", str(tmp_path / "new"), word]) == 2
    assert "bench speed" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_memory_now_is_at_most_the_peak():
    assert 0.05 < memory_gb("VmRSS") <= memory_gb("VmHWM")
    with pytest.raises(BackendError, match="VmNothing"):
        memory_gb("VmNothing")
