"""`slamhmr bench world`: one metric world for everybody, on scenes that make it hard.

Families of scenes (`bench/world_scenes.py`) are written as sequence directories without pixels and
solved by `optimize` as a user would, with posterior, report and gates. The table has the median of
every score per family and over all scenes; what is beyond the limits is said in sentences.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from slamhmr.artifacts import write_text
from slamhmr.bench.table import Row, format_rows, write_csv
from slamhmr.bench.words import settings
from slamhmr.bench.world_scenes import FAMILIES, MOST_SCENES, world_scene
from slamhmr.bench.world_scores import gate_facts, score_scene, travels
from slamhmr.body import BodyModel, load_body
from slamhmr.config import Config, load_config
from slamhmr.errors import ConfigError, SlamhmrError
from slamhmr.pipeline import optimize
from slamhmr.steps import stage_files
from slamhmr.synth.scene import SceneSpec, make_scene
from slamhmr.synth.write import write_scene

LOG = logging.getLogger(__name__)
CSV, TABLE = "world.csv", "world.md"
REFUSED = 4
# Column -> limit of its median over all scenes; a family may have twice that.
LIMITS = {
    "scale_moving": 4.0, "scale_still": 6.0, "W": 90.0, "WA": 60.0, "RTE": 2.0, "sliding": 5.0,
    "mutual_cm": 10.0,
}  # fmt: skip
FAMILY_FACTOR = 2.0
LEAST_COVERAGE = 0.9  # of the true frames, in a family's mean: what is left out has no error
REGIONS = (0.85, 0.95)  # share of the truth inside the 90 % regions, over all scenes
LEAST_HELD = 0.5  # share of the true joints inside the 90 % regions, of a scene that is said
UNITS = {
    "scale_moving": "%", "scale_still": "%", "W": "mm", "WA": "mm", "PA": "mm", "RTE": "%",
    "sliding": "mm/frame", "mutual_cm": "cm at 5 m", "gravity_deg": "deg",
}  # fmt: skip
COLUMNS = (
    "scale_moving", "scale_still", "W", "WA", "PA", "RTE", "sliding", "jitter", "gravity_deg",
    "mutual_cm",
)  # fmt: skip
MEANS = ("in90_abs", "in90_rel", "in90_scale", "coverage")


@dataclass(frozen=True)
class WorldSpec:
    """Which scenes: `scenes=2 seed=80000 families=orbit,cut first=0`."""

    scenes: int = 2  # of every family
    first: int = 0  # number of the first scene of every family
    seed: int = 80_000
    families: list[str] = field(default_factory=lambda: list(FAMILIES))
    frames: int = 0  # of every scene, for a quick look; 0: as the family has them
    settings: list[str] = field(default_factory=list)  # key=value of the configuration

    def check(self) -> None:
        """Raise ConfigError for names and numbers that do not exist."""
        for name in self.families:
            if name not in FAMILIES:
                known = ", ".join(FAMILIES)
                raise ConfigError(f"bench world: family '{name}' is unknown; known: {known}")
        if self.scenes < 1 or self.first < 0 or self.first + self.scenes > MOST_SCENES:
            raise ConfigError(
                f"bench world: scenes={self.scenes} from first={self.first} on are not within "
                f"0 .. {MOST_SCENES - 1}"
            )


def run(words: Sequence[str], out: Path) -> str:
    """Solve all scenes; write `world.csv` and `world.md`, return the table.

    Both are written anew after every scene. Raises ConfigError for unknown words.
    """
    spec = settings(WorldSpec, words, "bench world")
    spec.check()
    config, body = load_config((), spec.settings), load_body()
    rows: list[Row] = []
    jobs = jobs_of(spec)
    for number, (family, scene) in enumerate(jobs, start=1):
        LOG.info("%d of %d: %s, seed %d, %s", number, len(jobs), family, scene.seed, scene.camera)
        rows.append(solve_scene(family, scene, config, body, out))
        write_csv(out / CSV, rows)
        write_text(out / TABLE, summary(rows, words))
    return summary(rows, words)


def jobs_of(spec: WorldSpec) -> list[tuple[str, SceneSpec]]:
    """Family and specification of every scene: the first of all families, then the second ..."""
    found = []
    for number in range(spec.first, spec.first + spec.scenes):
        for family in spec.families:
            scene = world_scene(family, number, spec.seed)
            found.append((family, replace(scene, frames=spec.frames) if spec.frames else scene))
    return found


def solve_scene(family: str, spec: SceneSpec, config: Config, body: BodyModel, out: Path) -> Row:
    """Write, solve and score one scene; a run that is refused has no scores but its sentence."""
    scene = make_scene(spec, body)
    folder = out / "world" / f"{family}_{spec.seed}"
    write_scene(folder, scene, body, spec, pixels=False, observations=True)
    row: dict[str, float | int | str] = {
        "family": family, "seed": spec.seed, "camera": spec.camera, "motion": spec.motion,
        "people": spec.people, "frames": spec.frames, "travels": int(travels(scene)),
    }  # fmt: skip
    began = time.perf_counter()
    try:
        outcome = optimize(folder, config, overwrite=True)
    except SlamhmrError as e:
        LOG.warning("%s, seed %d: %s", family, spec.seed, e)
        return {**row, "exit": e.exit_code, "failed": "refused", "notes": str(e)}
    row["seconds"] = time.perf_counter() - began
    row |= score_scene(folder, scene, body, last=stage_files(config)[-1])
    row["scale_moving" if travels(scene) else "scale_still"] = row.pop("scale")
    return {**row, **gate_facts(outcome.report, outcome.failed)}


def summary(rows: Sequence[Row], words: Sequence[str]) -> str:
    """Markdown: medians per family and over all scenes, and what is beyond the limits."""
    families = list(dict.fromkeys(str(row["family"]) for row in rows))
    lines = [_line(family, [r for r in rows if r["family"] == family]) for family in families]
    lines.append(_line("all", rows))
    lines.append({"family": "limit", **LIMITS, "in90_abs": "0.85-0.95", "in90_rel": "0.85-0.95"})
    said = outside(rows)
    verdict = "\n".join(f"- {sentence}" for sentence in said) if said else "Everything holds."
    command = " ".join(["slamhmr bench world", *words])
    return (
        f"# One metric world\n\n`{command}`: {len(rows)} scenes of {len(families)} families. "
        "Medians over scenes; shares inside the 90 % regions and coverage are means. Scale is that "
        "of the camera's path where it travels, else of people's distances from it; units: "
        f"{_units()}; `far`: scenes beyond twice a limit that pass their gates; `silent`: those of "
        "them whose truth the stated regions do not hold either.\n\n"
        f"```\n{format_rows(lines)}\n```\n\n{verdict}\n"
    )


def outside(rows: Sequence[Row]) -> list[str]:
    """A sentence for every limit that does not hold, over all scenes and by family."""
    wrong = []
    families = list(dict.fromkeys(str(row["family"]) for row in rows))
    for name, limit in LIMITS.items():
        groups = [("all scenes", list(rows), limit)]
        groups += [
            (
                f"family '{family}'",
                [r for r in rows if r["family"] == family],
                FAMILY_FACTOR * limit,
            )
            for family in families
        ]
        for title, group, most in groups:
            value = _median(group, name)
            if value is not None and value > most:
                wrong.append(f"{title}: {name} is {value:.3g} {UNITS[name]}, more than {most:g}")
    for name in ("in90_abs", "in90_rel"):
        share = _mean(rows, name)
        if share is not None and not REGIONS[0] <= share <= REGIONS[1]:
            wrong.append(
                f"all scenes: {name}, the 90 % region holds {100 * share:.1f} %, not "
                f"{100 * REGIONS[0]:.0f} to {100 * REGIONS[1]:.0f} %"
            )
    for family in families:
        share = _mean([row for row in rows if row["family"] == family], "coverage")
        if share is not None and share < LEAST_COVERAGE:
            wrong.append(
                f"family '{family}': only {100 * share:.0f} % of the true frames are solved"
            )
    refused = [f"{row['family']} {row['seed']}" for row in rows if row["failed"] == "refused"]
    if len(refused) > 0:
        wrong.append(f"refused, which counts as beyond every limit: {', '.join(refused)}")
    return wrong


def far_off(row: Row) -> bool:
    """True where a scene is beyond `FAMILY_FACTOR` times a limit; with exit 0, nobody says so."""
    return any(float(row.get(name, 0.0)) > FAMILY_FACTOR * most for name, most in LIMITS.items())


def unsaid(row: Row) -> bool:
    """True where neither a gate nor the stated uncertainty says how far off a scene is.

    Said is what passes no gate, or whose 90 % regions hold the scale and half of all joints.
    """
    held = float(row.get("in90_scale", 1.0)) > 0 and float(row.get("in90_abs", 0.0)) >= LEAST_HELD
    return int(row["exit"]) == 0 and far_off(row) and not held


def _line(title: str, rows: Sequence[Row]) -> Row:
    line: dict[str, float | int | str] = {"family": title, "scenes": len(rows)}
    for name in (*COLUMNS, *MEANS):
        value = _mean(rows, name) if name in MEANS else _median(rows, name)
        line[name] = "-" if value is None else value
    line["below_gates"] = sum(int(row["exit"]) != 0 for row in rows)
    line["far"] = sum(int(row["exit"]) == 0 and far_off(row) for row in rows)
    line["silent"] = sum(unsaid(row) for row in rows)
    seconds = [float(row["seconds"]) for row in rows if "seconds" in row]
    line["seconds"] = sum(seconds)
    return line


def _median(rows: Sequence[Row], name: str) -> float | None:
    """Median over the scenes that have the score; a refused scene counts as infinitely bad."""
    values = [float(row[name]) for row in rows if name in row and not math.isnan(float(row[name]))]
    if len(values) == 0:
        return None
    values += [math.inf for row in rows if row["failed"] == "refused"]
    return median(values)


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [float(row[name]) for row in rows if name in row]
    return sum(values) / len(values) if len(values) > 0 else None


def _units() -> str:
    return ", ".join(f"{name} {unit}" for name, unit in UNITS.items())
