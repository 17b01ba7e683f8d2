"""`slamhmr bench ablation`: what the learned start, contacts, priors and velocities are worth.

Scenes with exact truth of every family of motion, detector-like errors, drifting SLAM. "all" is
the default configuration; each other variant lacks one part; "geometric" has none of them: start
and contacts in closed form, no learned term but the pose prior. Without the transition prior
smoothness set by hand takes its place.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr.artifacts import read_arrays, write_text
from slamhmr.bench.table import Row, format_rows, write_csv
from slamhmr.bench.words import settings
from slamhmr.body import BodyModel, forward_points, load_body
from slamhmr.config import Config, load_config
from slamhmr.errors import ConfigError
from slamhmr.eval import metrics
from slamhmr.init import geometric, lift
from slamhmr.init.align import align
from slamhmr.scene_problem import Known
from slamhmr.solve.sweep import Resources
from slamhmr.stages import run_stage
from slamhmr.synth.motions import KINDS
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import CameraTrack, Initial, Observations, SceneState

LOG = logging.getLogger(__name__)
CAMERAS = ("follow", "orbit", "handheld", "forward", "static", "rotation")
# Variant -> what it lacks.
VARIANTS: dict[str, tuple[str, ...]] = {
    "geometric": ("start", "contacts", "transition", "root_velocity", "up"),
    "all": (),
    "no start": ("start",),
    "no contacts": ("contacts",),
    "no pose prior": ("pose_prior",),
    "no transition prior": ("transition",),
    "no root velocity": ("root_velocity",),
    "no vertical": ("up",),
}
# What a stage had before the transition prior took its place: smoothness set by hand.
BY_HAND = {"acceleration": {"weight": 0.02}, "turning": {"weight": 0.01}}
HELD_OUT = "mocap"  # family of the motion files of `motions`


@dataclass(frozen=True)
class AblationSpec:
    """Which scenes and variants: `scenes=2 families=walk,run variants=geometric,all`."""

    scenes: int = 2  # of every family
    frames: int = 150
    seed: int = 20_000
    families: list[str] = field(default_factory=lambda: list(KINDS))
    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    motions: str = ""  # directory of motion files: one more family, "mocap", of those held out

    def check(self) -> None:
        """Raise ConfigError for names that do not exist."""
        for name, known in (("families", KINDS), ("variants", tuple(VARIANTS))):
            for value in getattr(self, name):
                if value not in known:
                    raise ConfigError(
                        f"bench ablation: {name} '{value}' is unknown; known: {', '.join(known)}"
                    )
        if self.scenes < 1:
            raise ConfigError(f"bench ablation: scenes={self.scenes} must be at least 1")


@dataclass(frozen=True)
class Case:
    """What is solved."""

    family: str
    truth: Scene
    observations: Observations
    cameras: CameraTrack
    geometric: Initial
    lifted: Initial


def run(words: Sequence[str], out: Path) -> str:
    """Solve all variants of all scenes; write `ablation.csv` and `ablation.md`, return the table.

    The csv is written anew after every scene. Raises ConfigError for unknown words.
    """
    spec = settings(AblationSpec, words, "bench ablation")
    spec.check()
    body, config = load_body(), load_config()
    rows: list[Row] = []
    jobs = scenes_of(spec)
    for number, (family, scene) in enumerate(jobs, start=1):
        LOG.info("%d of %d: %s, camera %s", number, len(jobs), family, scene.camera)
        case = make_case(family, scene, body)
        for variant in spec.variants:
            state = solve(case, VARIANTS[variant], config, body)
            rows.append({"variant": variant, "family": family, "seed": scene.seed,
                         **scores(case, state, body)})  # fmt: skip
        write_csv(out / "ablation.csv", rows)
    table = summary(rows, spec)
    write_text(out / "ablation.md", table)
    return table


def scenes_of(spec: AblationSpec) -> list[tuple[str, SceneSpec]]:
    """Family and specification of every scene; cameras and nuisances in turn."""
    motions = [(family, family) for family in spec.families for _ in range(spec.scenes)]
    if spec.motions != "":
        from priors.training.clips import clip_names

        held = clip_names(Path(spec.motions), held_out=True)
        recorded = [
            name
            for name in held
            if not name.startswith("proc_") and _long_enough(Path(spec.motions), name, spec)
        ]
        motions += [(HELD_OUT, str(Path(spec.motions) / f"{name}.npz")) for name in recorded]
    return [
        (family, SceneSpec(
            seed=spec.seed + index, frames=spec.frames, motion=motion, noise="detector",
            camera=CAMERAS[index % len(CAMERAS)], occlusions=index % 2 == 1,
            slam_rotation_drift_deg=0.15, slam_drift=0.0015,
        ))
        for index, (family, motion) in enumerate(motions)
    ]  # fmt: skip


def _long_enough(directory: Path, name: str, spec: AblationSpec) -> bool:
    motion = read_arrays(directory / f"{name}.npz")
    return len(motion["pelvis"]) / float(motion["fps"]) > spec.frames / SceneSpec.fps


def make_case(family: str, spec: SceneSpec, body: BodyModel) -> Case:
    """A scene, its observations and both starts."""
    truth = make_scene(spec, body)
    observations, cameras = observe(truth, body, spec)
    return Case(
        family, truth, observations, cameras,
        geometric.initialise(observations, cameras, body, geometric.Options()),
        lift.initialise(observations, cameras, body, lift.Options()),
    )  # fmt: skip


def start_of(case: Case, lacks: Sequence[str]) -> Initial:
    """The lifted start without some of what it says."""
    start = case.lifted
    if "start" in lacks:
        old = case.geometric
        start = replace(
            start, cam_from_root=old.cam_from_root, body_pose=old.body_pose, betas=old.betas,
            confidence=old.confidence, rotation_sigma=None,
        )  # fmt: skip
    if "contacts" in lacks:
        start = replace(start, contacts=None)
    if "root_velocity" in lacks:
        start = replace(start, root_velocity=None, root_velocity_sigma=None)
    if "up" in lacks:
        start = replace(start, up_cam=None, up_sigma=None)
    return start


def solve(case: Case, lacks: Sequence[str], config: Config, body: BodyModel) -> SceneState:
    """Alignment and every stage, without the terms of `lacks`."""
    start = start_of(case, lacks)
    state = align(start, case.observations, case.cameras, body)
    heights = torch.full((len(state.person_id),), torch.nan, dtype=torch.float64)
    known = Known(case.observations, start, body, heights)
    for name in config.schedule:
        stage = config.stages[name]
        terms = {term: values for term, values in stage.terms.items() if term not in lacks}
        if "transition" in lacks and "transition" in stage.terms:
            terms |= BY_HAND
        state, _ = run_stage(
            state, known, name, replace(stage, terms=terms),
            resources=Resources(threads=config.threads),
        )  # fmt: skip
    return state


def scores(case: Case, state: SceneState, body: BodyModel) -> dict[str, float]:
    """Errors in mm, % and deg over all people, 22 joints."""
    points, _ = forward_points(
        body, state.betas, roma.rotvec_to_rotmat(state.root_orient), state.pelvis,
        roma.rotvec_to_rotmat(state.body_pose),
    )  # fmt: skip
    found: dict[str, list[Tensor]] = {"pa_mpjpe_mm": [], "wa_mpjpe100_mm": [], "w_mpjpe100_mm": []}
    for index, valid in enumerate(state.valid & case.truth.valid):
        ours, truth = points[index, valid, :22], case.truth.points[index, valid, :22]
        found["pa_mpjpe_mm"].append(metrics.pa_mpjpe_mm(ours, truth))
        found["wa_mpjpe100_mm"].append(metrics.wa_mpjpe100_mm(ours, truth))
        found["w_mpjpe100_mm"].append(metrics.w_mpjpe100_mm(ours, truth))
    row = {name: float(torch.cat(parts).mean()) for name, parts in found.items()}
    if state.cameras.moving:
        row["scale_percent"] = 100 * abs(float(state.log_scale.exp()) / case.truth.scale - 1)
    row["gravity_deg"] = _gravity_deg(state, case.truth)
    return row


def _gravity_deg(state: SceneState, truth: Scene) -> float:
    ours = state.cameras.world_from_cam[0, :3, :3].T @ state.up
    theirs = truth.world_from_cam[0, 2, :3]
    return float(torch.rad2deg(torch.acos((ours @ theirs).clamp(-1, 1))))


def summary(rows: Sequence[Row], spec: AblationSpec) -> str:
    """Markdown: means over families of every variant, and the errors of every family."""
    variants = list(dict.fromkeys(str(row["variant"]) for row in rows))
    families = list(dict.fromkeys(str(row["family"]) for row in rows))
    columns = ("pa_mpjpe_mm", "wa_mpjpe100_mm", "w_mpjpe100_mm", "scale_percent", "gravity_deg")
    means: list[Row] = [
        {"variant": variant, **{c: _mean(rows, variant, families, c) for c in columns}}
        for variant in variants
    ]
    by_family = "".join(
        f"\n```\n{format_rows(_by_family(rows, variants, families, column, title))}\n```\n"
        for column, title in (
            ("w_mpjpe100_mm", "W-MPJPE100, mm"),
            ("wa_mpjpe100_mm", "WA-MPJPE100, mm"),
            ("pa_mpjpe_mm", "PA-MPJPE, mm"),
        )
    )
    words = f"scenes={spec.scenes} frames={spec.frames} seed={spec.seed}"
    if spec.motions != "":
        words += " motions=MOTIONS"
    return (
        f"# What every learned part is worth\n\n`slamhmr bench ablation {words}`: "
        f"{len(rows) // len(variants)} scenes of {len(families)} families, means over families. "
        '"geometric" is the start in closed form and no learned term but the pose prior; "all" '
        "the default; each other line lacks one part.\n\n```\n"
        f"{format_rows(means)}\n```\n{by_family}"
    )


def _by_family(
    rows: Sequence[Row], variants: Sequence[str], families: Sequence[str], column: str, title: str
) -> list[Row]:
    return [
        {title: variant, **{f: _mean(rows, variant, [f], column) for f in families}}
        for variant in variants
    ]


def _mean(rows: Sequence[Row], variant: str, families: Sequence[str], column: str) -> float:
    """Mean over families of the mean over a family's scenes."""
    values: list[Float[Tensor, ""]] = []
    for family in families:
        mine = [
            float(row[column]) for row in rows
            if row["variant"] == variant and row["family"] == family and column in row
        ]  # fmt: skip
        if len(mine) > 0:
            values.append(torch.tensor(mine).mean())
    return float(torch.stack(values).mean()) if len(values) > 0 else float("nan")
