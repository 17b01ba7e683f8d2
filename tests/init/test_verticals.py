"""Up from edges of the picture: lines of a made world, clutter, lines that lean, one in pieces."""

import math
from dataclasses import replace

import pytest
import roma
import torch
from sequences import make_initial, make_state
from torch import Tensor

from slamhmr.geometry import rigid
from slamhmr.init import align
from slamhmr.init.segments import _piece_of
from slamhmr.init.verticals import LEAST_SIGMA, upright
from slamhmr.types import CameraTrack

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
DOUBT = math.radians(2.5)
HALF = (0.62, 0.35)  # of the picture, tangents


def looking(pitch_deg: float, roll_deg: float, frames: int) -> CameraTrack:
    """Cameras that turn slowly about the vertical of a world whose z is up."""
    level = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
    own = roma.rotvec_to_rotmat(torch.tensor([math.radians(-pitch_deg), 0, math.radians(roll_deg)]))
    yaw = torch.linspace(0, 0.4, frames, dtype=torch.float64)
    turn = roma.rotvec_to_rotmat(yaw[:, None] * UP) @ level @ own.double()
    return CameraTrack(
        world_from_cam=rigid(turn, torch.zeros(frames, 3, dtype=torch.float64)),
        intrinsics=torch.tensor([1000.0, 1000, 640, 360]).double().expand(frames, 4),
        image_size=(1280, 720), scale_known=False, moving=False, source="test",
    )  # fmt: skip


def random_edges(count: int, seed: int) -> Tensor:
    """Edges anywhere in the picture, in any direction; rays (E,2,3), not normalised."""
    made = torch.Generator().manual_seed(seed)
    middle = (2 * torch.rand(count, 2, generator=made) - 1).double() * torch.tensor(HALF)
    angle = math.pi * torch.rand(count, generator=made).double()
    along = 0.05 * torch.stack([angle.cos(), angle.sin()], dim=-1)
    ends = torch.stack([middle - along, middle + along], dim=1)
    return torch.nn.functional.pad(ends, (0, 1), value=1.0)


def edges_along(direction: Tensor, turn: Tensor, count: int, seed: int) -> Tensor:
    """Edges of lines of the world along `direction` (unit), seen from the origin."""
    made = torch.Generator().manual_seed(seed)
    middle = (2 * torch.rand(count, 2, generator=made) - 1).double() * torch.tensor(HALF) * 0.8
    place = 5 * torch.nn.functional.pad(middle, (0, 1), value=1.0)
    shift = 0.4 * (turn.mT @ direction)
    ends = torch.stack([place - shift, place + shift], dim=1)
    ends = ends / ends[..., 2:]
    noise = 0.0004 * torch.randn(count, 2, 2, generator=made).double()
    return torch.cat([ends[..., :2] + noise, ends[..., 2:]], dim=-1)


def with_lines(
    track: CameraTrack, direction: Tensor | None, lines: int, clutter: int
) -> CameraTrack:
    found, owners = [], []
    for frame, pose in enumerate(track.world_from_cam):
        parts = [random_edges(clutter, 100 + frame)]
        if direction is not None:
            parts.append(edges_along(direction, pose[:3, :3], lines, frame))
        rays = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
        found.append(rays)
        owners.append(torch.full((len(rays),), frame))
    return replace(track, edges=torch.cat(found), edge_frames=torch.cat(owners))


def leaning(degrees: float, towards_deg: float = 70.0) -> Tensor:
    """Up, wrong by so much."""
    way = math.radians(towards_deg)
    axis = torch.tensor([math.cos(way), math.sin(way), 0.0], dtype=torch.float64)
    return roma.rotvec_to_rotmat(math.radians(degrees) * axis) @ UP


def apart_deg(a: Tensor, b: Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(a @ b))))


@pytest.mark.parametrize(
    ("pitch", "roll", "wrong", "towards"),
    [(0, 0, 4, 0), (15, 0, 4, 90), (15, 5, 6, 200), (-10, -8, 3, 300), (30, 0, 6, 60)],
)
def test_upright_lines_among_clutter_correct_what_people_say(pitch, roll, wrong, towards):
    track = with_lines(looking(pitch, roll, 6), UP, lines=20, clutter=60)
    found, doubt, told = upright(track, leaning(wrong, towards), DOUBT)
    assert apart_deg(found, UP) < 0.8
    assert LEAST_SIGMA <= doubt < math.radians(1.6)
    assert told is not None
    assert f"correct by {wrong}" in told or f"correct by {wrong - 1}." in told


@pytest.mark.parametrize("seed", range(4))
def test_clutter_alone_says_nothing(seed):
    track = looking(10, 2, 5)
    rays = torch.nn.functional.normalize(random_edges(400, seed), dim=-1)
    track = replace(track, edges=rays, edge_frames=torch.arange(400) % 5)
    said = leaning(3)
    found, doubt, told = upright(track, said, DOUBT)
    assert told is None or apart_deg(found, said) < 2
    assert told is not None or (found is said and doubt == DOUBT)


