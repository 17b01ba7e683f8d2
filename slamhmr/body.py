"""The body: SMPL-format shape, forward kinematics and skinning, on tensors.

Body space is SMPL's: y up, +x the body's left, +z forward, T-pose at zero pose. The 24 SMPL joints
and a handful of landmarks are the *points* of the body; the solver moves points only, vertices are
for pictures and exports. The default body is made by `assets/build_body.py`, which also says how
exact it is. Source: Loper et al. 2015 (SMPL), section 3; no code of the `smplx` package.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slamhmr.skeleton import BODY_JOINT_COUNT, SMPL_JOINTS, SMPL_PARENTS

HAND_PARENTS = (SMPL_PARENTS[22], SMPL_PARENTS[23])  # hands follow the wrists
CHUNK_FRAMES = 32  # frames skinned at once: 32 x 13718 vertices x 12 numbers x 8 bytes = 42 MB


@dataclass(frozen=True)
class BodyModel:
    """A body of SMPL's format; the joint regressor has been applied once, at loading.

    J is 24 (SMPL), 52 (SMPL-H) or 55 (SMPL-X); the first 22 joints are those of SMPL. Metres, body
    space; the pelvis joint is in general not at the origin.
    """

    name: str
    gender: str
    v_template: Float[Tensor, "V 3"]
    shapedirs: Float[Tensor, "V 3 B"]
    posedirs: Float[Tensor, "V 3 D"] | None  # D = 9 (J - 1)
    weights: Float[Tensor, "V J"]
    faces: Int[Tensor, "F 3"]
    parents: tuple[int, ...]  # J entries, -1 for the pelvis
    joint_template: Float[Tensor, "J 3"]
    joint_shapedirs: Float[Tensor, "J 3 B"]
    landmark_names: tuple[str, ...]
    landmark_joint: Int[Tensor, "L"]  # the one of the 24 SMPL joints that each landmark is rigid on
    landmark_template: Float[Tensor, "L 3"]
    landmark_shapedirs: Float[Tensor, "L 3 B"]
    segment: Int[Tensor, "V"]  # index into `body_licensed.SEGMENTS`, to colour pictures

    @property
    def point_names(self) -> tuple[str, ...]:
        """The 24 SMPL joint names, then the landmark names."""
        return SMPL_JOINTS + self.landmark_names

    @cached_property
    def point_parent(self) -> Int[Tensor, "P"]:
        """SMPL joint whose rotation carries each point; the pelvis carries itself."""
        joints = torch.tensor([0, *SMPL_PARENTS[1:]])
        return torch.cat([joints.to(self.landmark_joint), self.landmark_joint])

    @cached_property
    def point_template(self) -> Float[Tensor, "P 3"]:
        """Rest positions of the points at zero betas."""
        return torch.cat([self._smpl_rows(self.joint_template), self.landmark_template])

    @cached_property
    def point_shapedirs(self) -> Float[Tensor, "P 3 B"]:
        """Change of the rest positions of the points per unit beta."""
        return torch.cat([self._smpl_rows(self.joint_shapedirs), self.landmark_shapedirs])

    @cached_property
    def point_path(self) -> Float[Tensor, "P P"]:
        """1 where the bone ending in point q (column) lies between the pelvis and point p."""
        path = torch.zeros(
            len(self.point_names), len(self.point_names), dtype=self.v_template.dtype
        )
        for point, parent in enumerate(self.point_parent.tolist()):
            path[point] = path[parent]
            path[point, point] = 1
        path[:, 0] = 0
        return path.to(self.v_template)

    @cached_property
    def skin_weights(self) -> Float[Tensor, "V 22"]:
        """Skinning weights with fingers, jaw and eyes merged into the joint that carries them."""
        carrier = list(range(BODY_JOINT_COUNT))
        for parent in self.parents[BODY_JOINT_COUNT:]:
            carrier.append(carrier[parent])
        merged = torch.zeros_like(self.weights[:, :BODY_JOINT_COUNT])
        index = torch.tensor(carrier, device=merged.device)
        return merged.index_add(1, index, self.weights)

    def _smpl_rows(self, joints: Tensor) -> Tensor:
        """The 24 SMPL rows of a per-joint array; with fingers, a hand is the mean of knuckles."""
        count = len(self.parents)
        if count == len(SMPL_JOINTS):
            return joints
        first = (
            count - 30
        )  # SMPL-H and SMPL-X end in 2 x 15 finger joints: index, middle, pinky, ring, thumb
        hands = [joints[[start, start + 3, start + 9]].mean(dim=0) for start in (first, first + 15)]
        return torch.cat([joints[:BODY_JOINT_COUNT], torch.stack(hands)])


def rest_points(body: BodyModel, betas: Float[Tensor, "N B"]) -> Float[Tensor, "N P 3"]:
    """Rest positions of the body's points for each shape, body space, metres."""
    return body.point_template + torch.einsum("pdb,nb->npd", body.point_shapedirs, betas)


