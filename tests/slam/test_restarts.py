"""What happens where the background is lost: one world if it is found again, else segments."""

import dataclasses
import shutil

import cv2
import numpy as np
import pytest
import torch

from slamhmr.errors import BackendError
from slamhmr.slam import auto
from slamhmr.slam.pieces import join, part_of_observations, part_of_video
from slamhmr.slam.restarts import connected_frames, solve_pieces
from slamhmr.slam.static import stand_still
from slamhmr.slam.tracks import Tracks
from slamhmr.types import CameraTrack
from slamhmr.video import open_video

AT = np.random.default_rng(0).uniform(0, 300, (100, 2))
NONE = np.zeros(0, dtype=np.int64)


def tracks_of(*names, links=()):
    """Tracks whose frames of one name see the same 50 points; "" sees nothing."""
    ids = [np.arange(50) + 50 * ord(name) if name != "" else NONE for name in names]
    points = [AT[:50] if name != "" else np.zeros((0, 2)) for name in names]
    return Tracks(tuple(ids), tuple(points), (320, 240), links)


def some_track(count, **changes):
    values = {
        "world_from_cam": torch.eye(4, dtype=torch.float64).repeat(count, 1, 1),
        "intrinsics": torch.ones(count, 4, dtype=torch.float64),
        "image_size": (320, 240),
        "scale_known": False,
        "moving": False,
        "source": "static",
    }
    return CameraTrack(**{**values, **changes})


def test_pieces_of_a_clip():
    assert connected_frames(tracks_of(*"aaa")) == [[0, 1, 2]]
    pieces = connected_frames(tracks_of(*"a" * 14, "", "", *"b" * 13))
    assert pieces == [list(range(14)), list(range(16, 29))]
    pieces = connected_frames(tracks_of(*"a" * 14, "", "", *"a" * 13, links=((13, 16),)))
    assert pieces == [[*range(14), *range(16, 29)]]


def test_a_piece_in_the_hole_of_another_is_lost():
    frames = tracks_of(*"a" * 14, *"b" * 12, *"a" * 13, links=((13, 26),))
    assert connected_frames(frames) == [[*range(14), *range(26, 39)]]


def test_no_piece_is_long_enough():
    with pytest.raises(BackendError, match="background points can be followed to frame 5"):
        connected_frames(tracks_of(*"aaaaabbbbb"))


def test_pieces_become_segments_and_the_rest_is_lost():
    frames = tracks_of(*"a" * 14, "", "", *"b" * 13, "c")
    track = solve_pieces(frames, lambda piece: some_track(len(piece.ids)))
    assert track.segments.tolist() == [16]
    assert track.lost.nonzero().flatten().tolist() == [14, 15, 29]
    assert "begins anew at frame 16, in a world of its own" in track.notes[0]


def test_a_piece_without_a_path_is_lost_and_named():
    def solve(piece):
        if piece.number(0) == 16:
            raise BackendError("camera: no luck")
        return some_track(len(piece.ids))

    frames = tracks_of(*"a" * 14, "", "", *"b" * 13)
    track = solve_pieces(frames, solve)
    assert track.segments is None
    assert track.lost.sum() == 15
    assert track.notes == ("no camera path in frames 16-28: camera: no luck",)
    with pytest.raises(BackendError, match="no luck"):
        solve_pieces(tracks_of("", *"b" * 13), lambda _: solve(frames.only([16])))


def test_joined_tracks():
    first = some_track(5, segments=torch.tensor([2]), lost=torch.arange(5) == 4)
    points = torch.ones(2, 3, dtype=torch.float64)
    sigma = torch.tensor(0.1, dtype=torch.float64)
    second = some_track(3, moving=True, source="sfm", points=points, focal_sigma=sigma)
    both = join([first, second])
    assert both.segments.tolist() == [2, 5]
    assert both.lost.nonzero().flatten().tolist() == [4]
    assert both.point_segments.tolist() == [2, 2]
    assert (both.moving, both.source, float(both.focal_sigma)) == (True, "static, sfm", 0.1)
    assert join([second]) is second


def spoilt(clip, folder, frames, picture):
    """A copy of a clip in which some frames show something else."""
    shutil.copytree(clip.video.path, folder)
    for frame in frames:
        cv2.imwrite(str(folder / f"{frame:04d}.jpg"), picture)
    return open_video(folder, fps=30.0)


def track(video, clip, **settings):
    options = auto.Options(**settings)
    return auto.track_camera(video, clip.observations, clip.intrinsics, options, progress=False)


@pytest.mark.parametrize("kind", ["static", "rotation"])
def test_a_blackout_is_bridged_in_one_world(rendered, tmp_path, kind):
    clip = rendered(kind)
    black = np.zeros((240, 320), np.uint8)
    found = track(spoilt(clip, tmp_path / "clip", range(18, 21), black), clip)
    assert found.source == kind
    assert found.segments is None
    assert found.lost.nonzero().flatten().tolist() == [18, 19, 20]
    steady = track(clip.video, clip)
    known = ~found.lost
    torch.testing.assert_close(
        found.world_from_cam[known], steady.world_from_cam[known], atol=0.01, rtol=0
    )


@pytest.mark.slow
def test_a_travelling_camera_goes_on_after_a_blackout(rendered, tmp_path):
    clip = rendered("lateral", 60)
    black = np.zeros((240, 320), np.uint8)
    found = track(spoilt(clip, tmp_path / "clip", range(28, 32), black), clip)
    assert found.segments is None
    assert found.lost.sum() == 4
    length = found.world_from_cam[-1, :3, 3].norm()
    share = found.world_from_cam[34, :3, 3].norm() / length
    truth = clip.world_from_cam[:, :3, 3] - clip.world_from_cam[0, :3, 3]
    assert abs(share - truth[34].norm() / truth[-1].norm()) < 0.02


@pytest.mark.slow
def test_another_place_without_a_cut_is_another_segment(rendered, tmp_path):
    clip, other = rendered("lateral", 60), rendered("static")
    folder = tmp_path / "clip"
    shutil.copytree(clip.video.path, folder)
    for frame in range(40):
        picture = cv2.flip(cv2.imread(str(other.video.path / f"{frame:04d}.jpg")), -1)
        cv2.imwrite(str(folder / f"{60 + frame:04d}.jpg"), picture)
    seen = dataclasses.replace(
        clip.observations,
        keypoints=clip.observations.keypoints.repeat(1, 2, 1, 1)[:, :100],
        confidence=torch.zeros(1, 100, 5, dtype=torch.float64),
        boxes=torch.full((1, 100, 4), torch.nan, dtype=torch.float64),
        timestamps=torch.arange(100, dtype=torch.float64) / 30,
    )
    options = auto.Options()
    found = auto.track_camera(
        open_video(folder, fps=30.0), seen, clip.intrinsics, options, progress=False
    )
    assert found.segments.tolist() == [60]
    assert found.moving
    assert torch.equal(found.world_from_cam[60:], torch.eye(4).double().repeat(40, 1, 1))


def test_parts_of_video_and_observations(rendered):
    clip = rendered("static")
    part = part_of_video(clip.video, 10, 25)
    assert (part.frame_count, part.first, float(part.timestamps[0])) == (15, 10, 0.0)
    seen = part_of_observations(clip.observations, 10, 25)
    assert torch.equal(seen.keypoints, clip.observations.keypoints[:, 10:25])
    still = stand_still(part, clip.intrinsics, "still")
    assert len(still.world_from_cam) == 15
