"""The clips that no training sees: whole motions, of every group, never a twin in the training."""

import re
from pathlib import Path

import pytest

import priors.training

LIST = Path(priors.training.__path__[0]) / "held_out.txt"
MOCAP = Path(__file__).resolve().parents[2] / ".." / "shared" / "mocap"
GROUPS = {  # and every how manyth of its motions is held out
    r"cmu_bvh_(007|002_0[123])|cmu_asf_amc_02_0[123]|humanoid3d_(walk|run)": 4,
    r"cmu_bvh_00[12]|cmu_asf_amc_02": 6,
    r"cmu_bvh_006|humanoid3d_(kick|punch|spinkick|jump)": 6,
    r"martial": 6,
    r"humanoid3d_(crawl|getup|roll|cartwheel|backflip)": 6,
    r"reactidle": 6,
    r"cmu_bvh_005|humanoid3d_(dance|spin)": 6,
    r"indian": 6,
    r"salsa": 6,
}


def motion_of(name: str) -> str:
    """One name for all recordings of one motion."""
    trial = re.fullmatch(r"cmu_asf_amc_02_(\d+)", name)
    if trial is not None:
        return f"cmu_bvh_002_{trial[1]}"
    couple = re.fullmatch(r"salsa_(\d+)", name)
    if couple is not None and int(couple[1]) > 15:
        return f"salsa_{int(couple[1]) - 15:02d}"
    return name


@pytest.fixture(scope="module")
def names() -> list[str]:
    if not MOCAP.is_dir():
        pytest.skip(f"no recordings in {MOCAP}")
    files = [*MOCAP.rglob("*.bvh"), *MOCAP.rglob("*.amc"), *MOCAP.rglob("humanoid3d*.txt")]
    return sorted(f"{path.parent.name}_{path.stem}" for path in files)


@pytest.fixture(scope="module")
def held() -> set[str]:
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_the_list_follows_its_rule(names: list[str], held: set[str]) -> None:
    left = {motion_of(name) for name in names}
    chosen: set[str] = set()
    for pattern, every in GROUPS.items():
        group = sorted(name for name in left if re.search(pattern, name))
        left -= set(group)
        chosen |= {name for index, name in enumerate(group) if index % every == 1}
    assert left == set()
    assert held == {name for name in names if motion_of(name) in chosen}


def test_one_in_eight_of_every_group(names: list[str], held: set[str]) -> None:
    left = list(names)
    for pattern in GROUPS:
        group = [name for name in left if re.search(pattern, name)]
        left = [name for name in left if name not in group]
        assert 8 * len(held & set(group)) >= len(group) > 0, pattern


def test_no_motion_is_in_both_sets(names: list[str], held: set[str]) -> None:
    trained = {motion_of(name) for name in names if name not in held}
    assert trained & {motion_of(name) for name in held} == set()