def test_lines_that_all_lean_far_are_not_believed():
    track = with_lines(looking(5, 0, 5), leaning(13.0, 0.0), lines=60, clutter=5)
    found, doubt, told = upright(track, UP, DOUBT)
    assert apart_deg(found, UP) == 0.0
    assert doubt == DOUBT
    assert told is None or "not believed" in told


def floor_lines(track: CameraTrack, count: int, aside: float) -> CameraTrack:
    """Pieces of floor lines, 1.6 m below the camera, that run ahead of it a little aside."""
    found, owners = [], []
    for frame, pose in enumerate(track.world_from_cam):
        turn = pose[:3, :3]
        level = torch.nn.functional.normalize(turn[:2, 2], dim=0)
        ahead = torch.nn.functional.pad(level, (0, 1))
        right = torch.linalg.cross(ahead, UP)
        for line in range(count):
            start = ahead * (3 + 0.4 * line) + right * (aside + 0.02 * line) - 1.6 * UP
            found.append(torch.stack([start, start + 1.5 * ahead]) @ turn)
            owners.append(frame)
    rays = torch.nn.functional.normalize(torch.stack(found), dim=-1)
    return replace(
        track,
        edges=rays if track.edges is None else torch.cat([track.edges, rays]),
        edge_frames=torch.tensor(owners)
        if track.edge_frames is None
        else torch.cat([track.edge_frames, torch.tensor(owners)]),
    )


def test_lines_of_the_floor_towards_the_camera_do_not_pass_for_upright_ones():
    camera = looking(8, 0, 6)
    alone = upright(floor_lines(camera, 4, 0.1), UP, DOUBT)[0]
    assert apart_deg(alone, UP) < 1.0
    both = floor_lines(with_lines(camera, UP, lines=8, clutter=30), 4, 0.1)
    assert apart_deg(upright(both, leaning(3), DOUBT)[0], UP) < 1.0


def test_what_is_further_from_people_than_they_doubt_is_less_sure():
    near, far = (
        upright(with_lines(looking(5, 0, 5), UP, 20, 20), leaning(wrong), DOUBT)[1]
        for wrong in (2, 9)
    )
    assert far > near + math.radians(0.3)


def test_a_line_in_many_pieces_has_one_vote():
    track = with_lines(looking(20, 0, 1), UP, lines=20, clutter=0)
    turn = track.world_from_cam[0, :3, :3]
    ahead = turn @ torch.tensor([0.25, 0.1, 1.0], dtype=torch.float64)
    false = roma.rotvec_to_rotmat(torch.tensor([0.1, 0.03, 0.0], dtype=torch.float64)) @ UP
    pieces = [ahead + shift * false for shift in torch.linspace(-1, 1, 41).double()]
    rays = torch.stack([torch.stack(pair) for pair in zip(pieces[:-1], pieces[1:], strict=True)])
    rays = torch.nn.functional.normalize(rays @ turn, dim=-1)
    both = replace(
        track,
        edges=torch.cat([track.edges, rays]),
        edge_frames=torch.zeros(len(rays) + len(track.edges), dtype=torch.long),
    )
    assert apart_deg(upright(both, leaning(3), DOUBT)[0], UP) < 1.0


def test_a_guessed_focal_length_makes_the_vertical_of_a_tilted_camera_less_sure():
    track = with_lines(looking(15, 0, 4), UP, lines=20, clutter=20)
    guessed = replace(track, focal_sigma=torch.tensor(0.1, dtype=torch.float64))
    sure, unsure = (upright(t, leaning(2), DOUBT)[1] for t in (track, guessed))
    assert unsure == pytest.approx(math.hypot(sure, 0.1 * math.sin(math.radians(30)) / 2), rel=0.05)


def test_without_edges_people_are_believed_as_they_are():
    said = leaning(3)
    for track in (looking(5, 0, 3), replace(
        looking(5, 0, 3), edges=torch.zeros(0, 2, 3).double(), edge_frames=torch.zeros(0).long()
    )):  # fmt: skip
        found, doubt, told = upright(track, said, DOUBT)
        assert found is said
        assert (doubt, told) == (DOUBT, None)


def test_every_piece_of_a_path_has_its_own_edges():
    track = with_lines(looking(5, 0, 6), UP, lines=3, clutter=2)
    piece = _piece_of(track, (2, 5))
    assert piece.edge_frames.tolist() == sorted([0, 1, 2] * 5)
    assert torch.equal(piece.edges, track.edges[10:25])


@pytest.mark.parametrize(("wrong", "believed"), [(4.0, True), (13.0, False)])
def test_a_start_without_a_doubt_has_one_only_where_edges_are_believed(
    wrong, believed, monkeypatch
):
    track = with_lines(looking(5, 0, 5), leaning(wrong, 0.0), lines=60, clutter=5)
    monkeypatch.setattr(align, "_first_up", lambda *_: (UP, None))
    nobody = torch.zeros(1, 1, 1, 3), [], torch.zeros(1, 1, dtype=torch.bool)
    found, doubt, cameras = align._vertical(make_initial(make_state()), *nobody, track)
    assert (doubt is not None) == believed
    assert (found is not UP) == believed
    assert cameras.edges is None
    assert "gravity" in cameras.notes[0]
