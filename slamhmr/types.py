"""What travels between steps: frozen dataclasses of tensors, in units and frames of the contract.

Axis letters: N people, T frames, K keypoints, J joints, C contacts, B betas. Metres, seconds,
radians, pixels; float64. `dst_from_src` transforms; cameras OpenCV; world z up once gravity is
known.
"""

from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Bool, Float, Int
from torch import Tensor

# How notes on a camera begin that is not what it should be.
DEGRADED, GUESSED, LOST = "DEGRADED", "focal length guessed", "camera lost"
FREE_SCALE_SIGMA = 0.5  # of the log scale, where the alignment saw no floor: feet and speeds only


@dataclass(frozen=True)
class Video:
    """Where the pixels are and when each frame was taken; `video.py` reads the frames."""

    path: Path  # a video file, or a directory of images
    image_size: tuple[int, int]  # width, height after the rotation metadata is applied
    fps: float  # median frame rate
    timestamps: Float[Tensor, "T"]  # seconds, first kept frame at 0
    first: int  # index of the first kept frame in the file
    rotation: int  # degrees counter-clockwise that frames must be turned by: 0, 90, 180, 270

    @property
    def frame_count(self) -> int:
        """Number of kept frames T."""
        return len(self.timestamps)


@dataclass(frozen=True)
class Observations:
    """2D evidence of every person: `observations.npz`."""

    person_id: Int[Tensor, "N"]
    keypoints: Float[Tensor, "N T K 2"]  # px; finite everywhere, meaningless where confidence is 0
    confidence: Float[Tensor, "N T K"]  # 0..1, 0 = not seen
    keypoint_names: tuple[str, ...]  # canonical names (skeleton.KEYPOINTS), any subset, any order
    boxes: Float[Tensor, "N T 4"]  # x0 y0 x1 y1 px, NaN where unseen
    image_size: tuple[int, int]
    fps: float
    timestamps: Float[Tensor, "T"]

    @property
    def seen(self) -> Bool[Tensor, "N T"]:
        """True where any keypoint of the person is seen."""
        return (self.confidence > 0).any(dim=-1)


@dataclass(frozen=True)
class Views:
    """Further cameras that film the same people in the same frames as the main one.

    V views; rows of people and the time axis are those of the main view's `Observations`.
    """

    names: tuple[str, ...]
    keypoints: Float[Tensor, "V N T K 2"]  # px
    confidence: Float[Tensor, "V N T K"]  # 0 = not seen
    keypoint_names: tuple[str, ...]
    boxes: Float[Tensor, "V N T 4"]
    cam_from_main: Float[Tensor, "V T 4 4"]  # metres, from the main camera as its track has it
    intrinsics: Float[Tensor, "V T 4"]
    image_sizes: Int[Tensor, "V 2"]
    main: str = "main"  # name of the main view

    @property
    def seen(self) -> Bool[Tensor, "N T"]:
        """True where any keypoint of the person is seen in any of these views."""
        return (self.confidence > 0).any(dim=-1).any(dim=0)


@dataclass(frozen=True)
class CameraTrack:
    """Camera path in an arbitrary world and, unless `scale_known`, scale: `cameras.npz`."""

    world_from_cam: Float[Tensor, "T 4 4"]
    intrinsics: Float[Tensor, "T 4"]  # fx fy cx cy, px
    image_size: tuple[int, int]
    scale_known: bool
    moving: bool  # False: the camera does not translate, the scale of its path means nothing
    source: str  # "static", "rotation", "sfm", "file: ..."
    covariance: Float[Tensor, "T 6 6"] | None = None
    points: Float[Tensor, "M 3"] | None = (
        None  # sparse points of the static scene, same world and scale
    )
    # Against gravity, unit, in the track's own world; None: the track does not say it.
    up: Float[Tensor, "3"] | None = None
    notes: tuple[str, ...] = ()  # for the report: focal guessed, degraded, frames interpolated
    # First frames, above 0, from which on the path lies in a world and a scale of its own: another
    # shot, or SLAM that began anew. None: one world.
    segments: Int[Tensor, "S"] | None = None
    lost: Bool[Tensor, "T"] | None = None  # no pose was found: what stands there is interpolated
    # Number of the segment, from 0, in whose world each of `points` lies. None: the first.
    point_segments: Int[Tensor, "M"] | None = None
    # Relative standard deviation of the focal length, where it was guessed or estimated.
    focal_sigma: Float[Tensor, ""] | None = None
    # Both ends of straight edges of the picture, unit rays in the camera of their frame; None: none
    # were looked for.
    edges: Float[Tensor, "E 2 3"] | None = None
    edge_frames: Int[Tensor, "E"] | None = None

    @property
    def starts(self) -> tuple[int, ...]:
        """First frames of the segments after the first."""
        return () if self.segments is None else tuple(self.segments.tolist())


