"""Steps 1 to 3 of a sequence with several views: each view by itself, then everybody in one world.

Every view leaves its files in `views/NAME/` of the run folder, as a sequence of its own would. The
numbered files of the run itself hold what the stages are given: people of all views with the main
view's keypoints, its camera, the other views (`1_views.npz`), one start.
"""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

import roma
import torch
from torch import Tensor

from slamhmr import footage, steps
from slamhmr.body import BodyModel, forward_points
from slamhmr.config import Config
from slamhmr.errors import BackendError, InputError
from slamhmr.geometry import apply, invert
from slamhmr.init.cast import usable_frames
from slamhmr.init.fuse import ViewStart, fuse
from slamhmr.init.identity import SAME, Lifted, Rows, distance, match_views
from slamhmr.init.stature import fit_heights
from slamhmr.runfolder import RunFolder
from slamhmr.sequence import Sequence, choose_people, known_heights, with_people
from slamhmr.sources import choose
from slamhmr.types import CameraTrack, Initial, Observations, Views
from slamhmr.viewfolders import VIEWS, require_same_frames, uncalibrated

ELSEWHERE = 3 * SAME  # squared distance of the nearest bodies from which two worlds are not one
CODE = ("slamhmr.multiview", "slamhmr.init.fuse", "slamhmr.init.identity", "slamhmr.init.stature")


@dataclass(frozen=True)
class Filmed:
    """What the stages are given of all cameras."""

    cast: steps.Cast
    cameras: CameraTrack  # of the main view
    views: Views | None  # the others; None: there are none


@dataclass(frozen=True)
class _View:
    """One view after its own steps 1 to 3."""

    name: str
    files: list[Path]
    everybody: Observations
    initial: Initial
    rows: list[int]  # of the start's people among everybody
    cameras: CameraTrack
    notes: tuple[str, ...]


def film(
    run: RunFolder, sequence: Sequence, config: Config, body: BodyModel, progress: bool
) -> Filmed:
    """Steps 1 to 3, of one view or of several."""
    if len(sequence.views) > 0:
        return _several(run, sequence, config, body, progress)
    everybody = steps.observe(run, sequence, config, progress)
    observations = choose_people(everybody, sequence)
    cameras = steps.track_camera(run, sequence, everybody, config, progress)
    cast = steps.initialise(run, sequence, observations, cameras, body, config)
    return Filmed(cast, cameras, None)


def seen_anywhere(observations: Observations, views: Views | None) -> Observations:
    """The main view's observations, people counting as seen wherever any view sees them.

    For the alignment, which asks who is seen when and nothing else of observations.
    """
    if views is None:
        return observations
    elsewhere = (views.seen & ~observations.seen)[..., None]
    trusted = torch.where(elsewhere, 1.0, observations.confidence)
    return dataclasses.replace(observations, confidence=trusted)


def _several(
    run: RunFolder, sequence: Sequence, config: Config, body: BodyModel, progress: bool
) -> Filmed:
    _require_calibrated(sequence, config)
    everyone = [(sequence.view_name, _alone(sequence))]
    everyone += [
        (view.folder.name, dataclasses.replace(view, found_cuts=sequence.cuts))
        for view in sequence.views
    ]
    views = [_film_one(run, name, view, config, body, progress) for name, view in everyone]
    for view in views[1:]:
        _require_matching(view, views[0])
    given = [choose(config.detect, view.observations, "") == "file" for _, view in everyone]
    lifted = [_lifted(view, body) for view in views]
    people = _people_by_id(views) if all(given) else _people_by_place(views, lifted)
    _require_one_world(views, lifted, people)
    ids = _ids(views, people, from_files=all(given))
    chosen = sequence.settings.people
    if chosen != "all":
        choose_people(_joined(views[0], people, ids), sequence)  # are they there?
        people = [rows for rows, number in zip(people, ids, strict=True) if number in chosen]
        ids = [number for number in ids if number in chosen]
    made_of = [path for view in views for path in view.files]
    settings = [chosen, all(given), config.seed, sequence.constraints.contacts]

    observations, _ = run.step(
        "1_observations", Observations, lambda: _joined(views[0], people, ids),
        settings=settings, inputs=made_of, code=CODE,
    )  # fmt: skip
    others, _ = run.step(
        "1_views", Views, lambda: _views(views, people), settings=settings, inputs=made_of,
        code=CODE,
    )  # fmt: skip
    cameras, _ = run.step(
        "2_cameras", CameraTrack, lambda: views[0].cameras, settings=settings, inputs=made_of,
        code=CODE,
    )  # fmt: skip
    initial, _ = run.step(
        "3_initial", Initial, lambda: _start(views, people, ids, body),
        settings=[*settings, config.body], inputs=made_of, code=CODE,
    )  # fmt: skip
    initial = fit_heights(initial, body, known_heights(sequence, observations))
    notes = tuple(f"view {view.name}: {note}" for view in views for note in view.notes)
    choose_people(observations, sequence)  # contacts and cuts are checked
    cast = steps.Cast(with_people(sequence, ids), observations, initial, notes)
    return Filmed(cast, cameras, others)


