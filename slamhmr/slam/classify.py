"""Which kind of motion a camera makes, measured on the background before any reconstruction."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from slamhmr.errors import BackendError
from slamhmr.slam.bearings import fit_rotation
from slamhmr.slam.focal import Focal, focal_of_turn
from slamhmr.slam.tracks import UNIT_WIDTH, Tracks

Kind = Literal["static", "rotation", "translation"]

# px of a 640 px wide picture; set by hand on rendered and real clips, see tests/slam
STILL = 1.0  # median displacement in 95 % of the frames; tripods measure 0.04-0.13, walks 8-135
STILL_PEAK = 3.0  # and in the worst one, so that a short swing in a long still clip is seen
WINDOW = 60.0  # displacement at which a new reference frame starts
ROTATION_ERROR = 1.5  # residual up to which a point obeys a rotation
ROTATION_SHARE = 0.75  # of the points must, in 90 % of the frames
EDGE = 0.10  # closer to ROTATION_SHARE than this the decision is called uncertain
FOCAL_FACTORS = (0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 1.7)
FEWEST = 12  # background points shared with the reference frame, below which nothing is decided
FOCAL_TURN = 30.0  # px of displacement that bend the paths of points enough for a focal length
FOCAL_SAMPLES = 12  # pairs of frames for it
SAMPLES = 60  # frames in which a rotation is fitted


@dataclass(frozen=True)
class Motion:
    """The decision and the numbers it rests on; lengths in px of a 640 px wide picture."""

    kind: Kind
    displacement: float  # p95 over frames of the median displacement since the reference frame
    peak: float  # its maximum
    rotation_share: float  # p10 over frames of the share of points that obey a rotation
    residual: float  # median over frames and points of what a rotation leaves
    focal_factor: float  # of the given focal length, at which more points obey the rotation
    focal: Focal | None  # of a rotation, where it tells its focal length
    uncertain: bool

    def note(self) -> str:
        """One sentence for the report."""
        text = (
            f"camera motion classified as {self.kind}: background moves {self.displacement:.2f} px"
        )
        text += f" (95 % of the frames, at {UNIT_WIDTH} px width; still below {STILL:g})"
        if self.kind != "static":
            text += f", {100 * self.rotation_share:.0f} % of it obeys a pure rotation"
            text += f" (rotation above {100 * ROTATION_SHARE:.0f} %)"
        return text + ("; close to the threshold" if self.uncertain else "")


@dataclass(frozen=True)
class _Span:
    """A frame and the reference frame it is compared with."""

    reference: int
    frame: int
    displacement: float


def classify(tracks: Tracks, intrinsics: Float[np.ndarray, "4"], *, moving: bool = False) -> Motion:
    """Decide between a still, a turning and a travelling camera; `moving` rules out still.

    A rotation is also tried at other focal lengths, because a wrong one spoils its fit.
    Raises BackendError when too little background is seen to tell.
    """
    spans = _spans(tracks)
    moved = np.array([span.displacement for span in spans])
    displacement, peak = float(np.percentile(moved, 95)), float(moved.max())
    if displacement < STILL and peak < STILL_PEAK and not moving:
        near = displacement > 0.6 * STILL
        return Motion("static", displacement, peak, 1.0, 0.0, 1.0, None, near)
    least = min(8.0, float(np.percentile(moved, 75)))
    telling = [span for span in spans if span.displacement >= least]
    telling = telling[:: max(1, len(telling) // SAMPLES)]
    share, residual = _rotation_fit(tracks, telling, intrinsics)
    factor = 1.0
    if share <= ROTATION_SHARE:
        for other in FOCAL_FACTORS:
            scaled = intrinsics * np.array([other, other, 1.0, 1.0])
            trial = _rotation_fit(tracks, telling[::3], scaled)
            if trial[0] > max(share, ROTATION_SHARE):
                (share, residual), factor = trial, other
    kind: Kind = "rotation" if share > ROTATION_SHARE else "translation"
    near = abs(share - ROTATION_SHARE) < EDGE
    focal = None
    if kind == "rotation":
        focal = focal_of_turn(tracks, telling_pairs(tracks), intrinsics)
    if focal is not None:
        scaled = intrinsics * np.array([focal.factor, focal.factor, 1.0, 1.0])
        share, residual = _rotation_fit(tracks, telling, scaled)
    return Motion(kind, displacement, peak, share, residual, factor, focal, near)


def telling_pairs(tracks: Tracks) -> list[tuple[int, int]]:
    """Pairs of frames far enough apart to tell the focal length of a turning camera."""
    spans = [span for span in _spans(tracks) if span.displacement > FOCAL_TURN]
    spans = spans[:: max(1, len(spans) // FOCAL_SAMPLES)]
    return [(span.reference, span.frame) for span in spans]


def _spans(tracks: Tracks) -> list[_Span]:
    """Every frame against the last reference frame that still shows enough of the same points."""
    spans: list[_Span] = []
    reference = 0
    for frame in range(1, len(tracks.ids)):
        span = _compare(tracks, reference, frame)
        if span is None or span.displacement > WINDOW:
            reference = frame - 1
            span = _compare(tracks, reference, frame)
        if span is None:
            raise BackendError(
                f"camera: fewer than {FEWEST} background points can be followed to frame "
                f"{tracks.number(frame)}; "
                "the background is too plain, too blurred or hidden by people; state the camera's "
                "motion (camera: static in sequence.yaml) or give cameras.npz"
            )
        spans.append(span)
    if len(spans) == 0:
        spans.append(_Span(0, 0, 0.0))
    return spans


def _compare(tracks: Tracks, reference: int, frame: int) -> _Span | None:
    """Median displacement between two frames; None if too few of the points survive."""
    ids, before, after = tracks.shared(reference, frame)
    if len(ids) < max(FEWEST, 0.3 * len(tracks.ids[reference])) and (
        frame - reference > 1 or len(ids) < FEWEST
    ):
        return None
    moved = float(np.median(np.linalg.norm(after - before, axis=1))) / tracks.unit
    return _Span(reference, frame, moved)


def _rotation_fit(
    tracks: Tracks, spans: list[_Span], intrinsics: np.ndarray
) -> tuple[float, float]:
    """Share of points within ROTATION_ERROR of a rotation (p10 over frames), median residual."""
    shares, residuals = [], []
    for span in spans:
        _, before, after = tracks.shared(span.reference, span.frame)
        error = fit_rotation(before, after, intrinsics, ROTATION_ERROR * tracks.unit)[1]
        shares.append(float((error < ROTATION_ERROR * tracks.unit).mean()))
        residuals.append(float(np.median(error)) / tracks.unit)
    return float(np.percentile(shares, 10)), float(np.median(residuals))
