"""Libraries of motion and windows cut from them."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from recordings import rig, write_recording, write_recordings

from priors.training import clips
from priors.training.clips import (
    CONTACT_MIRROR,
    GROUPS,
    Library,
    clip_names,
    group_name,
    group_of,
    is_held_out,
    read_library,
    sample_windows,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motions")
    write_recordings(folder)
    return folder


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clock(length: int = 90) -> Library:
    """One clip in which everything tells the time: the pelvis, the contacts, every angle."""
    time = torch.arange(length).float()
    vectors = torch.zeros(length, 22, 3)
    vectors[..., 2] = (time / length)[:, None]
    return Library(
        names=("clock",), group=torch.tensor([0]), start=torch.tensor([0]),
        length=torch.tensor([length]), share=torch.ones(1),
        rotations=roma.rotvec_to_rotmat(vectors),
        pelvis=time[:, None].expand(-1, 3).clone(),
        contacts=(time / length)[:, None].expand(-1, 4).clone(),
        tracked=torch.ones(1, 22, dtype=torch.bool),
    )  # fmt: skip


def test_shares_sum_to_one_and_groups_have_theirs(folder):
    library = read_library(folder)
    assert float(library.share.sum()) == pytest.approx(1)
    wanted = dict(enumerate(share for _, _, share in GROUPS))
    present = sorted(set(library.group.tolist()))
    total = sum(wanted[index] for index in present)
    for index in present:
        found = float(library.share[library.group == index].sum())
        assert found == pytest.approx(wanted[index] / total, rel=1e-5)
    walk = library.group == group_of("cmu_bvh_007_01")
    per_frame = library.share[walk] / library.length[walk]
    torch.testing.assert_close(per_frame, per_frame[:1].expand_as(per_frame))


def test_clips_lie_where_the_library_says(folder):
    library = read_library(folder)
    for index, name in enumerate(library.names):
        with np.load(folder / f"{name}.npz") as arrays:
            rows = slice(
                int(library.start[index]), int(library.start[index] + library.length[index])
            )
            np.testing.assert_allclose(library.pelvis[rows], arrays["pelvis"], atol=1e-6)
    assert len(library.pelvis) == int(library.length.sum())


def test_no_clip_is_both_held_out_and_trained_on(folder):
    held, trained = (set(clip_names(folder, held_out=flag)) for flag in (True, False))
    assert held & trained == set()
    assert held | trained == {path.stem for path in folder.glob("*.npz")}
    assert {"proc_walk_0003", "proc_seated_0011", "cmu_bvh_002_03"} >= held - {"reactidle_001"}
    assert {"proc_walk_0003", "proc_seated_0011"} <= held
    library = read_library(folder, sorted(trained))
    assert set(library.names) == trained


@pytest.mark.parametrize(
    ("name", "held"),
    [("proc_walk_0003", True), ("proc_sit_down_1011", True), ("proc_walk_0004", False),
     ("somebody_else", False)],
)  # fmt: skip
def test_what_is_held_out(name: str, held: bool):
    assert is_held_out(name) == held


def test_every_group_has_a_name_and_the_first_match_counts():
    assert group_name(group_of("cmu_bvh_007_01")) == "walk and run"
    assert group_name(group_of("cmu_bvh_002_01")) == "walk and run"
    assert group_name(group_of("cmu_bvh_002_05")) == "everyday"
    assert group_name(group_of("my_own_walk")) == "other"
    assert sum(share for _, _, share in GROUPS) == pytest.approx(1)


def test_files_that_are_no_motion_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no motion file"):
        read_library(tmp_path)
    for name, other, match in (
        ("contacts", {"contacts": None}, "lacks contacts"),
        ("rate", {"fps": 120.0}, "30 fps"),
        ("norate", {"fps": None}, "lacks fps"),
    ):
        write_recording(tmp_path / f"{name}.npz", 10, 0, **other)
        with pytest.raises(ValueError, match=match):
            read_library(tmp_path, [name])


@pytest.mark.parametrize("frames", [40, 81, 200])
def test_warped_windows_keep_contacts_with_frames(frames: int):
    library = clock()
    windows = clips._cut(library, 60, frames, draw(), (0.75, 1.3))
    time = windows.pelvis[..., 0]
    torch.testing.assert_close(windows.contacts, (time / 90)[..., None].expand(-1, -1, 4))
    angle = roma.rotmat_to_rotvec(windows.rotations)[..., 2]
    torch.testing.assert_close(angle, (time / 90)[..., None].expand(-1, -1, 22), atol=1e-4, rtol=0)
    step = torch.diff(time)[windows.present[:, 1:] & windows.present[:, :-1]]
    assert 0.7499 < float(step.min()) < 0.9
    assert 1.15 < float(step.max()) < 1.3001
    # outside of the recording its ends are held
    assert bool((windows.present | (time == 0) | (time == 89)).all())
    assert bool(windows.present.any(dim=1).all())
    assert bool(windows.present.all()) == (frames == 40)


def test_windows_without_variation_are_the_recording():
    windows = sample_windows(clock(), 20, 30, draw(), vary=False)
    torch.testing.assert_close(
        torch.diff(windows.pelvis[..., 0]), torch.ones(20, 29), atol=1e-4, rtol=0
    )


def test_the_same_seed_gives_the_same_windows(folder):
    library = read_library(folder)
    first, again, other = (sample_windows(library, 8, 30, draw(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.rotations, again.rotations)
    assert not torch.equal(first.rotations, other.rotations)


def test_varied_windows_are_rotations_with_untouched_roots(folder):
    library = read_library(folder)
    windows = sample_windows(library, 20, 30, draw())
    identity = torch.eye(3).expand_as(windows.rotations)
    torch.testing.assert_close(
        windows.rotations @ windows.rotations.mT, identity, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(windows.rotations), identity[..., 0, 0])


def test_a_clip_of_one_frame_can_be_cut():
    library = clock(1)
    windows = clips._cut(library, 5, 10, draw(), (1.0, 1.0))
    assert bool(torch.isfinite(windows.rotations).all())
    assert windows.pelvis.abs().max() == 0


def test_mirrored_twice_is_the_same_and_once_is_a_mirror_image(folder):
    windows = sample_windows(read_library(folder), 10, 20, draw())
    windows = replace(windows, tracked=torch.rand(10, 22, generator=draw()) < 0.7)
    chosen = torch.arange(10) < 6
    once = clips._mirror(windows, chosen)
    twice = clips._mirror(once, chosen)
    for name in ("rotations", "pelvis", "contacts", "tracked"):
        assert torch.equal(getattr(twice, name), getattr(windows, name)), name
        assert torch.equal(getattr(once, name)[6:], getattr(windows, name)[6:]), name
    assert torch.equal(once.contacts[:6], windows.contacts[:6][..., list(CONTACT_MIRROR)])


def test_a_mirrored_motion_puts_mirrored_joints_there(folder):
    """Of a symmetric body: rest points mirrored with names left and right exchanged."""
    windows = sample_windows(read_library(folder), 4, 15, draw())
    body = rig()
    swap = {"left": "right", "right": "left"}
    parts = [name.partition("_") for name in body.names]
    order = [body.names.index(f"{swap.get(a, a)}{b}{c}") for a, b, c in parts]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    even = replace(body, template=(body.template + body.template[order] * flip) / 2)
    rest = even.rest(torch.zeros(4, body.shapedirs.shape[-1]))
    points, _ = even.forward(rest, windows.rotations)
    mirrored, _ = even.forward(
        rest, clips._mirror(windows, torch.ones(4, dtype=torch.bool)).rotations
    )
    torch.testing.assert_close(mirrored, points[:, :, order] * flip, atol=1e-5, rtol=0)
