import json
import os
import subprocess
import sys

import pytest
from batches import ROOT, child, make_sequences, ready, runs, start_batch, wait_until
from sequences import write_sequence

from slamhmr.batch.folder import read_batch
from slamhmr.batch.states import current
from slamhmr.cli import build_parser, main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sequences of every kind in tmp_path/seqs; the batch is tmp_path/batch."""
    monkeypatch.setattr("slamhmr.batch.plan.COMMAND", child(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_sequences(
        tmp_path / "seqs", a="0", b="3 slamhmr: below the gates: feet slide",
        c="2 slamhmr: error: no video", d="4 slamhmr: error: camera lost",
    )  # fmt: skip
    return tmp_path


def counted(folder):
    return [len(runs(entry)) for entry in read_batch(folder / "batch").sequences]


def states(folder):
    return [now.state for now in current(read_batch(folder / "batch"))]


def test_words_may_stand_anywhere():
    options = build_parser().parse_args(["batch", "a", "--out", "x", "b", "k=1", "--wait", "c"])
    assert (options.words, options.wait) == (["a", "b", "k=1", "c"], True)
    solve = build_parser().parse_args(["optimize", "a=1", "--seq", "s", "b=2"])
    assert solve.overrides == ["a=1", "b=2"]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["batch", "a", "--nonsense"])


def test_errors_do_not_stop_the_others_and_nothing_is_done_twice(folder, capsys):
    assert main(["batch", "seqs", "seed=3"]) == 1
    assert states(folder) == ["done", "below", "input", "refused"]
    assert capsys.readouterr().out.startswith("4 sequences: 1 done, 1 below, 1 refused, 1 input")
    entry = read_batch(folder / "batch").sequences[0]
    assert runs(entry)[0][4:] == ["seed=3", "threads=1"]
    assert (folder / "batch" / "manifest.csv").exists()
    assert main(["batch", "seqs", "seed=3"]) == 1
    assert main(["batch"]) == 1
    assert counted(folder) == [1, 1, 1, 1]


def test_what_every_sequence_lacks_is_said_once_before_anything(folder, capsys):
    for name in "abcd":
        (folder / "seqs" / name / "images").rmdir()
        write_sequence(folder / "seqs" / name, initial=False)
    assert main(["batch", "seqs", "init=hmr2", "device=cuda"]) == 2
    said = capsys.readouterr().err
    assert "2 things are missing, nothing was started" in said
    assert "init 'hmr2'" in said
    assert not (folder / "batch").exists()
    (folder / "seqs" / "c" / "demo_c.pkl").write_bytes(b"")  # one has its file: the others' own
    assert main(["batch", "seqs", "init=hmr2", "--print-script"]) == 0
    assert "#SBATCH" in capsys.readouterr().out


def test_retry(folder):
    main(["batch", "seqs"])
    (folder / "seqs" / "c" / "do").write_text("0")
    assert main(["batch", "--retry", "failed"]) == 1
    assert counted(folder) == [1, 1, 2, 2]
    assert states(folder) == ["done", "below", "done", "refused"]
    (folder / "seqs" / "b" / "do").write_text("0")
    (folder / "seqs" / "d" / "do").write_text("0")
    assert main(["batch", "seqs/b", "--retry", "below,failed"]) == 1
    assert counted(folder) == [1, 2, 2, 2]
    assert main(["batch", "--retry", "below,failed"]) == 0
    assert counted(folder) == [1, 2, 2, 3]
    assert main(["status", "batch"]) == 0


def test_a_batch_grows(folder):
    assert main(["batch", "seqs/a"]) == 0
    assert main(["batch", "seqs/[ab]"]) == 3
    assert counted(folder) == [1, 1]


def test_results_beside_data_that_nobody_may_write_to(folder):
    assert main(["batch", "seqs/a", "--results", "results"]) == 0
    assert read_batch(folder / "batch").sequences[0].run == str(folder / "results" / "a")
    assert not (folder / "seqs" / "a" / "slamhmr").exists()


REFUSED = (
    (["seqs", "seed=4"], "was made with the settings seed=3 threads=1"),
    (["--retry", "faild"], "did you mean 'failed'"),
    (["--workers", "0"], "--workers 0: at least 1"),
    (["seqs", "sead=4"], "did you mean 'seed'"),
    (["seqs", "device=cuda:1"], "say device=cuda"),
    (["seqs", "cluster.gpu=1"], "did you mean 'gpus'"),
    (["seqs", "seqs/a"], "named twice"),
    (["--out", "seqs", "seqs/a"], "holds other files than a batch's"),
    (["--out", "nothing"], "no sequences are named"),
)


def test_what_is_refused_runs_nothing(folder, capsys):
    main(["batch", "seqs/a", "seed=3"])
    before = sorted(folder.iterdir())
    for words, error in REFUSED:
        capsys.readouterr()
        assert main(["batch", *words]) == 2, words
        assert error in capsys.readouterr().err
    assert counted(folder) == [1]
    assert sorted(folder.iterdir()) == before


def test_settings_may_change_until_something_has_run(folder, capsys):
    main(["batch", "seqs/a", "seed=3", "--print-script"])
    assert main(["batch", "seqs/a", "seed=4"]) == 0
    assert "seed=4" in read_batch(folder / "batch").arguments
    assert main(["batch", "seqs/a", "seed=5"]) == 2
    assert "was made with the settings" in capsys.readouterr().err


def test_a_result_that_another_run_has_written_is_told(folder, capsys):
    main(["batch", "seqs/a"])
    result = folder / "seqs" / "a" / "slamhmr" / "result.npz"
    result.write_bytes(b"")
    assert main(["batch", "seqs/a", "--out", "other", "seed=2"]) == 0
    assert "1 of 1 run folders hold a result already" in capsys.readouterr().err
    ended = current(read_batch(folder / "batch"))[0].job.ended
    os.utime(result, (ended + 60, ended + 60))
    now = current(read_batch(folder / "batch"))[0]
    assert (now.state, now.reason) == (
        "done",
        "its result.npz is newer: another run has written it",
    )


def test_the_reason_of_a_list_is_its_first_line_too(folder):
    words = "2 slamhmr: error: 2 things are missing:\n  1. a network: wget\n  2. a GPU"
    (folder / "seqs" / "c" / "do").write_text(words)
    main(["batch", "seqs/c"])
    assert current(read_batch(folder / "batch"))[0].reason.endswith("missing: 1. a network: wget")


def test_whoever_stops_reading_is_no_error(folder):
    main(["batch", "seqs/a"])
    argv = [sys.executable, "-m", "slamhmr.cli", "status", str(folder / "batch"), "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    told = subprocess.run(argv, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (told.returncode, told.stderr) == (0, "")


def test_two_batches_at_once_do_not_share_a_folder(folder, capsys):
    make_sequences(folder / "slow", long="sleep 20")
    process = start_batch(folder, str(folder / "slow"))
    wait_until(lambda: (folder / "batch" / "batch.json").exists())
    ready(read_batch(folder / "batch"), 0)
    assert main(["batch"]) == 2
    assert "is in use by another" in capsys.readouterr().err
    assert main(["status"]) == 75
    assert "1 running" in capsys.readouterr().out
    process.terminate()
    process.communicate()
    assert process.returncode == 75


def test_a_script_is_printed_and_nothing_is_run(folder, capsys):
    assert main(["batch", "seqs", "--print-script", "cluster.partition=long"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n#SBATCH")
    assert "--partition=long" in script
    assert counted(folder) == [0, 0, 0, 0]


def test_status_as_json(folder, capsys):
    main(["batch", "seqs"])
    capsys.readouterr()
    assert main(["status", "batch", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [job["state"] for job in told["jobs"]] == ["done", "below", "input", "refused"]
    assert main(["status", "elsewhere"]) == 2