def forward_points(
    body: BodyModel,
    betas: Float[Tensor, "N B"],
    root: Float[Tensor, "N T 3 3"],
    pelvis: Float[Tensor, "N T 3"],
    body_rotations: Float[Tensor, "N T 21 3 3"],
) -> tuple[Float[Tensor, "N T P 3"], Float[Tensor, "N T 24 3 3"]]:
    """Positions of the body's points and global rotations of its 24 joints, in `root`'s frame.

    `root` is frame_from_root, `pelvis` the position of the pelvis joint in that frame; hands follow
    the wrists. x_p = pelvis + sum of G_parent(q) (rest_q - rest_parent(q)) over the bones q from
    the pelvis to p.
    """
    rotations = _global_rotations(root, body_rotations)
    rest = rest_points(body, betas)
    bones = rest - rest[:, body.point_parent]
    turned = torch.einsum("ntpij,npj->ntpi", rotations[:, :, body.point_parent], bones)
    walked = torch.einsum("pq,ntqi->ntpi", body.point_path, turned)
    return pelvis[:, :, None] + walked, rotations


def vertices(
    body: BodyModel,
    betas: Float[Tensor, "N B"],
    root: Float[Tensor, "N T 3 3"],
    pelvis: Float[Tensor, "N T 3"],
    body_rotations: Float[Tensor, "N T 21 3 3"],
) -> Float[Tensor, "N T V 3"]:
    """Skinned mesh in `root`'s frame, with pose-dependent offsets where the body has them.

    Fingers, jaw and eyes rest. Beyond the result, memory is bounded by CHUNK_FRAMES.
    """
    rest = rest_points(body, betas)[:, :BODY_JOINT_COUNT]
    transl = transl_from_pelvis(
        body, betas, pelvis
    )  # added last: files' weights sum to 1 only nearly
    points, rotations = forward_points(body, betas, root, pelvis - transl, body_rotations)
    rotations = rotations[:, :, :BODY_JOINT_COUNT]
    shift = points[:, :, :BODY_JOINT_COUNT] - (rotations @ rest[:, None, :, :, None])[..., 0]
    transforms = torch.cat([rotations, shift[..., None]], dim=-1).flatten(start_dim=-2)
    shaped = body.v_template + torch.einsum("vdb,nb->nvd", body.shapedirs, betas)
    people = []
    for person in range(len(betas)):
        frames = range(0, transforms.shape[1], CHUNK_FRAMES)
        chunks = [
            _skin(
                body,
                shaped[person],
                transforms[person, first : first + CHUNK_FRAMES],
                body_rotations[person, first : first + CHUNK_FRAMES],
            )
            for first in frames
        ]
        people.append(torch.cat(chunks) + transl[person, :, None])
    return torch.stack(people)


def transl_from_pelvis(
    body: BodyModel, betas: Float[Tensor, "N B"], pelvis: Float[Tensor, "N T 3"]
) -> Float[Tensor, "N T 3"]:
    """SMPL's `transl` of a pelvis position: transl = pelvis - rest pelvis joint.

    The root turns about the pelvis joint, so no rotation enters.
    """
    return pelvis - rest_points(body, betas)[:, None, 0]


def pelvis_from_transl(
    body: BodyModel, betas: Float[Tensor, "N B"], transl: Float[Tensor, "N T 3"]
) -> Float[Tensor, "N T 3"]:
    """Position of the pelvis joint of SMPL's `transl`; inverse of `transl_from_pelvis`."""
    return transl + rest_points(body, betas)[:, None, 0]


def load_body(model: str | Path = "default", *, dtype: torch.dtype = torch.float64) -> BodyModel:
    """Body model "default", "default-hands" (52 joints), or of a licensed file (.npz or .pkl).

    Licensed are SMPL, SMPL-H and SMPL-X; their first 10 betas are used. Raises InputError for a
    file that is no such model, MissingAsset for one that does not exist.
    """
    from slamhmr.body_files import read_body

    return read_body(model, dtype=dtype)


def _global_rotations(
    root: Float[Tensor, "N T 3 3"], body_rotations: Float[Tensor, "N T 21 3 3"]
) -> Float[Tensor, "N T 24 3 3"]:
    chain = [root]
    for joint in range(1, BODY_JOINT_COUNT):
        chain.append(chain[SMPL_PARENTS[joint]] @ body_rotations[:, :, joint - 1])
    chain.extend(chain[parent] for parent in HAND_PARENTS)
    return torch.stack(chain, dim=2)


def _skin(
    body: BodyModel,
    shaped: Float[Tensor, "V 3"],
    transforms: Float[Tensor, "T 22 12"],
    body_rotations: Float[Tensor, "T 21 3 3"],
) -> Float[Tensor, "T V 3"]:
    """Linear blend skinning of one person: Loper et al. 2015, equations 2-4 and 9."""
    posed = shaped.expand(len(transforms), -1, -1)
    if body.posedirs is not None:
        feature = (body_rotations - torch.eye(3).to(shaped)).flatten(start_dim=1)
        used = body.posedirs[..., : feature.shape[1]]  # joints beyond the body rest: no offset
        posed = posed + torch.einsum("vdf,tf->tvd", used, feature)
    blended = (body.skin_weights @ transforms).reshape(*posed.shape, 4)
    return (blended[..., :3] @ posed[..., None])[..., 0] + blended[..., 3]
