"""Manual corrections: `constraints.yaml`, and how they change observations and contacts.

Order: `split`, then `merge`, then `exclude`, then `keypoints`; later ones name people by the ids
that splitting and merging left. Frames count from 0 among the kept ones; ranges include both ends.
"""

import dataclasses
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import torch
from omegaconf import MISSING
from torch import Tensor

from slamhmr.config import build, read_yaml, suggestion
from slamhmr.errors import ConfigError, InputError
from slamhmr.skeleton import CONTACT_POINTS, canonical_keypoint
from slamhmr.types import Observations, SceneState


@dataclass(frozen=True)
class KeypointFix:
    """A keypoint of one person, put at `xy` (px) or declared unseen, in `frames` [first, last]."""

    person: int = MISSING
    frames: list[int] = MISSING
    name: str = MISSING
    xy: list[float] | None = None
    seen: bool = True


@dataclass(frozen=True)
class Split:
    """From `frame` on, `person` is somebody else: `new_id`."""

    person: int = MISSING
    frame: int = MISSING
    new_id: int = MISSING


@dataclass(frozen=True)
class Exclusion:
    """What is seen of `person` (everybody when left out) in `frames` is not used."""

    frames: list[int] = MISSING
    person: int | None = None


@dataclass(frozen=True)
class ContactFix:
    """A foot point of `person` does or does not touch the ground in `frames`."""

    person: int = MISSING
    frames: list[int] = MISSING
    point: str = MISSING
    touches: bool = True  # not `on`, which YAML reads as true


@dataclass(frozen=True)
class Constraints:
    """All of `constraints.yaml`."""

    keypoints: list[KeypointFix] = field(default_factory=list)
    merge: list[list[int]] = field(default_factory=list)  # later ids join the first of each list
    split: list[Split] = field(default_factory=list)
    exclude: list[Exclusion] = field(default_factory=list)
    height_m: dict[int, float] = field(default_factory=dict)
    contacts: list[ContactFix] = field(default_factory=list)


def read_constraints(path: Path) -> Constraints:
    """`constraints.yaml`, empty if there is none.

    Raises ConfigError for unknown keys and wrong types, InputError for impossible values.
    """
    if not path.exists():
        return Constraints()
    content = read_yaml(path)
    if "floor" in content:
        raise ConfigError(
            f"{path.name}: 'floor' is not supported: a point of the image has no depth, so it does "
            "not place the floor; correct 'contacts' or give 'height_m'"
        )
    constraints = build(Constraints, content, path.name)
    ranges = [fix.frames for fix in constraints.keypoints]
    ranges += [exclusion.frames for exclusion in constraints.exclude]
    ranges += [contact.frames for contact in constraints.contacts]
    for frames in ranges:
        if len(frames) != 2 or not 0 <= frames[0] <= frames[1]:
            raise InputError(f"{path.name}: frames {frames} must be [first, last]")
    for fix in constraints.keypoints:
        if fix.seen and not (
            fix.xy is not None and len(fix.xy) == 2 and all(map(isfinite, fix.xy))
        ):
            raise InputError(f"{path.name}: keypoint '{fix.name}' needs xy: [x, y] or seen: false")
    for contact in constraints.contacts:
        if contact.point not in CONTACT_POINTS:
            hint = suggestion(contact.point, CONTACT_POINTS)
            raise InputError(f"{path.name}: contact point '{contact.point}'; {hint}")
    for person, height in constraints.height_m.items():
        check_height(path.name, person, height)
    return constraints


def check_height(where: str, person: int, height: float) -> None:
    """Raise InputError unless `height` is a person's, in metres."""
    if not 0.4 <= height <= 2.6:
        raise InputError(f"{where}: height_m of person {person} is {height}; metres, 0.4 to 2.6")


def apply_constraints(observations: Observations, constraints: Constraints) -> Observations:
    """The observations after splits, merges, exclusions and keypoint fixes; people left unseen go.

    Raises InputError for a person, frame or keypoint that is not there.
    """
    for split in constraints.split:
        observations = _split(observations, split)
    for group in constraints.merge:
        observations = _merge(observations, group)
    confidence = observations.confidence.clone()
    boxes = observations.boxes.clone()
    count = observations.keypoints.shape[1]
    for exclusion in constraints.exclude:
        rows = _rows(observations, exclusion.person)
        frames = _frames(count, exclusion.frames)
        confidence[rows, frames] = 0
        boxes[rows, frames] = torch.nan
    keypoints = observations.keypoints.clone()
    for fix in constraints.keypoints:
        place = (
            _row(observations, fix.person),
            _frames(count, fix.frames),
            _column(fix, observations),
        )
        confidence[place] = 1.0 if fix.seen else 0.0
        if fix.seen and fix.xy is not None:
            keypoints[place] = torch.tensor(fix.xy, dtype=keypoints.dtype)
    changed = dataclasses.replace(
        observations, keypoints=keypoints, confidence=confidence, boxes=boxes
    )
    return select_rows(changed, changed.seen.any(dim=1))