def _alone(sequence: Sequence) -> Sequence:
    """The main view by itself: everybody in it, no heights."""
    settings = dataclasses.replace(sequence.settings, people="all", height_m={})
    constraints = dataclasses.replace(sequence.constraints, height_m={}, contacts=[])
    return dataclasses.replace(sequence, settings=settings, constraints=constraints, views=())


def _film_one(
    run: RunFolder, name: str, sequence: Sequence, config: Config, body: BodyModel, progress: bool
) -> _View:
    """Steps 1 to 3 of one view in a run folder of its own."""
    with RunFolder(run.folder / VIEWS / name, overwrite=run.overwrite) as own:
        if name != sequence.view_name:  # the main view's pixels were prepared before
            sequence = footage.straighten(own, sequence, progress)
        try:
            everybody = steps.observe(own, sequence, config, progress)
            cameras = steps.track_camera(own, sequence, everybody, config, progress)
            cast = steps.initialise(own, sequence, everybody, cameras, body, config)
        except BackendError as e:
            raise BackendError(f"view '{name}': {e}") from e
        run.seconds.update({f"{name}/{step}": t for step, t in own.seconds.items()})
        notes = (*steps.repairs(own), *cast.notes)
        files = [own.path(f"{step}.npz") for step in ("1_observations", "2_cameras", "3_initial")]
    ids = everybody.person_id.tolist()
    rows = [ids.index(person) for person in cast.initial.person_id.tolist()]
    return _View(name, files, everybody, cast.initial, rows, cameras, notes)


def _require_calibrated(sequence: Sequence, config: Config) -> None:
    """Raise InputError unless every view has a file of cameras."""
    for view in (sequence, *sequence.views):
        if view.cameras is None or config.slam not in ("auto", "file"):
            name = sequence.view_name if view is sequence else view.folder.name
            raise uncalibrated(name, f"has no cameras.npz, or slam={config.slam} leaves it aside")


def _require_matching(view: _View, main: _View) -> None:
    """Raise InputError if a view's frames or rate are not the main view's."""
    own, other = view.everybody, main.everybody
    require_same_frames(
        view.name,
        (own.keypoints.shape[1], own.fps),
        (other.keypoints.shape[1], other.fps),
    )
    for each in (main, view):
        if not each.cameras.scale_known:
            raise InputError(
                f"view '{each.name}': scale_known of its cameras is false; several views need "
                "cameras in one world, in metres"
            )
        if each.cameras.segments is not None or each.cameras.lost is not None:
            raise InputError(
                f"view '{each.name}': its cameras have segments or lost frames; several views need "
                "cameras that are known in every frame, in one world"
            )


def _lifted(view: _View, body: BodyModel) -> Lifted:
    """The people whom a view's start holds, in the world of all views."""
    initial = view.initial
    points, _ = forward_points(
        body, initial.betas, initial.cam_from_root[..., :3, :3], initial.cam_from_root[..., :3, 3],
        roma.rotvec_to_rotmat(initial.body_pose),
    )  # fmt: skip
    world = view.cameras.world_from_cam
    joints = apply(world.expand(len(points), -1, -1, -1), points[:, :, :22])
    return Lifted(joints, _seen(view), world[:, :3, 3])


def _seen(view: _View) -> Tensor:
    """Frames in which a view's start rests on evidence."""
    return usable_frames(view.everybody)[view.rows] & view.initial.valid


def _people_by_id(views: list[_View]) -> list[Rows]:
    """Rows, among everybody, of every person who has a start in any view: equal ids are one."""
    started = {number for view in views for number in view.initial.person_id.tolist()}
    ids = dict.fromkeys(n for view in views for n in view.everybody.person_id.tolist())
    lists = [view.everybody.person_id.tolist() for view in views]
    return [[[own.index(n)] if n in own else [] for own in lists] for n in ids if n in started]


def _people_by_place(views: list[_View], lifted: list[Lifted]) -> list[Rows]:
    """The same by where bodies are."""
    found = match_views(lifted)
    return [
        [[view.rows[row] for row in own] for view, own in zip(views, rows, strict=True)]
        for rows in found
    ]


