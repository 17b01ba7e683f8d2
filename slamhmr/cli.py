"""Command line: arguments only. Every subcommand imports what it needs when it is called."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slamhmr import __version__
from slamhmr.batch.commands import add_batch
from slamhmr.errors import InputError, Preempted, SlamhmrError
from slamhmr.words import Words

if TYPE_CHECKING:
    from slamhmr.pipeline import Outcome

    Commands = argparse._SubParsersAction[Words]

LOG, TRAINING_LOG = logging.getLogger("slamhmr"), logging.getLogger("priors")
BENCHMARKS = {  # modules of slamhmr.bench with a function `run`
    "speed": "seconds, memory and accuracy against frames and people",
    "convergence": "the solver and L-BFGS on one energy",
    "posterior": "how often the truth is inside the stated uncertainties",
    "ablation": "what every learned part is worth",
    "world": "people and cameras in one metric world, on scenes of every family",
}
TRAININGS = {  # as in slamhmr.training
    "lifter": "key points of a clip to bodies in the camera",
    "pose": "which poses are plausible",
    "transition": "how motion goes on",
}
BELOW_GATES = 3
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0 done; 2 wrong input or configuration; 3 done, but below the gates; 4 a step refused to guess;
    75 preempted by SIGTERM or SIGUSR1, run again to go on; 130 interrupted. Errors of users are one
    line; anything unexpected keeps its traceback.
    """
    options = build_parser().parse_args(arguments)
    _log_to_terminal(options.verbose)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except SlamhmrError as e:
        _tell_file("error: %s", e)
        print(f"slamhmr: error: {e}", file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:  # whoever read what we print has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _tell_file("interrupted")
        print("slamhmr: interrupted; finished steps are kept, run again to go on", file=sys.stderr)
        return INTERRUPTED
    except Preempted as e:
        _tell_file("preempted by %s", e)
        print(
            f"slamhmr: preempted by {e}; what is done is kept, run again to go on", file=sys.stderr
        )
        return e.exit_code
    finally:
        _close_logs()
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `run`."""
    parser = argparse.ArgumentParser(
        prog="slamhmr",
        description="Everybody's body and path in one metric, gravity-aligned world.",
    )
    parser.add_argument("--version", action="version", version=f"slamhmr {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every detail")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=Words
    )

    _add_solving(commands)
    add_batch(commands)

    demo = commands.add_parser("demo", help="make a scene with known truth, solve it, score it")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")
    demo.set_defaults(run=_demo)

    synth = commands.add_parser("synth", help="write a synthetic scene with exact truth")
    synth.add_argument("--out", type=Path, required=True, metavar="DIR")
    synth.add_argument("fields", nargs="*", metavar="key=value", help="fields of the scene")
    synth.fields_of = "synth/scene.py:SceneSpec"
    synth.set_defaults(run=_synth)

    evaluate = commands.add_parser("eval", help="score a result against the truth")
    evaluate.add_argument("result", type=Path, metavar="RESULT")
    evaluate.add_argument("truth", type=Path, metavar="TRUTH")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write the scores here")
    evaluate.set_defaults(run=_eval)

    _add_training(commands)
    _add_benchmarks(commands)

    convert = commands.add_parser("convert", help="an official checkpoint to safetensors")
    convert.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    convert.add_argument("--out", type=Path, metavar="FILE", help="(CHECKPOINT's name).safetensors")
    convert.set_defaults(run=_convert)

    _add_export(commands)

    calibration = commands.add_parser(
        "calibration", help="cameras of SEQ/views/NAME from a Qualisys or TOML calibration"
    )
    calibration.add_argument("file", type=Path, metavar="FILE", help="*.qca.txt or *.toml")
    calibration.add_argument("--seq", type=Path, required=True, metavar="DIR", help="sequence")
    calibration.set_defaults(run=_calibration)

    doctor = commands.add_parser("doctor", help="what is installed, what is missing, what it gives")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.add_argument("--config", type=Path, action="append", default=[], metavar="FILE")
    doctor.add_argument(
        "--seq",
        type=Path,
        metavar="DIR",
        help="also say what optimize would lack for this directory",
    )
    doctor.add_argument("overrides", nargs="*", metavar="key=value", help="as for optimize")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_solving(commands: "Commands") -> None:
    """`optimize` and `init`."""
    for name, words, run in (
        ("optimize", "solve a sequence directory", "SEQ/slamhmr"),
        ("init", "the feed-forward path alone: no optimisation", "SEQ/slamhmr-init"),
    ):
        solve = commands.add_parser(name, help=words)
        solve.add_argument("--seq", type=Path, required=True, metavar="DIR", help="sequence")
        solve.add_argument(
            "--slahmr", type=Path, metavar="ROOT", help="make DIR first, of SLAHMR's files below"
        )
        solve.add_argument("--out", type=Path, metavar="DIR", help=f"run folder ({run})")
        solve.add_argument("--body-model", metavar="PATH", help="SMPL, SMPL-H or SMPL-X file")
        solve.add_argument("--overwrite", action="store_true", help="compute every step anew")
        solve.add_argument("--wait", action="store_true", help="until nobody else works there")
        solve.add_argument("--config", type=Path, action="append", default=[], metavar="FILE")
        solve.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
        solve.set_defaults(run=_solve, optimise=name == "optimize")


def _add_training(commands: "Commands") -> None:
    """`import-motion` and `train`."""
    motion = commands.add_parser("import-motion", help="motion capture as SMPL motion files")
    motion.add_argument("sources", type=Path, nargs="*", metavar="SRC", help="files or directories")
    motion.add_argument("--out", type=Path, required=True, metavar="DIR")
    motion.add_argument("--fps", type=float, metavar="RATE", help="where the files' own is wrong")
    motion.add_argument("--procedural", type=int, metavar="COUNT", help="made-up motions")
    motion.add_argument("--seed", type=int, default=0, help="of the made-up motions")
    motion.set_defaults(run=_import_motion)

    train = commands.add_parser("train", help="train our own networks on motion files")
    kinds = train.add_subparsers(required=True, metavar="KIND")
    for name, words in TRAININGS.items():
        kind = kinds.add_parser(name, help=words)
        kind.add_argument("--motions", type=Path, required=True, metavar="DIR")
        kind.add_argument("--out", type=Path, metavar="FILE", help=f"weights ({name}.safetensors)")
        kind.add_argument("fields", nargs="*", metavar="key=value", help="minutes=55 seed=0")
        kind.set_defaults(run=_train, kind=name)


def _add_export(commands: "Commands") -> None:
    """`export`, every layout by name."""
    export = commands.add_parser("export", help="a result in the layout of another system")
    layouts = export.add_subparsers(required=True, metavar="LAYOUT")
    slahmr = layouts.add_parser("slahmr", help="what SLAHMR's viewers and evaluation read")
    slahmr.add_argument("result", type=Path, metavar="RESULT", help="result.npz")
    slahmr.add_argument("--out", type=Path, required=True, metavar="DIR", help="its log folder")
    slahmr.add_argument("--name", metavar="SEQ", help="name of the sequence (that of DIR)")
    slahmr.set_defaults(run=_export_slahmr)


def _add_benchmarks(commands: "Commands") -> None:
    """`bench`, every benchmark by name."""
    bench = commands.add_parser("bench", help="measure the solver on made scenes")
    benchmarks = bench.add_subparsers(required=True, metavar="BENCHMARK")
    for name, words in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=words)
        benchmark.add_argument("--out", type=Path, default=Path("bench"), metavar="DIR")
        benchmark.add_argument("fields", nargs="*", metavar="key=value", help="what is measured")
        benchmark.fields_of = f"bench/{name}.py:{name.capitalize()}Spec"
        benchmark.set_defaults(run=_bench, benchmark=name)


def _solve(options: argparse.Namespace) -> int:
    from slamhmr.preemption import preemptible

    with preemptible():
        return _tell(_solved(options))


def _solved(options: argparse.Namespace) -> "Outcome":
    from slamhmr.config import load_config
    from slamhmr.feedforward import FOLDER, feed_forward
    from slamhmr.pipeline import optimize

    overrides = list(options.overrides)
    if options.body_model is not None:
        overrides.append(f"body.model={options.body_model}")
    config = load_config(options.config, overrides)
    if options.slahmr is not None:
        from slamhmr.body import load_body
        from slamhmr.slahmr_folder import import_folder

        for note in import_folder(options.slahmr, options.seq, load_body(config.body.model)):
            LOG.info("%s", note)
    folder = options.out or options.seq / ("slamhmr" if options.optimise else FOLDER)
    _log_to_file(folder / "log.txt")
    return (optimize if options.optimise else feed_forward)(
        options.seq,
        config,
        out=options.out,
        overwrite=options.overwrite,
        wait=options.wait,
        progress=sys.stderr.isatty(),
    )


def _demo(options: argparse.Namespace) -> int:
    from slamhmr.demo import run_demo

    _log_to_file(options.out / "slamhmr" / "log.txt")
    outcome, table = run_demo(options.out, progress=sys.stderr.isatty())
    print(table)
    return _tell(outcome)


def _synth(options: argparse.Namespace) -> int:
    from slamhmr.demo import synthesise

    print(synthesise(options.out, options.fields))
    return 0


def _eval(options: argparse.Namespace) -> int:
    from slamhmr.artifacts import write_json
    from slamhmr.eval.protocols import evaluate, format_table

    scores = evaluate(options.result, options.truth)
    print(format_table(scores))
    if options.json is not None:
        write_json(options.json, scores)
    return 0


def _import_motion(options: argparse.Namespace) -> int:
    from slamhmr.motions.batch import import_motions

    if not options.sources and options.procedural is None:
        raise InputError("nothing to import: name files or directories, or --procedural COUNT")
    written = []
    if options.sources:
        written += import_motions(options.sources, options.out, fps=options.fps)
    if options.procedural is not None:
        from slamhmr.synth.clips import make_clips

        written += make_clips(options.procedural, options.seed, options.out)
    print(f"{len(written)} motions in {options.out}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from importlib import import_module

    print(import_module(f"slamhmr.bench.{options.benchmark}").run(options.fields, options.out))
    return 0


def _export_slahmr(options: argparse.Namespace) -> int:
    from slamhmr.artifacts import load
    from slamhmr.body import load_body
    from slamhmr.export.slahmr import write_slahmr
    from slamhmr.types import Result

    result = load(options.result, Result)
    name = options.name or options.out.resolve().name
    print(write_slahmr(result, load_body(result.body_model), options.out, name))
    return 0


def _calibration(options: argparse.Namespace) -> int:
    from slamhmr.slam.calibration import write_views

    print(f"cameras written of {', '.join(write_views(options.file, options.seq))}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from priors.checkpoints import CheckpointError
    from priors.convert import convert

    try:
        print(convert(options.checkpoint, options.out))
    except CheckpointError as error:
        raise InputError(str(error)) from error
    return 0


def _train(options: argparse.Namespace) -> int:
    from slamhmr.training import train

    out = options.out or Path(f"{options.kind}.safetensors")
    print(train(options.kind, options.motions, out, options.fields))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import json

    from slamhmr.doctor import diagnose
    from slamhmr.doctor_page import page

    findings = diagnose(options.config, options.overrides, options.seq)
    print(json.dumps(findings, indent=2) if options.json else page(findings))
    lacks = findings.get("sequence", {}).get("lacks", "")
    return 0 if findings["complete"] and lacks == "" else 2


def _tell(outcome: "Outcome") -> int:
    """Say where everything is and what does not hold; 3 if a gate failed."""
    for note in outcome.report["notes"]:
        print(f"note: {note}")
    for name in ("result.npz", "overlay.mp4", "topview.png", "report.html"):
        if (outcome.folder / name).exists():
            print(f"{name.split('.')[0]}: {outcome.folder / name}")
    for sentence in outcome.failed:
        print(f"slamhmr: below the gates: {sentence}", file=sys.stderr)
    return BELOW_GATES if len(outcome.failed) > 0 else 0


def _log_to_terminal(verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)
    for log in (LOG, TRAINING_LOG):
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        log.propagate = False


def _close_logs() -> None:
    for log in (LOG, TRAINING_LOG):
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()


def _log_to_file(path: Path) -> None:
    """Also log to `path` once its folder exists: a refused command leaves no folder behind."""
    handler = _LateFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    LOG.addHandler(handler)


def _tell_file(words: str, *values: object) -> None:
    """Log to the file alone what the terminal is told in another way."""
    for handler in LOG.handlers:
        if isinstance(handler, _LateFile):
            handler.handle(LOG.makeRecord(LOG.name, logging.ERROR, "", 0, words, values, None))


class _LateFile(logging.FileHandler):
    def __init__(self, path: Path) -> None:
        super().__init__(path, delay=True, encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        if Path(self.baseFilename).parent.is_dir():
            super().emit(record)


if __name__ == "__main__":
    sys.exit(main())
