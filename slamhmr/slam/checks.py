"""May a reconstructed camera path be trusted? 'All frames registered' does not say so."""

import numpy as np
from jaxtyping import Bool, Float

from slamhmr.slam.mapping import Model

# lengths in px at 640 px width; good paths measure 0.17-0.27 px, wrong ones 0.35-0.75
WORST_ERROR = 0.8
LEAST_REGISTERED = 0.9  # of the keyframes
LEAST_KEYFRAMES = 3
LEAST_POINTS = 40  # seen per keyframe (median); junk models of turning cameras hold 0-5
LEAST_ANGLE = 0.5  # degrees, median over points; 1.0 for a slow walk forward of 7 s
# Jumps: change of velocity between frames over the typical speed nearby
JUMP = 3.0
MOST_JUMPS = 0.02  # of the frames
ZIGZAG = 1.2  # median change of velocity over 1/15 s by the median speed; white noise gives 1.7
TURN_JUMP = 15.0  # degrees, change of angular velocity from frame to frame
LONGEST_GAP = 2.0  # s without a measured pose between two of one model


def distrust_model(model: Model, unit: float) -> list[str]:
    """Reasons, as sentences, why the model of the keyframes is not to be trusted; empty if none.

    `unit` is the number of px of the full picture per px at 640 px width.
    """
    found = []
    if len(model.frames) < LEAST_KEYFRAMES:
        found.append(f"only {len(model.frames)} keyframes were placed")
    share = len(model.frames) / max(model.asked, 1)
    if share < LEAST_REGISTERED:
        found.append(
            f"{len(model.frames)} of {model.asked} keyframes were placed "
            f"(at least {100 * LEAST_REGISTERED:.0f} % needed)"
        )
    if model.points_per_frame < LEAST_POINTS:
        found.append(
            f"a keyframe sees {model.points_per_frame:.0f} points (at least {LEAST_POINTS} needed)"
        )
    if not model.error / unit < WORST_ERROR:
        found.append(
            f"reprojection error {model.error / unit:.2f} px at 640 px width "
            f"(at most {WORST_ERROR:g})"
        )
    if model.angle < LEAST_ANGLE:
        found.append(f"parallax of {model.angle:.2f} deg (at least {LEAST_ANGLE:g})")
    return found


def distrust_path(
    world_from_cam: Float[np.ndarray, "T 4 4"], measured: Bool[np.ndarray, "T"], fps: float
) -> list[str]:
    """Reasons, as sentences, why a path with a pose in every frame is not that of a camera."""
    if not np.isfinite(world_from_cam).all():
        return ["poses are not finite"]
    found = []
    gap = _longest_gap(measured)
    if gap > LONGEST_GAP * fps:
        found.append(f"{gap} frames in a row have no measured pose (at most {LONGEST_GAP:g} s)")
    if len(world_from_cam) < 4:
        return found
    jumps = _jumps(world_from_cam[:, :3, 3])
    if jumps.mean() > MOST_JUMPS or jumps.sum() > 0 and len(jumps) < 50:
        found.append(
            f"the path jumps in {jumps.sum()} of {len(jumps)} frames, first at frame "
            f"{int(jumps.argmax()) + 1}"
        )
    zigzag = _zigzag(world_from_cam[:, :3, 3], round(fps / 15))
    if zigzag > ZIGZAG:
        found.append(
            f"the path zigzags: velocity changes by {zigzag:.1f} times the speed in 1/15 s"
        )
    turn = _turn_change(world_from_cam[:, :3, :3])
    if turn > TURN_JUMP:
        found.append(f"the view direction jumps by {turn:.0f} deg between frames")
    return found


def _longest_gap(measured: np.ndarray) -> int:
    """Longest run of frames without a measurement."""
    longest = run = 0
    for known in measured.tolist():
        run = 0 if known else run + 1
        longest = max(longest, run)
    return longest


def _jumps(centres: Float[np.ndarray, "T 3"]) -> Bool[np.ndarray, "T-2"]:
    """True where velocity changes by more than JUMP times the typical speed of the surroundings."""
    velocity = np.diff(centres, axis=0)
    speed = np.linalg.norm(velocity, axis=1)
    change = np.linalg.norm(np.diff(velocity, axis=0), axis=1)
    reach = 8
    padded = np.pad(speed, reach, mode="reflect" if len(speed) > reach else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    typical = np.maximum(np.median(windows, axis=1), 0.5 * np.median(speed))[:-1]
    return change > JUMP * typical + 1e-9


def _zigzag(centres: Float[np.ndarray, "T 3"], stride: int) -> float:
    """Median change of velocity over the median speed, sampled every `stride` frames."""
    samples = centres[
        :: max(2, stride)
    ]  # over pairs of frames at least: dropped frames double steps
    if len(samples) < 4:
        return 0.0
    velocity = np.diff(samples, axis=0)
    change = np.linalg.norm(np.diff(velocity, axis=0), axis=1)
    speed = np.linalg.norm(velocity, axis=1)
    return float(np.median(change) / max(float(np.median(speed)), 1e-12))


def _turn_change(rotations: Float[np.ndarray, "T 3 3"]) -> float:
    """Largest change of the frame-to-frame rotation, degrees."""
    steps = rotations[:-1].transpose(0, 2, 1) @ rotations[1:]
    change = steps[:-1].transpose(0, 2, 1) @ steps[1:]
    cosine = (np.trace(change, axis1=1, axis2=2) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).max())
