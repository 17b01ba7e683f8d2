"""The camera step: shots by themselves, lost frames, the lens: words and exit codes."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sequences import (
    FRAMES,
    FakeOptions,
    make_cameras,
    make_observations,
    make_state,
    shortened,
    write_sequence,
    write_two_shots,
    write_video,
)

from slamhmr.artifacts import to_arrays, write_arrays
from slamhmr.camera_step import GUESS_SIGMA, track_camera
from slamhmr.config import load_config
from slamhmr.errors import BackendError
from slamhmr.runfolder import RunFolder
from slamhmr.sequence import open_sequence, prepare_observations


@pytest.fixture
def slam(monkeypatch):
    """A camera backend whose path is that of the test, cut to the frames it is given."""
    fake = SimpleNamespace(track=make_cameras(), options=None, intrinsics=None)

    def find(video, _, intrinsics, options, **__):
        fake.options, fake.intrinsics = options, intrinsics
        return dataclasses.replace(
            shortened(fake.track, video.frame_count), notes=(f"{video.frame_count} frames",)
        )

    module = SimpleNamespace(Options=FakeOptions, track_camera=find)
    monkeypatch.setattr("slamhmr.camera_step.backend", lambda *_: module)
    return fake


def cameras_of(folder, *words, cuts=None, settings=""):
    (folder / "sequence.yaml").write_text(settings)
    sequence = dataclasses.replace(open_sequence(folder), found_cuts=cuts)
    with RunFolder(folder / "slamhmr") as run:
        (folder / "slamhmr" / "1_observations.npz").write_bytes(b"")
        observations = prepare_observations(make_observations(make_state()), sequence)
        return track_camera(run, sequence, observations, load_config((), words), False)


def with_file(folder, **changes):
    write_sequence(folder)
    arrays = {**to_arrays(make_cameras()), **changes}
    write_arrays(folder / "cameras.npz", arrays)
    return folder


def lost_in(*frames):
    poses = make_cameras().world_from_cam.numpy().copy()
    poses[list(frames)] = np.nan
    return poses


def test_every_shot_is_a_segment_with_notes_of_its_own(tmp_path, slam):
    write_two_shots(tmp_path / "video.mp4", 5)
    cameras = cameras_of(tmp_path, cuts=(5,))
    assert cameras.segments.tolist() == [5]
    assert cameras.notes[1:] == (
        "shot 1 (frames 0-4): 5 frames",
        "shot 2 (frames 5-7): 3 frames (frames counted from the shot's first)",
    )
    assert torch.equal(cameras.world_from_cam[5:], slam.track.world_from_cam[:3])


def test_a_guessed_lens_is_said_to_be_one(tmp_path, slam):
    write_video(tmp_path / "video.mp4")
    cameras = cameras_of(tmp_path)
    assert cameras.notes[0] == "focal length guessed: 400 px, the diagonal of the image"
    assert float(cameras.focal_sigma) == GUESS_SIGMA
    assert slam.options.refine_focal
    slam.track = dataclasses.replace(slam.track, moving=False)
    assert float(cameras_of(tmp_path, "seed=1", settings="fps: 20").focal_sigma) < GUESS_SIGMA


def test_a_given_lens_is_no_guess(tmp_path, slam):
    write_video(tmp_path / "video.mp4")
    cameras = cameras_of(tmp_path, settings="intrinsics: [300, 300, 160, 120]")
    assert cameras.focal_sigma is None
    assert not slam.options.refine_focal
    assert cameras.notes == (f"{FRAMES} frames",)


def test_lost_frames_of_a_file_are_told(tmp_path):
    folder = with_file(tmp_path, world_from_cam=lost_in(2, 3, 6))
    cameras = cameras_of(folder)
    assert cameras.lost.nonzero().flatten().tolist() == [2, 3, 6]
    assert cameras.notes[-1] == (
        "camera lost in frames 2-3, 6 (3 of 8): bridged between the nearest known poses"
    )
    kept = cameras_of(folder, settings="frames: [3, 7]")
    assert kept.notes[-1].startswith("camera lost in frames 0, 3 (2 of 5)")


def test_a_camera_lost_most_of_the_time_is_refused(tmp_path):
    folder = with_file(tmp_path, world_from_cam=lost_in(1, 2, 3, 4, 5))
    with pytest.raises(BackendError, match=r"lost in frames 1-5 \(5 of 8\), which is 62 %") as e:
        cameras_of(folder)
    assert e.value.exit_code == 4


def test_a_file_across_a_cut_is_one_world_and_that_is_said(tmp_path):
    folder = with_file(tmp_path)
    said = "names no segment at the cut of frame 4: its path is taken as one world across it"
    assert said in cameras_of(folder, settings="cuts: [4]").notes[-1]
    folder = with_file(tmp_path, segments=np.array([4]))
    cameras = cameras_of(folder, settings="cuts: [4]")
    assert cameras.segments.tolist() == [4]
    assert not any("one world" in note for note in cameras.notes)


def test_edges_are_sought_where_there_are_pixels_and_the_vertical_is_not_known(tmp_path, slam):
    write_two_shots(tmp_path / "video.mp4", 5)
    found = cameras_of(tmp_path)
    assert found.edges is not None
    assert set(found.edge_frames.tolist()) == set(range(FRAMES))
    assert cameras_of(tmp_path, "vertical_edges=false").edges is None


def test_edges_are_sought_for_the_cameras_of_a_file_too(tmp_path):
    filed = tmp_path / "filed"
    write_two_shots(filed / "video.mp4", 5)
    assert cameras_of(with_file(filed)).edges is not None
    assert cameras_of(with_file(filed, up=np.array([0.0, 0, 1]))).edges is None
    assert cameras_of(with_file(tmp_path / "without")).edges is None
