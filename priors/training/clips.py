"""Windows of recorded motion, balanced over kinds of motion and varied beyond what was recorded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.rotation6d import rows_to_matrix
from priors.training.procedural import JOINTS

FPS = 30.0
HELD_OUT = Path(__file__).with_name("held_out.txt")
# Share of each group of motions, by the name of its file; the first match counts. Walking and
# everyday motion are what videos show; dance and idling make up most of the recorded minutes.
PROCEDURAL = "procedural"
GROUPS: tuple[tuple[str, str, float], ...] = (
    (PROCEDURAL, r"^proc_", 0.22),
    ("walk and run", r"cmu_bvh_(007|002_0[123])|02_0[123]|humanoid3d_(walk|run)", 0.24),
    ("everyday", r"cmu_bvh_(001|002)|02_0", 0.14),
    ("sport", r"cmu_bvh_006|martial|humanoid3d_(kick|punch|spinkick|jump)", 0.12),
    ("floor and acrobatics", r"humanoid3d_(crawl|getup|roll|cartwheel|backflip)", 0.05),
    ("idle", r"reactidle", 0.07),
    ("dance", r"cmu_bvh_005|salsa|indian|humanoid3d_(dance|spin)", 0.16),
)
OTHER_SHARE = 0.14  # of motions that no pattern knows: a user's own
WARP = (0.75, 1.3)  # playing speed
ARM_PARTS = {"collar", "shoulder", "elbow", "wrist"}
TRUNK_PARTS = {"spine1", "spine2", "spine3", "neck", "head"}
ARMS = tuple(i for i, name in enumerate(JOINTS) if name.split("_")[-1] in ARM_PARTS)
TRUNK = tuple(i for i, name in enumerate(JOINTS) if name in TRUNK_PARTS)
SWAP_ARMS, SWAP_TRUNK = 0.3, 0.1  # share of windows with the arms or the trunk of another motion
WOBBLE_DEG = {"arm": 9.0, "trunk": 4.0, "leg": 3.0}  # constant in a window, and its slow change
# What the card of every network trained on these recordings says.
LICENCE = "Apache-2.0 for the weights; the recordings are not included and may not be resold"
ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217. "
    "Idle motions: ReActIdle (MIT, RSAIT 2025). Short clips: DeepMimic data in bullet3 (zlib). "
    "Others are made by this project."
)
CONTACT_MIRROR = (2, 3, 0, 1)


@dataclass(frozen=True)
class Windows:
    """N windows of T frames at 30 fps, z up."""

    rotations: Float[Tensor, "N T 22 3 3"]  # world_from_root, then local
    pelvis: Float[Tensor, "N T 3"]
    contacts: Float[Tensor, "N T 4"]
    present: Bool[Tensor, "N T"]  # inside the recording
    tracked: Bool[Tensor, "N 22"]  # recorded, not filled in
    group: Int[Tensor, "N"]

    def to(self, dtype: torch.dtype) -> "Windows":
        """Same windows in another floating point type."""
        return replace(
            self, rotations=self.rotations.to(dtype), pelvis=self.pelvis.to(dtype),
            contacts=self.contacts.to(dtype),
        )  # fmt: skip


@dataclass(frozen=True)
class Library:
    """All frames of all clips in one row, and where each clip lies."""

    names: tuple[str, ...]
    group: Int[Tensor, "C"]
    start: Int[Tensor, "C"]
    length: Int[Tensor, "C"]
    share: Float[Tensor, "C"]  # probability of each clip
    rotations: Float[Tensor, "F 22 3 3"]
    pelvis: Float[Tensor, "F 3"]
    contacts: Float[Tensor, "F 4"]
    tracked: Bool[Tensor, "C 22"]


def group_of(name: str) -> int:
    """Index into GROUPS of a motion by the name of its file; len(GROUPS) for an unknown one."""
    for index, (_, pattern, _) in enumerate(GROUPS):
        if re.search(pattern, name):
            return index
    return len(GROUPS)


def group_name(index: int) -> str:
    """Name of a group by its index."""
    return GROUPS[index][0] if index < len(GROUPS) else "other"


def is_held_out(name: str) -> bool:
    """True for the clips that no training sees: those listed, every eighth procedural one."""
    made = re.fullmatch(r"proc_\w+_(\d+)", name)
    return int(made[1]) % 8 == 3 if made is not None else name in _listed()


@lru_cache(maxsize=1)
def _listed() -> frozenset[str]:
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def clip_names(directory: Path, *, held_out: bool) -> list[str]:
    """Names of a directory's motions: those held out, or those to train on."""
    names = sorted(path.stem for path in directory.glob("*.npz"))
    return [name for name in names if is_held_out(name) == held_out]


