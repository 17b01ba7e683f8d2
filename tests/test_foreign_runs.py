"""Whole runs on files of SLAHMR and PHALP, written from a known truth, by the command line."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from foreign_case import Truth, make_truth
from phalp_case import phalp_frames, write_phalp
from slahmr_case import write_tree

from slamhmr import cli
from slamhmr.artifacts import load, to_arrays, write_arrays
from slamhmr.types import Observations, Result

FAST = ["overlay.enabled=false", "schedule=[root]", "posterior.enabled=false"]
SOLVED = (0, cli.BELOW_GATES)  # 12 frames do not tell the scale


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth("smpl", frames=12)


def test_a_tree_of_slahmr_is_solved_with_one_command(truth: Truth, tmp_path: Path):
    root = write_tree(tmp_path / "root", truth)
    folder = tmp_path / "park"
    run = ["optimize", "--slahmr", str(root), "--seq", str(folder), *FAST]
    assert cli.main(run) in SOLVED
    report = json.loads((folder / "slamhmr" / "report.json").read_text())
    assert sum(note.startswith("SLAHMR's folder") for note in report["notes"]) >= 3
    result = load(folder / "slamhmr" / "result.npz", Result)
    assert result.person_id.tolist() == [1, 2]
    assert result.fps == 25
    stamp = (folder / "slamhmr" / "4_root.npz").stat().st_mtime_ns
    assert cli.main(run) in SOLVED  # made again, and yet nothing is solved again
    assert (folder / "slamhmr" / "4_root.npz").stat().st_mtime_ns == stamp


def test_a_track_file_of_phalp_is_found_and_its_pieces_joined(truth: Truth, tmp_path: Path):
    (tmp_path / "images").mkdir()
    for number in range(12):
        picture = np.zeros((*reversed(truth.observations.image_size), 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{number:06d}.jpg"), picture)
    content = phalp_frames(truth)
    for number, frame in enumerate(content.values()):
        frame["shot"] = 0
        if number >= 6:
            for key in ("tid", "tracked_ids"):
                frame[key] = [9 if track == 1 else track for track in frame[key]]
    write_phalp(tmp_path / "demo_v.pkl", content)
    cameras = replace(truth.cameras, scale_known=True)
    write_arrays(tmp_path / "cameras.npz", to_arrays(cameras))
    run = ["optimize", "--seq", str(tmp_path), "detect=phalp", "init=hmr2", *FAST]
    assert cli.main(run) in SOLVED
    found = load(tmp_path / "slamhmr" / "1_observations.npz", Observations)
    assert found.person_id.tolist() == [1, 2]
    assert bool(found.seen.all())
    report = json.loads((tmp_path / "slamhmr" / "report.json").read_text())
    assert any("person 9 is person 1" in note for note in report["notes"])
