"""Which file a backend that reads somebody's output is given."""

from pathlib import Path

import pytest

from slamhmr.detect import phalp
from slamhmr.errors import InputError
from slamhmr.init import file, gvhmr, hmr2, lift, sam3d_body
from slamhmr.sources import read_files, with_file


def test_the_published_name_is_looked_for_in_the_sequence_directory(tmp_path: Path):
    assert with_file(gvhmr.Options(), gvhmr, tmp_path).path == ""
    made = tmp_path / "hmr4d_results.pt"
    made.touch()
    options = with_file(gvhmr.Options(first=3), gvhmr, tmp_path)
    assert options == gvhmr.Options(path=str(made), first=3)
    assert read_files(options, gvhmr) == [made]


def test_a_path_that_is_set_stays(tmp_path: Path):
    (tmp_path / "hmr4d_results.pt").touch()
    options = gvhmr.Options(path="elsewhere.pt")
    assert with_file(options, gvhmr, tmp_path) == options
    assert read_files(options, gvhmr) == []


def test_a_folder_counts_with_all_its_files(tmp_path: Path):
    folder = tmp_path / "sam3d_body"
    folder.mkdir()
    for name in ("b.npz", "a.npz"):
        (folder / name).touch()
    options = with_file(sam3d_body.Options(), sam3d_body, tmp_path)
    assert read_files(options, sam3d_body) == [folder / "a.npz", folder / "b.npz"]


def test_other_backends_read_nobodys_output(tmp_path: Path):
    options = lift.Options()
    assert with_file(options, lift, tmp_path) is options
    assert read_files(options, lift) == []
    start = tmp_path / "initial.npz"
    start.touch()
    assert read_files(file.Options(path=str(start)), file) == [start]


def test_a_name_with_a_star_fits_one_file(tmp_path: Path):
    (tmp_path / "results").mkdir()
    first = tmp_path / "results" / "demo_a.pkl"
    first.touch()
    assert with_file(hmr2.Options(), hmr2, tmp_path).path == str(first)
    assert with_file(phalp.Options(first=2), phalp, tmp_path) == phalp.Options(str(first), 2)
    (tmp_path / "results" / "demo_b.pkl").touch()
    with pytest.raises(InputError, match=r"several 'results/demo_\*.pkl' \(demo_a.pkl, demo_b"):
        with_file(hmr2.Options(), hmr2, tmp_path)
