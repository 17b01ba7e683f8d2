"""People and cameras in one metric world, in closed form: gravity, scale, floor, contacts."""

import math
from dataclasses import replace

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slamhmr.body import BodyModel, forward_points
from slamhmr.cameras import uncorrected
from slamhmr.contacts import contacts_from_kinematics
from slamhmr.errors import InputError
from slamhmr.geometry import ramps, rigid, rotation_between
from slamhmr.init.gravity import LEARNED_SIGMA, robust_up
from slamhmr.init.scale import camera_scale, lower_foot
from slamhmr.init.scene_points import floor_scale
from slamhmr.init.verticals import upright
from slamhmr.scene import point_set
from slamhmr.skeleton import CONTACT_POINTS
from slamhmr.supports import DRIFT_SPACING, RISE_SIGMA
from slamhmr.types import FREE_SCALE_SIGMA, CameraTrack, Initial, Observations, SceneState

VELOCITY_SIGMA = 0.4  # m/s, of a predicted velocity that comes without one
AGREEMENT = 1.35  # factor within which feet may refine the scale that the floor's points give
LYING = 0.7  # cosine of a body's axis with the predicted vertical below which it does not stand
STANDING_SHARE = 0.2  # of a full vote per frame with which standing people count as the start does
KNOWN_UP = 0.005  # rad, gravity as calibrated cameras state it
UP_DOUBT = 0.1  # rad, gravity from people who stand
CAMERA_HEIGHT = (1.5, 0.6)  # m, mean and scale (Cauchy) of a camera above the floor
FLOOR_SIGMA = 0.05  # m, height of one standing foot
SIZE_SIGMA = 0.08  # of a person's size, and thereby distance from the camera, before the solve
STEP_SECONDS = 0.5  # heights of a foot within a step are one measurement


def align(
    initial: Initial,
    observations: Observations,
    cameras: CameraTrack,
    body: BodyModel,
    *,
    cuts: tuple[int, ...] = (),
) -> SceneState:
    """Gravity, metres per SLAM unit and floor height from people; no iteration over poses.

    Gravity also from upright edges of the picture, which the cameras then hold no longer. The
    world's origin is the first camera's centre, z is up and the first camera looks along +y. A
    camera that does not translate, or whose scale is known, keeps log_scale 0. No velocity is taken
    across `cuts`, first frames of new shots. Raises InputError when nobody is valid anywhere.
    """
    if not bool(initial.valid.any()):
        raise InputError("no person is valid in any frame of the start (initial.npz)")
    observed = observed_frames(initial, observations)
    points, names = camera_points(initial, body)
    feet, fps = [names.index(name) for name in CONTACT_POINTS], observations.fps
    clearance = body.point_template[feet, 1] - body.v_template[:, 1].min()  # above a flat sole
    up, doubt, cameras = _vertical(initial, points, names, observed, cameras)
    levelled = level_cameras(cameras, up)
    for last in (False, True):
        turn = levelled.world_from_cam[:, :3, :3]
        centres = levelled.world_from_cam[:, :3, 3]
        swung = torch.einsum("tij,ntpj->ntpi", turn, points)
        scale, sigma = 1.0, FREE_SCALE_SIGMA
        if cameras.moving and not cameras.scale_known:
            going = _going(initial, body, turn)
            scale, sigma = _scale(
                swung, names, clearance, levelled, observed, fps, going, initial.contacts, cuts=cuts
            )
        world = swung + scale * centres[None, :, None]
        soles = world[:, :, feet]
        soles[..., 2] -= clearance
        contacts, ground = _contacts_and_floor(
            soles, swung[:, :, feet], observed, fps, cuts, initial.contacts
        )
        if not last and cameras.up is None:
            eyes = scale * centres
            up = _floor_normal(soles, contacts, eyes, fps, UP_DOUBT if doubt is None else doubt)
            levelled = level_cameras(levelled, up)
    root = turn @ initial.cam_from_root[..., :3, :3]
    return SceneState(
        person_id=initial.person_id,
        valid=initial.valid,
        observed=observed,
        root_orient=roma.rotmat_to_rotvec(root),
        pelvis=world[:, :, 0],
        body_pose=initial.body_pose,
        betas=initial.betas,
        contacts=contacts * initial.valid[..., None],
        log_scale=torch.tensor(math.log(scale), dtype=torch.float64),
        scale_prior=torch.tensor([math.log(scale), sigma], dtype=torch.float64),
        ground=ground,
        **uncorrected(len(turn)),
        cameras=levelled,
        up_sigma=None if doubt is None else torch.tensor(doubt, dtype=torch.float64),
    )


