"""Step 0: the pixels before anybody looks at them: straightened, and cut into shots."""

import dataclasses
from pathlib import Path

from slamhmr.config import Config
from slamhmr.runfolder import RunFolder
from slamhmr.sequence import Sequence
from slamhmr.shots import detect_cuts
from slamhmr.undistort import undistorted_video, write_undistorted


def prepare(run: RunFolder, sequence: Sequence, config: Config, progress: bool) -> Sequence:
    """The sequence with its cuts found, and its video as a pinhole camera sees it."""
    found = find_cuts(run, sequence, config, progress)
    return dataclasses.replace(straighten(run, sequence, progress), found_cuts=found)


def find_cuts(
    run: RunFolder, sequence: Sequence, config: Config, progress: bool
) -> tuple[int, ...] | None:
    """First frames of new shots; None where nothing was looked for.

    That is where sequence.yaml names them, `detect_cuts` is off, or there are no pixels.
    """
    video, name = sequence.video, "0_cuts.txt"
    if sequence.settings.cuts is not None or not config.detect_cuts or video is None:
        for unused in (name, f"{name}.json"):
            run.path(unused).unlink(missing_ok=True)
        return None

    def write(path: Path) -> None:
        cuts = detect_cuts(video, progress=progress)
        path.write_text("".join(f"{cut}\n" for cut in cuts), encoding="utf-8")

    path = run.file(
        name,
        write,
        settings=[sequence.settings.frames],
        inputs=[video.path],
        code=("slamhmr.shots",),
    )
    return tuple(int(line) for line in path.read_text(encoding="utf-8").split())


def straighten(run: RunFolder, sequence: Sequence, progress: bool) -> Sequence:
    """For a lens whose `distortion` is known: the video as a pinhole camera sees it."""
    intrinsics, distortion = sequence.settings.intrinsics, sequence.settings.distortion
    video = sequence.video
    if intrinsics is None or distortion is None or video is None:
        return sequence
    path = run.file(
        "0_undistorted.mp4",
        lambda made: write_undistorted(made, video, intrinsics, distortion, progress=progress),
        settings=[sequence.settings.frames, intrinsics, distortion],
        inputs=[video.path],
        code=("slamhmr.undistort",),
    )
    return dataclasses.replace(sequence, video=undistorted_video(path, video))
