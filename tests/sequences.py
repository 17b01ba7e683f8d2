"""Small sequence directories for tests: exact observations and cameras, fakes that count calls."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import roma
import torch

from slamhmr.artifacts import to_arrays, write_arrays
from slamhmr.body import forward_points, load_body
from slamhmr.cameras import uncorrected
from slamhmr.geometry import project
from slamhmr.skeleton import KEYPOINTS
from slamhmr.types import CameraTrack, Initial, Observations, SceneState, StageReport
from slamhmr.video import VideoWriter

BODY = load_body()
SIZE = (320, 240)
FRAMES = 8
LOOK = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # along world +y
UPRIGHT = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)


def make_cameras(frames: int = FRAMES) -> CameraTrack:
    world_from_cam = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    world_from_cam[:, :3, :3] = LOOK
    world_from_cam[:, 0, 3] = torch.linspace(0, 0.1, frames)
    intrinsics = torch.tensor([300.0, 300, 160, 120], dtype=torch.float64).repeat(frames, 1)
    return CameraTrack(world_from_cam, intrinsics, SIZE, False, True, "test")


def shortened(cameras: CameraTrack, frames: int) -> CameraTrack:
    """The first frames of a track."""
    return dataclasses.replace(
        cameras,
        world_from_cam=cameras.world_from_cam[:frames],
        intrinsics=cameras.intrinsics[:frames],
    )


def make_state(people: int = 1, frames: int = FRAMES, scale: float = 2.0) -> SceneState:
    """People standing 4 m ahead, walking to the right; the floor 1.4 m below the camera."""
    pelvis = torch.zeros(people, frames, 3, dtype=torch.float64)
    pelvis[..., 0] = torch.arange(people, dtype=torch.float64)[:, None] - 0.5
    pelvis[..., 0] += torch.linspace(0, 0.3, frames)
    pelvis[..., 1], pelvis[..., 2] = 4.0, -0.45
    shape = (people, frames)
    return SceneState(
        person_id=torch.arange(1, people + 1),
        valid=torch.ones(shape, dtype=torch.bool),
        observed=torch.ones(shape, dtype=torch.bool),
        root_orient=roma.rotmat_to_rotvec(UPRIGHT).expand(*shape, 3).clone(),
        pelvis=pelvis,
        body_pose=torch.full((*shape, 21, 3), 0.05, dtype=torch.float64),
        betas=torch.zeros(people, 10, dtype=torch.float64),
        contacts=torch.zeros(*shape, 4, dtype=torch.float64),
        log_scale=torch.tensor(scale, dtype=torch.float64).log(),
        scale_prior=torch.tensor([math.log(scale), 0.5], dtype=torch.float64),
        ground=torch.tensor([0.0, 0, 1, 1.4], dtype=torch.float64),
        **uncorrected(frames),
        cameras=make_cameras(frames),
    )


def make_observations(state: SceneState) -> Observations:
    """Exact keypoints of a state, written out without the code under test."""
    points, _ = forward_points(
        BODY,
        state.betas,
        roma.rotvec_to_rotmat(state.root_orient),
        state.pelvis,
        roma.rotvec_to_rotmat(state.body_pose),
    )
    columns = [BODY.point_names.index(name) for name in KEYPOINTS]
    centres = state.cameras.world_from_cam[:, :3, 3] * state.log_scale.exp()
    points_cam = (points[:, :, columns] - centres[:, None]) @ LOOK
    keypoints = project(points_cam, state.cameras.intrinsics.expand(len(points), -1, -1))
    people, frames = state.valid.shape
    return Observations(
        person_id=state.person_id,
        keypoints=keypoints,
        confidence=torch.ones(people, frames, len(KEYPOINTS), dtype=torch.float64),
        keypoint_names=KEYPOINTS,
        boxes=torch.cat([keypoints.amin(dim=2), keypoints.amax(dim=2)], dim=-1),
        image_size=SIZE,
        fps=25.0,
        timestamps=torch.arange(frames, dtype=torch.float64) / 25,
    )


def make_initial(state: SceneState) -> Initial:
    cam_from_root = torch.eye(4, dtype=torch.float64).repeat(*state.valid.shape, 1, 1)
    cam_from_root[..., :3, :3] = LOOK.T @ roma.rotvec_to_rotmat(state.root_orient)
    centres = state.cameras.world_from_cam[:, :3, 3] * state.log_scale.exp()
    cam_from_root[..., :3, 3] = (state.pelvis - centres) @ LOOK
    return Initial(state.person_id, cam_from_root, state.body_pose, state.betas, state.valid)


def write_sequence(folder: Path, people: int = 1, *, initial: bool = True) -> Path:
    """A directory without pixels: observations, cameras and, as asked, a start."""
    folder.mkdir(parents=True, exist_ok=True)
    state = make_state(people)
    write_arrays(folder / "observations.npz", to_arrays(make_observations(state)))
    write_arrays(folder / "cameras.npz", to_arrays(state.cameras))
    if initial:
        write_arrays(folder / "initial.npz", to_arrays(make_initial(state)))
    return folder


def write_video(path: Path, frames: int = FRAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, 25.0, SIZE) as writer:
        for index in range(frames):
            writer.write(np.full((SIZE[1], SIZE[0], 3), 90 + 5 * index, dtype=np.uint8))
    return path


def write_two_shots(path: Path, cut: int, frames: int = FRAMES) -> Path:
    """A video of two still pictures of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, SIZE[1] // 20, SIZE[0] // 20, 3), dtype=np.uint8)
    with VideoWriter(path, 25.0, SIZE) as writer:
        for index in range(frames):
            writer.write(pictures[int(index >= cut)].repeat(20, axis=0).repeat(20, axis=1))
    return path


