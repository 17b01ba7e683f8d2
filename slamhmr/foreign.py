"""Programs of others in an environment of their own: one npz goes in, one npz comes out.

A script of ours, `third_party/<name>/run.py`, runs under the interpreter of that environment. It is
shipped with the package, imports nothing of slamhmr, and is called as `run.py IN.npz OUT.npz`: the
arrays stand in IN.npz under their names, the settings as JSON in `settings`. What goes wrong there
ends as one line here; everything that it prints goes to the log. Where ATTACHED is set in its
environment, its standard input stays open as long as this process lives, and it must end when that
closes: kill -9 of this process leaves nobody behind on a GPU.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slamhmr.errors import BackendError, MissingAsset
from slamhmr.exhaustion import GPU_WORDS, HOST_WORDS

LOG = logging.getLogger(__name__)
ATTACHED = "SLAMHMR_ATTACHED"
SETTINGS = "settings"  # name in IN.npz that no array may have
LAST_LINES = 200  # of what a child printed that are looked at when it fails
GRACE_S = 10.0  # s between asking a child to end and ending it
# Folders that may hold third_party: inside the package when installed, beside it in a checkout.
ROOTS = (Path(__file__).parent / "third_party", Path(__file__).parents[1] / "third_party")


def script_path(script: str) -> Path:
    """The file of a script that is shipped, "droid_slam/run.py". Raises MissingAsset."""
    for root in ROOTS:
        if (root / script).is_file():
            return root / script
    raise MissingAsset(
        f"'third_party/{script}' is not part of this installation; install slamhmr anew"
    )


def run_foreign(
    python: Path,
    script: str,
    arrays: Mapping[str, NDArray[Any]],
    settings: Mapping[str, Any],
    *,
    what: str,
    timeout_s: float | None = None,
    advice: str = "",
) -> dict[str, NDArray[Any]]:
    """Arrays that `third_party/<script>` makes of `arrays` and `settings` under `python`.

    `what` names the work, "slam=droid"; `settings` is JSON; `advice` says what to lower where
    memory is out. Raises MissingAsset where there is no interpreter or a module is missing there,
    BackendError where the script fails, runs out of memory, is killed, takes longer than
    `timeout_s` or leaves no arrays. Interrupting this process ends the child, with all that it
    started.
    """
    file = script_path(script)
    interpreter = Path(python).expanduser()
    if not interpreter.is_file() or not os.access(interpreter, os.X_OK):
        raise MissingAsset(f"{what}: interpreter '{python}' does not exist or cannot be run")
    with tempfile.TemporaryDirectory(prefix="slamhmr-") as folder:
        given, made = Path(folder) / "in.npz", Path(folder) / "out.npz"
        write_request(given, arrays, settings)
        command = [str(interpreter), str(file), str(given), str(made)]
        code, lines = _run(command, what, timeout_s)
        if code != 0:
            raise failure(what, str(python), code, lines, advice)
        return read_answer(made, what)


def write_request(
    path: Path, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
) -> None:
    """IN.npz of a script: the arrays, and the settings as JSON in a string."""
    if SETTINGS in arrays:
        raise ValueError(f"no array may be called '{SETTINGS}'")
    content: dict[str, Any] = {**arrays, SETTINGS: np.array(json.dumps(dict(settings)))}
    np.savez(path, **content)


def read_answer(path: Path, what: str) -> dict[str, NDArray[Any]]:
    """The arrays of OUT.npz. Raises BackendError where there is no such file or it is damaged."""
    if not path.is_file():
        raise BackendError(f"{what}: the program ended without an error and without a result")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as e:
        raise BackendError(f"{what}: the program's result cannot be read ({e})") from e


def failure(
    what: str, python: str, code: int, lines: list[str], advice: str = ""
) -> BackendError | MissingAsset:
    """The error of a program that ended with `code` after printing `lines`, as one line."""
    text = "\n".join(lines).lower()
    advice = f"; {advice}" if advice != "" else ""
    if any(word in text for word in GPU_WORDS) or "outofmemoryerror" in text:
        return BackendError(f"{what}: out of memory of the GPU{advice}")
    if any(word in text for word in HOST_WORDS) or code == -signal.SIGKILL:
        killed = " (killed by the system)" if code == -signal.SIGKILL else ""
        return BackendError(f"{what}: out of memory of the processor{killed}{advice}")
    last = _last_words(lines)
    if code < 0:
        with contextlib.suppress(ValueError):
            return BackendError(f"{what}: ended by signal {signal.Signals(-code).name}; {last}")
    if last.startswith(("ModuleNotFoundError:", "ImportError:")):
        return MissingAsset(
            f"{what}: {last.partition(': ')[2]} in the environment of '{python}'; install it there "
            "(third_party/README.md)"
        )
    return BackendError(f"{what}: failed with exit code {code}: {last}")


def _last_words(lines: list[str]) -> str:
    """The line that says why: the last one that is not empty."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _run(command: list[str], what: str, timeout_s: float | None) -> tuple[int, list[str]]:
    """Exit code and last lines of a child, whose output goes to the log as it comes."""
    lines: list[str] = []
    # A session of its own, so that what the child starts (data loaders) can be ended with it. No
    # PYTHONPATH and PYTHONHOME: the other environment must not see the packages of this one.
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**kept, "PYTHONUNBUFFERED": "1", ATTACHED: "1"},
        start_new_session=True,
    )

    def listen() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            LOG.info("%s: %s", what, line.rstrip())
            lines.append(line.rstrip())
            del lines[:-LAST_LINES]

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with _ended(child):
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired as e:
            raise BackendError(f"{what}: not done after {timeout_s:g} s, ended") from e
        listener.join(GRACE_S)
    return code, lines


@contextlib.contextmanager
def _ended(child: "subprocess.Popen[str]") -> Iterator[None]:
    """Whatever happens inside, the child and all of its session are gone afterwards."""
    try:
        yield
    finally:
        if child.poll() is None:
            _signal(child, signal.SIGTERM)
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL)
                child.wait()
        _signal(child, signal.SIGKILL)  # what it started and left behind
        if child.stdin is not None:
            child.stdin.close()


def _signal(child: "subprocess.Popen[str]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
