"""A solver problem of T frames x N people with its truth, made in seconds.

People stroll near each other before a camera that follows them; keypoints have the errors of a
detector, cameras the noise, drift and unknown scale of SLAM. The start is not the geometric lift
(8 ms per frame, a tenth of the solve or more, and none of the solver's business) but the truth
spoilt by errors of the lift's size and smoothness, with sigmas, contacts and velocities as the
lifter gives them.
"""

import math
from dataclasses import dataclass

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from slamhmr import geometry
from slamhmr.body import BodyModel
from slamhmr.synth.noise import ar1, flipped_contacts, observe
from slamhmr.synth.scene import Scene, SceneSpec, make_scene
from slamhmr.types import CameraTrack, Initial, Observations

FPS = 30.0
# Errors of the start. The geometric lift on these scenes (seeds 0-2, 300 frames): joints 16-19 deg
# rms, moving 3 deg per frame, root 9-11 deg, depth 4-15 % short with 0.2-0.3 % change per frame.
JOINT_DEG, ROOT_DEG = 15.0, 10.0
DEPTH_BIAS, DEPTH_WANDER = 0.08, 0.05  # share of the depth: one draw per person; in time
SPEED_GAIN, SPEED_SIGMA, SPEED_TAU = 0.1, 0.15, 8.0  # share, m/s, frames: of predicted velocities
FLIPPED = 0.1  # share of contacts that are plainly wrong
ROTATION_TAU, DEPTH_TAU = 5.0, 20.0  # frames; errors change by their rms over this per frame


@dataclass(frozen=True)
class BenchScene:
    """What the solver is given, and the truth that it is scored with."""

    truth: Scene
    observations: Observations
    cameras: CameraTrack
    initial: Initial


def bench_scene(frames: int, people: int, seed: int, body: BodyModel) -> BenchScene:
    """The scene of a benchmark; the same numbers give the same scene.

    Raises ConfigError for numbers that no scene can have.
    """
    spec = SceneSpec(
        seed=seed, frames=frames, fps=FPS, people=people, motion="stroll", camera="follow",
        noise="detector", occlusions=True,
    )  # fmt: skip
    truth = make_scene(spec, body)
    observations, cameras = observe(truth, body, spec)
    return BenchScene(truth, observations, cameras, spoilt_start(truth, observations, seed))


def spoilt_start(truth: Scene, observations: Observations, seed: int) -> Initial:
    """The truth as a regressor would give it: wrong rotations and depths, average bodies.

    Every joint turns by `JOINT_DEG`, the root by `ROOT_DEG` (rms), and people are moved along their
    rays by 10 % in all; errors last as the lift's do. Frames in which nobody sees the person have
    no confidence.
    """
    rng = np.random.default_rng([seed, 47])
    people, frames = truth.valid.shape
    cam_from_world = geometry.invert(truth.world_from_cam)
    root = cam_from_world[:, :3, :3] @ truth.root
    pelvis = geometry.apply(cam_from_world, truth.pelvis.transpose(0, 1)).transpose(0, 1)
    bias = torch.from_numpy(rng.standard_normal((people, 1, 1)))
    wander = _lasting((people, frames, 1), DEPTH_TAU, rng)
    stretch = torch.exp(DEPTH_BIAS * bias + DEPTH_WANDER * wander)
    root = root @ _turns((people, frames), ROOT_DEG, rng)
    joints = truth.body_rotations @ _turns((people, frames, 21), JOINT_DEG, rng)
    sigma = torch.full((people, frames, 22), math.radians(JOINT_DEG / math.sqrt(3.0)))
    speed_sigma = torch.full((people, frames, 3), SPEED_SIGMA).to(pelvis)
    return Initial(
        person_id=observations.person_id,
        cam_from_root=geometry.rigid(root, pelvis * stretch),
        body_pose=roma.rotmat_to_rotvec(joints),
        betas=torch.zeros_like(truth.betas),
        valid=truth.valid,
        confidence=observations.seen[..., None].expand(-1, -1, 22).to(pelvis),
        contacts=flipped_contacts(truth.contacts.to(pelvis), FLIPPED, FPS, seed),
        rotation_sigma=sigma.to(pelvis),
        root_velocity=_spoilt_velocity(truth, rng),
        root_velocity_sigma=speed_sigma,
    )


def _spoilt_velocity(truth: Scene, rng: np.random.Generator) -> Float[Tensor, "N T 3"]:
    """Velocity of the pelvis in its own axes, off by one factor a person, and noisy."""
    step = FPS * (truth.pelvis[:, 1:] - truth.pelvis[:, :-1])
    own = (truth.root[:, :-1].mT @ step[..., None])[..., 0]
    own = torch.cat([own, own[:, -1:]], dim=1)
    gain = torch.from_numpy(rng.standard_normal((len(own), 1, 1)))
    return torch.exp(SPEED_GAIN * gain) * own + SPEED_SIGMA * _lasting(
        tuple(own.shape), SPEED_TAU, rng
    )


def _turns(
    shape: tuple[int, ...], rms_deg: float, rng: np.random.Generator
) -> Float[Tensor, "*shape 3 3"]:
    vectors = math.radians(rms_deg) / math.sqrt(3.0) * _lasting((*shape, 3), ROTATION_TAU, rng)
    return roma.rotvec_to_rotmat(vectors)


def _lasting(
    shape: tuple[int, ...], tau: float, rng: np.random.Generator
) -> Float[Tensor, "*shape"]:
    """Smooth noise of variance 1 along axis 1: white noise through two equal low-passes.

    One (`ar1`) would be as rough as white noise from frame to frame, which no regressor is: feet
    would run at 3 m/s on the spot and nothing could align them.
    """
    values = ar1(shape, tau, rng, axis=1)
    keep = math.exp(-1.0 / tau)
    for t in range(1, shape[1]):
        values[:, t] = keep * values[:, t - 1] + (1.0 - keep) * values[:, t]
    variance = (1.0 + keep**2) / (1.0 + keep) ** 2
    return torch.from_numpy(values / math.sqrt(variance))
