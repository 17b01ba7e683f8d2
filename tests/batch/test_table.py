import csv
import sys

import pytest
from batches import make_batch

from slamhmr.batch.folder import Job, write_job
from slamhmr.batch.states import WORDS, Now, current
from slamhmr.batch.table import as_json, counts, exit_code, table, totals, write_manifest

FACTS = {
    "frames": 8, "people": 2, "scale": 2.0, "scale_std_percent": 10.0, "version": "1",
    "gates": {"jitter": 1.5, "scale": None},
}  # fmt: skip


def jobs(*states):
    return [Now(Job(i, f"s{i}", state), state) for i, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["done", "done"], 0),
        (["done", "below"], 3),
        (["below", "failed"], 1),
        (["lost"], 1),
        (["refused"], 1),
        (["input"], 1),
        (["failed", "running"], 75),
        (["waiting"], 75),
        (["preempted", "done"], 75),
    ],
)
def test_exit_codes(states, code):
    assert exit_code(jobs(*states)) == code


def test_every_state_has_a_word_an_exit_code_and_a_place_in_the_totals():
    everything = jobs(*WORDS)
    assert counts(everything) == dict.fromkeys(WORDS, 1)
    assert totals(everything).startswith("9 sequences: 1 done, 1 below, 1 running")


def test_the_table_is_one_line_each(tmp_path):
    batch = make_batch(tmp_path, walk="0", run="0")
    write_job(batch.folder, Job(0, "walk", "refused", attempt=2, seconds=7.6, reason="x" * 300))
    lines = table(current(batch)).splitlines()
    assert lines[0].split() == ["#", "sequence", "state", "try", "seconds", "reason"]
    assert lines[1].split()[:5] == ["0", "walk", "refused", "2", "8"]
    assert len(lines[1]) < 180
    assert lines[2].split() == ["1", "run", "waiting"]
    assert lines[3] == "2 sequences: 1 waiting, 1 refused"


def test_the_manifest_holds_what_the_reports_say(tmp_path):
    batch = make_batch(tmp_path, a="0", b="0")
    write_job(batch.folder, Job(0, "a", "below", attempt=1, exit_code=3, reason="r", facts=FACTS))
    written = write_manifest(batch, current(batch))
    first, second = csv.DictReader(written[0].read_text().splitlines())
    wanted = {
        "name": "a", "state": "below", "exit_code": "3", "frames": "8", "people": "2",
        "scale": "2.0", "scale_std": "0.2", "gate_jitter": "1.5", "gate_scale": "",
        "attempts": "1", "version": "1", "reason": "r",
    }  # fmt: skip
    assert first.items() >= wanted.items()
    assert first["result"] == f"{batch.sequences[0].run}/result.npz"
    assert (second["state"], second["scale"], second["result"]) == ("waiting", "", "")


def test_parquet_where_pyarrow_is(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    batch = make_batch(tmp_path, a="0", b="0")
    write_job(batch.folder, Job(0, "a", "done", facts=FACTS))
    _, path = write_manifest(batch, current(batch))
    rows = parquet.read_table(path).to_pylist()
    assert [row["state"] for row in rows] == ["done", "waiting"]
    assert [row["gate_jitter"] for row in rows] == [1.5, None]


def test_one_line_where_pyarrow_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("slamhmr.batch.table.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    batch = make_batch(tmp_path, a="0")
    with caplog.at_level("INFO"):
        written = write_manifest(batch, current(batch))
    assert [path.name for path in written] == ["manifest.csv"]
    assert "pip install pyarrow" in caplog.text


def test_json(tmp_path):
    batch = make_batch(tmp_path, a="0")
    told = as_json(batch, current(batch))
    assert (told["counts"], told["exit_code"]) == ({"waiting": 1}, 75)
    assert told["jobs"][0]["name"] == "a"
