import shutil

import pytest

from slamhmr import cli, demo
from slamhmr.errors import ConfigError, InputError
from slamhmr.pipeline import Outcome
from slamhmr.synth.scene import SceneSpec


def spy(seen):
    """Stands in for `optimize`: notes what it is given and answers with the truth itself."""

    def optimize(folder, config, *, progress):
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / "slamhmr").mkdir(exist_ok=True)
        shutil.copy(folder / "truth.npz", folder / "slamhmr" / "result.npz")
        return Outcome(folder / "slamhmr", None, {"gates": [], "notes": []})

    return optimize


@pytest.fixture
def seen(monkeypatch):
    given = []
    # the outcome's result is not looked at here, so the type checker must not insist on one
    monkeypatch.setattr(demo, "optimize", spy(given))
    monkeypatch.setattr(demo, "demo_spec", lambda: SceneSpec(frames=12, image_size=(160, 96)))
    monkeypatch.setitem(spy.__globals__, "Outcome", FakeOutcome)
    return given


class FakeOutcome(Outcome):
    def __init__(self, folder, result, report):
        object.__setattr__(self, "folder", folder)
        object.__setattr__(self, "report", report)


def test_the_demo_gives_pixels_and_scores_against_the_truth(tmp_path, seen, capsys):
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out)]) == 0
    assert seen == [["sequence.yaml", "truth.npz", "video.mp4"]]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    score = {row[0]: float(row[1]) for row in rows if row[:1] == ["pa_mpjpe_mm"]}
    assert score["pa_mpjpe_mm"] < 1e-3


def test_a_second_demo_takes_the_scene_that_is_there(tmp_path, seen):
    cli.main(["demo", "--out", str(tmp_path / "demo")])
    before = (tmp_path / "demo" / "video.mp4").stat().st_mtime_ns
    cli.main(["demo", "--out", str(tmp_path / "demo")])
    assert (tmp_path / "demo" / "video.mp4").stat().st_mtime_ns == before


@pytest.mark.parametrize("left", [".partial-video-x.mp4", "video.mp4", "sequence.yaml"])
def test_an_interrupted_demo_goes_on(tmp_path, seen, left):
    out = tmp_path / "demo"
    out.mkdir()
    (out / left).write_text("half")
    assert cli.main(["demo", "--out", str(out)]) == 0
    assert seen == [["sequence.yaml", "truth.npz", "video.mp4"]]


def test_a_folder_with_other_files_is_not_touched(tmp_path, seen):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(InputError, match="not empty"):
        demo.run_demo(tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_synth_writes_pixels_observations_and_truth(tmp_path, capsys):
    out = tmp_path / "scene"
    words = ["frames=6", "people=2", "image_size=[160,96]", "seed=3"]
    assert cli.main(["synth", "--out", str(out), *words]) == 0
    names = {path.name for path in out.iterdir()}
    assert {"video.mp4", "observations.npz", "cameras.npz", "truth.npz", "sequence.yaml"} <= names
    assert "6 frames (people: 2)" in capsys.readouterr().out


def test_synth_names_the_nearest_field(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'frames'"):
        demo.synthesise(tmp_path / "scene", ["frame=3"])
    assert not (tmp_path / "scene").exists()


def test_eval_scores_and_writes_json(tmp_path, seen, capsys):
    out = tmp_path / "demo"
    cli.main(["demo", "--out", str(out)])
    truth = str(out / "truth.npz")
    assert cli.main(["eval", truth, truth, "--json", str(tmp_path / "s.json")]) == 0
    assert "pa_mpjpe_mm" in (tmp_path / "s.json").read_text()
