"""How alike two looks at people are, how likely one look is a person, how large the person is."""

import numpy as np

from slamhmr.detect.landmarks import Candidate

# nose, shoulders, elbows, wrists, hips, knees, ankles: points that say where the body is
BODY = np.array([0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])
CORE = np.array([0, 11, 12, 23, 24, 25, 26])
TOLERANCE = 0.08  # of the person's size: a point this far off has similarity exp(-1/2)


def person_size(points: np.ndarray) -> float:
    """Size in px of a person from body points (33,2): diagonal of their bounding box."""
    return float(np.hypot(*np.ptp(points[BODY], axis=0)))


def point_similarity(
    first: np.ndarray, second: np.ndarray, weight: np.ndarray, size: float
) -> float:
    """Weighted mean over points (K,2) of exp(-d^2 / (2 (TOLERANCE size)^2)), as in OKS."""
    squared = ((first - second) ** 2).sum(axis=-1) / (TOLERANCE * size) ** 2
    return float((weight * np.exp(-squared / 2)).sum() / max(float(weight.sum()), 1e-9))


def similarity(first: Candidate, second: Candidate) -> float:
    """Keypoint similarity of two candidates, 0..1, points visible in either counting."""
    weight = np.maximum(first.visibility, second.visibility)[BODY]
    size = min(person_size(first.points), person_size(second.points))
    return point_similarity(first.points[BODY], second.points[BODY], weight, size)


def likelihood(candidate: Candidate) -> float:
    """How likely a candidate shows a whole person, 0..1.

    Mean heat map peak of the body points times their mean visibility. The network's own score
    is nearly always 1; the peaks are 0.6-0.9 on people (0.4 when small and half hidden) and
    0.15-0.45 on bags, rigs and poses that mix two people (measured on five clips).
    """
    seen = np.minimum(candidate.visibility, candidate.support)[CORE].mean()
    return float(candidate.peak[BODY].mean() * seen) * candidate.score


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection of two boxes (4,) over the area of the smaller one."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    areas = [float(np.prod(box[2:] - box[:2])) for box in (first, second)]
    return float(np.prod(sides.clip(0))) / max(min(areas), 1e-9)


def body_box(points: np.ndarray) -> np.ndarray:
    """Bounding box (4,) of the body points among (33,2)."""
    body = points[BODY]
    return np.concatenate([body.min(axis=0), body.max(axis=0)])