def check_contacts(constraints: Constraints, observations: Observations) -> None:
    """Raise InputError if a contact names a person or a frame that is not there."""
    for contact in constraints.contacts:
        _row(observations, contact.person)
        _frames(observations.keypoints.shape[1], contact.frames)


def correct_contacts(state: SceneState, constraints: Constraints) -> SceneState:
    """The state with contacts switched on or off by hand, in frames in which the person is.

    Later corrections outweigh earlier ones. Raises InputError for a person or a frame that is not
    there.
    """
    contacts = state.contacts.clone()
    for fix in constraints.contacts:
        row = _place(state.person_id.tolist(), fix.person)
        frames = _frames(state.valid.shape[1], fix.frames)
        contacts[row, frames, CONTACT_POINTS.index(fix.point)] = 1.0 if fix.touches else 0.0
    contacts = torch.where(state.valid[..., None], contacts, 0.0)
    return dataclasses.replace(state, contacts=contacts)


def select_rows(observations: Observations, keep: Tensor) -> Observations:
    """The people for whom `keep` (N,) is true."""
    return dataclasses.replace(
        observations,
        person_id=observations.person_id[keep],
        keypoints=observations.keypoints[keep],
        confidence=observations.confidence[keep],
        boxes=observations.boxes[keep],
    )


def _split(observations: Observations, split: Split) -> Observations:
    row = _row(observations, split.person)
    _frames(observations.keypoints.shape[1], [split.frame, split.frame])
    if split.new_id in observations.person_id.tolist():
        raise InputError(f"constraints.yaml: split: id {split.new_id} is taken")
    confidence = torch.cat([observations.confidence, observations.confidence[row][None]])
    boxes = torch.cat([observations.boxes, observations.boxes[row][None]])
    confidence[row, split.frame :] = 0
    boxes[row, split.frame :] = torch.nan
    confidence[-1, : split.frame] = 0
    boxes[-1, : split.frame] = torch.nan
    return dataclasses.replace(
        observations,
        person_id=torch.cat([observations.person_id, torch.tensor([split.new_id])]),
        keypoints=torch.cat([observations.keypoints, observations.keypoints[row][None]]),
        confidence=confidence,
        boxes=boxes,
    )


def _merge(observations: Observations, group: list[int]) -> Observations:
    """Later people of the group fill the frames in which the earlier ones are not seen."""
    if len(group) < 2:
        raise InputError(f"constraints.yaml: merge: {group} must name at least two ids")
    target, *others = [_row(observations, person) for person in group]
    keypoints = observations.keypoints.clone()
    confidence = observations.confidence.clone()
    boxes = observations.boxes.clone()
    for row in others:
        free = ~(confidence[target] > 0).any(dim=-1)
        keypoints[target, free] = keypoints[row, free]
        confidence[target, free] = confidence[row, free]
        boxes[target, free] = boxes[row, free]
    merged = dataclasses.replace(
        observations, keypoints=keypoints, confidence=confidence, boxes=boxes
    )
    keep = torch.ones(len(observations.person_id), dtype=torch.bool)
    keep[others] = False
    return select_rows(merged, keep)


def _row(observations: Observations, person: int) -> int:
    return _place(observations.person_id.tolist(), person)


def _place(known: list[int], person: int) -> int:
    if person not in known:
        raise InputError(f"constraints.yaml: there is no person {person}; there are {known}")
    return known.index(person)


def _rows(observations: Observations, person: int | None) -> slice:
    if person is None:
        return slice(None)
    row = _row(observations, person)
    return slice(row, row + 1)


def _frames(count: int, frames: list[int]) -> slice:
    if not 0 <= frames[0] <= frames[-1] < count:
        raise InputError(f"constraints.yaml: frames {frames} are not within 0..{count - 1}")
    return slice(frames[0], frames[-1] + 1)


def _column(fix: KeypointFix, observations: Observations) -> int:
    names = observations.keypoint_names
    try:
        name = canonical_keypoint(fix.name)
    except KeyError:
        name = None
    if name is None or name not in names:
        raise InputError(f"constraints.yaml: keypoint '{fix.name}'; {suggestion(fix.name, names)}")
    return names.index(name)
