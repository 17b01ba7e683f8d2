"""The frame loop: which regions the landmark network looks at in which frame.

A person once found is followed by the region that its own landmarks give. Every few frames the
detector looks for people not followed yet, and its regions compete with the followed ones; a person
that has just been lost is looked for again close by. A cut begins all anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from slamhmr.detect.detector import PersonDetector
from slamhmr.detect.landmarks import TORSO, Candidate, LandmarkNetwork
from slamhmr.detect.regions import detector_windows
from slamhmr.detect.similarity import body_box, likelihood, overlap, person_size, similarity

SAME_PERSON = 0.6  # keypoint similarity above which two looks in one frame show one person
COVERED = 0.5  # share of a box that a likelier person covers, above which ...
CLEARLY_WORSE = 0.8  # ... the one behind must not be less likely than this times the other
LEAST_LIKELY = 0.2  # looks under this are not followed: tracks decide on the rest
LEAST_INSIDE = 0.25  # share of the body's box that must lie in the image
LOCAL_WINDOW = 1.3  # side of the window that looks for a lost person, over the person's region
LOCAL_PERIOD = 3  # frames between two such looks
LIKELY_BESIDE = 0.35  # least likelihood of a person seen only with another painted over
LIMB_THICKNESS = 0.12  # of the person's size
GREY = (127, 127, 127)
CHAINS = ((7, 0, 8), (11, 13, 15), (12, 14, 16), (23, 25, 27, 31), (24, 26, 28, 32))  # head, limbs
AHEAD = 0.5  # share of the last correction of a region's centre that is expected again
AHEAD_LIMIT = 0.15  # of the region's side: a larger correction is a detection made precise
REGION_SIZES = (0.03, 3.0)  # side over the image's shorter side: anything else is a wild output


@dataclass
class Search:
    """People of consecutive frames; holds who is being followed."""

    detector: PersonDetector
    landmarks: LandmarkNetwork
    image_size: tuple[int, int]
    smallest: float  # px, height of the smallest person looked for
    redetect: int  # frames between two searches of the whole image
    patience: int  # frames a lost person is looked for
    limit: int  # people per frame
    cuts: tuple[int, ...] = ()  # first frames of new shots
    _followed: list[np.ndarray] = field(default_factory=list)
    _lost: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def run(self, frames: Iterable[tuple[int, np.ndarray]]) -> list[list[Candidate]]:
        """Candidates of every frame, duplicates removed."""
        windows = detector_windows(self.image_size, self.smallest)
        return [self._look(index, image, windows) for index, image in frames]

    def _look(self, index: int, image: np.ndarray, windows: np.ndarray) -> list[Candidate]:
        if index in self.cuts:
            self._followed, self._lost = [], []
        followed = len(self._followed)
        regions = list(self._followed)
        if index % self.redetect == 0 or index in self.cuts:
            regions += list(self.detector(image, windows))
        elif len(self._lost) > 0 and index % LOCAL_PERIOD == 0:
            regions += list(self.detector(image, self._local_windows()))
        found = [self.landmarks(image, region, index) for region in regions]
        rated = [(likelihood(c), n < followed, c) for n, c in enumerate(found) if self._sane(c)]
        kept = distinct([item for item in rated if item[0] > LEAST_LIKELY])
        kept = (kept + self._beside(index, image, regions, kept))[: self.limit]
        self._remember(index, kept)
        return kept

    def _beside(
        self, index: int, image: np.ndarray, regions: list[np.ndarray], kept: list[Candidate]
    ) -> list[Candidate]:
        """People next to or behind the kept ones, seen with those painted over.

        Where two people touch, the network turns to the plainer one whichever region it is given; a
        region off every kept person was meant for somebody else.
        """
        meant = [r for r in regions if all(_apart(r, c.next_region) for c in kept)]
        if len(kept) == 0 or len(meant) == 0:
            return []
        painted = without_people(image, kept)
        found = [self.landmarks(painted, region, index) for region in meant]
        rated = [(likelihood(c), False, c) for c in found if self._sane(c)]
        likely = distinct([item for item in rated if item[0] > LIKELY_BESIDE])
        taken = [body_box(other.points) for other in kept]  # a look in there shows remains of them
        boxes = [body_box(c.points) for c in likely]
        free = [all(overlap(box, other) < COVERED for other in taken) for box in boxes]
        return [c for c, is_free in zip(likely, free, strict=True) if is_free]

    def _sane(self, candidate: Candidate) -> bool:
        """Whether a look shows a person at all, inside the image."""
        side = candidate.next_region[2] / min(self.image_size)
        image = np.array([0.0, 0.0, *self.image_size])
        box = body_box(candidate.points)
        inside = overlap(box, image) if np.prod(box[2:] - box[:2]) < np.prod(image[2:]) else 1.0
        sized = REGION_SIZES[0] < side < REGION_SIZES[1]
        return bool(candidate.score > 0.5 and sized and inside > LEAST_INSIDE)

    def _remember(self, index: int, kept: list[Candidate]) -> None:
        """Note whom to follow, and who of the last frame has got lost."""
        now = [c.next_region for c in kept]
        gone = [r for r in self._followed if not any(_near(r, other) for other in now)]
        lost = [(since, r) for since, r in self._lost if index - since < self.patience]
        self._lost = [(s, r) for s, r in lost if not any(_near(r, other) for other in now)]
        self._lost += [(index, r) for r in gone]
        self._followed = [_ahead(c) for c in kept]

    def _local_windows(self) -> np.ndarray:
        sides = [LOCAL_WINDOW * region[2] for _, region in self._lost]
        centres = [region[:2] for _, region in self._lost]
        return np.array([[*(c - s / 2), s] for c, s in zip(centres, sides, strict=True)])


def distinct(rated: list[tuple[float, bool, Candidate]]) -> list[Candidate]:
    """Candidates, likeliest first, that do not show a likelier one again; followed ones win ties.

    A second look at a person has nearly the same points; a failed one (upside down, or
    stretched to a neighbour) covers a likelier person and is clearly less likely itself.
    """
    order = sorted(rated, key=lambda item: (round(item[0], 1), item[1], item[0]), reverse=True)
    kept: list[tuple[float, Candidate]] = []
    for value, _, candidate in order:
        box = body_box(candidate.points)
        if not any(
            similarity(candidate, other) > SAME_PERSON
            or (value < CLEARLY_WORSE * best and overlap(box, body_box(other.points)) > COVERED)
            for best, other in kept
        ):
            kept.append((value, candidate))
    return [candidate for _, candidate in kept]


def _ahead(candidate: Candidate) -> np.ndarray:
    """Region (4,) of a person in the next frame, at constant velocity of its centre.

    The region looked at was the prediction for this frame, so the correction is at most a share
    of the motion; half of it is added, which follows a fall and does not amplify noise.
    """
    region = candidate.next_region.copy()
    step = candidate.next_region[:2] - candidate.region[:2]
    if np.hypot(*step) < AHEAD_LIMIT * region[2]:
        region[:2] += AHEAD * step
    return region


def without_people(image: np.ndarray, people: list[Candidate]) -> np.ndarray:
    """Copy of an image with trunk, head, arms and legs of people painted in one grey."""
    import cv2

    painted = image.copy()
    for person in people:
        points = person.points.clip(-4 * max(image.shape), 4 * max(image.shape)).astype(np.int32)
        thickness = max(2, round(LIMB_THICKNESS * person_size(person.points)))
        trunk = cv2.convexHull(points[list(TORSO)])
        cv2.fillConvexPoly(painted, trunk, GREY)
        cv2.polylines(painted, [trunk], True, GREY, thickness)
        for chain in CHAINS:
            cv2.polylines(painted, [points[list(chain)]], False, GREY, thickness)
    return painted


def _apart(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two regions (4,) are of different people: centres apart, sizes not too different."""
    distance = np.hypot(*(first[:2] - second[:2]))
    return bool(distance > 0.1 * max(first[2], second[2]))


def _near(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two regions (4,) may belong to one person in consecutive frames."""
    distance = np.hypot(*(first[:2] - second[:2]))
    return bool(distance < 0.15 * max(first[2], second[2]))