def _vertical(
    initial: Initial,
    points: Float[Tensor, "N T P 3"],
    names: list[str],
    observed: Bool[Tensor, "N T"],
    cameras: CameraTrack,
) -> tuple[Float[Tensor, "3"], float | None, CameraTrack]:
    """Up in the SLAM world, rad of doubt of its tilts, and the cameras with what edges said."""
    up, doubt = _first_up(initial, points, names, observed, cameras)
    if cameras.up is not None:
        return up, doubt, cameras
    found, sigma, told = upright(cameras, up, UP_DOUBT if doubt is None else doubt)
    notes = cameras.notes if told is None else (*cameras.notes, told)
    bare = replace(cameras, edges=None, edge_frames=None, notes=notes)
    return found, doubt if found is up else sigma, bare


def _first_up(
    initial: Initial,
    points: Float[Tensor, "N T P 3"],
    names: list[str],
    observed: Bool[Tensor, "N T"],
    cameras: CameraTrack,
) -> tuple[Float[Tensor, "3"], float | None]:
    """Up in the SLAM world, from how people stand and, if the start says it, from its vertical.

    Where the cameras' file says it, that is it.

    The middle of both: their errors have different causes (leaning people; a biased network) and
    the same size (2.6 degrees against 3.0 and 3.1 in the mean of 24 synthetic scenes). Where few
    people stand, the start's vertical decides. Also the standard deviation of its tilts, rad: never
    less than half of what the two disagree by, nor than half (nobody stands: one and a half times)
    what the start states.
    """
    if cameras.up is not None:
        return cameras.up, KNOWN_UP
    world_from_cam = cameras.world_from_cam[:, :3, :3]
    axes, vote = _stances(points, names, observed, world_from_cam)
    if initial.up_cam is None:
        return robust_up(axes[observed], vote[observed], world_from_cam), None
    said_axes = torch.einsum("tij,ntj->nti", world_from_cam, initial.up_cam)
    sigma = torch.full_like(said_axes[..., 0], UP_DOUBT)
    if initial.up_sigma is not None:
        sigma = initial.up_sigma
    said = robust_up(said_axes[observed], sigma[observed] ** -2, world_from_cam, LEARNED_SIGMA)
    vote = vote * ((axes @ said) > LYING).to(vote)  # who lies stretched out does not stand
    standing = robust_up(axes[observed], vote[observed], world_from_cam)
    share = (vote[observed].mean() / STANDING_SHARE).clamp(0, 1)
    apart = float(torch.arccos((standing @ said).clamp(-1, 1)))
    stated = float(sigma[observed].median())
    doubt = max(LEARNED_SIGMA, float(share) * apart / 2, (1.5 - float(share)) * stated)
    return torch.nn.functional.normalize(share * standing + said, dim=0), doubt


def _going(
    initial: Initial, body: BodyModel, turn: Float[Tensor, "T 3 3"]
) -> tuple[Float[Tensor, "N T 3"], Float[Tensor, "N T"]] | None:
    """Velocity of every pelvis in the levelled axes, m/s, and its sigma, if the start says it."""
    if initial.root_velocity is None:
        return None
    sizes = torch.stack([point_set(body).size(betas) for betas in initial.betas])
    root = turn @ initial.cam_from_root[..., :3, :3]
    velocity = sizes[:, None, None] * (root @ initial.root_velocity[..., None])[..., 0]
    sigma = torch.full_like(velocity[..., 0], VELOCITY_SIGMA)
    if initial.root_velocity_sigma is not None:
        sigma = initial.root_velocity_sigma.mean(dim=-1)
    return velocity, sigma


def level_cameras(cameras: CameraTrack, up: Float[Tensor, "3"]) -> CameraTrack:
    """Cameras turned so that `up` is z, the first centre at the origin, still in SLAM units."""
    turn = cameras.world_from_cam[:, :3, :3]
    vertical = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    levelled = rotation_between(up, vertical)
    ahead = levelled @ turn[0, :, 2]
    if float(ahead[:2].norm()) < 0.05:  # looks straight down or up: its own up is the way ahead
        ahead = -levelled @ turn[0, :, 1]
    yaw = math.pi / 2 - math.atan2(float(ahead[1]), float(ahead[0]))
    levelled = roma.rotvec_to_rotmat(vertical * yaw) @ levelled
    centres = cameras.world_from_cam[:, :3, 3]
    moved = rigid(levelled @ turn, (centres - centres[0]) @ levelled.T)
    covariance, points = cameras.covariance, cameras.points
    if points is not None:
        points = (points - centres[0]) @ levelled.T
    if covariance is not None:
        spin = torch.kron(torch.eye(2, dtype=levelled.dtype), levelled)
        covariance = spin @ covariance @ spin.T
    known = None if cameras.up is None else vertical
    return replace(cameras, world_from_cam=moved, covariance=covariance, points=points, up=known)


