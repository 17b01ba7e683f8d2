"""Benchmarks are left out unless asked for: `pytest tests/benchmarks -m benchmark`.

What is measured is held against `baseline.json`, which changes only by `--update-baseline`.
"""

import json
from pathlib import Path

import pytest

BASELINE = Path(__file__).with_name("baseline.json")
# Unit -> factor by which a value may be worse: times loose, accuracies tight (1: an energy).
TOLERANCE = {"s": 2.5, "GB": 1.2, "iterations": 1.3, "mm": 1.05, "1": 1.01}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-baseline", action="store_true", help="write what is measured to baseline.json"
    )


@pytest.fixture(scope="session")
def compare(request: pytest.FixtureRequest):
    """`compare(name, value, unit)`: lower is better; worse than the baseline allows fails."""
    update = request.config.getoption("--update-baseline")
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}

    def check(name: str, value: float, unit: str) -> None:
        if update:
            known[name] = {
                "value": round(value, 4), "unit": unit, "direction": "lower",
                "tolerance": TOLERANCE[unit],
            }  # fmt: skip
            BASELINE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            return
        assert name in known, f"'{name}' has no baseline; measure it with --update-baseline"
        limit = known[name]["value"] * known[name]["tolerance"]
        assert value <= limit, f"{name}: {value:.4g} {unit}, at most {limit:.4g}"

    return check