def read_library(directory: Path, names: Sequence[str] | None = None) -> Library:
    """Motion files of a directory (those of `names`, or all).

    Raises ValueError if there is none, or for a file that is no motion at 30 fps with contacts.
    """
    paths = sorted(p for p in directory.glob("*.npz") if names is None or p.stem in set(names))
    if len(paths) == 0:
        raise ValueError(f"'{directory}' holds no motion file; make some: slamhmr import-motion")
    clips = [_read_clip(path) for path in paths]
    groups = torch.tensor([group_of(path.stem) for path in paths])
    length = torch.tensor([len(clip["pelvis"]) for clip in clips])
    wanted = torch.tensor([share for _, _, share in GROUPS] + [OTHER_SHARE])
    frames = torch.zeros(len(wanted)).index_add(0, groups, length.float())
    share = wanted[groups] * length / frames[groups]
    joined = {key: torch.cat([clip[key] for clip in clips]) for key in ("pelvis", "contacts")}
    return Library(
        names=tuple(path.stem for path in paths),
        group=groups,
        start=torch.cumsum(length, 0) - length,
        length=length,
        share=share / share.sum(),
        rotations=torch.cat([clip["rotations"] for clip in clips]),
        tracked=torch.stack([clip["tracked"] for clip in clips]),
        **joined,
    )


def read_split(directory: Path) -> tuple[Library, Library]:
    """Motions of a directory to train on, and those held out to score.

    Raises ValueError if there are none of either kind, or for a file that is no motion.
    """
    seen, unseen = (clip_names(directory, held_out=held_out) for held_out in (False, True))
    if len(seen) > 0 and len(unseen) == 0:
        raise ValueError(
            f"'{directory}' holds no motion to score on; name one like a line of {HELD_OUT.name}, "
            "or proc_NAME_3"
        )
    if len(unseen) > 0 and len(seen) == 0:
        raise ValueError(f"'{directory}' holds only motions that are held out to score; add others")
    return read_library(directory, seen), read_library(directory, unseen)