def _scale(
    swung: Float[Tensor, "N T P 3"],
    names: list[str],
    clearance: Float[Tensor, "4"],
    cameras: CameraTrack,
    observed: Bool[Tensor, "N T"],
    fps: float,
    going: tuple[Float[Tensor, "N T 3"], Float[Tensor, "N T"]] | None,
    contacts: Float[Tensor, "N T 4"] | None,
    *,
    cuts: tuple[int, ...],
) -> tuple[float, float]:
    """Metres per SLAM unit and the standard deviation of its log.

    The floor's points decide where the SLAM system gave points; standing feet (and velocities that
    the start predicts) refine that, and decide alone where there is no floor.
    """
    feet = swung[:, :, [names.index(name) for name in CONTACT_POINTS]]
    centres = cameras.world_from_cam[:, :3, 3]
    found = None
    if cameras.points is not None:
        soles = feet.clone()
        soles[..., 2] -= clearance
        neck = swung[:, :, names.index("neck")]
        found = floor_scale(cameras.points, cameras.world_from_cam, soles, neck, observed, fps)
    if found is None:
        scale = camera_scale(
            feet, swung[:, :, 0], centres, observed, fps, going=going, contacts=contacts, cuts=cuts
        )
        return scale, FREE_SCALE_SIGMA
    middle, sigma = found
    near = (math.exp(middle) / AGREEMENT, math.exp(middle) * AGREEMENT)
    scale = camera_scale(
        feet,
        swung[:, :, 0],
        centres,
        observed,
        fps,
        near,
        going=going,
        contacts=contacts,
        cuts=cuts,
    )
    if not near[0] * 1.03 < scale < near[1] / 1.03:  # feet disagree: they are misjudged
        return math.exp(middle), sigma
    return math.sqrt(scale * math.exp(middle)), sigma


def _stances(
    points: Float[Tensor, "N T P 3"],
    names: list[str],
    observed: Bool[Tensor, "N T"],
    world_from_cam: Float[Tensor, "T 3 3"],
) -> tuple[Float[Tensor, "N T 3"], Float[Tensor, "N T"]]:
    """Votes for up in the SLAM world by the trunks and legs of people who stand, and their weight.

    A frame's vote is the direction from the ankles to the neck (`points` in the camera), weighted
    by how stretched the legs and trunk are: bent and sitting people do not vote.
    """
    turned = torch.einsum("tij,ntpj->ntpi", world_from_cam, points)
    ankles = turned[:, :, [names.index("left_ankle"), names.index("right_ankle")]]
    neck, pelvis = turned[:, :, names.index("neck")], turned[:, :, 0]
    trunk, legs = neck - pelvis, pelvis[:, :, None] - ankles
    reach = legs.norm(dim=-1)
    longest = reach[observed].max().clamp_min(1e-6)
    straight = (reach.amax(dim=-1) / longest).clamp(0, 1)
    upright = torch.nn.functional.cosine_similarity(trunk, legs.mean(dim=2), dim=-1).clamp_min(0)
    vote = torch.sigmoid((straight - 0.85) / 0.03) * upright**4 * observed + 1e-4 * observed
    axes = torch.nn.functional.normalize(neck - ankles.mean(dim=2), dim=-1)
    return axes, vote


def _contacts_and_floor(
    feet: Float[Tensor, "N T 4 3"],
    sight: Float[Tensor, "N T 4 3"],
    observed: Bool[Tensor, "N T"],
    fps: float,
    cuts: tuple[int, ...],
    predicted: Float[Tensor, "N T 4"] | None,
) -> tuple[Float[Tensor, "N T 4"], Float[Tensor, "4"]]:
    """Contacts and a horizontal floor, each from the other, starting from speed alone.

    Predicted contacts are taken as they are.
    """
    ground: Float[Tensor, "4"] | None = None
    for _ in range(3):
        contacts = (
            predicted
            if predicted is not None
            else contacts_from_kinematics(feet, fps, ground, observed, sight, cuts)
        )
        weight = contacts * lower_foot(feet) + 1e-4 * observed[..., None]
        height = _weighted_median(feet[..., 2][observed].flatten(), weight[observed].flatten())
        ground = torch.tensor([0.0, 0.0, 1.0, -height], dtype=torch.float64)
    assert ground is not None
    return contacts, ground


