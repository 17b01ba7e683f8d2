"""Synthetic sequence directories that several static cameras film at once, with exact truth."""

import dataclasses
from pathlib import Path

import roma
import torch
from scenes import BODY

from slamhmr.artifacts import to_arrays, write_arrays
from slamhmr.synth.noise import observe
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.synth.write import truth
from slamhmr.types import CameraTrack

SPEC = SceneSpec(
    seed=4, frames=40, camera="static", motion="mixed", noise="detector", outliers=0.02,
    gravity_tilt_deg=0.0,
)  # fmt: skip


def seen_from(scene: Scene, angle: float) -> Scene:
    """The same people from another side: the camera goes around their middle by `angle`, rad."""
    middle = scene.pelvis.mean(dim=(0, 1)) * torch.tensor([1.0, 1.0, 0.0]).double()
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, angle]).double())
    moved = scene.world_from_cam.clone()
    moved[:, :3, :3] = turn @ moved[:, :3, :3]
    moved[:, :3, 3] = (moved[:, :3, 3] - middle) @ turn.T + middle
    number = scene.spec.seed + round(1000 * angle)  # noise of its own
    spec = dataclasses.replace(scene.spec, seed=number)
    return dataclasses.replace(scene, world_from_cam=moved, spec=spec)


def calibrated(scene: Scene) -> CameraTrack:
    """The exact cameras of a scene, in metres."""
    return CameraTrack(
        scene.world_from_cam, scene.intrinsics, scene.spec.image_size, True, False, "calibration",
        up=torch.tensor([0.0, 0.0, 1.0]).double(),
    )  # fmt: skip


def write_view(folder: Path, scene: Scene, people: list[int] | None = None) -> None:
    """Observations and calibrated cameras of one view, of the people who are named."""
    folder.mkdir(parents=True, exist_ok=True)
    seen, _ = observe(scene, BODY, scene.spec)
    arrays = to_arrays(seen)
    if people is not None:
        rows = [i for i, number in enumerate(seen.person_id.tolist()) if number in people]
        for key in ("person_id", "keypoints", "confidence", "boxes"):
            arrays[key] = arrays[key][rows]
    write_arrays(folder / "observations.npz", arrays)
    write_arrays(folder / "cameras.npz", to_arrays(calibrated(scene)))


def write_views(folder: Path, spec: SceneSpec, angles: tuple[float, ...] = (1.5, 3.0)) -> Scene:
    """A main view at the top, one further view per angle, and truth.npz."""
    scene = make_scene(spec, BODY)
    write_view(folder, scene)
    for number, angle in enumerate(angles, start=2):
        write_view(folder / "views" / f"cam{number}", seen_from(scene, angle))
    write_arrays(folder / "truth.npz", to_arrays(truth(scene, BODY, spec)))
    return scene