@dataclass(frozen=True)
class Initial:
    """Start of every person in camera space, from any regressor: `initial.npz`."""

    person_id: Int[Tensor, "N"]
    cam_from_root: Float[Tensor, "N T 4 4"]  # translation = the pelvis joint in the camera, metres
    body_pose: Float[Tensor, "N T 21 3"]  # rotation vectors
    betas: Float[Tensor, "N B"]
    valid: Bool[Tensor, "N T"]
    # 1 = as sure as the regressor gets, 0 = no information
    confidence: Float[Tensor, "N T 22"] | None = None
    # left heel, left toe, right heel, right toe, 0..1
    contacts: Float[Tensor, "N T 4"] | None = None
    # What a network that was trained with sigmas says of itself; each sigma is of one axis.
    rotation_sigma: Float[Tensor, "N T 22"] | None = None  # rad; of the root in the camera first
    up_cam: Float[Tensor, "N T 3"] | None = None  # unit vector against gravity, in the camera
    up_sigma: Float[Tensor, "N T"] | None = None  # rad, of `up_cam`
    # Of the pelvis joint in the axes of the root at t, from t to t + 1, m/s, for a body of the
    # mean size: a body's own is this times `PointSet.size(betas)`.
    root_velocity: Float[Tensor, "N T 3"] | None = None
    root_velocity_sigma: Float[Tensor, "N T 3"] | None = None  # m/s


@dataclass(frozen=True)
class SceneState:
    """Everything the stages solve for, in one gravity-aligned world: people, scale, floor, cameras.

    The origin is the first camera's centre until `result` moves it to that camera's footprint.
    Camera: X_cam = R_cw (X_world - exp(log_scale) c_t), with c_t the unscaled centre in `cameras`,
    corrected by drift and jitter (`slamhmr.cameras.metric_cameras`).
    """

    person_id: Int[Tensor, "N"]
    valid: Bool[Tensor, "N T"]  # the person is in the clip (between entry and exit)
    observed: Bool[Tensor, "N T"]  # the person is seen in that frame
    root_orient: Float[Tensor, "N T 3"]  # world_from_root, rotation vector
    pelvis: Float[Tensor, "N T 3"]  # pelvis joint in the world, metres
    body_pose: Float[Tensor, "N T 21 3"]
    betas: Float[Tensor, "N B"]
    contacts: Float[Tensor, "N T 4"]
    log_scale: Float[Tensor, ""]  # log of metres per SLAM unit
    scale_prior: Float[
        Tensor, "2"
    ]  # of the log scale, from the alignment: mean, standard deviation
    ground: Float[Tensor, "4"]  # unit normal n and offset d, n.x + d = 0
    up: Float[Tensor, "3"]  # against gravity; z at the start, which `result` makes it again
    log_focal: Float[Tensor, ""]  # log of the focal length over that of `cameras`
    drift: Float[Tensor, "M 6"]  # of the cameras, see `slamhmr.cameras`: modes of rad and metres
    jitter: Float[Tensor, "T 3"]  # of the cameras about their own axes, rad
    cameras: CameraTrack  # z up, centre of frame 0 at the origin, in SLAM units, not corrected
    # Log of how much too fast the start predicts each person's root to move; None: not at all.
    velocity_gain: Float[Tensor, "N"] | None = None
    # Of every keypoint in the image, constant over a clip, in units of the person's apparent size;
    # those of all views one after another. None: none.
    keypoint_offsets: Float[Tensor, "N K 2"] | None = None
    # Of each tilt of gravity as the alignment gave it, rad; None: as the term `gravity` says.
    up_sigma: Float[Tensor, ""] | None = None
    # Corrections of the placement of every segment of the cameras after the first: rotation about
    # its first centre (rotation vector), offset (m), log of its scale. None: not corrected.
    segment_moves: Float[Tensor, "S 7"] | None = None
    # How sure their placement is before the solve: tilt and yaw (rad), offset (m), log scale.
    segment_sigma: Float[Tensor, "S 4"] | None = None
    # Somebody moves on from the segment before into this one, which places it; None: nobody.
    segment_tied: Bool[Tensor, "S"] | None = None
    # Height above `ground` of what each contact point stands on, m (steps, walls); None: the floor.
    support: Float[Tensor, "N T 4"] | None = None
    flight: Bool[Tensor, "N T"] | None = None  # frames of free fall; None: not looked for


