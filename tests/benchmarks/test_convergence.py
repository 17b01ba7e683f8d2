"""Our solver against L-BFGS on the same energy from the same start, in ten times our time."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [0, 1])
def test_our_final_energy_is_not_above_that_of_lbfgs(seed: int, tmp_path: Path, compare):
    words = ["bench", "convergence", "--out", str(tmp_path), "frames=300", f"seed={seed}"]
    done = subprocess.run(
        [sys.executable, "-m", "slamhmr.cli", *words], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    print(done.stdout)
    with (tmp_path / "convergence_summary.csv").open() as file:
        ours, theirs = csv.DictReader(file)
    assert float(theirs["seconds"]) >= 10 * float(ours["seconds"])
    assert float(ours["energy_end"]) <= float(theirs["energy_end"])
    name = f"convergence, seed {seed}: "
    compare(f"{name}wall", float(ours["seconds"]), "s")
    compare(f"{name}energy", float(ours["energy_end"]), "1")
