"""The scores of one matched person, gaps respected.

A world that falls into pieces is aligned piece by piece, and no derivative reaches across.
As in the field, MPJPE, PVE and accel compare the two people as their cameras see them, each file
through its own; the other metrics compare world positions, aligned as their names say.
"""

import logging

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr import geometry
from slamhmr.body import BodyModel, forward_points, pelvis_from_transl, vertices
from slamhmr.eval import metrics
from slamhmr.skeleton import CONTACT_POINTS
from slamhmr.types import Result

LOG = logging.getLogger(__name__)

HIPS = (1, 2)  # SMPL: MPJPE, PVE and accel are centred between them, as in WHAM for EMDB and RICH
SHORTEST_PATH = 1.0  # m: RTE of a person who hardly walks divides by noise
VERTEX_FRAMES = 100  # frames of vertices held at once: 2 x 33 MB with the default body

Values = dict[str, Float[Tensor, "S"]]


class Side:
    """One person of one file, on chosen frames."""

    def __init__(self, file: Result, row: int, body: BodyModel) -> None:
        self.file, self.row, self.body = file, row, body
        self.valid: Bool[Tensor, "T"] = file.valid[row]
        self.joints: Float[Tensor, "T 24 3"] = file.joints[row]
        self.orient = roma.rotvec_to_rotmat(file.root_orient[row])
        self.betas = file.betas[row : row + 1]
        self.pose = roma.rotvec_to_rotmat(file.body_pose[row].reshape(-1, 21, 3))
        self.cam_from_world = geometry.invert(file.world_from_cam)
        self.pelvis = pelvis_from_transl(body, self.betas, file.transl[row : row + 1])[0]

    def feet(self, frames: Tensor) -> Float[Tensor, "S 4 3"]:
        """Heels and big toes, the points of `skeleton.CONTACT_POINTS`."""
        points, _ = forward_points(self.body, self.betas, *self._posed(frames))
        return points[0][:, [self.body.point_names.index(name) for name in CONTACT_POINTS]]

    def joints_cam(self, frames: Tensor) -> Float[Tensor, "S 24 3"]:
        """Joints in the file's own cameras."""
        return geometry.apply(self.cam_from_world[frames], self.joints[frames])

    def vertices_cam(self, frames: Tensor) -> Float[Tensor, "S V 3"]:
        """The mesh in the file's own cameras."""
        world = vertices(self.body, self.betas, *self._posed(frames))[0]
        return geometry.apply(self.cam_from_world[frames], world)

    def _posed(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.orient[None, frames], self.pelvis[None, frames], self.pose[None, frames]


def score_person(result: Side, truth: Side) -> Values:
    """Every metric per frame (or per step, or per planted point) of one matched pair.

    What is aligned over time is aligned in each piece of the result's world (`Result.apart`).
    """
    both = result.valid & truth.valid
    frames = torch.nonzero(both)[:, 0]
    pieces = _pieces(frames, result.file.apart)
    runs = [run for piece in pieces for run in _runs(piece)]
    mine, theirs = result.joints[frames], truth.joints[frames]
    return {
        "frames": frames.to(mine.dtype),
        "pa_mpjpe_mm": metrics.pa_mpjpe_mm(mine, theirs),
        "mpjpe_mm": metrics.mpjpe_mm(result.joints_cam(frames), truth.joints_cam(frames), HIPS),
        "pve_mm": _pve_mm(result, truth, frames),
        **_windowed(result, truth, pieces),
        "rte_percent": _joined([_rte_percent(result, truth, piece) for piece in pieces]),
        "roe_deg": _joined(
            [metrics.roe_deg(result.orient[piece], truth.orient[piece]) for piece in pieces]
        ),
        **_per_run(result, truth, runs),
    }


def _pieces(frames: Tensor, apart: tuple[int, ...]) -> list[Tensor]:
    """The frames of each piece of the world that has any."""
    places = torch.searchsorted(frames, torch.tensor(apart, dtype=frames.dtype)).tolist()
    return [piece for piece in torch.tensor_split(frames, places) if len(piece) > 0]


def _rte_percent(result: Side, truth: Side, frames: Tensor) -> Float[Tensor, "S"]:
    """RTE of a piece; empty where the person hardly walks in it."""
    length = sum(metrics.path_length_m(truth.joints[run, 0]) for run in _runs(frames))
    if length < SHORTEST_PATH:
        return torch.zeros(0, dtype=truth.joints.dtype)
    path = result.joints[frames, 0], truth.joints[frames, 0]
    return metrics.rte_percent(*path, length_m=length)


def _runs(frames: Tensor) -> list[Tensor]:
    """Stretches of consecutive frames: no derivative and no path length reaches across a gap."""
    cuts = (torch.nonzero(frames[1:] - frames[:-1] > 1)[:, 0] + 1).tolist()
    return list(torch.tensor_split(frames, cuts))


def _windowed(result: Side, truth: Side, pieces: list[Tensor]) -> Values:
    """W- and WA-MPJPE100 on windows of 100 frames, counted from the first scored one of a piece.

    A gap does not start a new alignment; a window with one scored frame is left out.
    """
    w, wa = [], []
    for frames in pieces:
        window = (frames - frames[0]) // metrics.CHUNK_FRAMES
        for index in torch.unique(window).tolist():
            inside = frames[window == index]
            if len(inside) > 1:
                w.append(metrics.w_mpjpe100_mm(result.joints[inside], truth.joints[inside]))
                wa.append(metrics.wa_mpjpe100_mm(result.joints[inside], truth.joints[inside]))
    return {"w_mpjpe100_mm": _joined(w), "wa_mpjpe100_mm": _joined(wa)}


def _per_run(result: Side, truth: Side, runs: list[Tensor]) -> Values:
    """Metrics with derivatives, each from unbroken stretches only."""
    fps = truth.file.fps
    accel, jitter, own, sliding, velocity = [], [], [], [], []
    for run in runs:
        mine, theirs = result.joints[run], truth.joints[run]
        seen = result.joints_cam(run), truth.joints_cam(run)
        centred = [metrics.align_root(points, points, HIPS) for points in seen]
        if len(run) > 2:
            accel.append(metrics.accel_m_per_s2(centred[0], centred[1], fps))
        if len(run) > 3:
            jitter.append(metrics.jitter_10m_per_s3(mine, fps))
            own.append(metrics.jitter_10m_per_s3(theirs, fps))
        if len(run) > 1:
            sliding.append(metrics.foot_sliding_mm(result.feet(run), truth.feet(run), fps))
            velocity.append(
                metrics.erve_mm_per_frame(
                    mine[:, 0], theirs[:, 0], result.orient[run], truth.orient[run], fps
                )
            )
    return {
        "accel_m_per_s2": _joined(accel),
        "jitter_10m_per_s3": _joined(jitter),
        "truth_jitter_10m_per_s3": _joined(own),
        "foot_sliding_mm": _joined(sliding),
        "erve_mm_per_frame": _joined(velocity),
    }


def _pve_mm(result: Side, truth: Side, frames: Tensor) -> Float[Tensor, "S"]:
    """PVE; empty when the two files are on bodies of different meshes."""
    if result.body.v_template.shape != truth.body.v_template.shape:
        LOG.warning("pve: '%s' and '%s' differ in mesh", result.body.name, truth.body.name)
        return torch.zeros(0, dtype=torch.float64)
    errors = []
    for part in torch.split(frames, VERTEX_FRAMES):
        joints = result.joints_cam(part), truth.joints_cam(part)
        meshes = result.vertices_cam(part), truth.vertices_cam(part)
        errors.append(metrics.pve_mm(*meshes, *joints, HIPS))
    return _joined(errors)


def _joined(parts: list[Tensor]) -> Float[Tensor, "S"]:
    return torch.cat(parts) if len(parts) > 0 else torch.zeros(0, dtype=torch.float64)
