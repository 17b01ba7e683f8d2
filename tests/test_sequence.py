import dataclasses

import pytest
import torch
from sequences import (
    FRAMES,
    make_cameras,
    make_observations,
    make_state,
    write_sequence,
    write_video,
)

from slamhmr.errors import ConfigError, InputError
from slamhmr.sequence import (
    choose_people,
    find_video,
    known_heights,
    open_sequence,
    prepare_cameras,
    prepare_observations,
)


def opened(folder, settings="", constraints=None):
    (folder / "sequence.yaml").write_text(settings)
    if constraints is not None:
        (folder / "constraints.yaml").write_text(constraints)
    return open_sequence(folder)


def test_files_that_are_there_are_found(tmp_path):
    sequence = open_sequence(write_sequence(tmp_path))
    assert sequence.video is None
    assert sequence.observations == tmp_path / "observations.npz"
    assert sequence.initial == tmp_path / "initial.npz"


def test_a_trajectory_file_stands_in_for_cameras_npz(tmp_path):
    write_sequence(tmp_path)
    (tmp_path / "cameras.npz").unlink()
    (tmp_path / "cameras.txt").write_text("")
    assert open_sequence(tmp_path).cameras == tmp_path / "cameras.txt"


def test_missing_directory(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_sequence(tmp_path / "nowhere")


def test_neither_video_nor_files(tmp_path):
    with pytest.raises(InputError, match="holds no video"):
        open_sequence(tmp_path)


def test_video_is_the_one_called_video_else_images_else_the_only_one(tmp_path):
    (tmp_path / "clip.MP4").touch()
    assert find_video(tmp_path, None) == tmp_path / "clip.MP4"
    (tmp_path / "images").mkdir()
    assert find_video(tmp_path, None) == tmp_path / "images"
    (tmp_path / "video.mov").touch()
    assert find_video(tmp_path, None) == tmp_path / "video.mov"
    assert find_video(tmp_path, "clip.MP4") == tmp_path / "clip.MP4"
    with pytest.raises(InputError, match="'other.mp4' is not in"):
        find_video(tmp_path, "other.mp4")


def test_several_videos_must_be_told_apart(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.avi").touch()
    with pytest.raises(InputError, match=r"several videos \(a.mp4, b.avi\); name one"):
        find_video(tmp_path, None)


def test_an_empty_video_is_one_line(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="video.mp4") as caught:
        open_sequence(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_frame_is_not_enough(tmp_path):
    write_video(tmp_path / "video.mp4", frames=1)
    with pytest.raises(InputError, match=r"has 1 frame\(s\); at least 2"):
        open_sequence(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("intrinsic: [1, 1, 1, 1]", "did you mean 'intrinsics'"),
        ("intrinsics: [500, 500]", "'intrinsics' has 2 numbers"),
        ("intrinsics: [0, 500, 3, 3]", "must be positive"),
        ("intrinsics: [500, .nan, 3, 3]", "must be finite"),
        ("distortion: [0.1, 0, 0, 0]", "without 'intrinsics'"),
        ("camera: fixed", "auto, static or moving"),
        ("people: everybody", "must be 'all' or a list"),
        ("people: [1, two]", "must be 'all' or a list"),
        ("cuts: [30, 10]", "growing frame numbers"),
        ("frames: [9, 3]", "must be"),
        ("height_m: {1: 178}", "metres, 0.4 to 2.6"),
        ("fps: -3", "must be positive"),
        ("fps: fast", "could not be converted"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, text, message):
    write_sequence(tmp_path)
    with pytest.raises((InputError, ConfigError), match=message) as caught:
        opened(tmp_path, text)
    assert "sequence.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chosen_people_only(tmp_path):
    sequence = opened(write_sequence(tmp_path, 3), "people: [3, 1]")
    everybody = prepare_observations(make_observations(make_state(3)), sequence)
    assert everybody.person_id.tolist() == [1, 2, 3]
    assert choose_people(everybody, sequence).person_id.tolist() == [1, 3]


def test_a_chosen_person_who_is_not_there(tmp_path):
    sequence = opened(write_sequence(tmp_path), "people: [4]")
    with pytest.raises(InputError, match=r"person 4 was not found; found: \[1\]"):
        choose_people(make_observations(make_state()), sequence)


def test_nobody(tmp_path):
    sequence = open_sequence(write_sequence(tmp_path))
    nobody = make_observations(make_state(0))
    with pytest.raises(InputError, match="nobody is seen"):
        prepare_observations(nobody, sequence)


def test_kept_frames_cut_observations_and_cameras(tmp_path):
    sequence = opened(write_sequence(tmp_path), "frames: [2, 5]")
    whole = make_observations(make_state())
    kept = prepare_observations(whole, sequence)
    assert torch.equal(kept.keypoints, whole.keypoints[:, 2:6])
    assert kept.timestamps[0] == 0
    cameras = prepare_cameras(make_cameras(), sequence, kept)
    assert torch.equal(cameras.world_from_cam, make_cameras().world_from_cam[2:6])


def test_kept_frames_keep_their_segments_lost_frames_and_points(tmp_path):
    sequence = opened(write_sequence(tmp_path), "frames: [2, 5]")
    kept = prepare_observations(make_observations(make_state()), sequence)
    cameras = dataclasses.replace(
        make_cameras(),
        segments=torch.tensor([2, 4, 7]),
        lost=torch.arange(FRAMES) == 3,
        points=torch.arange(12, dtype=torch.float64).reshape(4, 3),
        point_segments=torch.tensor([0, 1, 2, 3]),
    )
    trimmed = prepare_cameras(cameras, sequence, kept)
    assert trimmed.segments.tolist() == [2]
    assert trimmed.lost.tolist() == [False, True, False, False]
    assert trimmed.point_segments.tolist() == [0, 1]
    assert torch.equal(trimmed.points, cameras.points[1:3])
    whole = dataclasses.replace(cameras, segments=torch.tensor([2, 7]), points=None)
    assert prepare_cameras(whole, sequence, kept).segments is None


def test_frames_beyond_a_file_without_pixels_are_refused(tmp_path):
    sequence = opened(write_sequence(tmp_path), "frames: [8, 12]")
    with pytest.raises(InputError, match=r"frames \[8, 12\] lie beyond the 8 of observations.npz"):
        prepare_observations(make_observations(make_state()), sequence)


def test_cuts_of_the_settings_outweigh_those_found(tmp_path):
    sequence = open_sequence(write_sequence(tmp_path))
    assert (sequence.settings.cuts, sequence.cuts) == (None, ())
    found = dataclasses.replace(sequence, found_cuts=(3, 6))
    assert found.cuts == (3, 6)
    for text, cuts in (("cuts: []", ()), ("cuts: [2]", (2,))):
        assert dataclasses.replace(opened(tmp_path, text), found_cuts=(3, 6)).cuts == cuts


def test_a_cut_beyond_the_clip_is_refused(tmp_path):
    observations = make_observations(make_state())
    assert choose_people(observations, opened(write_sequence(tmp_path), "cuts: [7]")) is not None
    with pytest.raises(InputError, match=r"cut 8 is not within the frames 1..7"):
        choose_people(observations, opened(tmp_path, "cuts: [3, 8]"))


@pytest.mark.parametrize(("said", "moving"), [("static", True), ("moving", False)])
def test_a_camera_file_that_contradicts_the_settings_is_refused(tmp_path, said, moving):
    observations = make_observations(make_state())
    cameras = dataclasses.replace(make_cameras(), moving=moving)
    sequence = opened(write_sequence(tmp_path), f"camera: {said}")
    with pytest.raises(InputError, match=f"says camera: {said}"):
        prepare_cameras(cameras, sequence, observations)
    agreeing = dataclasses.replace(cameras, moving=not moving)
    assert prepare_cameras(agreeing, sequence, observations).moving is not moving


def test_another_lens_than_the_camera_files_is_noted(tmp_path):
    observations = make_observations(make_state())
    same = opened(write_sequence(tmp_path), "intrinsics: [300.5, 300, 160, 120]")
    assert prepare_cameras(make_cameras(), same, observations).notes == ()
    other = opened(tmp_path, "intrinsics: [320, 320, 160, 120]")
    assert "not those of" in prepare_cameras(make_cameras(), other, observations).notes[0]


def test_files_of_exactly_the_kept_frames_are_taken_whole(tmp_path):
    write_video(tmp_path / "video.mp4", frames=20)
    sequence = opened(tmp_path, f"frames: [3, {2 + FRAMES}]")
    kept = prepare_observations(make_observations(make_state()), sequence)
    assert kept.keypoints.shape[1] == FRAMES


def test_lengths_that_disagree_are_named(tmp_path):
    sequence = open_sequence(write_sequence(tmp_path))
    observations = make_observations(make_state())
    with pytest.raises(InputError, match="cameras.npz has 5 frames, observations 8"):
        prepare_cameras(make_cameras(5), sequence, observations)
    larger = dataclasses.replace(make_cameras(), image_size=(640, 480))
    with pytest.raises(InputError, match=r"cameras.npz is for images of \(640, 480\) px"):
        prepare_cameras(larger, sequence, observations)
    write_video(tmp_path / "video.mp4", frames=6)
    with pytest.raises(InputError, match="observations.npz has 8 frames, 'video.mp4' 6"):
        prepare_observations(make_observations(make_state()), open_sequence(tmp_path))


def test_a_given_rate_outweighs_the_files(tmp_path):
    sequence = opened(write_sequence(tmp_path), "fps: 50")
    observations = prepare_observations(make_observations(make_state()), sequence)
    assert observations.fps == 50
    assert observations.timestamps[1] == 0.02


def test_a_file_without_times_takes_those_of_the_video(tmp_path):
    write_video(tmp_path / "video.mp4")
    sequence = open_sequence(tmp_path)
    stamps = torch.tensor([0.0, 0.04, 0.08, 0.5, 0.54, 0.58, 0.9, 0.94], dtype=torch.float64)
    video = dataclasses.replace(sequence.video, timestamps=stamps, fps=25.0)
    sequence = dataclasses.replace(sequence, video=video)
    observations = make_observations(make_state())
    assert torch.equal(prepare_observations(observations, sequence).timestamps, stamps)
    own = dataclasses.replace(observations, timestamps=2 * stamps)
    assert torch.equal(prepare_observations(own, sequence).timestamps, 2 * stamps)


def test_heights_of_both_files(tmp_path):
    sequence = opened(
        write_sequence(tmp_path, 3), "height_m: {1: 1.7, 2: 1.6}", "height_m: {2: 1.65}"
    )
    heights = known_heights(sequence, make_observations(make_state(3)))
    assert heights[:2].tolist() == [1.7, 1.65]
    assert heights[2].isnan()


def test_a_height_of_nobody(tmp_path):
    sequence = opened(write_sequence(tmp_path), "height_m: {5: 1.7}")
    with pytest.raises(InputError, match="names person 5"):
        known_heights(sequence, make_observations(make_state()))


def test_settings_are_immutable(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        open_sequence(write_sequence(tmp_path)).settings.fps = 3


def test_a_file_in_place_of_the_directory_is_said(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"")
    with pytest.raises(InputError, match="is a file; put it into a directory"):
        open_sequence(clip)
