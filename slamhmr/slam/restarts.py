"""Where the background cannot be followed any more: the path begins anew, in a world of its own.

A clip falls into pieces whose frames can be tied to each other by the points they share. Every
piece is solved by itself; frames between pieces, or of pieces too short to say anything, are lost.
"""

import dataclasses
import logging
from collections.abc import Callable

import torch

from slamhmr.errors import BackendError
from slamhmr.slam.gaps import bridge
from slamhmr.slam.pieces import join
from slamhmr.slam.tracks import TIED, Tracks
from slamhmr.types import CameraTrack

log = logging.getLogger(__name__)
FEWEST = 12  # background points that tie two frames
SHORTEST = 12  # frames of a piece that is worth a world of its own


def solve_pieces(tracks: Tracks, solve: Callable[[Tracks], CameraTrack]) -> CameraTrack:
    """The path of a clip from the paths of its pieces; `solve` makes one from tracks without loss.

    Pieces that `solve` refuses are lost, with a note, as long as another one works; otherwise its
    BackendError is raised.
    """
    count = len(tracks.ids)
    pieces = connected_frames(tracks)
    if len(pieces) == 1 and len(pieces[0]) == count:
        return solve(tracks)
    solved: list[tuple[list[int], CameraTrack]] = []
    failures: list[tuple[list[int], BackendError]] = []
    for frames in pieces:
        try:
            solved.append((frames, solve(tracks.only(frames))))
        except BackendError as e:
            failures.append((frames, e))
    if len(solved) == 0:
        raise failures[0][1]
    starts = [0, *(frames[0] for frames, _ in solved[1:]), count]
    spread = [
        _spread(track, [frame - first for frame in frames], stop - first)
        for (frames, track), first, stop in zip(solved, starts[:-1], starts[1:], strict=True)
    ]
    joined = join(spread)
    notes = [
        f"no camera path in frames {frames[0]}-{frames[-1]}: {failure}"
        for frames, failure in failures
    ]
    if len(solved) > 1:
        where = ", ".join(str(start) for start in starts[1:-1])
        notes.insert(
            0,
            f"the background could not be followed throughout: the camera's path begins anew at "
            f"frame {where}, in a world of its own",
        )
    for note in notes:
        log.warning("camera: %s", note)
    return dataclasses.replace(joined, notes=(*joined.notes, *notes))


def connected_frames(tracks: Tracks) -> list[list[int]]:
    """Frames of every piece, ascending, in order of time.

    Raises BackendError if no piece is long enough. A clip without any loss is one piece, however
    short it is.
    """
    count = len(tracks.ids)
    group = list(range(count))

    def root(frame: int) -> int:
        while group[frame] != frame:
            frame = group[frame]
        return frame

    ties = [(frame - 1, frame) for frame in range(1, count)] + list(tracks.links)
    for first, second in ties:
        needed = max(FEWEST, TIED * len(tracks.ids[first]))
        if len(tracks.shared(first, second)[0]) >= needed:
            low, high = sorted((root(first), root(second)))
            group[high] = low
    pieces: dict[int, list[int]] = {}
    for frame in range(count):
        pieces.setdefault(root(frame), []).append(frame)
    if len(pieces) == 1:
        return list(pieces.values())
    long = [frames for frames in pieces.values() if len(frames) >= SHORTEST]
    apart = [f for f in long if not any(_within(f, other) for other in long if other is not f)]
    if len(apart) == 0:
        frame = tracks.number(next(f[-1] + 1 for f in pieces.values()))
        raise BackendError(
            f"camera: fewer than {FEWEST} background points can be followed to frame {frame}; "
            "the background is too plain, too blurred or hidden by people; state the camera's "
            "motion (camera: static in sequence.yaml) or give cameras.npz"
        )
    return sorted(apart)


def _within(frames: list[int], other: list[int]) -> bool:
    """Whether a piece lies in a hole of another one, which the other's path spans anyway."""
    return other[0] < frames[0] and frames[-1] < other[-1]


def _spread(track: CameraTrack, frames: list[int], count: int) -> CameraTrack:
    """A path of `frames` on all of `count` frames; the others are lost."""
    if len(frames) == count:
        return track
    rows = torch.tensor(frames)
    found = torch.zeros(count, dtype=torch.bool)
    found[rows] = True if track.lost is None else ~track.lost
    starts = rows[list(track.starts)].tolist()
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[rows] = track.world_from_cam
    nearest = (torch.arange(count)[:, None] - rows).abs().argmin(dim=1)
    return dataclasses.replace(
        track,
        world_from_cam=bridge(poses, found, starts),
        intrinsics=track.intrinsics[nearest],
        segments=torch.tensor(starts) if len(starts) > 0 else None,
        lost=~found,
    )
