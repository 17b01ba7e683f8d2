from dataclasses import dataclass
from pathlib import Path

import pytest

from slamhmr.config import Config, backend_options, config_folder, load_config, read_yaml, to_yaml
from slamhmr.errors import ConfigError


def test_defaults_are_a_complete_schedule():
    config = load_config()
    assert config.schedule == ["root", "smooth", "motion"]
    assert all("reprojection" in config.stages[name].terms for name in config.schedule)


def test_files_override_defaults_and_words_override_files(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seed: 3\ngates: {coverage: 0.1}\n")
    second.write_text("gates: {coverage: 0.2}\n")
    config = load_config([first, second], ["seed=5", "stages.smooth.iterations=7"])
    assert (config.seed, config.gates.coverage) == (5, 0.2)
    assert config.stages["smooth"].iterations == 7
    assert config.stages["smooth"].terms == load_config().stages["smooth"].terms


def test_lists_are_replaced_and_numbers_keep_their_type(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text("schedule: [root]\nstages: {root: {terms: {reprojection: {sigma: 1e-2}}}}\n")
    config = load_config([file])
    assert config.schedule == ["root"]
    assert config.stages["root"].terms["reprojection"]["sigma"] == 0.01


def test_written_configuration_reads_back_the_same(tmp_path):
    config = load_config((), ["body.model=a.npz", "options.blazepose.models=x"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config([tmp_path / "config.yaml"]) == config


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("bodi.model=x", "unknown key 'bodi'; did you mean 'body'?"),
        ("body.modle=x", "did you mean 'model'?"),
        ("stages.root.fre=[a]", "did you mean 'free'?"),
        ("seed=abc", "could not be converted to Integer"),
        ("stages.smoth.iterations=4", "stage 'smoth' has no 'free'.*did you mean 'smooth'?"),
        ("schedule=[root,moton]", "schedule names stage 'moton'; did you mean 'motion'?"),
        ("schedule=[root,root]", "names a stage twice"),
        ("schedule=[]", "'schedule' is empty"),
        ("detect=blaze", "did you mean 'blazepose'?"),
        ("options.sfn.a=1", "options.sfn: no such backend; did you mean 'sfm'?"),
        ("device=gpu", "auto, cpu, cuda or cuda:<number>"),
        ("overwrite", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("schedule=[root", "cannot be read"),
        ("stages.root=3", "StageConfig"),
        ("seed=${nothing}", "nothing"),
    ],
)
def test_a_wrong_word_is_one_line_with_a_suggestion(word, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config((), [word])
    assert "\n" not in str(caught.value)


def test_unknown_key_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("alow_degraded: true\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml.*did you mean 'allow_degraded'"):
        load_config([file])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: 1\na: 2"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="odd.yaml"):
        read_yaml(file)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config([tmp_path / "none.yaml"])


@dataclass(frozen=True)
class Options:
    threshold: float = 0.5
    variant: str = "full"


def test_backend_options_are_checked_against_the_backends_own_class():
    config = Config(options={"blazepose": {"threshold": 0.7}})
    assert backend_options(Options, "blazepose", config) == Options(0.7)
    wrong = Config(options={"blazepose": {"treshold": 0.7}})
    with pytest.raises(ConfigError, match="options.blazepose: .*did you mean 'threshold'"):
        backend_options(Options, "blazepose", wrong)


def test_every_stage_file_is_known_by_its_name():
    names = {path.stem for path in (Path(config_folder()) / "stages").glob("*.yaml")}
    assert names == set(load_config().stages)