@dataclasses.dataclass
class FakeSteps:
    """Stand-ins for detector, SLAM and stages that count how often they are asked."""

    state: SceneState
    calls: list[str] = dataclasses.field(default_factory=list)
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, object] = dataclasses.field(default_factory=dict)
    cuts: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    fail_at: str = ""  # the call that is interrupted

    def install(self, monkeypatch) -> "FakeSteps":
        monkeypatch.setattr("slamhmr.steps.backend", self.backend)
        monkeypatch.setattr("slamhmr.camera_step.backend", self.backend)
        monkeypatch.setattr("slamhmr.preflight.backend", self.backend)
        monkeypatch.setattr("slamhmr.steps.run_stage", self.run_stage)
        return self

    def backend(self, kind: str, name: str) -> SimpleNamespace:
        def answer(value):
            def call(*given, **named):
                if "cuts" in named:
                    self.cuts[kind] = named["cuts"]
                self.names[kind] = name
                self.options[kind] = given[-1]
                self.note(kind)
                return value

            return call

        def track_camera(video, *given, **_):
            if video.first == 0:  # shots after the first are no further calls
                self.names[kind], self.options[kind] = name, given[-1]
                self.note(kind)
            return shortened(self.state.cameras, video.frame_count)

        observations = make_observations(self.state)
        return SimpleNamespace(
            __name__=f"slamhmr.{kind}.{name}",
            Options=FakeOptions,
            detect=answer(observations),
            read_observations=answer(observations),
            track_camera=track_camera,
            read_cameras=answer(self.state.cameras),
            initialise=answer(make_initial(self.state)),
        )

    def run_stage(self, state, *_, **__):
        name = str(_[1])
        self.cuts[name] = _[0].cuts
        self.note(name)
        return state, StageReport(name, 3, 0, "converged", {"data": 2.0}, {"data": 1.0}, 0.1)

    def note(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fail_at:
            raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True)
class FakeOptions:
    path: str = ""
    threshold: float = 0.5
    allow_degraded: bool = False
    refine_focal: bool = False
    assume: str = "auto"