@dataclass(frozen=True)
class StageReport:
    """What one stage did: one entry of `report.json`."""

    name: str
    iterations: int
    rejected: int
    stopped: str  # a sentence
    energy_before: dict[str, float]  # per term
    energy_after: dict[str, float]
    seconds: float
    # Factor on the sigma of the keypoints that kept the result as near to them as the start was.
    keypoint_sigma: float = 1.0
    idle: list[str] = field(default_factory=list)  # terms whose input the start does not predict


@dataclass(frozen=True)
class Posterior:
    """Uncertainty of a solved state; None where nothing was free.

    Joints in the world of the result. Tilts in rad, along the two axes that `scene.plane_axes`
    gives of the solver's ground and vertical; the ground's offset is the first camera's height.
    """

    joints_cov: Float[Tensor, "N T 24 3 3"]  # m^2; NaN outside a person's span
    joints_cov_root: Float[Tensor, "N T 24 3 3"]  # relative to the pelvis joint, world axes
    log_scale_var: Float[Tensor, "1 1"] | None
    ground_cov: Float[Tensor, "3 3"] | None  # two tilts, offset (m)
    gravity_cov: Float[Tensor, "2 2"] | None
    log_focal_var: Float[Tensor, "1 1"] | None
    drift_cov: Float[Tensor, "D D"] | None
    betas_cov: Float[Tensor, "N B B"] | None
    prior_share: dict[str, float]  # posterior over prior variance: 1 = the clip says nothing
    seconds: float


@dataclass(frozen=True)
class Result:
    """The deliverable, `result.npz`: SMPL parameters with which the body model gives `joints`."""

    person_id: Int[Tensor, "N"]
    valid: Bool[Tensor, "N T"]
    observed: Bool[Tensor, "N T"]
    root_orient: Float[Tensor, "N T 3"]
    transl: Float[Tensor, "N T 3"]
    body_pose: Float[Tensor, "N T 63"]
    betas: Float[Tensor, "N B"]
    joints: Float[Tensor, "N T 24 3"]
    contacts: Float[Tensor, "N T 4"]
    world_from_cam: Float[Tensor, "T 4 4"]  # metric
    intrinsics: Float[Tensor, "T 4"]
    image_size: tuple[int, int]
    fps: float
    ground: Float[Tensor, "4"]
    scale: float  # metres per SLAM unit
    scale_std: float  # of `scale`; NaN where no posterior was computed or the scale was not free
    body_model: str
    gender: tuple[str, ...]
    provenance: dict[str, object] = field(default_factory=dict)
    # The posterior, where it was computed: m^2, in the world; relative to the pelvis; the ground's
    # two tilts (rad) and offset (m); the betas.
    joints_cov: Float[Tensor, "N T 24 3 3"] | None = None
    joints_cov_root: Float[Tensor, "N T 24 3 3"] | None = None
    ground_cov: Float[Tensor, "3 3"] | None = None
    betas_cov: Float[Tensor, "N B B"] | None = None
    # First frames, above 0, of pieces of the camera's path that were in worlds of their own (None:
    # one piece), and whether somebody ties each to what was before; where nobody does, its place
    # and heading beside the other pieces mean nothing.
    segments: Int[Tensor, "S"] | None = None
    segment_tied: Bool[Tensor, "S"] | None = None

    @property
    def apart(self) -> tuple[int, ...]:
        """First frames of the pieces that nobody ties to what was before."""
        if self.segments is None or self.segment_tied is None:
            return ()
        return tuple(self.segments[~self.segment_tied].tolist())
