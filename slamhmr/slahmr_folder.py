"""SLAHMR's preprocessing as a sequence directory of ours, with what SLAHMR gets wrong put right.

Below its ROOT: `images/SEQ/`, `slahmr/track_preds/SEQ/TID/FRAME_{keypoints,smpl}.json`,
`slahmr/shot_idcs/SEQ.json`, `slahmr/cameras/SEQ/shot-K/cameras.npz` (w2c (N,4,4), intrins (N,4),
height, width); where there is `videos/SEQ.mp4`, it tells the rate of the frames.
Source: vye16/slahmr@58518fe slahmr/confs/data/video.yaml, data/dataset.py, preproc/run_slam.py,
preproc/export_phalp.py.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from slamhmr.artifacts import read_arrays, to_arrays, write_arrays, write_text
from slamhmr.body import BodyModel
from slamhmr.config import read_yaml
from slamhmr.errors import InputError
from slamhmr.init.formats import as_rotations, own_betas, rest_pelvis
from slamhmr.init.imported import Said, join_tracks
from slamhmr.init.matching import Track
from slamhmr.skeleton import BODY_25, canonical_keypoint
from slamhmr.types import GUESSED, CameraTrack, Initial, Observations
from slamhmr.video import VIDEO_SUFFIXES, image_files, open_video

LOG = logging.getLogger(__name__)
PIXEL = 0.5  # its keypoints have the middle of the first pixel at 0
COLUMNS = {name: slot for slot, raw in enumerate(BODY_25) if (name := canonical_keypoint(raw))}
EXTRACTED_FPS, ASSUMED_FPS = 25.0, 30.0  # of its frames, and of its optimiser's config
LIMIT = 180  # frames it solves unless told otherwise
LEAST_FRAMES, MOST_PEOPLE = 5, 12  # of tracks that are kept
FOCAL_SIGMA = 0.3  # relative, of a guess, as in `camera_step`
MODEL = "smpl"


@dataclass(frozen=True)
class Clip:
    """The frames that are taken: all shots in a row that have cameras, or all frames."""

    root: Path
    name: str
    files: tuple[Path, ...]  # of the kept frames
    first: int  # number of the first of them among all images
    total: int  # number of all images
    cuts: tuple[int, ...]  # first kept frames of new shots
    shots: tuple[int, ...]  # numbers of the kept shots
    size: tuple[int, int]
    fps: float
    notes: tuple[str, ...]


def import_folder(
    root: Path, folder: Path, body: BodyModel, *, fps: float | None = None
) -> tuple[str, ...]:
    """Make `folder` a sequence directory from SLAHMR's sequence of the folder's name below `root`.

    `fps`: rate of the frames; unset, that of a sequence.yaml that is there, else from the video,
    else SLAHMR's default of 25. Writes a link to the images, observations.npz, and, where SLAM ran,
    cameras.npz and initial.npz; sequence.yaml only if there is none. The start is for `body`.
    Returns sentences on what was corrected and left out, which the report repeats where there are
    cameras to carry them. Raises InputError if the tree is incomplete or does not agree.
    """
    clip = _clip(root.expanduser(), folder.resolve().name, fps or _stated_rate(folder))
    people = _people(clip)
    observations = _observations(clip, people)
    cameras, notes = _cameras(clip)
    notes = (*clip.notes, *notes, *_rate_notes(clip))
    values: dict[str, Observations | CameraTrack | Initial] = {"observations": observations}
    if cameras is None:
        notes = (*notes, "SLAHMR left no cameras: the path is found anew, the start by init=lift")
    else:
        initial, said = _initial(clip, people, observations, cameras, body)
        notes = tuple(f"SLAHMR's folder: {note}" for note in (*notes, *said))
        values["cameras"] = replace(cameras, notes=(*cameras.notes, *notes))
        values["initial"] = initial
    folder.mkdir(parents=True, exist_ok=True)
    _link(folder / "images", clip.files[0].parent)
    for name, value in values.items():
        write_arrays(folder / f"{name}.npz", to_arrays(value))
    _write_settings(folder / "sequence.yaml", clip)
    return notes


def _stated_rate(folder: Path) -> float | None:
    """`fps` of a sequence.yaml that is there already: it stays, so what is written must agree."""
    path = folder / "sequence.yaml"
    stated = read_yaml(path).get("fps") if path.exists() else None
    return float(stated) if isinstance(stated, int | float) and stated > 0 else None


def _write_settings(path: Path, clip: Clip) -> None:
    if path.exists():
        LOG.warning("'%s' is there and stays as it is", path)
        return
    settings: dict[str, object] = {"video": "images", "fps": clip.fps, "cuts": list(clip.cuts)}
    if len(clip.files) < clip.total:
        settings["frames"] = [clip.first, clip.first + len(clip.files) - 1]
    write_text(path, "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))


def _clip(root: Path, name: str, fps: float | None) -> Clip:
    images, shots_file = root / "images" / name, root / "slahmr" / "shot_idcs" / f"{name}.json"
    for path in (images, root / "slahmr" / "track_preds" / name):
        if not path.is_dir():
            raise InputError(
                f"'{path}' does not exist: SLAHMR's root holds images/{name}, "
                f"slahmr/track_preds/{name}, slahmr/shot_idcs/{name}.json"
            )
    files = image_files(images)
    if [file.name for file in files] != sorted(file.name for file in files):
        raise InputError(f"'{images}': names do not sort like their numbers, which SLAHMR needs")
    shots = _json(shots_file)
    missing = [file.name for file in files if file.name not in shots]
    if len(files) == 0 or len(missing) > 0:
        what = f"knows no shot of '{missing[0]}'" if missing else "stands beside no images"
        raise InputError(f"'{shots_file}' {what}; make it from the same frames")
    numbers = [int(shots[file.name]) for file in files]
    kept = [n for n in sorted(set(numbers)) if _camera_file(root, name, n).is_file()]
    notes: tuple[str, ...] = ()
    if len(kept) == 0:
        kept = sorted(set(numbers))
    elif len(kept) < len(set(numbers)):
        run = [n for place, n in enumerate(kept) if n == kept[0] + place]
        notes = (f"only shots {run} of {sorted(set(numbers))} are taken, SLAHMR's SLAM ran there",)
        kept = run
    rows = [row for row, number in enumerate(numbers) if number in kept]
    if numbers != sorted(numbers):
        raise InputError(f"'{shots_file}': shots do not follow one another")
    cuts = tuple(
        place for place, row in enumerate(rows) if place > 0 and numbers[row] != numbers[row - 1]
    )
    video = open_video(images, fps=fps, frames=None)
    chosen = fps if fps is not None else _rate(root, name, len(files))
    return Clip(
        root, name, tuple(files[row] for row in rows), rows[0], len(files), cuts, tuple(kept),
        video.image_size, chosen, notes,
    )  # fmt: skip


def _rate(root: Path, name: str, count: int) -> float:
    """Frames a second of the images: their number over the video's duration, if that is sensible.

    It is if it is SLAHMR's 25, the 30 of its script, or the video's own; 25 otherwise.
    """
    found = [root / "videos" / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES]
    there = [path for path in found if path.is_file()]
    if len(there) == 0:
        return EXTRACTED_FPS
    video = open_video(there[0], fps=None, frames=None)
    rate = count / (float(video.timestamps[-1]) + 1 / video.fps)
    near = [r for r in (EXTRACTED_FPS, ASSUMED_FPS, video.fps) if abs(rate / r - 1) < 0.02]
    return near[0] if len(near) > 0 else EXTRACTED_FPS


def _rate_notes(clip: Clip) -> tuple[str, ...]:
    notes = []
    if clip.fps != ASSUMED_FPS:
        notes.append(
            f"{clip.fps:g} frames a second are taken, SLAHMR's optimiser takes any for "
            f"{ASSUMED_FPS:g}"
        )
    if len(clip.files) > LIMIT:
        notes.append(f"all {len(clip.files)} frames are solved, SLAHMR solves the first {LIMIT}")
    return tuple(notes)


def _camera_file(root: Path, name: str, shot: int) -> Path:
    return root / "slahmr" / "cameras" / name / f"shot-{shot}" / "cameras.npz"


def _cameras(clip: Clip) -> tuple[CameraTrack | None, tuple[str, ...]]:
    """The path as SLAM wrote it, a segment per shot; None where it did not run."""
    if not _camera_file(clip.root, clip.name, clip.shots[0]).is_file():
        return None, ()
    bounds = [0, *clip.cuts, len(clip.files)]
    poses, lenses = [], []
    for shot, first, last in zip(clip.shots, bounds[:-1], bounds[1:], strict=True):
        path = _camera_file(clip.root, clip.name, shot)
        pose, lens = _camera_arrays(path, clip.size[0])
        if len(pose) != last - first:
            raise InputError(
                f"'{path}' has {len(pose)} poses, shot {shot} has {last - first} frames; run "
                "SLAHMR's SLAM on the whole shot (data.split_cameras=True)"
            )
        poses.append(pose)
        lenses.append(lens)
    placed, intrinsics = torch.cat(poses), torch.cat(lenses)
    moving = any(float((p[:, :3, 3] - p[:1, :3, 3]).abs().max()) > 1e-9 for p in poses)
    notes = [
        "the camera's path is as SLAM wrote it; SLAHMR's optimiser shifts it by the first "
        "camera's translation and noise of 0.1 (its issue 44)"
        if moving
        else "SLAHMR's SLAM found no motion of the camera: taken for one that stands still"
    ]
    guess = (clip.size[0] + clip.size[1]) / 2
    guessed = float((intrinsics[:, :2] / guess - 1).abs().max()) < 1e-3
    own = (f"{GUESSED}: SLAHMR's (W + H) / 2 = {guess:g} px",) if guessed else ()
    track = CameraTrack(
        world_from_cam=placed,
        intrinsics=intrinsics,
        image_size=clip.size,
        scale_known=False,
        moving=moving,
        source="file: SLAHMR's cameras.npz",
        notes=own,
        segments=torch.tensor(clip.cuts) if len(clip.cuts) > 0 else None,
        focal_sigma=torch.tensor(FOCAL_SIGMA, dtype=torch.float64) if guessed else None,
    )
    return track, tuple(notes)


def _camera_arrays(path: Path, width: int) -> tuple[Tensor, Tensor]:
    """world_from_cam (N,4,4) and intrinsics (N,4) for images of `width` px."""
    arrays = read_arrays(path)
    if "w2c" not in arrays or arrays["w2c"].shape[1:] != (4, 4) or "width" not in arrays:
        raise InputError(f"'{path}' lacks w2c (N,4,4) or width: no cameras of SLAHMR")
    from_world = torch.from_numpy(arrays["w2c"].astype(np.float64))
    count = len(from_world)
    if "intrins" in arrays:
        lens = arrays["intrins"].astype(np.float64).reshape(-1, arrays["intrins"].shape[-1])[:, :4]
    else:
        focal = float(arrays["focal"])
        sizes = float(arrays["width"]) / 2, float(arrays["height"]) / 2
        lens = np.array([[focal, focal, *sizes]])
    if len(lens) not in (1, count):
        raise InputError(f"'{path}': {len(lens)} rows of intrins, {count} poses")
    lens = np.broadcast_to(lens, (count, 4)) * (width / float(arrays["width"]))
    if not (np.isfinite(lens).all() and bool(from_world.isfinite().all())):
        raise InputError(f"'{path}' holds NaN or infinity")
    rotation = from_world[:, :3, :3].mT
    placed = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    placed[:, :3, :3] = rotation
    placed[:, :3, 3] = -(rotation @ from_world[:, :3, 3:])[..., 0]
    return placed, torch.from_numpy(lens.copy())


def _people(clip: Clip) -> dict[int, Path]:
    """Folders of the tracks that are kept, by their id, ascending."""
    root = clip.root / "slahmr" / "track_preds" / clip.name
    names = {file.stem for file in clip.files}
    counts = {
        folder: sum(f.name.removesuffix("_keypoints.json") in names for f in folder.iterdir())
        for folder in root.iterdir()
        if folder.is_dir() and folder.name.isdigit()
    }
    known = [folder for folder in counts if counts[folder] >= LEAST_FRAMES]
    kept = sorted(known, key=lambda folder: (-counts[folder], folder.name))[:MOST_PEOPLE]
    if len(kept) == 0:
        raise InputError(f"'{root}' holds no track that is seen in {LEAST_FRAMES} of the frames")
    left = sorted(int(folder.name) for folder in counts if folder not in kept)
    if len(left) > 0:
        LOG.warning("'%s': tracks %s are left out, the %d longest are kept", root, left, len(kept))
    return {int(folder.name): folder for folder in sorted(kept, key=lambda f: int(f.name))}


def _observations(clip: Clip, people: Mapping[int, Path]) -> Observations:
    shape = (len(people), len(clip.files))
    found = np.zeros((*shape, 25, 3))
    for n, folder in enumerate(people.values()):
        for t, file in enumerate(clip.files):
            path = folder / f"{file.stem}_keypoints.json"
            if path.is_file():
                found[n, t] = _keypoints(path)
    chosen = found[:, :, list(COLUMNS.values())]
    used = np.flatnonzero((chosen[..., 2] > 0).any(axis=(0, 1)))
    if len(used) == 0:
        raise InputError(f"'{clip.root}': every keypoint of '{clip.name}' has confidence 0")
    confidence = torch.from_numpy(chosen[:, :, used, 2].clip(0, 1))
    keypoints = torch.from_numpy(chosen[:, :, used, :2] + PIXEL)
    shown = confidence[..., None] > 0
    low = torch.where(shown, keypoints, torch.inf).amin(dim=2)
    high = torch.where(shown, keypoints, -torch.inf).amax(dim=2)
    boxes = torch.cat([low, high], dim=-1)
    flat = ~(boxes.isfinite().all(dim=-1) & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1))
    return Observations(
        person_id=torch.tensor(list(people)),
        keypoints=torch.where(shown, keypoints, 0.0),
        confidence=confidence,
        keypoint_names=tuple(list(COLUMNS)[k] for k in used),
        boxes=torch.where(flat[..., None], torch.nan, boxes),
        image_size=clip.size,
        fps=clip.fps,
        timestamps=torch.arange(shape[1], dtype=torch.float64) / clip.fps,
    )


def _keypoints(path: Path) -> NDArray[np.float64]:
    """(25,3) of the first person of a keypoint file; zeros if it has none."""
    people = _json(path).get("people")
    if not isinstance(people, list):
        raise InputError(f"'{path}' lacks the list 'people'")
    if len(people) == 0:
        return np.zeros((25, 3))
    return _numbers(people[0], "pose_keypoints_2d", (25, 3), path)


def _initial(
    clip: Clip,
    people: Mapping[int, Path],
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
) -> tuple[Initial, tuple[str, ...]]:
    """HMR2's bodies at the depth of the cameras' focal length."""
    width, height = clip.size
    focal = (width + height) / 2
    lens = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)
    tracks = [_track(str(name), folder, clip, body, lens) for name, folder in people.items()]
    initial = join_tracks(
        tracks, observations, cameras, body, Said(), path=clip.root, same_body=body.name == MODEL,
        cuts=clip.cuts,
    )  # fmt: skip
    notes = []
    real = float(cameras.intrinsics[:, 0].mean())
    if abs(real / focal - 1) > 1e-3:
        notes.append(
            f"depths are for the focal length {real:.0f} px, SLAHMR's for (W + H) / 2 = {focal:g}"
        )
    if body.name == MODEL:
        notes.append("HMR2's body shapes are the start, SLAHMR begins with the mean shape")
    return initial, tuple(notes)


def _track(name: str, folder: Path, clip: Clip, body: BodyModel, lens: Float[Tensor, "4"]) -> Track:
    paths = [folder / f"{file.stem}_smpl.json" for file in clip.files]
    frames = [t for t, path in enumerate(paths) if path.is_file()]
    if len(frames) == 0:
        raise InputError(f"'{folder}' has keypoints but no FRAME_smpl.json of the frames")
    contents = [(_json(paths[t]), paths[t]) for t in frames]

    def stacked(key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return np.stack([_numbers(content, key, shape, path) for content, path in contents])

    betas = torch.from_numpy(stacked("betas", (10,)))
    root = as_rotations(stacked("global_orient", (3,)), 1, path=folder, key="global_orient")
    places = torch.from_numpy(stacked("cam_trans", (3,)))
    return Track(
        name=name,
        frames=torch.tensor(frames),
        root=root[:, 0],
        pelvis=places + rest_pelvis(betas, body, MODEL),
        rotations=as_rotations(stacked("body_pose", (23, 3)), 21, path=folder, key="body_pose"),
        betas=own_betas(betas, body, MODEL),
        intrinsics=lens,
    )


def _numbers(
    content: Mapping[str, Any], key: str, shape: tuple[int, ...], path: Path
) -> NDArray[np.float64]:
    try:
        array = np.asarray(content[key], dtype=np.float64).reshape(shape)
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"'{path}' lacks '{key}' with numbers {shape}") from e
    if not np.isfinite(array).all():
        raise InputError(f"'{path}': '{key}' holds NaN or infinity")
    return array


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(f"'{path}' cannot be read ({e.strerror})") from e
    except ValueError as e:
        raise InputError(f"'{path}' is no JSON: {e}") from e
    if not isinstance(content, Mapping):
        raise InputError(f"'{path}' holds no JSON object")
    return content


def _link(link: Path, target: Path) -> None:
    """A link to the images. Raises InputError if something else is in its place."""
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    if link.is_symlink() or link.exists():
        raise InputError(f"'{link}' is there already and is not '{target}'; remove it")
    link.symlink_to(target.resolve(), target_is_directory=True)
