"""The order of steps: video, observations, cameras, initial state, stages, result, report."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slamhmr import footage, nonsense, steps
from slamhmr.artifacts import write_json, write_text
from slamhmr.body import load_body
from slamhmr.config import Config, to_yaml
from slamhmr.constraints import correct_contacts
from slamhmr.device import choose
from slamhmr.export.overlay import write_overlay
from slamhmr.export.topview import write_topview
from slamhmr.init.segments import place
from slamhmr.multiview import film, seen_anywhere
from slamhmr.preflight import checked_clip
from slamhmr.report import Run, assemble_report, provenance
from slamhmr.report_page import write_page
from slamhmr.reprojection import score
from slamhmr.runfolder import RunFolder
from slamhmr.sequence import Sequence
from slamhmr.threads import bounded_threads
from slamhmr.types import Result, StageReport
from slamhmr.views import notes_on_views

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What `optimize` leaves behind."""

    folder: Path
    result: Result
    report: dict[str, Any]

    @property
    def failed(self) -> list[str]:
        """Sentences on the gates that do not hold; empty when the result can be trusted."""
        return [str(gate["sentence"]) for gate in self.report["gates"] if not gate["passed"]]


def optimize(
    folder: Path,
    config: Config,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    wait: bool = False,
    progress: bool = False,
) -> Outcome:
    """Bodies and paths of everybody in a sequence directory, written to `out` or `folder`/slamhmr.

    A step whose stamp is valid is read instead of computed. Raises the SlamhmrError kinds; what was
    finished before stays, and the next run goes on from there.
    """
    run = RunFolder(out or folder / "slamhmr", overwrite=overwrite, wait=wait)
    sequence = checked_clip(folder, config, run.folder, overwrite=overwrite)
    steps.check_schedule(config)
    torch.manual_seed(config.seed)
    body = load_body(config.body.model)
    with bounded_threads(1), run:
        write_text(run.path("config.yaml"), to_yaml(config))
        run.keep_only(steps.files(config, several_views=len(sequence.views) > 0))

        sequence = footage.prepare(run, sequence, config, progress)
        filmed = film(run, sequence, config, body, progress)
        cast, cameras, views = filmed.cast, filmed.cameras, filmed.views
        sequence, observations, initial = cast.sequence, cast.observations, cast.initial

        LOG.info("%s", steps.required_memory(observations, config))
        seen = seen_anywhere(observations, views)
        aligned = place(initial, seen, cameras, body, cuts=sequence.cuts)
        state = correct_contacts(aligned, sequence.constraints)
        scores = {"start": score(state, observations, body, views)}
        start = steps.Start(sequence, observations, initial, body, config, scores["start"], views)
        reports: list[StageReport] = []
        last = "3_initial"
        for name, file in zip(config.schedule, steps.stage_files(config), strict=True):
            state, report = steps.solve_stage(
                run, state, start, file=file, after=last, progress=progress
            )
            scores[name] = score(state, observations, body, views)
            reports.append(report)
            last = file

        made_by = provenance(config, sequence)
        result, found = steps.conclude(run, state, start, after=last, provenance=made_by)
        unheard = nonsense.sentences(observations, scores["start"])
        on_views = notes_on_views(scores[name], views, moving=cameras.moving)
        facts = assemble_report(
            Run(
                config, sequence, observations, aligned, state, result, body, scores, reports,
                found, run.seconds, (*steps.repairs(run), *cast.notes, *unheard, *on_views),
                several_views=views is not None,
            )
        )  # fmt: skip
        write_json(run.path("report.json"), facts)
        draw(run, sequence, result, facts, config, progress)
    return Outcome(run.folder, result, facts)


def draw(
    run: RunFolder,
    sequence: Sequence,
    result: Result,
    facts: dict[str, Any],
    config: Config,
    progress: bool,
) -> None:
    """The pictures of a result: top view, overlay where there are pixels, and the page of both."""
    topview, overlay = run.path("topview.png"), run.path("overlay.mp4")
    write_topview(topview, result, facts["camera"]["segments"])
    drawn = sequence.video is not None and config.overlay.enabled
    if sequence.video is not None and drawn and not overlay.exists():
        body = load_body(config.body.model, dtype=torch.float32)
        write_overlay(
            overlay,
            sequence.video,
            result,
            body,
            options=config.overlay,
            progress=progress,
            device=choose(config.device).device,
        )
    write_page(run.path("report.html"), facts, topview=topview, overlay=overlay if drawn else None)
