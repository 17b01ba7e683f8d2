"""A scene as a sequence directory: pixels, observations and cameras, and the truth beside them."""

import dataclasses
from pathlib import Path

import roma
import torch

from slamhmr import artifacts
from slamhmr.body import BodyModel, transl_from_pelvis
from slamhmr.synth.noise import observe
from slamhmr.synth.render import render_video
from slamhmr.synth.scene import Scene, SceneSpec, cut_frames
from slamhmr.types import Result

VIDEO, OBSERVATIONS, CAMERAS = "video.mp4", "observations.npz", "cameras.npz"
TRUTH, SETTINGS = "truth.npz", "sequence.yaml"


def write_scene(
    directory: Path,
    scene: Scene,
    body: BodyModel,
    spec: SceneSpec,
    *,
    pixels: bool,
    observations: bool,
    progress: bool = False,
) -> None:
    """Write `sequence.yaml`, `truth.npz`; on request the video, or observations and cameras.

    `truth.npz` has the layout of `result.npz`, with `scale` in metres per unit of `cameras.npz`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if observations:
        seen, track = observe(scene, body, spec)
        artifacts.write_arrays(directory / OBSERVATIONS, artifacts.to_arrays(seen))
        artifacts.write_arrays(directory / CAMERAS, artifacts.to_arrays(track))
    if pixels:
        with artifacts.atomic(directory / VIDEO) as temporary:
            render_video(scene, body, temporary, progress=progress)
    artifacts.write_text(directory / SETTINGS, settings_text(scene, spec))
    artifacts.write_arrays(directory / TRUTH, artifacts.to_arrays(truth(scene, body, spec)))


def settings_text(scene: Scene, spec: SceneSpec) -> str:
    """`sequence.yaml`: the frame rate, the lens unless it is to be wrong, and the cuts."""
    lines = [f"fps: {float(spec.fps)}"]
    if spec.focal_error == 0:
        numbers = ", ".join(f"{value:.4f}" for value in scene.intrinsics[0].tolist())
        lines.append(f"intrinsics: [{numbers}]")
    if spec.shots > 1:
        lines.append(f"cuts: [{', '.join(map(str, cut_frames(spec)))}]")
    return "\n".join(lines) + "\n"


def truth(scene: Scene, body: BodyModel, spec: SceneSpec) -> Result:
    """The exact result of a scene; `observed` where any keypoint is seen under the spec's noise."""
    seen, _ = observe(scene, body, spec)
    people, frames = scene.valid.shape
    return Result(
        person_id=torch.arange(1, people + 1),
        valid=scene.valid,
        observed=seen.seen,
        root_orient=roma.rotmat_to_rotvec(scene.root),
        transl=transl_from_pelvis(body, scene.betas, scene.pelvis),
        body_pose=roma.rotmat_to_rotvec(scene.body_rotations).reshape(people, frames, 63),
        betas=scene.betas,
        joints=scene.points[:, :, :24],
        contacts=scene.contacts,
        world_from_cam=scene.world_from_cam,
        intrinsics=scene.intrinsics,
        image_size=spec.image_size,
        fps=spec.fps,
        ground=torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64),
        scale=scene.scale,
        scale_std=float("nan"),
        body_model=body.name,
        gender=(body.gender,) * people,
        provenance={"source": "slamhmr synth", "spec": dataclasses.asdict(spec)},
    )
