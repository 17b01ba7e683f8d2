"""`slamhmr init`: the feed-forward path alone, a world of people without any optimisation.

Keypoints and cameras as in `optimize`; then the initialiser's networks, alignment in closed form,
and paths from predicted velocities, cameras and standing feet. No uncertainty: that takes a solve.
"""

from pathlib import Path

import torch

from slamhmr import footage, steps
from slamhmr.artifacts import write_json, write_text
from slamhmr.body import load_body
from slamhmr.config import Config, to_yaml
from slamhmr.constraints import correct_contacts
from slamhmr.export.result import build_result
from slamhmr.init.align import align
from slamhmr.init.trajectory import refine_paths
from slamhmr.pipeline import Outcome, draw
from slamhmr.report import assemble_report, provenance
from slamhmr.reprojection import score
from slamhmr.runfolder import RunFolder
from slamhmr.sequence import choose_people, open_sequence
from slamhmr.threads import bounded_threads
from slamhmr.types import Result

FOLDER = "slamhmr-init"


def feed_forward(
    folder: Path,
    config: Config,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Outcome:
    """Bodies and paths of everybody as the networks see them, in `out` or `folder`/slamhmr-init.

    The files are those of `optimize`, without stages. Raises the SlamhmrError kinds.
    """
    torch.manual_seed(config.seed)
    sequence = open_sequence(folder)
    body = load_body(config.body.model)
    run = RunFolder(out or folder / FOLDER, overwrite=overwrite)
    with bounded_threads(1), run:
        write_text(run.path("config.yaml"), to_yaml(config))
        sequence = footage.prepare(run, sequence, config, progress)
        everybody = steps.observe(run, sequence, config, progress)
        observations = choose_people(everybody, sequence)
        cameras = steps.track_camera(run, sequence, everybody, config, progress)
        initial = steps.initialise(run, sequence, observations, cameras, body, config)

        aligned = align(initial, observations, cameras, body, cuts=sequence.cuts)
        aligned = correct_contacts(aligned, sequence.constraints)
        state = refine_paths(aligned, initial, body, observations.fps, sequence.cuts)
        made_by = provenance(config, sequence)

        def compute() -> Result:
            return build_result(
                state, body, observations, body_model=config.body.model, provenance=made_by,
                found=None,
            )  # fmt: skip

        result, _ = run.step(
            "result",
            Result,
            compute,
            settings=[config.body, made_by, sequence.constraints.contacts, sequence.cuts],
            inputs=[run.path(f"{name}.npz") for name in steps.files(config)[:3]],
            code=(
                "slamhmr.export.result",
                "slamhmr.init.align",
                "slamhmr.init.stature",
                "slamhmr.init.trajectory",
                "slamhmr.constraints",
            ),
        )
        facts = assemble_report(
            config=config,
            sequence=sequence,
            observations=observations,
            aligned=aligned,
            result=result,
            scores={"start": score(state, observations, body)},
            stages=[],
            posterior={},
            seconds=run.seconds,
        )
        write_json(run.path("report.json"), facts)
        draw(run, sequence, result, facts, config, progress)
    return Outcome(run.folder, result, facts)
