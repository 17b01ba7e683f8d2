"""`slamhmr init`: the feed-forward path alone, a world of people without any optimisation.

Keypoints and cameras as in `optimize`; then the initialiser's networks, alignment in closed form,
and paths from predicted velocities, cameras and standing feet. No uncertainty: that takes a solve.
"""

from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from slamhmr import footage, steps
from slamhmr.artifacts import write_json, write_text
from slamhmr.body import BodyModel, load_body
from slamhmr.cameras import segment_starts
from slamhmr.config import Config, to_yaml
from slamhmr.constraints import correct_contacts
from slamhmr.export.result import build_result
from slamhmr.init.segments import place
from slamhmr.init.trajectory import refine_paths
from slamhmr.judgement import judge_result
from slamhmr.multiview import film, seen_anywhere
from slamhmr.pipeline import Outcome, draw
from slamhmr.preflight import checked_clip
from slamhmr.report import Run, assemble_report, provenance
from slamhmr.reprojection import score
from slamhmr.runfolder import RunFolder
from slamhmr.sequence import Sequence, known_heights
from slamhmr.threads import bounded_threads
from slamhmr.types import Observations, Result, SceneState

FOLDER = "slamhmr-init"


def feed_forward(
    folder: Path,
    config: Config,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    wait: bool = False,
    progress: bool = False,
) -> Outcome:
    """Bodies and paths of everybody as the networks see them, in `out` or `folder`/slamhmr-init.

    The files are those of `optimize`, without stages. Raises the SlamhmrError kinds.
    """
    torch.manual_seed(config.seed)
    run = RunFolder(out or folder / FOLDER, overwrite=overwrite, wait=wait)
    sequence = checked_clip(folder, config, run.folder, overwrite=overwrite)
    body = load_body(config.body.model)
    with bounded_threads(1), run:
        write_text(run.path("config.yaml"), to_yaml(config))
        sequence = footage.prepare(run, sequence, config, progress)
        filmed = film(run, sequence, config, body, progress)
        cast, cameras, views = filmed.cast, filmed.cameras, filmed.views
        sequence, observations, initial = cast.sequence, cast.observations, cast.initial

        seen = seen_anywhere(observations, views)
        aligned = place(initial, seen, cameras, body, cuts=sequence.cuts)
        aligned = correct_contacts(aligned, sequence.constraints)
        state = refine_paths(
            aligned, initial, body, observations.fps, segment_starts(cameras, sequence.cuts)
        )
        measured = ~known_heights(sequence, observations).isnan() | (views is not None)
        result = _conclude(run, state, sequence, observations, body, config, measured)
        facts = assemble_report(
            Run(
                config, sequence, observations, aligned, state, result, body,
                {"start": score(state, observations, body, views)}, [], {}, run.seconds,
                (*steps.repairs(run), *cast.notes), several_views=views is not None,
            )
        )  # fmt: skip
        write_json(run.path("report.json"), facts)
        draw(run, sequence, result, facts, config, progress)
    return Outcome(run.folder, result, facts)


def _conclude(
    run: RunFolder,
    state: SceneState,
    sequence: Sequence,
    observations: Observations,
    body: BodyModel,
    config: Config,
    measured: Bool[Tensor, "N"],
) -> Result:
    """The step that turns the state into the deliverable, judged, without uncertainty."""
    made_by = provenance(config, sequence)

    def compute() -> Result:
        whole = build_result(
            state, body, observations, body_model=config.body.model, provenance=made_by, found=None
        )
        starts = segment_starts(state.cameras, sequence.cuts)
        return judge_result(
            whole, state, observations, body, config.gates, starts, measured=measured
        )[0]

    result, _ = run.step(
        "result",
        Result,
        compute,
        settings=[
            config.body, config.gates, made_by, sequence.constraints.contacts, sequence.cuts
        ],
        inputs=[run.path(f"{name}.npz") for name in steps.files(config)[:3]],
        code=(
            "slamhmr.export.result", "slamhmr.init.segments", "slamhmr.init.stature",
            "slamhmr.init.trajectory", "slamhmr.constraints", "slamhmr.judgement",
        ),
    )  # fmt: skip
    return result
