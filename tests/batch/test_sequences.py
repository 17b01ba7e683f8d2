import pytest

from slamhmr import video
from slamhmr.batch import sequences as module
from slamhmr.batch.folder import Entry
from slamhmr.batch.sequences import find_sequences, make_entries
from slamhmr.errors import InputError
from slamhmr.sequence import OBSERVATIONS, SETTINGS
from slamhmr.viewfolders import VIEWS


@pytest.fixture
def data(tmp_path, monkeypatch):
    for name in ("walk", "run", "jump"):
        (tmp_path / "data" / name / "images").mkdir(parents=True)
    (tmp_path / "data" / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def test_what_makes_a_sequence_is_what_the_reader_looks_for():
    assert module.VIDEO_SUFFIXES == video.VIDEO_SUFFIXES
    assert set(module.CONTENT) == {SETTINGS, *OBSERVATIONS, "images", VIEWS}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["data/walk", "data/run"], ["walk", "run"]),
        (["data/*"], ["jump", "run", "walk"]),
        (["data/[rw]*", "data/jump"], ["run", "walk", "jump"]),
        (["data"], ["jump", "run", "walk"]),
        (["data/list.txt"], ["walk", "jump"]),
        (["data/words"], ["words"]),  # its run says what it lacks
    ],
)
def test_names(data, words, names):
    (data / "words").mkdir(exist_ok=True)
    (data / "words" / "notes.txt").write_text("nothing that a run begins with")
    (data / "list.txt").write_text("# mine\nwalk\n\n  jump # high\n")
    assert find_sequences(words) == [data / name for name in names]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["data/walk", "data/../data/walk"], "named twice"),
        (["data/walk", "data/*"], "named twice"),
        (["data/fly"], "does not exist"),
        (["data/notes"], "is empty"),
        (["data/x*"], "matches no sequence"),
        (["bad.txt"], "names what is no directory"),
        (["empty.txt"], "names no sequence"),
    ],
)
def test_wrong_names(data, words, error):
    (data.parent / "bad.txt").write_text("data/walk\ndata/fly\n")
    (data.parent / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match=error):
        find_sequences(words)


def test_run_folders(data):
    paths = [data / "walk", data / "run"]
    assert [e.run for e in make_entries(paths, None, [])] == [str(p / "slamhmr") for p in paths]
    (walk, _) = make_entries(paths, data / "out", [])
    assert walk == Entry("walk", str(data / "walk"), str(data / "out" / "walk"))
    assert make_entries(paths[:1], data / "out", [walk]) == []
    with pytest.raises(InputError, match="has its run folder"):
        make_entries(paths[:1], None, [walk])
    with pytest.raises(InputError, match="share the run folder"):
        make_entries([data / "other" / "walk"], data / "out", [walk])