def _floor_normal(
    feet: Float[Tensor, "N T 4 3"],
    contacts: Float[Tensor, "N T 4"],
    eyes: Float[Tensor, "T 3"],
    fps: float,
    doubt: float = UP_DOUBT,
) -> Float[Tensor, "3"]:
    """Up corrected by the plane that standing feet lie on: h = a x + b y + c, Cauchy re-weighted.

    The correction is held by `doubt` rad. Feet within `STEP_SECONDS` are one measurement, and the
    camera is one: it is probably held `CAMERA_HEIGHT` above the same plane (a lean towards the
    camera, which no single camera sees well, shows there). A walk on a slope levels the slope.
    Whoever is larger by a share s than the start says is farther away, and stands lower by s times
    the camera's height above the feet: s of everybody is an unknown within `SIZE_SIGMA`, else two
    people at two distances would tilt the floor by what their sizes are wrong. In long clips the
    heights of a camera that travels drift (`supports.SLAM_DRIFT`).
    """
    people, frames, count, _ = feet.shape
    weight = (contacts * lower_foot(feet) / (4 * STEP_SECONDS * fps)).flatten()
    below = eyes.mean(dim=0) - torch.tensor([0.0, 0.0, CAMERA_HEIGHT[0]], dtype=feet.dtype)
    place = torch.cat([feet.flatten(0, 2), below[None]])
    weight = torch.cat([weight, torch.ones_like(weight[:1])])
    sigma = torch.full_like(weight, FLOOR_SIGMA)
    sigma[-1] = CAMERA_HEIGHT[1]
    sunk = (eyes[None, :, None, 2] - feet[..., 2]).reshape(people, frames * count)
    larger = sunk.new_zeros(len(place), people)
    for person, own in enumerate(sunk):
        larger[person * frames * count : (person + 1) * frames * count, person] = own
    rise = _rises(eyes, fps).expand(people, -1, count, -1).flatten(0, 2)
    rise = torch.cat([rise, rise.mean(dim=0, keepdim=True)])
    rows = torch.cat([place[:, :2], torch.ones_like(place[:, :1]), larger, rise], dim=-1)
    rows[:, :2] -= rows[:-1, :2].mean(dim=0)
    sigmas = [doubt, doubt, 1e3, *[SIZE_SIGMA] * people, *[RISE_SIGMA] * rise.shape[1]]
    hold = torch.diag(sunk.new_tensor(sigmas) ** -2)
    plane = feet.new_zeros(rows.shape[1])
    plane[2] = _weighted_median(place[:-1, 2], weight[:-1] + 1e-9)
    for _ in range(10):
        off = (place[:, 2] - rows @ plane) / sigma
        scaled = rows * (weight / (1 + off**2) / sigma**2)[:, None]
        plane = torch.linalg.solve(scaled.T @ rows + hold, scaled.T @ place[:, 2])
    normal = torch.stack([-plane[0], -plane[1], torch.ones_like(plane[0])])
    return torch.nn.functional.normalize(normal, dim=0)


def _rises(eyes: Float[Tensor, "T 3"], fps: float) -> Float[Tensor, "1 T 1 K"]:
    """What the heights of a travelling camera may drift by, over its frames; else nothing."""
    travels = bool((eyes != eyes[:1]).any())
    times = torch.arange(len(eyes), dtype=eyes.dtype) / fps
    return ramps(times, float(times[-1]) if travels else 0.0, DRIFT_SPACING)[None, :, None]


def _weighted_median(values: Float[Tensor, "V"], weight: Float[Tensor, "V"]) -> float:
    order = values.argsort()
    share = weight[order].cumsum(dim=0)
    return float(values[order][int(torch.searchsorted(share, share[-1] / 2))])


def camera_points(initial: Initial, body: BodyModel) -> tuple[Float[Tensor, "N T P 3"], list[str]]:
    """All points of everybody's start in the camera, m, and their names."""
    points, _ = forward_points(
        body,
        initial.betas,
        initial.cam_from_root[..., :3, :3],
        initial.cam_from_root[..., :3, 3],
        roma.rotvec_to_rotmat(initial.body_pose),
    )
    return points, list(body.point_names)


def observed_frames(initial: Initial, observations: Observations) -> Bool[Tensor, "N T"]:
    """Valid, seen, and with a start that rests on evidence."""
    observed = initial.valid & observations.seen
    if initial.confidence is not None:
        observed = observed & (initial.confidence > 0).any(dim=-1)
    return observed if bool(observed.any()) else initial.valid