def _read_clip(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        lacking = {"root_orient", "pelvis", "body_pose", "contacts", "tracked", "fps"} - set(
            arrays.files
        )
        if lacking or abs(float(arrays["fps"]) - FPS) > 0.01:
            raise ValueError(
                f"motion '{path}' lacks {', '.join(sorted(lacking)) or '30 fps'}; import it again "
                "with slamhmr import-motion"
            )
        vectors = np.concatenate([arrays["root_orient"][:, None], arrays["body_pose"]], axis=1)
        return {
            "rotations": roma.rotvec_to_rotmat(torch.from_numpy(vectors).double()).float(),
            "pelvis": torch.from_numpy(arrays["pelvis"]).float(),
            "contacts": torch.from_numpy(arrays["contacts"]).float(),
            "tracked": torch.cat([torch.ones(1), torch.from_numpy(arrays["tracked"])]).bool(),
        }


def sample_windows(
    library: Library, count: int, frames: int, generator: torch.Generator, *, vary: bool = True
) -> Windows:
    """Random windows; with `vary` warped, mirrored, blended with each other and wobbled."""
    if not vary:
        return _cut(library, count, frames, generator, (1.0, 1.0))
    windows = _cut(library, count, frames, generator, WARP)
    donors = _cut(library, count, frames, generator, WARP)
    rotations = windows.rotations.clone()
    for joints, probability in ((ARMS, SWAP_ARMS), (TRUNK, SWAP_TRUNK)):
        picked = (torch.rand(count, generator=generator) < probability).nonzero()[:, 0]
        places = torch.tensor(joints) + 1
        rotations[picked[:, None], :, places] = donors.rotations[picked[:, None], :, places]
    windows = replace(windows, rotations=_wobble(rotations, generator))
    return _mirror(windows, torch.rand(count, generator=generator) < 0.5)


def _cut(
    library: Library, count: int, frames: int, generator: torch.Generator, warp: tuple[float, float]
) -> Windows:
    clip = torch.multinomial(library.share, count, replacement=True, generator=generator)
    low, high = warp
    speed = low * (high / low) ** torch.rand(count, generator=generator)
    length, span = library.length[clip], (frames - 1) * speed
    room = length - 1 - span  # negative: the window is longer than the clip
    offset = torch.rand(count, generator=generator) * room
    at = offset[:, None] + speed[:, None] * torch.arange(frames)
    present = (at >= 0) & (at <= length[:, None] - 1)
    at = at.clamp_min(0).minimum(length[:, None] - 1.0)
    left = at.floor().long().minimum(length[:, None] - 2).clamp_min(0)
    share = (at - left).clamp(0, 1)[..., None]
    first = library.start[clip][:, None] + left
    second = first + (length[:, None] > 1).long()
    rows = library.rotations[..., :2, :].flatten(start_dim=-2)
    mixed = torch.lerp(rows[first], rows[second], share[..., None])
    return Windows(
        rotations=rows_to_matrix(mixed),
        pelvis=torch.lerp(library.pelvis[first], library.pelvis[second], share),
        contacts=torch.lerp(library.contacts[first], library.contacts[second], share),
        present=present,
        tracked=library.tracked[clip],
        group=library.group[clip],
    )


def _wobble(
    rotations: Float[Tensor, "N T 22 3 3"], generator: torch.Generator
) -> Float[Tensor, "N T 22 3 3"]:
    """Body joints turned by a random amount that changes slowly over the window."""
    count, frames = rotations.shape[:2]
    ends = torch.randn(2, count, 1, 21, 3, generator=generator)
    blend = torch.linspace(0, 1, frames)[:, None, None]
    vectors = ends[0] * (1 - 0.5 * blend) + 0.5 * ends[1] * blend
    scale = torch.full((21,), WOBBLE_DEG["leg"])
    scale[list(ARMS)], scale[list(TRUNK)] = WOBBLE_DEG["arm"], WOBBLE_DEG["trunk"]
    strength = torch.rand(count, 1, 1, 1, generator=generator)
    turn = roma.rotvec_to_rotmat(torch.deg2rad(scale)[:, None] * strength * vectors / 3**0.5)
    return torch.cat([rotations[:, :, :1], rotations[:, :, 1:] @ turn], dim=2)


def _mirror(windows: Windows, chosen: Bool[Tensor, "N"]) -> Windows:
    """Left and right of the chosen windows exchanged, in the plane x = 0 of body and world."""
    swap = {"left": "right", "right": "left"}
    parts = [name.partition("_") for name in JOINTS]
    order = [0] + [1 + JOINTS.index(f"{swap.get(a, a)}{b}{c}") for a, b, c in parts]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    rotations = windows.rotations[:, :, order] * flip[:, None] * flip
    pick = chosen[:, None, None]
    return replace(
        windows,
        rotations=torch.where(pick[..., None, None], rotations, windows.rotations),
        pelvis=torch.where(pick, windows.pelvis * flip, windows.pelvis),
        contacts=torch.where(pick, windows.contacts[..., list(CONTACT_MIRROR)], windows.contacts),
        tracked=torch.where(chosen[:, None], windows.tracked[:, order], windows.tracked),
    )