def _require_one_world(views: list[_View], lifted: list[Lifted], people: list[Rows]) -> None:
    """Raise InputError if what several views see together lies nowhere near each other.

    Of a person whom two views see: the distance; by pairs of views the median over people.
    """
    for first, second in itertools.combinations(range(len(views)), 2):
        pairs = [
            (views[first].rows.index(a), views[second].rows.index(b))
            for rows in people
            for a in rows[first]
            for b in rows[second]
            if a in views[first].rows and b in views[second].rows
        ]
        apart = [distance(lifted[first], a, lifted[second], b) for a, b in pairs]
        known = sorted(value for value in apart if value != float("inf"))
        if len(known) > 0 and known[len(known) // 2] > ELSEWHERE:
            raise InputError(
                f"views '{views[first].name}' and '{views[second].name}' see nobody in one place: "
                "their cameras are in different worlds, not in metres, or not synchronised"
            )
    alone = all(sum(len(rows[v]) > 0 for v in range(len(views))) < 2 for rows in people)
    if alone:
        raise InputError(
            "no person of one view is where a person of another is: the cameras of the views are "
            "in different worlds, not in metres, or not synchronised"
        )


def _ids(views: list[_View], people: list[Rows], *, from_files: bool) -> list[int]:
    """Everybody's id: the main view's; of others the next free numbers.

    `from_files`: ids are those of the files, in which equal ones are one person, whoever sees it.
    """
    own = [view.everybody.person_id.tolist() for view in views]
    free = itertools.count(max([*own[0], 0]) + 1)
    ids = []
    for rows in people:
        seen = [own[view][each[0]] for view, each in enumerate(rows) if len(each) > 0]
        ids.append(seen[0] if from_files or len(rows[0]) > 0 else next(free))
    return ids


def _gathered(view: _View, own: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints, confidence and boxes of everybody; later rows of a person fill in."""
    seen = view.everybody
    shape = (len(own), *seen.confidence.shape[1:])
    keypoints = torch.zeros(*shape, 2, dtype=torch.float64)
    confidence = torch.zeros(shape, dtype=torch.float64)
    boxes = torch.full((*shape[:2], 4), torch.nan, dtype=torch.float64)
    for person, rows in enumerate(own):
        for row in rows:
            fills = seen.seen[row] & ~(confidence[person] > 0).any(dim=-1)
            keypoints[person, fills] = seen.keypoints[row, fills]
            confidence[person, fills] = seen.confidence[row, fills]
            boxes[person, fills] = seen.boxes[row, fills]
    return keypoints, confidence, boxes


def _joined(main: _View, people: list[Rows], ids: list[int]) -> Observations:
    """The main view's observations with a row for everybody."""
    keypoints, confidence, boxes = _gathered(main, [rows[0] for rows in people])
    return dataclasses.replace(
        main.everybody, person_id=torch.tensor(ids), keypoints=keypoints, confidence=confidence,
        boxes=boxes,
    )  # fmt: skip


def _views(views: list[_View], people: list[Rows]) -> Views:
    """All views but the first, with the same people and the union of their keypoints."""
    main, others = views[0], views[1:]
    names = tuple(dict.fromkeys(n for view in others for n in view.everybody.keypoint_names))
    shape = (len(others), len(people), main.everybody.keypoints.shape[1])
    keypoints = torch.zeros(*shape, len(names), 2, dtype=torch.float64)
    confidence = torch.zeros(*shape, len(names), dtype=torch.float64)
    boxes = torch.full((*shape, 4), torch.nan, dtype=torch.float64)
    for number, view in enumerate(others):
        columns = [names.index(name) for name in view.everybody.keypoint_names]
        own = _gathered(view, [rows[number + 1] for rows in people])
        keypoints[number][:, :, columns], confidence[number][:, :, columns], boxes[number] = own
    cam_from_main = [
        invert(view.cameras.world_from_cam) @ main.cameras.world_from_cam for view in others
    ]
    sizes = torch.tensor([view.everybody.image_size for view in others])
    return Views(
        tuple(view.name for view in others), keypoints, confidence, names, boxes,
        torch.stack(cam_from_main), torch.stack([view.cameras.intrinsics for view in others]),
        sizes, main.name,
    )  # fmt: skip


def _start(views: list[_View], people: list[Rows], ids: list[int], body: BodyModel) -> Initial:
    """One start of everybody in the main camera."""
    main = invert(views[0].cameras.world_from_cam)
    starts = [
        ViewStart(view.initial, main @ view.cameras.world_from_cam, _seen(view)) for view in views
    ]
    own = [
        [[view.rows.index(row) for row in each if row in view.rows]
         for view, each in zip(views, rows, strict=True)]
        for rows in people
    ]  # fmt: skip
    return fuse(starts, own, ids, body)
